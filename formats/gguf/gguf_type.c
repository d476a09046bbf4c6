#include "formats/gguf/gguf_type.h"

#include <ctype.h>
#include <stdio.h>

#define LEARNED(name) &quant_types[QUANT_##name]

static const struct gguf_type types[] = {
    {GGML_F32, "F32", 1, 4, NULL, true},
    {GGML_F16, "F16", 1, 2, NULL, true},
    {GGML_BF16, "BF16", 1, 2, NULL, true},
    {GGML_Q2_0, "Q2_0", 64, 18, LEARNED(Q2_0), false},
    {GGML_TQ2_0, "TQ2_0", 256, 66, LEARNED(TQ2_0), false},
    {GGML_TQ1_0, "TQ1_0", 256, 54, LEARNED(TQ1_0), false},
    {GGML_Q4_0, "Q4_0", 32, 18, LEARNED(Q4_0), true},
    {GGML_Q4_1, "Q4_1", 32, 20, NULL, true},
    {GGML_Q5_0, "Q5_0", 32, 22, LEARNED(Q5_0), true},
    {GGML_Q5_1, "Q5_1", 32, 24, NULL, true},
    {GGML_Q8_0, "Q8_0", 32, 34, LEARNED(Q8_0), true},
    {GGML_Q2_K, "Q2_K", 256, 84, LEARNED(Q2_K), true},
    {GGML_Q3_K, "Q3_K", 256, 110, LEARNED(Q3_K), true},
    {GGML_Q4_K, "Q4_K", 256, 144, LEARNED(Q4_K), true},
    {GGML_Q5_K, "Q5_K", 256, 176, LEARNED(Q5_K), true},
    {GGML_Q6_K, "Q6_K", 256, 210, LEARNED(Q6_K), true},
    {GGML_IQ4_NL, "IQ4_NL", 32, 18, LEARNED(IQ4_NL), true},
    {GGML_IQ4_XS, "IQ4_XS", 256, 136, LEARNED(IQ4_XS), true},
    {GGML_IQ1_S, "IQ1_S", 256, 50, NULL, false},
    {GGML_IQ1_M, "IQ1_M", 256, 56, NULL, false},
    {GGML_IQ2_XXS, "IQ2_XXS", 256, 66, NULL, false},
    {GGML_IQ2_XS, "IQ2_XS", 256, 74, NULL, false},
    {GGML_IQ2_S, "IQ2_S", 256, 82, NULL, false},
    {GGML_IQ3_XXS, "IQ3_XXS", 256, 98, NULL, false},
    {GGML_IQ3_S, "IQ3_S", 256, 110, NULL, false},
    {GGML_MXFP4, "MXFP4", 32, 17, LEARNED(MXFP4), true},
    {GGML_NVFP4, "NVFP4", 64, 36, LEARNED(NVFP4), true},
    {GGML_Q1_0, "Q1_0", 128, 18, NULL, false},
};

const char *gguf_type_name(uint32_t id, char out[24])
{
    /* Also those that gsq does not read, and those that ggml has given up. */
    /* clang-format off */
    static const char *const names[] = {
        [4] = "Q4_2 (given up)", [5] = "Q4_3 (given up)", [9] = "Q8_1",
        [15] = "Q8_K",           [24] = "I8",             [25] = "I16",
        [26] = "I32",            [27] = "I64",            [28] = "F64",
        [31] = "Q4_0_4_4 (given up)",   [32] = "Q4_0_4_8 (given up)",   [33] = "Q4_0_8_8 (given up)",
        [36] = "IQ4_NL_4_4 (given up)", [37] = "IQ4_NL_4_8 (given up)", [38] = "IQ4_NL_8_8 (given up)"};
    /* clang-format on */
    const struct gguf_type *t = gguf_type_of(id);
    const char *name = t ? t->name : id < sizeof names / sizeof names[0] ? names[id] : NULL;
    if (name)
        snprintf(out, 24, "%s", name);
    else
        snprintf(out, 24, "type %u", (unsigned)id);
    return out;
}

const struct gguf_type *gguf_type_at(size_t i)
{
    return i < sizeof types / sizeof types[0] ? &types[i] : NULL;
}

const struct gguf_type *gguf_type_of(uint32_t id)
{
    const struct gguf_type *t;
    for (size_t i = 0; (t = gguf_type_at(i)); i++) {
        if ((uint32_t)t->id == id)
            return t;
    }
    return NULL;
}

const struct gguf_type *gguf_type_named(const char *name)
{
    const struct gguf_type *t;
    for (size_t i = 0; (t = gguf_type_at(i)); i++) {
        size_t c = 0;
        while (name[c] && toupper((unsigned char)name[c]) == t->name[c])
            c++;
        if (!name[c] && !t->name[c])
            return t;
    }
    return NULL;
}

const struct gguf_type *gguf_type_for(const struct quant_spec *spec)
{
    static const struct {
        int lo, hi;
        uint32_t id;
    } plain[] = {{-1, 1, GGML_TQ1_0}, {-1, 1, GGML_Q2_0},   {-2, 1, GGML_Q2_0},
                 {-8, 7, GGML_Q4_0},  {-16, 15, GGML_Q5_0}, {-128, 127, GGML_Q8_0}};
    const struct gguf_type *t;
    for (size_t i = 0; (t = gguf_type_at(i)); i++) {
        if (t->codes == spec->type)
            return t;
    }
    for (size_t i = 0; !spec->type->group && i < sizeof plain / sizeof plain[0]; i++) {
        t = gguf_type_of(plain[i].id);
        if (plain[i].lo == spec->type->lo && plain[i].hi == spec->type->hi && spec->group % t->block == 0)
            return t;
    }
    return NULL;
}

struct quant_spec gguf_type_spec(const struct gguf_type *t, uint32_t group)
{
    struct quant_spec spec = {t->codes, group, t->codes ? quant_type_scale(t->codes) : SCALE_F16};
    if (!spec.type || !group || group == spec.type->group) {
        spec.group = spec.type ? spec.type->group : 0;
        return spec;
    }
    /* A coarser grid: the file repeats its scales. */
    const struct quant_type *own = spec.type, *plain = group % own->group == 0 ? quant_type_plain(own) : NULL;
    spec.type = plain && plain->lo == own->lo && plain->hi == own->hi ? plain : NULL;
    return spec;
}

const struct gguf_type *gguf_type_home(const struct quant_type *type, uint32_t group, struct quant_spec *spec)
{
    const uint32_t any = 256; /* a multiple of every block */
    const struct gguf_type *t = gguf_type_for(&(struct quant_spec){type, group ? group : any, SCALE_F16});
    if (!t)
        return NULL;
    const struct quant_type *own = t->codes;
    if (!group)
        group = own->group;
    bool same = group == own->group && type->lo <= own->lo && type->hi >= own->hi;
    *spec = same ? gguf_type_spec(t, 0) : (struct quant_spec){type, group, SCALE_F16};
    return t;
}

uint64_t gguf_row_bytes(const struct gguf_type *t, uint64_t n)
{
    return n / t->block * t->bytes;
}
