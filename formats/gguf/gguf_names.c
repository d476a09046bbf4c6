#include "formats/gguf/gguf_names.h"

#include <stdio.h>
#include <string.h>

#include "arch/block.h"

struct name_pair {
    const char *hf, *gguf;
};

static const struct name_pair globals[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
};

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
        const char *in = name + rest;
        const struct block_part *p = to_gguf ? block_part_named(in, n - rest) : block_part_named_gguf(in, n - rest);
        if (p)
            length = snprintf(out, cap, "%s%.*s.%s%s", to_gguf ? GGUF_BLOCK : HF_BLOCK, (int)digits, name + number,
                              to_gguf ? p->gguf : p->hf, suffix);
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

uint32_t gguf_permuted_heads(const struct model_config *c, const char *hf_module)
{
    const struct family *f = family_of(c);
    const char *suffix;
    size_t n = module_length(hf_module, &suffix), number, digits;
    if (!f || !f->permuted_rows || !split_block(hf_module, n, HF_BLOCK, &number, &digits))
        return 0;
    size_t rest = number + digits + 1;
    const struct block_part *p = block_part_named(hf_module + rest, n - rest);
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
