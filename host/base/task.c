#include "host/base/task.h"

#include <assert.h>

static void work(void *ctx)
{
    struct task *t = ctx;
    t->ok = t->fn(t->ctx, &t->err);
    atomic_store(&t->ended, true);
}

void task_begin(struct task *t, bool (*fn)(void *ctx, struct err *e), void *ctx)
{
    assert(!t->begun);
    t->fn = fn;
    t->ctx = ctx;
    t->err = (struct err){0};
    t->begun = true;
    atomic_store(&t->ended, false);
    if (!os_thread_start(&t->thread, work, t, NULL)) {
        t->thread = NULL;
        work(t);
    }
}

bool task_begun(const struct task *t)
{
    return t->begun;
}

bool task_ended(struct task *t)
{
    return t->begun && atomic_load(&t->ended);
}

bool task_wait(struct task *t, struct err *e)
{
    if (!t->begun)
        return true;
    if (t->thread)
        os_thread_join(&t->thread);
    t->begun = false;
    if (!t->ok && e)
        *e = t->err;
    return t->ok;
}
