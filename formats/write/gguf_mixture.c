/* Mixtures of tensor types by the names of llama-quantize, so that files of one name have equal types and
 * sizes (docs/formats.md 8). The embedding alone, where it is not the head too, takes the base type. */
#include "formats/write/gguf_mixture.h"

#include <stdio.h>
#include <string.h>

#include "arch/block.h"

enum mixture_id {
    MIX_F32,
    MIX_F16,
    MIX_BF16,
    MIX_Q8_0,
    MIX_Q6_K,
    MIX_Q5_K_M,
    MIX_Q5_K_S,
    MIX_MXFP4_MOE,
    MIX_NVFP4,
    MIX_Q5_1,
    MIX_Q5_0,
    MIX_Q4_K_M,
    MIX_Q4_K_S,
    MIX_IQ4_NL,
    MIX_IQ4_XS,
    MIX_Q4_1,
    MIX_Q4_0,
    MIX_Q3_K_L,
    MIX_Q3_K_M,
    MIX_Q3_K_S,
    MIX_Q2_K,
    MIX_Q2_K_S,
    MIX_Q2_0,
    MIX_TQ2_0,
    MIX_TQ1_0,
    MIX_COUNT
};

struct mixture {
    const char *name, *also; /* another name for it; NULL: none */
    uint32_t base;
    int file_type;
};

static const struct mixture mixtures[MIX_COUNT] = {
    [MIX_F32] = {"F32", NULL, GGML_F32, 0},
    [MIX_F16] = {"F16", NULL, GGML_F16, 1},
    [MIX_BF16] = {"BF16", NULL, GGML_BF16, 32},
    [MIX_Q8_0] = {"Q8_0", NULL, GGML_Q8_0, 7},
    [MIX_Q6_K] = {"Q6_K", NULL, GGML_Q6_K, 18},
    [MIX_Q5_K_M] = {"Q5_K_M", "Q5_K", GGML_Q5_K, 17},
    [MIX_MXFP4_MOE] = {"MXFP4_MOE", "MXFP4", GGML_MXFP4, 38},
    [MIX_NVFP4] = {"NVFP4", NULL, GGML_NVFP4, 39},
    [MIX_Q5_K_S] = {"Q5_K_S", NULL, GGML_Q5_K, 16},
    [MIX_Q5_1] = {"Q5_1", NULL, GGML_Q5_1, 9},
    [MIX_Q5_0] = {"Q5_0", NULL, GGML_Q5_0, 8},
    [MIX_Q4_K_M] = {"Q4_K_M", "Q4_K", GGML_Q4_K, 15},
    [MIX_Q4_K_S] = {"Q4_K_S", NULL, GGML_Q4_K, 14},
    [MIX_IQ4_NL] = {"IQ4_NL", NULL, GGML_IQ4_NL, 25},
    [MIX_IQ4_XS] = {"IQ4_XS", NULL, GGML_IQ4_XS, 30},
    [MIX_Q4_1] = {"Q4_1", NULL, GGML_Q4_1, 3},
    [MIX_Q4_0] = {"Q4_0", NULL, GGML_Q4_0, 2},
    [MIX_Q3_K_L] = {"Q3_K_L", NULL, GGML_Q3_K, 13},
    [MIX_Q3_K_M] = {"Q3_K_M", "Q3_K", GGML_Q3_K, 12},
    [MIX_Q3_K_S] = {"Q3_K_S", NULL, GGML_Q3_K, 11},
    [MIX_Q2_K] = {"Q2_K", NULL, GGML_Q2_K, 10},
    [MIX_Q2_K_S] = {"Q2_K_S", NULL, GGML_Q2_K, 21},
    [MIX_Q2_0] = {"Q2_0", NULL, GGML_Q2_0, 41},
    [MIX_TQ2_0] = {"TQ2_0", NULL, GGML_TQ2_0, 37},
    [MIX_TQ1_0] = {"TQ1_0", NULL, GGML_TQ1_0, 36},
};

/* What llama-quantize writes and gsq does not: the bits per weight it names, and what gsq learns nearest to them. */
static const struct refused {
    const char *name, *also;
    int file_type;
    const char *bits, *why, *nearest, *nearest_bits;
} refused[] = {
#define CODEBOOK "its values come from a codebook of whole vectors, and gsq learns levels of single weights"
    {"Q1_0", NULL, 40, "1.125", "gsq writes no codes of one bit", "TQ1_0", "1.69"},
    {"IQ1_S", NULL, 24, "1.56", CODEBOOK, "TQ1_0", "1.69"},
    {"IQ1_M", NULL, 31, "1.75", CODEBOOK, "TQ1_0", "1.69"},
    {"IQ2_XXS", NULL, 19, "2.06", CODEBOOK, "Q2_0", "2.25"},
    {"IQ2_XS", NULL, 20, "2.31", CODEBOOK, "Q2_0", "2.25"},
    {"IQ2_S", NULL, 28, "2.5", CODEBOOK, "Q2_K_S", "2.63"},
    {"IQ2_M", NULL, 29, "2.7", CODEBOOK, "Q2_K_S", "2.63"},
    {"IQ3_XXS", NULL, 23, "3.06", CODEBOOK, "Q2_K", "2.94"},
    {"IQ3_XS", NULL, 22, "3.3", CODEBOOK, "Q3_K_S", "3.44"},
    {"IQ3_S", NULL, 26, "3.44", CODEBOOK, "Q3_K_S", "3.44"},
    {"IQ3_M", NULL, 27, "3.66", CODEBOOK, "Q3_K_M", "3.88"},
};

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        char x = *a >= 'a' && *a <= 'z' ? (char)(*a - 'a' + 'A') : *a;
        if (x != *b)
            return false;
    }
    return *a == *b;
}

static int find(const char *name)
{
    for (int i = 0; i < MIX_COUNT; i++)
        if (same_name(name, mixtures[i].name) || (mixtures[i].also && same_name(name, mixtures[i].also)))
            return i;
    return -1;
}

const char *gguf_mixture_at(size_t i)
{
    return i < MIX_COUNT ? mixtures[i].name : NULL;
}

const char *gguf_mixture_named(const char *name)
{
    int i = find(name);
    return i < 0 ? NULL : mixtures[i].name;
}

/* "10"; -1: no number. */
static int number_of(const char *text)
{
    int n = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 3 || text[digits])
        return -1;
    for (; *text; text++)
        n = 10 * n + (*text - '0');
    return n;
}

bool gguf_mixture_is_name(const char *text)
{
    struct err e = {0};
    const char *name;
    return gguf_mixture_read(text, &name, &e) || e.kind != ERR_NONE;
}

bool gguf_mixture_read(const char *text, const char **out, struct err *e)
{
    int number = number_of(text);
    *out = gguf_mixture_named(text);
    for (int i = 0; !*out && number >= 0 && i < MIX_COUNT; i++)
        if (mixtures[i].file_type == number)
            *out = mixtures[i].name;
    if (!*out && same_name(text, GGUF_COPY))
        *out = GGUF_COPY;
    for (size_t i = 0; !*out && i < sizeof refused / sizeof *refused; i++) {
        const struct refused *r = &refused[i];
        if (!same_name(text, r->name) && !(r->also && same_name(text, r->also)) && number != r->file_type)
            continue;
        err_set(e, ERR_USER, "%s (%s bits per weight) cannot be written by gsq: %s", r->name, r->bits, r->why);
        return err_hint(e, "the nearest type that gsq learns is %s (%s bits per weight)", r->nearest, r->nearest_bits);
    }
    return *out != NULL;
}

int gguf_mixture_file_type(const char *mixture)
{
    int i = find(mixture);
    for (size_t k = 0; i < 0 && k < sizeof refused / sizeof *refused; k++)
        if (same_name(mixture, refused[k].name) || (refused[k].also && same_name(mixture, refused[k].also)))
            return refused[k].file_type;
    return i < 0 ? -1 : mixtures[i].file_type;
}

const struct gguf_type *gguf_mixture_base(const char *mixture)
{
    int i = find(mixture);
    return i < 0 ? NULL : gguf_type_of(mixtures[i].base);
}

/* What the rules tell apart. */
struct place {
    enum { IN_BLOCK, EMBEDDING, HEAD } where;
    const struct block_part *part; /* of a block; NULL: one that no family has */
    uint32_t layer, layers;
    bool like_v;             /* attn_v, or attn_qkv, of which it is a part */
    uint32_t v_at, v_layers; /* of those: how many layers before have one, and how many in all */
    bool shared;             /* four heads or more share a key and value */
    bool large;              /* the 70B models, whose attn_v is small beside the rest */
    bool eight;              /* eight experts, beside which attention is small */
};

static bool is_like_v(const struct block_part *p)
{
    return p->role == ROLE_V || p->role == ROLE_QKV ||
           (p->role == ROLE_DELTA_MIXED && strcmp(p->gguf, "attn_qkv") == 0);
}

/* Layers below `end` that have such a matrix. */
static uint32_t layers_with_v(const struct model_config *c, uint32_t end)
{
    const struct family *f = family_of(c);
    const struct block_part *p;
    uint32_t n = 0;
    for (uint32_t layer = 0; layer < end; layer++) {
        bool has = false;
        for (size_t i = 0; !has && (p = block_part_at(i)); i++)
            has = is_like_v(p) && block_has(c, f, layer, p);
        n += has;
    }
    return n;
}

static struct place place_of(const struct model_config *c, const struct matrix *x)
{
    const bool like_v = x->part && is_like_v(x->part);
    return (struct place){.like_v = like_v,
                          .v_at = like_v ? layers_with_v(c, x->layer) : 0,
                          .v_layers = like_v ? layers_with_v(c, c->num_layers) : 0,
                          .where = x->head        ? HEAD
                                   : x->embedding ? EMBEDDING
                                                  : IN_BLOCK,
                          .part = x->part,
                          .layer = x->layer,
                          .layers = c->num_layers,
                          .shared = c->num_kv_heads && c->num_heads / c->num_kv_heads >= 4,
                          .large = c->num_layers == 80 && c->num_heads != c->num_kv_heads,
                          .eight = c->experts.n == 8};
}

/* The first and last eighth of n, and every third between. */
static bool more_bits(uint32_t at, uint32_t n)
{
    uint32_t eighth = n / 8;
    return at < eighth || at >= 7 * n / 8 || (at - eighth) % 3 == 2;
}

static uint32_t type_of_v(enum mixture_id m, const struct place *p)
{
    uint32_t t = mixtures[m].base;
    if (m == MIX_Q2_K)
        t = p->shared ? GGML_Q4_K : GGML_Q3_K;
    else if (m == MIX_Q2_K_S && p->shared)
        t = GGML_Q4_K;
    else if (m == MIX_Q3_K_M)
        t = p->v_at < 2 ? GGML_Q5_K : GGML_Q4_K;
    else if (m == MIX_Q3_K_L || ((m == MIX_IQ4_NL || m == MIX_IQ4_XS) && p->shared))
        t = GGML_Q5_K;
    else if (m == MIX_Q4_K_S && p->v_at < 4)
        t = GGML_Q5_K;
    else if ((m == MIX_Q4_K_M || m == MIX_Q5_K_M) && more_bits(p->v_at, p->v_layers))
        t = GGML_Q6_K;
    return p->large && (t == GGML_Q3_K || t == GGML_Q4_K) ? GGML_Q5_K : t;
}

static uint32_t type_of_down(enum mixture_id m, const struct place *p)
{
    bool first_eighth = p->layer < p->layers / 8;
    if (m == MIX_Q2_K)
        return GGML_Q3_K;
    if (m == MIX_Q2_K_S && first_eighth)
        return GGML_Q4_K;
    if (m == MIX_Q3_K_M)
        return p->layer < p->layers / 16 ? GGML_Q5_K : GGML_Q4_K;
    if (m == MIX_Q3_K_L || (m == MIX_Q4_K_S && first_eighth))
        return GGML_Q5_K;
    if ((m == MIX_Q4_K_M || m == MIX_Q5_K_M) && more_bits(p->layer, p->layers))
        return GGML_Q6_K;
    return mixtures[m].base;
}

static uint32_t type_of(enum mixture_id m, const struct place *p)
{
    if (m == MIX_MXFP4_MOE) /* tensors of three dimensions */
        return p->part && (block_part_is_expert(p->part) || block_part_is_split(p->part)) ? GGML_MXFP4 : GGML_Q8_0;
    bool plain = m == MIX_F32 || m == MIX_F16 || m == MIX_BF16 || m == MIX_Q8_0;
    bool two_bits = m == MIX_Q2_0 || m == MIX_TQ2_0 || m == MIX_TQ1_0;
    if (p->where == HEAD)
        return plain ? mixtures[m].base : GGML_Q6_K;
    if (p->where == EMBEDDING)
        return two_bits ? GGML_Q4_K : mixtures[m].base;
    enum role role = p->part ? p->part->role : ROLE_COUNT;
    if (role == ROLE_VALUES_O)
        role = ROLE_O;
    if (p->eight && !plain) {
        if (p->like_v || role == ROLE_K)
            return GGML_Q8_0;
        if (role == ROLE_O && (m == MIX_Q2_K || m == MIX_Q3_K_S || m == MIX_Q3_K_M || m == MIX_IQ4_NL ||
                               m == MIX_IQ4_XS || m == MIX_Q4_K_S || m == MIX_Q4_K_M))
            return GGML_Q5_K;
    }
    if (p->like_v)
        return type_of_v(m, p);
    if (role == ROLE_DOWN)
        return type_of_down(m, p);
    if (role == ROLE_O && m == MIX_Q2_K)
        return GGML_Q3_K;
    if (role == ROLE_O && m == MIX_Q3_K_M)
        return GGML_Q4_K;
    if (role == ROLE_O && m == MIX_Q3_K_L)
        return GGML_Q5_K;
    return mixtures[m].base;
}

/* The type of smaller blocks that stands in. */
static uint32_t fallback_of(uint32_t type)
{
    switch (type) {
    case GGML_Q2_0:
    case GGML_Q2_K:
    case GGML_Q3_K:
    case GGML_TQ1_0:
    case GGML_TQ2_0:
        return GGML_Q4_0;
    case GGML_IQ4_XS:
        return GGML_IQ4_NL;
    case GGML_Q4_K:
        return GGML_Q5_0;
    case GGML_Q5_K:
        return GGML_Q5_1;
    case GGML_Q6_K:
        return GGML_Q8_0;
    default:
        return GGML_F16;
    }
}

const struct gguf_type *gguf_type_fitting(const struct gguf_type *t, uint32_t cols)
{
    while (cols % t->block != 0)
        t = gguf_type_of(fallback_of((uint32_t)t->id));
    return t;
}

const struct gguf_type *gguf_mixture_type(const char *mixture, const struct model_config *c, const struct matrix *x)
{
    int m = find(mixture);
    if (m < 0)
        return NULL;
    struct place p = place_of(c, x);
    return gguf_type_of(type_of((enum mixture_id)m, &p));
}
