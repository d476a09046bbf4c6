#include "host/eval/eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/os.h"
#include "host/eval/forward.h"
#include "host/gpu/kernels.h"
#include "host/model/head.h"

/* Over the scored positions. Of a comparison all but nll[0]. */
struct sums {
    struct moments nll[2], kl, agree;
    struct moments ratio;                 /* nll of the model less that of the reference */
    struct moments change, change_square; /* of the right token's probability, the model's less the reference's */
    double both;                          /* products of nll */
    float *kls;                           /* [positions] of a comparison */
};

/* Of every position of every window. */
enum score { SCORE_NLL, SCORE_NLL_REFERENCE, SCORE_KL, SCORE_AGREE, SCORE_COUNT };

struct eval {
    struct forward f;
    const struct eval_options *o;
    struct windows all; /* of the text; f has those that this rank goes over, from window `first` on */
    uint32_t first;
    float *scores[SCORE_COUNT]; /* [all.n * ctx]; NULL: of a comparison alone */
    struct sums sums;
    eval_window_fn *window; /* may be NULL */
    void *window_ctx;
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
    return ev->o->protocol == EVAL_LLAMA ? ev->f.w.ctx / 2 : 0;
}

static uint64_t scored_positions(const struct eval *ev)
{
    return (uint64_t)ev->all.n * (ev->all.ctx - 1 - first_scored(ev));
}

static bool through_block(void *ctx, struct forward *f, struct forward_side *s, uint32_t layer, struct err *e)
{
    struct walk k;
    (void)ctx;
    if (!forward_block(f, s, layer, &k, e))
        return false;
    while (walk_next(&k, e)) {
        block_attn_fwd(s->m, &f->b, &f->s, k.x, k.x, k.n);
        forward_second_half(f, s, layer, &k, NULL, NULL);
    }
    return forward_block_end(f, &k, e);
}

/* ---- the head ---- */

/* What the head needs on the device for one batch. */
struct head_scratch {
    struct head head[2];
    struct gpu_view staging[2], norm[2]; /* [batch * ctx, hidden] */
    struct gpu_view logits[2];           /* [logit_rows, vocab] */
    struct gpu_view targets, nll[2];     /* [batch * ctx] */
    struct gpu_view kl, top1;
    uint32_t logit_rows;
    uint32_t *host_targets; /* [batch * ctx] */
};

/* Rows of logits held at once. */
static uint32_t logit_rows(const struct forward *f)
{
    bool stays = true;
    for (int i = 0; i < f->sides; i++)
        stays = stays && head_stays(f->side[i].m);
    return head_logit_rows(f->side[0].m, stays, gpu_info(f->side[0].m->gpu)->mem_limit / 4 / (unsigned)f->sides,
                           (uint64_t)f->batch * f->w.ctx);
}

static bool head_alloc(const struct forward *f, struct head_scratch *h, struct err *e)
{
    uint64_t tokens = (uint64_t)f->batch * f->w.ctx;
    h->logit_rows = logit_rows(f);
    bool ok = gpu_alloc(f->scratch, tokens * 4, &h->targets, e) && gpu_alloc(f->scratch, tokens * 4, &h->kl, e) &&
              gpu_alloc(f->scratch, tokens * 4, &h->top1, e);
    for (int i = 0; ok && i < f->sides; i++) {
        struct model *m = f->side[i].m;
        uint64_t acts = acts_bytes(m, f->batch);
        ok = head_create(&h->head[i], f->weights, m, head_stays(m), e) &&
             gpu_alloc(f->scratch, acts, &h->staging[i], e) && gpu_alloc(f->scratch, acts, &h->norm[i], e) &&
             gpu_alloc(f->scratch, (uint64_t)h->logit_rows * m->cfg->vocab_size * 4, &h->logits[i], e) &&
             gpu_alloc(f->scratch, tokens * 4, &h->nll[i], e);
    }
    return ok;
}

static bool count_head(const struct forward *f, struct err *e)
{
    struct head_scratch h = {0};
    return head_alloc(f, &h, e);
}

/* Scores of `rows` positions from position `row` of the batch on; logits hold them, in tiles that one binding
 * holds. */
static void head_scores(const struct eval *ev, const struct head_scratch *h, uint32_t row, uint32_t rows)
{
    uint32_t vocab = ev->f.side[0].m->cfg->vocab_size, tile = gpu_tile_rows(gpu_cmd_gpu(ev->f.cmd), vocab * 4ull, rows);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint32_t n = (uint32_t)min_u64(tile, rows - r);
        uint64_t at = (row + r) * 4ull, from = (uint64_t)r * vocab * 4, bytes = (uint64_t)n * vocab * 4;
        struct gpu_grid grid = gpu_rows(n);
        grid.work = (double)n * vocab;
        for (int i = 0; i < ev->f.sides; i++)
            run_nll(ev->f.cmd, grid,
                    &(struct nll_args){.logits = gpu_slice(h->logits[i], from, bytes),
                                       .target = gpu_slice(h->targets, at, n * 4ull),
                                       .out = gpu_slice(h->nll[i], at, n * 4ull),
                                       .rows = n,
                                       .cols = vocab});
        if (ev->f.sides == 2)
            run_kl(ev->f.cmd, grid,
                   &(struct kl_args){.ref = gpu_slice(h->logits[1], from, bytes),
                                     .logits = gpu_slice(h->logits[0], from, bytes),
                                     .out = gpu_slice(h->kl, at, n * 4ull),
                                     .top1 = gpu_slice(h->top1, at, n * 4ull),
                                     .rows = n,
                                     .cols = vocab});
    }
}

static void add_pair(struct sums *s, const double nll[2], float kl, bool agree)
{
    double change = exp(-nll[0]) - exp(-nll[1]);
    s->kls[s->kl.n] = kl;
    moments_add(&s->kl, kl);
    moments_add(&s->agree, agree);
    moments_add(&s->ratio, nll[0] - nll[1]);
    moments_add(&s->change, change);
    moments_add(&s->change_square, change * change);
    s->both += nll[0] * nll[1];
}

/* Scores of the windows in work, to the host. */
static bool head_take(const struct eval *ev, const struct head_scratch *h, uint32_t w0, uint32_t windows, struct err *e)
{
    const struct gpu_view from[SCORE_COUNT] = {h->nll[0], h->nll[1], h->kl, h->top1};
    const uint64_t at = (uint64_t)(ev->first + w0) * ev->all.ctx, bytes = (uint64_t)windows * ev->all.ctx * 4;
    for (int i = 0; i < SCORE_COUNT; i++)
        if (ev->scores[i] && !gpu_download(ev->f.cmd, gpu_slice(from[i], 0, bytes), ev->scores[i] + at, bytes, e))
            return false;
    return true;
}

static bool head_batch(const struct eval *ev, struct head_scratch *h, uint32_t w0, uint32_t n, struct err *e)
{
    uint32_t ctx = ev->f.w.ctx, tokens = n * ctx;
    const uint32_t *ids = ev->f.w.ids + (size_t)w0 * ctx;
    for (uint32_t t = 0; t < tokens; t++)
        h->host_targets[t] = t % ctx == ctx - 1 ? 0 : ids[t + 1];
    gpu_upload(ev->f.cmd, gpu_slice(h->targets, 0, tokens * 4ull), h->host_targets, tokens * 4ull);
    for (int i = 0; i < ev->f.sides; i++) {
        const struct forward_side *s = &ev->f.side[i];
        struct gpu_view x;
        if (!acts_get(s->acts, w0, n, h->staging[i], &x, e))
            return false;
        block_rmsnorm(s->m, x, s->m->final_norm, h->norm[i], tokens, s->m->cfg->hidden_size);
    }
    for (uint32_t r = 0; r < tokens; r += h->logit_rows) {
        uint32_t rows = (uint32_t)min_u64(h->logit_rows, tokens - r);
        for (int i = 0; i < ev->f.sides; i++) {
            uint64_t row_bytes = ev->f.side[i].m->cfg->hidden_size * 4ull;
            if (!head_logits(&h->head[i], gpu_slice(h->norm[i], r * row_bytes, rows * row_bytes), rows, false,
                             h->logits[i], e))
                return false;
        }
        head_scores(ev, h, r, rows);
    }
    return head_take(ev, h, w0, n, e);
}

static bool run_head(struct eval *ev, struct err *e)
{
    struct head_scratch h = {0};
    struct walk k = forward_walk(&ev->f, NULL, "logits");
    const uint64_t tokens = (uint64_t)ev->f.batch * ev->f.w.ctx;
    forward_head_begin(&ev->f);
    h.host_targets = malloc(tokens * sizeof *h.host_targets);
    if ((h.host_targets || err_nomem(e, "the tokens of a batch", tokens * sizeof *h.host_targets)) &&
        forward_tell(&ev->f, "logits", e) && head_alloc(&ev->f, &h, e))
        while (walk_next(&k, e) && head_batch(ev, &h, k.at, k.n, e))
            continue;
    bool ok = walk_end(&k, e);
    forward_head_end(&ev->f);
    free(h.host_targets);
    return ok;
}

/* ---- scores of all windows ---- */

static bool alloc_scores(struct eval *ev, struct err *e)
{
    const uint64_t n = (uint64_t)ev->all.n * ev->all.ctx;
    for (int i = 0; i < (ev->f.sides == 2 ? SCORE_COUNT : 1); i++)
        if (!(ev->scores[i] = malloc(n * sizeof *ev->scores[i])))
            return err_nomem(e, "the scores of each position", n * sizeof *ev->scores[i]);
    return true;
}

static void free_scores(struct eval *ev)
{
    for (int i = 0; i < SCORE_COUNT; i++) {
        free(ev->scores[i]);
        ev->scores[i] = NULL;
    }
}

/* Each rank's windows to all ranks. */
static bool share_scores(const struct eval *ev, struct err *e)
{
    bool ok = true;
    for (int i = 0; ok && i < SCORE_COUNT; i++)
        ok = !ev->scores[i] || comm_gather(COMM_SCORES, ev->scores[i], ev->all.n, 1, ev->all.ctx * sizeof(float), e);
    return ok;
}

/* In double, in the order of the text. */
static void sum_scores(struct eval *ev)
{
    const uint32_t ctx = ev->all.ctx, first = first_scored(ev);
    float *const *of = ev->scores;
    for (uint32_t w = 0; ev->window && w < ev->all.n; w++)
        ev->window(ev->window_ctx, w, of[SCORE_NLL] + (size_t)w * ctx);
    for (size_t t = 0, n = (size_t)ev->all.n * ctx; t < n; t++) {
        if (t % ctx < first || t % ctx == ctx - 1)
            continue; /* the last one predicts the token after the window */
        moments_add(&ev->sums.nll[0], of[SCORE_NLL][t]);
        if (ev->f.sides == 2) {
            moments_add(&ev->sums.nll[1], of[SCORE_NLL_REFERENCE][t]);
            add_pair(&ev->sums, (double[]){of[SCORE_NLL][t], of[SCORE_NLL_REFERENCE][t]}, of[SCORE_KL][t],
                     of[SCORE_AGREE][t] != 0);
        }
    }
}

/* ---- the whole ---- */

/* Both models must mean the same by a token. */
static bool check_same_tokens(struct forward *f, const struct windows *reference, struct err *e)
{
    struct windows w = {0};
    uint32_t a = checkpoint_config(f->side[0].ck)->vocab_size, b = checkpoint_config(f->side[1].ck)->vocab_size;
    if (a != b) {
        err_set(e, ERR_USER, "the models have different vocabularies: %" PRIu32 " and %" PRIu32 " tokens", a, b);
        return err_hint(e, "compare a quantized model with the one it was made from");
    }
    if (!reference && !windows_load(&w, f->side[1].ck, f->text, f->ctx, f->at_most, &f->watch, e))
        return false;
    const struct hash128 *hash = reference ? &reference->hash : &w.hash;
    bool same = hash->lo == f->w.hash.lo && hash->hi == f->w.hash.hi;
    windows_free(&w);
    if (same)
        return true;
    err_set(e, ERR_USER, "the models' tokenizers read this text differently");
    return err_hint(e, "compare a quantized model with the one it was made from");
}

/* The scores of this rank's windows. */
static bool score_part(struct eval *ev, struct err *e)
{
    struct forward *f = &ev->f;
    const struct comm_part part = comm_part(ev->all.n, 1, comm_rank());
    bool ok = forward_models(f, e);
    if (part.first == part.end)
        return ok;
    ev->first = part.first;
    f->w.ids = ev->all.ids + (size_t)part.first * ev->all.ctx;
    f->w.n = part.end - part.first;
    ok = ok && forward_open(f, e);
    for (int i = 0; ok && i < f->sides; i++)
        ok = forward_blocks(f, &f->side[i], through_block, NULL, e);
    ok = ok && run_head(ev, e);
    f->w = ev->all;
    return ok;
}

static bool eval_run(struct eval *ev, struct err *e)
{
    struct forward *f = &ev->f;
    if (ev->o->protocol == EVAL_LLAMA && ev->o->ctx == 2)
        return err_set(e, ERR_USER, "the protocol of llama.cpp scores nothing in a window of 2 tokens");
    if (!forward_begin(f, e))
        return false;
    if (f->sides == 2 && !check_same_tokens(f, ev->o->reference, e))
        return false;
    for (uint32_t i = 0; ev->o->protocol == EVAL_LLAMA && f->w.bos >= 0 && i < f->w.n; i++)
        f->w.ids[(size_t)i * f->w.ctx] = (uint32_t)f->w.bos;
    ev->all = f->w;
    uint64_t scored = scored_positions(ev);
    if (f->sides == 2 && !(ev->sums.kls = malloc(scored * sizeof *ev->sums.kls)))
        return err_nomem(e, "the divergence of each position", scored * sizeof *ev->sums.kls);
    const bool ok = alloc_scores(ev, e) && score_part(ev, e) && share_scores(ev, e);
    if (ok)
        sum_scores(ev);
    return ok && forward_tell(f, "done", e);
}

static void fill_result(const struct eval *ev, int side, struct eval_result *out)
{
    /* What is not a model's blocks is shared. */
    double rest = (double)(os_now_ns() - ev->f.start_ns) * 1e-9;
    for (int i = 0; i < ev->f.sides; i++)
        rest -= ev->f.side[i].seconds;
    *out = (struct eval_result){
        .tokens = ev->all.tokens,
        .windows = ev->all.n,
        .scored = scored_positions(ev),
        .seconds = ev->f.side[side].seconds + rest / ev->f.sides,
    };
    out->mean_nll = moments_mean(&ev->sums.nll[side]);
    out->nll_error = moments_error(&ev->sums.nll[side]);
    out->perplexity = exp(out->mean_nll);
    out->perplexity_error = out->perplexity * out->nll_error;
    hash_hex(ev->all.hash, out->token_hash);
}

/* What pairs of positions say; the formulas are those of llama-perplexity --kl-divergence. */
static void fill_pairs(struct sums *s, struct compare_result *out)
{
    static const double shares[EVAL_QUANTILES] = {.01, .1, .5, .9, .99, .999};
    double means[2] = {moments_mean(&s->nll[0]), moments_mean(&s->nll[1])}, n = (double)s->kl.n;
    double spread[2], rms = sqrt(moments_mean(&s->change_square));
    for (int i = 0; i < 2; i++)
        spread[i] = s->nll[i].squares / n - means[i] * means[i];
    out->mean_kl = moments_mean(&s->kl);
    out->kl_error = moments_error(&s->kl);
    out->top1 = moments_mean(&s->agree);
    out->top1_error = moments_error(&s->agree);
    out->log_ratio = moments_mean(&s->ratio);
    out->log_ratio_error = moments_error(&s->ratio);
    out->correlation =
        spread[0] > 0 && spread[1] > 0 ? (s->both / n - means[0] * means[1]) / sqrt(spread[0] * spread[1]) : NAN;
    out->p_change = moments_mean(&s->change);
    out->p_change_error = moments_error(&s->change);
    out->p_change_rms = rms;
    out->p_change_rms_error = rms > 0 ? moments_error(&s->change_square) / (2 * rms) : 0;
    spread_sort(s->kls, s->kl.n);
    for (int i = 0; i < EVAL_QUANTILES; i++)
        out->kl[i] = spread_quantile(s->kls, s->kl.n, shares[i]);
    out->kl_most = s->kls[s->kl.n - 1];
}

static struct eval eval_of(struct gpu_cmd *cmd, const char *phase, const struct eval_options *o)
{
    return (struct eval){.f = {.cmd = cmd,
                               .phase = phase,
                               .text = o->text,
                               .ctx = o->ctx,
                               .at_most = o->windows,
                               .spill_dir = o->spill_dir,
                               .progress = &o->progress,
                               .sides = 1,
                               .alloc_head = count_head},
                         .o = o};
}

bool eval_perplexity(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct eval_options *o,
                     struct eval_result *out, struct err *e)
{
    struct eval ev = eval_of(cmd, "eval", o);
    ev.f.side[0] = (struct forward_side){.label = "", .ck = ck};
    bool ok = eval_run(&ev, e);
    if (ok)
        fill_result(&ev, 0, out);
    free_scores(&ev);
    forward_close(&ev.f);
    return ok;
}

bool eval_windows(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct windows *w,
                  const struct eval_options *o, eval_window_fn *fn, void *ctx, struct err *e)
{
    struct eval ev = eval_of(cmd, "eval", o);
    ev.f.given = w;
    ev.f.ctx = w->ctx;
    ev.f.side[0] = (struct forward_side){.label = "", .ck = ck};
    ev.window = fn;
    ev.window_ctx = ctx;
    bool ok = eval_run(&ev, e);
    free_scores(&ev);
    forward_close(&ev.f);
    return ok;
}

bool eval_compare(struct gpu_cmd *cmd, const struct checkpoint *model, const struct checkpoint *reference,
                  const struct eval_options *o, struct compare_result *out, struct err *e)
{
    struct eval ev = eval_of(cmd, "compare", o);
    ev.f.sides = 2;
    ev.f.side[0] = (struct forward_side){.label = "", .ck = model};
    ev.f.side[1] = (struct forward_side){.label = "reference ", .ck = reference};
    bool ok = eval_run(&ev, e);
    if (ok) {
        fill_result(&ev, 0, &out->model);
        fill_result(&ev, 1, &out->reference);
        fill_pairs(&ev.sums, out);
    }
    free(ev.sums.kls);
    free_scores(&ev);
    forward_close(&ev.f);
    return ok;
}
