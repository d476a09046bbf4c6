/* Where the device memory goes: how much a run takes at a time, chosen by rehearsing it (rehearse.h), and what is left
 * for activations. */
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/comm.h"
#include "host/base/os.h"
#include "host/model/batch.h"
#include "host/quant/plan/planner.h"
#include "host/quant/plan/rehearse.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/method/tune_block.h"
#include "host/quant/method/tune_expert.h"
#include "host/model/end_to_end.h"
#include "host/quant/method/tune_scales.h"
#include "host/quant/store/store_part.h"

/* Tokens of one forward batch: enough rows to fill a large GPU, few enough that a batch's matrices stay
 * small. */
#define BATCH_TOKENS 4096u
/* Of the memory left after weights and Hessians, what a forward batch and the optimiser may take. */
#define BATCH_SHARE 0.25
#define TUNE_SHARE  0.5
/* Where all parts fit one by one and the whole does not, since what one leaves does not suit the next: sizes are chosen
 * again for so much less. */
#define TRIES     4
#define TRY_SHARE 0.05
/* Tokens at a time that fill a GPU. From there on activations that stay on the device are worth more than more of them. */
#define ENOUGH_TOKENS 2048u
/* A chunk of a training step: more do not make a GPU busier, and ranks share a step by its chunks, which must be the same for any
 * number of them (comm.h). */
#define CHUNK_TOKENS 2048u
/* In the pass over scales no more are taken: codes and activations that stay are worth more. */
#define SCALES_TOKENS 4096u
/* Host memory for activations before they go to a scratch file: this part of what is free beside all else, and where the
 * system does not tell, so many bytes. */
#define HOST_ACTS_PART  2
#define HOST_ACTS_BYTES (3ull << 30)

/* A plan in the making. */
struct sizing {
    struct plan *p;
    const struct model *m;
    const struct quantize_options *o;
    uint64_t limit;        /* of the part that is looked at */
    uint64_t scales_limit; /* of the pass over scales, in which the student's activations are gone */
    uint64_t host;         /* for activations */
    struct rehearsal r;
    enum run_part part; /* looked at */
};

/* ---- what does not fit ---- */

static const struct {
    const char *what, *remedy;
} parts[PART_COUNT] = {
    [PART_FIXED] = {"one block and its Hessians", "--method rtn, which needs the least"},
    [PART_LINEAR] = {"one block, its Hessians and the optimiser", "--method rtn, which needs the least"},
    [PART_BATCH] = {"one block, its Hessians and one batch of windows", "--method rtn, which needs the least"},
    [PART_HALF] = {"the block objective's optimiser and one window", "--effort fast, which needs less"},
    [PART_SCALES] = {"the last pass over scales and one window", "--scale-epochs 0, which leaves it out"},
    [PART_OUTPUT] = {"the pass that finds Hessians of outputs and one window",
                     "--output-hessian off, which leaves it out"},
    [PART_MEASURE] = {"the pass that measures what types cost and one window", "name a --type in place of a size"},
};

static bool part_fits_not(void *ctx, uint32_t mib)
{
    struct sizing *s = ctx;
    struct rehearsal r;
    return !rehearse_part(&r, s->p, s->m, s->o, s->part, (uint64_t)mib << 20, NULL);
}

/* e becomes why: of the allocation that failed. Of all parts that do not fit, the one that needs most: so much is enough. */
static bool too_small(struct sizing *s, const struct err *why, struct err *e)
{
    const uint32_t most = 1u << 24; /* MiB */
    uint32_t need = 0;
    enum run_part of = PART_COUNT;
    for (int part = 0; part < PART_COUNT; part++) {
        struct rehearsal r;
        s->part = (enum run_part)part;
        if (rehearse_part(&r, s->p, s->m, s->o, s->part, s->limit, NULL))
            continue;
        uint32_t mib = most_that_fits(most, part_fits_not, s);
        if (mib >= need) {
            need = mib;
            of = s->part;
        }
    }
    *e = *why;
    if (of == PART_COUNT)
        return err_context(e, "a run");
    const char *what = parts[of].what, *remedy = parts[of].remedy;
    if (need == most) /* one buffer is larger than the device can have */
        return err_context(e, "%s", what);
    char a[24], b[24];
    if (s->o->method == METHOD_RTN) {
        what = "the weights of one linear";
        remedy = "choose other --bits";
    } else if (quantize_diagonal(s->o)) {
        what = "one linear, its Hessian and the optimiser";
    }
    err_set(e, ERR_ENV, "%s need %s of device memory, %s may be used", what,
            format_bytes(((uint64_t)need + 1) << 20, a, sizeof a), format_bytes(s->limit, b, sizeof b));
    return err_hint(e, "raise --mem-limit, use a device with more memory, or %s", remedy);
}

/* ---- sizes ---- */

/* Of the linears: its codes and a square of its Hessian; all rows of it in training. The widest of each. */
static bool widest(const struct sizing *s, uint64_t *codes, uint64_t *rows, struct err *e)
{
    const struct matrix *seen[8] = {NULL}; /* of the shapes met last */
    unsigned n_seen = 0;
    *codes = *rows = 0;
    for (size_t i = 0; i < s->p->n_items; i++) {
        const struct matrix *item = &s->p->items[i];
        struct gpu_count count = {.limit = UINT64_MAX};
        struct gpu_arena *arena = NULL;
        struct qmatrix q;
        struct gpu_view w;
        bool known = !item->coded;
        for (unsigned k = 0; !known && k < 8 && seen[k]; k++)
            known = seen[k]->rows == item->rows && seen[k]->cols == item->cols &&
                    seen[k]->spec.type == item->spec.type && seen[k]->spec.group == item->spec.group;
        if (known)
            continue;
        seen[n_seen++ % 8] = item;
        bool ok = gpu_arena_create_counting(&arena, s->m->gpu, &count, e) &&
                  qmatrix_create(&q, arena, item->rows, item->cols, item->spec, e) &&
                  gpu_alloc(arena, (uint64_t)item->cols * item->cols * 4, &w, e) &&
                  (!s->p->output_windows || !output_hessian_bytes(s->o, item) ||
                   gpu_alloc(arena, output_hessian_bytes(s->o, item), &w, e));
        *codes = max_u64(*codes, count.peak);
        if (ok)
            *rows = max_u64(*rows, tune_hessian_bytes(s->m->gpu, &q, item->rows, s->p->output_windows > 0));
        gpu_arena_destroy(&arena);
        if (!ok)
            return false;
    }
    return true;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static bool half_fits(void *ctx, uint32_t windows)
{
    struct sizing *s = ctx;
    s->p->micro_windows = windows;
    return rehearse_part(&s->r, s->p, s->m, s->o, PART_HALF, s->limit, NULL);
}

static bool scales_fit(void *ctx, uint32_t windows)
{
    struct sizing *s = ctx;
    s->p->scale_micro = windows;
    return rehearse_part(&s->r, s->p, s->m, s->o, PART_SCALES, s->scales_limit, NULL);
}

static bool outputs_fit(void *ctx, uint32_t windows)
{
    struct sizing *s = ctx;
    s->p->output_micro = windows;
    return rehearse_part(&s->r, s->p, s->m, s->o, PART_OUTPUT, s->p->device_limit, NULL);
}

static bool measuring_fits(void *ctx, uint32_t windows)
{
    struct sizing *s = ctx;
    s->p->measure_micro = windows;
    return rehearse_part(&s->r, s->p, s->m, s->o, PART_MEASURE, s->p->device_limit, NULL);
}

/* Windows of so many tokens, of `most`; at least one. */
static uint32_t windows_of(const struct sizing *s, uint32_t tokens, uint32_t most)
{
    return (uint32_t)max_u64(1, min_u64(most, tokens / s->m->ctx));
}

static uint32_t most_micro(const struct sizing *s)
{
    uint32_t train = s->p->samples - s->p->holdout;
    return windows_of(s, CHUNK_TOKENS, block_scratch_windows(s->m, UINT64_MAX, tune_block_batch(s->o, train)));
}

static uint32_t most_scale_micro(const struct sizing *s)
{
    uint32_t train = s->p->samples - s->p->holdout;
    return windows_of(s, SCALES_TOKENS, block_scratch_windows(s->m, UINT64_MAX, tune_scales_batch(s->o, train)));
}

/* Whether the sizes keep a GPU busy. */
static bool enough(const struct sizing *s)
{
    const struct plan *p = s->p;
    return (!plan_block_objective(s->o) || p->micro_windows >= windows_of(s, ENOUGH_TOKENS, most_micro(s))) &&
           (!plan_scales(s->o) || p->scale_micro >= windows_of(s, ENOUGH_TOKENS, most_scale_micro(s)));
}

/* As much at a time as fits s->limit, each part for itself. */
static bool choose_sizes(struct sizing *s, struct err *e)
{
    struct plan *p = s->p;
    const struct quantize_options *o = s->o;
    uint64_t codes, rows;
    if (!rehearse_part(&s->r, p, s->m, o, PART_FIXED, UINT64_MAX, e) || !widest(s, &codes, &rows, e))
        return false;
    uint64_t left = less(s->limit, s->r.peak);
    if (o->method == METHOD_GSQ)
        p->tune_bytes = min_u64(rows, (uint64_t)((double)less(left, codes) * TUNE_SHARE));
    if (o->method == METHOD_RTN || quantize_diagonal(o))
        return true;
    p->batch_windows = batch_windows(s->m, BATCH_TOKENS, (uint64_t)((double)left * BATCH_SHARE), p->samples);
    if (plan_block_objective(o))
        p->micro_windows = (uint32_t)max_u64(1, most_that_fits(most_micro(s), half_fits, s));
    if (plan_scales(o))
        p->scale_micro = (uint32_t)max_u64(1, most_that_fits(most_scale_micro(s), scales_fit, s));
    return true;
}

/* The least that a run can do with. */
static bool check_least(struct sizing *s, struct err *e)
{
    struct plan *p = s->p;
    p->batch_windows = 1;
    p->micro_windows = plan_block_objective(s->o);
    p->scale_micro = plan_scales(s->o);
    p->output_micro = p->output_windows > 0;
    p->measure_micro = p->measure_windows > 0;
    struct err why = {0};
    for (int part = 0; part < PART_COUNT; part++)
        if (!rehearse_part(&s->r, p, s->m, s->o, (enum run_part)part, s->limit, &why))
            return too_small(s, &why, e);
    p->batch_windows = p->micro_windows = p->scale_micro = p->output_micro = p->measure_micro = 0;
    return true;
}

/* ---- hidden states ---- */

/* Where a set goes that the device does not take. */
static enum acts_tier off_device(uint64_t *host, uint64_t bytes)
{
    enum acts_tier tier = acts_tier_for(&(struct acts_options){.host_bytes = *host}, bytes);
    *host -= tier == ACTS_HOST ? bytes : 0;
    return tier;
}

/* The first `sets` of student and teacher on the device; what else could be there is not. */
static void place_acts(struct sizing *s, unsigned sets)
{
    struct plan *p = s->p;
    uint64_t host = s->host;
    p->student_acts = sets > 0 ? ACTS_DEVICE : off_device(&host, p->acts_bytes);
    p->teacher_acts = sets > 1 || !plan_targets(p, s->o) ? ACTS_DEVICE : off_device(&host, p->acts_bytes);
    if (p->student_acts == ACTS_HOST) /* it has served when the pass over scales begins */
        host += p->acts_bytes;
    p->kept_acts = off_device(&host, p->scale_acts_bytes);
    p->codes_stay = p->head_stays = false;
}

/* With `sets` of them on the device, the sizes that the rest of it has room for. False: it does not fit, or too little is left
 * for them to be worth it. */
static bool place_sets(struct sizing *s, unsigned sets, struct err *why)
{
    struct plan *p = s->p;
    const uint64_t limit = p->device_limit;
    for (int i = 0; i < TRIES; i++) {
        s->scales_limit = limit - (uint64_t)((double)limit * TRY_SHARE * i);
        s->limit = less(s->scales_limit, sets * p->acts_bytes);
        place_acts(s, sets);
        if (!choose_sizes(s, why) || (sets && !enough(s)))
            return false;
        if (rehearse(&s->r, p, s->m, s->o, limit, why))
            return true;
    }
    return false;
}

/* Of the pass over scales, what the device has room for beside the teacher's: the head, all codes, the blocks' inputs: each
 * saves more transfers for its bytes than the next. With fewer windows at a time, if need be. */
static bool place_scales(struct sizing *s, struct err *why)
{
    struct plan *p = s->p;
    const enum acts_tier off = p->kept_acts;
    const uint32_t micro = p->scale_micro, least = windows_of(s, ENOUGH_TOKENS, micro);
    for (unsigned way = 8; way-- > 0;) {
        p->head_stays = way & 4;
        p->codes_stay = way & 2;
        p->kept_acts = way & 1 ? ACTS_DEVICE : off;
        for (int less_at_once = 0; less_at_once < 2; less_at_once++) {
            p->scale_micro = less_at_once ? least : micro;
            if (rehearse_part(&s->r, p, s->m, s->o, PART_SCALES, p->device_limit, NULL) &&
                rehearse(&s->r, p, s->m, s->o, p->device_limit, why))
                return true;
        }
    }
    return false;
}

/* A pass there and back that has the device to itself: the head stays there, then what the blocks read, as far as windows enough for a
 * GPU still go through at a time. */
struct way_back {
    uint32_t windows, *micro;
    uint64_t *acts_bytes;
    enum acts_tier *acts;
    bool *head_stays;
    bool (*fits)(void *sizing, uint32_t windows);
};

static void place_way_back(struct sizing *s, const struct way_back *w)
{
    uint64_t host = s->host;
    *w->acts_bytes = acts_bytes(s->m, end_to_end_windows(s->m, w->windows));
    const enum acts_tier off = off_device(&host, *w->acts_bytes);
    const uint32_t most = windows_of(s, SCALES_TOKENS, block_scratch_windows(s->m, UINT64_MAX, w->windows));
    for (unsigned way = 4; way-- > 0;) {
        *w->head_stays = way & 2 && head_stays(s->m);
        *w->acts = way & 1 ? ACTS_DEVICE : off;
        uint32_t micro = most_that_fits(most, w->fits, s);
        *w->micro = (uint32_t)max_u64(1, micro);
        if (micro >= windows_of(s, ENOUGH_TOKENS, most))
            return;
    }
}

static void place_outputs(struct sizing *s)
{
    struct plan *p = s->p;
    place_way_back(s, &(struct way_back){p->output_windows, &p->output_micro, &p->output_acts_bytes, &p->output_acts,
                                         &p->output_head_stays, outputs_fit});
}

static void place_measuring(struct sizing *s)
{
    struct plan *p = s->p;
    place_way_back(s, &(struct way_back){p->measure_windows, &p->measure_micro, &p->measure_acts_bytes,
                                         &p->measure_acts, &p->measure_head_stays, measuring_fits});
}

/* Where device memory is short, a run that was not told to have them goes without. */
static void drop_outputs(struct sizing *s)
{
    struct plan *p = s->p;
    struct err why = {0};
    p->output_micro = 1;
    if (!p->output_windows || (rehearse_part(&s->r, p, s->m, s->o, PART_OUTPUT, s->limit, &why) &&
                               rehearse_part(&s->r, p, s->m, s->o, PART_LINEAR, s->limit, &why)))
        return;
    p->output_windows = p->output_micro = 0;
    log_info("linears are learned without the Hessians of their outputs, for which device memory is short: %s",
             why.msg);
}

/* ---- the plan ---- */

/* Codes and scales of a part of a block (store_part.h), as they are in memory. */
static uint64_t part_host_bytes(struct block_items part)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < part.n; i++) {
        const struct matrix *item = &part.items[i];
        if (item->coded)
            bytes += (uint64_t)item->rows * item->cols + item->rows * div_up(item->cols, item->spec.group) *
                                                             quant_type_planes(item->spec.type) * sizeof(float);
    }
    return bytes;
}

/* Host memory that no choice changes: the codes and scales of a part of a block, of the one before until it is written, and of a
 * half's best epoch; the weights of the next block; or, before all that, the Hessians of a layer's outputs; the staging buffers of transfers; the text's
 * embedding as it will be stored. */
static uint64_t host_least(const struct plan *p, const struct model *m, const struct quantize_options *o)
{
    const uint64_t staging = 48ull << 20, text = (uint64_t)p->samples * m->ctx;
    const struct gguf_type *stored = o->method == METHOD_RTN || quantize_diagonal(o) ? NULL : plan_embedding(p).type;
    uint64_t most = 0, half = 0, ahead = 0, outputs = 0;
    for (uint32_t layer = 0; layer < p->n_layers; layer++) {
        const struct block_items b = plan_block(p, layer);
        uint64_t tiles = 0;
        for (uint32_t i = 0; p->output_windows && i < b.n; i++)
            tiles += output_hessian_bytes(o, &b.items[i]);
        outputs = max_u64(outputs, tiles);
        for (uint32_t part = 0, n = store_parts(b); part < n; part++) {
            uint64_t bytes = part_host_bytes(store_part(b, part));
            most = max_u64(most, bytes);
            half = max_u64(half, part == 0 ? bytes : 0);
        }
        if (layer > 0 && o->method != METHOD_RTN && !quantize_diagonal(o))
            ahead = max_u64(ahead, block_ahead_bytes(m->ck, layer, block_common(model_block(m, layer))));
    }
    return max_u64(2 * most + plan_block_objective(o) * half + ahead, outputs) + staging +
           (stored ? stored_embedding_bytes(m->cfg, stored, text) : 0);
}

/* Logits of the router, routes, and what experts read and give where that is not on the device. */
static uint64_t host_experts(const struct plan *p, const struct model *m, const struct quantize_options *o)
{
    const struct expert_config *x = &m->cfg->experts;
    uint64_t tokens = (uint64_t)p->samples * m->ctx;
    if (!x->n || o->method == METHOD_RTN || quantize_diagonal(o))
        return 0;
    uint64_t learn = plan_trains_experts(p, o) ? tune_expert_bytes(m, p->samples) : 0;
    const unsigned chains = 1 + plan_chained(p), rows = plan_chained(p) ? 5 : 2;
    return tokens * (x->n * 4ull + chains * x->used * 14ull) +
           (p->experts_near ? 0 : rows * acts_bytes(m, p->samples) + learn);
}

/* Before the pass over scales, or in it; or in the one for outputs. */
static uint64_t host_acts(const struct plan *p, const struct quantize_options *o)
{
    uint64_t student = p->student_acts == ACTS_HOST ? p->acts_bytes : 0;
    uint64_t teacher = plan_targets(p, o) && p->teacher_acts == ACTS_HOST ? p->acts_bytes : 0;
    uint64_t kept = plan_scales(o) && p->kept_acts == ACTS_HOST ? p->scale_acts_bytes : 0;
    uint64_t outputs = p->output_windows && p->output_acts == ACTS_HOST ? p->output_acts_bytes : 0;
    uint64_t measure = p->measure_windows && p->measure_acts == ACTS_HOST ? p->measure_acts_bytes : 0;
    return max_u64(teacher + max_u64(student, kept), max_u64(outputs, measure));
}

/* On its way to files, of the sets that are there together. */
static uint64_t host_behind(const struct plan *p, const struct quantize_options *o)
{
    uint64_t window = p->acts_bytes / p->samples * ACTS_BEHIND;
    uint64_t student = (p->student_acts == ACTS_FILE) * window * p->batch_windows;
    uint64_t teacher = (plan_targets(p, o) && p->teacher_acts == ACTS_FILE) * window * p->batch_windows;
    uint64_t kept = (plan_scales(o) && p->kept_acts == ACTS_FILE) * window * p->scale_micro;
    uint64_t outputs = (p->output_windows && p->output_acts == ACTS_FILE) * window * p->output_micro;
    uint64_t measure = (p->measure_windows && p->measure_acts == ACTS_FILE) * window * p->measure_micro;
    return max_u64(teacher + max_u64(student, kept), max_u64(outputs, measure));
}

static const char *tier_name(const struct plan *p, const struct quantize_options *o)
{
    static const char *const names[] = {[ACTS_DEVICE] = "device", [ACTS_HOST] = "host", [ACTS_FILE] = "file"};
    enum acts_tier last = plan_targets(p, o) ? p->teacher_acts : p->student_acts;
    return names[plan_scales(o) && p->kept_acts == ACTS_FILE ? ACTS_FILE : last];
}

/* p->host_bytes and what experts have there is what the run takes besides. */
static uint64_t host_for_acts(const struct plan *p, const struct model *m, const struct quantize_options *o)
{
    uint64_t room = comm_memory_available(), taken = p->host_bytes + host_experts(p, m, o);
    if (o->host_limit)
        return o->host_limit;
    if (!room)
        return HOST_ACTS_BYTES;
    if (gpu_unified(m->gpu))
        taken += gpu_info(m->gpu)->mem_limit;
    return less(room, taken) / HOST_ACTS_PART;
}

/* The whole run with as many sets on the device as there is room for; false, and why: it does not fit without any. */
static bool place_all(struct sizing *s, struct err *why)
{
    bool windows = s->o->method != METHOD_RTN && !quantize_diagonal(s->o), done = false;
    for (int near = windows && s->m->cfg->experts.n; !done && near >= 0; near--) {
        s->p->experts_near = near;
        s->host = host_for_acts(s->p, s->m, s->o);
        for (unsigned sets = windows ? 2 + plan_targets(s->p, s->o) : 1; !done && sets--;)
            done = place_sets(s, sets, why);
    }
    return done && (!plan_scales(s->o) || place_scales(s, why));
}

/* The text that the model writes, before all else: within the run's memory. Where that is its widest moment, the plan says so. */
static bool plan_sampling(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    struct sampling *s = &p->sampling;
    struct model as_if = *m;
    *s = (struct sampling){0};
    if (!quantize_samples(o))
        return true;
    if (!sampling_size(s, &as_if, (uint64_t)p->samples * m->ctx, p->device_limit, host_for_acts(p, m, o), e)) {
        err_context(e, "the text that the model writes");
        return err_hint(e, "raise --mem-limit, or give a text with --calib: default is the one that comes with gsq");
    }
    if (s->device_bytes > p->device_bytes) {
        const uint64_t base = gpu_memory_used(m->gpu);
        const struct memory_line lines[] = {
            {"blocks' weights (f32), while text is written", s->weight_bytes},
            {"keys and values", s->past_bytes},
            {"a position of all segments", s->device_bytes - s->weight_bytes - s->past_bytes - base},
            {"norms and tables", base},
        };
        p->device_bytes = s->device_bytes;
        p->n_lines = 0;
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
            if (lines[i].bytes)
                p->lines[p->n_lines++] = lines[i];
    }
    p->host_bytes = max_u64(p->host_bytes, s->host_bytes);
    return true;
}

static bool plan_device(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    struct sizing s = {.p = p, .m = m, .o = o};
    struct err why = {0};
    const uint64_t limit = p->device_limit = s.limit = gpu_info(m->gpu)->mem_limit;
    bool windows = o->method != METHOD_RTN && !quantize_diagonal(o);
    p->acts_tier = "none";
    if (windows)
        p->acts_bytes = acts_bytes(m, p->samples);
    if (plan_scales(o))
        p->scale_acts_bytes = acts_bytes(m, end_to_end_windows(m, tune_scales_batch(o, p->samples - p->holdout)));
    s.host = host_for_acts(p, m, o);
    place_acts(&s, 0);
    p->output_acts = p->measure_acts = ACTS_FILE;
    if (o->output_hessian == OUTPUT_HESSIAN_AUTO)
        drop_outputs(&s);
    if (!check_least(&s, e))
        return false;
    if (p->output_windows)
        place_outputs(&s);
    if (p->measure_windows)
        place_measuring(&s);
    if (!place_all(&s, &why)) {
        s.limit = limit;
        return too_small(&s, &why, e);
    }
    p->device_bytes = s.r.peak;
    p->n_lines = s.r.n_lines;
    memcpy(p->lines, s.r.lines, s.r.n_lines * sizeof *p->lines);
    if (windows) {
        p->host_bytes += host_acts(p, o) + host_experts(p, m, o) + host_behind(p, o);
        p->acts_tier = tier_name(p, o);
    }
    return plan_sampling(p, m, o, e);
}

static bool host_fits(const struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    uint64_t left = comm_memory_available();
    char a[24], b[24];
    if (!left || p->host_bytes <= left)
        return true;
    err_set(e, ERR_ENV, "the run needs %s of host memory, %s are free", format_bytes(p->host_bytes, a, sizeof a),
            format_bytes(left, b, sizeof b));
    return err_hint(e, "end other programs%s%s",
                    host_acts(p, o) ? ", or let activations go to a file with a smaller --host-limit" : "",
                    host_experts(p, m, o) && !p->experts_near
                        ? ", or use fewer --samples: what experts read and give takes host memory"
                        : "");
}

bool plan_memory(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    p->host_bytes = host_least(p, m, o);
    if (!plan_device(p, m, o, e) || !host_fits(p, m, o, e))
        return false;
    /* What a CPU device calls its memory is the host's. */
    if (gpu_info(m->gpu)->caps & GPU_CAP_CPU)
        p->host_bytes += p->device_bytes;
    return true;
}
