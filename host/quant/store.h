/* The neutral store of a run: codes and scales of every finished block on disk. It is the checkpoint (a rerun
 * resumes from it) and the source of every export. Files are written whole, flushed, renamed: present means
 * done.
 *
 * WORK/manifest.json: what this run is: options, model, calibration, device; names and values.
 *
 * WORK/block-0007.safetensors: MODULE.codes u32 [rows, ceil(cols*bits/32)] (pack.h; codes from 0 on as they
 * are), MODULE.scales f32 [rows, planes*groups]; reports in __metadata__.
 *
 * WORK/scales.safetensors, the last pass over scales: MODULE.scales f32 [rows, planes*groups], the best so
 * far. Until the pass is done also what it goes on from: MODULE.now, MODULE.m, MODULE.v of that shape or,
 * with super-blocks, [rows, planes*super-blocks]; `losses` f32 [steps so far]. Written anew after each epoch.
 */
#ifndef QUANT_STORE_H
#define QUANT_STORE_H

#include "host/quant/job.h"

struct store;
struct store_field {
    const char *name, *value;
};
/* Creates the folder, or takes up one whose manifest has the same fields; a field that differs is ERR_USER
 * naming it and both values. */
bool store_open(struct store **out, const char *dir, const struct store_field *fields, size_t n,
                struct err *e);
void store_close(struct store **s);
/* Blocks 0 .. n-1 that are whole (the first missing or damaged one ends the count), at most `layers`. */
uint32_t store_blocks_done(struct store *s, uint32_t layers);
/* One block: items, linears and reports are [LINEAR_COUNT], kept items are skipped; stages [2]. */
bool store_write_block(struct store *s, uint32_t layer, const struct plan_item *items,
                       const struct qlinear *linears, const struct linear_report *reports,
                       const struct stage_report *stages, struct err *e);
/* The training stages of a finished block; steps 0 where there was none. */
void store_read_stages(struct store *s, uint32_t layer, struct stage_report stages[2]);
/* One linear of a finished block, with its last scales where the pass over them is done; the caller frees it.
 * report may be NULL. */
bool store_read_linear(struct store *s, const struct plan_item *item, struct qlinear *out,
                       struct linear_report *report, struct err *e);
/* Bytes on disk of one item; of its scales in the last pass over them. */
uint64_t store_item_bytes(const struct plan_item *item);
uint64_t store_scales_bytes(const struct plan_item *item);

/* The last pass over scales. */
enum scales_part { SCALES_BEST, SCALES_NOW, SCALES_M, SCALES_V, SCALES_PARTS };
struct scales_state {
    bool done;
    uint32_t epochs; /* finished, at this rate */
    float rate;      /* share of the rate asked for: 1, halved by each new start after a divergence */
    struct stage_report report;
    float *losses; /* [n_losses]: the training loss of each step; the caller's */
    uint32_t n_losses;
};
/* A part of one item, in its shape on disk, good until the next call; NULL: failed. */
typedef const float *scales_pull(void *ctx, size_t item, enum scales_part part, struct err *e);
/* Replaces what was there. */
bool store_write_scales(struct store *s, const struct plan *p, const struct scales_state *state,
                        scales_pull *pull, void *ctx, struct err *e);
/* state->losses: room for n_losses numbers, or NULL. False: there is nothing, or it is damaged (a warning).
 */
bool store_read_scales(struct store *s, const struct plan *p, struct scales_state *state);
bool store_read_scales_part(struct store *s, const struct plan_item *item, enum scales_part part, float *out,
                            struct err *e);
/* Removes the folder's files (those that the store wrote) and the folder if then empty. */
void store_remove(struct store **s);

#endif
