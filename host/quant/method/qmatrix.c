#include "host/quant/method/qmatrix.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/tiled.h"

_Static_assert(SCALE_F32 == STORED_F32 && SCALE_F16 == STORED_F16 && SCALE_BF16 == STORED_BF16 &&
                   SCALE_E8M0 == STORED_E8M0 && SCALE_E4M3 == STORED_E4M3,
               "a scale type is the same number in formats and in shaders");

uint32_t quant_offsets(const struct quant_spec *spec)
{
    return quant_type_planes(spec->type) - 1;
}

const uint32_t *quant_table(const struct quant_type *t, uint32_t words[TABLE_LEVELS / 4])
{
    if (!t->levels)
        return NULL;
    memset(words, 0, TABLE_LEVELS);
    for (unsigned k = 0; k < TABLE_LEVELS; k++)
        words[k / 4] |= (uint32_t)(uint8_t)t->levels[k] << k % 4 * 8;
    return words;
}

/* Super-blocks first .. first+count-1 of each row. */
static void project(struct gpu_cmd *cmd, const struct qmatrix *q, uint32_t first, uint32_t count)
{
    const struct quant_type *t = q->spec.type;
    tiled_project_scales(cmd, &(struct project_scales_args){.scales = q->scales,
                                                            .d = q->d,
                                                            .integers = q->integers,
                                                            .rows = q->rows,
                                                            .groups = q->groups,
                                                            .offsets = quant_offsets(&q->spec),
                                                            .per_super = quant_super_groups(&q->spec),
                                                            .first = first,
                                                            .count = count,
                                                            .lo = (uint32_t)t->scale_lo,
                                                            .hi = (uint32_t)t->scale_hi,
                                                            .offset_hi = (uint32_t)t->offset_hi,
                                                            .centre = 0.5f * (float)(t->lo + t->hi)});
}

/* Bytes of a row's scales of groups, and of those that are stored. */
static uint64_t group_bytes(const struct qmatrix *q)
{
    return quant_row_groups(&q->spec, q->cols) * 4ull;
}

static uint64_t stored_bytes(const struct qmatrix *q)
{
    return quant_row_scales(&q->spec, q->cols) * 4ull;
}

bool qmatrix_create(struct qmatrix *q, struct gpu_arena *arena, uint32_t rows, uint32_t cols, struct quant_spec spec,
                    struct err *e)
{
    *q = (struct qmatrix){.rows = rows, .cols = cols, .spec = spec};
    q->groups = (uint32_t)div_up(cols, spec.group);
    q->ldc = (uint32_t)div_up(cols, 4);
    return gpu_alloc(arena, (uint64_t)rows * q->ldc * 4, &q->codes, e) &&
           gpu_alloc(arena, rows * group_bytes(q), &q->scales, e) &&
           (!spec.type->super || (gpu_alloc(arena, rows * stored_bytes(q), &q->d, e) &&
                                  gpu_alloc(arena, rows * group_bytes(q), &q->integers, e)));
}

static struct gpu_view rows_of(struct gpu_view v, uint64_t row_bytes, uint32_t row0, uint32_t rows)
{
    return v.size ? gpu_slice(v, row0 * row_bytes, rows * row_bytes) : v;
}

struct qmatrix qmatrix_rows(const struct qmatrix *q, uint32_t row0, uint32_t rows)
{
    struct qmatrix part = *q;
    part.rows = rows;
    part.codes = rows_of(q->codes, q->ldc * 4ull, row0, rows);
    part.scales = rows_of(q->scales, group_bytes(q), row0, rows);
    part.d = rows_of(q->d, stored_bytes(q), row0, rows);
    part.integers = rows_of(q->integers, group_bytes(q), row0, rows);
    return part;
}

/* Whether the device's words are the host's codes, byte for byte: rows fill their words, lowest byte first. */
static bool same_codes(const struct qmatrix *q)
{
    const uint32_t one = 1;
    return q->cols % 4 == 0 && *(const uint8_t *)&one == 1;
}

static bool download_codes(struct gpu_cmd *cmd, const struct qmatrix *q, int8_t *codes, struct err *e)
{
    uint64_t n = (uint64_t)q->rows * q->ldc;
    if (same_codes(q))
        return gpu_download(cmd, q->codes, codes, n * 4, e);
    uint32_t *words = malloc((size_t)n * 4);
    bool ok = words ? gpu_download(cmd, q->codes, words, n * 4, e) : err_nomem(e, "codes", n * 4);
    for (uint32_t r = 0; ok && r < q->rows; r++)
        for (uint32_t c = 0; c < q->cols; c++)
            codes[(size_t)r * q->cols + c] = (int8_t)(uint8_t)(words[(size_t)r * q->ldc + c / 4] >> (c % 4 * 8) & 255u);
    free(words);
    return ok;
}

bool qmatrix_download(struct gpu_cmd *cmd, const struct qmatrix *q, struct qlinear *out, struct err *e)
{
    *out = (struct qlinear){.rows = q->rows, .cols = q->cols, .groups = q->groups, .spec = q->spec};
    if (gpu_cmd_counts(cmd))
        return true;
    if (!qlinear_init(out, q->rows, q->cols, q->spec, e))
        return false;
    bool super = q->spec.type->super > 0;
    uint64_t groups = q->rows * group_bytes(q) / 4;
    float *integers = malloc((size_t)groups * sizeof *integers);
    bool ok = integers || err_nomem(e, "scales", groups * 4);
    ok = ok && download_codes(cmd, q, out->codes, e) &&
         gpu_download(cmd, super ? q->d : q->scales, out->scales, q->rows * stored_bytes(q), e) &&
         (!super || gpu_download(cmd, q->integers, integers, groups * 4, e));
    for (uint64_t i = 0; ok && super && i < groups; i++)
        out->integers[i] = (int8_t)integers[i];
    free(integers);
    if (!ok)
        qlinear_free(out);
    return ok;
}

/* Scales of the groups, and with super-blocks what they are products of. */
static bool upload_scales(struct gpu_cmd *cmd, const struct qmatrix *q, const struct qlinear *in, struct err *e)
{
    uint64_t bytes = q->rows * group_bytes(q);
    uint32_t planes = quant_type_planes(q->spec.type);
    gpu_upload(cmd, in->integers ? q->d : q->scales, in->scales, q->rows * stored_bytes(q));
    if (!in->integers)
        return true;
    float *of_groups = malloc((size_t)bytes);
    if (!of_groups)
        return err_nomem(e, "scales", bytes);
    for (size_t i = 0; i < bytes / 4; i++)
        of_groups[i] = in->integers[i];
    gpu_upload(cmd, q->integers, of_groups, bytes);
    for (size_t i = 0; i < bytes / 4; i++)
        of_groups[i] = qlinear_scale(in, (uint32_t)(i / q->groups / planes), (uint32_t)(i / q->groups % planes),
                                     (uint32_t)(i % q->groups));
    gpu_upload(cmd, q->scales, of_groups, bytes);
    free(of_groups);
    return true;
}

bool qmatrix_upload_codes(struct gpu_cmd *cmd, const struct qmatrix *q, const struct qlinear *in, struct err *e)
{
    uint64_t n = (uint64_t)q->rows * q->ldc;
    if (same_codes(q)) {
        gpu_upload(cmd, q->codes, in->codes, n * 4);
        return true;
    }
    uint32_t *words = calloc((size_t)n, 4);
    if (!words)
        return err_nomem(e, "codes", n * 4);
    for (uint32_t r = 0; r < q->rows; r++)
        for (uint32_t c = 0; c < q->cols; c++)
            words[(size_t)r * q->ldc + c / 4] |= (uint32_t)(uint8_t)in->codes[(size_t)r * q->cols + c] << (c % 4 * 8);
    gpu_upload(cmd, q->codes, words, n * 4);
    free(words);
    return true;
}

bool qmatrix_upload(struct gpu_cmd *cmd, const struct qmatrix *q, const struct qlinear *in, struct err *e)
{
    return gpu_cmd_counts(cmd) || (qmatrix_upload_codes(cmd, q, in, e) && upload_scales(cmd, q, in, e));
}

void qmatrix_copy(struct gpu_cmd *cmd, const struct qmatrix *to, const struct qmatrix *from)
{
    gpu_copy(cmd, to->codes, from->codes, to->codes.size);
    gpu_copy(cmd, to->scales, from->scales, to->scales.size);
    if (to->spec.type->super) {
        gpu_copy(cmd, to->d, from->d, to->d.size);
        gpu_copy(cmd, to->integers, from->integers, to->integers.size);
    }
}

void qmatrix_dequant(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w)
{
    tiled_dequant(cmd, &(struct dequant_args){.codes = q->codes,
                                              .scales = q->scales,
                                              .w = w,
                                              .rows = q->rows,
                                              .cols = q->cols,
                                              .ldw = q->cols,
                                              .group = q->spec.group,
                                              .groups = q->groups,
                                              .ldc = q->ldc,
                                              .offsets = quant_offsets(&q->spec)});
}

void qmatrix_round_scales(struct gpu_cmd *cmd, const struct qmatrix *q)
{
    if (q->spec.type->super)
        project(cmd, q, 0, q->groups / quant_super_groups(&q->spec));
    else
        tiled_round_scales(cmd, &(struct round_scales_args){.scales = q->scales,
                                                            .n = q->rows * (q->groups << quant_offsets(&q->spec)),
                                                            .scale_type = (uint32_t)q->spec.scale});
}

void qmatrix_search(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, struct gpu_view weights,
                    uint32_t col0, uint32_t col1, const struct scale_search_options *o)
{
    const struct quant_type *type = q->spec.type;
    uint32_t table[TABLE_LEVELS / 4];
    if (quant_offsets(&q->spec))
        tiled_affine_search(cmd, &(struct affine_search_args){QMATRIX_GROUPS(q), .w = w, .weights = weights,
                                                              .weighted = weights.size > 0, .scales = q->scales,
                                                              .ldw = q->cols, .col0 = col0, .col1 = col1});
    else
        tiled_scale_search_levels(
            cmd,
            &(struct scale_search_args){QMATRIX_GROUPS(q), .w = w, .weights = weights, .weighted = weights.size > 0,
                                        .scales = q->scales, .ldw = q->cols, .col0 = col0, .col1 = col1,
                                        .candidates = o->candidates, .power = o->power,
                                        .scale_type = type->super ? STORED_F32 : (uint32_t)q->spec.scale},
            quant_table(type, table));
    if (type->super)
        project(cmd, q, col0 / type->super, (uint32_t)div_up(col1 - col0, type->super));
}

void quantize_rtn(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, const struct scale_search_options *o)
{
    uint32_t table[TABLE_LEVELS / 4];
    qmatrix_search(cmd, q, w, (struct gpu_view){0}, 0, q->cols, o);
    tiled_quantize_levels(cmd,
                          &(struct quantize_args){QMATRIX_GROUPS(q), .w = w, .scales = q->scales, .codes = q->codes,
                                                  .ldw = q->cols, .ldc = q->ldc, .offsets = quant_offsets(&q->spec)},
                          quant_table(q->spec.type, table));
}

bool hessian_loss(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, uint32_t rows, uint32_t cols,
                  struct gpu_view h, struct gpu_matrix outputs, struct gpu_arena *scratch, double *loss, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(scratch);
    const uint32_t unit = outputs.view.size ? HESSIAN_TILE : 64;
    uint32_t most = (uint32_t)min_u64(rows, max_u64(LOSS_BYTES / (cols * 4ull) / unit, 1) * unit);
    uint64_t bytes = (uint64_t)most * cols * 4;
    struct gpu_view d, dh, sums, with_outputs = {0};
    float *host = malloc((size_t)rows * sizeof *host);
    bool ok = host ? gpu_alloc(scratch, bytes, &d, e) && gpu_alloc(scratch, bytes, &dh, e) &&
                         gpu_alloc(scratch, (uint64_t)rows * 4, &sums, e)
                   : err_nomem(e, "row losses", (uint64_t)rows * sizeof *host);
    ok = ok && (!outputs.view.size || gpu_alloc(scratch, bytes, &with_outputs, e));
    for (uint32_t row = 0, n; ok && row < rows; row += n) {
        n = (uint32_t)min_u64(most, rows - row);
        struct gpu_view mine = gpu_slice(w, (uint64_t)row * cols * 4, (uint64_t)n * cols * 4), left = mine;
        if (q) {
            struct qmatrix part = qmatrix_rows(q, row, n);
            qmatrix_dequant(cmd, &part, dh);
            tiled_subtract(cmd, &(struct subtract_args){.a = dh, .b = mine, .d = d, .n = n * cols});
            left = d;
        }
        gpu_gemm(cmd,
                 &(struct gpu_product){
                     .a = {left, cols}, .b = {h, cols}, .c = {dh, cols}, .m = n, .n = cols, .k = cols, .alpha = 1});
        if (outputs.view.size)
            output_hessian_times(cmd, outputs, row, n, dh, with_outputs, cols, GEMM_EXACT);
        tiled_row_dot(cmd, &(struct row_dot_args){.a = left,
                                                  .b = outputs.view.size ? with_outputs : dh,
                                                  .out = gpu_slice(sums, row * 4ull, n * 4ull),
                                                  .rows = n,
                                                  .cols = cols});
    }
    ok = ok && gpu_download(cmd, sums, host, (uint64_t)rows * 4, e);
    for (uint32_t r = 0; ok && r < rows; r++)
        loss[r] = host[r];
    free(host);
    gpu_arena_reset(scratch, mark);
    return ok;
}
