#include "formats/gguf_names.h"

#include <stdio.h>
#include <string.h>

struct name_pair {
    const char *hf, *gguf;
};

static const struct name_pair globals[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
};

static const struct gguf_block_part in_block[] = {
    {"input_layernorm", "attn_norm", false, false},   {"self_attn.q_proj", "attn_q", true, false},
    {"self_attn.k_proj", "attn_k", true, false},      {"self_attn.v_proj", "attn_v", true, false},
    {"self_attn.q_norm", "attn_q_norm", false, true}, {"self_attn.k_norm", "attn_k_norm", false, true},
    {"self_attn.o_proj", "attn_output", true, false}, {"post_attention_layernorm", "ffn_norm", false, false},
    {"mlp.gate_proj", "ffn_gate", true, false},       {"mlp.up_proj", "ffn_up", true, false},
    {"mlp.down_proj", "ffn_down", true, false},
};

const struct gguf_block_part *gguf_block_part(size_t i)
{
    return i < sizeof in_block / sizeof in_block[0] ? &in_block[i] : NULL;
}

#define HF_BLOCK   "model.layers."
#define GGUF_BLOCK "blk."
/* Of a block's number: as many as any model has, so that names fit. */
#define MAX_DIGITS 6

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "MODULE", "MODULE.weight", "MODULE.bias": length of the module. */
static size_t module_length(const char *name, const char **suffix)
{
    static const char *const suffixes[] = {".weight", ".bias"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t m = strlen(suffixes[i]);
        if (n > m && strcmp(name + n - m, suffixes[i]) == 0) {
            *suffix = suffixes[i];
            return n - m;
        }
    }
    *suffix = "";
    return n;
}

static bool same(const char *s, size_t n, const char *other)
{
    return strlen(other) == n && memcmp(s, other, n) == 0;
}

/* Splits PREFIX "N" "." REST; false where name does not begin so. A number has one spelling. */
static bool split_block(const char *name, size_t n, const char *prefix, size_t *number, size_t *digits)
{
    size_t at = strlen(prefix), d = 0;
    if (n < at || memcmp(name, prefix, at) != 0)
        return false;
    while (at + d < n && is_digit(name[at + d]))
        d++;
    if (d == 0 || d > MAX_DIGITS || (d > 1 && name[at] == '0') || at + d >= n || name[at + d] != '.')
        return false;
    *number = at;
    *digits = d;
    return true;
}

static bool translate(const char *name, bool to_gguf, char *out, size_t cap)
{
    const char *suffix, *prefix = to_gguf ? HF_BLOCK : GGUF_BLOCK;
    size_t n = module_length(name, &suffix), number, digits;
    int length = -1;
    if (split_block(name, n, prefix, &number, &digits)) {
        size_t rest = number + digits + 1;
        const struct gguf_block_part *p;
        for (size_t i = 0; (p = gguf_block_part(i)); i++) {
            if (same(name + rest, n - rest, to_gguf ? p->hf : p->gguf))
                length = snprintf(out, cap, "%s%.*s.%s%s", to_gguf ? GGUF_BLOCK : HF_BLOCK, (int)digits,
                                  name + number, to_gguf ? p->gguf : p->hf, suffix);
        }
    } else {
        for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
            const struct name_pair *p = &globals[i];
            if (same(name, n, to_gguf ? p->hf : p->gguf))
                length = snprintf(out, cap, "%s%s", to_gguf ? p->gguf : p->hf, suffix);
        }
    }
    return length > 0 && (size_t)length < cap;
}

bool gguf_name_of(const char *hf, char *out, size_t cap)
{
    return translate(hf, true, out, cap);
}

bool gguf_name_to_hf(const char *name, char *out, size_t cap)
{
    return translate(name, false, out, cap);
}

static const struct {
    const char *architecture, *model_type, *gguf;
    bool permuted, qk_norm;
} families[] = {
    {"LlamaForCausalLM", "llama", "llama", true, false},
    {"MistralForCausalLM", "mistral", "llama", true, false},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", false, false},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", false, true},
};

/* Index of the config's row, by host/model/family's rule: the architecture where it is named, else the
 * model_type. */
static size_t family_of(const struct model_config *c)
{
    size_t i = 0;
    for (; i < sizeof families / sizeof families[0]; i++)
        if (c->architecture[0] ? strcmp(c->architecture, families[i].architecture) == 0
                               : strcmp(c->model_type, families[i].model_type) == 0)
            break;
    return i;
}

const char *gguf_architecture(const struct model_config *c)
{
    size_t i = family_of(c);
    return i < sizeof families / sizeof families[0] ? families[i].gguf : NULL;
}

bool gguf_architecture_to_hf(const char *name, bool sliding, struct model_config *c)
{
    size_t found = sizeof families / sizeof families[0];
    for (size_t i = sizeof families / sizeof families[0]; i-- > 0;)
        if (strcmp(families[i].gguf, name) == 0 &&
            (!sliding || found == sizeof families / sizeof families[0]))
            found = i;
    if (found == sizeof families / sizeof families[0])
        return false;
    strcpy(c->architecture, families[found].architecture);
    strcpy(c->model_type, families[found].model_type);
    return true;
}

bool gguf_has_qk_norm(const struct model_config *c)
{
    size_t i = family_of(c);
    return i < sizeof families / sizeof families[0] && families[i].qk_norm;
}

uint32_t gguf_permuted_heads(const struct model_config *c, const char *hf_module)
{
    size_t i = family_of(c), number, digits;
    if (i >= sizeof families / sizeof families[0] || !families[i].permuted)
        return 0;
    const char *suffix;
    size_t n = module_length(hf_module, &suffix);
    if (!split_block(hf_module, n, HF_BLOCK, &number, &digits))
        return 0;
    size_t rest = number + digits + 1;
    if (same(hf_module + rest, n - rest, "self_attn.q_proj"))
        return c->num_heads;
    return same(hf_module + rest, n - rest, "self_attn.k_proj") ? c->num_kv_heads : 0;
}

uint32_t gguf_row_of(uint32_t r, uint32_t dim)
{
    uint32_t head = r / dim * dim, in = r % dim, half = dim / 2;
    return head + 2 * (in % half) + in / half;
}

uint32_t gguf_row_to_hf(uint32_t r, uint32_t dim)
{
    uint32_t head = r / dim * dim, in = r % dim, half = dim / 2;
    return head + in % 2 * half + in / 2;
}
