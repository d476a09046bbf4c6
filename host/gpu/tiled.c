#include "host/gpu/tiled.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_memory.h"
#include "host/gpu/gpu_pipeline.h"

/* Tiles start at multiples of this many rows: 4-byte rows then keep any alignment that Vulkan may ask for. */
enum { ROW_STEP = 64 };
_Static_assert(ROW_STEP * 4 % GPU_ALLOC_ALIGN == 0, "tiles start aligned");

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
    double limit = gpu_cmd_work_limit(cmd, kernel, NULL);
    if (limit > 0 && work_per_row * w.per_tile > limit) {
        double units = limit / work_per_row / ROW_STEP;
        uint32_t fits = units < 1 ? ROW_STEP : (uint32_t)units * ROW_STEP;
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
        w->rows = (uint32_t)min_u64(w->rows, div_up(gpu_bytes_after(v->whole, w->row * v->row_bytes), v->row_bytes));
    }
    for (unsigned i = 0; i < w->n_views; i++) {
        const struct walked *v = &w->views[i];
        uint64_t offset = w->row * v->row_bytes,
                 whole = min_u64(v->whole.size - offset, gpu_bytes_after(v->whole, offset));
        *v->view = gpu_slice(v->whole, offset, min_u64(w->rows * v->row_bytes, whole));
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

/* One workgroup per row. */
static struct gpu_grid row_grid(const struct walk *w)
{
    return with_work(gpu_rows(w->rows), w);
}

/* One unit per invocation or per workgroup, as the variant has it. */
static struct gpu_grid unit_grid(const struct walk *w, uint64_t per_row)
{
    if (gpu_kernel_constant(gpu_cmd_gpu(w->cmd), w->kernel, NULL, SPEC_LANE_PER_UNIT, 0) != 0)
        return item_grid(w, per_row);
    return with_work(gpu_rows(w->rows * per_row), w);
}

#define COUNT(array) (unsigned)(sizeof(array) / sizeof *(array))
/* View `name` of the arguments `a`, whose rows are that many 4-byte elements apart. */
#define WALKED(name, elements)                                                                                         \
    {                                                                                                                  \
        &a.name, a.name, (uint64_t)(elements)*4                                                                        \
    }
#define WALKED_AS(name, of, elements)                                                                                  \
    {                                                                                                                  \
        &a.name, a.of, (uint64_t)(elements)*4                                                                          \
    }
/* Elements of a row of scales, of the optimiser's state. */
#define SCALES                             ((uint64_t)a.groups << a.offsets)
#define STATE                              ((uint64_t)GUMBEL_WORDS(a.levels) * a.cols)
#define WALK(kernel, n_rows, work_per_row) walk_rows(cmd, KERNEL_ID_##kernel, n_rows, work_per_row, views, COUNT(views))

/* tiled_KERNEL: over tiles t of the rows that the argument `count` counts, with the work of a row, the grid of a
 * tile, what else a tile sets, and the views that advance. */
#define TILED(kernel, count, work_per_row, grid, set, ...)                                                             \
    void tiled_##kernel(struct gpu_cmd *cmd, const struct kernel##_args *args)                                         \
    {                                                                                                                  \
        struct kernel##_args a = *args;                                                                                \
        const struct walked views[] = {__VA_ARGS__};                                                                   \
        struct walk t = WALK(kernel, args->count, work_per_row);                                                       \
        while (walk_next(&t)) {                                                                                        \
            a.count = t.rows;                                                                                          \
            set;                                                                                                       \
            run_##kernel(cmd, grid, &a);                                                                               \
        }                                                                                                              \
    }

TILED(rmsnorm_fwd, rows, a.cols, row_grid(&t), , WALKED(x, a.cols), WALKED(y, a.cols))
TILED(rmsnorm_bwd, rows, a.cols, row_grid(&t), , WALKED(x, a.cols), WALKED(dy, a.cols), WALKED(dx, a.cols))
TILED(add_bias, rows, a.cols, item_grid(&t, a.cols), , WALKED(x, a.cols), WALKED(y, a.cols))

#define SCALE_SEARCH(kernel)                                                                                           \
    void tiled_##kernel(struct gpu_cmd *cmd, const struct kernel##_args *args)                                         \
    {                                                                                                                  \
        struct kernel##_args a = *args;                                                                                \
        const struct walked views[] = {WALKED(w, a.ldw), WALKED(scales, SCALES)};                                      \
        uint64_t units = div_up(a.col1, a.group) - div_up(a.col0, a.group);                                            \
        if (units == 0)                                                                                                \
            return;                                                                                                    \
        struct walk t =                                                                                                \
            WALK(kernel, args->rows, (double)units * (a.group < a.cols ? a.group : a.cols) * a.candidates);            \
        while (walk_next(&t)) {                                                                                        \
            a.rows = t.rows;                                                                                           \
            if (!a.weighted)                                                                                           \
                a.weights = a.w;                                                                                       \
            run_##kernel(cmd, unit_grid(&t, units), &a);                                                               \
        }                                                                                                              \
    }
SCALE_SEARCH(scale_search)
SCALE_SEARCH(scale_search_uneven)

void tiled_affine_search(struct gpu_cmd *cmd, const struct affine_search_args *args)
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

TILED(project_scales, rows, 1.0 * a.count * a.per_super * (int)(a.hi - a.lo), item_grid(&t, a.count),
      assert(a.per_super <= SUPER_GROUPS_MAX), WALKED(scales, SCALES),
      WALKED(d, div_up(a.groups, a.per_super) << a.offsets), WALKED(integers, SCALES))
#define QUANTIZE(kernel)                                                                                               \
    TILED(kernel, rows, a.ldc, item_grid(&t, a.ldc), , WALKED(w, a.ldw), WALKED(scales, SCALES), WALKED(codes, a.ldc))
QUANTIZE(quantize)
QUANTIZE(quantize_uneven)
#define UNPACK_CODES(kernel)                                                                                           \
    TILED(kernel, rows, a.ldc, item_grid(&t, a.ldc), , WALKED(packed, a.ldp), WALKED(codes, a.ldc))
UNPACK_CODES(unpack_codes)
UNPACK_CODES(unpack_codes_uneven)
TILED(dequant, rows, a.ldc, item_grid(&t, a.ldc), , WALKED(codes, a.ldc), WALKED(scales, SCALES), WALKED(w, a.ldw))

/* The segment's diagonal block of R, from the aligned place before its first element; *r0: where that is in it. */
static struct gpu_view segment_block(struct gpu_view r, uint32_t col0, uint32_t count, uint32_t ldr, uint32_t *r0)
{
    uint64_t first = ((uint64_t)col0 * ldr + col0) * 4;
    uint64_t last = ((uint64_t)(col0 + count - 1) * ldr + col0 + count) * 4;
    uint64_t start = first / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
    *r0 = (uint32_t)((first - start) / 4);
    return gpu_slice(r, start, last - start);
}

static struct gpu_grid segment_grid(const struct walk *w)
{
    uint32_t per_lane = gpu_kernel_constant(gpu_cmd_gpu(w->cmd), w->kernel, NULL, SPEC_ROWS_PER_LANE, 1);
    return with_work(gpu_items(w->cmd, w->kernel, div_up(w->rows, per_lane)), w);
}

#define GPTQ_SEGMENT(kernel)                                                                                           \
    TILED(kernel, rows, 0.5 * a.count * a.count, segment_grid(&t), segment_of(a, args), WALKED(w, a.ldw),              \
          WALKED(scales, SCALES), WALKED(codes, a.ldc), WALKED(err, a.count))
#define segment_of(a, args)                                                                                            \
    (assert((a).count <= SEGMENT_MAX), (a).r = segment_block((args)->r, (a).col0, (a).count, (a).ldr, &(a).r0))
GPTQ_SEGMENT(gptq_segment)
GPTQ_SEGMENT(gptq_segment_uneven)

TILED(diagonal, n, 1, item_grid(&t, 1), a.row0 = t.row, WALKED(h, a.ldh), WALKED(diag, 1))
TILED(damp_diagonal, n, 1, item_grid(&t, 1), a.row0 = t.row, WALKED(h, a.ldh))
TILED(zero_dead, rows, a.cols, item_grid(&t, a.cols), , WALKED(w, a.ldw))

/* From the aligned place at or before element `first` to element `last`; *at0: where `first` is in it. */
static struct gpu_view span(struct gpu_view v, uint64_t first, uint64_t last, uint32_t *at0)
{
    uint64_t start = first * 4 / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
    *at0 = (uint32_t)(first - start / 4);
    return gpu_slice(v, start, last * 4 - start);
}

void tiled_flip_rows(struct gpu_cmd *cmd, const struct flip_args *args, uint32_t in_row, uint32_t out_row)
{
    struct flip_args a = *args;
    const struct walked both[] = {WALKED(out, a.ldo), WALKED(in, a.ldi)};
    struct walk t = walk_rows(cmd, KERNEL_ID_flip, args->rows, a.n, both, COUNT(both));
    t.n_views = 0; /* the input is walked from its end, and rows begin anywhere */
    while (walk_next(&t)) {
        uint64_t out = (uint64_t)(out_row + t.row) * a.ldo, end = (uint64_t)(in_row + args->rows - t.row) * a.ldi;
        t.rows = (uint32_t)min_u64(t.rows, div_up(gpu_bytes_after(args->out, out * 4), a.ldo * 4ull));
        t.rows = (uint32_t)min_u64(t.rows, gpu_bytes_before(args->in, end * 4) / (a.ldi * 4ull));
        uint64_t in = end - (uint64_t)t.rows * a.ldi;
        a.in = span(args->in, in, in + (uint64_t)(t.rows - 1) * a.ldi + a.n, &a.in0);
        a.out = span(args->out, out, out + (uint64_t)(t.rows - 1) * a.ldo + a.n, &a.out0);
        a.rows = t.rows;
        run_flip(cmd, item_grid(&t, a.n), &a);
    }
}

void tiled_flip(struct gpu_cmd *cmd, const struct flip_args *args)
{
    struct flip_args a = *args;
    a.rows = a.n;
    tiled_flip_rows(cmd, &a, 0, 0);
}

TILED(copy_rect, rows, a.cols, item_grid(&t, a.cols), , WALKED(src, a.lds), WALKED(dst, a.ldd))

void tiled_chol_block(struct gpu_cmd *cmd, const struct chol_block_args *args)
{
    struct gpu_grid one = gpu_rows(1);
    one.work = 1;
    struct chol_block_args a = *args;
    a.a = gpu_slice(a.a, 0, ((uint64_t)(a.nb - 1) * a.lda + a.nb) * 4);
    run_chol_block(cmd, one, &a);
}

/* As many groups a workgroup as it has columns for, or one an invocation. */
static struct gpu_grid gumbel_grid(const struct walk *w, const void *args, uint32_t group, uint32_t groups)
{
    uint64_t units = (uint64_t)w->rows * groups;
    uint32_t columns = gpu_kernel_constant(gpu_cmd_gpu(w->cmd), w->kernel, args, SPEC_COLUMNS, 0);
    uint32_t width = GUMBEL_COLS;
    if (columns == 0)
        return item_grid(w, groups);
    while (width < group && width < columns)
        width *= 2;
    return with_work(gpu_rows(div_up(units, columns / width)), w);
}

#define GUMBEL_INIT(kernel)                                                                                            \
    TILED(kernel, rows, a.cols, item_grid(&t, a.cols), a.row0 = args->row0 + t.row, WALKED(state, STATE),              \
          WALKED(scales, SCALES), WALKED(smom, SCALES), WALKED(codes, a.ldc), WALKED(w, a.cols), WALKED(diff, a.cols))
GUMBEL_INIT(gumbel_init)
GUMBEL_INIT(gumbel_init_uneven)
#define GUMBEL_STEP(kernel)                                                                                            \
    TILED(kernel, rows, a.cols, gumbel_grid(&t, &a, a.group, a.groups), a.row0 = args->row0 + t.row,                   \
          WALKED_AS(old_state, state, STATE), WALKED(state, STATE), WALKED(scales, SCALES), WALKED(smom, SCALES),      \
          WALKED(codes, a.ldc), WALKED(w, a.cols), WALKED(grad, a.cols), WALKED(diff, a.cols))
GUMBEL_STEP(gumbel_step)
GUMBEL_STEP(gumbel_step_uneven)
#define GUMBEL_CODES(kernel)                                                                                           \
    TILED(kernel, rows, a.ldc, item_grid(&t, a.ldc), , WALKED(state, STATE), WALKED(codes, a.ldc),                     \
          WALKED(codes_out, a.ldc))
GUMBEL_CODES(gumbel_codes)
GUMBEL_CODES(gumbel_codes_uneven)
TILED(scale_grad, rows, a.cols, unit_grid(&t, a.groups), , WALKED(grad, a.cols), WALKED(codes, a.ldc),
      WALKED(dscales, SCALES))
TILED(adam_step, n, 1, item_grid(&t, 1), , WALKED(param, 1), WALKED(m, 1), WALKED(v, 1), WALKED(grad, 1),
      WALKED(size, 1))

void tiled_col_sumsq(struct gpu_cmd *cmd, const struct col_sumsq_args *args)
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

TILED(row_dot, rows, a.cols, row_grid(&t), , WALKED(a, a.cols), WALKED(b, a.cols), WALKED(out, 1))
TILED(residual, rows, a.cols, row_grid(&t), , WALKED(a, a.cols), WALKED(b, a.cols), WALKED(w, 1), WALKED(d, a.cols),
      WALKED(out, 1))
TILED(round_scales, n, 1, item_grid(&t, 1), , WALKED(scales, 1))
TILED(scale_rows, rows, a.cols, item_grid(&t, a.cols), , WALKED(x, a.cols), WALKED(w, 1), WALKED(y, a.cols))
TILED(subtract, n, 1, item_grid(&t, 1), , WALKED(a, 1), WALKED(b, 1), WALKED(d, 1))

/* The same arguments, and a table behind them. */
#define LEVELS(name)                                                                                                   \
    _Static_assert(offsetof(struct name##_uneven_args, table0) + 8 > sizeof(struct name##_args),                       \
                   "the first ones are the same");                                                                     \
    void tiled_##name##_levels(struct gpu_cmd *cmd, const struct name##_args *args, const uint32_t *table)             \
    {                                                                                                                  \
        if (!table) {                                                                                                  \
            tiled_##name(cmd, args);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        struct name##_uneven_args a;                                                                                   \
        memcpy(&a, args, offsetof(struct name##_uneven_args, table0));                                                 \
        a.table0 = table[0], a.table1 = table[1], a.table2 = table[2], a.table3 = table[3];                            \
        tiled_##name##_uneven(cmd, &a);                                                                                \
    }
LEVELS(scale_search)
LEVELS(quantize)
LEVELS(unpack_codes)
LEVELS(gptq_segment)
LEVELS(gumbel_init)
LEVELS(gumbel_step)
LEVELS(gumbel_codes)
