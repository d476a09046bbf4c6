/* One piece of work beside the calling thread, which goes on meanwhile. */
#ifndef BASE_TASK_H
#define BASE_TASK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "host/base/err.h"
#include "host/base/os.h"

/* Zero-initialise; used again and again, by one thread. */
struct task {
    bool (*fn)(void *ctx, struct err *e);
    void *ctx;
    bool begun, ok;
    struct err err;
    struct os_thread *thread;
    atomic_bool ended;
};
/* Begins fn(ctx) on a thread of its own; where the system has none to give, it is done at once. Nothing may be begun and
 * not waited for. What fn touches is its own until task_wait. It must not log. */
void task_begin(struct task *t, bool (*fn)(void *ctx, struct err *e), void *ctx);
/* Whether it was begun and has not been waited for; whether it has come to its end. */
bool task_begun(const struct task *t);
bool task_ended(struct task *t);
/* Waits for the end. Its result and its error; true where nothing was begun. */
bool task_wait(struct task *t, struct err *e);

#endif
