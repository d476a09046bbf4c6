#include "host/eval/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/write/write_gguf.h"
#include "host/base/out_path.h"
#include "host/base/str.h"
#include "host/eval/forward.h"
#include "host/gpu/tiled.h"
#include "host/model/batch.h"

struct collect {
    struct forward f;
    struct gpu_arena *arena;
    struct gpu_view sums[INPUT_COUNT]; /* [width of the input, of the widest block] */
    struct imatrix *out;
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

/* The sums of a matrix's input, as an entry of its own. */
static bool take(struct collect *c, const struct model *m, uint32_t layer, const struct block_matrix *x, struct err *e)
{
    char module[96];
    float *sums;
    block_matrix_name(m->cfg, x, layer, module, sizeof module);
    return imatrix_add(c->out, module, x->cols, (double)c->f.w.n * m->ctx, &sums, e) &&
           gpu_download(m->cmd, gpu_slice(c->sums[x->part->input], 0, x->cols * 4ull), sums, x->cols * 4ull, e) &&
           check_finite(sums, x->cols, module, m->ck, e);
}

/* Through a block, its inputs added up. */
static bool through_block(void *ctx, struct forward *f, struct forward_side *s, uint32_t layer, struct err *e)
{
    struct collect *c = ctx;
    const struct block_shape b = model_block(s->m, layer);
    struct walk k;
    if (!forward_block(f, s, layer, &k, e))
        return false;
    for (int i = 0; i < INPUT_COUNT; i++)
        gpu_fill(f->cmd, c->sums[i], 0);
    while (walk_next(&k, e))
        for (int half = 0; half < HALF_COUNT; half++) {
            block_half_fwd(s->m, (enum block_half)half, &f->b, &f->s, k.x, k.x, k.n);
            add_half(c, s->m, layer, (enum block_half)half, k.n);
        }
    bool ok = forward_block_end(f, &k, e);
    for (uint32_t i = 0; ok && i < b.n; i++)
        ok = take(c, s->m, layer, &b.matrices[i], e);
    return ok;
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
        ok = gpu_alloc(c->arena, model_shape_input(&m->shape, (enum input)i) * 4ull, &c->sums[i], e);
    return ok;
}

/* Inputs of experts are those of their own tokens. */
static bool check_experts(const struct collect *c, struct err *e)
{
    const struct checkpoint *ck = c->f.side[0].ck;
    if (!checkpoint_config(ck)->experts.n)
        return true;
    err_set(e, ERR_USER, "gsq makes no importance matrices of models with experts, such as %s", checkpoint_dir(ck));
    return err_hint(e, "gsq quantize takes a text itself: --calib");
}

static bool run(struct collect *c, struct err *e)
{
    if (!check_experts(c, e))
        return false;
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

bool imatrix_lock_out(struct os_lock *lock, const char *path, const struct checkpoint *ck, const char *text, bool force,
                      struct err *e)
{
    const char *const inputs[] = {text, checkpoint_dir(ck)};
    if (!out_not_input("the output", path, inputs, 1, e) || !gguf_check_out(path, ck, force, e) ||
        !out_not_input("the output", path, inputs + 1, 1, e) ||
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
                              .text = o->text,
                              .ctx = o->ctx,
                              .at_most = o->windows,
                              .spill_dir = o->spill_dir,
                              .progress = &o->progress,
                              .side = {{.label = "", .ck = ck}},
                              .sides = 1},
                        .out = m};
    *m = (struct imatrix){.config = checkpoint_config(ck)};
    bool ok = run(&c, e);
    if (ok) {
        windows_tell_short(&c.f.w, o->text, o->windows);
        *out = (struct imatrix_result){
            .tokens = c.f.w.tokens, .windows = c.f.w.n, .seconds = (double)(os_now_ns() - c.f.start_ns) * 1e-9};
        m->chunks = c.f.w.n;
        m->chunk_size = c.f.w.ctx;
        m->dataset = str_dup(os_base_name(o->text)); /* the file goes to others: no path of this machine */
    } else {
        imatrix_free(m);
    }
    forward_close(&c.f);
    gpu_arena_destroy(&c.arena);
    return ok;
}
