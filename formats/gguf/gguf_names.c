#include "formats/gguf/gguf_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "arch/family.h"

/* Behind the prefix of a model's names. */
static const struct name_pair {
    const char *hf, *gguf;
} globals[] = {
    {"embed_tokens", "token_embd"},
    {"norm", "output_norm"},
};

#define HF_BLOCK   "layers."
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

bool gguf_name_of(const struct model_config *c, const char *hf, char *out, size_t cap)
{
    const char *suffix, *prefix = config_prefix(c);
    size_t n = module_length(hf, &suffix), front = strlen(prefix), number, digits;
    int length = -1;
    if (same(hf, n, config_head_name(c)))
        length = snprintf(out, cap, "output%s", suffix);
    bool inside = length < 0 && n > front && memcmp(hf, prefix, front) == 0;
    const char *name = inside ? hf + front : "";
    n = inside ? n - front : 0;
    if (split_block(name, n, HF_BLOCK, &number, &digits)) {
        size_t rest = number + digits + 1;
        const struct block_part *p = block_part_named(family_of(c), name + rest, n - rest, NULL);
        bool vector = p && p->kind == PART_VECTOR;
        if (p && !(vector && suffix[0]))
            length =
                snprintf(out, cap, GGUF_BLOCK "%.*s.%s%s", (int)digits, name + number, p->gguf, vector ? "" : suffix);
    }
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (same(name, n, globals[i].hf))
            length = snprintf(out, cap, "%s%s", globals[i].gguf, suffix);
    return length > 0 && (size_t)length < cap;
}

/* The part of a block that a tensor holds; NULL: none. Its layer's number is the *digits from *number on. */
static const struct block_part *part_of(const struct family *f, const char *name, size_t n, size_t *number,
                                        size_t *digits)
{
    if (!split_block(name, n, GGUF_BLOCK, number, digits))
        return NULL;
    size_t rest = *number + *digits + 1;
    return block_part_named_gguf(f, name + rest, n - rest);
}

bool gguf_name_to_hf(const struct model_config *c, const char *name, uint32_t expert, char *out, size_t cap)
{
    const char *suffix, *prefix = config_prefix(c);
    size_t n = module_length(name, &suffix), number, digits;
    const struct block_part *whole = part_of(family_of(c), name, strlen(name), &number, &digits);
    const struct block_part *p =
        whole && whole->kind == PART_VECTOR ? whole : part_of(family_of(c), name, n, &number, &digits);
    int length = -1;
    if (p && p->kind == PART_VECTOR) {
        if (p == whole)
            length = snprintf(out, cap, "%s" HF_BLOCK "%.*s.%s", prefix, (int)digits, name + number, p->hf);
    } else if (p) {
        char module[96];
        block_part_name(c, p, (uint32_t)strtoul(name + number, NULL, 10), expert, module, sizeof module);
        length = snprintf(out, cap, "%s%s", module, suffix);
    } else if (same(name, n, "output")) {
        length = snprintf(out, cap, "%s%s", config_head_name(c), suffix);
    }
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (same(name, n, globals[i].gguf))
            length = snprintf(out, cap, "%s%s%s", prefix, globals[i].hf, suffix);
    return length > 0 && (size_t)length < cap;
}

bool gguf_name_of_experts(const char *name)
{
    const char *suffix;
    size_t n = module_length(name, &suffix), number, digits;
    const struct block_part *p = part_of(NULL, name, n, &number, &digits);
    return p && block_part_is_expert(p) && suffix[0];
}

enum gguf_latent gguf_name_to_latent(const struct model_config *c, const char *name, char *out, size_t cap)
{
    const char *suffix;
    size_t n = module_length(name, &suffix), number, digits;
    const struct block_part *p = c->mla.kv_rank ? part_of(family_of(c), name, n, &number, &digits) : NULL;
    enum gguf_latent part = p && p->role == ROLE_K_B   ? LATENT_KEYS
                            : p && p->role == ROLE_V_B ? LATENT_VALUES
                                                       : LATENT_NONE;
    if (!part || strcmp(suffix, ".weight") != 0)
        return LATENT_NONE;
    block_part_name(c, block_part_of(ROLE_KV_B), (uint32_t)strtoul(name + number, NULL, 10), 0, out, cap);
    return part;
}

#define MIXED_WHOLE "ssm_in"
static const char *const mixed_names[] = {[MIXED_NONE] = "", [MIXED_QKV] = "attn_qkv", [MIXED_GATE] = "attn_gate"};

/* Of a matrix that is two tensors in a GGUF, named as `whole` is where it is one: which of names[1] and names[2] this is, or 0; out: its
 * Hugging Face module. Families without these parts have none. */
static unsigned which_of_two(const struct model_config *c, uint32_t parts, const char *const names[3],
                             const char *whole, const char *name, char *out, size_t cap)
{
    const struct family *f = family_of(c);
    const char *suffix;
    size_t n = module_length(name, &suffix), number, digits;
    if (!f || !(f->parts & parts) || strcmp(suffix, ".weight") != 0 ||
        !split_block(name, n, GGUF_BLOCK, &number, &digits))
        return 0;
    size_t rest = number + digits + 1;
    unsigned part = same(name + rest, n - rest, names[1]) ? 1 : same(name + rest, n - rest, names[2]) ? 2 : 0;
    if (part)
        block_part_name(c, block_part_named_gguf(f, whole, strlen(whole)), (uint32_t)strtoul(name + number, NULL, 10),
                        0, out, cap);
    return part;
}

enum gguf_mixed gguf_name_to_mixed(const struct model_config *c, const char *name, char *out, size_t cap)
{
    return (enum gguf_mixed)which_of_two(c, PARTS_DELTA_GROUPED, mixed_names, MIXED_WHOLE, name, out, cap);
}

bool gguf_name_of_mixed(const char *name, enum gguf_mixed part, char *out, size_t cap)
{
    const char *at = strstr(name, "." MIXED_WHOLE);
    int n =
        at ? snprintf(out, cap, "%.*s.%s%s", (int)(at - name), name, mixed_names[part], at + strlen("." MIXED_WHOLE))
           : -1;
    return n > 0 && (size_t)n < cap;
}

/* By key head: q, k, v of its heads, z of its heads. */
struct mixed_shape {
    uint32_t keys, dim, values, span;
};
static struct mixed_shape mixed_shape_of(const struct model_config *c)
{
    const struct delta_config *x = &c->delta;
    const uint32_t values = x->value_heads / x->key_heads * x->value_dim;
    return (struct mixed_shape){x->key_heads, x->key_dim, values, 2 * x->key_dim + 2 * values};
}

uint32_t gguf_mixed_row(const struct model_config *c, uint32_t r, enum gguf_mixed *part)
{
    const struct mixed_shape s = mixed_shape_of(c);
    uint32_t head = r / s.span, in = r % s.span;
    *part = in < 2 * s.dim + s.values ? MIXED_QKV : MIXED_GATE;
    if (in < 2 * s.dim)
        return (in / s.dim * s.keys + head) * s.dim + in % s.dim;
    if (*part == MIXED_QKV)
        return 2 * s.keys * s.dim + head * s.values + in - 2 * s.dim;
    return head * s.values + in - 2 * s.dim - s.values;
}

uint32_t gguf_mixed_row_to_hf(const struct model_config *c, enum gguf_mixed part, uint32_t r)
{
    const struct mixed_shape s = mixed_shape_of(c);
    const uint32_t keys = s.keys * s.dim;
    if (part == MIXED_GATE)
        return r / s.values * s.span + 2 * s.dim + s.values + r % s.values;
    if (r < 2 * keys)
        return r % keys / s.dim * s.span + r / keys * s.dim + r % s.dim;
    r -= 2 * keys;
    return r / s.values * s.span + 2 * s.dim + r % s.values;
}

static const char *const shared_names[] = {
    [SHARED_NONE] = "", [SHARED_GATE] = "ffn_gate_shexp", [SHARED_UP] = "ffn_up_shexp"};

enum gguf_shared gguf_name_to_shared(const struct model_config *c, const char *name, char *out, size_t cap)
{
    return (enum gguf_shared)which_of_two(c, PARTS_SHARED_FUSED, shared_names, shared_names[SHARED_UP], name, out, cap);
}

const char *gguf_name_of_shared(enum gguf_shared part, uint32_t layer, char out[64])
{
    snprintf(out, 64, GGUF_BLOCK "%" PRIu32 ".%s.weight", layer, shared_names[part]);
    return out;
}

uint32_t gguf_permuted_heads(const struct model_config *c, const char *hf_module)
{
    const struct family *f = family_of(c);
    const char *suffix, *prefix = config_prefix(c);
    size_t n = module_length(hf_module, &suffix), front = strlen(prefix), number, digits;
    if (!f || !f->permuted_rows || n <= front || memcmp(hf_module, prefix, front) != 0 ||
        !split_block(hf_module + front, n - front, HF_BLOCK, &number, &digits))
        return 0;
    size_t rest = front + number + digits + 1;
    const struct block_part *p = block_part_named(f, hf_module + rest, n - rest, NULL);
    return p && p->turned && c->head_dim ? block_part_rows(p, c) / c->head_dim : 0;
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
