/* The progress of an operation that waits for a device: what it told last is told again each second, with how far the
 * device is. */
#ifndef GPU_PROGRESS_H
#define GPU_PROGRESS_H

#include "host/base/progress.h"

struct gpu_cmd;
/* w, to and eta stay where they are until progress_watch_end, which must come before cmd is used elsewhere. cmd may be NULL. */
void progress_watch_begin(struct progress_watch *w, const struct progress *to, struct eta *eta, struct gpu_cmd *cmd);
void progress_watch_end(struct progress_watch *w);

#endif
