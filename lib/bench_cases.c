#include "lib/bench_cases.h"

#include <stdio.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/quant/qkernels.h"

enum { GROUP = 128, HEAD_DIM = 64, LEVELS = 4, STEPS = 16, SEGMENT = 128, CHOL = 64 };
enum { SMALL_GROUP = 32, AFFINE_CANDIDATES = 64 };

#define N(b)       ((double)(b)->rows * (b)->cols)
#define SHAPE(...) snprintf(shape, cap, __VA_ARGS__)
#define CASE(name) static struct bench_work name(const struct bench *b, char *shape, size_t cap)
/* One invocation per item; one workgroup per row. */
#define ITEMS(kernel, n) gpu_items(b->cmd, KERNEL_ID_##kernel, n)
#define VARIANT(kernel, args)                                                                                \
    gpu_kernel_variant(gpu_cmd_gpu(b->cmd), KERNEL_ID_##kernel, args, &(struct err){0})
#define BYTES(x)         ((struct bench_work){.bytes = (x)})
#define FLOPS(x)         ((struct bench_work){.flops = (x)})

static uint32_t count(const struct bench *b)
{
    return b->rows * b->cols;
}

static uint32_t groups(const struct bench *b)
{
    return (uint32_t)div_up(b->cols, GROUP);
}

static uint32_t constant(const struct bench *b, unsigned kernel, uint32_t id)
{
    return gpu_kernel_constant(gpu_cmd_gpu(b->cmd), kernel, id, 1);
}

double bench_peak_flops(const struct bench *b)
{
    const uint32_t n = count(b) / 32, turns = 256, chains = 12, unrolled = 8;
    run_peak_fma(b->cmd, ITEMS(peak_fma, n),
                 &(struct peak_fma_args){.out = b->buf[2], .n = n, .turns = turns, .by = 0.5f});
    return 2.0 * n * turns * chains * unrolled;
}

CASE(peak_fma)
{
    SHAPE("12 chains");
    return FLOPS(bench_peak_flops(b));
}

/* ---- data movement ----------------------------------------------------------------------------------------
 */

CASE(unpack16)
{
    SHAPE("%u bf16", count(b));
    run_unpack16(b->cmd, ITEMS(unpack16, count(b) / 2),
                 &(struct unpack16_args){.src = b->buf[2], .dst = b->buf[3], .n = count(b), .kind = 1});
    return BYTES(6 * N(b));
}

CASE(transpose)
{
    uint32_t side = constant(b, KERNEL_ID_transpose, SPEC_TILE);
    SHAPE("%u x %u", b->rows, b->cols);
    run_transpose(b->cmd, gpu_rows(div_up(b->rows, side) * div_up(b->cols, side)),
                  &(struct transpose_args){.src = b->buf[2],
                                           .dst = b->buf[3],
                                           .rows = b->rows,
                                           .cols = b->cols,
                                           .lds = b->cols,
                                           .ldd = b->rows});
    return BYTES(8 * N(b));
}

/* ---- the matrix product -----------------------------------------------------------------------------------
 */

static struct bench_work product(const struct bench *b, uint32_t m, uint32_t n, uint32_t k, float beta)
{
    gpu_gemm(b->cmd, (struct gpu_matrix){b->buf[2], k}, (struct gpu_matrix){b->buf[3], k},
             (struct gpu_matrix){b->buf[4], n}, m, n, k, 1, beta);
    return (struct bench_work){.flops = 2.0 * m * n * k,
                               .bytes =
                                   4.0 * ((double)m * k + (double)n * k + (beta == 0 ? 1.0 : 2.0) * m * n)};
}

CASE(gemm_cube)
{
    SHAPE("%u x %u x %u", b->cube, b->cube, b->cube);
    return product(b, b->cube, b->cube, b->cube, 0);
}

/* GPTQ's update of the columns behind a segment. */
CASE(gemm_update)
{
    SHAPE("%u x %u x %u, beta 1", b->cube, b->cube, SEGMENT);
    return product(b, b->cube, b->cube, SEGMENT, 1);
}

/* ---- transformer forward ----------------------------------------------------------------------------------
 */

CASE(rmsnorm_fwd)
{
    SHAPE("%u x %u", b->rows, b->cols);
    run_rmsnorm_fwd(
        b->cmd, gpu_rows(b->rows),
        &(struct rmsnorm_fwd_args){
            .x = b->buf[2], .w = b->buf[3], .y = b->buf[4], .rows = b->rows, .cols = b->cols, .eps = 1e-5f});
    return BYTES(8 * N(b));
}

CASE(add_bias)
{
    SHAPE("%u x %u", b->rows, b->cols);
    run_add_bias(b->cmd, ITEMS(add_bias, count(b)),
                 &(struct add_bias_args){
                     .x = b->buf[2], .b = b->buf[3], .y = b->buf[4], .rows = b->rows, .cols = b->cols});
    return BYTES(8 * N(b));
}

CASE(add)
{
    SHAPE("%u", count(b));
    run_add(b->cmd, ITEMS(add, count(b)), &(struct add_args){.y = b->buf[2], .x = b->buf[3], .n = count(b)});
    return BYTES(12 * N(b));
}

CASE(rope_fwd)
{
    uint32_t heads = b->cols / HEAD_DIM;
    SHAPE("%u x %u x %u", b->rows, heads, HEAD_DIM);
    run_rope_fwd(b->cmd, ITEMS(rope_fwd, count(b) / 2),
                 &(struct rope_fwd_args){.x = b->buf[2],
                                         .table = b->buf[3],
                                         .y = b->buf[4],
                                         .rows = b->rows,
                                         .heads = heads,
                                         .dim = HEAD_DIM,
                                         .ctx = b->rows,
                                         .turn = 1});
    return BYTES(8 * N(b));
}

static struct bench_work attention(const struct bench *b, uint32_t dim, char *shape, size_t cap)
{
    uint32_t heads = b->cols / dim, kv_heads = heads / 4;
    SHAPE("ctx %u, %u/%u heads of %u", b->rows, heads, kv_heads, dim);
    struct attn_fwd_args a = {.q = b->buf[2],
                              .k = b->buf[3],
                              .v = b->buf[4],
                              .out = b->buf[5],
                              .lse = b->buf[6],
                              .windows = 1,
                              .ctx = b->rows,
                              .heads = heads,
                              .kv_heads = kv_heads,
                              .dim = dim,
                              .scale = 0.125f};
    run_attn_fwd(b->cmd, gpu_tiles(b->cmd, KERNEL_ID_attn_fwd, &a, heads, b->rows), &a);
    return (struct bench_work){.flops = 2.0 * heads * dim * b->rows * (b->rows + 1.0),
                               .variant = VARIANT(attn_fwd, &a)};
}

CASE(attn_16)
{
    return attention(b, 16, shape, cap);
}

CASE(attn_64)
{
    return attention(b, 64, shape, cap);
}

CASE(attn_128)
{
    return attention(b, 128, shape, cap);
}

CASE(swiglu_fwd)
{
    SHAPE("%u", count(b));
    run_swiglu_fwd(
        b->cmd, ITEMS(swiglu_fwd, count(b)),
        &(struct swiglu_fwd_args){.gate = b->buf[2], .up = b->buf[3], .act = b->buf[4], .n = count(b)});
    return BYTES(12 * N(b));
}

CASE(nll)
{
    SHAPE("%u x %u", b->rows, b->cols);
    run_nll(
        b->cmd, gpu_rows(b->rows),
        &(struct nll_args){
            .logits = b->buf[2], .target = b->buf[3], .out = b->buf[4], .rows = b->rows, .cols = b->cols});
    return BYTES(4 * N(b));
}

CASE(kl)
{
    SHAPE("%u x %u", b->rows, b->cols);
    run_kl(b->cmd, gpu_rows(b->rows),
           &(struct kl_args){.ref = b->buf[2],
                             .logits = b->buf[3],
                             .out = b->buf[4],
                             .top1 = b->buf[5],
                             .rows = b->rows,
                             .cols = b->cols});
    return BYTES(8 * N(b));
}

/* ---- transformer backward
 * --------------------------------------------------------------------------------- */

CASE(rmsnorm_bwd)
{
    SHAPE("%u x %u", b->rows, b->cols);
    run_rmsnorm_bwd(b->cmd, gpu_rows(b->rows),
                    &(struct rmsnorm_bwd_args){.x = b->buf[2],
                                               .w = b->buf[3],
                                               .dy = b->buf[4],
                                               .dx = b->buf[5],
                                               .rows = b->rows,
                                               .cols = b->cols,
                                               .eps = 1e-5f});
    return BYTES(12 * N(b));
}

CASE(swiglu_bwd)
{
    SHAPE("%u", count(b));
    run_swiglu_bwd(b->cmd, ITEMS(swiglu_bwd, count(b)),
                   &(struct swiglu_bwd_args){.gate = b->buf[2],
                                             .up = b->buf[3],
                                             .dact = b->buf[4],
                                             .dgate = b->buf[5],
                                             .dup = b->buf[6],
                                             .n = count(b)});
    return BYTES(20 * N(b));
}

CASE(kl_bwd)
{
    SHAPE("%u x %u", b->rows, b->cols);
    run_kl_bwd(b->cmd, gpu_rows(b->rows),
               &(struct kl_bwd_args){.ref = b->buf[2],
                                     .logits = b->buf[3],
                                     .dlogits = b->buf[4],
                                     .rows = b->rows,
                                     .cols = b->cols,
                                     .factor = 1});
    return BYTES(12 * N(b));
}

CASE(reduce_sum)
{
    SHAPE("%u", count(b));
    run_reduce_sum(
        b->cmd, gpu_rows(1),
        &(struct reduce_sum_args){.x = b->buf[2], .result = b->buf[3], .n = count(b), .factor = 1});
    return BYTES(4 * N(b));
}

CASE(scale_grad)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_scale_grad(b->cmd, &(struct scale_grad_args){.grad = b->buf[2],
                                                   .codes = b->buf[4],
                                                   .dscales = b->buf[5],
                                                   .rows = b->rows,
                                                   .cols = b->cols,
                                                   .group = GROUP,
                                                   .groups = groups(b),
                                                   .ldc = b->cols / 4});
    return BYTES(5 * N(b));
}

CASE(adam_step)
{
    SHAPE("%u", count(b));
    q_adam_step(b->cmd, &(struct adam_step_args){.param = b->buf[2],
                                                 .m = b->buf[5],
                                                 .v = b->buf[6],
                                                 .grad = b->buf[7],
                                                 .size = b->buf[3],
                                                 .n = count(b),
                                                 .lr = 1e-6f,
                                                 .beta1 = 0.9f,
                                                 .beta2 = 0.99f,
                                                 .correct1 = 1,
                                                 .correct2 = 1,
                                                 .eps = 1e-8f});
    return BYTES(32 * N(b));
}

#define ATTN_BACK(kernel, head_dim, out, products, ...)                                                      \
    uint32_t heads = b->cols / (head_dim), kv_heads = heads / 4;                                             \
    SHAPE("ctx %u, %u/%u heads of %u", b->rows, heads, kv_heads, (uint32_t)(head_dim));                      \
    struct kernel##_args a = {.q = b->buf[2],                                                                \
                              .k = b->buf[3],                                                                \
                              .dout = b->buf[4],                                                             \
                              .lse = b->buf[5],                                                              \
                              .windows = 1,                                                                  \
                              .ctx = b->rows,                                                                \
                              .heads = heads,                                                                \
                              .kv_heads = kv_heads,                                                          \
                              .dim = (head_dim),                                                             \
                              .scale = 0.125f,                                                               \
                              __VA_ARGS__};                                                                  \
    run_##kernel(b->cmd, gpu_tiles(b->cmd, KERNEL_ID_##kernel, &a, out, b->rows), &a);                       \
    return (struct bench_work)                                                                               \
    {                                                                                                        \
        .flops = (products)*1.0 * heads * (head_dim)*b->rows * (b->rows + 1.0),                              \
        .variant = VARIANT(kernel, &a)                                                                       \
    }
#define ATTN_BACK_Q(kernel, head_dim)                                                                        \
    ATTN_BACK(kernel, head_dim, heads, 3, .v = b->buf[6], .delta = b->buf[7], .dq = b->buf[0])
#define ATTN_BACK_KV(kernel, head_dim)                                                                       \
    ATTN_BACK(kernel, head_dim, kv_heads, 4, .v = b->buf[6], .delta = b->buf[7], .dk = b->buf[0],            \
              .dv = b->buf[1])
#define ATTN_BACK_V(kernel, head_dim) ATTN_BACK(kernel, head_dim, kv_heads, 2, .dv = b->buf[0])

CASE(attn_bwd_q_16)
{
    ATTN_BACK_Q(attn_bwd_q, 16);
}

CASE(attn_bwd_q_64)
{
    ATTN_BACK_Q(attn_bwd_q, 64);
}

CASE(attn_bwd_q_128)
{
    ATTN_BACK_Q(attn_bwd_q, 128);
}

CASE(attn_bwd_kv_16)
{
    ATTN_BACK_KV(attn_bwd_kv, 16);
}

CASE(attn_bwd_kv_64)
{
    ATTN_BACK_KV(attn_bwd_kv, 64);
}

CASE(attn_bwd_kv_128)
{
    ATTN_BACK_KV(attn_bwd_kv, 128);
}

CASE(attn_bwd_v_16)
{
    ATTN_BACK_V(attn_bwd_v, 16);
}

CASE(attn_bwd_v_64)
{
    ATTN_BACK_V(attn_bwd_v, 64);
}

CASE(attn_bwd_v_128)
{
    ATTN_BACK_V(attn_bwd_v, 128);
}

/* ---- quantization: weights in buf[2], scales in 3, codes in 4; 4-bit levels in groups of 128
 * ---------------- */

CASE(scale_search)
{
    SHAPE("%u x %u, %u candidates", b->rows, b->cols, STEPS);
    q_scale_search(b->cmd, &(struct scale_search_args){.w = b->buf[2],
                                                       .scales = b->buf[3],
                                                       .rows = b->rows,
                                                       .cols = b->cols,
                                                       .ldw = b->cols,
                                                       .col1 = b->cols,
                                                       .group = GROUP,
                                                       .groups = groups(b),
                                                       .lo = (uint32_t)-8,
                                                       .hi = 7,
                                                       .steps = STEPS,
                                                       .power = 2.4f,
                                                       .scale_type = 1});
    /* divide, round, clamp, multiply, subtract, power and sum, for both signs */
    return FLOPS(2.0 * 8 * STEPS * N(b));
}

/* Scales and offsets of 4 bits in groups of 32, eight of which share d and dmin. */
CASE(affine_search)
{
    uint32_t rows = b->rows, per_row = (uint32_t)div_up(b->cols, SMALL_GROUP);
    SHAPE("%u x %u, %u candidates", rows, b->cols, AFFINE_CANDIDATES);
    q_affine_search(b->cmd, &(struct affine_search_args){.w = b->buf[2],
                                                         .scales = b->buf[5],
                                                         .rows = rows,
                                                         .cols = b->cols,
                                                         .ldw = b->cols,
                                                         .col1 = b->cols,
                                                         .group = SMALL_GROUP,
                                                         .groups = per_row,
                                                         .hi = 15});
    /* two passes of round, clamp, multiply and add, six sums in the first, two in the second */
    return FLOPS(20.0 * AFFINE_CANDIDATES * rows * b->cols);
}

CASE(project_scales)
{
    uint32_t rows = b->rows, per_row = (uint32_t)div_up(b->cols, SMALL_GROUP);
    SHAPE("%u x %u", rows, 2 * per_row);
    q_project_scales(b->cmd, &(struct project_scales_args){.scales = b->buf[5],
                                                           .rows = rows,
                                                           .groups = per_row,
                                                           .offsets = 1,
                                                           .per_super = 8,
                                                           .count = (uint32_t)div_up(per_row, 8),
                                                           .hi = 63,
                                                           .offset_hi = 63,
                                                           .centre = 7.5f});
    return FLOPS(63.0 * 2 * 9 * 2 * rows * per_row);
}

CASE(quantize)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_quantize(b->cmd, &(struct quantize_args){.w = b->buf[2],
                                               .scales = b->buf[3],
                                               .codes = b->buf[4],
                                               .rows = b->rows,
                                               .cols = b->cols,
                                               .ldw = b->cols,
                                               .group = GROUP,
                                               .groups = groups(b),
                                               .ldc = b->cols / 4,
                                               .lo = (uint32_t)-8,
                                               .hi = 7});
    return BYTES(5 * N(b));
}

CASE(dequant)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_dequant(b->cmd, &(struct dequant_args){.codes = b->buf[4],
                                             .scales = b->buf[3],
                                             .w = b->buf[2],
                                             .rows = b->rows,
                                             .cols = b->cols,
                                             .ldw = b->cols,
                                             .group = GROUP,
                                             .groups = groups(b),
                                             .ldc = b->cols / 4});
    return BYTES(5 * N(b));
}

CASE(gptq_segment)
{
    SHAPE("%u rows x %u", b->rows, SEGMENT);
    q_gptq_segment(b->cmd, &(struct gptq_segment_args){.w = b->buf[2],
                                                       .r = b->buf[5],
                                                       .scales = b->buf[3],
                                                       .codes = b->buf[4],
                                                       .err = b->buf[6],
                                                       .rows = b->rows,
                                                       .ldw = b->cols,
                                                       .ldr = SEGMENT,
                                                       .count = SEGMENT,
                                                       .group = GROUP,
                                                       .groups = groups(b),
                                                       .ldc = b->cols / 4,
                                                       .lo = (uint32_t)-8,
                                                       .hi = 7});
    return FLOPS((double)SEGMENT * SEGMENT * b->rows);
}

CASE(diagonal)
{
    uint32_t n = b->rows < b->cols ? b->rows : b->cols;
    SHAPE("%u", n);
    q_diagonal(b->cmd, &(struct diagonal_args){.h = b->buf[2], .diag = b->buf[3], .n = n, .ldh = b->cols});
    return BYTES(8.0 * n);
}

CASE(damp_diagonal)
{
    uint32_t n = b->rows < b->cols ? b->rows : b->cols;
    SHAPE("%u", n);
    q_damp_diagonal(b->cmd, &(struct damp_diagonal_args){.h = b->buf[2], .n = n, .ldh = b->cols, .one = 1});
    return BYTES(8.0 * n);
}

CASE(zero_dead)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_zero_dead(b->cmd,
                &(struct zero_dead_args){
                    .w = b->buf[2], .diag = b->buf[3], .rows = b->rows, .cols = b->cols, .ldw = b->cols});
    return BYTES(4.0 * b->cols); /* nothing is dead here: only the diagonal is read */
}

CASE(flip)
{
    uint32_t n = b->rows < b->cols ? b->rows : b->cols;
    SHAPE("%u x %u", n, n);
    q_flip(b->cmd, &(struct flip_args){.in = b->buf[2], .out = b->buf[3], .n = n, .ldi = n, .ldo = n});
    return BYTES(8.0 * n * n);
}

CASE(copy_rect)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_copy_rect(b->cmd, &(struct copy_rect_args){.src = b->buf[2],
                                                 .dst = b->buf[3],
                                                 .rows = b->rows,
                                                 .cols = b->cols,
                                                 .lds = b->cols,
                                                 .ldd = b->cols});
    return BYTES(8 * N(b));
}

CASE(chol_block)
{
    SHAPE("%u x %u", CHOL, CHOL);
    q_chol_block(b->cmd, &(struct chol_block_args){
                             .a = b->buf[2], .inv = b->buf[3], .status = b->buf[4], .nb = CHOL, .lda = CHOL});
    return FLOPS(2.0 / 3 * CHOL * CHOL * CHOL);
}

/* Logits and momenta are read and written by a step, written by the start: 8 or 16 bytes per level. */
CASE(gumbel_init)
{
    SHAPE("%u x %u, %u levels", b->rows, b->cols, LEVELS);
    q_gumbel_init(b->cmd, &(struct gumbel_init_args){.logits = b->buf[0],
                                                     .mom = b->buf[1],
                                                     .scales = b->buf[3],
                                                     .smom = b->buf[5],
                                                     .codes = b->buf[4],
                                                     .w = b->buf[2],
                                                     .diff = b->buf[6],
                                                     .rows = b->rows,
                                                     .cols = b->cols,
                                                     .group = GROUP,
                                                     .groups = groups(b),
                                                     .ldc = b->cols / 4,
                                                     .levels = LEVELS,
                                                     .lo = (uint32_t)-2,
                                                     .hi = 1,
                                                     .seed = 1,
                                                     .tau = 1,
                                                     .kappa = 1,
                                                     .init_noise = 0.01f,
                                                     .init_gap = 6,
                                                     .origin = 1});
    return BYTES((8.0 * LEVELS + 9) * N(b));
}

CASE(gumbel_step)
{
    SHAPE("%u x %u, %u levels", b->rows, b->cols, LEVELS);
    q_gumbel_step(b->cmd, &(struct gumbel_step_args){.logits = b->buf[0],
                                                     .mom = b->buf[1],
                                                     .scales = b->buf[3],
                                                     .smom = b->buf[5],
                                                     .codes = b->buf[4],
                                                     .w = b->buf[2],
                                                     .grad = b->buf[6],
                                                     .diff = b->buf[7],
                                                     .rows = b->rows,
                                                     .cols = b->cols,
                                                     .group = GROUP,
                                                     .groups = groups(b),
                                                     .ldc = b->cols / 4,
                                                     .levels = LEVELS,
                                                     .lo = (uint32_t)-2,
                                                     .hi = 1,
                                                     .seed = 1,
                                                     .step = 1,
                                                     .tau = 1,
                                                     .kappa = 1,
                                                     .tau1 = 1,
                                                     .kappa1 = 1,
                                                     .lr_logits = 1e-3f,
                                                     .lr_scales = 1e-6f,
                                                     .beta1 = 0.9f,
                                                     .beta2 = 0.99f,
                                                     .origin = 1});
    return BYTES((16.0 * LEVELS + 13) * N(b));
}

CASE(gumbel_codes)
{
    SHAPE("%u x %u, %u levels", b->rows, b->cols, LEVELS);
    q_gumbel_codes(b->cmd, &(struct gumbel_codes_args){.logits = b->buf[0],
                                                       .codes = b->buf[4],
                                                       .codes_out = b->buf[5],
                                                       .rows = b->rows,
                                                       .cols = b->cols,
                                                       .ldc = b->cols / 4,
                                                       .levels = LEVELS,
                                                       .lo = (uint32_t)-2,
                                                       .hi = 1});
    return BYTES((4.0 * LEVELS + 2) * N(b));
}

CASE(col_sumsq)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_col_sumsq(b->cmd, &(struct col_sumsq_args){
                            .x = b->buf[2], .sums = b->buf[3], .rows = b->rows, .cols = b->cols});
    return BYTES(4 * N(b));
}

CASE(row_dot)
{
    SHAPE("%u x %u", b->rows, b->cols);
    q_row_dot(b->cmd,
              &(struct row_dot_args){
                  .a = b->buf[2], .b = b->buf[3], .out = b->buf[4], .rows = b->rows, .cols = b->cols});
    return BYTES(8 * N(b));
}

CASE(round_scales)
{
    SHAPE("%u", count(b));
    q_round_scales(b->cmd, &(struct round_scales_args){.scales = b->buf[2], .n = count(b), .scale_type = 1});
    return BYTES(8 * N(b));
}

CASE(subtract)
{
    SHAPE("%u", count(b));
    q_subtract(b->cmd,
               &(struct subtract_args){.a = b->buf[2], .b = b->buf[3], .d = b->buf[4], .n = count(b)});
    return BYTES(12 * N(b));
}

#define ROW(kernel, function)                                                                                \
    {                                                                                                        \
        KERNEL_ID_##kernel, function                                                                         \
    }
const struct bench_case bench_cases[] = {
    ROW(peak_fma, peak_fma),
    ROW(unpack16, unpack16),
    ROW(transpose, transpose),
    ROW(gemm, gemm_cube),
    ROW(gemm, gemm_update),
    ROW(rmsnorm_fwd, rmsnorm_fwd),
    ROW(add_bias, add_bias),
    ROW(add, add),
    ROW(rope_fwd, rope_fwd),
    ROW(attn_fwd, attn_16),
    ROW(attn_fwd, attn_64),
    ROW(attn_fwd, attn_128),
    ROW(swiglu_fwd, swiglu_fwd),
    ROW(nll, nll),
    ROW(kl, kl),
    ROW(rmsnorm_bwd, rmsnorm_bwd),
    ROW(swiglu_bwd, swiglu_bwd),
    ROW(kl_bwd, kl_bwd),
    ROW(reduce_sum, reduce_sum),
    ROW(scale_grad, scale_grad),
    ROW(adam_step, adam_step),
    ROW(attn_bwd_q, attn_bwd_q_16),
    ROW(attn_bwd_q, attn_bwd_q_64),
    ROW(attn_bwd_q, attn_bwd_q_128),
    ROW(attn_bwd_kv, attn_bwd_kv_16),
    ROW(attn_bwd_kv, attn_bwd_kv_64),
    ROW(attn_bwd_kv, attn_bwd_kv_128),
    ROW(attn_bwd_v, attn_bwd_v_16),
    ROW(attn_bwd_v, attn_bwd_v_64),
    ROW(attn_bwd_v, attn_bwd_v_128),
    ROW(scale_search, scale_search),
    ROW(affine_search, affine_search),
    ROW(project_scales, project_scales),
    ROW(quantize, quantize),
    ROW(dequant, dequant),
    ROW(gptq_segment, gptq_segment),
    ROW(diagonal, diagonal),
    ROW(damp_diagonal, damp_diagonal),
    ROW(zero_dead, zero_dead),
    ROW(flip, flip),
    ROW(copy_rect, copy_rect),
    ROW(chol_block, chol_block),
    ROW(gumbel_init, gumbel_init),
    ROW(gumbel_step, gumbel_step),
    ROW(gumbel_codes, gumbel_codes),
    ROW(col_sumsq, col_sumsq),
    ROW(row_dot, row_dot),
    ROW(round_scales, round_scales),
    ROW(subtract, subtract),
};
const size_t n_bench_cases = sizeof bench_cases / sizeof *bench_cases;
