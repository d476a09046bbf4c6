/* The tensor types of GGUF: sizes, dequantization, packing of learned codes, weighted rounding. docs/formats.md 8
 * has the table. */
#ifndef FORMATS_GGUF_TYPE_H
#define FORMATS_GGUF_TYPE_H

#include "formats/quant_type.h"

/* ggml's numbers. */
enum {
    GGML_F32 = 0,
    GGML_F16 = 1,
    GGML_Q4_0 = 2,
    GGML_Q4_1 = 3,
    GGML_Q5_0 = 6,
    GGML_Q5_1 = 7,
    GGML_Q8_0 = 8,
    GGML_Q2_K = 10,
    GGML_Q3_K = 11,
    GGML_Q4_K = 12,
    GGML_Q5_K = 13,
    GGML_Q6_K = 14,
    GGML_IQ2_XXS = 16,
    GGML_IQ2_XS = 17,
    GGML_IQ3_XXS = 18,
    GGML_IQ1_S = 19,
    GGML_IQ4_NL = 20,
    GGML_IQ3_S = 21,
    GGML_IQ2_S = 22,
    GGML_IQ4_XS = 23,
    GGML_IQ1_M = 29,
    GGML_BF16 = 30,
    GGML_TQ1_0 = 34,
    GGML_TQ2_0 = 35,
    GGML_MXFP4 = 39,
    GGML_NVFP4 = 40,
    GGML_Q1_0 = 41,
    GGML_Q2_0 = 42,
    GGML_NONE = -1
};

/* One row per type that gsq reads. */
struct gguf_type {
    int id;
    const char *name;               /* "Q2_K" */
    uint32_t block, bytes;          /* weights and bytes of a block */
    const struct quant_type *codes; /* its row among the quantization types, where codes and scales map to
                                         it exactly; else NULL */
    bool rounded;                   /* gguf_round_row can write it */
};
const struct gguf_type *gguf_type_of(uint32_t id);         /* NULL: unknown */
const struct gguf_type *gguf_type_named(const char *name); /* case-insensitive; NULL: unknown */
/* "Q2_K", "I8" (which gsq does not read), "type 99"; returns out. */
const char *gguf_type_name(uint32_t id, char out[24]);
/* The type a quantized matrix is stored as, NULL: none. Of the plain types "2" goes into Q2_0, "ternary" into
 * TQ1_0 (group a multiple of 256) or Q2_0 (of 64), "4" into Q4_0, "5" into Q5_0, "8" into Q8_0 (of 32). Rows
 * must still be a multiple of the block. */
const struct gguf_type *gguf_type_for(const struct quant_spec *spec);
/* How a linear of that type is quantized with `group` weights per scale (0: the type's own). Its type is NULL where
 * the GGUF type has no codes (F16) or not that group. */
struct quant_spec gguf_type_spec(const struct gguf_type *t, uint32_t group);
/* The type that stores codes of a type of --bits, and how they are made; group 0: its own. NULL: none. */
const struct gguf_type *gguf_type_home(const struct quant_type *type, uint32_t group, struct quant_spec *spec);
const struct gguf_type *gguf_type_at(size_t i); /* NULL past the end */
/* Bytes of a row of n weights; n is a multiple of the block. */
uint64_t gguf_row_bytes(const struct gguf_type *t, uint64_t n);

/* n weights (a multiple of the block) as f32. src: any alignment. */
void gguf_dequant(const struct gguf_type *t, const void *src, uint64_t n, float *dst);

/* One row of a quantized matrix into dst. Exact: what is decoded later is codes * scales + offsets bit for bit, up
 * to the last rounding of that sum. Columns are a multiple of the block. q's type is t->codes, or a plain type of
 * the same levels whose group is a multiple of this block or its multiple (2 bits, group 128 -> Q2_0: the scale is
 * written twice). ERR_BUG where d, dmin or integers are not what the type holds, ERR_USER where a plain type's scale
 * is no f16. */
bool gguf_pack_row(const struct gguf_type *t, const struct qlinear *q, uint32_t row, void *dst, struct err *e);
/* The reverse: into a row of q, whose type is t->codes. */
void gguf_unpack_row(const struct gguf_type *t, const void *src, struct qlinear *q, uint32_t row);
/* dst <- a copy of src whose codes are others; every other bit stays. For --refine. */
void gguf_replace_codes(const struct gguf_type *t, const void *src, const int8_t *codes, uint64_t cols, void *dst);

/* Rounds a row of n finite weights to any type with t->rounded (F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_1, Q5_1,
 * Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4): searched scales, least sum importance[i] * (w - stored)^2. importance may be
 * NULL: all 1. What f16 scales cannot reach is cut off. */
void gguf_round_row(const struct gguf_type *t, const float *w, const float *importance, uint64_t n, void *dst);
/* Cost of rounding a weight, in units of copying one: so that progress is proportional to time. */
unsigned gguf_round_cost(const struct gguf_type *t);
/* Whether stored bytes make sense: no NaN or infinite scale. */
bool gguf_row_valid(const struct gguf_type *t, const void *src, uint64_t n);

#endif
