#include "host/base/pool.h"

#include <stdlib.h>

#include "host/base/os.h"

/* Milliseconds between two looks at the progress of others. */
#define WAIT_MS 100

static unsigned threads_limit; /* 0: all cores */

void pool_set_threads(unsigned n)
{
    threads_limit = n;
}

unsigned pool_threads(void)
{
    return threads_limit ? threads_limit : os_cpu_count();
}

/* One pool_run; everything below `lock` under it. */
struct pool {
    const struct pool_work *w;
    struct os_mutex *lock;
    struct os_cond *changed; /* a piece or a thread has ended */
    uint64_t next;           /* piece that nobody has begun; w->n once nothing more is to be begun */
    uint64_t done, told;     /* told: to progress, by the calling thread */
    unsigned busy;           /* other threads at work */
    uint64_t failed;
    struct err first; /* of piece `failed` */
};

struct worker {
    struct pool *pool;
    struct os_thread *handle;
    unsigned thread;
};

static void fail(struct pool *p, uint64_t i, const struct err *e)
{
    if (i < p->failed) {
        p->failed = i;
        p->first = *e;
    }
    p->next = p->w->n;
}

/* Pieces are handed out in order: when one has failed, all before it are begun, and are done to their end. */
static bool do_piece(struct pool *p, unsigned thread)
{
    struct err e = {0};
    os_mutex_lock(p->lock);
    uint64_t i = p->next;
    bool more = i < p->w->n;
    p->next += more;
    os_mutex_unlock(p->lock);
    if (!more)
        return false;
    bool ok = p->w->piece(p->w->ctx, i, thread, &e);
    os_mutex_lock(p->lock);
    p->done += ok;
    if (!ok)
        fail(p, i, &e);
    os_cond_signal(p->changed);
    os_mutex_unlock(p->lock);
    return true;
}

static void work(void *ctx)
{
    struct worker *me = ctx;
    struct pool *p = me->pool;
    while (do_piece(p, me->thread))
        ;
    os_mutex_lock(p->lock);
    p->busy--;
    os_cond_signal(p->changed);
    os_mutex_unlock(p->lock);
}

/* Pieces before one that the user stopped after may still fail: their error is the one that counts. */
static void tell(struct pool *p)
{
    os_mutex_lock(p->lock);
    uint64_t done = p->done;
    os_mutex_unlock(p->lock);
    p->told = done;
    if (!p->w->progress || p->w->progress(p->w->ctx, done))
        return;
    struct err stopped = {0};
    err_set(&stopped, ERR_STOPPED, "stopped");
    os_mutex_lock(p->lock);
    fail(p, p->w->n - 1, &stopped);
    os_mutex_unlock(p->lock);
}

/* The calling thread: works while there is work, then waits for the others. */
static void lead(struct pool *p)
{
    while (do_piece(p, 0))
        tell(p);
    os_mutex_lock(p->lock);
    while (p->busy) {
        os_cond_wait(p->changed, p->lock, WAIT_MS);
        os_mutex_unlock(p->lock);
        tell(p);
        os_mutex_lock(p->lock);
    }
    os_mutex_unlock(p->lock);
    if (p->told < p->done)
        tell(p);
}

bool pool_run(const struct pool_work *w, struct err *e)
{
    uint64_t want = pool_threads() < w->n ? pool_threads() : w->n;
    struct pool p = {.w = w, .failed = UINT64_MAX};
    if (w->n == 0)
        return true;
    struct worker *others = calloc((size_t)want, sizeof *others);
    bool ok = others ? os_mutex_create(&p.lock, e) && os_cond_create(&p.changed, e)
                     : err_nomem(e, "the list of threads", want * sizeof *others);
    for (unsigned i = 1; ok && i < want; i++) {
        others[i] = (struct worker){.pool = &p, .thread = i};
        os_mutex_lock(p.lock);
        p.busy++;
        os_mutex_unlock(p.lock);
        if (os_thread_start(&others[i].handle, work, &others[i], NULL))
            continue;
        os_mutex_lock(p.lock); /* fewer threads do it too */
        p.busy--;
        os_mutex_unlock(p.lock);
        break;
    }
    if (ok)
        lead(&p);
    for (unsigned i = 1; ok && i < want; i++)
        os_thread_join(&others[i].handle);
    if (ok && p.failed != UINT64_MAX) {
        ok = false;
        if (e)
            *e = p.first;
    }
    os_cond_destroy(&p.changed);
    os_mutex_destroy(&p.lock);
    free(others);
    return ok;
}
