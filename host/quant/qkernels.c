#include "host/quant/qkernels.h"

#include <assert.h>

#include "formats/quant_type.h"
#include "host/base/num.h"
#include "host/gpu/gpu_memory.h"
#include "host/gpu/gpu_pipeline.h"

/* Tiles start at multiples of this many rows: 4-byte rows then keep any alignment that Vulkan may ask for. */
enum { ROW_STEP = 64 };
_Static_assert(ROW_STEP * 4 % GPU_ALLOC_ALIGN == 0, "tiles start aligned");

_Static_assert(SCALE_F32 == STORED_F32 && SCALE_F16 == STORED_F16 && SCALE_BF16 == STORED_BF16,
               "a scale type is the same number in formats and in shaders");

/* A view that advances with the rows. */
struct walked {
    struct gpu_view *view; /* in the function's copy of the arguments */
    struct gpu_view whole;
    uint64_t row_bytes;
};

/* The tiles of one call: each is what a binding holds of every view and what a submission holds of work. */
struct walk {
    struct gpu_cmd *cmd;
    unsigned kernel;
    const struct walked *views;
    unsigned n_views;
    uint32_t total, per_tile; /* rows */
    double work_per_row;
    uint32_t row, rows; /* the current tile */
};

static struct walk walk_rows(struct gpu_cmd *cmd, unsigned kernel, uint32_t rows, double work_per_row,
                             const struct walked *views, unsigned n_views)
{
    struct walk w = {.cmd = cmd, .kernel = kernel, .views = views, .n_views = n_views, .total = rows};
    w.per_tile = rows;
    w.work_per_row = work_per_row;
    for (unsigned i = 0; i < n_views; i++) {
        uint32_t fits = gpu_tile_rows(gpu_cmd_gpu(cmd), views[i].row_bytes, rows);
        w.per_tile = fits < w.per_tile ? fits : w.per_tile;
    }
    double limit = gpu_cmd_work_limit(cmd, kernel);
    if (limit > 0 && work_per_row * w.per_tile > limit) {
        double steps = limit / work_per_row / ROW_STEP;
        uint32_t fits = steps < 1 ? ROW_STEP : (uint32_t)steps * ROW_STEP;
        w.per_tile = fits < w.per_tile ? fits : w.per_tile;
    }
    return w;
}

/* Points every view at the next tile's rows; false after the last. The last row of a strided view may be
 * short. */
static bool walk_next(struct walk *w)
{
    w->row += w->rows;
    if (w->row >= w->total)
        return false;
    w->rows = (uint32_t)min_u64(w->per_tile, w->total - w->row);
    for (unsigned i = 0; i < w->n_views; i++) {
        const struct walked *v = &w->views[i];
        uint64_t offset = w->row * v->row_bytes;
        *v->view = gpu_slice(v->whole, offset, min_u64(w->rows * v->row_bytes, v->whole.size - offset));
    }
    return true;
}

static struct gpu_grid with_work(struct gpu_grid grid, const struct walk *w)
{
    grid.work = w->work_per_row * w->rows;
    return grid;
}

/* One invocation per item. */
static struct gpu_grid item_grid(const struct walk *w, uint64_t per_row)
{
    return with_work(gpu_items(w->cmd, w->kernel, w->rows * per_row), w);
}

/* One unit per invocation or per workgroup, as the variant has it. */
static struct gpu_grid unit_grid(const struct walk *w, uint64_t per_row)
{
    if (gpu_kernel_constant(gpu_cmd_gpu(w->cmd), w->kernel, SPEC_LANE_PER_UNIT, 0) != 0)
        return item_grid(w, per_row);
    return with_work(gpu_rows(w->rows * per_row), w);
}

#define COUNT(array) (unsigned)(sizeof(array) / sizeof *(array))
/* View `name` of the arguments `a`, whose rows are that many 4-byte elements apart. */
#define WALKED(name, elements)                                                                               \
    {                                                                                                        \
        &a.name, a.name, (uint64_t)(elements)*4                                                              \
    }
#define WALK(kernel, n_rows, work_per_row)                                                                   \
    walk_rows(cmd, KERNEL_ID_##kernel, n_rows, work_per_row, views, COUNT(views))

void q_scale_search(struct gpu_cmd *cmd, const struct scale_search_args *args)
{
    struct scale_search_args a = *args;
    const struct walked views[] = {WALKED(w, a.ldw), WALKED(scales, (uint64_t)a.groups << a.offsets)};
    uint64_t units = div_up(a.col1, a.group) - div_up(a.col0, a.group);
    if (units == 0)
        return;
    struct walk t =
        WALK(scale_search, args->rows, (double)units * (a.group < a.cols ? a.group : a.cols) * a.steps);
    while (walk_next(&t)) {
        a.rows = t.rows;
        if (!a.weighted)
            a.weights = a.w;
        run_scale_search(cmd, unit_grid(&t, units), &a);
    }
}

void q_affine_search(struct gpu_cmd *cmd, const struct affine_search_args *args)
{
    struct affine_search_args a = *args;
    assert(a.group <= AFFINE_GROUP_MAX);
    const struct walked views[] = {WALKED(w, a.ldw), WALKED(scales, (uint64_t)a.groups * 2)};
    uint64_t units = div_up(a.col1, a.group) - div_up(a.col0, a.group);
    if (units == 0)
        return;
    struct walk t = WALK(affine_search, args->rows, (double)units * a.group);
    while (walk_next(&t)) {
        a.rows = t.rows;
        if (!a.weighted)
            a.weights = a.w;
        run_affine_search(cmd, item_grid(&t, units), &a);
    }
}

void q_project_scales(struct gpu_cmd *cmd, const struct project_scales_args *args)
{
    struct project_scales_args a = *args;
    assert(a.per_super <= SUPER_GROUPS_MAX);
    const struct walked views[] = {WALKED(scales, (uint64_t)a.groups << a.offsets)};
    struct walk t = WALK(project_scales, args->rows, (double)a.count * a.per_super * (int)(a.hi - a.lo));
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_project_scales(cmd, item_grid(&t, a.count), &a);
    }
}

void q_quantize(struct gpu_cmd *cmd, const struct quantize_args *args)
{
    struct quantize_args a = *args;
    const struct walked views[] = {WALKED(w, a.ldw), WALKED(scales, (uint64_t)a.groups << a.offsets),
                                   WALKED(codes, a.ldc)};
    struct walk t = WALK(quantize, args->rows, a.ldc);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_quantize(cmd, item_grid(&t, a.ldc), &a);
    }
}

void q_dequant(struct gpu_cmd *cmd, const struct dequant_args *args)
{
    struct dequant_args a = *args;
    const struct walked views[] = {WALKED(codes, a.ldc), WALKED(scales, (uint64_t)a.groups << a.offsets),
                                   WALKED(w, a.ldw)};
    struct walk t = WALK(dequant, args->rows, a.ldc);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_dequant(cmd, item_grid(&t, a.ldc), &a);
    }
}

void q_gptq_segment(struct gpu_cmd *cmd, const struct gptq_segment_args *args)
{
    struct gptq_segment_args a = *args;
    assert(a.count <= SEGMENT_MAX);
    const struct walked views[] = {WALKED(w, a.ldw), WALKED(scales, (uint64_t)a.groups << a.offsets),
                                   WALKED(codes, a.ldc), WALKED(err, a.count)};
    /* The segment's diagonal block of R, from the aligned place before its first element. */
    uint64_t first = ((uint64_t)a.col0 * a.ldr + a.col0) * 4;
    uint64_t last = ((uint64_t)(a.col0 + a.count - 1) * a.ldr + a.col0 + a.count) * 4;
    uint64_t start = first / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
    a.r = gpu_slice(args->r, start, last - start);
    a.r0 = (uint32_t)((first - start) / 4);
    struct walk t = WALK(gptq_segment, args->rows, 0.5 * a.count * a.count);
    uint32_t per_lane =
        gpu_kernel_constant(gpu_cmd_gpu(cmd), KERNEL_ID_gptq_segment, SPEC_ROWS_PER_LANE, 1);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_gptq_segment(cmd, with_work(gpu_items(cmd, KERNEL_ID_gptq_segment, div_up(t.rows, per_lane)), &t),
                         &a);
    }
}

void q_diagonal(struct gpu_cmd *cmd, const struct diagonal_args *args)
{
    struct diagonal_args a = *args;
    const struct walked views[] = {WALKED(h, a.ldh), WALKED(diag, 1)};
    struct walk t = WALK(diagonal, args->n, 1);
    while (walk_next(&t)) {
        a.n = t.rows;
        a.row0 = t.row;
        run_diagonal(cmd, item_grid(&t, 1), &a);
    }
}

void q_damp_diagonal(struct gpu_cmd *cmd, const struct damp_diagonal_args *args)
{
    struct damp_diagonal_args a = *args;
    const struct walked views[] = {WALKED(h, a.ldh)};
    struct walk t = WALK(damp_diagonal, args->n, 1);
    while (walk_next(&t)) {
        a.n = t.rows;
        a.row0 = t.row;
        run_damp_diagonal(cmd, item_grid(&t, 1), &a);
    }
}

void q_zero_dead(struct gpu_cmd *cmd, const struct zero_dead_args *args)
{
    struct zero_dead_args a = *args;
    const struct walked views[] = {WALKED(w, a.ldw)};
    struct walk t = WALK(zero_dead, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_zero_dead(cmd, item_grid(&t, a.cols), &a);
    }
}

void q_flip(struct gpu_cmd *cmd, const struct flip_args *args)
{
    struct flip_args a = *args;
    const struct walked both[] = {WALKED(out, a.ldo), WALKED(in, a.ldi)};
    struct walk t = walk_rows(cmd, KERNEL_ID_flip, args->n, a.n, both, COUNT(both));
    /* The input is walked from its end, so it is sliced here, from the aligned place before the rows asked
     * for. */
    t.n_views = 1;
    while (walk_next(&t)) {
        uint64_t first = (uint64_t)(a.n - t.row - t.rows) * a.ldi * 4;
        uint64_t start = first / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
        uint64_t last = first + ((uint64_t)(t.rows - 1) * a.ldi + a.n) * 4;
        a.in = gpu_slice(args->in, start, last - start);
        a.in0 = (uint32_t)((first - start) / 4);
        a.rows = t.rows;
        run_flip(cmd, item_grid(&t, a.n), &a);
    }
}

void q_copy_rect(struct gpu_cmd *cmd, const struct copy_rect_args *args)
{
    struct copy_rect_args a = *args;
    const struct walked views[] = {WALKED(src, a.lds), WALKED(dst, a.ldd)};
    struct walk t = WALK(copy_rect, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_copy_rect(cmd, item_grid(&t, a.cols), &a);
    }
}

void q_chol_block(struct gpu_cmd *cmd, const struct chol_block_args *args)
{
    struct gpu_grid one = gpu_rows(1);
    one.work = 1;
    struct chol_block_args a = *args;
    a.a = gpu_slice(a.a, 0, ((uint64_t)(a.nb - 1) * a.lda + a.nb) * 4);
    run_chol_block(cmd, one, &a);
}

void q_gumbel_init(struct gpu_cmd *cmd, const struct gumbel_init_args *args)
{
    struct gumbel_init_args a = *args;
    uint64_t state = (uint64_t)a.levels * a.cols;
    const struct walked views[] = {WALKED(logits, state),
                                   WALKED(mom, state),
                                   WALKED(scales, (uint64_t)a.groups << a.offsets),
                                   WALKED(smom, (uint64_t)a.groups << a.offsets),
                                   WALKED(codes, a.ldc),
                                   WALKED(w, a.cols),
                                   WALKED(diff, a.cols)};
    struct walk t = WALK(gumbel_init, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        a.row0 = args->row0 + t.row;
        run_gumbel_init(cmd, item_grid(&t, a.cols), &a);
    }
}

void q_gumbel_step(struct gpu_cmd *cmd, const struct gumbel_step_args *args)
{
    struct gumbel_step_args a = *args;
    a.old_logits = a.logits;
    a.old_mom = a.mom;
    uint64_t state = (uint64_t)a.levels * a.cols;
    const struct walked views[] = {WALKED(old_logits, state),
                                   WALKED(old_mom, state),
                                   WALKED(logits, state),
                                   WALKED(mom, state),
                                   WALKED(scales, (uint64_t)a.groups << a.offsets),
                                   WALKED(smom, (uint64_t)a.groups << a.offsets),
                                   WALKED(codes, a.ldc),
                                   WALKED(w, a.cols),
                                   WALKED(grad, a.cols),
                                   WALKED(diff, a.cols)};
    struct walk t = WALK(gumbel_step, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        a.row0 = args->row0 + t.row;
        run_gumbel_step(cmd, unit_grid(&t, a.groups), &a);
    }
}

void q_gumbel_codes(struct gpu_cmd *cmd, const struct gumbel_codes_args *args)
{
    struct gumbel_codes_args a = *args;
    const struct walked views[] = {WALKED(logits, (uint64_t)a.levels * a.cols), WALKED(codes, a.ldc),
                                   WALKED(codes_out, a.ldc)};
    struct walk t = WALK(gumbel_codes, args->rows, a.ldc);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_gumbel_codes(cmd, item_grid(&t, a.ldc), &a);
    }
}

void q_scale_grad(struct gpu_cmd *cmd, const struct scale_grad_args *args)
{
    struct scale_grad_args a = *args;
    const struct walked views[] = {WALKED(grad, a.cols), WALKED(codes, a.ldc),
                                   WALKED(dscales, (uint64_t)a.groups << a.offsets)};
    struct walk t = WALK(scale_grad, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_scale_grad(cmd, unit_grid(&t, a.groups), &a);
    }
}

void q_adam_step(struct gpu_cmd *cmd, const struct adam_step_args *args)
{
    struct adam_step_args a = *args;
    const struct walked views[] = {WALKED(param, 1), WALKED(m, 1), WALKED(v, 1), WALKED(grad, 1),
                                   WALKED(size, 1)};
    struct walk t = WALK(adam_step, args->n, 1);
    while (walk_next(&t)) {
        a.n = t.rows;
        run_adam_step(cmd, item_grid(&t, 1), &a);
    }
}

void q_col_sumsq(struct gpu_cmd *cmd, const struct col_sumsq_args *args)
{
    struct col_sumsq_args a = *args;
    const struct walked views[] = {WALKED(x, a.cols)};
    struct walk t = WALK(col_sumsq, args->rows, a.cols);
    t.per_tile = (uint32_t)min_u64(t.per_tile, COL_SUMSQ_ROWS);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_col_sumsq(cmd, with_work(gpu_items(cmd, KERNEL_ID_col_sumsq, a.cols), &t), &a);
    }
}

void q_row_dot(struct gpu_cmd *cmd, const struct row_dot_args *args)
{
    struct row_dot_args a = *args;
    const struct walked views[] = {WALKED(a, a.cols), WALKED(b, a.cols), WALKED(out, 1)};
    struct walk t = WALK(row_dot, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_row_dot(cmd, with_work(gpu_rows(t.rows), &t), &a);
    }
}

void q_round_scales(struct gpu_cmd *cmd, const struct round_scales_args *args)
{
    struct round_scales_args a = *args;
    const struct walked views[] = {WALKED(scales, 1)};
    struct walk t = WALK(round_scales, args->n, 1);
    while (walk_next(&t)) {
        a.n = t.rows;
        run_round_scales(cmd, item_grid(&t, 1), &a);
    }
}

void q_scale_rows(struct gpu_cmd *cmd, const struct scale_rows_args *args)
{
    struct scale_rows_args a = *args;
    const struct walked views[] = {WALKED(x, a.cols), WALKED(w, 1), WALKED(y, a.cols)};
    struct walk t = WALK(scale_rows, args->rows, a.cols);
    while (walk_next(&t)) {
        a.rows = t.rows;
        run_scale_rows(cmd, item_grid(&t, a.cols), &a);
    }
}

void q_subtract(struct gpu_cmd *cmd, const struct subtract_args *args)
{
    struct subtract_args a = *args;
    const struct walked views[] = {WALKED(a, 1), WALKED(b, 1), WALKED(d, 1)};
    struct walk t = WALK(subtract, args->n, 1);
    while (walk_next(&t)) {
        a.n = t.rows;
        run_subtract(cmd, item_grid(&t, 1), &a);
    }
}
