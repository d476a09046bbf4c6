#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/shipped_text.h"
#include "formats/write/write_gguf.h"
#include "formats/write/write_hf.h"
#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/out_path.h"
#include "host/base/stop_point.h"
#include "host/quant/plan/planner.h"
#include "host/quant/run/identity.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/plan/refine.h"

/* Whether a block of the model is still what it was when this run started: days may have passed. */
static bool source_same(const struct job *j, uint32_t layer, struct err *e)
{
    char prefix[72], own[72], name[64];
    snprintf(prefix, sizeof prefix, "%s.", config_layer_name(j->m->cfg, layer, name, sizeof name));
    if (j->refined)
        snprintf(own, sizeof own, "%s.", config_layer_name(j->refined->cfg, layer, name, sizeof name));
    return checkpoint_sum_same(&j->sums, prefix, e) && (!j->refined || checkpoint_sum_same(&j->refined_sums, own, e));
}

/* The same, of one that is read ahead. */
static bool source_ready(struct job *j, uint32_t layer, struct err *e)
{
    return block_ahead_has(&j->ahead, layer) ? block_ahead_wait(&j->ahead, e) : source_same(j, layer, e);
}

static bool check_ahead(void *ctx, uint32_t layer, struct err *e)
{
    return source_same(ctx, layer, e);
}

/* Quantizes a block, whose last part is written while the next block is worked on. */
static bool make_block(struct job *j, uint32_t layer, struct err *e)
{
    const struct block_items b = plan_block(&j->plan, layer);
    const uint32_t stored = store_whole_parts(j->store, layer);
    struct block_result r;
    if (stored)
        log_info("block %u: %u of its %u files are there already", layer + 1, stored, store_files(b));
    bool ok = block_result_make(&r, b.n, e) && source_ready(j, layer, e) && job_block(j, layer, &r, e) &&
              job_end_part(j, layer, &r, e);
    block_result_free(&r);
    return ok;
}

/* Takes up a block from an earlier run. */
static bool replay_block(struct job *j, uint32_t layer, bool carry, struct err *e)
{
    bool ok = job_stored(j, true, e) && (!carry || (source_ready(j, layer, e) && job_block_resume(j, layer, e)));
    for (uint32_t part = 0, n = store_parts(plan_block(&j->plan, layer)); ok && part < n; part++)
        ok = job_report_stored(j, layer, part, e);
    return ok;
}

static bool one_block(struct job *j, uint32_t layer, bool replay, bool carry, struct err *e)
{
    char name[64];
    j->layer = layer;
    bool ok = replay ? replay_block(j, layer, carry, e) : make_block(j, layer, e);
    /* What could not be written says itself which block it was. */
    return ok || (e->kind != ERR_STOPPED && !j->writing.failed &&
                  err_context(e, "%s", config_layer_name(j->m->cfg, layer, name, sizeof name)));
}

/* Whether it is there, in the work folder. */
static bool has_block(struct job *j, uint32_t layer)
{
    const struct block_items b = plan_block(&j->plan, layer);
    bool all = true;
    for (uint32_t part = 0, n = store_parts(b); part < n; part++)
        all = (job_shared(j) ? store_look(j->store, layer, part, store_part(b, part))
                             : store_has_part(j->store, layer, part)) &&
              all;
    return all;
}

static bool walk_block(struct job *j, uint32_t layer, bool replay, struct err *e)
{
    j->found = j->found || replay;
    uint64_t begin = os_now_ns();
    double busy = gpu_cmd_busy(j->cmd);
    if (!one_block(j, layer, replay, j->acts || j->targets, e))
        return false;
    double seconds = (double)(os_now_ns() - begin) * 1e-9;
    busy = gpu_cmd_busy(j->cmd) - busy;
    log_debug("block %u: %.3f s, of which the device was idle for %.3f (%.1f %%)", layer + 1, seconds, seconds - busy,
              100 * (1 - busy / seconds));
    return true;
}

/* Blocks that do not read each other's results, as units. */
static const char *block_name(void *ctx, uint32_t layer, char out[UNIT_NAME_CAP])
{
    (void)ctx;
    snprintf(out, UNIT_NAME_CAP, "block-%04u", layer);
    return out;
}

static bool look_block(void *ctx, uint32_t layer, bool *there, struct err *e)
{
    struct job *j = ctx;
    *there = has_block(j, layer);
    return !*there || walk_block(j, layer, true, e);
}

static bool walk_block_new(void *ctx, uint32_t layer, struct err *e)
{
    struct job *j = ctx;
    return walk_block(j, layer, false, e) && (!job_shared(j) || job_stored(j, true, e));
}

static bool walk_blocks(struct job *j, struct err *e)
{
    j->out->blocks_resumed = j->blocks_whole;
    if (j->blocks_whole)
        log_info("%u of %u blocks are done already", j->blocks_whole, j->plan.n_layers);
    const struct job_units any = {.n = j->plan.n_layers,
                                  .what = "blocks of another process",
                                  .name = block_name,
                                  .look = look_block,
                                  .make = walk_block_new,
                                  .ctx = j};
    bool ok = true;
    if (job_alone(j))
        ok = job_each_unit(j, &any, e);
    else
        for (uint32_t layer = 0; ok && layer < j->plan.n_layers; layer++)
            ok = walk_block(j, layer, has_block(j, layer), e);
    return ok && job_stored(j, true, e);
}

/* ---- the run ---- */

/* Before there is a plan, and a prediction. */
static bool tell_phase(struct job *j, const char *phase, struct err *e)
{
    struct progress_event ev = {.phase = phase, .loss = NAN};
    return progress_report(&j->watch, &ev, e);
}

/* *held: windows of a text that is too short, else UINT32_MAX. */
static bool load_calibration(struct job *j, struct quantize_options *o, uint32_t ctx, uint32_t *held, struct err *e)
{
    *held = UINT32_MAX;
    if (o->imatrix && (!imatrix_read(&j->imatrix, o->imatrix, j->ck, e) ||
                       !imatrix_limit(&j->imatrix, o->importance_names, o->n_importance_names, o->importance_skip, e)))
        return false;
    if (quantize_diagonal(o)) {
        log_info("no text: each linear is learned alone, on the importance of its inputs");
        return true;
    }
    if (o->method == METHOD_RTN)
        return true;
    quantize_fit_context(o, ctx);
    const uint32_t asked = o->samples;
    if (quantize_samples(o))
        return job_sample_begin(j, o, ctx, e);
    if (!windows_load_texts(&j->windows, j->ck, j->texts, j->n_texts, ctx, o->samples, &j->watch, e))
        return false;
    if (j->windows.n < asked)
        *held = j->windows.n;
    char text[4096 + 8];
    snprintf(text, sizeof text, "%s", o->calib);
    if (j->n_texts > 1)
        snprintf(text, sizeof text, "the mixture of %zu texts", j->n_texts);
    if (quantize_fit_text(o, ctx, j->windows.n))
        log_info("%s holds %u windows of %u tokens, --effort %s takes up to %u: all of it is used; fewer windows cost "
                 "accuracy, and a longer text gains (docs/method.md 7)",
                 text, (unsigned)o->samples, (unsigned)ctx, effort_name(o->effort), (unsigned)asked);
    else
        windows_tell_short(&j->windows, text, asked);
    return true;
}

/* Nothing goes back through attention of some families. A step of the pass over scales goes forward and back through all experts,
 * which come from the disk one at a time. */
static void settle_training(const struct model *m, struct quantize_options *o)
{
    if (config_forward_only(m->cfg)) {
        if (m->cfg->delta.value_heads && o->method == METHOD_GSQ && (o->block.epochs || o->scales.epochs))
            log_info("a model with the gated delta rule, which gsq computes forward alone: linears of attention learn "
                     "alone, each on its own Hessian%s; scales are not trained end to end",
                     o->block.epochs ? ", feed-forward halves and experts together on what they give" : "");
        o->block.attn_alone = true;
        o->scales.epochs = 0;
    }
    if (!m->cfg->experts.n || o->method != METHOD_GSQ || !o->scales.epochs)
        return;
    log_info("a model with experts: scales are not trained end to end, since each step would load every expert twice");
    o->scales.epochs = 0;
}

static bool open_refined(struct job *j, const struct quantize_options *o, uint32_t ctx, struct err *e)
{
    return checkpoint_open(&j->refined_ck, o->refine, e) && refine_check(j->refined_ck, j->ck, e) &&
           gguf_check_out(o->out_dir, j->refined_ck, o->force || j->refined_by[0], e) &&
           ((j->cmd ? model_open(&j->refined, j->cmd, j->refined_ck, ctx, e)
                    : model_describe(&j->refined, j->refined_ck, ctx, e)) ||
            err_context(e, "%s", o->refine));
}

static bool on_check(void *ctx, double done)
{
    stop_point("check", NULL);
    return job_tell(ctx, done, job_event(ctx, "check"), NULL);
}

/* Damaged weights are found before hours of work; their sums are taken in the same reading. */
static bool check_weights(struct job *j, struct err *e)
{
    job_begin(j, WORK_CHECK, j->eta.kind[WORK_CHECK].total);
    bool ok = on_check(j, 0) ? model_check_finite(j->m, &j->sums, on_check, j, e) &&
                                   (!j->refined || model_check_finite(j->refined, &j->refined_sums, NULL, NULL, e))
                             : err_set(e, ERR_STOPPED, "stopped");
    job_end(j);
    return ok;
}

/* What follows from a rank's free memory or its device's speed is the leader's on all: sums have one order then. */
static bool take_up_leader(struct job *j, struct err *e)
{
    char memory[JOB_MEMORY_TEXT], kernels[JOB_KERNELS_TEXT], own[JOB_KERNELS_TEXT];
    if (comm_size() == 1)
        return true;
    identity_memory(&j->plan, memory, sizeof memory);
    identity_kernels(gpu_cmd_gpu(j->cmd), kernels, sizeof kernels);
    if (!comm_broadcast(COMM_SETTINGS, memory, sizeof memory, 0, e) ||
        !comm_broadcast(COMM_SETTINGS, kernels, sizeof kernels, 0, e))
        return false;
    identity_take_up_memory(&j->plan, memory);
    bool ok = identity_take_up_kernels(gpu_cmd_gpu(j->cmd), kernels, e);
    identity_kernels(gpu_cmd_gpu(j->cmd), own, sizeof own);
    if (ok && strcmp(own, kernels) != 0)
        ok = err_set(e, ERR_USER, "rank %u would run other kernels than rank 0: %s and %s", comm_rank(), own, kernels);
    identity_memory(&j->plan, own, sizeof own);
    if (ok && strcmp(own, memory) != 0)
        ok = err_set(e, ERR_ENV, "rank %u has less memory than rank 0: windows at a time %s there, %s here",
                     comm_rank(), memory, own);
    return comm_agree(ok, e);
}

/* Before anything is measured or planned with other ones. */
static void take_up_kernels(struct job *j)
{
    char value[512];
    if (j->cmd && store_recorded(j->work_dir, IDENTITY_KERNELS, value, sizeof value) &&
        !identity_take_up_kernels(gpu_cmd_gpu(j->cmd), value, &j->variants))
        log_debug("%s", j->variants.msg);
}

/* Reads the model whole, once: NaN and infinity, sums, and with them what this run is. */
static bool identify(struct job *j, struct err *e)
{
    char memory[256];
    if (j->id.n)
        return true;
    if (!j->summed &&
        (!checkpoint_sums_create(&j->sums, j->ck, e) ||
         (j->refined && !checkpoint_sums_create(&j->refined_sums, j->refined_ck, e)) || !check_weights(j, e)))
        return false;
    j->summed = true;
    if (!job_await_begin(j, e))
        return false;
    if (j->queue && !j->leads)
        take_up_kernels(j);
    if (store_recorded(j->work_dir, "memory", memory, sizeof memory))
        identity_take_up_memory(&j->plan, memory);
    if (!take_up_leader(j, e))
        return false;
    if (!identity_make(&j->id, j->o, &j->sums, j->refined ? &j->refined_sums : NULL, j->cmd, &j->plan, &j->windows, e))
        return false;
    identity_result(&j->id, j->o, &j->plan, j->plan.run);
    return true;
}

/* Whether the output is there, whole, and is what this run would make. What a refined file says of its run is of the one
 * that made it before. */
static bool is_finished(const struct job *j)
{
    const struct quantize_options *o = j->o;
    char run[33];
    uint64_t size = 0;
    if (o->force)
        return false;
    if (o->refine || j->refined_by[0])
        return o->refine && strcmp(j->refined_by, j->plan.run) == 0;
    bool there = o->format == EXPORT_GGUF
                     ? gguf_run(o->out_dir, run) && os_stat(o->out_dir, &size) == OS_FILE && size == j->plan.out_bytes
                     : export_run(o->out_dir, run);
    return there && strcmp(run, j->plan.run) == 0;
}

static uint32_t count_kept(const struct job *j)
{
    struct scales_state scales = {0};
    uint32_t n = 0;
    if (!j->store)
        return 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++)
        n += store_whole_parts(j->store, layer);
    if (plan_scales(j->o) && store_read_scales(j->store, &j->plan, &scales))
        n += scales.epochs;
    return n;
}

static bool open_store(struct job *j, struct err *e)
{
    if (!(j->queue && !j->leads ? store_join : store_open)(&j->store, j->work_dir, j->id.fields, j->id.n, j->o->accept,
                                                           e))
        return j->variants.msg[0] && e->kind == ERR_USER && err_context(e, "%s", j->variants.msg);
    job_has_begun(j);
    stop_point("manifest", NULL);
    j->blocks_whole = store_check(j->store, &j->plan);
    j->found = count_kept(j) > 0;
    return true;
}

static bool go_on(void *ctx)
{
    struct job *j = ctx;
    return job_tell(j, 0, job_event(j, "calibrate"), NULL);
}

/* The hidden states in front of the first block: the student's, unless all blocks are done, and the teacher's
 * where there is one. */
static bool embed_windows(struct job *j, struct err *e)
{
    const struct rounding as = plan_embedding(&j->plan);
    const size_t tokens = (size_t)j->plan.samples * j->m->ctx;
    if (as.type && !stored_embedding_create(&j->embedding, j->ck, j->windows.ids, tokens, as, go_on, j, e))
        return false;
    bool student = j->blocks_whole < j->plan.n_layers || job_importance_ahead(j);
    const enum acts_tier where[2] = {j->plan.student_acts, j->plan.teacher_acts};
    struct acts **sets[2] = {student ? &j->acts : NULL, plan_targets(&j->plan, j->o) ? &j->targets : NULL};
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct gpu_view staging;
    bool ok = gpu_alloc(j->scratch, acts_bytes(j->m, j->plan.batch_windows), &staging, e);
    for (int i = 0; ok && i < 2; i++) {
        struct acts_options o = acts_in(where[i], j->work_dir);
        if (!sets[i])
            continue;
        /* The student reads the embedding of the file to come, or of the one that is refined. */
        if (i == 0)
            o.embedding = stored_embedding_of(&j->embedding);
        ok = acts_create(sets[i], i == 0 && j->refined ? j->refined : j->m, j->plan.samples, &o, e) &&
             acts_embed(*sets[i], &j->windows, NULL, j->plan.samples, staging, e) && gpu_cmd_finish(j->cmd, e);
    }
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

/* A run that was killed after its last file has left its work folder. Another run's stays, and one that was to stay. */
static void remove_left(struct job *j)
{
    char method[64];
    struct err why = {0};
    if (j->leads && !j->o->keep_work && !store_kept(j->work_dir) &&
        store_recorded(j->work_dir, "method", method, sizeof method) &&
        store_open(&j->store, j->work_dir, j->id.fields, j->id.n, NULL, &why))
        store_remove(&j->store);
}

static bool create_arenas(struct job *j, struct err *e)
{
    struct gpu *g = gpu_cmd_gpu(j->cmd);
    return (j->block || gpu_arena_create(&j->block, g, "block", e)) &&
           (j->hess || gpu_arena_create(&j->hess, g, "hessian", e)) &&
           (j->scratch || gpu_arena_create(&j->scratch, g, "scratch", e));
}

/* Speeds, for the prediction. A plan for a device that is not there has none. */
static bool measure(struct job *j, struct err *e)
{
    return !j->cmd || (j->o->dry_run && gpu_info(gpu_cmd_gpu(j->cmd))->as_if) ||
           (tell_phase(j, "measure", e) && speed_measure(&j->speed, j->m, &j->plan, j->o, e));
}

/* Types for a size, where one is asked for; the plan is theirs then. */
static bool choose_types(struct job *j, struct quantize_options *o, uint32_t windows, struct err *e)
{
    if (!o->allotment)
        return true;
    j->layer = j->plan.n_layers; /* in no block */
    j->detail[0] = 0;
    job_predict(j, windows);
    job_expect(j, false);
    if (!plan_fits_disk(&j->plan, o, e) || !identify(j, e) || !create_arenas(j, e) || !job_choose_measured(j, o, e))
        return false;
    return measure(j, e);
}

/* All blocks are there. */
static bool write_results(struct job *j, struct err *e)
{
    struct stage_report scales = {0};
    if (!comm_agree(job_head_importance(j, e) && job_scales(j, &scales, e), e))
        return false;
    job_report_stage(j, &scales);
    uint64_t clock = os_now_ns();
    if (!comm_leads())
        return true;
    if (!job_export(j, e))
        return false;
    job_clock(j, PHASE_EXPORT, &clock);
    job_judge_prediction(j);
    stop_point("finished", NULL);
    if (j->o->keep_work)
        store_keep(j->store);
    else
        store_remove(&j->store);
    return true;
}

/* Of several processes the one that leads writes the results, and the others are there in case that it does not come to that. */
static bool finish(struct job *j, struct err *e)
{
    if (!j->queue || j->leads)
        return write_results(j, e);
    while (!j->leads) {
        if ((j->out->helped = is_finished(j)))
            return true;
        if (!job_await_end(j, e))
            return false;
    }
    job_has_begun(j);
    store_look_scales(j->store);
    return write_results(j, e);
}

/* Where another process has finished the run, what cannot be read or written any more is no error. */
static bool ended_elsewhere(struct job *j, struct err *e)
{
    if (!j->queue || j->leads || !j->id.n || e->kind == ERR_STOPPED)
        return false;
    j->out->helped = is_finished(j);
    if (!j->out->helped && !store_begun(j->work_dir)) {
        err_set(e, ERR_ENV, "the run in %s has ended, and %s is not its output", j->work_dir, j->o->out_dir);
        err_hint(e, "give all processes of a run the same -o");
    }
    return j->out->helped;
}

static bool run_all(struct job *j, struct err *e)
{
    const struct quantize_options *o = j->o;
    j->layer = j->plan.n_layers; /* in no block */
    j->detail[0] = 0;
    job_expect(j, false);
    if (!identify(j, e))
        return false;
    j->out->finished = is_finished(j);
    if (!comm_agree(true, e)) /* all have looked */
        return false;
    if (j->out->finished) {
        remove_left(j);
        return true;
    }
    if (j->leads)
        out_tell_replaced(o->out_dir, true);
    if (!open_store(j, e))
        return false;
    job_expect(j, false); /* less what is there */
    eta_close(&j->eta, WORK_CHECK);
    if (!create_arenas(j, e) || !gpu_arena_create_host(&j->kept, gpu_cmd_gpu(j->cmd), "best epoch", e))
        return false;
    bool ahead = j->blocks_whole < j->plan.n_layers || job_importance_ahead(j) || job_scales_ahead(j);
    if (!comm_agree((!ahead || job_sample(j, e)) && job_outputs(j, e), e))
        return false;
    if (o->method != METHOD_RTN && !quantize_diagonal(o) && ahead && !embed_windows(j, e))
        return false;
    if (j->blocks_whole && (j->acts || j->targets)) { /* they are walked through again */
        job_expect(j, true);
        eta_close(&j->eta, WORK_CHECK);
    }
    if (j->acts && !job_experts_open(j, e))
        return false;
    j->ahead.check = check_ahead;
    j->ahead.ctx = j;
    j->m->ahead = &j->ahead;
    bool walked = walk_blocks(j, e);
    j->m->ahead = NULL;
    block_ahead_free(&j->ahead);
    gpu_arena_trim(j->kept);
    job_experts_close(j);
    /* Other ranks read what the leader has written. */
    return comm_agree(walked, e) && finish(j, e);
}

static void summarize(struct job *j)
{
    struct quantize_result *out = j->out;
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < out->n_linears; i++) {
        if (isfinite(out->linears[i].loss_final)) {
            sum += out->linears[i].loss_final;
            n++;
        }
    }
    out->mean_loss = n ? sum / (double)n : NAN;
    out->bpw = j->plan.bpw;
    out->file_bpw = j->plan.file_bpw;
    out->out_bytes = j->plan.out_bytes;
    out->reach = j->plan.reach;
    out->kept = count_kept(j);
    out->predicted_seconds = j->plan.predicted_seconds;
    out->seconds = (double)(os_now_ns() - j->begin) * 1e-9;
    out->device_peak = j->cmd ? gpu_memory_peak(gpu_cmd_gpu(j->cmd)) : 0;
    out->host_peak = max_u64(j->host_peak, os_peak_anon());
    out->device_busy = j->cmd ? gpu_cmd_busy(j->cmd) - j->busy_before : 0;
}

/* Where none was named, and the model cannot write one: the text that comes with gsq. */
static bool take_text(struct job *j, struct quantize_options *o, struct err *e)
{
    if (!o->no_text || sampling_can(checkpoint_config(j->ck)))
        return true;
    log_info(
        "no text: gsq cannot write one with a model that has the gated delta rule, and takes the one that it comes "
        "with; a text like what the model will read is better: --calib FILE");
    o->calib = SHIPPED_TEXT;
    o->no_text = false;
    if (!windows_texts(j->texts, &j->n_texts, o->calib, NULL, 0, j->calib, sizeof j->calib, e))
        return false;
    o->calib = j->texts[0];
    return true;
}

bool quantize_run(struct gpu_cmd *cmd, const struct quantize_options *options, const struct job_callbacks *cb,
                  struct quantize_result *out, struct err *e)
{
    static const struct job_callbacks no_callbacks;
    struct quantize_options o = *options;
    struct job j = {
        .ranks = comm_size(), .cmd = cmd, .o = &o, .cb = cb ? cb : &no_callbacks, .out = out, .begin = os_now_ns()};
    *out = (struct quantize_result){0};
    if (!cmd && !o.dry_run)
        return err_set(e, ERR_BUG, "a run without a device");
    j.busy_before = j.busy = cmd ? gpu_cmd_busy(cmd) : 0;
    eta_start(&j.eta, j.begin, 0);
    progress_watch_begin(&j.watch, &j.cb->progress, &j.eta, cmd);
    uint32_t windows = UINT32_MAX; /* that the text has */
    bool ok = quantize_settle(&o, e) && manifest_accept_check(o.accept, e) && job_out_paths(&j, &o, e) &&
              checkpoint_open(&j.ck, o.model_dir, e) && checkpoint_set_tiled(j.ck, o.format == EXPORT_GGUF, e) &&
              take_text(&j, &o, e) && job_out_check(&j, e);
    ok = comm_agree(ok, e) && job_out_lock(&j, e);
    if (ok && o.format == EXPORT_GGUF && !o.refine)
        checkpoint_split_latent(j.ck);
    if (ok) {
        const uint32_t ctx = windows_context(j.ck, o.ctx);
        take_up_kernels(&j);
        ok = load_calibration(&j, &o, ctx, &windows, e) &&
             (cmd ? model_open(&j.m, cmd, j.ck, ctx, e) : model_describe(&j.m, j.ck, ctx, e)) &&
             (!o.refine || open_refined(&j, &o, ctx, e));
        if (ok)
            settle_training(j.m, &o);
        ok = ok && job_choose_begin(&j, &o, e) &&
             plan_make(&j.plan, j.m, &o, (struct plan_sources){j.refined, o.imatrix ? &j.imatrix : NULL}, e);
    }
    ok = ok && measure(&j, e) && job_link(&j, e) && (o.dry_run || choose_types(&j, &o, windows, e));
    if (ok) {
        job_choose_tell(&j);
        job_predict(&j, windows);
        struct err link = {0}, disk = {0};
        const bool pays = job_plan_ranks(&j, &link);
        const bool fits = plan_fits_disk(&j.plan, &o, &disk);
        if (j.cb->planned)
            j.cb->planned(j.cb->ctx, &j.plan);
        if (!fits || !pays)
            *e = pays ? disk : link;
        /* One place more than blocks have: the last pass over scales. */
        size_t n_stages = (size_t)j.plan.n_layers * (HALF_COUNT + 1) + 1;
        out->linears = calloc(j.plan.n_items, sizeof *out->linears);
        out->stages = calloc(n_stages, sizeof *out->stages);
        ok = fits && pays &&
             ((out->linears && out->stages) ||
              err_nomem(e, "the report", j.plan.n_items * sizeof *out->linears + n_stages * sizeof *out->stages));
        if (ok && !o.dry_run) {
            job_work_begin(&j);
            ok = run_all(&j, e) && (out->finished || job_work_gather(&j, e));
        }
        /* A block that is finished is kept, and a stop does not hide that it could not be. */
        struct err why = {0};
        if (!ok && !job_stored(&j, true, &why) && e->kind == ERR_STOPPED)
            *e = why;
        ok = ok || ended_elsewhere(&j, e);
        if (out->helped && j.store && !store_begun(j.work_dir))
            store_remove(&j.store); /* what this process has put there since the folder was removed */
        summarize(&j);
        if (!ok && e->kind == ERR_STOPPED)
            err_hint(e, "finished blocks and epochs are kept in %s; repeat the command to go on", j.work_dir);
    }
    if (cmd) {
        gpu_cmd_finish(cmd, NULL);
        job_work_end(&j);
    }
    progress_watch_end(&j.watch);
    acts_destroy(&j.targets);
    acts_destroy(&j.acts);
    stored_embedding_free(&j.embedding);
    gpu_arena_destroy(&j.scratch);
    gpu_arena_destroy(&j.hess);
    gpu_arena_destroy(&j.block);
    gpu_arena_destroy(&j.kept);
    job_experts_close(&j);
    gpu_arena_destroy(&j.rows);
    block_weights_free(&j.weights);
    store_close(&j.store);
    checkpoint_sums_free(&j.refined_sums);
    checkpoint_sums_free(&j.sums);
    free(j.head_importance);
    plan_free(&j.plan);
    job_choose_end(&j);
    model_close(&j.refined);
    checkpoint_close(&j.refined_ck);
    imatrix_free(&j.imatrix);
    model_close(&j.m);
    windows_free(&j.windows);
    checkpoint_close(&j.ck);
    job_out_unlock(&j, ok);
    if (!ok)
        quantize_result_free(out);
    return ok;
}

void quantize_result_free(struct quantize_result *r)
{
    free(r->linears);
    free(r->stages);
    free(r->ranks);
    r->ranks = NULL;
    r->linears = NULL;
    r->stages = NULL;
    r->n_linears = r->n_stages = 0;
}
