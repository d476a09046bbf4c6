/* Importance matrix of a model on a text: sums of squares of the inputs of every linear and of the head, of
 * the weights as they are. Diagonals of the Hessians that quantize takes, by one pass per block. */
#ifndef QUANT_IMATRIX_H
#define QUANT_IMATRIX_H

#include "formats/read/imatrix.h"
#include "host/base/os.h"
#include "host/model/windows.h"
#include "host/gpu/progress.h"

struct imatrix_options {
    const char *const *texts; /* files (windows_load_texts) */
    size_t n_texts;
    uint32_t ctx;          /* tokens per window */
    uint32_t windows;      /* at most; 0: all */
    const char *spill_dir; /* for activations that fit nowhere else */
    struct progress progress;
};
struct imatrix_result {
    uint64_t tokens;  /* of the whole text */
    uint32_t windows; /* summed over */
    double seconds;
};
/* Before the work: whether `path` may be written (gguf_check_out; nor is it a text), whether the disk holds the matrix,
 * and that nobody else writes there (out_path.h). os_unlock lets go. */
bool imatrix_lock_out(struct os_lock *lock, const char *path, const struct checkpoint *ck, const char *const *texts,
                      size_t n_texts, bool force, struct err *e);
/* m: an entry per linear, block by block, then the head's (which a tied model has under the embedding's
 * name). The caller frees it. */
bool imatrix_collect(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct imatrix_options *o,
                     struct imatrix *m, struct imatrix_result *out, struct err *e);

#endif
