/* Inside host/quant: a run, shared by job.c (the whole), job_block.c (one block) and job_progress.c. */
#ifndef QUANT_JOB_INTERNAL_H
#define QUANT_JOB_INTERNAL_H

#include "formats/imatrix.h"
#include "host/model/calib.h"
#include "host/quant/job.h"
#include "host/quant/predict.h"
#include "host/quant/store.h"

/* A block is quantized in two stages; the Hessians of a stage are all taken before its first linear is
 * quantized, behind everything quantized earlier (METHOD.md 3). */
struct stage {
    enum linear_id first, end;
    enum linear_id wide; /* the linear with an input of its own; the others share the stage's first input */
    enum tune_stage half;
};
extern const struct stage stages[2];

struct job {
    struct gpu_cmd *cmd;
    const struct quantize_options *o;
    const struct job_callbacks *cb;
    struct checkpoint *ck;
    struct model *m;
    struct checkpoint *refined_ck; /* the GGUF that is refined, as a model of its own; NULL: none */
    struct model *refined;
    struct imatrix imatrix;
    struct plan plan;
    struct store *store;
    struct windows windows;
    struct acts *acts;      /* hidden states behind what is quantized so far */
    struct acts *targets;   /* the 16-bit model's own, where a teacher is wanted: what the next half's output
                               should be */
    float *head_importance; /* [hidden], of a GGUF: sums of squares of what the head reads; NULL: not known */
    struct gpu_arena *block, *hess, *scratch; /* by lifetime: one block; one stage; one linear or one batch */
    struct quantize_result *out;
    char work_dir[4096];

    /* progress, in seconds as predicted */
    uint64_t begin;
    struct speed speed;
    double work_total, work_done, work_skipped, piece_work;
    char detail[128];
    uint32_t layer;
};

/* ---- job_progress.c */
/* Fills work_total from the plan and the measured speed; the plan's predicted time, if that was measured. */
void job_plan_work(struct job *j);
/* Of one forward pass of all windows through a half. */
double job_half_work(const struct job *j, const struct stage *s);
/* Whether a stage takes Hessians. */
bool job_gathers(const struct job *j, const struct stage *s, const struct plan_item *items);
double job_hessian_work(const struct job *j, const struct stage *s);
double job_linear_work(const struct job *j, const struct plan_item *i);
/* Of training one half; 0 where it is not trained. */
double job_tune_work(const struct job *j, const struct plan_item *items, enum tune_stage half);
/* Of the pass over scales; 0 where it is not done. */
double job_scales_work(const struct job *j);
/* Reports; false (ERR_STOPPED) when the user wants to stop. part: of the piece in work, 0..1. */
bool job_tell(struct job *j, const char *phase, uint32_t step, uint32_t steps, double loss, double part,
              struct err *e);
void job_detail(struct job *j, const char *what);
/* Adds the time since *since to a phase, and moves *since on. */
void job_clock(struct job *j, enum run_phase phase, uint64_t *since);

/* ---- job_block.c */
struct block_result {
    struct qlinear q[LINEAR_COUNT];
    struct linear_report report[LINEAR_COUNT];
    struct stage_report stages[2]; /* steps 0: not run */
};
void block_result_free(struct block_result *r);
/* One block: quantized as the method says, its activations carried on. */
bool job_block(struct job *j, uint32_t layer, struct block_result *r, struct err *e);
/* A block finished in an earlier run: its stored weights carry the activations on, if there are any, its own
 * the targets. */
bool job_block_resume(struct job *j, uint32_t layer, struct err *e);

/* ---- job_scales.c */
/* Whether the pass over scales is wanted and not done yet. */
bool job_scales_ahead(struct job *j);
/* The pass, or its report where it is done. r->steps 0: there is none. */
bool job_scales(struct job *j, struct stage_report *r, struct err *e);

/* ---- job_export.c */
/* Writes the model. */
bool job_export(struct job *j, struct err *e);
/* Whether the head's importance is wanted, and not in the work folder. */
bool job_importance_ahead(const struct job *j);
/* Takes it from the student's hidden states behind the last block, or from the work folder. */
bool job_head_importance(struct job *j, struct err *e);
void job_importance_remove(const struct job *j);

#endif
