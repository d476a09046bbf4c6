/* Hidden states of all windows between two blocks. */
#ifndef MODEL_ACTS_H
#define MODEL_ACTS_H

#include "host/model/model.h"
#include "host/model/windows.h"

/* Hidden states [n_windows, ctx, hidden] f32, on the device if they fit device_bytes, else in host memory, which the
 * device reads and writes itself, if they fit host_bytes, else in a scratch file below spill_dir (NULL: the current folder). */
struct acts;
struct acts_options {
    uint64_t device_bytes, host_bytes;
    const char *spill_dir;
    uint64_t chunk_bytes;                     /* of one buffer; 0: what it may hold */
    const struct stored_embedding *embedding; /* of acts_embed; NULL: the model's own */
};
enum acts_tier { ACTS_DEVICE, ACTS_HOST, ACTS_FILE };
/* Beside the file, for what is on its way there: host memory that the device sees, of so many windows. */
#define ACTS_BEHIND 2u
/* Bytes they take. */
uint64_t acts_bytes(const struct model *m, uint32_t n_windows);
enum acts_tier acts_tier_for(const struct acts_options *o, uint64_t bytes);
/* All of them in that place. */
struct acts_options acts_in(enum acts_tier tier, const char *spill_dir);
/* Allocates what they take on the device, in a counting arena of their own: for the plan. */
bool acts_count(struct model *m, uint32_t n_windows, struct gpu_arena *counting, struct err *e);
bool acts_create(struct acts **out, struct model *m, uint32_t n_windows, const struct acts_options *o, struct err *e);
void acts_destroy(struct acts **a);
enum acts_tier acts_where(const struct acts *a);
/* A device view of windows [w0, w0+n): the resident memory itself where it can be bound, or `staging` (n
 * windows) filled from there or from the host. */
bool acts_get(struct acts *a, uint32_t w0, uint32_t n, struct gpu_view staging, struct gpu_view *out, struct err *e);
/* Windows that acts_gather will soon be asked for: those of a file are read meanwhile. acts_get has what follows read by itself. */
void acts_fetch(const struct acts *a, const uint32_t *list, uint32_t n);
/* Windows list[0], list[1], .. list[n-1] into `staging`, one after the other. */
bool acts_gather(struct acts *a, const uint32_t *list, uint32_t n, struct gpu_view staging, struct err *e);
/* Stores these windows from a view: one that acts_get gave, changed in place, or any other. Does not wait: what lives in a file
 * goes there by a thread when the device has brought it, ACTS_BEHIND of these calls at a time. */
bool acts_put(struct acts *a, uint32_t w0, uint32_t n, struct gpu_view view, struct err *e);
/* Windows 0 .. n-1 become the embeddings of the tokens of windows list[0 .. n-1] of the text; list NULL: of 0 .. n-1. As
 * many go at a time as `staging` holds. */
bool acts_embed(struct acts *a, const struct windows *w, const uint32_t *list, uint32_t n, struct gpu_view staging,
                struct err *e);

#endif
