/* Tiny random models of every family, as folders and as numbers for the reference. */
#ifndef TESTS_FAMILY_MODEL_H
#define TESTS_FAMILY_MODEL_H

#include "formats/read/tensor_values.h"
#include "tests/tiny_model.h"

#include "host/model/model.h"
#include "tests/ref/ref_model.h"

/* Norms of a block: of its input and of what it adds, of attention, then of the feed-forward half; NULL: none. */
enum norms { NORMS_PRE, NORMS_POST, NORMS_GEMMA, NORMS_GLM };
static const char *const norm_names[][4] = {
    [NORMS_PRE] = {"input_layernorm", NULL, "post_attention_layernorm", NULL},
    [NORMS_GEMMA] = {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                     "post_feedforward_layernorm"},
    [NORMS_GLM] = {"input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"},
    [NORMS_POST] = {NULL, "post_attention_layernorm", NULL, "post_feedforward_layernorm"},
};

struct shape {
    const char *name, *architecture, *model_type;
    struct ref_config c;
    uint32_t layers;
    uint32_t wide; /* intermediate size of the last block, where it is another; config.json does not say so */
    uint32_t full; /* of the first layers, how many see all positions though the model slides */
    unsigned bias; /* bit per linear, by the reference's numbers */
    bool qk_norm;
    bool whole_norm;          /* over all heads */
    bool fused_qkv, fused_up; /* q, k and v, gate and up are one matrix */
    uint32_t delta_step;      /* all blocks but each of so many have the gated delta rule; 0: none has */
    enum norms norms;
    uint32_t rope_step; /* every so many layers one is without RoPE; 0: none is */
    const char *more;   /* members of config.json, with a comma in front */
    enum tied tied;
    enum dtype dtype;
    unsigned shards; /* 0: one file at an odd address */
};

static const double phi3_factors[] = {1, 1.25, 1.5, 3};

/* Odd sizes make 16-bit tensors of an odd number of elements; head_dim is never hidden / heads. */
static const struct shape shapes[] = {
    {"llama2",
     "LlamaForCausalLM",
     "llama",
     {.hidden = 40,
      .intermediate = 72,
      .heads = 4,
      .kv_heads = 4,
      .head_dim = 8,
      .vocab = 257,
      .eps = 1e-5,
      .rope_theta = 1e4},
     .layers = 2,
     .tied = TIED_EMBED,
     .dtype = DTYPE_F32,
     .shards = 1},
    {"llama3.1",
     "LlamaForCausalLM",
     "llama",
     {.hidden = 44,
      .intermediate = 64,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 24,
      .vocab = 258,
      .eps = 1e-6,
      .rope_theta = 5e2,
      .llama3 = {8, 1, 4, 16}},
     .layers = 3,
     .tied = UNTIED,
     .dtype = DTYPE_F16,
     .shards = 3},
    {"llama-bias",
     "LlamaForCausalLM",
     "llama",
     {.hidden = 37,
      .intermediate = 51,
      .heads = 3,
      .kv_heads = 3,
      .head_dim = 14,
      .vocab = 259,
      .eps = 1e-5,
      .rope_theta = 1e4},
     .layers = 2,
     .bias = 0x7f,
     .tied = UNTIED,
     .dtype = DTYPE_F16,
     .shards = 0},
    {"mistral",
     "MistralForCausalLM",
     "mistral",
     {.hidden = 40,
      .intermediate = 56,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 260,
      .sliding = 7,
      .eps = 1e-5,
      .rope_theta = 1e4},
     .layers = 2,
     .tied = UNTIED,
     .dtype = DTYPE_BF16,
     .shards = 2},
    {"qwen2",
     "Qwen2ForCausalLM",
     "qwen2",
     {.hidden = 39,
      .intermediate = 48,
      .heads = 4,
      .kv_heads = 1,
      .head_dim = 12,
      .vocab = 261,
      .eps = 1e-6,
      .rope_theta = 1e6},
     .layers = 2,
     .bias = 0x07,
     .tied = TIED_HEAD,
     .dtype = DTYPE_BF16,
     .shards = 1},
    {"qwen3",
     "Qwen3ForCausalLM",
     "qwen3",
     {.hidden = 40,
      .intermediate = 64,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 32,
      .vocab = 262,
      .eps = 1e-6,
      .rope_theta = 1e4,
      .rope_linear = 4},
     .layers = 2,
     .qk_norm = true,
     .tied = TIED_BOTH,
     .dtype = DTYPE_BF16,
     .shards = 1},
    {"qwen3-windows",
     "Qwen3ForCausalLM",
     "qwen3",
     {.hidden = 40,
      .intermediate = 48,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 24,
      .vocab = 263,
      .sliding = 5,
      .eps = 1e-6,
      .rope_theta = 5e2,
      .yarn = {4, 64, 32, 1, 0}},
     .layers = 2,
     .full = 1,
     .qk_norm = true,
     .tied = UNTIED,
     .dtype = DTYPE_F16,
     .shards = 1},
    {"llama-yarn",
     "LlamaForCausalLM",
     "llama",
     {.hidden = 36,
      .intermediate = 40,
      .heads = 2,
      .kv_heads = 2,
      .head_dim = 20,
      .vocab = 264,
      .eps = 1e-5,
      .rope_theta = 1e3,
      .yarn = {8, 128, 4, 0.5, 1.25}},
     .layers = 2,
     .tied = TIED_EMBED,
     .dtype = DTYPE_F32,
     .shards = 1},
    {"smollm3",
     "SmolLM3ForCausalLM",
     "smollm3",
     {.hidden = 40,
      .intermediate = 72,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 10,
      .vocab = 257,
      .eps = 1e-6,
      .rope_theta = 1e4},
     .layers = 3,
     .full = 1,
     .rope_step = 2,
     .more = ", \"no_rope_layer_interval\": 2",
     .tied = TIED_EMBED,
     .dtype = DTYPE_BF16,
     .shards = 1},
    {"granite",
     "GraniteForCausalLM",
     "granite",
     {.hidden = 40,
      .intermediate = 56,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 12,
      .vocab = 258,
      .eps = 1e-5,
      .rope_theta = 1e4,
      .embedding_scale = 3,
      .attention_scale = 0.125,
      .residual_scale = 0.375,
      .logit_divisor = 2.5},
     .layers = 2,
     .bias = 0x07,
     .more = ", \"embedding_multiplier\": 3, \"attention_multiplier\": 0.125, \"residual_multiplier\": 0.375, "
             "\"logits_scaling\": 2.5",
     .tied = TIED_EMBED,
     .dtype = DTYPE_F16,
     .shards = 1},
    {"olmo2",
     "Olmo2ForCausalLM",
     "olmo2",
     {.hidden = 36,
      .intermediate = 48,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 14,
      .vocab = 259,
      .eps = 1e-6,
      .rope_theta = 1e4},
     .layers = 2,
     .qk_norm = true,
     .whole_norm = true,
     .norms = NORMS_POST,
     .tied = UNTIED,
     .dtype = DTYPE_F32,
     .shards = 1},
    {"olmo3",
     "Olmo3ForCausalLM",
     "olmo3",
     {.hidden = 40,
      .intermediate = 44,
      .heads = 4,
      .kv_heads = 4,
      .head_dim = 8,
      .vocab = 260,
      .sliding = 6,
      .eps = 1e-6,
      .rope_theta = 1e3,
      .local_theta = 1e3,
      .yarn = {4, 64, 32, 1, 0}},
     .layers = 2,
     .full = 1,
     .qk_norm = true,
     .whole_norm = true,
     .norms = NORMS_POST,
     .more = ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]",
     .tied = UNTIED,
     .dtype = DTYPE_BF16,
     .shards = 1},
    {"glm4",
     "Glm4ForCausalLM",
     "glm4",
     {.hidden = 36,
      .intermediate = 64,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 20,
      .vocab = 257,
      .eps = 1e-5,
      .rope_theta = 1e4,
      .rope_dim = 12,
      .adjacent = true},
     .layers = 2,
     .bias = 0x07,
     .norms = NORMS_GLM,
     .fused_up = true,
     .more = ", \"partial_rotary_factor\": 0.6",
     .tied = UNTIED,
     .dtype = DTYPE_F16,
     .shards = 1},
    {"phi3",
     "Phi3ForCausalLM",
     "phi3",
     {.hidden = 40,
      .intermediate = 48,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 258,
      .sliding = 9,
      .eps = 1e-5,
      .rope_theta = 1e4,
      .rope_dim = 8,
      .factors = phi3_factors},
     .layers = 2,
     .fused_qkv = true,
     .fused_up = true,
     .more =
         ", \"partial_rotary_factor\": 0.5, \"original_max_position_embeddings\": 512, \"rope_scaling\": {\"type\": "
         "\"longrope\", \"short_factor\": [1, 1.25, 1.5, 3], \"long_factor\": [2, 3, 4, 5]}",
     .tied = UNTIED,
     .dtype = DTYPE_F32,
     .shards = 1},
    {"gemma2",
     "Gemma2ForCausalLM",
     "gemma2",
     {.hidden = 36,
      .intermediate = 44,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 12,
      .vocab = 262,
      .sliding = 5,
      .eps = 1e-6,
      .rope_theta = 1e4,
      .embedding_scale = 6,
      .attention_scale = 0.25,
      .score_cap = 0.5,
      .logit_cap = 2,
      .gelu = true,
      .norm_plus_one = true},
     .layers = 2,
     .full = 1,
     .norms = NORMS_GEMMA,
     .more = ", \"layer_types\": [\"full_attention\", \"sliding_attention\"], \"query_pre_attn_scalar\": 16, "
             "\"attn_logit_softcapping\": 0.5, \"final_logit_softcapping\": 2",
     .tied = TIED_EMBED,
     .dtype = DTYPE_F32,
     .shards = 1},
    {"gemma3",
     "Gemma3ForCausalLM",
     "gemma3_text",
     {.hidden = 36,
      .intermediate = 52,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 261,
      .sliding = 5,
      .eps = 1e-6,
      .rope_theta = 1e4,
      .local_theta = 1e2,
      .rope_linear = 2,
      .embedding_scale = 6,
      .attention_scale = 0.1,
      .gelu = true,
      .norm_plus_one = true},
     .layers = 2,
     .full = 1,
     .qk_norm = true,
     .norms = NORMS_GEMMA,
     .more = ", \"layer_types\": [\"full_attention\", \"sliding_attention\"], \"rope_local_base_freq\": 100, "
             "\"query_pre_attn_scalar\": 100",
     .tied = TIED_EMBED,
     .dtype = DTYPE_F32,
     .shards = 1},
    {"qwen3next",
     "Qwen3NextForCausalLM",
     "qwen3_next",
     {.hidden = 36,
      .intermediate = 40,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 258,
      .eps = 1e-6,
      .rope_theta = 1e4,
      .rope_dim = 4,
      .norm_plus_one = true,
      .gated = true,
      .delta = {.heads = 6, .keys = 2, .dim = 10, .values = 7, .grouped = true},
      .delta_taps = 4},
     .layers = 3,
     .qk_norm = true,
     .delta_step = 3,
     .more =
         ", \"full_attention_interval\": 3, \"linear_num_key_heads\": 2, \"linear_num_value_heads\": 6, "
         "\"linear_key_head_dim\": 10, \"linear_value_head_dim\": 7, \"linear_conv_kernel_dim\": 4, "
         "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 8, \"mlp_only_layers\": [0, 1, 2]",
     .tied = UNTIED,
     .dtype = DTYPE_BF16,
     .shards = 1},
    {"qwen3.5",
     "Qwen3_5ForCausalLM",
     "qwen3_5_text",
     {.hidden = 40,
      .intermediate = 44,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 12,
      .vocab = 259,
      .eps = 1e-6,
      .rope_theta = 1e4,
      .rope_dim = 6,
      .norm_plus_one = true,
      .gated = true,
      .delta = {.heads = 4, .keys = 4, .dim = 6, .values = 20},
      .delta_taps = 3},
     .layers = 2,
     .qk_norm = true,
     .delta_step = 2,
     .more = ", \"layer_types\": [\"linear_attention\", \"full_attention\"], \"linear_num_key_heads\": 4, "
             "\"linear_num_value_heads\": 4, \"linear_key_head_dim\": 6, \"linear_value_head_dim\": 20, "
             "\"linear_conv_kernel_dim\": 3, \"partial_rotary_factor\": 0.5",
     .tied = TIED_EMBED,
     .dtype = DTYPE_F32,
     .shards = 1},
};
/* The first ones have Llama's parts under Llama's names; all but the last ones have attention in all layers, which training goes
 * back through. */
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], N_ATTENTION = N_SHAPES - 2, N_PLAIN = 8 };

static inline bool shape_has_delta(const struct shape *s, uint32_t layer)
{
    return s->delta_step && (layer + 1) % s->delta_step != 0;
}

static inline const struct shape *shape_named(const char *name)
{
    for (int i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    fail_msg("no shape %s", name);
    return NULL;
}

/* By the reference's number of a linear, which is its place in these families. */
static inline const char *family_linear_name(uint32_t layer, int i, char *out, size_t cap)
{
    static const enum role roles[REF_LINEARS] = {ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN};
    return block_part_name(&(struct model_config){0}, block_part_of(roles[i]), layer, 0, out, cap);
}

/* The module that holds it: in some shapes that of several. */
static inline void family_module_name(const struct shape *s, uint32_t layer, int i, char *out, size_t cap)
{
    bool qkv = s->fused_qkv && i <= REF_V, up = s->fused_up && (i == REF_GATE || i == REF_UP);
    if (qkv || up)
        snprintf(out, cap, "model.layers.%u.%s", layer, qkv ? "self_attn.qkv_proj" : "mlp.gate_up_proj");
    else
        family_linear_name(layer, i, out, cap);
}

static inline void shape_sizes(const struct shape *s, uint32_t rows[REF_LINEARS], uint32_t cols[REF_LINEARS])
{
    uint32_t q = s->c.heads * s->c.head_dim, kv = s->c.kv_heads * s->c.head_dim;
    const uint32_t r[] = {s->c.gated ? 2 * q : q, kv,         kv, s->c.hidden, s->c.intermediate,
                          s->c.intermediate,      s->c.hidden};
    const uint32_t k[] = {s->c.hidden, s->c.hidden, s->c.hidden, q, s->c.hidden, s->c.hidden, s->c.intermediate};
    memcpy(rows, r, sizeof r);
    memcpy(cols, k, sizeof k);
}

/* What a block with the gated delta rule has in place of attention: rows 0: a vector; those that such a shape lacks have no columns. */
struct delta_tensor {
    const char *name;
    uint32_t rows, cols;
};
enum { DELTA_TENSORS = 11, DELTA_CONV = 6 };
static inline void delta_tensors(const struct shape *s, struct delta_tensor out[DELTA_TENSORS])
{
    const struct ref_delta *d = &s->c.delta;
    uint32_t values = d->heads * d->values, mixed = 2 * d->keys * d->dim + values, hidden = s->c.hidden;
    uint32_t grouped = d->grouped ? hidden : 0, split = d->grouped ? 0 : hidden;
    const struct delta_tensor list[DELTA_TENSORS] = {{"in_proj_qkvz.weight", mixed + values, grouped},
                                                     {"in_proj_ba.weight", 2 * d->heads, grouped},
                                                     {"in_proj_qkv.weight", mixed, split},
                                                     {"in_proj_z.weight", values, split},
                                                     {"in_proj_b.weight", d->heads, split},
                                                     {"in_proj_a.weight", d->heads, split},
                                                     {"conv1d.weight", mixed, s->c.delta_taps},
                                                     {"A_log", 0, d->heads},
                                                     {"dt_bias", 0, d->heads},
                                                     {"norm.weight", 0, d->values},
                                                     {"out_proj.weight", hidden, values}};
    memcpy(out, list, sizeof list);
}

/* The same of one block. */
static inline void block_sizes(const struct shape *s, uint32_t layer, uint32_t rows[REF_LINEARS],
                               uint32_t cols[REF_LINEARS])
{
    struct shape one = *s;
    if (s->wide && layer + 1 == s->layers)
        one.c.intermediate = s->wide;
    shape_sizes(&one, rows, cols);
}

static inline void family_config(const char *dir, const struct shape *s)
{
    struct strbuf b = {0};
    strbuf_printf(&b, "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"torch_dtype\": \"%s\", ",
                  s->architecture, s->model_type,
                  s->dtype == DTYPE_F32   ? "float32"
                  : s->dtype == DTYPE_F16 ? "float16"
                                          : "bfloat16");
    strbuf_printf(&b,
                  "\"hidden_size\": %u, \"intermediate_size\": %u, \"num_hidden_layers\": %u, "
                  "\"num_attention_heads\": %u, ",
                  s->c.hidden, s->c.intermediate, s->layers, s->c.heads);
    strbuf_printf(&b,
                  "\"num_key_value_heads\": %u, \"head_dim\": %u, \"vocab_size\": %u, "
                  "\"max_position_embeddings\": 512, ",
                  s->c.kv_heads, s->c.head_dim, s->c.vocab);
    strbuf_printf(&b, "\"rms_norm_eps\": %g, \"rope_theta\": %g, \"%s\", \"tie_word_embeddings\": %s", s->c.eps,
                  s->c.rope_theta, s->c.gelu ? "hidden_activation\": \"gelu_pytorch_tanh" : "hidden_act\": \"silu",
                  s->tied ? "true" : "false");
    if (s->c.sliding)
        strbuf_printf(&b, ", \"sliding_window\": %u", s->c.sliding);
    if (s->more)
        strbuf_puts(&b, s->more);
    if (s->full && s->c.sliding && !s->more)
        strbuf_printf(&b, ", \"use_sliding_window\": true, \"max_window_layers\": %u", s->full);
    if (s->c.yarn.factor > 0) {
        strbuf_printf(&b,
                      ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": %g, \"beta_fast\": %g, "
                      "\"beta_slow\": %g, \"original_max_position_embeddings\": %g",
                      s->c.yarn.factor, s->c.yarn.fast, s->c.yarn.slow, s->c.yarn.original);
        if (s->c.yarn.attention > 0)
            strbuf_printf(&b, ", \"attention_factor\": %g", s->c.yarn.attention);
        strbuf_puts(&b, "}");
    }
    if (s->c.rope_linear > 0)
        strbuf_printf(&b, ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": %g}", s->c.rope_linear);
    if (s->c.llama3.factor > 0)
        strbuf_printf(&b,
                      ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": %g, \"low_freq_factor\": %g, "
                      "\"high_freq_factor\": %g, \"original_max_position_embeddings\": %g}",
                      s->c.llama3.factor, s->c.llama3.low, s->c.llama3.high, s->c.llama3.original);
    strbuf_puts(&b, "}");
    assert_false(b.failed);
    write_text_file(dir, "config.json", b.data);
    strbuf_free(&b);
}

/* Norm weights are around 1. */
static inline void family_norm(struct raw_model *m, const char *name, enum dtype dtype, uint32_t n, uint32_t *seed)
{
    struct raw_tensor *t = raw_add(m, name, dtype, 0, n);
    for (uint32_t i = 0; i < n; i++)
        raw_set(t, i, 1.0f + (float)((int)(tiny_random(seed) % 2001) - 1000) / 4096.0f);
}

/* The tensors of a block's delta rule. */
static inline void family_delta(struct raw_model *m, const struct shape *s, uint32_t layer, uint32_t *seed)
{
    struct delta_tensor list[DELTA_TENSORS];
    char name[128];
    delta_tensors(s, list);
    for (int i = 0; i < DELTA_TENSORS; i++) {
        snprintf(name, sizeof name, "model.layers.%u.linear_attn.%s", layer, list[i].name);
        if (!list[i].cols)
            continue;
        if (strcmp(list[i].name, "norm.weight") == 0)
            family_norm(m, name, s->dtype, list[i].cols, seed);
        else
            raw_weight(m, name, s->dtype, list[i].rows, list[i].cols, seed);
        struct raw_tensor *t = &m->items[m->n - 1];
        if (i == DELTA_CONV) { /* [channels, 1, taps] */
            t->n_dims = 3;
            t->shape[2] = t->shape[1];
            t->shape[1] = 1;
        }
    }
}

static inline void family_tensors(struct raw_model *m, const struct shape *s)
{
    uint32_t rows[REF_LINEARS], cols[REF_LINEARS], seed = 11;
    char name[128], module[96];
    m->n = 0;
    if (s->tied != TIED_HEAD)
        raw_weight(m, "model.embed_tokens.weight", s->dtype, s->c.vocab, s->c.hidden, &seed);
    for (uint32_t l = 0; l < s->layers; l++) {
        const char *norms[6];
        memcpy(norms, norm_names[s->norms], sizeof norm_names[0]);
        norms[4] = s->qk_norm ? "self_attn.q_norm" : NULL;
        norms[5] = s->qk_norm ? "self_attn.k_norm" : NULL;
        for (int i = 0; i < 6; i++) {
            uint32_t heads = !s->whole_norm ? 1 : i == 4 ? s->c.heads : s->c.kv_heads;
            snprintf(name, sizeof name, "model.layers.%u.%s.weight", l, norms[i] ? norms[i] : "");
            if (norms[i] && !(i >= 4 && shape_has_delta(s, l)))
                family_norm(m, name, s->dtype, i < 4 ? s->c.hidden : heads * s->c.head_dim, &seed);
        }
        block_sizes(s, l, rows, cols);
        if (shape_has_delta(s, l))
            family_delta(m, s, l, &seed);
        for (int i = shape_has_delta(s, l) ? REF_GATE : 0; i < REF_LINEARS; i++) {
            bool qkv = s->fused_qkv && i <= REF_V, up = s->fused_up && (i == REF_GATE || i == REF_UP);
            family_module_name(s, l, i, module, sizeof module);
            if (qkv || up) {
                snprintf(name, sizeof name, "%s.weight", module);
                if (i == REF_Q || i == REF_GATE)
                    raw_weight(m, name, s->dtype, qkv ? rows[REF_Q] + 2 * rows[REF_K] : 2 * rows[i], cols[i], &seed);
                continue;
            }
            snprintf(name, sizeof name, "%s.weight", module);
            raw_weight(m, name, s->dtype, rows[i], cols[i], &seed);
            snprintf(name, sizeof name, "%s.bias", module);
            if (s->bias >> i & 1)
                raw_weight(m, name, s->dtype, 0, rows[i], &seed);
        }
    }
    family_norm(m, "model.norm.weight", s->dtype, s->c.hidden, &seed);
    if (s->tied == TIED_BOTH) {
        /* Two names, one matrix. */
        struct raw_tensor *head = raw_add(m, "lm_head.weight", s->dtype, s->c.vocab, s->c.hidden);
        memcpy(head->data, raw_find(m, "model.embed_tokens.weight")->data, (size_t)head->bytes);
    } else if (s->tied != TIED_EMBED) {
        raw_weight(m, "lm_head.weight", s->dtype, s->c.vocab, s->c.hidden, &seed);
    }
}

/* Shard i holds the tensors i, i + n, i + 2n ... */
static inline void family_write_shards(const struct raw_model *m, const char *dir, unsigned shards)
{
    struct strbuf index = {0};
    struct err e = {0};
    strbuf_puts(&index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (unsigned s = 0; s < shards; s++) {
        struct tensor_plan plan[64];
        struct safetensors_writer *w;
        char path[512], file[64];
        size_t n = 0;
        if (shards == 1)
            snprintf(file, sizeof file, "model.safetensors");
        else
            snprintf(file, sizeof file, "model-%05u-of-%05u.safetensors", s + 1, shards);
        for (size_t i = s; i < m->n; i += shards, n++) {
            plan[n] = (struct tensor_plan){
                .name = m->items[i].name, .dtype = m->items[i].dtype, .n_dims = m->items[i].n_dims};
            memcpy(plan[n].shape, m->items[i].shape, sizeof m->items[i].shape);
            strbuf_printf(&index, "%s\"%s\": \"%s\"", s || n ? ", " : "", m->items[i].name, file);
        }
        snprintf(path, sizeof path, "%s/%s", dir, file);
        OK(safetensors_writer_open(&w, path, plan, n, NULL, 0, &e), e);
        for (size_t i = s; i < m->n; i += shards)
            OK(safetensors_writer_put(w, m->items[i].data, (size_t)m->items[i].bytes, &e), e);
        OK(safetensors_writer_close(&w, &e), e);
    }
    strbuf_puts(&index, "}}");
    assert_false(index.failed);
    if (shards > 1)
        write_text_file(dir, "model.safetensors.index.json", index.data);
    strbuf_free(&index);
}

/* The folder, and its tensors (the caller frees them). */
static inline void family_write(const char *dir, const struct shape *s, struct raw_model *m)
{
    os_remove_tree(dir);
    family_config(dir, s);
    family_tensors(m, s);
    if (s->shards)
        family_write_shards(m, dir, s->shards);
    else
        raw_write(m, dir, true);
}

/* A model whose last block is wider, as layers of other families differ: opened with what its configuration says, then
 * given the list that such a family would make. wide: the checkpoint of its folder, plain: of the folder without `wide`, which
 * the model keeps its configuration from. */
static inline void family_open_wide(struct model **m, struct gpu_cmd *to, const struct checkpoint *plain,
                                    const struct checkpoint *wide, const struct shape *s, uint32_t ctx)
{
    struct err e = {0};
    uint32_t rows[REF_LINEARS], cols[REF_LINEARS];
    OK(model_open(m, to, plain, ctx, &e), e);
    block_sizes(s, s->layers - 1, rows, cols);
    (*m)->ck = wide;
    OK(model_load_matrix(*m, "model.norm", 0, 1, (*m)->final_norm, &e), e);
    for (uint32_t i = 0; i < REF_LINEARS; i++) {
        struct block_matrix *of = &(*m)->shape.matrices[(*m)->shape.first[s->layers - 1] + i];
        of->rows = rows[i];
        of->cols = cols[i];
    }
}

/* ---- as numbers ---- */

struct family_numbers {
    float *all[64]; /* what raw_model's tensors hold, in the same order */
    struct ref_block blocks[4];
    const float *embed, *head, *final_norm;
    size_t n;
};

static inline const float *number_of(const struct family_numbers *f, const struct raw_model *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].name, name) == 0)
            return f->all[i];
    return NULL;
}

static inline void family_numbers(struct family_numbers *f, const struct raw_model *m, const struct shape *s)
{
    char name[128], module[96];
    *f = (struct family_numbers){.n = m->n};
    for (size_t i = 0; i < m->n; i++) {
        const struct raw_tensor *t = &m->items[i];
        struct tensor view = {.name = t->name, .dtype = t->dtype, .data = t->data, .bytes = t->bytes};
        uint64_t n = t->bytes / dtype_size(t->dtype);
        struct err e = {0};
        f->all[i] = malloc((size_t)n * sizeof(float));
        assert_non_null(f->all[i]);
        OK(tensor_read_f32(&view, 0, n, f->all[i], &e), e);
        for (uint64_t k = 0;
             s->c.norm_plus_one && str_ends(t->name, "norm.weight") && !strstr(t->name, "linear_attn.norm") && k < n;
             k++)
            f->all[i][k] += 1; /* what the reference multiplies by */
    }
    for (uint32_t l = 0; l < s->layers; l++) {
        struct ref_block *b = &f->blocks[l];
        const float **norms[] = {&b->attn_norm,     &b->attn_post_norm, &b->ffn_norm,
                                 &b->ffn_post_norm, &b->q_norm,         &b->k_norm};
        const char *const *blocks = norm_names[s->norms];
        const char *const names[] = {blocks[0], blocks[1],          blocks[2],
                                     blocks[3], "self_attn.q_norm", "self_attn.k_norm"};
        b->full = l < s->full;
        b->whole_norm = s->whole_norm;
        b->no_rope = s->rope_step && (l + 1) % s->rope_step == 0;
        for (int i = 0; i < 6; i++) {
            snprintf(name, sizeof name, "model.layers.%u.%s.weight", l, names[i] ? names[i] : "");
            *norms[i] = names[i] ? number_of(f, m, name) : NULL;
        }
        if (shape_has_delta(s, l)) {
            const bool grouped = s->c.delta.grouped;
            const float **const of[DELTA_TENSORS] = {&b->mixed,   &b->beta,       &b->mixed,    &b->z,
                                                     &b->beta,    &b->alpha,      &b->conv,     &b->a_log,
                                                     &b->dt_bias, &b->delta_norm, &b->delta_out};
            struct delta_tensor list[DELTA_TENSORS];
            delta_tensors(s, list);
            for (int i = grouped ? 0 : 2; i < DELTA_TENSORS; i++) {
                snprintf(name, sizeof name, "model.layers.%u.linear_attn.%s", l, list[i].name);
                if (list[i].cols)
                    *of[i] = number_of(f, m, name);
            }
        }
        for (int i = 0; i < REF_LINEARS; i++) {
            family_linear_name(l, i, module, sizeof module);
            snprintf(name, sizeof name, "%s.weight", module);
            b->w[i] = number_of(f, m, name);
            snprintf(name, sizeof name, "%s.bias", module);
            b->bias[i] = number_of(f, m, name);
        }
        uint32_t q = s->c.heads * s->c.head_dim, kv = s->c.kv_heads * s->c.head_dim, hidden = s->c.hidden;
        snprintf(name, sizeof name, "model.layers.%u.self_attn.qkv_proj.weight", l);
        if (s->fused_qkv) {
            b->w[REF_Q] = number_of(f, m, name);
            b->w[REF_K] = b->w[REF_Q] + (size_t)q * hidden;
            b->w[REF_V] = b->w[REF_K] + (size_t)kv * hidden;
        }
        snprintf(name, sizeof name, "model.layers.%u.mlp.gate_up_proj.weight", l);
        if (s->fused_up) {
            b->w[REF_GATE] = number_of(f, m, name);
            b->w[REF_UP] = b->w[REF_GATE] + (size_t)s->c.intermediate * hidden;
        }
    }
    f->embed = number_of(f, m, s->tied == TIED_HEAD ? "lm_head.weight" : "model.embed_tokens.weight");
    f->head = number_of(f, m, s->tied == TIED_EMBED ? "model.embed_tokens.weight" : "lm_head.weight");
    f->final_norm = number_of(f, m, "model.norm.weight");
}

static inline void family_numbers_free(struct family_numbers *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->all[i]);
}

/* x[n, hidden] <- embeddings. */
static inline void family_embed(const struct family_numbers *f, const struct shape *s, const uint32_t *ids, size_t n,
                                double *x)
{
    for (size_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < s->c.hidden; i++)
            x[t * s->c.hidden + i] =
                f->embed[(size_t)ids[t] * s->c.hidden + i] * (s->c.embedding_scale > 0 ? s->c.embedding_scale : 1);
}

#endif
