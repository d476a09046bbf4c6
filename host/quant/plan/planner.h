/* Decides what a run will do, before any work; every refusal that can be made is made here. */
#ifndef QUANT_PLANNER_H
#define QUANT_PLANNER_H

#include "host/quant/plan.h"

/* Is told, in a sentence, what differs from what was asked for. */
struct plan_listener {
    void (*warn)(void *ctx, const char *line);
    void *ctx;
};
/* The part of a plan that needs no device: what becomes of each weight by the options (settled), whether the
 * format takes it, sizes. m: of model_open or model_describe. The first refusal is ERR_USER; plan_free in any
 * case. */
bool plan_fates(struct plan *p, const struct model *m, const struct quantize_options *o, struct plan_sources from,
                const struct plan_listener *l, struct err *e);
/* Preflight: fates, then memory. Warnings go to the log; the first refusal is ERR_USER. A model without a device gets no plan
 * of memory. */
bool plan_make(struct plan *p, const struct model *m, const struct quantize_options *o, struct plan_sources from,
               struct err *e);
/* Whether each file system holds what comes onto it; p->disk_free becomes known. Asked when the plan was shown: it says what is
 * to be freed. ERR_ENV. */
bool plan_fits_disk(struct plan *p, const struct quantize_options *o, struct err *e);
/* A run like one that is planned, with other samples, steps, epochs or batch: its steps, disk space and memory. Lists are those
 * of `like`, which frees them. Commands count meanwhile. False: it would be refused. */
bool plan_vary(struct plan *p, const struct plan *like, const struct model *m, const struct quantize_options *o,
               struct err *e);
/* Whether a linear's groups can be worked on. info NULL: on any device. */
bool plan_check_group(const struct matrix *item, const struct gpu_info *info, struct err *e);
/* Whether what an error of each linear costs the model's output can be measured: ERR_USER says what stands in the way. */
bool plan_can_choose(const struct model *m, struct err *e);
/* What is asked of each matrix, for fates_decide (plan_wishes.c). */
bool plan_wishes(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e);
/* Warns of matrices whose scales the stored type does not hold, and what that costs; bf16 scales where the
 * format has them and they help (plan_range.c). */
bool plan_range(struct plan *p, const struct model *m, const struct quantize_options *o, const struct plan_listener *l,
                struct err *e);
/* Its last step: device memory, and where activations go (plan_memory.c). */
bool plan_memory(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e);
void plan_free(struct plan *p);

#endif
