#include "host/eval/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/write/write_gguf.h"
#include "host/base/out_path.h"
#include "host/base/str.h"
#include "host/gpu/tiled.h"
#include "host/model/acts.h"
#include "host/model/batch.h"
#include "host/model/block_fwd.h"
#include "host/quant/plan/predict.h"

struct collect {
    struct gpu_cmd *cmd;
    const struct imatrix_options *o;
    struct model *m;
    struct windows w;
    struct acts *acts;
    struct gpu_arena *scratch, *weights;
    uint32_t batch; /* windows */
    struct block_scratch s;
    struct block_weights block;        /* the one that is loaded */
    struct gpu_view staging;           /* [batch * ctx, hidden] */
    struct gpu_view sums[INPUT_COUNT]; /* [width of the input, of the widest block] */
    uint64_t start_ns;
    struct eta eta;
    struct progress_watch watch;
    struct speed speed;
    struct imatrix *out;
};

/* Kinds of work. */
enum { WORK_LOAD, WORK_FORWARD, WORK_HEAD };
/* Seconds, before anything is measured; and how long a run is to be for that. */
#define SECONDS_PER_LOAD 1e-9
#define MEASURE_FROM     2.0

static double load_work(const struct collect *c, uint32_t layer)
{
    return model_block_products(c->m, layer) * (c->speed.measured ? c->speed.load : SECONDS_PER_LOAD);
}

static double block_work(const struct collect *c, uint32_t layer)
{
    const struct speed_block *s = speed_block(&c->speed, c->m, layer);
    if (s)
        return c->w.n * (s->forward[HALF_ATTN] + s->forward[HALF_FFN]);
    return model_block_products(c->m, layer) * c->w.n * c->w.ctx * speed_guess(c->m->gpu);
}

static bool tell(struct collect *c, const char *detail, uint32_t block, uint32_t windows, struct err *e)
{
    struct progress_event ev = {
        .phase = "imatrix",
        .detail = detail,
        .block = block,
        .blocks = block ? c->m->cfg->num_layers : 0,
        .loss = NAN,
        .unit = "windows",
        .count = windows,
    };
    return progress_report(&c->watch, &ev, e);
}

static bool expect(struct collect *c, struct err *e)
{
    uint64_t begin = c->eta.begin;
    uint32_t blocks = c->m->cfg->num_layers;
    double guess = 0;
    for (uint32_t layer = 0; layer < blocks; layer++)
        guess += load_work(c, layer) + block_work(c, layer);
    if (guess > MEASURE_FROM &&
        (!tell(c, "measuring", 0, 0, e) || !speed_measure_forward(&c->speed, c->m, c->batch, e)))
        return false;
    eta_start(&c->eta, os_now_ns(), speed_trust(&c->speed));
    c->eta.begin = begin;
    double load = 0, forward = 0;
    for (uint32_t layer = 0; layer < blocks; layer++) {
        load += load_work(c, layer);
        forward += block_work(c, layer);
    }
    eta_expect(&c->eta, WORK_LOAD, load);
    eta_expect(&c->eta, WORK_FORWARD, forward);
    return true;
}

/* A block's windows so far. */
static bool report(struct collect *c, uint32_t layer, uint32_t windows, struct err *e)
{
    char detail[64];
    snprintf(detail, sizeof detail, "block %" PRIu32 "/%" PRIu32, layer + 1, c->m->cfg->num_layers);
    eta_part(&c->eta, (double)windows / c->w.n, os_now_ns());
    return tell(c, detail, layer + 1, windows, e);
}

static void add(struct collect *c, enum input input, struct gpu_view x, uint32_t cols, uint32_t windows)
{
    uint32_t rows = windows * c->w.ctx;
    tiled_col_sumsq(c->cmd, &(struct col_sumsq_args){.x = gpu_slice(x, 0, (uint64_t)rows * cols * 4),
                                                     .sums = c->sums[input],
                                                     .rows = rows,
                                                     .cols = cols});
}

/* Inputs of a half that was just gone through. */
static void add_half(struct collect *c, uint32_t layer, enum block_half half, uint32_t n)
{
    for (int in = 0; in < INPUT_COUNT; in++) {
        uint32_t cols = block_input_cols(model_block(c->m, layer), half, (enum input)in);
        if (cols)
            add(c, (enum input)in, block_input(&c->s, (enum input)in), cols, n);
    }
}

/* One batch through a block, its inputs added up. */
static bool run_batch(struct collect *c, uint32_t layer, uint32_t w0, uint32_t n, struct err *e)
{
    struct gpu_view x;
    if (!acts_get(c->acts, w0, n, c->staging, &x, e))
        return false;
    block_attn_fwd(c->m, &c->block, &c->s, x, x, n);
    add_half(c, layer, HALF_ATTN, n);
    block_ffn_fwd(c->m, &c->block, &c->s, x, x, n);
    add_half(c, layer, HALF_FFN, n);
    return acts_put(c->acts, w0, n, x, e);
}

/* The sums of one input, as an entry of its own. */
static bool take(struct collect *c, const char *module, enum input input, uint32_t cols, struct err *e)
{
    float *sums;
    if (!imatrix_add(c->out, module, cols, (double)c->w.n * c->w.ctx, &sums, e) ||
        !gpu_download(c->cmd, gpu_slice(c->sums[input], 0, cols * 4ull), sums, cols * 4ull, e))
        return false;
    for (uint32_t i = 0; i < cols; i++) {
        if (isfinite(sums[i]))
            continue;
        err_set(e, ERR_USER, "the inputs of %s of %s are not finite", module, checkpoint_dir(c->m->ck));
        return err_hint(e, "the model is damaged or its training diverged: download it again");
    }
    return true;
}

static bool run_block(struct collect *c, uint32_t layer, struct err *e)
{
    const struct block_shape b = model_block(c->m, layer);
    char module[96];
    progress_meter(&c->watch, 0);
    eta_begin(&c->eta, WORK_LOAD, load_work(c, layer), os_now_ns());
    if (!report(c, layer, 0, e) || !model_load_block(c->m, layer, c->weights, &c->block, e))
        return false;
    eta_end(&c->eta, os_now_ns());
    eta_begin(&c->eta, WORK_FORWARD, block_work(c, layer), os_now_ns());
    progress_meter(&c->watch, model_block_products(c->m, layer) * c->w.n * c->w.ctx);
    for (int i = 0; i < INPUT_COUNT; i++)
        gpu_fill(c->cmd, c->sums[i], 0);
    for (uint32_t w = 0; w < c->w.n; w += c->batch) {
        uint32_t n = (uint32_t)min_u64(c->batch, c->w.n - w);
        if (!run_batch(c, layer, w, n, e) || !gpu_cmd_finish(c->cmd, e) || !report(c, layer, w + n, e))
            return false;
    }
    for (uint32_t i = 0; i < b.n; i++)
        if (!take(c, block_part_name(b.matrices[i].part, layer, module, sizeof module), b.matrices[i].part->input,
                  b.matrices[i].cols, e))
            return false;
    eta_end(&c->eta, os_now_ns());
    gpu_arena_reset(c->weights, 0);
    return true;
}

/* The head reads what the final norm makes of the last block's output. */
static bool run_head(struct collect *c, struct err *e)
{
    uint32_t hidden = c->m->cfg->hidden_size;
    gpu_fill(c->cmd, c->sums[INPUT_ATTN], 0);
    for (uint32_t w = 0; w < c->w.n; w += c->batch) {
        uint32_t n = (uint32_t)min_u64(c->batch, c->w.n - w);
        struct gpu_view x;
        if (!acts_get(c->acts, w, n, c->staging, &x, e))
            return false;
        block_rmsnorm(c->m, x, c->m->final_norm, c->s.norm, n * c->w.ctx, hidden);
        add(c, INPUT_ATTN, c->s.norm, hidden, n);
        if (!gpu_cmd_finish(c->cmd, e))
            return false;
    }
    return take(c, c->m->cfg->tie_word_embeddings ? "model.embed_tokens" : "lm_head", INPUT_ATTN, hidden, e);
}

static bool alloc_scratch(struct collect *c, struct err *e)
{
    bool ok = block_scratch_create(&c->s, c->scratch, c->m, c->batch, SCRATCH_FORWARD, e) &&
              gpu_alloc(c->scratch, acts_bytes(c->m, c->batch), &c->staging, e);
    for (int i = 0; ok && i < INPUT_COUNT; i++)
        ok = gpu_alloc(c->scratch, model_shape_input(&c->m->shape, (enum input)i) * 4ull, &c->sums[i], e);
    return ok;
}

/* Whether the device has room for all hidden states, beside the measurement, then a block and the scratch. */
static bool acts_fit(const struct collect *c)
{
    struct gpu *gpu = gpu_cmd_gpu(c->cmd);
    struct gpu_count count = {.used = gpu_memory_used(gpu), .limit = gpu_info(gpu)->mem_limit};
    struct collect as_if = *c;
    struct block_weights b = {0};
    struct gpu_arena *acts = NULL;
    as_if.scratch = as_if.weights = NULL;
    gpu_cmd_count(c->cmd, GPU_COUNT_MEMORY);
    bool ok = gpu_arena_create_counting(&acts, gpu, &count, NULL) && acts_count(c->m, c->w.n, acts, NULL) &&
              gpu_arena_create_counting(&as_if.scratch, gpu, &count, NULL) &&
              gpu_arena_create_counting(&as_if.weights, gpu, &count, NULL) &&
              speed_count_forward(c->m, c->batch, as_if.weights, NULL) && alloc_scratch(&as_if, NULL);
    for (uint32_t layer = 0; ok && layer < c->m->cfg->num_layers; layer++)
        if (model_shape_is_new(&c->m->shape, layer)) {
            ok = model_load_block(c->m, layer, as_if.weights, &b, NULL);
            gpu_arena_reset(as_if.weights, 0);
        }
    block_weights_free(&b);
    gpu_cmd_count(c->cmd, GPU_COUNT_NOTHING);
    gpu_arena_destroy(&as_if.scratch);
    gpu_arena_destroy(&as_if.weights);
    gpu_arena_destroy(&acts);
    return ok;
}

/* Batch size and the place of the hidden states, from what the device has left. */
static bool make_room(struct collect *c, struct err *e)
{
    c->batch = batch_windows_forward(c->m, c->w.n);
    struct acts_options o = {
        .device_bytes = acts_fit(c) ? UINT64_MAX : 0,
        .host_bytes = os_memory_available() / 2,
        .spill_dir = c->o->spill_dir,
    };
    return acts_create(&c->acts, c->m, c->w.n, &o, e);
}

static bool run(struct collect *c, const struct checkpoint *ck, struct err *e)
{
    struct gpu *gpu = gpu_cmd_gpu(c->cmd);
    eta_start(&c->eta, c->start_ns, 0);
    progress_watch_begin(&c->watch, &c->o->progress, &c->eta, c->cmd);
    if (!windows_load(&c->w, ck, c->o->text, c->o->ctx, c->o->windows, &c->watch, e) ||
        !model_open(&c->m, c->cmd, ck, c->o->ctx, e) || !gpu_arena_create(&c->scratch, gpu, "scratch", e) ||
        !gpu_arena_create(&c->weights, gpu, "block", e) || !make_room(c, e) || !expect(c, e) || !alloc_scratch(c, e) ||
        !acts_embed(c->acts, &c->w, NULL, c->w.n, c->staging, e))
        return false;
    for (uint32_t layer = 0; layer < c->m->cfg->num_layers; layer++)
        if (!run_block(c, layer, e))
            return e->kind == ERR_STOPPED ? false : err_context(e, "model.layers.%" PRIu32, layer);
    return run_head(c, e);
}

/* Of the file, at most: a matrix has a tensor of sums and one of a count. */
static uint64_t file_bytes(const struct model_config *c)
{
    enum { HEADER = 4096, NAMES = 256 }; /* of the file, and of a matrix with its padding */
    uint64_t bytes = HEADER + NAMES + c->hidden_size * 4ull;
    struct block_matrix x;
    for (uint32_t layer = 0; layer < c->num_layers; layer++)
        for (uint32_t i = 0; block_matrix(c, layer, i, &x); i++)
            bytes += NAMES + x.cols * 4ull;
    return bytes;
}

bool imatrix_lock_out(struct os_lock *lock, const char *path, const struct checkpoint *ck, const char *text, bool force,
                      struct err *e)
{
    const char *const inputs[] = {text, checkpoint_dir(ck)};
    if (!out_not_input("the output", path, inputs, 1, e) || !write_gguf_check(path, ck, force, e) ||
        !out_not_input("the output", path, inputs + 1, 1, e) ||
        !out_fits("the output", path, file_bytes(checkpoint_config(ck)), "-o", e) || !out_lock_file(lock, path, e))
        return false;
    out_tell_replaced(path);
    return true;
}

bool imatrix_collect(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct imatrix_options *o,
                     struct imatrix *m, struct imatrix_result *out, struct err *e)
{
    struct collect c = {.cmd = cmd, .o = o, .start_ns = os_now_ns(), .out = m};
    *m = (struct imatrix){0};
    bool ok = run(&c, ck, e);
    if (ok) {
        windows_tell_short(&c.w, o->text, o->windows);
        *out = (struct imatrix_result){
            .tokens = c.w.tokens, .windows = c.w.n, .seconds = (double)(os_now_ns() - c.start_ns) * 1e-9};
        m->chunks = c.w.n;
        m->chunk_size = c.w.ctx;
        m->dataset = str_dup(os_base_name(o->text)); /* the file goes to others: no path of this machine */
    } else {
        imatrix_free(m);
    }
    gpu_cmd_finish(cmd, NULL); /* after a failure, work may still use the arenas */
    progress_watch_end(&c.watch);
    block_weights_free(&c.block);
    acts_destroy(&c.acts);
    gpu_arena_destroy(&c.scratch);
    gpu_arena_destroy(&c.weights);
    model_close(&c.m);
    windows_free(&c.w);
    return ok;
}
