/* The one table of quantization types, and a quantized matrix in neutral form.
 *
 * Everything the optimiser, the evaluator and the packers see is  w = c * s[g] + o[g]: an integer code c per weight,
 * a scale s and an offset o per group of consecutive input columns of one row. Symmetric types have o = 0. */
#ifndef FORMATS_QUANT_TYPE_H
#define FORMATS_QUANT_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

enum scale_type { SCALE_F32, SCALE_F16, SCALE_BF16 };

/* One row of the table (quant_type.c). */
struct quant_type {
    const char *name; /* as --bits and --tensor take it: "ternary", "2", "3", "4", "8" */
    int lo, hi;       /* codes, inclusive */
    unsigned bits;    /* of the unsigned code on disk: stored = c + 2^(bits-1) */
    bool learned;     /* Gumbel-Softmax is offered (8 bits: RTN and GPTQ only) */
};

/* A type with its free choices made. */
struct quant_spec {
    const struct quant_type *type;
    uint32_t group;        /* columns per scale; the last group of a row may be shorter */
    enum scale_type scale; /* what the scale is rounded to before any loss is measured */
};

/* NULL if there is none of that name. */
const struct quant_type *quant_type_find(const char *name);
/* The type whose codes on disk have that many bits and the full range (never ternary); NULL if none. */
const struct quant_type *quant_type_of_bits(unsigned bits);
/* Row i of the table, NULL past the end: for help texts and tests. */
const struct quant_type *quant_type_at(size_t i);
/* Bits per weight of a [rows, cols] matrix in this spec, scales included (16 bits each), codes at their storage width. */
double quant_spec_bpw(const struct quant_spec *s, uint64_t rows, uint64_t cols);
/* "f32" | "f16" | "bf16". */
const char *scale_type_name(enum scale_type t);
/* v rounded to the type, as f32 (round to nearest even). */
float scale_round(enum scale_type t, float v);

/* A quantized matrix on the host. */
struct qlinear {
    uint32_t rows, cols; /* N outputs, K inputs */
    struct quant_spec spec;
    uint32_t groups; /* ceil(cols / group) */
    int8_t *codes;   /* [rows, cols] */
    float *scales;   /* [rows, groups], exact in spec.scale */
};

/* Allocates codes and scales (zeroed). */
bool qlinear_init(struct qlinear *q, uint32_t rows, uint32_t cols, struct quant_spec spec, struct err *e);
void qlinear_free(struct qlinear *q);
/* Rows [row0, row0 + rows) as f32 into dst [rows, cols]: codes * scales. */
void qlinear_dequant(const struct qlinear *q, uint32_t row0, uint32_t rows, float *dst);

#endif
