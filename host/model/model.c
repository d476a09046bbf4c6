#include "formats/read/tensor_values.h"
#include "host/model/model.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/gpu/kernels.h"
#include "host/model/stored_embedding.h"

/* Weights go to the device in tiles of this many bytes as stored: large enough to hide a submission's cost,
 * small beside any block. 64 divides the element counts, so that every tile of the destination starts
 * aligned. */
#define STAGING_BYTES (16u << 20)
/* Host memory for rows that are dequantized or gathered. */
#define HOST_TILE_BYTES (16u << 20)
/* Views begin at multiples of this many bytes on every device. */
#define VIEW_STEP 256u

/* ---- checks before any work ---- */

/* What stands in front of "layers.0." in the names of the tensors; false: there is no such tensor. */
static bool find_prefix(const struct checkpoint *ck, char *out, size_t cap)
{
    for (size_t i = 0; i < checkpoint_tensor_count(ck); i++) {
        const char *name = checkpoint_tensor_at(ck, i)->name;
        for (const char *at = strstr(name, "layers.0."); at; at = strstr(at + 1, "layers.0.")) {
            bool whole = at == name || at[-1] == '.';
            if (!whole || strstr(name, "vision") || (size_t)(at - name) >= cap)
                continue;
            snprintf(out, cap, "%.*s", (int)(at - name), name);
            return true;
        }
    }
    return false;
}

/* A tensor that the family needs is not there. */
static bool missing(const struct checkpoint *ck, const char *module, struct err *e)
{
    const struct model_config *c = checkpoint_config(ck);
    const char *dir = checkpoint_dir(ck), *head = config_head_name(c);
    char prefix[96], embedding[64];
    config_part_name(c, "embed_tokens", embedding, sizeof embedding);
    bool other = find_prefix(ck, prefix, sizeof prefix) && strcmp(prefix, config_prefix(c)) != 0;
    if (other) {
        err_set(e, ERR_USER,
                "the tensors of %s are named %slayers.0..., with the prefix \"%s\" where gsq expects \"%s\"", dir,
                prefix, prefix, config_prefix(c));
        return err_hint(e, "%s",
                        prefix[0] && strstr(prefix, "language")
                            ? "the model reads more than text: save its language model alone, under the names of "
                              "its text architecture"
                            : "save it as a causal language model: in transformers, AutoModelForCausalLM."
                              "from_pretrained(FOLDER).save_pretrained(OTHER)");
    }
    if (!checkpoint_gguf(ck) && strcmp(module, head) == 0 && checkpoint_has_module(ck, embedding)) {
        err_set(e, ERR_USER, "%s has no %s.weight, and its config.json does not say that the head is the embedding",
                dir, head);
        return err_hint(e, "if it is, add \"tie_word_embeddings\": true to config.json; otherwise a shard is missing");
    }
    if (strcmp(module, embedding) == 0 && checkpoint_has_module(ck, head)) {
        err_set(e, ERR_USER, "%s has %s.weight, but no %s.weight", dir, head, embedding);
        return err_hint(
            e, "if they are one matrix, add \"tie_word_embeddings\": true to config.json; otherwise a shard is "
               "missing");
    }
    err_set(e, ERR_USER, "the tensor %s.weight is missing in %s", module, dir);
    return err_hint(e, "check that the folder holds the whole model (all shards that its index names)");
}

static bool check_module(const struct checkpoint *ck, const char *module, uint32_t rows, uint32_t cols, struct err *e)
{
    if (!checkpoint_has_module(ck, module))
        return missing(ck, module, e);
    struct weight_info w;
    if (!checkpoint_weight(ck, module, &w, e))
        return false;
    if (w.rows == rows && w.cols == cols)
        return true;
    err_set(e, ERR_USER,
            "%s.weight in %s is [%" PRIu32 ", %" PRIu32 "], its configuration asks for [%" PRIu32 ", %" PRIu32 "]",
            module, checkpoint_dir(ck), w.rows, w.cols, rows, cols);
    return err_hint(e, "the configuration and the weights do not belong to the same model");
}

static bool check_bias(const struct checkpoint *ck, const char *module, uint32_t rows, struct err *e)
{
    const struct tensor *t = checkpoint_bias(ck, module);
    bool real = dtype_is_float(t->dtype);
    if (real && t->n_dims == 1 && t->shape[0] == rows)
        return true;
    return err_set(e, ERR_USER, "%s in %s is not a vector of %" PRIu32 " float numbers", t->name, checkpoint_dir(ck),
                   rows);
}

/* What the forward pass has no place for is not passed over: the results would be another model's. */
static bool refuse_part(const struct model *m, const char *module, const char *part, struct err *e)
{
    err_set(e, ERR_USER, "unexpected tensor %s.%s in %s: gsq does not support it for %s", module, part,
            checkpoint_dir(m->ck), m->family->architecture);
    return err_hint(e, "ignoring it would change the model's output, so gsq does not run this model");
}

static bool check_no_bias(const struct model *m, const char *module, struct err *e)
{
    return !checkpoint_bias(m->ck, module) || refuse_part(m, module, "bias", e);
}

static bool check_norm(const struct model *m, const struct block_part *p, const char *name, struct err *e)
{
    return check_module(m->ck, name, 1, block_part_cols(p, m->cfg), e) && check_no_bias(m, name, e);
}

static bool check_matrix(struct model *m, const struct block_matrix *x, const char *name, struct err *e)
{
    if (!check_module(m->ck, name, x->rows, x->cols, e))
        return false;
    if (!checkpoint_bias(m->ck, name))
        return true;
    if (x->part->of & PARTS_MLA)
        return check_no_bias(m, name, e);
    bool added = x->part->role == ROLE_O || x->part->role == ROLE_DOWN;
    if (added && config_factor(m->cfg->residual_scale) != 1) /* the product alone is scaled */
        return refuse_part(m, name, "bias", e);
    m->has_bias[x->part->role] = true;
    return check_bias(m->ck, name, x->rows, e);
}

/* A vector that is called so, whole. */
static bool check_vector(const struct model *m, const char *name, uint32_t n, struct err *e)
{
    const struct tensor *t = checkpoint_tensor_find(m->ck, name);
    if (t && t->n_dims == 1 && t->shape[0] == n && dtype_is_float(t->dtype))
        return true;
    err_set(e, ERR_USER, "%s of %s is %s %" PRIu32 " numbers", name, checkpoint_dir(m->ck),
            t ? "not a vector of" : "missing: a vector of", n);
    return err_hint(e, "check that the folder holds the whole model (all shards that its index names)");
}

static bool check_part(struct model *m, uint32_t layer, const struct block_part *p, struct err *e)
{
    uint32_t rows = block_part_rows(p, m->cfg), cols = block_part_cols(p, m->cfg);
    char name[96];
    block_part_name(m->cfg, p, layer, 0, name, sizeof name);
    switch (p->kind) {
    case PART_NORM:
        return check_norm(m, p, name, e);
    case PART_ROUTER:
        return check_module(m->ck, name, rows, cols, e) &&
               (m->family->parts & PARTS_GPT_OSS || check_no_bias(m, name, e));
    case PART_VECTOR:
        return check_vector(m, name, cols, e);
    case PART_MATRIX:
        break;
    }
    return true;
}

/* Rows of one matrix that are several to the passes: each part must begin where a view may. */
static bool check_fused(const struct model *m, uint32_t layer, struct err *e)
{
    static const enum role inner[] = {ROLE_K, ROLE_V, ROLE_UP};
    const struct block_shape b = model_block(m, layer);
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        struct block_rows_at x = block_rows_at(b, m->cfg, inner[i]);
        bool bias = x.row0 && m->has_bias[b.matrices[x.at].part->role];
        uint64_t step = VIEW_STEP / sizeof(float);
        if (x.row0 * (uint64_t)x.cols % step == 0 && (!bias || x.row0 % step == 0))
            continue;
        err_set(e, ERR_USER,
                "%s: row %" PRIu32 " of %s, the first of another part of it, is not at a multiple of %u bytes",
                checkpoint_dir(m->ck), x.row0, b.matrices[x.at].part->hf, VIEW_STEP);
        return err_hint(e, "gsq reads such matrices where heads or widths are multiples of 64");
    }
    return true;
}

static bool check_layer(struct model *m, uint32_t layer, struct err *e)
{
    const struct block_shape b = model_block(m, layer);
    const struct block_part *p;
    char name[96];
    for (uint32_t i = 0; (p = block_part_in(m->cfg, layer, i)); i++)
        if (!check_part(m, layer, p, e))
            return false;
    for (uint32_t i = 0; i < b.n; i++) {
        const struct block_matrix *x = &b.matrices[i];
        block_matrix_name(m->cfg, x, layer, name, sizeof name);
        if (!check_matrix(m, x, name, e) ||
            (block_part_is_expert(x->part) && !(m->family->parts & PARTS_GPT_OSS) && !check_no_bias(m, name, e)))
            return false;
    }
    for (size_t i = 0; (p = block_part_at(i)); i++) {
        block_part_name(m->cfg, p, layer, 0, name, sizeof name);
        bool named = family_has(m->family, p) || !block_part_named(m->family, p->hf, strlen(p->hf), NULL);
        if (!block_has(m->cfg, m->family, layer, p) && named && checkpoint_has_module(m->ck, name))
            return refuse_part(m, name, "weight", e);
    }
    return check_fused(m, layer, e);
}

/* Columns of the widest matrix of attention. */
static uint64_t attn_width(const struct model *m)
{
    const struct mla_config *x = &m->cfg->mla;
    uint64_t heads = m->cfg->num_heads;
    if (x->kv_rank)
        return heads * max_u64(m->cfg->head_dim, x->nope + x->values);
    return max_u64(model_shape_rows(&m->shape, m->cfg, ROLE_Q),
                   max_u64(model_shape_rows(&m->shape, m->cfg, ROLE_Q_GATE),
                           model_shape_rows(&m->shape, m->cfg, ROLE_DELTA_MIXED)));
}

/* A CPU device ends the loops of a kernel without a word after so many turns (docs/kernels.md); a position takes a few. */
#define DELTA_CTX_CPU 8192u

static bool check_delta(const struct model *m, struct err *e)
{
    const struct delta_config *x = &m->cfg->delta;
    if (x->key_dim > DELTA_DIM_MAX)
        return err_set(e, ERR_USER, "config.json: linear_key_head_dim is %" PRIu32 ", at most %u is supported",
                       x->key_dim, DELTA_DIM_MAX);
    if (!x->value_heads || !m->gpu || !(gpu_info(m->gpu)->caps & GPU_CAP_CPU) || m->ctx <= DELTA_CTX_CPU)
        return true;
    err_set(e, ERR_USER, "windows of %" PRIu32 " tokens are too long for the gated delta rule on a CPU device", m->ctx);
    return err_hint(e, "use --ctx %u or less", DELTA_CTX_CPU);
}

/* Rows of kv_a are two parts to the passes: the second must begin where a view may. */
static bool check_latent(const struct model *m, struct err *e)
{
    const struct model_config *c = m->cfg;
    if ((uint64_t)c->mla.kv_rank * c->hidden_size % (VIEW_STEP / sizeof(float)) == 0)
        return true;
    err_set(e, ERR_USER,
            "config.json: %" PRIu32 " rows (kv_lora_rank) of %" PRIu32 " numbers are no multiple of %u bytes",
            c->mla.kv_rank, c->hidden_size, VIEW_STEP);
    return err_hint(e, "gsq reads such models where kv_lora_rank or hidden_size is a multiple of 64");
}

static bool check_config(struct model *m, struct err *e)
{
    const struct model_config *c = m->cfg;
    if (c->num_kv_heads == 0 || c->num_heads % c->num_kv_heads)
        return err_set(e, ERR_USER, "config.json: %" PRIu32 " heads cannot share %" PRIu32 " key-value heads",
                       c->num_heads, c->num_kv_heads);
    if (c->head_dim % 2 || c->head_dim > HEAD_DIM_MAX)
        return err_set(e, ERR_USER, "config.json: head_dim is %" PRIu32 ", an even number up to %u is supported",
                       c->head_dim, HEAD_DIM_MAX);
    if (!check_latent(m, e) || !check_delta(m, e))
        return false;
    if (m->ctx < 2)
        return err_set(e, ERR_USER, "a window has at least 2 tokens, not %" PRIu32, m->ctx);
    uint64_t widest = c->hidden_size, queries = attn_width(m);
    for (int in = 0; in < INPUT_COUNT; in++)
        widest = max_u64(widest, model_shape_input(&m->shape, (enum input)in));
    if (widest * 4 > HOST_TILE_BYTES)
        return err_set(e, ERR_USER, "a matrix row of %" PRIu64 " numbers is more than gsq handles", widest);
    /* Attention reads one window of q as one bound view. */
    uint64_t window = m->ctx * queries * 4;
    uint64_t limit = m->gpu ? gpu_info(m->gpu)->max_range : UINT64_MAX;
    if (window > limit) {
        err_set(e, ERR_USER,
                "a window of %" PRIu32 " tokens is too long for this device: its queries take %" PRIu64
                " bytes, one binding holds %" PRIu64,
                m->ctx, window, limit);
        return err_hint(e, "use --ctx %" PRIu64 " or less", limit / (queries * 4));
    }
    if (c->max_position && m->ctx > c->max_position)
        log_warn("windows of %" PRIu32 " tokens are longer than the %" PRIu32 " positions this model was made for",
                 m->ctx, c->max_position);
    return true;
}

static bool check_tensors(struct model *m, struct err *e)
{
    const struct model_config *c = m->cfg;
    char norm[64];
    config_part_name(c, "norm", norm, sizeof norm);
    if (!check_module(m->ck, checkpoint_embedding_module(m->ck), c->vocab_size, c->hidden_size, e) ||
        !check_module(m->ck, checkpoint_head_module(m->ck), c->vocab_size, c->hidden_size, e) ||
        !check_module(m->ck, norm, 1, c->hidden_size, e) || !check_no_bias(m, checkpoint_head_module(m->ck), e) ||
        !check_no_bias(m, norm, e))
        return false;
    for (uint32_t layer = 0; layer < c->num_layers; layer++) {
        if (!check_layer(m, layer, e))
            return false;
    }
    return true;
}

/* ---- rotary embedding ---- */

/* What queries at position p are multiplied by. */
static double query_growth(const struct model_config *c, uint32_t p)
{
    return 1 + c->query_growth * log(1 + floor(p / (double)c->rope_original_context));
}

/* [ctx, rope_dim / 2, 2]: cos and sin, times scale, which q and k each have: scores grow by its square. grown: times query_growth
 * too. */
static bool make_rope_table(struct model *m, double (*frequency)(const struct model_config *c, uint32_t pair),
                            double scale, bool grown, struct gpu_view *out, struct err *e)
{
    uint32_t half = config_rope_dim(m->cfg) / 2;
    uint64_t bytes = (uint64_t)m->ctx * half * 2 * sizeof(float);
    float *table = malloc((size_t)bytes);
    if (!table)
        return err_nomem(e, "the RoPE table", bytes);
    for (uint32_t i = 0; i < half; i++) {
        double f = frequency(m->cfg, i);
        for (uint32_t p = 0; p < m->ctx; p++) {
            float *pair = table + ((size_t)p * half + i) * 2;
            double by = grown ? scale * query_growth(m->cfg, p) : scale;
            pair[0] = (float)(by * cos(p * f));
            pair[1] = (float)(by * sin(p * f));
        }
    }
    bool ok = gpu_alloc(m->arena, bytes, out, e);
    if (ok)
        gpu_upload(m->cmd, *out, table, bytes);
    free(table);
    return ok;
}

static bool make_rope_tables(struct model *m, struct err *e)
{
    bool behind = m->ctx > m->cfg->rope_original_context, longer = m->cfg->rope_factors_long && behind;
    double (*frequency)(const struct model_config *c, uint32_t pair) = longer ? rope_long_frequency : rope_frequency;
    double scale = rope_attention(m->cfg);
    bool grown = m->cfg->query_growth > 0 && m->cfg->rope_original_context && behind;
    return make_rope_table(m, frequency, scale, false, &m->rope_table, e) &&
           (!grown || make_rope_table(m, frequency, scale, true, &m->rope_grown, e)) &&
           (m->cfg->rope_local_theta <= 0 || make_rope_table(m, rope_local_frequency, 1, false, &m->rope_local, e));
}

static bool load_norm(struct model *m, const char *module, struct gpu_view dst, struct err *e);

/* ---- open and close ---- */

/* cmd NULL: no device. */
static bool describe(struct model **out, struct gpu_cmd *cmd, const struct checkpoint *ck, uint32_t ctx, struct err *e)
{
    struct model *m = *out = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, "the model", sizeof *m);
    m->gpu = cmd ? gpu_cmd_gpu(cmd) : NULL;
    m->cmd = cmd;
    m->ck = ck;
    m->cfg = checkpoint_config(ck);
    m->ctx = ctx;
    m->family = family_find(m->cfg, e);
    bool ok = m->family && model_shape_make(&m->shape, m->cfg, e);
    ok = ok && check_config(m, e) && check_tensors(m, e);
    if (!ok)
        model_close(out);
    return ok;
}

bool model_describe(struct model **out, const struct checkpoint *ck, uint32_t ctx, struct err *e)
{
    return describe(out, NULL, ck, ctx, e);
}

bool model_open(struct model **out, struct gpu_cmd *cmd, const struct checkpoint *ck, uint32_t ctx, struct err *e)
{
    if (!describe(out, cmd, ck, ctx, e))
        return false;
    struct model *m = *out;
    char norm[64];
    config_part_name(m->cfg, "norm", norm, sizeof norm);
    m->host_tile = malloc(HOST_TILE_BYTES);
    bool ok = m->host_tile || err_nomem(e, "a tile of weights", HOST_TILE_BYTES);
    ok = ok && gpu_arena_create(&m->arena, m->gpu, "model", e) &&
         gpu_alloc(m->arena, min_u64(STAGING_BYTES, gpu_info(m->gpu)->max_alloc), &m->staging, e) &&
         make_rope_tables(m, e) && gpu_alloc(m->arena, m->cfg->hidden_size * sizeof(float), &m->final_norm, e) &&
         load_norm(m, norm, m->final_norm, e);
    if (!ok)
        model_close(out);
    return ok;
}

void model_close(struct model **m)
{
    if (!*m)
        return;
    /* Uploads may still be under way into the arena. */
    if ((*m)->arena)
        gpu_cmd_finish((*m)->cmd, NULL);
    gpu_arena_destroy(&(*m)->arena);
    free((*m)->host_tile);
    model_shape_free(&(*m)->shape);
    free(*m);
    *m = NULL;
}

/* ---- weights to the device ---- */

static void unpack(struct model *m, struct gpu_view src, struct gpu_view dst, uint64_t n, bool bf16)
{
    run_unpack16(m->cmd, gpu_items(m->cmd, KERNEL_ID_unpack16, div_up(n, 2)),
                 &(struct unpack16_args){.src = gpu_slice(src, 0, div_up(n, 2) * 4),
                                         .dst = dst,
                                         .n = (uint32_t)n,
                                         .kind = bf16 ? HALVES_BF16 : HALVES_F16});
}

/* n packed 16-bit numbers at src (any alignment) -> dst f32, through the staging area. */
static void upload_16(struct model *m, const uint8_t *src, uint64_t n, bool bf16, struct gpu_view dst)
{
    const uint64_t tile = m->staging.size / 2;
    for (uint64_t i = 0; i < n; i += tile) {
        uint64_t count = min_u64(tile, n - i), even = count / 2 * 4;
        const uint8_t *p = src + i * 2;
        if (even)
            gpu_upload(m->cmd, gpu_slice(m->staging, 0, even), p, even);
        if (count % 2) {
            /* Transfers are whole words, and the file may end after this number. */
            uint8_t last[4] = {p[even], p[even + 1]};
            gpu_upload(m->cmd, gpu_slice(m->staging, even, 4), last, 4);
        }
        unpack(m, m->staging, gpu_slice(dst, i * 4, count * 4), count, bf16);
    }
}

bool model_load_matrix(struct model *m, const char *module, uint32_t row0, uint32_t rows, struct gpu_view dst,
                       struct err *e)
{
    struct weight_info w;
    if (!checkpoint_weight(m->ck, module, &w, e))
        return false;
    if ((uint64_t)row0 + rows > w.rows || dst.size < (uint64_t)rows * w.cols * 4)
        return err_set(e, ERR_BUG, "%s: rows %" PRIu32 "+%" PRIu32 " of %" PRIu32 " do not fit", module, row0, rows,
                       w.rows);
    if (gpu_cmd_counts(m->cmd)) /* nothing would take them */
        return true;
    uint64_t first = (uint64_t)row0 * w.cols, n = (uint64_t)rows * w.cols;
    const struct tensor *t = checkpoint_dense(m->ck, module);
    if (t && dtype_is_half(t->dtype)) {
        upload_16(m, t->data + first * 2, n, t->dtype == DTYPE_BF16, dst);
    } else if (t && t->dtype == DTYPE_F32) {
        gpu_upload(m->cmd, gpu_slice(dst, 0, n * 4), t->data + first * 4, n * 4);
    } else {
        uint32_t tile = (uint32_t)max_u64(1, HOST_TILE_BYTES / (w.cols * 4ull));
        for (uint32_t r = 0; r < rows; r += tile) {
            uint32_t count = (uint32_t)min_u64(tile, rows - r);
            if (!checkpoint_read_f32(m->ck, module, row0 + r, count, m->host_tile, e))
                return false;
            gpu_upload(m->cmd, gpu_slice(dst, (uint64_t)r * w.cols * 4, (uint64_t)count * w.cols * 4), m->host_tile,
                       (uint64_t)count * w.cols * 4);
        }
    }
    if (row0 + rows == w.rows)
        checkpoint_drop_module(m->ck, module);
    return true;
}

bool model_halves(const struct model *m, const char *module, uint32_t *kind)
{
    const struct tensor *t = checkpoint_dense(m->ck, module);
    *kind = t && t->dtype == DTYPE_BF16 ? HALVES_BF16 : HALVES_F16;
    return t && dtype_is_half(t->dtype);
}

bool model_load_halves(struct model *m, const char *module, struct gpu_view dst, struct err *e)
{
    struct weight_info w;
    const struct tensor *t = checkpoint_dense(m->ck, module);
    if (!checkpoint_weight(m->ck, module, &w, e))
        return false;
    uint64_t bytes = (uint64_t)w.rows * w.cols * 2;
    if (!t || bytes % 4 || dst.size < bytes)
        return err_set(e, ERR_BUG, "%s is not kept in 16 bits", module);
    if (gpu_cmd_counts(m->cmd)) /* nothing would take them */
        return true;
    gpu_upload(m->cmd, gpu_slice(dst, 0, bytes), t->data, bytes);
    checkpoint_drop_module(m->ck, module);
    return true;
}

bool model_load_bias(struct model *m, const char *module, uint32_t rows, struct gpu_view dst, struct err *e)
{
    const struct tensor *t = checkpoint_bias(m->ck, module);
    if (!t) {
        gpu_fill(m->cmd, dst, 0); /* other blocks have it */
        return true;
    }
    if (gpu_cmd_counts(m->cmd)) /* nothing would take it */
        return true;
    if (!tensor_read_f32(t, 0, rows, m->host_tile, e))
        return false;
    gpu_upload(m->cmd, gpu_slice(dst, 0, rows * 4ull), m->host_tile, rows * 4ull);
    return true;
}

uint64_t model_head_bytes(const struct model *m)
{
    return (uint64_t)m->cfg->vocab_size * m->cfg->hidden_size * 4;
}

/* A norm's weights; where the family multiplies by 1 + w, that sum. */
static bool load_norm(struct model *m, const char *module, struct gpu_view dst, struct err *e)
{
    uint32_t n = (uint32_t)(dst.size / 4);
    float *w = m->host_tile;
    if (!family_adds_one(m->family, module))
        return model_load_matrix(m, module, 0, 1, dst, e);
    if (gpu_cmd_counts(m->cmd)) /* nothing would take them */
        return true;
    if (!checkpoint_read_f32(m->ck, module, 0, 1, w, e))
        return false;
    for (uint32_t i = 0; i < n; i++)
        w[i] += 1;
    gpu_upload(m->cmd, dst, w, dst.size);
    return true;
}

/* A vector that is called so. Of A_log what states are multiplied by at each position follows: exp(-exp(A_log) ...). */
static bool load_vector(struct model *m, const struct block_part *p, const char *name, struct gpu_view dst,
                        struct err *e)
{
    const struct tensor *t = checkpoint_tensor_find(m->ck, name);
    uint32_t n = (uint32_t)(dst.size / 4);
    float *v = m->host_tile;
    if (gpu_cmd_counts(m->cmd)) /* nothing would take them */
        return true;
    if (!t || !tensor_read_f32(t, 0, n, v, e))
        return t ? false : err_set(e, ERR_BUG, "%s is gone", name);
    for (uint32_t i = 0; p->role == ROLE_DELTA_RATE && i < n; i++)
        v[i] = (float)-exp((double)v[i]);
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(v[i])) {
            err_set(e, ERR_USER, "%s of %s holds what is no number", name, checkpoint_dir(m->ck));
            return err_hint(e, "that model is damaged or its training diverged: download it again");
        }
    gpu_upload(m->cmd, dst, v, dst.size);
    return true;
}

/* ---- a block ---- */

/* What is on the device, by role: all but what is quantized, and what the host reads. */
static bool is_fixed(const struct block_part *p)
{
    return p->kind != PART_MATRIX && p->role != ROLE_ROUTER_BIAS;
}

bool block_weights_create(struct block_weights *out, const struct model *m, uint32_t layer, struct block_shape shape,
                          struct gpu_arena *arena, struct err *e)
{
    const uint32_t window = m->family->sliding_window ? config_window(m->cfg, layer) : 0;
    const struct block_part *p;
    bool ok = true;
    block_weights_free(out);
    out->shape = shape;
    out->sliding = window < m->ctx ? window : 0;
    if (config_has_rope(m->cfg, layer))
        out->rope = config_rope_is_local(m->cfg, layer) ? m->rope_local : m->rope_table;
    out->rope_q = out->rope.size && m->rope_grown.size ? m->rope_grown : out->rope;
    out->w = calloc(shape.n + 1u, sizeof *out->w);
    out->bias = calloc(shape.n + 1u, sizeof *out->bias);
    if (!out->w || !out->bias)
        return err_nomem(e, "the list of a block's weights", shape.n * sizeof *out->w);
    for (uint32_t i = 0; ok && (p = block_part_in(m->cfg, layer, i)); i++)
        if (is_fixed(p))
            ok = gpu_alloc(arena, (uint64_t)block_part_rows(p, m->cfg) * block_part_cols(p, m->cfg) * 4,
                           &out->fixed[p->role], e);
    for (uint32_t i = 0; ok && i < shape.n; i++) {
        const struct block_matrix *x = &shape.matrices[i];
        ok = gpu_alloc(arena, (uint64_t)x->rows * x->cols * 4, &out->w[i], e) &&
             (x->part->role != ROLE_K_B ||
              gpu_alloc(arena, (uint64_t)block_part_rows(block_part_of(ROLE_KV_B), m->cfg) * m->cfg->mla.kv_rank * 4,
                        &out->fixed[ROLE_KV_B], e)) &&
             (!m->has_bias[x->part->role] || gpu_alloc(arena, x->rows * 4ull, &out->bias[i], e));
    }
    return ok;
}

void block_weights_free(struct block_weights *w)
{
    free(w->w);
    free(w->bias);
    *w = (struct block_weights){0};
}

bool model_load_block_frame(struct model *m, uint32_t layer, struct gpu_arena *arena, struct block_weights *out,
                            struct err *e)
{
    bool ok = block_weights_create(out, m, layer, block_common(model_block(m, layer)), arena, e);
    for (int half = 0; ok && half <= HALF_EXPERTS; half++)
        ok = model_load_half_frame(m, layer, (enum block_half)half, out, e);
    return ok;
}

bool model_load_half_frame(struct model *m, uint32_t layer, enum block_half half, struct block_weights *out,
                           struct err *e)
{
    const struct block_shape b = out->shape;
    const struct block_part *p;
    char name[96];
    bool ok = true;
    for (uint32_t i = 0; ok && (p = block_part_in(m->cfg, layer, i)); i++) {
        if (!is_fixed(p) || p->half != half)
            continue;
        block_part_name(m->cfg, p, layer, 0, name, sizeof name);
        ok = p->kind == PART_NORM ? load_norm(m, name, out->fixed[p->role], e)
             : p->kind == PART_VECTOR
                 ? load_vector(m, p, name, out->fixed[p->role], e)
                 : model_load_matrix(m, name, 0, block_part_rows(p, m->cfg), out->fixed[p->role], e);
    }
    for (uint32_t i = 0; ok && i < b.n; i++)
        if (out->bias[i].size && b.matrices[i].part->half == half) {
            block_matrix_name(m->cfg, &b.matrices[i], layer, name, sizeof name);
            ok = model_load_bias(m, name, b.matrices[i].rows, out->bias[i], e);
        }
    return ok;
}

/* A matrix that was read ahead: the device takes it from the host's memory. */
static void load_ahead(struct model *m, const struct tensor *t, struct gpu_view src, struct gpu_view dst)
{
    if (!t || !dtype_is_half(t->dtype)) {
        gpu_copy(m->cmd, dst, src, dst.size);
        return;
    }
    const uint64_t tile = STAGING_BYTES / 2, n = dst.size / 4;
    for (uint64_t i = 0; i < n; i += tile) {
        uint64_t count = min_u64(tile, n - i);
        unpack(m, gpu_slice(src, i * 2, div_up(count, 2) * 4), gpu_slice(dst, i * 4, count * 4), count,
               t->dtype == DTYPE_BF16);
    }
}

bool model_load_block(struct model *m, uint32_t layer, struct gpu_arena *arena, struct block_weights *out,
                      struct err *e)
{
    bool ahead = m->ahead && block_ahead_has(m->ahead, layer) && !gpu_cmd_counts(m->cmd);
    bool ok = model_load_block_frame(m, layer, arena, out, e) && (!ahead || block_ahead_wait(m->ahead, e));
    for (uint32_t i = 0; ok && i < out->shape.n; i++) {
        const struct block_matrix *x = &out->shape.matrices[i];
        char name[96];
        block_matrix_name(m->cfg, x, layer, name, sizeof name);
        if (ahead)
            load_ahead(m, checkpoint_dense(m->ck, name), m->ahead->w[i], out->w[i]);
        else
            ok = model_load_matrix(m, name, 0, x->rows, out->w[i], e);
    }
    return ok;
}

/* ---- NaN and infinity ---- */

static bool check_finite(const struct model *m, const char *module, struct checkpoint_sums *sums, struct err *e)
{
    bool ok = checkpoint_check_finite(m->ck, module, e);
    if (ok && sums)
        checkpoint_sum_module(sums, module);
    checkpoint_drop_module(m->ck, module);
    return ok;
}

static bool check_finite_layer(const struct model *m, uint32_t layer, struct checkpoint_sums *sums, struct err *e)
{
    const struct block_shape b = model_block(m, layer);
    const struct block_part *p;
    char name[96];
    for (uint32_t i = 0; (p = block_part_in(m->cfg, layer, i)); i++)
        if (p->kind != PART_MATRIX &&
            !check_finite(m, block_part_name(m->cfg, p, layer, 0, name, sizeof name), sums, e))
            return false;
    for (uint32_t i = 0; i < b.n; i++)
        if (!check_finite(m, block_matrix_name(m->cfg, &b.matrices[i], layer, name, sizeof name), sums, e))
            return false;
    return true;
}

struct block_shape model_block(const struct model *m, uint32_t layer)
{
    return model_shape_of(&m->shape, layer);
}

double model_block_products(const struct model *m, uint32_t layer)
{
    const struct block_shape b = block_common(model_block(m, layer));
    double n = model_expert_products(m, layer);
    for (uint32_t i = 0; i < b.n; i++)
        n += (double)b.matrices[i].rows * b.matrices[i].cols;
    return n;
}

double model_expert_products(const struct model *m, uint32_t layer)
{
    const struct expert_config *x = &m->cfg->experts;
    return config_has_experts(m->cfg, layer) ? (double)x->used * EXPERT_MATRICES * x->width * m->cfg->hidden_size : 0;
}

bool model_check_finite(const struct model *m, struct checkpoint_sums *sums, bool (*fn)(void *ctx, double done),
                        void *ctx, struct err *e)
{
    const char *embed = checkpoint_embedding_module(m->ck), *head = checkpoint_head_module(m->ck);
    uint32_t layers = m->cfg->num_layers;
    char norm[64];
    config_part_name(m->cfg, "norm", norm, sizeof norm);
    if (!check_finite(m, embed, sums, e) || (strcmp(embed, head) != 0 && !check_finite(m, head, sums, e)) ||
        !check_finite(m, norm, sums, e))
        return false;
    for (uint32_t layer = 0; layer < layers; layer++) {
        if (fn && !fn(ctx, (layer + 1.0) / (layers + 1.0)))
            return err_set(e, ERR_STOPPED, "stopped");
        if (!check_finite_layer(m, layer, sums, e))
            return false;
    }
    if (sums)
        checkpoint_sum_rest(sums);
    return true;
}

/* ---- embedding ---- */

/* Rows of ids, as they are in the model (t) or as f32, into the host tile. */
static bool gather_rows(struct model *m, const char *module, const struct tensor *t,
                        const struct stored_embedding *stored, const uint32_t *ids, size_t n, struct err *e)
{
    uint32_t hidden = m->cfg->hidden_size;
    size_t row = hidden * (t ? dtype_size(t->dtype) : sizeof(float));
    for (size_t i = 0; i < n; i++) {
        uint8_t *dst = (uint8_t *)m->host_tile + i * row;
        if (ids[i] >= m->cfg->vocab_size)
            return err_set(e, ERR_USER, "the token %" PRIu32 " is outside the vocabulary of %" PRIu32, ids[i],
                           m->cfg->vocab_size);
        if (t)
            memcpy(dst, t->data + (uint64_t)ids[i] * row, row);
        else if (stored)
            stored_embedding_row(stored, ids[i], (float *)(void *)dst);
        else if (!checkpoint_read_f32(m->ck, module, ids[i], 1, (float *)(void *)dst, e))
            return false;
    }
    return true;
}

bool model_embed(struct model *m, const uint32_t *ids, size_t n, const struct stored_embedding *stored,
                 struct gpu_view dst, struct err *e)
{
    const char *module = checkpoint_embedding_module(m->ck);
    const struct tensor *t = checkpoint_dense(m->ck, module);
    const float scale = (float)config_factor(m->cfg->embedding_scale);
    if ((t && !dtype_is_float(t->dtype)) || scale != 1 || stored)
        t = NULL; /* as f32, which the host can scale */
    uint32_t hidden = m->cfg->hidden_size;
    assert(dst.size >= (uint64_t)n * hidden * 4);
    size_t tile = HOST_TILE_BYTES / (hidden * sizeof(float)); /* also what the staging area holds */
    if (tile >= 64)
        tile = tile / 64 * 64; /* destinations stay aligned */
    for (size_t i = 0; i < n; i += tile) {
        size_t count = n - i < tile ? n - i : tile;
        if (!gather_rows(m, module, t, stored, ids + i, count, e))
            return false;
        for (size_t k = 0; scale != 1 && k < count * hidden; k++)
            ((float *)m->host_tile)[k] *= scale;
        struct gpu_view part = gpu_slice(dst, (uint64_t)i * hidden * 4, (uint64_t)count * hidden * 4);
        if (t && t->dtype != DTYPE_F32)
            upload_16(m, m->host_tile, (uint64_t)count * hidden, t->dtype == DTYPE_BF16, part);
        else
            gpu_upload(m->cmd, part, m->host_tile, part.size);
    }
    return true;
}
