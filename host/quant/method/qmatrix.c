#include "host/quant/method/qmatrix.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/tiled.h"

_Static_assert(SCALE_F32 == STORED_F32 && SCALE_F16 == STORED_F16 && SCALE_BF16 == STORED_BF16,
               "a scale type is the same number in formats and in shaders");

uint32_t quant_offsets(const struct quant_spec *spec)
{
    return quant_type_planes(spec->type) - 1;
}

uint32_t quant_row_scales(const struct quant_spec *spec, uint32_t cols)
{
    return quant_type_planes(spec->type) * (uint32_t)div_up(cols, spec->group);
}

uint32_t quant_row_steps(const struct quant_spec *spec, uint32_t cols)
{
    const struct quant_type *t = spec->type;
    return t->super ? quant_type_planes(t) * (uint32_t)div_up(cols, t->super) : quant_row_scales(spec, cols);
}

static uint32_t groups_per_super(const struct quant_spec *spec)
{
    return spec->type->super / spec->group;
}

/* Super-blocks first .. first+count-1 of each row. */
static void project(struct gpu_cmd *cmd, const struct quant_spec *spec, struct gpu_view scales, uint32_t rows,
                    uint32_t groups, uint32_t first, uint32_t count)
{
    const struct quant_type *t = spec->type;
    tiled_project_scales(cmd, &(struct project_scales_args){.scales = scales,
                                                            .rows = rows,
                                                            .groups = groups,
                                                            .offsets = quant_offsets(spec),
                                                            .per_super = groups_per_super(spec),
                                                            .first = first,
                                                            .count = count,
                                                            .lo = (uint32_t)t->scale_lo,
                                                            .hi = (uint32_t)t->scale_hi,
                                                            .offset_hi = (uint32_t)t->offset_hi,
                                                            .centre = 0.5f * (float)(t->lo + t->hi)});
}

bool qmatrix_create(struct qmatrix *q, struct gpu_arena *arena, uint32_t rows, uint32_t cols, struct quant_spec spec,
                    struct err *e)
{
    *q = (struct qmatrix){.rows = rows, .cols = cols, .spec = spec};
    q->groups = (uint32_t)div_up(cols, spec.group);
    q->ldc = (uint32_t)div_up(cols, 4);
    return gpu_alloc(arena, (uint64_t)rows * q->ldc * 4, &q->codes, e) &&
           gpu_alloc(arena, (uint64_t)rows * quant_row_scales(&spec, cols) * 4, &q->scales, e);
}

bool qmatrix_download(struct gpu_cmd *cmd, const struct qmatrix *q, struct qlinear *out, struct err *e)
{
    *out = (struct qlinear){.rows = q->rows, .cols = q->cols, .groups = q->groups, .spec = q->spec};
    if (gpu_cmd_counts(cmd))
        return true;
    if (!qlinear_init(out, q->rows, q->cols, q->spec, e))
        return false;
    uint64_t n = (uint64_t)q->rows * q->ldc;
    uint32_t *words = malloc((size_t)n * 4);
    bool ok = words ? gpu_download(cmd, q->codes, words, n * 4, e) : err_nomem(e, "codes", n * 4);
    ok =
        ok && gpu_download(cmd, q->scales, out->scales, (uint64_t)q->rows * quant_row_scales(&q->spec, q->cols) * 4, e);
    for (uint32_t r = 0; ok && r < q->rows; r++)
        for (uint32_t c = 0; c < q->cols; c++)
            out->codes[(size_t)r * q->cols + c] =
                (int8_t)(uint8_t)(words[(size_t)r * q->ldc + c / 4] >> (c % 4 * 8) & 255u);
    free(words);
    if (!ok)
        qlinear_free(out);
    return ok;
}

bool qmatrix_upload(struct gpu_cmd *cmd, const struct qmatrix *q, const struct qlinear *in, struct err *e)
{
    uint64_t n = (uint64_t)q->rows * q->ldc;
    if (gpu_cmd_counts(cmd))
        return true;
    uint32_t *words = calloc((size_t)n, 4);
    if (!words)
        return err_nomem(e, "codes", n * 4);
    for (uint32_t r = 0; r < q->rows; r++)
        for (uint32_t c = 0; c < q->cols; c++)
            words[(size_t)r * q->ldc + c / 4] |= (uint32_t)(uint8_t)in->codes[(size_t)r * q->cols + c] << (c % 4 * 8);
    gpu_upload(cmd, q->codes, words, n * 4);
    gpu_upload(cmd, q->scales, in->scales, (uint64_t)q->rows * quant_row_scales(&q->spec, q->cols) * 4);
    free(words);
    return true;
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

void quant_round_scales(struct gpu_cmd *cmd, const struct quant_spec *spec, struct gpu_view scales, uint32_t rows,
                        uint32_t groups)
{
    if (spec->type->super)
        project(cmd, spec, scales, rows, groups, 0, (uint32_t)div_up(groups, groups_per_super(spec)));
    else
        tiled_round_scales(cmd, &(struct round_scales_args){.scales = scales,
                                                            .n = rows * (groups << quant_offsets(spec)),
                                                            .scale_type = (uint32_t)spec->scale});
}

void qmatrix_round_scales(struct gpu_cmd *cmd, const struct qmatrix *q)
{
    quant_round_scales(cmd, &q->spec, q->scales, q->rows, q->groups);
}

void qmatrix_search(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, struct gpu_view weights,
                    uint32_t col0, uint32_t col1, const struct scale_search_options *o)
{
    const struct quant_type *type = q->spec.type;
    if (quant_offsets(&q->spec))
        tiled_affine_search(cmd, &(struct affine_search_args){.w = w,
                                                              .weights = weights,
                                                              .weighted = weights.size > 0,
                                                              .scales = q->scales,
                                                              .rows = q->rows,
                                                              .cols = q->cols,
                                                              .ldw = q->cols,
                                                              .col0 = col0,
                                                              .col1 = col1,
                                                              .group = q->spec.group,
                                                              .groups = q->groups,
                                                              .lo = (uint32_t)type->lo,
                                                              .hi = (uint32_t)type->hi});
    else
        tiled_scale_search(cmd, &(struct scale_search_args){.w = w,
                                                            .weights = weights,
                                                            .weighted = weights.size > 0,
                                                            .scales = q->scales,
                                                            .rows = q->rows,
                                                            .cols = q->cols,
                                                            .ldw = q->cols,
                                                            .col0 = col0,
                                                            .col1 = col1,
                                                            .group = q->spec.group,
                                                            .groups = q->groups,
                                                            .lo = (uint32_t)type->lo,
                                                            .hi = (uint32_t)type->hi,
                                                            .candidates = o->candidates,
                                                            .power = o->power,
                                                            .scale_type = (uint32_t)q->spec.scale});
    if (type->super)
        project(cmd, &q->spec, q->scales, q->rows, q->groups, col0 / type->super,
                (uint32_t)div_up(col1 - col0, type->super));
}

void quantize_rtn(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, const struct scale_search_options *o)
{
    qmatrix_search(cmd, q, w, (struct gpu_view){0}, 0, q->cols, o);
    tiled_quantize(cmd, &(struct quantize_args){.w = w,
                                                .scales = q->scales,
                                                .codes = q->codes,
                                                .rows = q->rows,
                                                .cols = q->cols,
                                                .ldw = q->cols,
                                                .group = q->spec.group,
                                                .groups = q->groups,
                                                .ldc = q->ldc,
                                                .lo = (uint32_t)q->spec.type->lo,
                                                .hi = (uint32_t)q->spec.type->hi,
                                                .offsets = quant_offsets(&q->spec)});
}

bool hessian_loss(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, uint32_t rows, uint32_t cols,
                  struct gpu_view h, struct gpu_arena *scratch, double *loss, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(scratch);
    uint64_t bytes = (uint64_t)rows * cols * 4;
    struct gpu_view d, dh, sums;
    float *host = malloc((size_t)rows * sizeof *host);
    bool ok = host ? gpu_alloc(scratch, bytes, &d, e) && gpu_alloc(scratch, bytes, &dh, e) &&
                         gpu_alloc(scratch, (uint64_t)rows * 4, &sums, e)
                   : err_nomem(e, "row losses", (uint64_t)rows * sizeof *host);
    if (ok) {
        if (q) {
            qmatrix_dequant(cmd, q, dh);
            tiled_subtract(cmd, &(struct subtract_args){.a = dh, .b = w, .d = d, .n = rows * cols});
        } else {
            d = w;
        }
        gpu_gemm(cmd, (struct gpu_matrix){d, cols}, (struct gpu_matrix){h, cols}, (struct gpu_matrix){dh, cols}, rows,
                 cols, cols, 1.0f, 0.0f);
        tiled_row_dot(cmd, &(struct row_dot_args){.a = d, .b = dh, .out = sums, .rows = rows, .cols = cols});
        ok = gpu_download(cmd, sums, host, (uint64_t)rows * 4, e);
    }
    for (uint32_t r = 0; ok && r < rows; r++)
        loss[r] = host[r];
    free(host);
    gpu_arena_reset(scratch, mark);
    return ok;
}
