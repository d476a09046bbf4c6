#include "host/eval/eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"
#include "host/gpu/kernels.h"
#include "host/model/block_fwd.h"
#include "host/model/acts.h"
#include "host/model/batch.h"
#include "host/model/head.h"
#include "host/quant/plan/predict.h"

/* Longest stretch between two looks at the device, in ns: progress stays live, and work is still queued
 * ahead. */
#define SYNC_NS 200000000ull
/* Before anything is measured: seconds of a weight that goes to the device. */
#define SECONDS_PER_LOAD 1e-9
/* Runs that should take longer than this are predicted by a measurement. */
#define MEASURE_FROM 2.0

/* One model on its way through the text. */
struct side {
    const char *label; /* "" or "reference ": in front of progress details */
    const struct checkpoint *ck;
    struct model *m;
    struct acts *acts;
    struct head head;
    double seconds; /* in its blocks */
};

struct sums {
    double nll[2], kl;
    double nll_squares[2], kl_squares;
    uint64_t agree;
};

struct eval {
    struct gpu_cmd *cmd;
    struct gpu *gpu;
    const struct eval_options *o;
    const char *phase;
    struct side side[2];
    int sides;
    struct windows w;
    uint32_t batch; /* windows */
    struct gpu_arena *scratch, *weights;
    struct block_weights block; /* the one that is loaded */
    uint64_t start_ns, sync_ns;
    struct eta eta;
    struct progress_watch watch;
    struct speed speed;
    uint32_t windows; /* through the present block, or scored */
    struct sums sums;
};

static const char *const protocol_names[] = {[EVAL_GSQ] = "gsq", [EVAL_LLAMA] = "llama.cpp"};

const char *eval_protocol_name(enum eval_protocol p)
{
    return protocol_names[p];
}

bool eval_protocol_parse(const char *name, enum eval_protocol *out)
{
    for (int p = EVAL_GSQ; p <= EVAL_LLAMA; p++)
        if (strcmp(name, protocol_names[p]) == 0) {
            *out = (enum eval_protocol)p;
            return true;
        }
    return false;
}

/* The first position of a window whose prediction is scored; the last is ctx - 2. */
static uint32_t first_scored(const struct eval *ev)
{
    return ev->o->protocol == EVAL_LLAMA ? ev->w.ctx / 2 : 0;
}

/* ---- progress ---- */

static bool tell(struct eval *ev, const char *detail, uint32_t block, uint32_t blocks, struct err *e)
{
    struct progress_event event = {
        .phase = ev->phase,
        .detail = detail,
        .block = block,
        .blocks = blocks,
        .loss = NAN,
        .unit = "windows",
        .count = ev->windows,
    };
    return progress_report(&ev->watch, &event, e);
}

/* Kinds of work. */
enum { WORK_LOAD, WORK_FORWARD, WORK_HEAD };

/* Seconds, as predicted, of one block on these windows. */
static double block_work(const struct eval *ev, const struct model *m, uint32_t layer, uint32_t windows)
{
    const struct speed_block *s = speed_block(&ev->speed, m, layer);
    if (s)
        return windows * (s->forward[HALF_ATTN] + s->forward[HALF_FFN]);
    return (double)windows * ev->w.ctx *
           (model_block_products(m, layer) + (double)m->ctx * m->cfg->num_heads * m->cfg->head_dim) *
           speed_guess(m->gpu);
}

static double load_work(const struct eval *ev, const struct model *m, uint32_t layer)
{
    return model_block_products(m, layer) * (ev->speed.measured ? ev->speed.load : SECONDS_PER_LOAD);
}

static double head_work(const struct eval *ev, const struct model *m, uint32_t windows)
{
    double ops = (double)windows * ev->w.ctx * ((double)m->cfg->hidden_size + 16) * m->cfg->vocab_size;
    return ops * (ev->speed.measured ? ev->speed.gemm : speed_guess(m->gpu)) +
           (double)model_head_bytes(m) / 4 * (ev->speed.measured ? ev->speed.load : SECONDS_PER_LOAD);
}

/* Of one side. */
static void whole_work(const struct eval *ev, const struct model *m, double by_kind[ETA_KINDS])
{
    for (uint32_t layer = 0; layer < m->cfg->num_layers; layer++) {
        by_kind[WORK_LOAD] += load_work(ev, m, layer);
        by_kind[WORK_FORWARD] += block_work(ev, m, layer, ev->w.n);
    }
    by_kind[WORK_HEAD] += head_work(ev, m, ev->w.n);
}

/* A measurement where it is worth it, and what is expected from now on. Both models have one shape. */
static bool expect(struct eval *ev, struct err *e)
{
    uint64_t begin = ev->eta.begin;
    double guess[ETA_KINDS] = {0}, work[ETA_KINDS] = {0};
    for (int i = 0; i < ev->sides; i++)
        whole_work(ev, ev->side[i].m, guess);
    if (guess[WORK_LOAD] + guess[WORK_FORWARD] + guess[WORK_HEAD] > MEASURE_FROM &&
        (!tell(ev, "measuring", 0, 0, e) || !speed_measure_forward(&ev->speed, ev->side[0].m, ev->batch, e)))
        return false;
    eta_start(&ev->eta, os_now_ns(), speed_trust(&ev->speed));
    ev->eta.begin = begin;
    for (int i = 0; i < ev->sides; i++)
        whole_work(ev, ev->side[i].m, work);
    for (unsigned kind = WORK_LOAD; kind <= WORK_HEAD; kind++)
        eta_expect(&ev->eta, kind, work[kind]);
    return true;
}

/* Waits from time to time for what was recorded, and tells how far the piece in work is: n of ev->w.n
 * windows. */
static bool advance(struct eval *ev, uint32_t n, const char *detail, uint32_t block, uint32_t blocks, struct err *e)
{
    if (os_now_ns() - ev->sync_ns < SYNC_NS && n < ev->w.n)
        return true;
    if (!gpu_cmd_finish(ev->cmd, e))
        return false;
    ev->sync_ns = os_now_ns();
    eta_part(&ev->eta, (double)n / ev->w.n, ev->sync_ns);
    ev->windows = n;
    return tell(ev, detail, block, blocks, e);
}

/* ---- through the blocks ---- */

static bool run_block(struct eval *ev, struct side *s, uint32_t layer, const struct block_scratch *scratch,
                      struct gpu_view staging, struct err *e)
{
    char detail[64];
    uint32_t blocks = s->m->cfg->num_layers;
    snprintf(detail, sizeof detail, "%sblock %" PRIu32 "/%" PRIu32, s->label, layer + 1, blocks);
    ev->windows = 0;
    progress_meter(&ev->watch, 0);
    eta_begin(&ev->eta, WORK_LOAD, load_work(ev, s->m, layer), os_now_ns());
    if (!tell(ev, detail, layer + 1, blocks, e) || !model_load_block(s->m, layer, ev->weights, &ev->block, e))
        return false;
    eta_end(&ev->eta, os_now_ns());
    eta_begin(&ev->eta, WORK_FORWARD, block_work(ev, s->m, layer, ev->w.n), os_now_ns());
    progress_meter(&ev->watch, model_block_products(s->m, layer) * ev->w.n * ev->w.ctx);
    for (uint32_t w = 0; w < ev->w.n; w += ev->batch) {
        uint32_t n = (uint32_t)min_u64(ev->batch, ev->w.n - w);
        struct gpu_view x;
        if (!acts_get(s->acts, w, n, staging, &x, e))
            return false;
        block_attn_fwd(s->m, &ev->block, scratch, x, x, n);
        block_ffn_fwd(s->m, &ev->block, scratch, x, x, n);
        if (!acts_put(s->acts, w, n, x, e) || !advance(ev, w + n, detail, layer + 1, blocks, e))
            return false;
    }
    eta_end(&ev->eta, os_now_ns());
    gpu_arena_reset(ev->weights, 0);
    return true;
}

/* "block 3: ..." in front of a failure; a stop is not one. */
/* By the layer's name, as the tensors have it: what is counted from 1 is for progress. */
static bool fail_in(const char *label, uint32_t layer, struct err *e)
{
    return e && e->kind == ERR_STOPPED ? false : err_context(e, "%smodel.layers.%" PRIu32, label, layer);
}

static bool alloc_blocks(struct eval *ev, struct side *s, struct block_scratch *scratch, struct gpu_view *staging,
                         struct err *e)
{
    return block_scratch_create(scratch, ev->scratch, s->m, ev->batch, SCRATCH_FORWARD, e) &&
           gpu_alloc(ev->scratch, acts_bytes(s->m, ev->batch), staging, e);
}

static bool run_blocks(struct eval *ev, struct side *s, struct err *e)
{
    struct block_scratch scratch;
    struct gpu_view staging;
    bool ok = alloc_blocks(ev, s, &scratch, &staging, e) && acts_embed(s->acts, &ev->w, NULL, ev->w.n, staging, e);
    for (uint32_t layer = 0; ok && layer < s->m->cfg->num_layers; layer++)
        ok = run_block(ev, s, layer, &scratch, staging, e) || fail_in(s->label, layer, e);
    if (!ok || !gpu_cmd_finish(ev->cmd, e))
        return false;
    gpu_arena_reset(ev->scratch, 0);
    gpu_arena_trim(ev->scratch);
    gpu_arena_trim(ev->weights);
    return true;
}

/* ---- the head ---- */

/* What the head needs on the device for one batch. */
struct head_scratch {
    struct gpu_view staging[2], norm[2]; /* [batch * ctx, hidden] */
    struct gpu_view logits[2];           /* [logit_rows, vocab] */
    struct gpu_view targets, nll[2];     /* [batch * ctx] */
    struct gpu_view kl, top1;
    uint32_t logit_rows;
    uint32_t *host_targets;
    float *host; /* 4 x [batch * ctx]: nll of either side, kl, top1 */
};

/* Rows of logits held at once. */
static uint32_t logit_rows(const struct eval *ev)
{
    bool resident = true;
    for (int i = 0; i < ev->sides; i++)
        resident = resident && head_is_resident(ev->side[i].m);
    return head_logit_rows(ev->side[0].m, resident, (unsigned)ev->sides, (uint64_t)ev->batch * ev->w.ctx);
}

static bool head_alloc(struct eval *ev, struct head_scratch *h, struct err *e)
{
    uint64_t tokens = (uint64_t)ev->batch * ev->w.ctx;
    h->logit_rows = logit_rows(ev);
    bool ok = gpu_alloc(ev->scratch, tokens * 4, &h->targets, e) && gpu_alloc(ev->scratch, tokens * 4, &h->kl, e) &&
              gpu_alloc(ev->scratch, tokens * 4, &h->top1, e);
    for (int i = 0; ok && i < ev->sides; i++) {
        struct side *s = &ev->side[i];
        uint64_t acts = acts_bytes(s->m, ev->batch);
        ok = head_create(&s->head, ev->weights, s->m, HEAD_FORWARD, e) &&
             gpu_alloc(ev->scratch, acts, &h->staging[i], e) && gpu_alloc(ev->scratch, acts, &h->norm[i], e) &&
             gpu_alloc(ev->scratch, (uint64_t)h->logit_rows * s->m->cfg->vocab_size * 4, &h->logits[i], e) &&
             gpu_alloc(ev->scratch, tokens * 4, &h->nll[i], e);
    }
    return ok;
}

static bool head_alloc_host(const struct eval *ev, struct head_scratch *h, struct err *e)
{
    uint64_t tokens = (uint64_t)ev->batch * ev->w.ctx;
    h->host_targets = malloc(tokens * sizeof *h->host_targets);
    h->host = malloc(tokens * 4 * sizeof *h->host);
    return (h->host_targets && h->host) || err_nomem(e, "the scores of a batch", tokens * 20);
}

/* Scores of `rows` positions from position `row` of the batch on; logits hold them, in tiles that one binding
 * holds. */
static void head_scores(struct eval *ev, const struct head_scratch *h, uint32_t row, uint32_t rows)
{
    uint32_t vocab = ev->side[0].m->cfg->vocab_size, tile = gpu_tile_rows(ev->gpu, vocab * 4ull, rows);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint32_t n = (uint32_t)min_u64(tile, rows - r);
        uint64_t at = (row + r) * 4ull, from = (uint64_t)r * vocab * 4, bytes = (uint64_t)n * vocab * 4;
        struct gpu_grid grid = gpu_rows(n);
        grid.work = (double)n * vocab;
        for (int i = 0; i < ev->sides; i++)
            run_nll(ev->cmd, grid,
                    &(struct nll_args){.logits = gpu_slice(h->logits[i], from, bytes),
                                       .target = gpu_slice(h->targets, at, n * 4ull),
                                       .out = gpu_slice(h->nll[i], at, n * 4ull),
                                       .rows = n,
                                       .cols = vocab});
        if (ev->sides == 2)
            run_kl(ev->cmd, grid,
                   &(struct kl_args){.ref = gpu_slice(h->logits[1], from, bytes),
                                     .logits = gpu_slice(h->logits[0], from, bytes),
                                     .out = gpu_slice(h->kl, at, n * 4ull),
                                     .top1 = gpu_slice(h->top1, at, n * 4ull),
                                     .rows = n,
                                     .cols = vocab});
    }
}

/* Scores to the host, summed in double in the order of the text. */
static bool head_sum(struct eval *ev, struct head_scratch *h, uint32_t windows, struct err *e)
{
    uint32_t ctx = ev->w.ctx, tokens = windows * ctx, first = first_scored(ev);
    float *nll[2] = {h->host, h->host + tokens}, *kl = h->host + 2ull * tokens, *top1 = h->host + 3ull * tokens;
    for (int i = 0; i < ev->sides; i++) {
        if (!gpu_download(ev->cmd, gpu_slice(h->nll[i], 0, tokens * 4ull), nll[i], tokens * 4ull, e))
            return false;
    }
    if (ev->sides == 2 && (!gpu_download(ev->cmd, gpu_slice(h->kl, 0, tokens * 4ull), kl, tokens * 4ull, e) ||
                           !gpu_download(ev->cmd, gpu_slice(h->top1, 0, tokens * 4ull), top1, tokens * 4ull, e)))
        return false;
    for (uint32_t t = 0; t < tokens; t++) {
        if (t % ctx < first || t % ctx == ctx - 1)
            continue; /* the last one predicts the token behind the window */
        for (int i = 0; i < ev->sides; i++) {
            ev->sums.nll[i] += nll[i][t];
            ev->sums.nll_squares[i] += (double)nll[i][t] * nll[i][t];
        }
        if (ev->sides == 2) {
            ev->sums.kl += kl[t];
            ev->sums.kl_squares += (double)kl[t] * kl[t];
            ev->sums.agree += top1[t] != 0;
        }
    }
    return true;
}

static bool head_batch(struct eval *ev, struct head_scratch *h, uint32_t w0, uint32_t n, struct err *e)
{
    uint32_t ctx = ev->w.ctx, tokens = n * ctx;
    const uint32_t *ids = ev->w.ids + (size_t)w0 * ctx;
    for (uint32_t t = 0; t < tokens; t++)
        h->host_targets[t] = t % ctx == ctx - 1 ? 0 : ids[t + 1];
    gpu_upload(ev->cmd, gpu_slice(h->targets, 0, tokens * 4ull), h->host_targets, tokens * 4ull);
    for (int i = 0; i < ev->sides; i++) {
        struct side *s = &ev->side[i];
        struct gpu_view x;
        if (!acts_get(s->acts, w0, n, h->staging[i], &x, e))
            return false;
        block_rmsnorm(s->m, x, s->m->final_norm, h->norm[i], tokens, s->m->cfg->hidden_size);
    }
    for (uint32_t r = 0; r < tokens; r += h->logit_rows) {
        uint32_t rows = (uint32_t)min_u64(h->logit_rows, tokens - r);
        for (int i = 0; i < ev->sides; i++) {
            uint64_t row_bytes = ev->side[i].m->cfg->hidden_size * 4ull;
            if (!head_logits(&ev->side[i].head, gpu_slice(h->norm[i], r * row_bytes, rows * row_bytes), rows,
                             h->logits[i], e))
                return false;
        }
        head_scores(ev, h, r, rows);
    }
    return head_sum(ev, h, n, e);
}

static bool run_head(struct eval *ev, struct err *e)
{
    struct head_scratch h = {0};
    double work = 0;
    for (int i = 0; i < ev->sides; i++)
        work += head_work(ev, ev->side[i].m, ev->w.n);
    ev->windows = 0;
    eta_begin(&ev->eta, WORK_HEAD, work, os_now_ns());
    progress_meter(&ev->watch, 0);
    bool ok = tell(ev, "logits", 0, 0, e) && head_alloc(ev, &h, e) && head_alloc_host(ev, &h, e);
    for (uint32_t w = 0; ok && w < ev->w.n; w += ev->batch) {
        uint32_t n = (uint32_t)min_u64(ev->batch, ev->w.n - w);
        ok = head_batch(ev, &h, w, n, e) && advance(ev, w + n, "logits", 0, 0, e);
    }
    eta_end(&ev->eta, os_now_ns());
    ok = ok && gpu_cmd_finish(ev->cmd, e);
    free(h.host_targets);
    free(h.host);
    return ok;
}

/* ---- set-up ---- */

/* One block after the other, layers that are alike once. */
static bool count_blocks(struct eval *ev, struct model *m, struct err *e)
{
    struct block_weights b = {0};
    bool ok = true;
    for (uint32_t layer = 0; ok && layer < m->cfg->num_layers; layer++)
        if (model_shape_is_new(&m->shape, layer)) {
            ok = model_load_block(m, layer, ev->weights, &b, e);
            gpu_arena_reset(ev->weights, 0);
        }
    block_weights_free(&b);
    return ok;
}

/* All that the blocks, the measurement and the head take, on arenas that count. */
static bool count_work(struct eval *ev, struct err *e)
{
    struct head_scratch h = {0};
    bool ok = true;
    for (int i = 0; ok && i < ev->sides; i++) {
        struct block_scratch scratch;
        struct gpu_view staging;
        ok = (i > 0 || speed_count_forward(ev->side[0].m, ev->batch, ev->scratch, e)) &&
             alloc_blocks(ev, &ev->side[i], &scratch, &staging, e) && count_blocks(ev, ev->side[i].m, e);
        gpu_arena_reset(ev->scratch, 0);
        gpu_arena_trim(ev->weights);
        gpu_arena_trim(ev->scratch);
    }
    return ok && head_alloc(ev, &h, e);
}

/* Whether the device has room for all hidden states, beside whatever else it takes. */
static bool acts_fit(const struct eval *ev)
{
    struct gpu_count count = {.used = gpu_memory_used(ev->gpu), .limit = gpu_info(ev->gpu)->mem_limit};
    struct eval as_if = *ev;
    struct gpu_arena *acts[2] = {NULL, NULL};
    bool ok = true;
    gpu_cmd_count(ev->cmd, GPU_COUNT_MEMORY);
    for (int i = 0; ok && i < ev->sides; i++)
        ok = gpu_arena_create_counting(&acts[i], ev->gpu, &count, NULL) &&
             acts_count(ev->side[i].m, ev->w.n, acts[i], NULL);
    as_if.scratch = as_if.weights = NULL;
    ok = ok && gpu_arena_create_counting(&as_if.scratch, ev->gpu, &count, NULL) &&
         gpu_arena_create_counting(&as_if.weights, ev->gpu, &count, NULL) && count_work(&as_if, NULL);
    gpu_cmd_count(ev->cmd, GPU_COUNT_NOTHING);
    gpu_arena_destroy(&as_if.scratch);
    gpu_arena_destroy(&as_if.weights);
    for (int i = 0; i < ev->sides; i++)
        gpu_arena_destroy(&acts[i]);
    return ok;
}

/* Batch size and the place of the hidden states, from what the device has left. */
static bool make_room(struct eval *ev, struct err *e)
{
    ev->batch = ev->w.n;
    for (int i = 0; i < ev->sides; i++)
        ev->batch = batch_windows_forward(ev->side[i].m, ev->batch);
    bool device = acts_fit(ev);
    for (int i = 0; i < ev->sides; i++) {
        struct acts_options o = {
            .device_bytes = device ? UINT64_MAX : 0,
            .host_bytes = os_memory_available() / 2 / (unsigned)ev->sides,
            .spill_dir = ev->o->spill_dir,
        };
        if (!acts_create(&ev->side[i].acts, ev->side[i].m, ev->w.n, &o, e))
            return false;
    }
    return true;
}

static bool load_text(struct eval *ev, const struct checkpoint *ck, struct windows *w, struct err *e)
{
    if (!windows_load(w, ck, ev->o->text, ev->o->ctx, ev->o->windows, &ev->watch, e))
        return false;
    for (uint32_t i = 0; ev->o->protocol == EVAL_LLAMA && w->bos >= 0 && i < w->n; i++)
        w->ids[(size_t)i * w->ctx] = (uint32_t)w->bos;
    return true;
}

/* Both models must mean the same by a token. */
static bool check_same_tokens(struct eval *ev, struct err *e)
{
    uint32_t a = checkpoint_config(ev->side[0].ck)->vocab_size, b = checkpoint_config(ev->side[1].ck)->vocab_size;
    if (a != b) {
        err_set(e, ERR_USER, "the models have different vocabularies: %" PRIu32 " and %" PRIu32 " tokens", a, b);
        return err_hint(e, "compare a quantized model with the one it was made from");
    }
    struct windows w = {0};
    if (!load_text(ev, ev->side[1].ck, &w, e))
        return false;
    bool same = w.hash.lo == ev->w.hash.lo && w.hash.hi == ev->w.hash.hi;
    windows_free(&w);
    if (same)
        return true;
    err_set(e, ERR_USER, "the models' tokenizers read this text differently");
    return err_hint(e, "compare a quantized model with the one it was made from");
}

static void eval_close(struct eval *ev)
{
    gpu_cmd_finish(ev->cmd, NULL); /* after a failure, work may still use the arenas */
    progress_watch_end(&ev->watch);
    for (int i = 0; i < ev->sides; i++) {
        acts_destroy(&ev->side[i].acts);
        model_close(&ev->side[i].m);
    }
    gpu_arena_destroy(&ev->scratch);
    gpu_arena_destroy(&ev->weights);
    block_weights_free(&ev->block);
    windows_free(&ev->w);
}

static bool eval_run(struct eval *ev, struct err *e)
{
    ev->gpu = gpu_cmd_gpu(ev->cmd);
    ev->start_ns = ev->sync_ns = os_now_ns();
    if (ev->o->protocol == EVAL_LLAMA && ev->o->ctx == 2)
        return err_set(e, ERR_USER, "the protocol of llama.cpp scores nothing in a window of 2 tokens");
    eta_start(&ev->eta, ev->start_ns, 0);
    progress_watch_begin(&ev->watch, &ev->o->progress, &ev->eta, ev->cmd);
    if (!load_text(ev, ev->side[0].ck, &ev->w, e) || (ev->sides == 2 && !check_same_tokens(ev, e)))
        return false;
    for (int i = 0; i < ev->sides; i++) {
        struct side *s = &ev->side[i];
        if (!model_open(&s->m, ev->cmd, s->ck, ev->o->ctx, e))
            return err_context(e, "%s", checkpoint_dir(s->ck));
    }
    if (!gpu_arena_create(&ev->scratch, ev->gpu, "scratch", e) ||
        !gpu_arena_create(&ev->weights, ev->gpu, "block", e) || !make_room(ev, e) || !expect(ev, e))
        return false;
    for (int i = 0; i < ev->sides; i++) {
        uint64_t start = os_now_ns();
        if (!run_blocks(ev, &ev->side[i], e))
            return false;
        ev->side[i].seconds = (double)(os_now_ns() - start) * 1e-9;
    }
    return run_head(ev, e) && tell(ev, "done", 0, 0, e);
}

/* Of the mean of n numbers, from their sums; 0 of a single one. */
static double standard_error(double sum, double squares, uint64_t n)
{
    double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
    return n > 1 ? sqrt(fmax(0, variance) / (double)(n - 1)) : 0;
}

static void fill_result(const struct eval *ev, int side, struct eval_result *out)
{
    /* What is not a model's blocks is shared. */
    double rest = (double)(os_now_ns() - ev->start_ns) * 1e-9;
    for (int i = 0; i < ev->sides; i++)
        rest -= ev->side[i].seconds;
    *out = (struct eval_result){
        .tokens = ev->w.tokens,
        .windows = ev->w.n,
        .scored = (uint64_t)ev->w.n * (ev->w.ctx - 1 - first_scored(ev)),
        .seconds = ev->side[side].seconds + rest / ev->sides,
    };
    out->mean_nll = ev->sums.nll[side] / (double)out->scored;
    out->nll_error = standard_error(ev->sums.nll[side], ev->sums.nll_squares[side], out->scored);
    out->perplexity = exp(out->mean_nll);
    out->perplexity_error = out->perplexity * out->nll_error;
    hash_hex(ev->w.hash, out->token_hash);
}

bool eval_perplexity(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct eval_options *o,
                     struct eval_result *out, struct err *e)
{
    struct eval ev = {.cmd = cmd, .o = o, .phase = "eval", .sides = 1, .side = {{.label = "", .ck = ck}}};
    bool ok = eval_run(&ev, e);
    if (ok)
        fill_result(&ev, 0, out);
    eval_close(&ev);
    return ok;
}

bool eval_compare(struct gpu_cmd *cmd, const struct checkpoint *model, const struct checkpoint *reference,
                  const struct eval_options *o, struct compare_result *out, struct err *e)
{
    struct eval ev = {.cmd = cmd,
                      .o = o,
                      .phase = "compare",
                      .sides = 2,
                      .side = {{.label = "", .ck = model}, {.label = "reference ", .ck = reference}}};
    bool ok = eval_run(&ev, e);
    if (ok) {
        fill_result(&ev, 0, &out->model);
        fill_result(&ev, 1, &out->reference);
        out->mean_kl = ev.sums.kl / (double)out->model.scored;
        out->kl_error = standard_error(ev.sums.kl, ev.sums.kl_squares, out->model.scored);
        out->top1 = (double)ev.sums.agree / (double)out->model.scored;
        out->top1_error = standard_error((double)ev.sums.agree, (double)ev.sums.agree, out->model.scored);
    }
    eval_close(&ev);
    return ok;
}
