/* The neutral store of a run: codes and scales of every finished block on disk. It is the checkpoint (a rerun
 * resumes from it) and the source of every export.
 *
 *     WORK/manifest.json            what this run is: options, model, calibration, device; names and values
 *     WORK/block-0007.safetensors   MODULE.codes u32 [rows, ceil(cols*bits/32)] (pack.h), MODULE.scales f32
 * [rows, groups]; reports in __metadata__. Written whole, flushed, renamed: present means done. */
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
/* One linear of a finished block; the caller frees it. report may be NULL. */
bool store_read_linear(struct store *s, const struct plan_item *item, struct qlinear *out,
                       struct linear_report *report, struct err *e);
/* Bytes on disk of one item. */
uint64_t store_item_bytes(const struct plan_item *item);
/* Removes the folder's files (those that the store wrote) and the folder if then empty. */
void store_remove(struct store **s);

#endif
