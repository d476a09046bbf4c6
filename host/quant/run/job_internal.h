/* Inside host/quant: a run, shared by job.c (the whole), job_block.c (one block) and job_progress.c. */
#ifndef QUANT_JOB_INTERNAL_H
#define QUANT_JOB_INTERNAL_H

#include "formats/read/imatrix.h"
#include "host/base/os.h"
#include "host/base/task.h"
#include "host/model/experts.h"
#include "host/model/walk.h"
#include "host/quant/run/identity.h"
#include "host/quant/run/job.h"
#include "host/quant/method/drift.h"
#include "host/quant/method/hessian.h"
#include "host/quant/method/tune_block.h"
#include "host/quant/method/tune_expert.h"
#include "host/quant/plan/allot.h"
#include "host/quant/plan/predict.h"
#include "host/quant/store/store.h"

/* What ranks take over from rank 0 before the first block: two texts of so many bytes. */
enum { JOB_MEMORY_TEXT = 256, JOB_KERNELS_TEXT = 512 };

/* What a block became. */
struct block_result {
    uint32_t n;                             /* matrices of the block */
    struct qlinear *q;                      /* [n] */
    struct linear_report *report;           /* [n] */
    struct stage_report stages[HALF_COUNT]; /* steps 0: not run */
    uint32_t part;                          /* the one that is worked on (store_part.h); earlier ones are stored */
};

/* A part of a block on its way to the work folder (job_store.c). */
struct block_writing {
    struct task task;
    uint32_t layer;
    struct block_items items;   /* the part's */
    struct block_result result; /* of them */
    bool failed;                /* the run ends by it */
};

struct job {
    struct gpu_cmd *cmd;
    const struct quantize_options *o;
    const struct job_callbacks *cb;
    struct checkpoint *ck;
    struct model *m;
    struct err variants;           /* why a resumed run has not the kernel variants that it began with */
    struct checkpoint *refined_ck; /* the GGUF that is refined, as a model of its own; NULL: none */
    struct model *refined;
    struct imatrix imatrix;
    struct plan plan;
    struct allotment allot;        /* where types are chosen for a size */
    struct tensor_rule *rules;     /* these, as rules, and the user's own */
    const struct tensor_rule *own; /* [n_own] */
    size_t n_own;
    bool summed;                               /* sums are there */
    struct checkpoint_sums sums, refined_sums; /* of the models, as they were when this run started */
    struct identity id;                        /* n 0: not made yet */
    struct store *store;                       /* the writing task's while there is one */
    struct block_writing writing;
    struct block_ahead ahead; /* the next block, being read */
    struct gpu_arena *kept;   /* host memory of a half's best epoch */
    uint32_t blocks_whole;    /* of an earlier run, when this one started */
    struct windows windows;
    struct stored_embedding embedding; /* of their tokens, as the output will have it, where that is not the model's */
    struct acts *acts;                 /* hidden states after what is quantized so far */
    struct acts *targets;              /* the 16-bit model's own, where a teacher is wanted: what the next half's output
                               should be */
    float *head_importance;          /* [hidden], of a GGUF: sums of squares of what the head reads; NULL: not known */
    struct block_weights weights;    /* of the block that is loaded */
    struct experts experts;          /* of a model that has them, where text is read */
    struct experts taught;           /* beside them on the 16-bit model's states; m NULL: these are not carried along */
    struct expert_training training; /* of experts on their own outputs; not open where none are */
    struct stage_report experts_report; /* of the block in work: sums over its trained experts so far, of `trained` */
    uint32_t trained;
    struct gpu_arena *rows;                   /* what they take, as long as the run walks over blocks */
    struct gpu_arena *block, *hess, *scratch; /* by lifetime: one block; one half; one linear or one batch */
    struct quantize_result *out;
    bool found;                                      /* an earlier run, or another process, has made some of it */
    struct rank_work work;                           /* this rank's; its bytes are what comm_counted said before */
    char out_dir[4096], work_dir[4096], calib[4096]; /* calib: of the text that comes with gsq, if it is one of these */
    const char *texts[TEXTS_MOST];
    size_t n_texts;
    struct os_lock out_lock, work_lock;
    uint64_t out_busy;   /* since when the output is locked though the work folder is not, ns; 0: it is not */
    struct queue *queue; /* of the processes at this run; NULL: there can be no other */
    bool leads;          /* this one writes the results */
    bool made_out;       /* there was none before the run */
    char refined_by[33]; /* the run that refined the file which is there; "": none that is known */

    /* progress */
    uint64_t begin;
    struct run_speed speed;
    unsigned ranks; /* that predictions are for */
    double link;    /* bytes a second between those that were started, measured; 0: one */
    struct eta eta; /* of the kinds of enum work */
    struct progress_watch watch;
    double export_work;   /* predicted seconds of the export */
    double busy_before;   /* gpu_cmd_busy when the run began */
    double busy;          /* the same when a phase was last accounted */
    uint64_t device_peak; /* the most of the device's when a phase was last accounted */
    uint64_t host_peak;   /* the most that was there when one was: the system keeps no peak */
    char detail[128];
    uint32_t layer;
};

/* ---- job_out.c: the paths that the run uses (also replaced in o, "default" too); refuses bad ones; locks both against
 * other runs, or joins the one that has them. job_out_unlock removes folders that a failed run (ok false) leaves empty. */
bool job_out_paths(struct job *j, struct quantize_options *o, struct err *e);
bool job_out_check(struct job *j, struct err *e);
bool job_out_lock(struct job *j, struct err *e);
void job_out_unlock(struct job *j, bool ok);
/* Locks both if nobody has the work folder: work_lock.held. */
bool job_out_try_lock(struct job *j, struct err *e);
void job_out_let_go(struct job *j);

/* ---- job_queue.c: several processes at one run ---- */
/* Whether there are others now. */
bool job_shared(const struct job *j);
/* Becomes one that others may join; this process leads, having both locks. */
bool job_lead(struct job *j, struct err *e);
/* Joins the run that has the work folder; leads where there is none. */
bool job_join(struct job *j, struct err *e);
/* Leads now, if the process that did is gone. */
bool job_follow(struct job *j, struct err *e);
/* Waits until the process that leads has said in the work folder which run it is (job_has_begun), or leads. */
bool job_await_begin(struct job *j, struct err *e);
void job_has_begun(struct job *j);
/* A moment's wait for the result, or leads. */
bool job_await_end(struct job *j, struct err *e);
/* Things that one process makes and all have: in any order, each by whoever begins it first. */
struct job_units {
    uint32_t n;
    const char *what; /* "another process's linears": what is waited for */
    /* What a unit is called in the work folder; NULL: there is one, called `only`. */
    const char *only;
    const char *(*name)(void *ctx, uint32_t i, char out[UNIT_NAME_CAP]);
    /* Takes it up where it is there. */
    bool (*look)(void *ctx, uint32_t i, bool *there, struct err *e);
    /* Makes it; it is in the work folder then, if there are others. */
    bool (*make)(void *ctx, uint32_t i, struct err *e);
    void *ctx;
};
/* Returns when all are made, here or elsewhere. */
bool job_each_unit(struct job *j, const struct job_units *u, struct err *e);

/* ---- job_progress.c ---- */
/* Kinds of work, for the eta. */
enum work {
    WORK_CHECK,   /* every weight looked at once */
    WORK_SAMPLE,  /* the text that the model writes */
    WORK_MEASURE, /* the pass that measures what types cost */
    WORK_OUTPUT,  /* the pass that finds Hessians of outputs */
    WORK_LOAD,    /* weights to the device, embeddings */
    WORK_FORWARD, /* through halves of blocks */
    WORK_HESSIAN, /* the same with Hessians */
    WORK_ROUND,   /* a linear's start: RTN, GPTQ */
    WORK_LEARN,   /* a linear alone */
    WORK_TRAIN,   /* half a block together */
    WORK_SCALES,  /* the pass over scales */
    WORK_STORE,   /* finished blocks to the work folder */
    WORK_EXPORT,
};
/* Fills in the plan's predicted time, from the measured speed; windows: that the text has, UINT32_MAX: as many as are wanted. */
void job_predict(struct job *j, uint32_t windows);
/* Begins the ETA of a run, without the blocks that the store has; replay: these are walked through again. */
void job_expect(struct job *j, bool replay);
/* Logs predicted against measured times (debug). */
void job_judge_prediction(const struct job *j);
/* Whether a text goes through the model's blocks: not by RTN, nor on an importance matrix alone. */
bool job_reads_windows(const struct job *j);
/* Seconds, as predicted. Of one forward pass of all windows through half a block. */
double job_half_work(const struct job *j, uint32_t layer, enum block_half half);
/* The same where ranks share the windows. */
double job_shared_half_work(const struct job *j, uint32_t layer, enum block_half half);
/* All that the work comes to, as predict does it; by kind. */
double job_whole_work(const struct job *j);
void job_work_by_kind(const struct job *j, double by_kind[ETA_KINDS]);
extern const char *const job_work_names[ETA_KINDS];
/* The task of training half a block, but for what is on the device. */
struct tune_block_task job_tune_task(const struct job *j, uint32_t layer, enum block_half half);
/* Of the same with Hessians. */
double job_hessian_work(const struct job *j, uint32_t layer, enum block_half half);
/* Loading a linear's weights to the device; its start; learning alone in so many steps. 0 where it is kept. */
double job_load_work(const struct job *j, const struct matrix *i);
double job_round_work(const struct job *j, const struct matrix *i);
double job_learn_work(const struct job *j, const struct matrix *i, uint32_t steps);
double job_store_work(struct block_items b);
/* Another process has made it: a part of a block, or a linear alone. */
void job_skip_part(struct job *j, struct block_items part);
void job_skip_linear(struct job *j, const struct matrix *i);
/* Of training one half; 0 where it is not trained. */
double job_tune_work(const struct job *j, uint32_t layer, enum block_half half);
/* Of an expert, as if all were chosen alike: its tokens once through it. */
double job_expert_forward_work(const struct job *j);
/* Its Hessians, and its training, where they are made; the expert is told by its down matrix, and those of others are 0. */
double job_expert_hessian_work(const struct job *j, const struct matrix *down);
double job_expert_work(const struct job *j, const struct matrix *down);
/* Of the pass that finds Hessians of outputs; 0 where it is not done. */
double job_output_work(const struct job *j);
/* Of the text that the model writes; 0 where there is another. */
double job_sample_work(const struct job *j);
/* Of the pass that measures what types cost; 0 where it is not done, or has been. */
double job_measure_work(const struct job *j);
/* The Hessian of all inputs of a layer with experts; 0 where none needs it. */
double job_layer_hessian_work(const struct job *j, uint32_t layer);
/* Of the pass over scales; 0 where it is not done. Of judging once, its first part. */
double job_scales_work(const struct job *j);
double job_judge_work(const struct job *j);
/* A piece of work begins, and ends. */
void job_begin(struct job *j, enum work kind, double seconds);
void job_end(struct job *j);
/* Of a pass there and back before the blocks, which had the device to itself: what it took is free, and an error says `what` it was. */
bool job_end_way_back(struct job *j, bool ok, const char *what, uint64_t *clock, struct err *e);
/* A progress event of a phase, as of now; callers may add to it. */
struct progress_event job_event(const struct job *j, const char *phase);
/* A walk over that many windows of acts in the plan's batches, with progress. */
struct walk job_walk(struct job *j, struct acts *acts, uint32_t windows);
/* Reports that the current piece of work is done to `part`, 0..1; false (ERR_STOPPED) when the user wants to stop. */
bool job_tell(struct job *j, double part, struct progress_event ev, struct err *e);
/* The same for a step of an optimiser. */
bool job_tell_step(struct job *j, const char *phase, double part, uint32_t step, uint32_t steps, double loss);
/* tune_hooks' step of half a block or of an expert; ctx is the job. */
bool job_on_tune_step(void *ctx, uint32_t step, uint32_t steps, double loss);
/* Warns where training half a block or an expert, `what`, diverged. */
void job_tell_retries(const struct job *j, const char *what, const struct stage_report *r);
void job_detail(struct job *j, const char *what);
/* Adds the time since *since to a phase, and moves *since on. */
void job_clock(struct job *j, enum run_phase phase, uint64_t *since);

/* ---- job_block.c ----
 * A block is quantized half by half; the Hessians of a half are all taken before its first linear is quantized, on
  * inputs that went through everything quantized earlier (docs/method.md 3). */
/* block_result_free in any case. */
bool block_result_make(struct block_result *r, uint32_t n, struct err *e);
void block_result_free(struct block_result *r);
/* One block: quantized as the method says, its activations carried on. Parts that an earlier run has stored are taken as they
 * are. Ends all parts but the last. */
bool job_block(struct job *j, uint32_t layer, struct block_result *r, struct err *e);
/* Whether each linear is made by itself, without a text: then blocks may come in any order. */
bool job_alone(const struct job *j);
/* A block finished in an earlier run: its stored weights carry the activations on, if there are any, its own
 * the targets. */
bool job_block_resume(struct job *j, uint32_t layer, struct err *e);

/* A linear by the method, its codes and report to its place in r; w becomes what its file will hold. h NULL: RTN. o: the run's, but
 * for the steps alone. shared: all ranks come with it, and each makes some rows. */
bool job_quantize_linear(struct job *j, const struct quantize_options *o, const struct matrix *item, struct gpu_view w,
                         const struct hessian *h, const struct drift *drift, bool shared, struct block_result *r,
                         struct err *e);
/* w becomes what an earlier run has stored of it. */
bool job_stored_linear(struct job *j, const struct matrix *item, struct gpu_view w, struct err *e);
/* The same of one that has no codes: as the model has it, or the file that is refined. */
bool job_kept_matrix(struct job *j, const struct matrix *item, struct gpu_view w, struct err *e);
/* Where a file is refined, what is not quantized of a half, or the router of experts, becomes what the file has. */
bool job_student_frame(struct job *j, enum block_half half, struct block_weights *w, struct err *e);

/* ---- job_experts.c ---- */
/* Room for the experts of all layers; nothing where the model has none. job_experts_close in any case. */
bool job_experts_open(struct job *j, struct err *e);
void job_experts_close(struct job *j);
/* What the experts of a layer read, and where tokens go, before the half that all tokens go through: of the 16-bit model, where its hidden
 * states are carried along and w has its frame still; of the student. */
bool job_experts_teach(struct job *j, uint32_t layer, const struct block_weights *w, struct err *e);
bool job_experts_take(struct job *j, uint32_t layer, struct block_weights *w, struct err *e);
/* All experts: quantized where no earlier run has stored them, or r NULL: all are stored; then hidden states become the layer's
 * output. */
bool job_experts(struct job *j, uint32_t layer, struct block_result *r, uint64_t *clock, struct err *e);

/* ---- job_share.c: what one rank has made, to all (comm.h) ---- */
/* Codes, scales and report of a linear, in r of that rank, come into r of all. One rank: nothing happens. */
bool job_give(struct job *j, const struct matrix *item, unsigned rank, struct block_result *r, struct err *e);
/* w becomes what codes and scales give. */
bool job_dequant(struct job *j, const struct matrix *item, const struct qlinear *q, struct gpu_view w, struct err *e);

/* What ranks exchange for it. */
void job_give_expect(struct comm_expected *x, const struct matrix *item, unsigned rank);
/* ---- job_ranks.c ---- */
/* How fast data goes between the ranks that were started: j->link. */
bool job_link(struct job *j, struct err *e);
/* What this rank has sent and got of a run that is over, as the plan has it, with the training that there was. */
struct comm_bytes job_exchanged(const struct job *j);
/* The plan for so many ranks as there are or are asked for; nothing where that is one. After job_predict. An error where fewer of those that
 * were started would be faster over their link. */
bool job_plan_ranks(struct job *j, struct err *e);
/* From here on this rank's work is counted, until job_work_end; job_work_gather: rank 0 has that of all in its result. */
void job_work_begin(struct job *j);
bool job_work_gather(struct job *j, struct err *e);
void job_work_end(struct job *j);

/* ---- job_store.c ---- */
/* r->part is finished, and the next one begins: it is being written, and leaves r, or is reported where an earlier run has
 * stored it. The part before is there first. */
bool job_end_part(struct job *j, uint32_t layer, struct block_result *r, struct err *e);
/* Tells of a part that an earlier run has stored. */
bool job_report_stored(struct job *j, uint32_t layer, uint32_t part, struct err *e);
/* Whether what was begun is well: where it has come to its end, or is waited for, its linears and stages are reported;
 * else true. An error has the block's name. */
bool job_stored(struct job *j, bool wait, struct err *e);
/* Tells of a stage that ran. */
void job_report_stage(struct job *j, const struct stage_report *r);

/* ---- job_sample.c ---- */
/* Where the model writes its own calibration: the windows, but for their ids. */
bool job_sample_begin(struct job *j, const struct quantize_options *o, uint32_t ctx, struct err *e);
/* The ids: written, or from the work folder, which keeps them. Nothing where there is a text. */
bool job_sample(struct job *j, struct err *e);
/* ---- job_choose.c ---- */
/* Where a size is asked for: what can be chosen from, and a first guess, which o then asks for. */
bool job_choose_begin(struct job *j, struct quantize_options *o, struct err *e);
/* Before anything is written: what types cost, measured or taken from the work folder; o and the plan become those of the choice. The run is
 * identified, and not any more. */
bool job_choose_measured(struct job *j, struct quantize_options *o, struct err *e);
/* The plan says what was chosen, if anything was. */
void job_choose_tell(struct job *j);
void job_choose_end(struct job *j);

/* ---- job_output.c ---- */
/* The Hessians of outputs, where they are wanted and the work folder has not what unfinished blocks need. */
bool job_outputs(struct job *j, struct err *e);
/* Whether one is wanted of a linear's outputs; there may be none all the same, where its gradients say nothing. */
bool job_has_outputs(const struct job *j, const struct matrix *item);
/* A linear's, on the device; empty: it has none. */
bool job_load_outputs(struct job *j, const struct matrix *item, struct gpu_view *tiles, struct err *e);

/* ---- job_scales.c ---- */
/* Whether the pass over scales is wanted and not done yet. */
bool job_scales_ahead(struct job *j);
/* The pass, or its report where it is done. r->steps 0: there is none. */
bool job_scales(struct job *j, struct stage_report *r, struct err *e);

/* ---- job_export.c ---- */
/* Writes the model. */
bool job_export(struct job *j, struct err *e);
/* Whether the head's importance is wanted, and not in the work folder. */
bool job_importance_ahead(struct job *j);
/* Takes it from the student's hidden states after the last block, or from the work folder. */
bool job_head_importance(struct job *j, struct err *e);

#endif
