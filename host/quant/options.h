/* Every choice of a quantization run. Constants of docs/method.md are the defaults of quantize_defaults(); each is
 * an option of the command line (app/option_table.c). */
#ifndef QUANT_OPTIONS_H
#define QUANT_OPTIONS_H

#include "formats/gguf/gguf_type.h"
#include "formats/write/export.h"

enum method { METHOD_RTN, METHOD_GPTQ, METHOD_GSQ };
bool method_parse(const char *name, enum method *out);
const char *method_name(enum method m);

/* How much work a run does: each sets options that can also be set alone (quantize_set_effort). */
enum effort { EFFORT_QUICK, EFFORT_FAST, EFFORT_BALANCED, EFFORT_BEST, EFFORT_PAPER, EFFORT_COUNT };
bool effort_parse(const char *name, enum effort *out);
const char *effort_name(enum effort x);

/* Whether linears that learn alone do so with the Hessians of their outputs, too; auto: where that is all they learn by. */
enum output_hessian { OUTPUT_HESSIAN_AUTO, OUTPUT_HESSIAN_ON, OUTPUT_HESSIAN_OFF };
bool output_hessian_parse(const char *name, enum output_hessian *out);
const char *output_hessian_name(enum output_hessian x);

/* One --tensor or --keep, in command-line order; the last that matches a module wins. */
struct tensor_rule {
    const char *regex;             /* PCRE2, searched in the module name ("model.layers.0.mlp.up_proj") */
    const struct quant_type *type; /* by --bits's names; NULL: see gguf */
    uint32_t group;                /* 0: the run's group */
    const struct gguf_type *gguf;  /* a type of GGUF; NULL, too: keep in 16 bits */
    bool llama; /* as llama-quantize's --tensor-type: any case, and llama.cpp's names are tried first */
};

struct scale_search_options {
    uint32_t candidates; /* per sign: base * (1 - i/100), i < candidates. 80 (docs/method.md 1) */
    float power;         /* of the absolute error. 2.4 */
};

struct gumbel_options {
    uint32_t steps;             /* optimiser steps per linear */
    float tau0, tau1;           /* temperature, start and end: 2, 0.05 */
    float kappa0, kappa1;       /* logit factor, start and end: 100, 500 */
    float lr_logits, lr_scales; /* rates of a run of 1280 steps: 1e-4, 5e-5; multiplied by reach * 1280 / steps */
    float reach;                /* how far a logit can move in all steps, as a multiple of the paper's schedule */
    float lr_end;               /* cosine down to this share of the rate: 0.1 */
    float beta1, beta2;         /* Lion: 0.9, 0.95 */
    float decay;                /* of the logits, per unit of rate: 1 */
    float freeze; /* share of the steps after which scales of types with super-blocks are those of the file,
                     and only the codes learn on: 0.7 */
    float init_noise, init_gap; /* start logits: noise * (N(0,1) + gap * centred(-(c-d)^2/2)): 0.01, 6 */
};

/* Where linears that are trained together start. RTN needs no Hessians and no calibration of its own: quickest, least
 * good. */
enum start { START_RTN, START_GPTQ, START_HESSIAN };
bool start_parse(const char *name, enum start *out);
const char *start_name(enum start x);

/* The block objective: the linears of half a block trained together on its output (docs/method.md 3). Levels,
 * temperatures and rates are those of gumbel_options, with its own steps, reach and start. */
struct block_options {
    uint32_t epochs; /* passes over the windows that teach; 0: Hessian objective alone */
    uint32_t batch;  /* windows per optimiser step; 0: as many as make the paper's 1280 steps of all epochs, at
                       4 bits no fewer than 4 */
    float reach;     /* as gumbel_options.reach; K-quants take 0.4 of it */
    float init_noise, init_gap; /* of its own: 0.001, 60. The paper's noise, ten times as much, would change one code in
                                   fifty before anything is learned */
    bool train_qk;              /* q and k learn together with v and o */
    bool attn_alone; /* linears of attention learn alone: nothing goes back through it (the model settles it) */
    enum start start;
};

/* The last pass over scales: codes stay, all scales learn together on the whole model's output
 * (tune_scales.h). */
struct scales_options {
    uint32_t epochs;    /* passes over the windows that teach; 0: not done */
    uint32_t batch;     /* windows per optimiser step */
    float lr;           /* most that a step moves a scale, as a share of its size at the start */
    float lr_end;       /* cosine down to this share of the rate */
    float beta1, beta2; /* Adam */
};

struct gguf_override; /* write_gguf.h */

/* How large the output is to be; types are chosen for it by what their errors cost (plan/allot.h). One of these, or none. */
struct size_target {
    uint64_t bytes; /* of the whole output */
    double
        bpw; /* bits per weight: in a GGUF of all matrices, embeddings and head included; in a folder of the linears */
    const char *like; /* as large as that mixture's file */
};
static inline bool size_target_set(const struct size_target *t)
{
    return t->bytes || t->bpw > 0 || t->like;
}
struct allotment; /* plan/allot.h */

struct quantize_options {
    const char *model_dir, *out_dir; /* out_dir is a file with EXPORT_GGUF */
    const char *work_dir;            /* the work folder; NULL: OUT.work */
    enum method method;
    enum effort effort;                 /* what was asked for; its options may have been set otherwise since */
    const struct quant_type *code_type; /* --bits, or what the mixture quantizes to */
    uint32_t group;                     /* 0: 128; with EXPORT_GGUF the type's own */
    const char *mixture; /* --type, EXPORT_GGUF: the types of all tensors by llama-quantize's name (write_gguf.h); NULL:
                            the one that stores code_type */
    bool settled;        /* by quantize_settle */
    struct size_target target;
    const struct allotment
        *allotment; /* what is chosen from, once that is known; its costs are measured in a pass of this run. NULL:
                                          types were named */
    /* EXPORT_GGUF: exceptions of llama-quantize's options, above all rules. A tied matrix is the embedding. */
    const struct gguf_type *embedding_type, *head_type; /* NULL: by mixture and rules */
    bool keep_head;                                     /* lm_head, where it is stored, keeps its own type */
    bool pure;                                          /* the mixture's base type for every weight */
    bool requantize;                       /* a quantized source is taken: its values are rounded or learned again */
    const struct gguf_override *overrides; /* metadata (write_gguf.h) */
    size_t n_overrides;
    enum export_format format;
    unsigned container; /* --container 4, or 0 */
    const struct tensor_rule *rules;
    size_t n_rules;
    const char *const *more_calib; /* further texts, mixed with it window by window; with calib at most TEXTS_MOST */
    size_t n_more_calib;
    const char *calib;   /* text file, "default" (formats/shipped_text.h) or CALIB_SELF; not needed for RTN */
    bool no_text;        /* by quantize_settle: none was named, and CALIB_SELF stands for it */
    const char *imatrix; /* importance matrix (formats/read/imatrix.h): in place of a text, or beside one for what
                            has no Hessian; NULL */
    /* Parts of names of weights ("attn_v"): of these alone the importance counts, or with importance_skip of all others; all
     * 1 elsewhere. n 0: of every weight. */
    const char *const *importance_names;
    size_t n_importance_names;
    bool importance_skip;
    const char *refine;    /* a GGUF of which only the codes are learned again (refine.h); NULL */
    uint32_t samples, ctx; /* windows, and tokens in each; ctx 0: the model's own, at most 2048 */
    uint32_t tokens;       /* where so many windows have fewer: as many windows as have these (quantize_fit_context) */
    uint32_t holdout;      /* how many of the windows only judge (guard); 0: an eighth of them, at most 16 */
    float damp;            /* share of the mean diagonal added to H: 0.01 */
    float correction;      /* see quantize_correction; below 0: for METHOD_GSQ 0.5, of experts 1, else 0 */
    enum output_hessian output_hessian;
    struct scale_search_options scale_search;
    struct gumbel_options gumbel;
    struct block_options block;
    struct scales_options scales;
    uint64_t seed;
    uint64_t host_limit; /* bytes of host memory for activations before they spill; 0: half of what is free */
    bool dry_run;
    uint32_t ranks;     /* dry run: plan for so many (comm.h); 0: for those that were started */
    double link;        /* bytes a second between two ranks; 0: measured; INFINITY: so, and good enough */
    const char *accept; /* what may have changed since the run began: names of manifest.h; NULL: nothing */
    bool force;         /* write over an output that gsq did not write */
    bool keep_work;     /* do not remove the work folder after a finished export */
    bool join;          /* help the run that is at work in the work folder, where there is one (run/job_queue.c) */
};
/* In place of a text: the model writes one (sampling.h). A file of that name is ./self. */
#define CALIB_SELF "self"
/* Whether it does in this run. */
bool quantize_samples(const struct quantize_options *o);
/* Weights that share a scale in a folder format, where nothing is said. */
#define GROUP_DEFAULT 128u
/* Fills in defaults that depend on other options: the group; of a GGUF the mixture from --bits, or the type from the
 * mixture. Rejects contradictory options (ERR_USER): types of GGUF in a folder format, bits that no type of GGUF
 * stores, a group that is not a multiple of a type's own, a mixture without a type to quantize to. Where text is read and none
 * is named, the model writes it. Idempotent. */
bool quantize_settle(struct quantize_options *o, struct err *e);
/* Whether the mixture quantizes nothing (F32, F16, BF16, COPY): then it is a conversion (convert.h), and
 * quantize_settle refuses it. */
bool quantize_copies(const struct quantize_options *o);
/* Whether an importance matrix is the only statistics: then Hessians are diagonal, no window is read, and only the
 * Hessian objective can be used. */
bool quantize_diagonal(const struct quantize_options *o);
/* The share of what was lost before a linear, or an expert's, that it makes good where it starts on its own (drift.h); both are 0, or none. */
float quantize_correction(const struct quantize_options *o, bool expert);
/* EFFORT_BALANCED and docs/method.md's constants. */
void quantize_defaults(struct quantize_options *o);
/* Windows, steps and epochs of a level (docs/method.md 3). quick, fast: the Hessian objective alone. balanced, best: the block
 * objective and the pass over scales, in about an hour and overnight for an 8B model on a card of the middle. paper: the
 * paper's budget. Of settled options those stay 0 that their run cannot have. */
void quantize_set_effort(struct quantize_options *o, enum effort effort);
/* Steps of the Hessian objective of an expert that is trained on its outputs, too. That finds less than it does of a half of a block
 * (bench/results/starved-lavapipe.md): as many as EFFORT_FAST takes, where that is more and the number is the effort's own. */
uint32_t quantize_lone_steps(const struct quantize_options *o);
/* Windows of so many tokens: samples that are the effort's own become as many as have `tokens` together, where they are fewer, and a step of the block objective
 * takes as many times more, if its number is the effort's own. A linear's Hessian is a mean over tokens, and what it is worth goes by how
 * many they are. */
void quantize_fit_context(struct quantize_options *o, uint32_t ctx);
/* The text has so many windows of that context. Where they are fewer than samples, samples become them, and an effort whose numbers are its own
 * takes more epochs of the block objective over them, four times as many at most; then true. */
bool quantize_fit_text(struct quantize_options *o, uint32_t ctx, uint32_t windows);

#endif
