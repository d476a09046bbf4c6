/* The one table of quantization types, and a quantized matrix in neutral form.
 *
 * Everything the optimiser, the evaluator and the packers see is  w = c * s[g] + o[g]: an integer code c per
 * weight, a scale s and an offset o per group of consecutive input columns of one row. Symmetric types have o
 * = 0. */
#ifndef FORMATS_QUANT_TYPE_H
#define FORMATS_QUANT_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

/* The last two are a byte that has no sign, for levels that are twice those of E2M1, and count half: a power of two (E8M0), an E4M3. */
enum scale_type { SCALE_F32, SCALE_F16, SCALE_BF16, SCALE_E8M0, SCALE_E4M3 };

/* One row of the table (quant_type.c). */
struct quant_type {
    const char *name; /* as --bits and --tensor take it: "ternary", "2", "3", "4", "8"; as --type does: "Q2_K" */
    int lo, hi;       /* codes, inclusive */
    unsigned bits;    /* of the unsigned code on disk: stored = c + 2^(bits-1), or c - lo where the type has
                      offsets, or the number of the level where it has a table */
    bool learned;     /* Gumbel-Softmax is offered (8 bits: RTN and GPTQ only) */
    /* Types of GGUF bring their own geometry; all 0 where the run chooses. */
    uint32_t group;         /* columns per scale */
    uint32_t super;         /* columns of a super-block: its f16 d times an integer is a group's scale. 0: none, scales
                       stand alone */
    int scale_lo, scale_hi; /* that integer */
    int offset_hi;          /* of that of offsets, which are -dmin * (0..offset_hi); 0: symmetric, there are none */
    /* Where codes are not all integers lo .. hi: what they are, ascending, 1 << bits of them, the last one repeated where there are
     * fewer. A code is its level, so w = c * s + o as everywhere, and only who chooses one looks here. NULL: all integers. */
    const int8_t *levels;
    enum scale_type scale; /* of a type of GGUF whose scales are no f16; else 0 */
};
/* Rows of the table that GGUF's types name. */
enum {
    QUANT_Q2_0 = 8,
    QUANT_TQ2_0,
    QUANT_TQ1_0,
    QUANT_Q4_0,
    QUANT_Q5_0,
    QUANT_Q8_0,
    QUANT_Q2_K,
    QUANT_Q3_K,
    QUANT_Q4_K,
    QUANT_Q5_K,
    QUANT_Q6_K,
    QUANT_IQ4_NL,
    QUANT_IQ4_XS,
    QUANT_MXFP4,
    QUANT_NVFP4,
    QUANT_TYPES
};
extern const struct quant_type quant_types[QUANT_TYPES];
/* 2 where groups have offsets beside their scales, else 1. */
unsigned quant_type_planes(const struct quant_type *t);

/* A type with its free choices made. */
struct quant_spec {
    const struct quant_type *type;
    uint32_t group;        /* columns per scale; the last group of a row may be shorter */
    enum scale_type scale; /* what scales, of super-blocks d and dmin, are rounded to before any loss is measured */
};

/* Groups of a row, twice where they have offsets. */
uint32_t quant_row_groups(const struct quant_spec *spec, uint32_t cols);
/* Groups that share d (and dmin); 1 without super-blocks. */
uint32_t quant_super_groups(const struct quant_spec *spec);
/* Scales of a row as they are stored, its offsets too: one of each group or, with super-blocks, d and -dmin of each
 * super-block. */
uint32_t quant_row_scales(const struct quant_spec *spec, uint32_t cols);

/* Codes that there are; code number k of them, ascending; the number of a code, UINT_MAX: it is none. */
unsigned quant_type_levels(const struct quant_type *t);
int quant_type_level(const struct quant_type *t, unsigned k);
unsigned quant_type_number(const struct quant_type *t, int code);
/* The code nearest to x; halfway between two the even one, of a table the lower one. */
int quant_type_nearest(const struct quant_type *t, float x);

/* NULL if there is none of that name. */
const struct quant_type *quant_type_find(const char *name);
/* The type whose codes on disk have that many bits and the full range (never ternary); NULL if none. */
const struct quant_type *quant_type_of_bits(unsigned bits);
/* The row of --bits that holds the codes of t; t itself where it is one. NULL: none, it has offsets or scales of scales. */
const struct quant_type *quant_type_plain(const struct quant_type *t);
/* Row i of the table, NULL past the end: for help texts and tests. */
const struct quant_type *quant_type_at(size_t i);
/* Bits per weight of a [rows, cols] matrix in this spec, scales included (16 bits each), codes at their
 * storage width. */
double quant_spec_bpw(const struct quant_spec *s, uint64_t rows, uint64_t cols);
/* What scales of a type of GGUF are stored in. */
enum scale_type quant_type_scale(const struct quant_type *t);
/* "f32" | "f16" | "bf16" | "e8m0" | "e4m3". */
const char *scale_type_name(enum scale_type t);
/* v rounded to the type, as f32 (round to nearest even). Of those in a byte within what it holds, powers of two upwards: a scale that
 * is too small cuts off. */
float scale_round(enum scale_type t, float v);

/* A quantized matrix on the host, scales exactly as they will be stored. With super-blocks that is d, -dmin and their
 * integers, from where they are found to where they are written: products alone would not say what they are of. */
struct qlinear {
    uint32_t rows, cols; /* N outputs, K inputs */
    struct quant_spec spec;
    uint32_t groups; /* ceil(cols / group) */
    int8_t *codes;   /* [rows, cols] */
    float
        *scales; /* [rows, planes, groups]: a row's scales, then its offsets where the type has them; with super-blocks
                      [rows, planes, super-blocks]: a row's d, then its -dmin */
    int8_t *
        integers; /* with super-blocks [rows, planes, groups]: of the groups' scales, then of their offsets; else NULL */
};

/* Allocates codes, scales and integers (zeroed). */
bool qlinear_init(struct qlinear *q, uint32_t rows, uint32_t cols, struct quant_spec spec, struct err *e);
void qlinear_free(struct qlinear *q);
/* What codes of group g are multiplied by or, plane 1, what is added to them. Exact. */
float qlinear_scale(const struct qlinear *q, uint32_t row, uint32_t plane, uint32_t g);
/* A row of `from`, of the same shape and spec, in place of one's own. */
void qlinear_copy_row(struct qlinear *q, const struct qlinear *from, uint32_t row);
/* All rows of `from`, which has the same columns and spec, in place of one's own from row0 on. */
void qlinear_copy_rows(struct qlinear *q, uint32_t row0, const struct qlinear *from);
/* Rows [row0, row0 + rows) as they lie in q, which stays their owner. */
struct qlinear qlinear_rows(const struct qlinear *q, uint32_t row0, uint32_t rows);
/* Rows [row0, row0 + rows) as f32 into dst [rows, cols]: codes * scales + offsets. */
void qlinear_dequant(const struct qlinear *q, uint32_t row0, uint32_t rows, float *dst);

#endif
