#include "host/eval/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/write_gguf.h"
#include "host/base/comm.h"
#include "host/base/num.h"
#include "host/base/out_path.h"
#include "host/base/str.h"
#include "host/eval/forward.h"
#include "host/gpu/tiled.h"
#include "host/model/batch.h"

struct collect {
    struct forward f;
    struct gpu_arena *arena;
    struct gpu_view sums[INPUT_COUNT]; /* [width of the input, of the widest block] */
    struct gpu_view experts[2]; /* of a layer's: [experts] rows of what gate and up read, and of what down reads */
    struct dealt_sums dealt;    /* of several ranks */
    struct imatrix *out;
    uint32_t layer;
};

/* Inputs of a half that `windows` windows have just gone through. */
static void add_half(struct collect *c, const struct model *m, uint32_t layer, enum block_half half, uint32_t windows)
{
    uint32_t rows = windows * m->ctx;
    for (int in = 0; in < INPUT_COUNT; in++) {
        uint32_t cols = block_input_cols(model_block(m, layer), half, (enum input)in);
        if (!cols)
            continue;
        struct gpu_view x = gpu_slice(block_input(&c->f.s, (enum input)in), 0, (uint64_t)rows * cols * 4);
        tiled_col_sumsq(m->cmd, &(struct col_sumsq_args){.x = x, .sums = c->sums[in], .rows = rows, .cols = cols});
    }
}

static bool check_finite(const float *sums, uint32_t n, const char *module, const struct checkpoint *ck, struct err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        if (isfinite(sums[i]))
            continue;
        err_set(e, ERR_USER, "the inputs of %s of %s are not finite", module, checkpoint_dir(ck));
        return err_hint(e, "the model is damaged or its training diverged: download it again");
    }
    return true;
}

/* Rows of experts begin where a view may. */
#define VIEW_STEP 256u
static uint64_t expert_stride(uint32_t cols)
{
    return round_up(cols * 4ull, VIEW_STEP);
}

static void add_expert(void *ctx, struct experts *x, uint32_t expert, uint32_t rows)
{
    struct collect *c = ctx;
    const struct model_config *config = x->m->cfg;
    const struct gpu_view in[2] = {x->in, x->gate};
    const uint32_t cols[2] = {config->hidden_size, config->experts.width};
    for (int i = 0; i < 2; i++)
        tiled_col_sumsq(
            x->m->cmd,
            &(struct col_sumsq_args){.x = gpu_slice(in[i], 0, (uint64_t)rows * cols[i] * 4),
                                     .sums = gpu_slice(c->experts[i], expert * expert_stride(cols[i]), cols[i] * 4ull),
                                     .rows = rows,
                                     .cols = cols[i]});
}

static void add_second(void *ctx, const struct walk *k)
{
    struct collect *c = ctx;
    add_half(c, c->f.side[0].m, c->layer, HALF_FFN, k->n);
}

static bool take_sums(struct collect *c, const struct model *m, const char *module, struct gpu_view from, uint32_t cols,
                      double count, struct err *e)
{
    float *sums;
    return imatrix_add(c->out, module, cols, count, &sums, e) &&
           gpu_download(m->cmd, gpu_slice(from, 0, cols * 4ull), sums, cols * 4ull, e) &&
           check_finite(sums, cols, module, m->ck, e);
}

/* For each of gate, up and down all of a layer's experts: they are one tensor. */
static bool take_experts(struct collect *c, const struct model *m, uint32_t layer, struct err *e)
{
    const struct block_shape b = model_block(m, layer);
    bool ok = true;
    for (uint32_t which = 0; which < EXPERT_MATRICES; which++)
        for (uint32_t i = 0; ok && i < block_experts(b); i++) {
            const struct block_shape expert = block_expert(b, i);
            const struct block_matrix *x = &expert.matrices[which];
            bool middle = which + 1 == EXPERT_MATRICES;
            char module[96];
            block_matrix_name(m->cfg, x, layer, module, sizeof module);
            ok = take_sums(c, m, module, gpu_slice(c->experts[middle], i * expert_stride(x->cols), x->cols * 4ull),
                           x->cols, experts_tokens(&c->f.experts, i), e);
        }
    return ok;
}

/* The sums of a matrix's input, as an entry of its own. In a GGUF kv_b of latent attention is two matrices with other inputs. */
static bool take(struct collect *c, const struct model *m, uint32_t layer, const struct block_matrix *x, struct err *e)
{
    char module[96];
    if (x->part->role == ROLE_KV_B)
        return true;
    block_matrix_name(m->cfg, x, layer, module, sizeof module);
    return take_sums(c, m, module, c->sums[x->part->input], x->cols, (double)c->f.w.n * m->ctx, e);
}

/* Columns of an input of a block. */
static uint32_t input_cols(struct block_shape b, enum input in)
{
    const uint32_t cols = block_input_cols(b, HALF_ATTN, in);
    return cols ? cols : block_input_cols(b, HALF_FFN, in);
}

static uint32_t all_cols(struct block_shape b)
{
    uint32_t cols = 0;
    for (int in = 0; in < INPUT_COUNT; in++)
        cols += input_cols(b, (enum input)in);
    return cols;
}

/* What the walk's batch has given the sums. */
static bool take_batch(struct collect *c, struct block_shape b, const struct walk *k, struct err *e)
{
    bool ok = true;
    uint32_t at = 0;
    for (int in = 0; ok && in < INPUT_COUNT; in++) {
        const uint32_t cols = input_cols(b, (enum input)in);
        ok = !cols || dealt_sums_take(&c->dealt, k, c->sums[in], at, cols, e);
        at += cols;
    }
    return ok;
}

/* All batches' into the sums. */
static bool join_batches(struct collect *c, struct block_shape b, struct err *e)
{
    const uint32_t n = all_cols(b);
    float *sums = malloc(n * sizeof *sums);
    bool ok = (sums || err_nomem(e, "sums of a block", n * sizeof *sums)) && dealt_sums_end(&c->dealt, sums, e);
    for (uint32_t in = 0, at = 0; ok && in < INPUT_COUNT; in++) {
        const uint32_t cols = input_cols(b, (enum input)in);
        if (cols)
            gpu_upload(c->f.cmd, gpu_slice(c->sums[in], 0, cols * sizeof *sums), sums + at, cols * sizeof *sums);
        at += cols;
    }
    free(sums);
    return ok;
}

/* Through a block, its inputs added up. */
static bool through_block(void *ctx, struct forward *f, struct forward_side *s, uint32_t layer, struct err *e)
{
    struct collect *c = ctx;
    const struct block_shape all = model_block(s->m, layer), b = block_common(all);
    struct walk k;
    if (!forward_block(f, s, layer, &k, e))
        return false;
    for (int i = 0; i < INPUT_COUNT; i++)
        gpu_fill(f->cmd, c->sums[i], 0);
    for (int i = 0; i < 2 && block_experts(all); i++)
        gpu_fill(f->cmd, c->experts[i], 0);
    c->layer = layer;
    f->experts.seen = add_expert;
    f->experts.seen_ctx = c;
    bool ok = !k.deal || dealt_sums_begin(&c->dealt, all_cols(b), &k, e);
    while (ok && walk_next(&k, e)) {
        block_half_fwd(s->m, HALF_ATTN, &f->b, &f->s, k.x, k.x, k.n);
        add_half(c, s->m, layer, HALF_ATTN, k.n);
        forward_second_half(f, s, layer, &k, add_second, c);
        ok = !k.deal || take_batch(c, b, &k, e);
    }
    ok = forward_block_end(f, &k, ok ? e : NULL) && ok && (!k.deal || join_batches(c, b, e));
    dealt_sums_free(&c->dealt);
    for (uint32_t i = 0; ok && i < b.n; i++)
        ok = take(c, s->m, layer, &b.matrices[i], e);
    return ok && take_experts(c, s->m, layer, e);
}

/* The head reads what the final norm makes of the last block's output. */
static bool head(struct collect *c, struct err *e)
{
    struct model *m = c->f.side[0].m;
    char module[96];
    if (m->cfg->tie_word_embeddings)
        config_part_name(m->cfg, "embed_tokens", module, sizeof module);
    else
        snprintf(module, sizeof module, "%s", config_head_name(m->cfg));
    uint32_t hidden = m->cfg->hidden_size;
    struct walk k = forward_walk(&c->f, c->f.side[0].acts, "what the head reads");
    float *sums;
    return imatrix_add(c->out, module, hidden, (double)c->f.w.n * m->ctx, &sums, e) &&
           norm_squares(&k, m, c->f.scratch, sums, e) && check_finite(sums, hidden, module, m->ck, e);
}

static bool alloc_sums(struct collect *c, struct err *e)
{
    const struct model *m = c->f.side[0].m;
    bool ok = gpu_arena_create(&c->arena, m->gpu, "sums", e);
    for (int i = 0; ok && i < INPUT_COUNT; i++)
        ok = gpu_alloc(c->arena, max_u64(4, model_shape_input(&m->shape, (enum input)i) * 4ull), &c->sums[i], e);
    const uint32_t cols[2] = {m->cfg->hidden_size, m->cfg->experts.width};
    for (int i = 0; ok && i < 2 && m->cfg->experts.n; i++)
        ok = gpu_alloc(c->arena, m->cfg->experts.n * expert_stride(cols[i]), &c->experts[i], e);
    return ok;
}

static bool run(struct collect *c, struct err *e)
{
    return forward_begin(&c->f, e) && forward_models(&c->f, e) && alloc_sums(c, e) && forward_open(&c->f, e) &&
           forward_blocks(&c->f, &c->f.side[0], through_block, c, e) && head(c, e);
}

/* Of the file, at most: a matrix has a tensor of sums and one of a count. */
static uint64_t file_bytes(const struct model_config *c)
{
    enum { HEADER = 4096, NAMES = 256 }; /* of the file, and of a matrix with its padding */
    uint64_t bytes = HEADER + NAMES + c->hidden_size * 4ull;
    struct model_shape s;
    if (model_shape_make(&s, c, NULL))
        for (uint32_t i = 0; i < s.first[s.layers]; i++)
            bytes += NAMES + s.matrices[i].cols * 4ull;
    model_shape_free(&s);
    return bytes;
}

bool imatrix_lock_out(struct os_lock *lock, const char *path, const struct checkpoint *ck, const char *const *texts,
                      size_t n_texts, bool force, struct err *e)
{
    const char *const model = checkpoint_dir(ck);
    if (!out_not_input("the output", path, texts, n_texts, e) || !gguf_check_out(path, ck, force, e) ||
        !out_not_input("the output", path, &model, 1, e) ||
        !out_fits("the output", path, file_bytes(checkpoint_config(ck)), "-o", e) || !out_lock_file(lock, path, e))
        return false;
    out_tell_replaced(path, false);
    return true;
}

bool imatrix_collect(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct imatrix_options *o,
                     struct imatrix *m, struct imatrix_result *out, struct err *e)
{
    struct collect c = {.f = {.cmd = cmd,
                              .phase = "imatrix",
                              .texts = o->texts,
                              .n_texts = o->n_texts,
                              .ctx = o->ctx,
                              .at_most = o->windows,
                              .spill_dir = o->spill_dir,
                              .progress = &o->progress,
                              .side = {{.label = "", .ck = ck}},
                              .sides = 1,
                              .deal = comm_size() > 1 && !checkpoint_config(ck)->experts.n},
                        .out = m};
    *m = (struct imatrix){.config = checkpoint_config(ck)};
    bool ok = run(&c, e);
    if (ok) {
        windows_tell_short(&c.f.w, o->n_texts > 1 ? "the mixture of all texts" : o->texts[0], o->windows);
        *out = (struct imatrix_result){
            .tokens = c.f.w.tokens, .windows = c.f.w.n, .seconds = (double)(os_now_ns() - c.f.start_ns) * 1e-9};
        m->chunks = c.f.w.n;
        m->chunk_size = c.f.w.ctx;
        struct strbuf names = {0}; /* the file goes to others: no path of this machine */
        for (size_t i = 0; i < o->n_texts; i++) {
            strbuf_puts(&names, i ? " + " : "");
            strbuf_puts(&names, os_base_name(o->texts[i]));
        }
        m->dataset = names.data;
    } else {
        imatrix_free(m);
    }
    forward_close(&c.f);
    gpu_arena_destroy(&c.arena);
    return ok;
}
