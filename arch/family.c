#include "arch/family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/base/str.h"

static const struct family families[] = {
    {
        .name = "Llama",
        .architecture = "LlamaForCausalLM",
        .model_type = "llama",
        .gguf = "llama",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
    },
    {
        .name = "Mistral",
        .architecture = "MistralForCausalLM",
        .model_type = "mistral",
        .gguf = "llama",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .sliding_window = true,
        .usual_window = 4096,
    },
    {
        .name = "Qwen2",
        .architecture = "Qwen2ForCausalLM",
        .model_type = "qwen2",
        .gguf = "qwen2",
        .parts = PARTS_PRE_NORMS,
        .always_bias = true,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_layers = 28,
    },
    {
        .name = "Qwen3",
        .architecture = "Qwen3ForCausalLM",
        .model_type = "qwen3",
        .gguf = "qwen3",
        .parts = PARTS_PRE_NORMS | PARTS_QK_NORM,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_layers = 28,
    },
    {
        .name = "SmolLM3",
        .architecture = "SmolLM3ForCausalLM",
        .model_type = "smollm3",
        .gguf = "smollm3",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .usual_rope_step = 4,
        .sliding_window = true,
        .usual_full_layers = 28,
    },
    {
        .name = "Granite",
        .architecture = "GraniteForCausalLM",
        .model_type = "granite",
        .gguf = "granite",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .multipliers = true,
    },
    {
        .name = "OLMo 2",
        .architecture = "Olmo2ForCausalLM",
        .model_type = "olmo2",
        .gguf = "olmo2",
        .parts = PARTS_POST_NORMS | PARTS_QK_NORM_WHOLE,
    },
    {
        .name = "OLMo 3",
        .architecture = "Olmo3ForCausalLM",
        .model_type = "olmo3",
        .gguf = "olmo2",
        .parts = PARTS_POST_NORMS | PARTS_QK_NORM_WHOLE,
        .local_rope = true,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_step = 4,
        .llama_slides = true,
    },
    {
        .name = "Mixtral",
        .architecture = "MixtralForCausalLM",
        .model_type = "mixtral",
        .gguf = "llama",
        .parts = PARTS_PRE_NORMS | PARTS_EXPERTS_BLOCK,
        .permuted_rows = true,
        .sliding_window = true,
        .gating = GATING_SOFTMAX,
        .renormalise = true,
        .gguf_renormalise = true,
    },
    {
        .name = "Qwen2-MoE",
        .architecture = "Qwen2MoeForCausalLM",
        .model_type = "qwen2_moe",
        .gguf = "qwen2moe",
        .parts = PARTS_PRE_NORMS | PARTS_EXPERTS | PARTS_SHARED_GATED,
        .always_bias = true,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_layers = 28,
        .gating = GATING_SOFTMAX,
    },
    {
        .name = "Qwen3-MoE",
        .architecture = "Qwen3MoeForCausalLM",
        .model_type = "qwen3_moe",
        .gguf = "qwen3moe",
        .parts = PARTS_PRE_NORMS | PARTS_QK_NORM | PARTS_EXPERTS,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_layers = 28,
        .gating = GATING_SOFTMAX,
        .gguf_renormalise = true,
    },
    {
        .name = "OLMoE",
        .architecture = "OlmoeForCausalLM",
        .model_type = "olmoe",
        .gguf = "olmoe",
        .parts = PARTS_PRE_NORMS | PARTS_QK_NORM_WHOLE | PARTS_EXPERTS,
        .gating = GATING_SOFTMAX,
    },
    {
        .name = "DeepSeek-V2",
        .architecture = "DeepseekV2ForCausalLM",
        .model_type = "deepseek_v2",
        .gguf = "deepseek2",
        .parts = PARTS_PRE_NORMS | PARTS_MLA | PARTS_EXPERTS | PARTS_SHARED_PLAIN,
        .adjacent_pairs = true,
        .gguf_router = true,
        .gating = GATING_SOFTMAX,
    },
    {
        .name = "DeepSeek-V3",
        .architecture = "DeepseekV3ForCausalLM",
        .model_type = "deepseek_v3",
        .also_type = "kimi_k2",
        .gguf = "deepseek2",
        .parts = PARTS_PRE_NORMS | PARTS_MLA | PARTS_EXPERTS | PARTS_EXPERTS_BIAS | PARTS_SHARED_PLAIN,
        .adjacent_pairs = true,
        .gguf_router = true,
        .gating = GATING_SIGMOID,
        .renormalise = true,
    },
    {
        .name = "Qwen3-Next",
        .architecture = "Qwen3NextForCausalLM",
        .model_type = "qwen3_next",
        .gguf = "qwen3next",
        .parts = PARTS_PRE_NORMS | PARTS_LATE_NAME | PARTS_QK_NORM | PARTS_GATED_HEADS | PARTS_DELTA_GROUPED |
                 PARTS_EXPERTS | PARTS_SHARED_GATED,
        .norm_plus_one = true,
        .usual_rope_share = 0.25,
        .gating = GATING_SOFTMAX,
        .renormalise = true,
        .gguf_renormalise = true,
    },
    {
        .name = "gpt-oss",
        .architecture = "GptOssForCausalLM",
        .model_type = "gpt_oss",
        .gguf = "gpt-oss",
        .parts = PARTS_PRE_NORMS | PARTS_LATE_NAME | PARTS_GPT_OSS,
        .clamped = true,
        .llama_slides = true,
        .sliding_window = true,
        .usual_window = 128,
        .usual_full_step = 2,
        .gating = GATING_CHOSEN,
        .stacked_experts = true,
        .renormalise = true,
        .gguf_renormalise = true,
    },
    {
        .name = "GLM-4.5",
        .architecture = "Glm4MoeForCausalLM",
        .model_type = "glm4_moe",
        .gguf = "glm4moe",
        .parts =
            PARTS_PRE_NORMS | PARTS_LATE_NAME | PARTS_QK_NORM | PARTS_EXPERTS | PARTS_EXPERTS_BIAS | PARTS_SHARED_PLAIN,
        .qk_norm_said = true,
        .usual_rope_share = 0.5,
        .gating = GATING_SIGMOID,
        .renormalise = true,
        .gguf_renormalise = true,
        .gguf_router = true,
    },
    {
        .name = "Granite-MoE",
        .architecture = "GraniteMoeForCausalLM",
        .model_type = "granitemoe",
        .gguf = "granitemoe",
        .parts = PARTS_PRE_NORMS | PARTS_EXPERTS_STACKED,
        .permuted_rows = true,
        .multipliers = true,
        .gating = GATING_CHOSEN,
        .stacked_experts = true,
        .renormalise = true,
        .gguf_renormalise = true,
    },
    {
        .name = "Granite-MoE with a shared expert",
        .architecture = "GraniteMoeSharedForCausalLM",
        .model_type = "granitemoeshared",
        .gguf = "granitemoe",
        .parts = PARTS_PRE_NORMS | PARTS_EXPERTS_STACKED | PARTS_SHARED_FUSED,
        .permuted_rows = true,
        .multipliers = true,
        .gating = GATING_CHOSEN,
        .stacked_experts = true,
        .renormalise = true,
        .gguf_renormalise = true,
    },
    {
        .name = "Qwen3.5",
        .architecture = "Qwen3_5ForCausalLM",
        .model_type = "qwen3_5_text",
        .gguf = "qwen35",
        .parts = PARTS_PRE_NORMS | PARTS_LATE_NAME | PARTS_QK_NORM | PARTS_GATED_HEADS | PARTS_DELTA,
        .norm_plus_one = true,
        .usual_rope_share = 0.25,
    },
    {
        .name = "Qwen3.5-MoE",
        .architecture = "Qwen3_5MoeForCausalLM",
        .model_type = "qwen3_5_moe_text",
        .gguf = "qwen35moe",
        .parts = PARTS_PRE_NORMS | PARTS_LATE_NAME | PARTS_QK_NORM | PARTS_GATED_HEADS | PARTS_DELTA | PARTS_EXPERTS |
                 PARTS_SHARED_GATED,
        .norm_plus_one = true,
        .usual_inner = 512,
        .usual_rope_share = 0.25,
        .gating = GATING_SOFTMAX,
        .stacked_experts = true,
        .renormalise = true,
        .gguf_renormalise = true,
    },
    {
        .name = "Ministral 3",
        .architecture = "Ministral3ForCausalLM",
        .model_type = "ministral3",
        .gguf = "mistral3",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .query_growth = true,
        .sliding_window = true,
    },
    {
        .name = "GLM-4",
        .architecture = "Glm4ForCausalLM",
        .model_type = "glm4",
        .gguf = "glm4",
        .parts = PARTS_PRE_NORMS | PARTS_GLM_NORMS | PARTS_FUSED_GATE_UP,
        .adjacent_pairs = true,
        .usual_rope_share = 0.5,
    },
    {
        .name = "Phi-3",
        .architecture = "Phi3ForCausalLM",
        .model_type = "phi3",
        .gguf = "phi3",
        .parts = PARTS_PRE_NORMS | PARTS_FUSED_QKV | PARTS_FUSED_GATE_UP,
        .factor_lists = true,
        .sliding_window = true,
    },
    {
        .name = "Gemma 2",
        .architecture = "Gemma2ForCausalLM",
        .model_type = "gemma2",
        .gguf = "gemma2",
        .parts = PARTS_GEMMA_NORMS,
        .norm_plus_one = true,
        .gelu = true,
        .embedding_root = true,
        .usual_query_scale = 256,
        .odd_layers = 46,
        .usual_score_cap = 50,
        .usual_logit_cap = 30,
        .usual_eps = 1e-6,
        .usual_heads = 8,
        .usual_kv_heads = 4,
        .usual_head_dim = 256,
        .usual_vocab = 256000,
        .usual_context = 8192,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_step = 2,
        .llama_slides = true,
    },
    {
        .name = "Gemma 3",
        .architecture = "Gemma3ForCausalLM",
        .model_type = "gemma3_text",
        .gguf = "gemma3",
        .parts = PARTS_GEMMA_NORMS | PARTS_QK_NORM,
        .norm_plus_one = true,
        .gelu = true,
        .embedding_root = true,
        .usual_query_scale = 256,
        .odd_layers = 62,
        .usual_theta = 1e6,
        .usual_local_theta = 1e4,
        .usual_eps = 1e-6,
        .usual_heads = 8,
        .usual_kv_heads = 4,
        .usual_head_dim = 256,
        .usual_vocab = 262208,
        .usual_context = 131072,
        .local_rope = true,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_step = 6,
        .llama_slides = true,
    },
};
#define N (sizeof families / sizeof families[0])

uint32_t family_usual(const struct family *f, size_t at)
{
    const struct {
        size_t at;
        uint32_t usual;
    } list[] = {
        {offsetof(struct model_config, num_heads), f->usual_heads},
        {offsetof(struct model_config, num_kv_heads), f->usual_kv_heads},
        {offsetof(struct model_config, head_dim), f->usual_head_dim},
        {offsetof(struct model_config, vocab_size), f->usual_vocab},
        {offsetof(struct model_config, max_position), f->usual_context},
        {offsetof(struct model_config, intermediate_size), f->usual_inner},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (list[i].at == at)
            return list[i].usual;
    return 0;
}

const struct family *family_at(size_t i)
{
    return i < N ? &families[i] : NULL;
}

const struct family *family_of(const struct model_config *c)
{
    /* A config that names its architecture means exactly that one: its model_type may be shared with variants
     * that compute something else. */
    bool named = c->architecture[0] != 0;
    for (size_t i = 0; i < N; i++)
        if (named ? strcmp(c->architecture, families[i].architecture) == 0
                  : strcmp(c->model_type, families[i].model_type) == 0 ||
                        (families[i].also_type && strcmp(c->model_type, families[i].also_type) == 0))
            return &families[i];
    return NULL;
}

const struct family *family_of_gguf(const char *architecture, bool sliding, bool experts, uint32_t gating, bool shared)
{
    const struct family *found = NULL;
    for (size_t i = 0; i < N; i++)
        if (strcmp(families[i].gguf, architecture) == 0 && (families[i].gating != 0) == experts &&
            (!found || (sliding && !found->sliding_window) ||
             (found->gating != gating && families[i].gating == gating) ||
             (shared && families[i].parts & PARTS_SHARED_FUSED)))
            found = &families[i];
    return found;
}

bool family_adds_one(const struct family *f, const char *norm)
{
    size_t n = strlen(norm), suffix = str_ends(norm, ".weight") ? 7 : 0;
    bool named = n - suffix >= 4 && memcmp(norm + n - suffix - 4, "norm", 4) == 0;
    return f && f->norm_plus_one && named && !strstr(norm, "linear_attn.norm");
}

double family_llama_scale(const struct family *f, const struct model_config *c)
{
    return 1 / sqrt(c->num_layers == f->odd_layers ? (double)c->hidden_size / c->num_heads : c->head_dim);
}

/* Families that are known by name, by architecture or model_type, and what gsq does not compute in them. */
static const struct {
    const char *architecture, *model_type, *lacks;
} unbuilt[] = {
    {"Gemma4ForCausalLM", "gemma4_text", "layers have heads of two sizes, and a part of one is turned"},
    {"Gemma4ForConditionalGeneration", "gemma4", "layers have heads of two sizes, and a part of one is turned"},
    {"Gemma3nForConditionalGeneration", "gemma3n_text", "every layer has embeddings of its own"},
    {"Llama4ForConditionalGeneration", "llama4_text", "attention is in chunks, and queries are scaled by position"},
    {"Llama4ForCausalLM", "llama4", "attention is in chunks, and queries are scaled by position"},
    {"DeepseekV32ForCausalLM", "deepseek_v32", "an indexer chooses the tokens that attention sees"},
    {"DeepseekV4ForCausalLM", "deepseek_v4", "an indexer chooses the tokens that attention sees"},
    {"GlmMoeDsaForCausalLM", "glm_moe_dsa", "an indexer chooses the tokens that attention sees"},
    {"KimiK3ForConditionalGeneration", "kimi_k3", "layers have Kimi Delta Attention"},
    {"KimiLinearForCausalLM", "kimi_linear", "layers have Kimi Delta Attention"},
    {"GraniteMoeHybridForCausalLM", "granitemoehybrid", "layers have state spaces (Mamba)"},
    {"NemotronHForCausalLM", "nemotron_h", "layers have state spaces (Mamba)"},
    {"FalconH1ForCausalLM", "falcon_h1", "layers have state spaces (Mamba)"},
    {"JambaForCausalLM", "jamba", "layers have state spaces (Mamba)"},
    {"BambaForCausalLM", "bamba", "layers have state spaces (Mamba)"},
    {"Zamba2ForCausalLM", "zamba2", "layers have state spaces (Mamba)"},
    {"MambaForCausalLM", "mamba", "layers have state spaces (Mamba)"},
    {"Mamba2ForCausalLM", "mamba2", "layers have state spaces (Mamba)"},
};

const char *family_lacks(const struct model_config *c)
{
    for (size_t i = 0; i < sizeof unbuilt / sizeof unbuilt[0]; i++)
        if (strcmp(c->architecture, unbuilt[i].architecture) == 0 || strcmp(c->model_type, unbuilt[i].model_type) == 0)
            return unbuilt[i].lacks;
    return NULL;
}

/* Adds to a text that may be cut; *len stays below cap. */
static void append(char *out, size_t cap, size_t *len, const char *before, const char *text)
{
    int n = snprintf(out + *len, cap - *len, "%s%s", before, text);
    if (n > 0 && (size_t)n < cap - *len)
        *len += (size_t)n;
}

const struct family *family_find(const struct model_config *c, struct err *e)
{
    char known[512] = "";
    size_t len = 0;
    const char *name = c->architecture[0] ? c->architecture : c->model_type;
    const struct family *f = family_of(c);
    const char *lacks = family_lacks(c);
    /* What a family lacks says more than what is odd about one of its models. */
    if ((!lacks || c->wrapper[0]) && !config_supported(c, e))
        return NULL;
    if (f)
        return f;
    for (size_t i = 0; i < N; i++) {
        char short_name[64];
        snprintf(short_name, sizeof short_name, "%s", families[i].architecture);
        char *end = strstr(short_name, "ForCausalLM");
        if (end)
            *end = 0;
        append(known, sizeof known, &len, i ? ", " : "", short_name);
    }
    if (!name[0])
        err_set(e, ERR_USER, "config.json names neither an architecture nor a model_type");
    else
        err_set(e, ERR_USER, "the architecture %s is not supported%s%s", name, lacks ? ": in it, " : "",
                lacks ? lacks : "");
    err_hint(e, "supported are (each with ForCausalLM) %s", known);
    return NULL;
}

const char *family_names(char *out, size_t cap)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < N; i++)
        append(out, cap, &len, i == 0 ? "" : i + 1 < N ? ", " : " and ", families[i].name);
    return out;
}
