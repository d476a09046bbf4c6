/* What a run will do, as data: each linear's fate, the memory plan, the disk space. plan/planner.h decides it before any
 * work. */
#ifndef QUANT_PLAN_H
#define QUANT_PLAN_H

#include "formats/read/matrix.h"
#include "host/base/comm.h"
#include "host/model/acts.h"
#include "host/model/sampling.h"
#include "host/model/stored_embedding.h"
#include "host/quant/options.h"

/* Windows held out by default: an eighth of the samples, at most this many. */
#define HOLDOUT_MAX 16u

struct memory_line {
    const char *name; /* "block weights", "hessian q,k,v" ... */
    uint64_t bytes;
};

/* Several ranks at the run (comm.h). */
enum { PLAN_RANKS_MOST = 64, PLAN_LAYOUTS = 8 };
struct plan_layout {
    uint32_t ranks;
    /* Of each kind of work what the busiest rank does, as a share of what one alone does; 0: there is none. kinds: their names. */
    const char *const *kinds;
    uint32_t n_kinds;
    double shares[16];
    double seconds, exchange; /* of the whole run, and of these to wait for what is exchanged; 0: not known */
};
struct plan_ranks {
    uint32_t n;    /* so many; 0: one, and no other number was asked for */
    double link;   /* bytes a second between two of them; 0: not known */
    bool measured; /* else it was given */
    /* Of each, what it sends and gets, if no half of a block is best as it was and no training diverges. */
    struct comm_bytes bytes[PLAN_RANKS_MOST];
    uint64_t waits[COMM_KINDS];               /* bytes one after the other until all have all */
    uint64_t device_bytes, host_bytes;        /* of the one that holds most */
    struct plan_layout layouts[PLAN_LAYOUTS]; /* 1, 2, 4 ... ranks over that link, as many as these, last */
    unsigned n_layouts;
};

/* What the run would take at one of the efforts, all else as it is. */
struct plan_effort {
    uint32_t samples, steps, epochs, scale_epochs;
    double seconds; /* 0: it would be refused */
    bool chosen;    /* it is this run */
    char why[192];  /* of the refusal */
};

/* Types that were chosen for a size (plan/allot.h). */
struct plan_choice {
    char *rules;            /* a line for each: "REGEX=TYPE"; NULL: types were named */
    const char *main;       /* what they are exceptions from: of a GGUF its --type, of a folder its --bits */
    struct quant_spec spec; /* the same, as options have it */
    double cost;            /* predicted divergence, nats per token */
    bool measured;          /* else it is a first guess, by the bits alone */
    uint64_t small, large;  /* sizes of the output that are possible */
};

/* What a run starts from besides the model; either may be NULL. */
struct imatrix;
struct plan_sources {
    const struct model *refined;   /* the GGUF whose codes are learned anew */
    const struct imatrix *imatrix; /* importance of inputs */
};

struct plan {
    struct plan_sources from;
    struct matrix *matrices; /* every 2-D weight, in file order; a type is chosen for each where a GGUF is written */
    size_t n_matrices;
    struct matrix *items; /* of these the linears of the blocks, by layer then place */
    size_t n_items;
    struct export_plan *output; /* what will be written; NULL: a refined file */
    bool refines;               /* a file's codes are learned anew, and its types stay */
    uint32_t n_layers;
    double bpw;      /* mean bits per weight over the quantized linears */
    double file_bpw; /* the same over all 2-D weights of a GGUF; else 0 */
    uint64_t weights, weights_quantized;
    uint64_t out_bytes, work_bytes, disk_free;
    struct memory_line lines[16]; /* device memory at the widest moment */
    size_t n_lines;
    uint64_t device_bytes, device_limit;
    uint64_t host_bytes;    /* beyond mapped files */
    const char *acts_tier;  /* "device" | "host" | "file" */
    uint32_t batch_windows; /* windows per forward batch */
    uint32_t micro_windows; /* block objective: windows per forward and backward pass */
    uint32_t scale_micro;   /* the same for the pass over scales */
    uint32_t ctx, samples;
    uint32_t holdout;                                     /* of the samples, how many windows only judge */
    struct sampling sampling;                             /* of the calibration, where the model writes it */
    uint64_t tune_bytes;                                  /* optimiser state at a time */
    uint64_t acts_bytes;                                  /* of all windows, once */
    uint64_t scale_acts_bytes;                            /* of what the pass over scales keeps */
    enum acts_tier student_acts, teacher_acts, kept_acts; /* where they go; kept: of the pass over scales */
    uint32_t output_windows;     /* of the pass that finds Hessians of outputs (output_hessian.h); 0: there is none */
    uint32_t output_micro;       /* on the device at a time */
    uint64_t output_acts_bytes;  /* of what it keeps meanwhile */
    enum acts_tier output_acts;  /* where the first go */
    bool output_head_stays;      /* in that pass, a large head is on the device (head.h) */
    uint32_t measure_windows;    /* of the pass that measures what types cost (sensitivity.h); 0: there is none */
    uint32_t measure_micro;      /* on the device at a time */
    uint64_t measure_acts_bytes; /* of what it keeps meanwhile */
    enum acts_tier measure_acts; /* where the first go */
    bool measure_head_stays;     /* in that pass, a large head is on the device */
    struct plan_choice choice;
    bool experts_near; /* what experts read and give is on the device */
    bool experts; /* the model has them; scales are not trained end to end: each step would load every expert twice */
    bool experts_alone;       /* and nothing else is trained on its output */
    bool chained;             /* plan_chained */
    bool attn_alone;          /* linears of attention learn alone: nothing goes back through it, nor end to end */
    bool codes_stay;          /* in that pass, all codes are on the device */
    bool head_stays;          /* in that pass, a large head is (head.h) */
    double reach;             /* sum of the learning rates of one linear's logits, Hessian objective */
    double block_reach;       /* the same for the block objective; 0: it is not used */
    uint32_t block_steps;     /* optimiser steps of each half of a block */
    uint32_t scale_steps;     /* of the pass over scales; 0: it is not done */
    double predicted_seconds; /* of the whole run; 0: not measured */
    double sample_seconds;    /* of that: the text that the model writes */
    struct plan_effort efforts[EFFORT_COUNT];
    unsigned n_efforts;        /* 0: not known, or the method has none */
    char run[33];              /* hash of what is asked for (identity_result); zeros until it is known */
    const char *made_by[2][2]; /* extra keys of a GGUF */
    struct plan_ranks ranks;
    uint32_t as_if_ranks; /* memory is counted for one of so many; 0: for all of it, by which sizes are chosen */
    double updates;       /* optimiser steps per second of a block's larger half, measured; 0: not */
};

/* The items of a layer. */
struct block_items plan_block(const struct plan *p, uint32_t layer);
/* Whether halves of blocks are trained on their outputs. */
bool plan_block_objective(const struct quantize_options *o);
/* Whether the scales learn together in the end. */
bool plan_scales(const struct quantize_options *o);
/* Whether the 16-bit model's hidden states are carried along. */
bool plan_teacher(const struct quantize_options *o);
/* Whether this run has hidden states of what halves should give: not where nothing but experts is trained, whose targets are made
 * one expert at a time. */
bool plan_targets(const struct plan *p, const struct quantize_options *o);
/* Whether these are a chain of the 16-bit model's own, carried along from block to block; else what the 16-bit weights of a half
 * make of the student's. Tokens of the chain go through each expert, too, so a model with experts has one only where
 * linears learn alone and make good what was lost before them. */
bool plan_chained(const struct plan *p);
/* Whether what linears that read it have lost can be told; a half where one reads another input makes nothing good. */
bool plan_corrects_input(enum input in);
/* Whether linears of that half make a share of what was lost before them good (drift.h): where there is such a chain, and the half is
 * an attention of q, k, v and o, or gate, up and down. */
bool plan_corrects(const struct plan *p, const struct quantize_options *o, enum block_half half, struct block_items b);
/* What of a layer all tokens go through: its items without those of experts; those of an expert. */
struct block_items plan_common(struct block_items b);
struct block_items plan_expert(struct block_items b, uint32_t expert);
/* Whether any linear of that half, or of these experts (HALF_EXPERTS), is trained together with others. */
bool plan_trains(const struct quantize_options *o, enum block_half half, struct block_items b);
/* Whether any expert of the run is. */
bool plan_trains_experts(const struct plan *p, const struct quantize_options *o);
/* Whether Hessians of outputs are wanted: where each linear learns alone, unless an option says otherwise. */
bool plan_output_hessian(const struct quantize_options *o);
/* The linear whose output is what that half adds to the hidden states, where its Hessian is known: then errors of the half's output count
 * by that. NULL: they all count alike. */
const struct matrix *plan_metric(const struct plan *p, const struct model *m, const struct quantize_options *o,
                                 enum block_half half, struct block_items b);
/* Whether a linear is trained together with its half of the block (tune_block.h); whether on its own Hessian
 * (tune_hessian.h). Both, where that is its start. */
bool plan_joint(const struct quantize_options *o, const struct matrix *item);
bool plan_alone(const struct quantize_options *o, const struct matrix *item);
/* Whether all matrices have types: of a GGUF. */
bool plan_typed(const struct plan *p);
/* How the embedding is rounded as it is written: students begin with that. type NULL: it stays as it is. */
struct rounding plan_embedding(const struct plan *p);
/* Whether a linear is quantized with its Hessian at all: not by RTN. */
bool plan_needs_hessian(const struct quantize_options *o, const struct matrix *item);
/* Whether an importance matrix has sums for it: not on latent attention's kv_b, which is rounded to nearest then. */
bool plan_has_importance(const struct matrix *item);
/* Whether any of that half is: its inputs are gathered. */
bool plan_gathers(const struct quantize_options *o, enum block_half half, struct block_items b);

#endif
