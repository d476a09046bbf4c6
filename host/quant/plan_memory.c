/* Where the device memory goes: the moments of a run that need most, and what is left for activations. */
#include <string.h>

#include "host/base/num.h"
#include "host/model/block_fwd.h"
#include "host/model/calib.h"
#include "host/quant/hessian.h"
#include "host/quant/plan.h"
#include "host/quant/tune_block.h"
#include "host/quant/tune_scales.h"

/* Tokens of one forward batch: enough rows to fill a large GPU, few enough that a batch's matrices stay
 * small. */
#define BATCH_TOKENS 4096u
/* Of the memory left after weights and Hessians, what a forward batch and the optimiser may take. */
#define BATCH_SHARE 0.25
#define TUNE_SHARE  0.5
/* Host memory for activations before they go to a scratch file. */
#define HOST_ACTS_BYTES (3ull << 30)

static void add_line(struct plan *p, const char *name, uint64_t bytes)
{
    if (bytes && p->n_lines < sizeof p->lines / sizeof *p->lines)
        p->lines[p->n_lines++] = (struct memory_line){name, bytes};
}

static bool too_small(const char *what, const char *remedy, uint64_t need, uint64_t limit, struct err *e)
{
    char a[24], b[24];
    err_set(e, ERR_ENV, "%s need %s of device memory, %s may be used", what, format_bytes(need, a, sizeof a),
            format_bytes(limit, b, sizeof b));
    return err_hint(e, "raise --mem-limit, use a device with more memory, or %s", remedy);
}

/* Widest of the linears, in bytes that f gives. */
static uint64_t widest(const struct plan *p, uint64_t (*f)(const struct plan_item *))
{
    uint64_t most = 0;
    for (size_t i = 0; i < p->n_items; i++)
        if (!p->items[i].keep)
            most = max_u64(most, f(&p->items[i]));
    return most;
}

static uint64_t matrix_and_codes(const struct plan_item *i)
{
    return (uint64_t)i->rows * i->cols * 4 + qmatrix_bytes(i->rows, i->cols, &i->spec);
}

static uint64_t gptq_need(const struct plan_item *i)
{
    return matrix_and_codes(i) + gptq_scratch_bytes(i->rows, i->cols, &i->spec);
}

static uint64_t tune_need(const struct plan_item *i)
{
    uint64_t per_row =
        (uint64_t)i->cols * tune_bytes_per_weight(i->spec.type) + quant_row_scales(&i->spec, i->cols) * 4ull;
    return i->rows * per_row + 4096;
}

static uint64_t tune_least(const struct plan_item *i)
{
    return min_u64(i->rows, 64) * ((uint64_t)i->cols * tune_bytes_per_weight(i->spec.type) + 4096);
}

/* Of the block that needs most. */
static uint64_t half_need(const struct plan *p, const struct model *m, const struct quantize_options *o,
                          enum tune_stage half)
{
    uint64_t most = 0;
    for (uint32_t layer = 0; layer < p->n_layers; layer++)
        most = max_u64(most, tune_block_bytes(m, o, half, p->items + (size_t)layer * LINEAR_COUNT,
                                              p->micro_windows, p->samples - p->holdout));
    return most;
}

/* The most windows at a time that fit `room`, at most a batch; false where even one does not. */
static bool choose_micro(struct plan *p, const struct model *m, const struct quantize_options *o,
                         uint64_t room, uint64_t *need)
{
    uint32_t most = tune_block_batch(o, p->samples - p->holdout);
    for (p->micro_windows = block_scratch_windows(m, UINT64_MAX, most);; p->micro_windows--) {
        *need = max_u64(half_need(p, m, o, STAGE_ATTN), half_need(p, m, o, STAGE_FFN));
        if (*need <= room)
            return true;
        if (p->micro_windows == 1)
            return false;
    }
}

/* The same for the pass over scales. */
static bool choose_scale_micro(struct plan *p, const struct model *m, const struct quantize_options *o,
                               uint64_t room, uint64_t *need)
{
    uint32_t most = tune_scales_batch(o, p->samples - p->holdout);
    for (p->scale_micro = block_scratch_windows(m, UINT64_MAX, most);; p->scale_micro--) {
        *need = tune_scales_bytes(m, p, p->scale_micro);
        if (*need <= room)
            return true;
        if (p->scale_micro == 1)
            return false;
    }
}

/* Sets of hidden states, and what each tier has left for them. */
struct places {
    uint64_t device, host; /* bytes left */
    enum acts_tier last;   /* where the last set went */
};

/* They take the device's memory first, then the host's. Returns where this one goes. */
static enum acts_tier place(struct places *at, uint64_t bytes)
{
    at->last =
        acts_tier_for(&(struct acts_options){.device_bytes = at->device, .host_bytes = at->host}, bytes);
    if (at->last == ACTS_DEVICE)
        at->device -= bytes;
    else if (at->last == ACTS_HOST)
        at->host -= bytes;
    return at->last;
}

/* Students' and teacher's hidden states; then, with the student's gone, the inputs of blocks in the pass over
 * scales. */
static void place_acts(struct plan *p, const struct model *m, const struct quantize_options *o)
{
    const struct places all = {.device = p->acts_device_bytes, .host = p->acts_host_bytes};
    struct places at = all, later;
    enum acts_tier student = place(&at, p->acts_bytes);
    if (plan_teacher(o))
        place(&at, p->acts_bytes);
    uint64_t device = all.device - at.device, host = all.host - at.host;
    enum acts_tier last = at.last;
    if (plan_scales(o)) {
        later = at;
        if (student == ACTS_DEVICE)
            later.device += p->acts_bytes;
        else if (student == ACTS_HOST)
            later.host += p->acts_bytes;
        p->scale_acts_bytes = tune_scales_acts_bytes(m, o, p->samples - p->holdout);
        if (place(&later, p->scale_acts_bytes) == ACTS_FILE)
            last = ACTS_FILE;
        device = max_u64(device, all.device - later.device);
        host = max_u64(host, all.host - later.host);
    }
    p->device_bytes += device;
    p->host_bytes += host;
    add_line(p, "activations of all windows", device);
    p->acts_tier = last == ACTS_DEVICE ? "device" : last == ACTS_HOST ? "host" : "file";
}

/* Without windows: one linear at a time, its diagonal as a matrix. */
static bool diagonal_memory(struct plan *p, const struct model *m, const struct quantize_options *o,
                            uint64_t small, uint64_t limit, struct err *e)
{
    uint64_t codes = widest(p, matrix_and_codes), gptq = widest(p, gptq_need), hessian = 0;
    for (int id = 0; id < LINEAR_COUNT; id++)
        hessian = max_u64(hessian, hessian_bytes(m->cols[id], false));
    uint64_t least = max_u64(gptq, codes + widest(p, tune_least));
    if (small + hessian + least > limit)
        return too_small("one linear, its Hessian and the optimiser", "--method rtn, which needs the least",
                         small + hessian + least, limit, e);
    uint64_t working = gptq;
    if (o->method == METHOD_GSQ) {
        p->tune_bytes = min_u64(widest(p, tune_need), limit - small - hessian - codes);
        working = max_u64(working, codes + p->tune_bytes);
    }
    p->device_bytes = small + hessian + working;
    add_line(p, "a Hessian", hessian);
    add_line(p, working == gptq ? "GPTQ's factor and errors" : "optimiser state", working);
    return true;
}

/* Host memory that no choice changes: the codes and scales of a block until it is written, one linear packed, and
 * the staging buffers of transfers. */
static uint64_t host_least(const struct plan *p)
{
    const uint64_t staging = 48ull << 20;
    uint64_t most = 0, widest_packed = 0;
    for (size_t first = 0; first < p->n_items; first += LINEAR_COUNT) {
        uint64_t block = 0;
        for (size_t i = first; i < first + LINEAR_COUNT; i++) {
            const struct plan_item *item = &p->items[i];
            if (item->keep)
                continue;
            uint64_t weights = (uint64_t)item->rows * item->cols;
            block += weights + item->rows * div_up(item->cols, item->spec.group) *
                                   quant_type_planes(item->spec.type) * sizeof(float);
            widest_packed = max_u64(widest_packed, weights * item->spec.type->bits / 8);
        }
        most = max_u64(most, block);
    }
    return most + widest_packed + staging;
}

static bool plan_device(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    const struct model_config *c = m->cfg;
    const uint64_t limit = p->device_limit = gpu_info(m->gpu)->mem_limit;
    uint64_t block = model_block_bytes(m), small = gpu_memory_used(m->gpu);
    p->acts_tier = "none";
    if (o->method == METHOD_RTN) {
        uint64_t need = widest(p, matrix_and_codes);
        add_line(p, "one linear and its codes", need);
        p->device_bytes = need + small;
        return p->device_bytes <= limit ||
               too_small("the weights of one linear", "choose other --bits", need, limit, e);
    }
    if (quantize_diagonal(o))
        return diagonal_memory(p, m, o, small, limit, e);
    bool held = p->holdout > 0;
    uint64_t attn_dim = (uint64_t)c->num_heads * c->head_dim, fixed = block + small;
    uint64_t hessians =
        max_u64(hessian_bytes(c->hidden_size, held) + hessian_bytes((uint32_t)attn_dim, held),
                hessian_bytes(c->hidden_size, held) + hessian_bytes(c->intermediate_size, held));

    /* One linear: GPTQ, or the optimiser on as many of its rows as there is room for. */
    uint64_t codes = widest(p, matrix_and_codes), gptq = widest(p, gptq_need);
    uint64_t least = max_u64(gptq, codes + widest(p, tune_least));
    if (fixed + hessians + least > limit)
        return too_small("one block, its Hessians and the optimiser", "--method rtn, which needs the least",
                         fixed + hessians + least, limit, e);
    uint64_t left = limit - fixed - hessians, tune = 0;
    if (o->method == METHOD_GSQ) {
        p->tune_bytes = min_u64(widest(p, tune_need), (uint64_t)((double)(left - codes) * TUNE_SHARE));
        p->tune_bytes = max_u64(p->tune_bytes, widest(p, tune_least));
        tune = codes + p->tune_bytes;
    }

    /* A forward batch: the block's scratch, hidden states, and one transposed input (the widest). */
    p->batch_windows = block_scratch_windows(m, (uint64_t)((double)left * BATCH_SHARE),
                                             (uint32_t)max_u64(1, BATCH_TOKENS / p->ctx));
    p->batch_windows = (uint32_t)min_u64(p->batch_windows, p->samples);
    uint64_t tokens = (uint64_t)p->batch_windows * p->ctx;
    uint64_t wide = max_u64(max_u64(c->hidden_size, attn_dim), c->intermediate_size);
    uint64_t batch =
        block_scratch_bytes(m, p->batch_windows, SCRATCH_FORWARD) + tokens * 4 * (c->hidden_size + wide);
    uint64_t working = max_u64(max_u64(gptq, tune), batch);
    if (fixed + hessians + working > limit)
        return too_small("one block, its Hessians and one batch of windows",
                         "--method rtn, which needs the least", fixed + hessians + working, limit, e);

    /* A half of a block in training; no Hessian is alive then. */
    uint64_t half = 0;
    if (plan_block_objective(o) && !choose_micro(p, m, o, limit - fixed, &half))
        return too_small("the block objective's optimiser and one window", "--effort fast, which needs less",
                         fixed + half, limit, e);

    /* The pass over scales, when all blocks are done. */
    uint64_t scales = 0;
    if (plan_scales(o) && !choose_scale_micro(p, m, o, limit - fixed, &scales))
        return too_small("the last pass over scales and one window", "--scale-epochs 0, which leaves it out",
                         fixed + scales, limit, e);

    uint64_t most = max_u64(hessians + working, max_u64(half, scales));
    p->acts_device_bytes = limit - fixed - most;
    p->acts_host_bytes = o->host_limit ? o->host_limit : HOST_ACTS_BYTES;
    p->acts_bytes = (uint64_t)p->samples * p->ctx * c->hidden_size * 4;
    p->device_bytes = fixed + most;
    add_line(p, "block weights (f32)", block);
    if (scales == most && scales) {
        add_line(p, "the pass over scales", scales);
    } else if (half == most && half) {
        add_line(p, "half a block in training", half);
    } else {
        add_line(p, "Hessians", hessians);
        add_line(p,
                 working == batch  ? "a batch of windows"
                 : working == gptq ? "GPTQ's factor and errors"
                                   : "optimiser state",
                 working);
    }
    place_acts(p, m, o);
    add_line(p, "norms and tables", small);
    return true;
}

bool plan_memory(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    p->host_bytes = host_least(p);
    if (!plan_device(p, m, o, e))
        return false;
    /* What a CPU device calls its memory is the host's. */
    if (gpu_info(m->gpu)->caps & GPU_CAP_CPU)
        p->host_bytes += p->device_bytes;
    return true;
}
