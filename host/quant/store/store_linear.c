#include "host/quant/store/store_linear.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/pack.h"
#include "host/base/num.h"

static uint64_t words_per_row(const struct matrix *item)
{
    return div_up((uint64_t)item->cols * item->spec.type->bits, 32);
}

/* Which tensor. */
enum { CODES, SCALES, INTEGERS };

unsigned linear_tensors(const struct matrix *item)
{
    return item->spec.type->super ? LINEAR_TENSORS_MAX : INTEGERS;
}

struct tensor_plan linear_tensor(const struct matrix *item, unsigned which, char name[TENSOR_NAME_CAP])
{
    static const char *const names[LINEAR_TENSORS_MAX] = {"codes", "scales", "integers"};
    static const enum dtype dtypes[LINEAR_TENSORS_MAX] = {DTYPE_U32, DTYPE_F32, DTYPE_I8};
    snprintf(name, TENSOR_NAME_CAP, "%s.%s", item->module, names[which]);
    uint64_t cols = which == CODES    ? words_per_row(item)
                    : which == SCALES ? quant_row_scales(&item->spec, item->cols)
                                      : quant_row_groups(&item->spec, item->cols);
    return (struct tensor_plan){name, dtypes[which], 2, {item->rows, cols}};
}

uint64_t linear_bytes(const struct matrix *item)
{
    uint64_t bytes = 0;
    char name[TENSOR_NAME_CAP];
    for (unsigned which = 0; item->coded && which < linear_tensors(item); which++) {
        struct tensor_plan t = linear_tensor(item, which, name);
        bytes += t.shape[0] * t.shape[1] * dtype_size(t.dtype);
    }
    return bytes;
}

/* From a type's codes to the signed ones of pack.h: those of types with offsets start at 0, and a table has no more than numbers of
 * its levels. */
static int code_shift(const struct quant_type *t)
{
    return t->levels || t->lo == 0 ? 1 << (t->bits - 1) : 0;
}

static void codes_to_store(const struct quant_type *t, int8_t *codes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)((t->levels ? (int)quant_type_number(t, codes[i]) : codes[i]) - code_shift(t));
}

static void codes_from_store(const struct quant_type *t, int8_t *codes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int k = codes[i] + code_shift(t);
        codes[i] = (int8_t)(t->levels ? quant_type_level(t, (unsigned)k) : k);
    }
}

bool linear_sane(const struct qlinear *q, const struct matrix *item)
{
    const struct quant_type *t = item->spec.type;
    size_t n = (size_t)q->rows * q->cols, scales = (size_t)q->rows * quant_row_scales(&item->spec, item->cols);
    size_t groups = (size_t)q->rows * quant_row_groups(&item->spec, item->cols);
    for (size_t i = 0; i < n; i++)
        if (quant_type_number(t, q->codes[i]) == UINT_MAX)
            return false;
    for (size_t i = 0; i < scales; i++)
        if (!isfinite(q->scales[i]))
            return false;
    for (size_t i = 0; t->super && i < groups; i++) {
        bool offset = i / q->groups % quant_type_planes(t) == 1;
        if (q->integers[i] < (offset ? 0 : t->scale_lo) || q->integers[i] > (offset ? t->offset_hi : t->scale_hi))
            return false;
    }
    return true;
}

bool linear_put(struct safetensors_writer *w, const struct matrix *item, const struct qlinear *q, struct err *e)
{
    size_t words = (size_t)words_per_row(item);
    uint32_t *row = malloc(words * 4);
    int8_t *codes = malloc(q->cols);
    bool ok = (row && codes) || err_nomem(e, "packed codes", words * 4);
    for (uint32_t r = 0; ok && r < q->rows; r++) {
        memcpy(codes, q->codes + (size_t)r * q->cols, q->cols);
        codes_to_store(item->spec.type, codes, q->cols);
        pack_codes(codes, q->cols, 1, item->spec.type->bits, row);
        ok = safetensors_writer_put(w, row, words * 4, e);
    }
    free(row);
    free(codes);
    size_t scales = (size_t)q->rows * quant_row_scales(&item->spec, item->cols);
    size_t groups = (size_t)q->rows * quant_row_groups(&item->spec, item->cols);
    return ok && safetensors_writer_put(w, q->scales, scales * sizeof *q->scales, e) &&
           (!q->integers || safetensors_writer_put(w, q->integers, groups, e));
}

/* A linear's tensor in a file, if it has its type and shape. */
static const struct tensor *find(const struct safetensors *f, const struct matrix *item, unsigned which)
{
    char name[TENSOR_NAME_CAP];
    struct tensor_plan want = linear_tensor(item, which, name);
    const struct tensor *t = safetensors_find(f, name);
    bool ok =
        t && t->dtype == want.dtype && t->n_dims == 2 && t->shape[0] == want.shape[0] && t->shape[1] == want.shape[1];
    return ok ? t : NULL;
}

bool linear_there(const struct safetensors *f, const struct matrix *item)
{
    return find(f, item, CODES) != NULL;
}

bool linear_get(const struct safetensors *f, const char *name, const char *dir, const struct matrix *item,
                struct qlinear *out, struct err *e)
{
    uint64_t words = words_per_row(item);
    *out = (struct qlinear){0};
    const struct tensor *codes = find(f, item, CODES), *scales = find(f, item, SCALES);
    bool super = item->spec.type->super > 0;
    const struct tensor *integers = super ? find(f, item, INTEGERS) : NULL;
    uint32_t *row = malloc((size_t)words * 4);
    bool ok = row || err_nomem(e, "packed codes", words * 4);
    if (ok && (!codes || !scales || (super && !integers)))
        ok = err_set(e, ERR_ENV, "%s in %s does not hold %s as this run needs it", name, dir, item->module);
    ok = ok && qlinear_init(out, item->rows, item->cols, item->spec, e);
    for (uint32_t r = 0; ok && r < item->rows; r++) {
        memcpy(row, codes->data + r * words * 4, (size_t)words * 4);
        int8_t *to = out->codes + (size_t)r * item->cols;
        unpack_codes(row, item->cols, item->spec.type->bits, to, 1);
        codes_from_store(item->spec.type, to, item->cols);
    }
    free(row);
    if (ok) {
        memcpy(out->scales, scales->data, (size_t)scales->bytes);
        if (super)
            memcpy(out->integers, integers->data, (size_t)integers->bytes);
        if (!linear_sane(out, item))
            ok = err_set(e, ERR_ENV,
                         "%s in %s: %s has codes or integers outside its type's range, or scales that are not finite",
                         name, dir, item->module);
    }
    if (!ok) {
        qlinear_free(out);
        err_hint(e, "repeat the command: what is damaged is made again");
    }
    return ok;
}
