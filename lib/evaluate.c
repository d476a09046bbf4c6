#include <assert.h>
#include <math.h>
#include <string.h>

#include "formats/shipped_text.h"
#include "host/base/log.h"
#include "host/eval/eval.h"
#include "host/eval/imatrix.h"
#include "host/eval/tasks.h"
#include "lib/lib_internal.h"

/* ---- perplexity and divergence ---- */

void gsq_eval_options_init_sized(struct gsq_eval_options *o, size_t size)
{
    struct gsq_eval_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static bool take_eval(struct eval_options *out, struct lib_progress *progress, const gsq_model *model,
                      const struct gsq_eval_options *o, struct err *e)
{
    struct gsq_eval_options a = {0};
    if (!lib_take(&a, sizeof a, o, "gsq_eval_options", e))
        return false;
    if (!a.text)
        return err_set(e, ERR_USER, "gsq_eval_options.text is not set: evaluate on what?");
    *progress = (struct lib_progress){a.progress, a.ctx};
    *out = (struct eval_options){
        .text = a.text,
        .ctx = windows_context(model->ck, a.context),
        .windows = a.windows,
        .spill_dir = lib_spill_dir(a.spill),
        .progress = lib_progress(progress),
    };
    return !a.protocol || (lib_name(GSQ_NAME_PROTOCOL, a.protocol, "--protocol", e) &&
                           eval_protocol_parse(a.protocol, &out->protocol));
}

static void give_eval(struct gsq_eval_result *result, const struct eval_options *o, const struct compare_result *r)
{
    struct gsq_eval_result out = {
        .perplexity = r->model.perplexity,
        .mean_nll = r->model.mean_nll,
        .mean_kl = r->mean_kl,
        .top1 = r->top1,
        .reference_perplexity = r->reference.perplexity,
        .tokens = r->model.tokens,
        .scored = r->model.scored,
        .windows = r->model.windows,
        .context = o->ctx,
        .seconds = r->model.seconds + r->reference.seconds,
        .perplexity_error = r->model.perplexity_error,
        .mean_nll_error = r->model.nll_error,
        .mean_kl_error = r->kl_error,
        .top1_error = r->top1_error,
        .reference_perplexity_error = r->reference.perplexity_error,
        .kl_most = r->kl_most,
        .perplexity_ratio = exp(r->log_ratio),
        .perplexity_ratio_error = exp(r->log_ratio) * r->log_ratio_error,
        .correlation = r->correlation,
        .p_change = r->p_change,
        .p_change_error = r->p_change_error,
        .p_change_rms = r->p_change_rms,
        .p_change_rms_error = r->p_change_rms_error,
    };
    static_assert((int)GSQ_QUANTILES == EVAL_QUANTILES, "as many are given as are found");
    for (int i = 0; i < GSQ_QUANTILES; i++) {
        const struct quantile *q = &r->kl[i];
        out.kl_quantiles[i] = (struct gsq_quantile){q->share, q->value, q->low, q->high};
    }
    memcpy(out.token_hash, r->model.token_hash, sizeof out.token_hash);
    lib_give(result, &out, sizeof out);
}

static bool perplexity(gsq_device *d, const struct checkpoint *model, const struct eval_options *o,
                       struct eval_result *r, struct err *e)
{
    unsigned tries = 0;
    bool ok;
    do
        ok = lib_device_ready(d, e) && eval_perplexity(d->cmd, model, o, r, e);
    while (!ok && lib_device_again(d, &tries, e));
    return ok;
}

bool lib_compare(gsq_device *d, const struct checkpoint *model, const struct checkpoint *reference,
                 const struct eval_options *o, struct compare_result *r, struct err *e)
{
    unsigned tries = 0;
    bool ok;
    do
        ok = lib_device_ready(d, e) && eval_compare(d->cmd, model, reference, o, r, e);
    while (!ok && lib_device_again(d, &tries, e));
    return ok;
}

bool gsq_eval(gsq_device *device, const gsq_model *model, const struct gsq_eval_options *options,
              struct gsq_eval_result *result, struct gsq_error *e)
{
    struct err why = {0};
    struct eval_options o;
    struct lib_progress progress;
    struct compare_result r = {0};
    bool ok = take_eval(&o, &progress, model, options, &why) && lib_device_choose(device, false, &why) &&
              perplexity(device, model->ck, &o, &r.model, &why);
    if (ok)
        give_eval(result, &o, &r);
    return lib_result(ok, &why, e);
}

bool gsq_compare(gsq_device *device, const gsq_model *model, const gsq_model *reference,
                 const struct gsq_eval_options *options, struct gsq_eval_result *result, struct gsq_error *e)
{
    struct err why = {0};
    struct eval_options o;
    struct lib_progress progress;
    struct compare_result r = {0};
    bool ok = take_eval(&o, &progress, model, options, &why) && lib_device_choose(device, false, &why) &&
              lib_compare(device, model->ck, reference->ck, &o, &r, &why);
    if (ok)
        give_eval(result, &o, &r);
    return lib_result(ok, &why, e);
}

/* ---- questions ---- */

void gsq_tasks_options_init_sized(struct gsq_tasks_options *o, size_t size)
{
    struct gsq_tasks_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static bool answer(gsq_device *d, const struct checkpoint *model, const struct tasks_options *o, struct tasks_result *r,
                   struct err *e)
{
    unsigned tries = 0;
    bool ok;
    do
        ok = lib_device_ready(d, e) && tasks_run(d->cmd, model, o, r, e);
    while (!ok && lib_device_again(d, &tries, e));
    return ok;
}

bool gsq_eval_tasks(gsq_device *device, const gsq_model *model, const struct gsq_tasks_options *options,
                    struct gsq_tasks_result *result, struct gsq_error *e)
{
    struct err why = {0};
    struct gsq_tasks_options a = {0};
    struct tasks_result r = {0};
    bool ok = lib_take(&a, sizeof a, options, "gsq_tasks_options", &why);
    if (ok && !a.questions)
        ok = err_set(&why, ERR_USER, "gsq_tasks_options.questions is not set: which questions?");
    if (ok) {
        struct lib_progress progress = {a.progress, a.ctx};
        const struct tasks_options o = {
            .path = a.questions,
            .at_most = a.at_most,
            .ctx = windows_context(model->ck, a.context),
            .spill_dir = lib_spill_dir(a.spill),
            .progress = lib_progress(&progress),
        };
        ok = lib_device_choose(device, false, &why) && answer(device, model->ck, &o, &r, &why);
    }
    const struct gsq_tasks_result out = {
        .accuracy = r.accuracy,
        .accuracy_error = r.accuracy_error,
        .accuracy_by_length = r.by_length,
        .accuracy_by_length_error = r.by_length_error,
        .chance = r.chance,
        .mean_nll = r.mean_nll,
        .questions = r.questions,
        .cut = r.cut,
        .context = r.ctx,
        .tokens = r.tokens,
        .seconds = r.seconds,
    };
    if (ok)
        lib_give(result, &out, sizeof out);
    return lib_result(ok, &why, e);
}

/* ---- importance ---- */

void gsq_imatrix_options_init_sized(struct gsq_imatrix_options *o, size_t size)
{
    struct gsq_imatrix_options defaults = {.size = size, .samples = 128};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static bool collect(gsq_device *d, const struct checkpoint *model, const struct imatrix_options *o, struct imatrix *m,
                    struct imatrix_result *r, struct err *e)
{
    unsigned tries = 0;
    bool ok;
    do {
        imatrix_free(m);
        ok = lib_device_ready(d, e) && imatrix_collect(d->cmd, model, o, m, r, e);
    } while (!ok && lib_device_again(d, &tries, e));
    return ok;
}

bool gsq_imatrix(gsq_device *device, const gsq_model *model, const struct gsq_imatrix_options *options,
                 struct gsq_imatrix_result *result, struct gsq_error *e)
{
    struct err why = {0};
    struct gsq_imatrix_options a;
    struct imatrix m = {0};
    struct imatrix_result r = {0};
    gsq_imatrix_options_init(&a);
    bool ok = lib_take(&a, sizeof a, options, "gsq_imatrix_options", &why);
    if (ok && (!a.out || !a.calib))
        ok = err_set(&why, ERR_USER, "gsq_imatrix_options needs out and calib");
    char path[4096];
    const char *texts[TEXTS_MOST];
    size_t n_texts = 0;
    ok = ok && windows_texts(texts, &n_texts, a.calib, a.more_calib, a.n_more_calib, path, sizeof path, &why);
    if (ok) {
        struct lib_progress progress = {a.progress, a.ctx};
        struct imatrix_options o = {
            .texts = texts,
            .n_texts = n_texts,
            .ctx = windows_context(model->ck, a.context),
            .windows = a.samples,
            .spill_dir = lib_spill_dir(a.spill),
            .progress = lib_progress(&progress),
        };
        struct os_lock lock = {0};
        ok = imatrix_lock_out(&lock, a.out, model->ck, texts, n_texts, a.force, &why) &&
             lib_device_choose(device, false, &why) && collect(device, model->ck, &o, &m, &r, &why);
        ok = ok && imatrix_write(&m, a.out, &why);
        os_unlock(&lock);
    }
    struct gsq_imatrix_result out = {
        .entries = m.n,
        .tokens = r.tokens,
        .windows = r.windows,
        .context = m.chunk_size,
        .seconds = r.seconds,
    };
    if (ok)
        lib_give(result, &out, sizeof out);
    imatrix_free(&m);
    return lib_result(ok, &why, e);
}
