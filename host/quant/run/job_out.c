/* Where a run writes: what it must not write over, and that no other run writes there too. */
#include <stdio.h>
#include <string.h>

#include "formats/shipped_text.h"
#include "formats/write/export_plan.h"
#include "host/base/comm.h"
#include "host/base/out_path.h"
#include "host/base/queue.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/run/refine_record.h"

/* A name of its own: output and work folder may be one. */
#define WORK_LOCK "run" OUT_LOCK_NAME
/* A process that ends lets go of both locks, though not at once, killed ones too; what is held for longer is another run's. */
#define ENDS_NS UINT64_C(2000000000)

static bool take_path(char *to, size_t cap, const char *from, const char *end, struct err *e)
{
    char path[4096], dir[4096];
    int n = snprintf(path, sizeof path, "%s", from);
    if (n >= 0 && (size_t)n < sizeof path) {
        out_trim(path);
        /* What lies beside "." needs its name. */
        const char *name = os_path_split(path, dir, sizeof dir);
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            os_real_path(path, path, sizeof path);
        n = snprintf(to, cap, "%s%s", path, end);
        if (n >= 0 && (size_t)n < cap)
            return true;
    }
    return err_set(e, ERR_USER, "the path is too long: %.200s", from);
}

bool job_out_paths(struct job *j, struct quantize_options *o, struct err *e)
{
    bool ok = take_path(j->out_dir, sizeof j->out_dir, o->out_dir, "", e) &&
              (o->work_dir ? take_path(j->work_dir, sizeof j->work_dir, o->work_dir, "", e)
                           : take_path(j->work_dir, sizeof j->work_dir, o->out_dir, ".work", e));
    o->out_dir = j->out_dir;
    o->work_dir = j->work_dir;
    if (!ok || o->method == METHOD_RTN || !o->calib || quantize_samples(o))
        return ok;
    ok = windows_texts(j->texts, &j->n_texts, o->calib, o->more_calib, o->n_more_calib, j->calib, sizeof j->calib, e);
    o->calib = j->texts[0];
    return ok;
}

bool job_out_check(struct job *j, struct err *e)
{
    const struct quantize_options *o = j->o;
    const char *const inputs[] = {j->n_texts ? o->calib : NULL, o->imatrix, o->refine, checkpoint_dir(j->ck)};
    const size_t n = sizeof inputs / sizeof *inputs;
    if (!out_not_input("the output", o->out_dir, j->texts, j->n_texts, e) ||
        !out_not_input("--work", o->work_dir, j->texts, j->n_texts, e))
        return false;
    bool file = o->format == EXPORT_GGUF;
    if (!file || o->force || !refine_recorded(o->out_dir, j->refined_by))
        j->refined_by[0] = 0;
    if (!out_not_input("the output", o->out_dir, inputs, n - 1, e) ||
        !export_check_out(o->format, o->out_dir, j->ck, o->force || j->refined_by[0], e) ||
        !out_not_input("the output", o->out_dir, inputs + n - 1, 1, e) ||
        !out_not_input("--work", o->work_dir, inputs, n, e))
        return false;
    enum os_kind kind = os_stat(o->work_dir, NULL);
    if (kind == OS_ABSENT || kind == OS_DIR)
        return true;
    err_set(e, ERR_USER, "the work folder %s is not a folder", o->work_dir);
    return err_hint(e, "give another one with --work");
}

static bool lock_out(struct job *j, struct err *e)
{
    const struct quantize_options *o = j->o;
    if (!comm_leads())
        return true; /* a folder that another rank made would not go with a run that is refused */
    j->made_out = os_stat(o->out_dir, NULL) == OS_ABSENT;
    return o->format == EXPORT_GGUF ? out_lock_file(&j->out_lock, o->out_dir, e)
                                    : out_lock_folder(&j->out_lock, o->out_dir, e);
}

static void unlock_out(struct job *j, bool ok)
{
    if (!j->out_lock.held)
        return;
    os_unlock(&j->out_lock);
    if (!ok && j->made_out && j->o->format != EXPORT_GGUF)
        os_remove_dir(j->out_dir);
}

bool job_out_try_lock(struct job *j, struct err *e)
{
    char path[4096], holder[128];
    if (!os_path_join(path, sizeof path, j->o->work_dir, WORK_LOCK, e))
        return false;
    switch (os_lock(&j->work_lock, path, holder, e)) {
    case OS_LOCK_BUSY:
        return true;
    case OS_LOCK_FAILED:
        return false;
    case OS_LOCKED:
        break;
    }
    struct err why = {0};
    if (lock_out(j, &why)) {
        j->out_busy = 0;
        os_out_clean(j->o->work_dir);
        return true;
    }
    os_unlock(&j->work_lock);
    const uint64_t now = os_now_ns();
    if (!j->out_busy)
        j->out_busy = now;
    if (now - j->out_busy < ENDS_NS)
        return true;
    *e = why;
    return false;
}

/* In both of these the output first: who has the work folder's lock must not find this run still at the output. */
void job_out_let_go(struct job *j)
{
    unlock_out(j, false);
    os_unlock(&j->work_lock);
}

bool job_out_lock(struct job *j, struct err *e)
{
    char path[4096];
    const struct quantize_options *o = j->o;
    if (o->dry_run)
        return true;
    if (o->join && comm_size() > 1)
        return err_set(e, ERR_USER, "--join is for processes that are not ranks of one mpirun");
    if (o->join)
        return job_join(j, e);
    if (!os_mkdirs(o->work_dir, e))
        return false;
    bool ok = lock_out(j, e) && os_path_join(path, sizeof path, o->work_dir, WORK_LOCK, e) &&
              out_lock_at(&j->work_lock, path, o->work_dir, e);
    if (!ok) {
        if (e && e->kind == ERR_ENV && !j->work_lock.held)
            err_hint(e, "wait until it is done, help it by the same command with --join, or give this run another -o "
                        "and another --work folder");
        return false;
    }
    os_out_clean(o->work_dir);
    if (comm_size() > 1) {
        j->leads = comm_leads();
        return true;
    }
    return job_lead(j, e);
}

void job_out_unlock(struct job *j, bool ok)
{
    const bool had = j->work_lock.held || j->queue;
    if (j->work_lock.held && !j->queue) /* ranks are in none */
        queue_sweep(j->work_dir);
    queue_close(&j->queue);
    unlock_out(j, ok);
    os_unlock(&j->work_lock);
    if (had)
        os_remove_dir(j->work_dir); /* where nothing is left in it */
}
