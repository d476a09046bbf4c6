/* The neutral store of a run: codes and scales of every finished block on disk. A rerun resumes from it, and every
 * export is made from it. Files are written whole, flushed, renamed: present means done.
 *
 * WORK/manifest.json: which run this is (manifest.h).
 *
 * WORK/block-0007.safetensors, and of a block with experts block-0007-part-0003.safetensors as well (store_part.h; a folder
 * that an earlier gsq began may have all in the first): MODULE.codes u32 [rows, ceil(cols*bits/32)] (pack.h; codes from 0 on as they
 * are), MODULE.scales f32 [rows, planes*groups] or, with super-blocks, MODULE.scales f32 [rows, planes*super-blocks]
 * (d, then -dmin) and MODULE.integers i8 [rows, planes*groups] (quant_type.h); reports in __metadata__.
 *
 * WORK/block-0007-linear-003.safetensors, WORK/block-0007-half-1.safetensors, while several processes are at block 7: the same of one
 * linear of the block that has learned alone, of the linears of a half that is trained.
 *
 * WORK/scales.safetensors, the last pass over scales: MODULE.scales in the shape of the blocks', the best so far. Until
 * the pass is done also what it goes on from: MODULE.now, MODULE.m, MODULE.v of that shape; `losses` f32 [steps so
 * far]. Written anew after each epoch.
 *
 * WORK/head-importance.safetensors, of a GGUF: `sums` f32 [hidden].
 *
 * WORK/outputs-0007.safetensors: MODULE.outputs f32 [rows, min(rows, 512)], the Hessians of the outputs of block 7's linears
 * (output_hessian.h), which are there before the first block is begun.
 *
 * WORK/sampled.safetensors, where the model writes its own calibration: `ids` u32 [so many], the tokens so far.
 *
 * Every file holds a checksum of all its bytes, and the hash of the run that it is of (manifest_run); the last two also the
 * hash of the blocks that they were made from. A file that fails any of these is named in a warning and counts as
  * absent: it can be made again, with the same bytes, from the model, the text and the other files. Even the manifest:
   * each
 * block carries a copy. The sums run at the speed of memory: a second for the blocks of an 8B model, once per run.
 */
#ifndef QUANT_STORE_H
#define QUANT_STORE_H

#include "host/quant/method/scales_task.h"
#include "host/quant/plan.h"
#include "host/quant/record.h"
#include "host/quant/store/manifest.h"
#include "host/quant/store/store_part.h"

struct store;
/* Creates the folder, or takes up one whose manifest has the same fields; differences are handled as in
 * manifest_settle. A missing or damaged manifest is taken from the blocks, if there are any. accept: NULL or names of
  * --accept. */
bool store_open(struct store **out, const char *dir, const struct store_field *fields, size_t n, const char *accept,
                struct err *e);
/* The same of a run that another process has begun and is at: nothing is written, and what is accepted is so for this process. */
bool store_join(struct store **out, const char *dir, const struct store_field *fields, size_t n, const char *accept,
                struct err *e);
/* Whether the folder says which run it is of. */
bool store_begun(const char *dir);
/* A field's value in the manifest of a work folder into out; false where there is none. */
bool store_recorded(const char *dir, const char *field, char *out, size_t cap);
void store_close(struct store **s);
/* Looks at all blocks: checksums, then shapes and values against the plan. Warns of each file that is there and not whole.
 * Returns how many blocks are whole. */
uint32_t store_check(struct store *s, const struct plan *p);
/* Looks at a part that another process may have written since: what store_has_part says then. */
bool store_look(struct store *s, uint32_t layer, uint32_t part, struct block_items of);
/* The same of the last pass over scales. */
void store_look_scales(struct store *s);
/* Whether a part's file is there and whole now; any thread's. */
bool store_part_written(const struct store *s, uint32_t layer, uint32_t part);
/* Whether a part of a block needs no file, or is there and, by store_check, whole; whether that is so of all. How many are there. */
bool store_has_part(const struct store *s, uint32_t layer, uint32_t part);
bool store_has_block(const struct store *s, uint32_t layer);
uint32_t store_whole_parts(const struct store *s, uint32_t layer);
/* One part of a block: linears and reports are [part.n], those of kept items are skipped; stages [HALF_COUNT], of part 0.
 * Codes outside their type's range and scales that are no numbers are ERR_BUG. In two steps, so that another thread may do
 * the second: nothing is known of the part any more; it is written. Meanwhile nothing else is done with the store but
 * asking for other parts and blocks (store_has_part, store_has_block). */
bool store_forget_part(struct store *s, uint32_t layer, uint32_t part, struct err *e);
bool store_put_part(const struct store *s, uint32_t layer, struct block_items part, const struct qlinear *linears,
                    const struct linear_report *reports, const struct stage_report *stages, struct err *e);
/* All parts; linears and reports are [b.n]. */
bool store_write_block(struct store *s, uint32_t layer, struct block_items b, const struct qlinear *linears,
                       const struct linear_report *reports, const struct stage_report *stages, struct err *e);
/* What is made of a block before it is finished, for other processes (job_queue.c): items are some of its part 0, in their order, linears and
 * reports [items.n], stages as in store_put_part; stages NULL: none. store_unit_name: of one linear, alone; of a half, trained. Reading is
 * false where there is none, or none that is whole. store_drop_units: the block's file is there, and these have served. */
#define UNIT_NAME_CAP 48
const char *store_unit_linear(const struct matrix *item, char out[UNIT_NAME_CAP]);
const char *store_unit_half(uint32_t layer, enum block_half half, char out[UNIT_NAME_CAP]);
bool store_put_unit(const struct store *s, const char *unit, struct block_items items, const struct qlinear *linears,
                    const struct linear_report *reports, const struct stage_report *stages, struct err *e);
bool store_get_unit(const struct store *s, const char *unit, struct block_items items, struct qlinear *linears,
                    struct linear_report *reports, struct stage_report *stages);
bool store_has_unit(const struct store *s, const char *unit);
void store_drop_units(const struct store *s, uint32_t layer, struct block_items items);
/* The training stages of a finished block; steps 0 where there was none. */
void store_read_stages(struct store *s, uint32_t layer, struct stage_report stages[HALF_COUNT]);
/* One linear of a finished block, as the block left it; the caller frees it. report may be NULL. A damaged file is
 * ERR_ENV. */
bool store_read_linear(struct store *s, const struct matrix *item, struct qlinear *out, struct linear_report *report,
                       struct err *e);
/* The same as it is exported: with its last scales where the pass over them is done. */
bool store_read_final(struct store *s, const struct matrix *item, struct qlinear *out, struct err *e);
/* Bytes on disk of an item's scales in the last pass over them; of the item itself: linear_bytes (store_linear.h). */
uint64_t store_scales_bytes(const struct matrix *item);

/* Where the last pass over scales stands. state->losses: room for n_losses numbers, or NULL. False: there is none, or it
 * does not belong to all blocks of the plan (then with a warning). */
bool store_read_scales(struct store *s, const struct plan *p, struct scales_state *state);
/* What the pass asks for, of the blocks of this plan. */
struct scales_store store_for_scales(struct store *s, const struct plan *p);
/* What the head reads: sums of squares [n]. Reading is false where there is none that belongs to the blocks (with a
 * warning if it is damaged). */
bool store_write_importance(struct store *s, const struct plan *p, const float *sums, uint32_t n, struct err *e);
bool store_read_importance(struct store *s, const struct plan *p, float *sums, uint32_t n);
/* The Hessians of a layer's outputs: tiles[b.n], NULL where an item has none. Whether they are there and whole, warning of a file
 * that is not; those of a linear, good until another layer's are asked for, NULL: it has none. Reading goes on beside the
 * writing of a part. */
bool store_write_outputs(struct store *s, uint32_t layer, struct block_items b, const float *const *tiles,
                         struct err *e);
bool store_has_outputs(struct store *s, uint32_t layer);
bool store_outputs(struct store *s, const struct matrix *item, const float **tiles, struct err *e);
/* The first n tokens that the model wrote; how many of them are there, at most n (with a warning where the file is damaged: 0). */
bool store_write_sampled(struct store *s, const uint32_t *ids, uint64_t n, struct err *e);
uint64_t store_read_sampled(struct store *s, uint32_t *ids, uint64_t n);
/* Removes the folder's files (those that the store wrote) and the folder if then empty. */
void store_remove(struct store **s);
/* Marks a folder that stays after its run, as was asked for; whether one is marked so. */
void store_keep(struct store *s);
bool store_kept(const char *dir);

#endif
