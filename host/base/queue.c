#include "host/base/queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/grow.h"
#include "host/base/os.h"
#include "host/base/out_path.h"

enum { NAME = 128, PATH = 4096, BEAT_MS = 500 };
/* A file that another process has open just then cannot be removed everywhere; nor can one be made while it goes. */
#define TRIES    100
#define RETRY_MS 10

struct process {
    char name[NAME], said[NAME]; /* what stands in its file */
    uint64_t since;              /* when that was new */
    bool here;                   /* on this machine */
    bool gone, listed;
};

struct queue {
    char dir[3072], name[NAME], host[64];
    struct os_lock lock;
    uint64_t beat, patience_ns;
    struct os_thread *thread;
    struct os_mutex *mutex; /* of all below */
    struct os_cond *cond;
    bool ends;
    struct process *others;
    size_t n_others, cap_others;
    char (*held)[NAME]; /* units of this process */
    size_t n_held, cap_held;
    char blank[NAME]; /* a unit whose lease names nobody (its maker died just then, or is about to write), since */
    uint64_t blank_since;
    atomic_uint processes;
};

static bool path_of(const struct queue *q, const char *begin, const char *name, const char *end, char path[PATH])
{
    int n = snprintf(path, PATH, "%s/%s%s%s", q->dir, begin, name, end);
    return n > 0 && n < PATH;
}

/* ---- processes ---- */

/* The number grows in place: no moment without one. */
static bool say(struct queue *q)
{
    char path[PATH];
    if (!path_of(q, QUEUE_PROCESS, q->name, "", path))
        return false;
    FILE *f = os_fopen(path, "r+b");
    if (!f)
        f = os_fopen(path, "wb");
    if (!f)
        return false;
    bool ok = fprintf(f, "%s %020llu\n", q->host, (unsigned long long)++q->beat) > 0;
    return fclose(f) == 0 && ok;
}

static bool read_line(const char *path, char out[NAME])
{
    FILE *f = os_fopen(path, "rb"); /* not mapped: it changes, and goes */
    out[0] = 0;
    if (!f)
        return false;
    out[fread(out, 1, NAME - 1, f)] = 0;
    fclose(f);
    out[strcspn(out, "\n")] = 0;
    return true;
}

/* On this machine a lock tells at once. What the process left behind goes. */
static bool lock_is_free(const struct queue *q, const struct process *p)
{
    char path[PATH], holder[128];
    struct os_lock lock = {0};
    if (!path_of(q, QUEUE_PROCESS, p->name, OUT_LOCK_NAME, path) || os_lock(&lock, path, holder, NULL) != OS_LOCKED)
        return false;
    if (path_of(q, QUEUE_PROCESS, p->name, "", path))
        os_remove(path);
    os_unlock(&lock);
    return true;
}

static void look_at(const struct queue *q, struct process *p)
{
    char path[PATH], said[NAME];
    const uint64_t now = os_now_ns();
    if (!path_of(q, QUEUE_PROCESS, p->name, "", path) || !read_line(path, said)) {
        p->gone = true;
        return;
    }
    if (said[0] && strcmp(said, p->said) != 0) {
        snprintf(p->said, sizeof p->said, "%s", said);
        p->since = now;
    }
    const size_t host = strlen(q->host);
    p->here = strncmp(p->said, q->host, host) == 0 && p->said[host] == ' ';
    p->gone = now - p->since > q->patience_ns || (p->here && lock_is_free(q, p));
}

static struct process *find(struct queue *q, const char *name)
{
    for (size_t i = 0; i < q->n_others; i++)
        if (strcmp(q->others[i].name, name) == 0)
            return &q->others[i];
    struct process *grown = grow(q->others, &q->cap_others, q->n_others, sizeof *grown, "the processes", NULL);
    if (!grown)
        return NULL;
    q->others = grown;
    struct process *p = &q->others[q->n_others++];
    *p = (struct process){.since = os_now_ns()};
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

static bool on_file(void *ctx, const char *name, struct err *e)
{
    struct queue *q = ctx;
    const size_t begin = strlen(QUEUE_PROCESS), end = strlen(OUT_LOCK_NAME), n = strlen(name);
    (void)e;
    if (strncmp(name, QUEUE_PROCESS, begin) != 0 || n >= begin + NAME || strcmp(name + begin, q->name) == 0 ||
        (n > end && strcmp(name + n - end, OUT_LOCK_NAME) == 0))
        return true;
    struct process *p = find(q, name + begin);
    if (p)
        p->listed = true;
    return true;
}

/* Looks who is there. */
static void look_around(struct queue *q)
{
    for (size_t i = 0; i < q->n_others; i++)
        q->others[i].listed = false;
    os_list(q->dir, on_file, q, NULL);
    unsigned there = 1;
    for (size_t i = 0; i < q->n_others;) {
        struct process *p = &q->others[i];
        if (!p->listed) {
            *p = q->others[--q->n_others];
            continue;
        }
        look_at(q, p);
        there += !p->gone;
        i++;
    }
    atomic_store(&q->processes, there);
}

static bool is_gone(struct queue *q, const char *name)
{
    struct process *p = find(q, name);
    if (p)
        look_at(q, p);
    return p && p->gone;
}

static void watch(void *ctx)
{
    struct queue *q = ctx;
    os_mutex_lock(q->mutex);
    while (!q->ends) {
        look_around(q);
        if (atomic_load(&q->processes) > 1)
            say(q);
        os_cond_wait(q->cond, q->mutex, BEAT_MS);
    }
    os_mutex_unlock(q->mutex);
}

/* ---- leases ---- */

static void remove_lease(const char *path)
{
    for (int i = 0; i < TRIES && !os_remove(path); i++)
        os_sleep_ms(RETRY_MS);
}

static bool hold(struct queue *q, const char *unit)
{
    for (size_t i = 0; i < q->n_held; i++)
        if (strcmp(q->held[i], unit) == 0)
            return true;
    void *grown = grow(q->held, &q->cap_held, q->n_held, sizeof *q->held, "the leases", NULL);
    if (!grown)
        return false;
    q->held = grown;
    snprintf(q->held[q->n_held++], NAME, "%s", unit);
    return true;
}

/* Whether a lease that names nobody is there long enough to be nobody's. */
static bool stays_blank(struct queue *q, const char *unit)
{
    const uint64_t now = os_now_ns();
    if (strcmp(q->blank, unit) != 0) {
        snprintf(q->blank, sizeof q->blank, "%s", unit);
        q->blank_since = now;
    }
    return now - q->blank_since > q->patience_ns;
}

/* Whether nobody at work has the lease that is there. *mine: this process has. */
static bool is_free(struct queue *q, const char *unit, const char *path, bool *mine)
{
    char owner[NAME];
    if (!read_line(path, owner))
        return true; /* it has just gone */
    *mine = strcmp(owner, q->name) == 0;
    return *mine || (owner[0] ? is_gone(q, owner) : stays_blank(q, unit));
}

static enum queue_turn take(struct queue *q, const char *unit, struct err *e)
{
    char path[PATH];
    struct os_guard guard = {0};
    bool mine = false;
    if (!path_of(q, QUEUE_LEASE, unit, "", path))
        goto failed;
    for (int i = 0; i < TRIES; i++) {
        FILE *f = os_create_new(path, &guard);
        if (f) {
            bool ok = fputs(q->name, f) >= 0;
            ok = fclose(f) == 0 && ok;
            os_unguard(&guard);
            if (ok && hold(q, unit))
                return QUEUE_MINE;
            os_remove(path);
            break;
        }
        if (errno != EEXIST) {
            if (os_stat(q->dir, NULL) != OS_DIR)
                break;
            os_sleep_ms(RETRY_MS); /* one is going just now */
            continue;
        }
        if (!is_free(q, unit, path, &mine))
            return QUEUE_BUSY;
        if (mine)
            return QUEUE_MINE;
        remove_lease(path);
    }
failed:
    os_write_failed(path, e);
    return QUEUE_FAILED;
}

enum queue_turn queue_take(struct queue *q, const char *unit, struct err *e)
{
    if (!q)
        return QUEUE_MINE;
    os_mutex_lock(q->mutex);
    enum queue_turn turn = take(q, unit, e);
    os_mutex_unlock(q->mutex);
    return turn;
}

static void give_back(struct queue *q, const char *unit)
{
    char path[PATH], owner[NAME];
    if (path_of(q, QUEUE_LEASE, unit, "", path) && read_line(path, owner) && strcmp(owner, q->name) == 0)
        remove_lease(path);
}

void queue_give_back(struct queue *q, const char *unit)
{
    if (!q)
        return;
    os_mutex_lock(q->mutex);
    for (size_t i = 0; i < q->n_held; i++)
        if (strcmp(q->held[i], unit) == 0) {
            give_back(q, unit);
            memmove(q->held[i], q->held[--q->n_held], NAME);
            break;
        }
    os_mutex_unlock(q->mutex);
}

/* ---- the whole ---- */

unsigned queue_processes(const struct queue *q)
{
    return q ? atomic_load(&q->processes) : 1;
}

unsigned queue_patience(const struct queue *q)
{
    return q ? (unsigned)(q->patience_ns / 1000000000u) : 0;
}

/* HOST-PID-TIME: one that comes later never has the name of one that was there. */
static void name_process(struct queue *q)
{
    os_host_name(q->host, sizeof q->host);
    for (char *c = q->host; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._", *c))
            *c = '_';
    snprintf(q->name, sizeof q->name, "%s-%llu-%llx", q->host, (unsigned long long)os_process_id(),
             (unsigned long long)os_now_ns());
}

bool queue_open(struct queue **out, const char *dir, struct err *e)
{
    struct queue *q = calloc(1, sizeof *q);
    char path[PATH], holder[128];
    if (!q)
        return err_nomem(e, "the queue", sizeof *q);
    const char *asked = os_getenv("GSQ_QUEUE_SECONDS");
    int seconds = asked ? atoi(asked) : 0;
    q->patience_ns = (uint64_t)(seconds > 0 ? seconds : QUEUE_SECONDS) * 1000000000u;
    atomic_init(&q->processes, 1);
    name_process(q);
    bool ok = (strlen(dir) < sizeof q->dir && path_of(q, QUEUE_PROCESS, q->name, OUT_LOCK_NAME, path)) ||
              err_set(e, ERR_USER, "the path is too long: %.200s", dir);
    if (ok) {
        strcpy(q->dir, dir);
        ok = path_of(q, QUEUE_PROCESS, q->name, OUT_LOCK_NAME, path) &&
             os_lock(&q->lock, path, holder, e) == OS_LOCKED && (say(q) || os_write_failed(path, e)) &&
             os_mutex_create(&q->mutex, e) && os_cond_create(&q->cond, e);
    }
    if (ok)
        look_around(q);
    ok = ok && os_thread_start(&q->thread, watch, q, e);
    if (!ok)
        queue_close(&q);
    *out = q;
    return ok;
}

/* A lease, or a process, of one that is gone. */
static bool sweep(void *ctx, const char *name, struct err *e)
{
    struct queue *q = ctx;
    char path[PATH], owner[NAME];
    bool mine = false;
    (void)e;
    if (strncmp(name, QUEUE_LEASE, strlen(QUEUE_LEASE)) == 0 && path_of(q, "", name, "", path) &&
        read_line(path, owner) && is_free(q, name + strlen(QUEUE_LEASE), path, &mine))
        os_remove(path);
    return true;
}

static void sweep_all(struct queue *q)
{
    char path[PATH];
    look_around(q);
    os_list(q->dir, sweep, q, NULL);
    for (size_t i = 0; i < q->n_others; i++)
        if (q->others[i].gone && path_of(q, QUEUE_PROCESS, q->others[i].name, "", path)) {
            os_remove(path);
            if (path_of(q, QUEUE_PROCESS, q->others[i].name, OUT_LOCK_NAME, path))
                os_remove(path);
        }
}

void queue_close(struct queue **out)
{
    struct queue *q = *out;
    char path[PATH];
    if (!q)
        return;
    if (q->thread) {
        os_mutex_lock(q->mutex);
        q->ends = true;
        os_cond_signal(q->cond);
        os_mutex_unlock(q->mutex);
        os_thread_join(&q->thread);
    }
    for (size_t i = 0; i < q->n_held; i++)
        give_back(q, q->held[i]);
    if (q->lock.held) {
        sweep_all(q);
        if (path_of(q, QUEUE_PROCESS, q->name, "", path))
            remove_lease(path);
        os_unlock(&q->lock);
    }
    os_cond_destroy(&q->cond);
    os_mutex_destroy(&q->mutex);
    free(q->others);
    free(q->held);
    free(q);
    *out = NULL;
}

void queue_sweep(const char *dir)
{
    struct queue *q = NULL;
    struct err why = {0};
    queue_open(&q, dir, &why);
    queue_close(&q);
}
