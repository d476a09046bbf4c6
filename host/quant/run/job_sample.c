/* The text that a model writes itself, as a part of a run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer/tokenizer.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/quant/run/job_internal.h"

/* What the tokenizer puts in front of a text; where it puts nothing, what the configuration names, which in such models separates
 * texts; -1: nothing. */
static int64_t first_token(const struct job *j)
{
    const struct model_config *c = checkpoint_config(j->ck);
    struct tokenizer *t = NULL;
    struct err why = {0};
    int64_t bos = tokenizer_load(&t, checkpoint_dir(j->ck), &why) ? tokenizer_bos(t) : -1;
    tokenizer_destroy(&t);
    const int64_t ids[] = {bos, c->bos_id, c->eos_id};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i] >= 0 && ids[i] < c->vocab_size)
            return ids[i];
    return -1;
}

bool job_sample_begin(struct job *j, const struct quantize_options *o, uint32_t ctx, struct err *e)
{
    char text[128];
    if (!sampling_can(checkpoint_config(j->ck))) {
        err_set(e, ERR_USER, "--calib self: gsq cannot write with a model that has the gated delta rule");
        return err_hint(e, "give a text with --calib, or --calib default, the text that comes with gsq");
    }
    j->windows =
        (struct windows){.n = o->samples, .ctx = ctx, .tokens = (uint64_t)o->samples * ctx, .bos = first_token(j)};
    int n = snprintf(text, sizeof text, "sampled, revision %d, from %lld, seed %llu", SAMPLING_REVISION,
                     (long long)j->windows.bos, (unsigned long long)o->seed);
    j->windows.hash = hash_bytes(text, (size_t)n, (struct hash128){0});
    log_info("%s the model writes the %llu tokens that it is calibrated on; a text like what it will read is better: "
             "--calib FILE, or default",
             o->no_text ? "no text:" : "--calib self:", (unsigned long long)j->windows.tokens);
    return true;
}

static bool on_pass(void *ctx, uint32_t pass, uint32_t passes)
{
    struct job *j = ctx;
    stop_point("sample", NULL);
    snprintf(j->detail, sizeof j->detail, "token %u of %u", pass, passes);
    return job_tell_step(j, "sample", (double)pass / passes, pass, passes, NAN);
}

static bool save(void *ctx, const uint32_t *ids, uint32_t segments, struct err *e)
{
    struct job *j = ctx;
    stop_point("sampled", NULL);
    return store_write_sampled(j->store, ids, (uint64_t)segments * j->plan.sampling.length, e);
}

/* Segments that the work folder has. */
static uint32_t read_sampled(struct job *j)
{
    const struct sampling *s = &j->plan.sampling;
    return (uint32_t)(store_read_sampled(j->store, j->windows.ids, (uint64_t)s->segments * s->length) / s->length);
}

static bool look_sampled(void *ctx, uint32_t i, bool *there, struct err *e)
{
    struct job *j = ctx;
    (void)i, (void)e;
    *there = read_sampled(j) >= j->plan.sampling.segments;
    return true;
}

static bool make_sampled(void *ctx, uint32_t i, struct err *e)
{
    struct job *j = ctx;
    const struct sampling_hooks hooks = {j, on_pass, save};
    (void)i;
    job_begin(j, WORK_SAMPLE, job_sample_work(j));
    bool ok = sampling_run(&j->plan.sampling, j->m, j->windows.bos, (uint32_t)j->o->seed, j->windows.ids,
                           read_sampled(j), &hooks, e);
    job_end(j);
    return ok;
}

bool job_sample(struct job *j, struct err *e)
{
    const struct sampling *s = &j->plan.sampling;
    const uint64_t n = (uint64_t)s->segments * s->length;
    const struct job_units text = {.n = 1,
                                   .what = "the text that another process has the model write",
                                   .only = "sampled",
                                   .look = look_sampled,
                                   .make = make_sampled,
                                   .ctx = j};
    if (!n)
        return true;
    j->windows.ids = calloc((size_t)n, sizeof *j->windows.ids);
    if (!j->windows.ids)
        return err_nomem(e, "windows", n * sizeof *j->windows.ids);
    uint64_t clock = os_now_ns();
    if (!job_each_unit(j, &text, e))
        return false;
    eta_close(&j->eta, WORK_SAMPLE);
    job_clock(j, PHASE_CALIBRATE, &clock);
    j->detail[0] = 0;
    return windows_check_ids(j->windows.ids, (size_t)n, j->m->cfg->vocab_size, e);
}
