#include "lib/kernel_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/tiled.h"

/* ---- buffers ---- */

#define MATRIX_OF(rows, cols) ((uint64_t)(rows) * (cols))
#define MATRIX                MATRIX_OF(s->rows, s->cols)
#define QUERIES               MATRIX_OF(s->windows * s->ctx, s->heads * s->dim)
#define KEYS                  MATRIX_OF(s->windows * s->ctx, s->kv_heads * s->dim)
#define HEADS                 MATRIX_OF(s->windows * s->ctx, s->heads)
#define CODES                 MATRIX_OF(s->rows, s->ldc)
#define SCALES                MATRIX_OF(s->rows, s->groups << s->offsets)
#define SUPERS                ((uint32_t)div_up(s->groups, s->per_super))
#define STATE                 (MATRIX * GUMBEL_WORDS(s->levels))
/* Elements from the first to the last of a matrix. */
#define EXTENT(rows, cols, ld) (((uint64_t)(rows)-1) * (ld) + (cols))

#define D(x, v)                                                                                                        \
    if (s->x == 0)                                                                                                     \
        s->x = v;
#define GROUPED D(groups, (uint32_t)div_up(s->cols, s->group)) D(ldc, (uint32_t)div_up(s->cols, 4)) D(ldw, s->cols)

#define ADD(...)                 b[n++] = (struct kernel_buffer){__VA_ARGS__};
#define IN(n_, fill_, x)         ADD(.n = n_, .fill = FILL_##fill_, .size = x)
#define IO(n_, fill_, x)         ADD(.n = n_, .fill = FILL_##fill_, .size = x, .written = true)
#define OUT(n_)                  ADD(.n = n_, .written = true)
#define AS(i)                    ADD(.fill = FILL_AS, .as = i)
#define IN_BELOW(n_, bound)      ADD(.n = n_, .fill = FILL_BELOW, .cols = bound)
#define LD(rows, cols_, ld_)     .n = EXTENT(rows, cols_, ld_), .cols = cols_, .ld = ld_
#define IN_LD(rows, cols, ld, x) ADD(LD(rows, cols, ld), .fill = FILL_RANDOM, .size = x)
#define IO_LD(rows, cols, ld, x) ADD(LD(rows, cols, ld), .fill = FILL_RANDOM, .size = x, .written = true)
#define OUT_LD(rows, cols, ld)   ADD(LD(rows, cols, ld), .written = true)
#define IN_FACTOR(rows, ld, x)   ADD(LD(rows, rows, ld), .fill = FILL_DIAGONAL, .size = x)
#define IO_FACTOR(rows, ld, x)   ADD(LD(rows, rows, ld), .fill = FILL_DIAGONAL, .size = x, .written = true)

unsigned kernel_case_buffers(unsigned kernel, struct kernel_shape *s, struct kernel_buffer b[KERNEL_BUFFERS])
{
    unsigned n = 0;
    switch (kernel) {
#define CALL(name, defaults, how, buffers)                                                                             \
    case KERNEL_ID_##name:                                                                                             \
        defaults buffers break;
#include "lib/kernel_cases.def"
#undef CALL
    }
    return n;
}

uint32_t kernel_case_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Sum of four uniforms. */
float kernel_case_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)kernel_case_random(state) / 2147483648.0f - 0.5f;
    return sum * 1.7320508f;
}

static float number(const struct kernel_buffer *b, const struct kernel_shape *s, uint64_t *state, uint64_t i)
{
    float x = b->size * kernel_case_normal(state);
    switch (b->fill) {
    case FILL_POSITIVE:
        return 0.01f + x * x;
    case FILL_DIAGONAL:
        return i % (b->ld + 1) == 0 ? 0.5f + fabsf(x) : x;
    case FILL_SCALES:
        return !s->offsets ? x : i / s->groups % 2 ? -fabsf(x) : fabsf(x);
    case FILL_ANGLES:
        /* NOLINTNEXTLINE(bugprone-integer-division): pairs */
        return i % 2 ? sinf(0.37f * (float)(i / 2)) : cosf(0.37f * (float)(i / 2));
    default:
        return b->ld && i % b->ld >= b->cols ? NAN : x;
    }
}

/* Code number k of those that there are. */
static uint32_t code_of(const struct kernel_shape *s, uint32_t k)
{
    const uint32_t table[] = {s->table0, s->table1, s->table2, s->table3};
    return s->table0 ? table[k / 4] >> k % 4 * 8 : s->lo + k;
}

static uint32_t word(const struct kernel_buffer *b, const struct kernel_shape *s, uint64_t *state, uint64_t i)
{
    uint32_t r = kernel_case_random(state), levels = s->table0 ? TABLE_LEVELS : s->hi - s->lo + 1, bits = 0;
    switch (b->fill) {
    case FILL_BITS:
        return r ^ kernel_case_random(state) << 16;
    case FILL_BELOW:
        return r % b->cols;
    case FILL_HALVES: /* of either kind */
        return r & 0xbfffbfffu;
    case FILL_CODES:
        for (uint32_t lane = 0; lane < 4 && i % s->ldc * 4 + lane < s->cols; lane++)
            bits |= (uint32_t)(uint8_t)code_of(s, kernel_case_random(state) % levels) << 8 * lane;
        return bits;
    default:
        return 0;
    }
}

void kernel_case_fill(const struct kernel_buffer *b, const struct kernel_shape *s, uint64_t *state, void *out,
                      uint64_t n)
{
    bool words = b->fill == FILL_ZERO || b->fill == FILL_BITS || b->fill == FILL_BELOW || b->fill == FILL_HALVES ||
                 b->fill == FILL_CODES;
    for (uint64_t i = 0; i < n; i++)
        if (words)
            ((uint32_t *)out)[i] = word(b, s, state, i);
        else
            ((float *)out)[i] = number(b, s, state, i);
}

bool kernel_case_buffer(struct gpu_cmd *cmd, struct gpu_arena *arena, const struct kernel_buffer *b,
                        const struct kernel_shape *s, struct gpu_view *view, struct err *e)
{
    enum { CHUNK = 1 << 16 }; /* numbers are made by the host, which takes longer than what is timed */
    uint64_t chunk = min_u64(b->n, CHUNK), state = 1;
    if (!gpu_alloc(arena, b->n * 4, view, e))
        return false;
    if (b->fill == FILL_NOTHING)
        return true;
    float *x = malloc(chunk * sizeof *x);
    if (!x)
        return err_nomem(e, "what a kernel reads", chunk * sizeof *x);
    kernel_case_fill(b, s, &state, x, chunk);
    for (uint64_t i = 0; i < b->n; i += chunk) {
        uint64_t bytes = min_u64(chunk, b->n - i) * 4;
        gpu_upload(cmd, gpu_slice(*view, i * 4, bytes), x, bytes);
    }
    free(x);
    return gpu_cmd_finish(cmd, e);
}

bool kernel_case_make(struct gpu_cmd *cmd, struct gpu_arena *arena, unsigned kernel, struct kernel_shape *s,
                      struct gpu_view views[KERNEL_BUFFERS], struct err *e)
{
    struct kernel_buffer b[KERNEL_BUFFERS];
    unsigned n = kernel_case_buffers(kernel, s, b);
    for (unsigned i = 0; i < n; i++)
        if (b[i].fill != FILL_AS && !kernel_case_buffer(cmd, arena, &b[i], s, &views[i], e))
            return false;
    for (unsigned i = 0; i < n; i++)
        if (b[i].fill == FILL_AS)
            views[i] = views[b[i].as];
    return true;
}

/* ---- calls ---- */

/* C = alpha A B^T + beta C, in the pieces of gpu_gemm. */
static void call_product(struct gpu_cmd *cmd, const struct kernel_shape *s, const struct gpu_view *v, enum gemm_use use,
                         bool nn, bool tn)
{
    gpu_gemm(cmd, &(struct gpu_product){.a = {v[0], s->lda},
                                        .b = {v[1], s->ldb},
                                        .c = {v[3], s->ldc},
                                        .m = s->m,
                                        .n = s->n,
                                        .k = s->k,
                                        .alpha = s->alpha,
                                        .beta = s->beta,
                                        .a_transposed = tn,
                                        .b_transposed = nn,
                                        .use = use});
}

static struct gpu_grid squares(struct gpu_cmd *cmd, unsigned kernel, uint32_t rows, uint32_t cols)
{
    uint32_t side = gpu_kernel_constant(gpu_cmd_gpu(cmd), kernel, NULL, SPEC_TILE, 1);
    return gpu_rows(div_up(rows, side) * div_up(cols, side));
}

void kernel_case_call(struct gpu_cmd *cmd, unsigned kernel, const struct kernel_shape *s, const struct gpu_view *views,
                      union kernel_args *args)
{
    const unsigned n = kernel_decls[kernel].n_buffers;
    struct gpu_grid grid = {0};
    kernel_args_fill(kernel, s, views, args);
    switch (kernel) {
#define ITEMS(n)             grid = gpu_items(cmd, kernel, n);
#define ROWS(n)              grid = gpu_rows(n);
#define SQUARES(rows, cols)  grid = squares(cmd, kernel, rows, cols);
#define PRODUCT(use, nn, tn) call_product(cmd, s, views, use, nn, tn);
#define TILED(name)          tiled_##name(cmd, &args->name);
#define CALL(name, defaults, how, buffers)                                                                             \
    case KERNEL_ID_##name:                                                                                             \
        how break;
#include "lib/kernel_cases.def"
#undef CALL
    }
    if (grid.x)
        gpu_dispatch(cmd, kernel, grid, views, n, (const char *)args + n * sizeof *views,
                     kernel_decls[kernel].push_bytes);
}

/* ---- trials ---- */

static const struct trial_case trial_cases[] = {
#define TRIAL(kernel_, rounding_, ...)                                                                                 \
    {.kernel = KERNEL_ID_##kernel_, .rounding = ROUNDS_##rounding_, .s = {__VA_ARGS__}},
#include "lib/kernel_cases.def"
#undef TRIAL
};
const size_t n_trial_cases = sizeof trial_cases / sizeof *trial_cases;

void trial_case(size_t i, struct trial_case *c)
{
    *c = trial_cases[i];
}

/* ---- bench ---- */

enum {
#define BENCH(name, ...) BENCH_##name,
#include "lib/kernel_cases.def"
#undef BENCH
    BENCH_COUNT
};
const size_t n_bench_cases = BENCH_COUNT;

void bench_case(size_t i, const struct bench_sizes *b, struct bench_case *c)
{
    const uint32_t R = b->rows, C = b->cols, CUBE = b->cube, MIN_RC = R < C ? R : C;
    const double N = (double)R * C;
    *c = (struct bench_case){0};
    switch (i) {
#define TEXT(...)            snprintf(c->shape, sizeof c->shape, __VA_ARGS__)
#define WORK(flops_, bytes_) c->flops = flops_, c->bytes = bytes_
#define BENCH(name, kernel_, text, work, ...)                                                                          \
    case BENCH_##name:                                                                                                 \
        c->kernel = KERNEL_ID_##kernel_;                                                                               \
        c->s = (struct kernel_shape){__VA_ARGS__};                                                                     \
        TEXT text;                                                                                                     \
        work;                                                                                                          \
        break;
#include "lib/kernel_cases.def"
#undef BENCH
    }
}
