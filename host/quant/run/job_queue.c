/* Several processes at one run (host/base/queue.h). Each walks through all blocks, and what is made of one is shared by its files in the work
 * folder: linears of a half, halves that are trained, experts by parts, and, where no linear needs another, whole blocks. The process that
 * leads writes the results and removes the folder; where it is gone, another one leads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/queue.h"
#include "host/quant/run/job_internal.h"

/* Units of a process for as long as it leads, and until the work folder says which run it is of. */
#define UNIT_LEADS  "leads"
#define UNIT_BEGINS "begins"
/* One that leads says so in less than that. */
enum { BEGIN_MS = 3000 };

bool job_shared(const struct job *j)
{
    return queue_processes(j->queue) > 1;
}

static bool wait(struct job *j, const char *what, struct err *e)
{
    struct progress_event ev = job_event(j, "wait");
    ev.detail = what;
    os_sleep_ms(QUEUE_WAIT_MS);
    return progress_report(&j->watch, &ev, e);
}

/* ---- who leads ---- */

/* Once more, of one that holds the locks. *leads false: another process has the units still. */
static bool take_lead(struct job *j, bool *leads, struct err *e)
{
    enum queue_turn turn = queue_take(j->queue, UNIT_BEGINS, e);
    if (turn == QUEUE_MINE && (turn = queue_take(j->queue, UNIT_LEADS, e)) == QUEUE_BUSY)
        queue_give_back(j->queue, UNIT_BEGINS);
    *leads = turn == QUEUE_MINE;
    return turn != QUEUE_FAILED;
}

bool job_lead(struct job *j, struct err *e)
{
    if (!queue_open(&j->queue, j->work_dir, e))
        return false;
    const uint64_t most = 1000 * (uint64_t)queue_patience(j->queue) + BEGIN_MS;
    for (uint64_t ms = 0;; ms += QUEUE_WAIT_MS) {
        if (!take_lead(j, &j->leads, e) || j->leads)
            return j->leads;
        if (ms > most)
            return err_set(e, ERR_ENV, "another gsq is writing %s, and this file system has no locks", j->work_dir);
        if (!wait(j, "a process that may be at work there", e))
            return false;
    }
}

bool job_follow(struct job *j, struct err *e)
{
    bool ok = true;
    if (j->leads)
        return true;
    if (!job_out_try_lock(j, e))
        return false;
    if (j->work_lock.held)
        ok = take_lead(j, &j->leads, e);
    if (!j->leads)
        job_out_let_go(j);
    return ok;
}

/* A run that ends removes the folder, perhaps after this process has made sure that it is there. */
static bool open_queue(struct job *j, struct err *e)
{
    for (unsigned ms = 0;; ms += QUEUE_WAIT_MS) {
        if (!os_mkdirs(j->work_dir, e))
            return false;
        if (queue_open(&j->queue, j->work_dir, e))
            return true;
        if (ms >= BEGIN_MS || os_stat(j->work_dir, NULL) != OS_ABSENT || !wait(j, "another process", e))
            return false;
    }
}

bool job_join(struct job *j, struct err *e)
{
    if (!open_queue(j, e))
        return false;
    for (unsigned ms = 0; ms < BEGIN_MS; ms += QUEUE_WAIT_MS) {
        if (!job_follow(j, e))
            return false;
        if (j->leads)
            return true;
        enum queue_turn turn = queue_take(j->queue, UNIT_LEADS, e);
        if (turn != QUEUE_MINE)
            return turn == QUEUE_BUSY;
        queue_give_back(j->queue, UNIT_LEADS);
        if (!wait(j, "another process", e))
            return false;
    }
    err_set(e, ERR_ENV, "the gsq that is writing %s cannot be joined: it runs by MPI, or is another version",
            j->work_dir);
    return err_hint(e, "wait until it is done");
}

bool job_await_begin(struct job *j, struct err *e)
{
    while (j->queue && !j->leads) {
        if (!job_follow(j, e) || j->leads)
            return j->leads;
        enum queue_turn turn = queue_take(j->queue, UNIT_BEGINS, e);
        if (turn == QUEUE_FAILED)
            return false;
        if (turn == QUEUE_MINE) {
            queue_give_back(j->queue, UNIT_BEGINS);
            if (store_begun(j->work_dir))
                return true;
        }
        if (!wait(j, "the process that began", e))
            return false;
    }
    return true;
}

void job_has_begun(struct job *j)
{
    queue_give_back(j->queue, UNIT_BEGINS);
}

bool job_await_end(struct job *j, struct err *e)
{
    return job_follow(j, e) && (j->leads || wait(j, "the process that writes the result", e));
}

/* ---- units ---- */

/* Where another process has finished the run, its work folder is gone. */
static bool goes_on(struct job *j, struct err *e)
{
    return j->leads || !j->queue || store_begun(j->work_dir) ||
           err_set(e, ERR_ENV, "the run in %s has ended", j->work_dir);
}

/* One unit, unless another process is at it. */
static bool try_unit(struct job *j, const struct job_units *u, uint32_t i, bool *done, struct err *e)
{
    char room[UNIT_NAME_CAP];
    const char *name = u->name ? u->name(u->ctx, i, room) : u->only;
    const bool shared = job_shared(j);
    if (shared) {
        enum queue_turn turn = queue_take(j->queue, name, e);
        if (turn != QUEUE_MINE)
            return turn == QUEUE_BUSY;
    }
    bool ok = goes_on(j, e) && u->look(u->ctx, i, done, e) && (*done || u->make(u->ctx, i, e));
    *done = ok;
    if (shared)
        queue_give_back(j->queue, name);
    return ok;
}

bool job_each_unit(struct job *j, const struct job_units *u, struct err *e)
{
    bool *done = calloc(u->n + 1u, sizeof *done);
    uint32_t left = u->n;
    bool ok = done || err_nomem(e, "a list of units", u->n);
    while (ok && left) {
        const uint32_t before = left;
        for (uint32_t i = 0; ok && i < u->n; i++)
            if (!done[i]) {
                ok = try_unit(j, u, i, &done[i], e);
                left -= done[i];
            }
        if (ok && left == before)
            ok = goes_on(j, e) && wait(j, u->what, e);
    }
    free(done);
    return ok;
}
