#include "host/gpu/gpu_traffic.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/kernel_args.h"

const char *gpu_traffic_name(unsigned kind)
{
    return kind == GPU_FILL_ID ? "fill" : kind == GPU_COPY_ID ? "copy" : kernel_decls[kind].name;
}

/* Of a unit of the grid's work, where that is not a floating-point operation itself: counted in the shaders, an
 * exponential or a division as one. */
static const double flop_per_work[KERNEL_COUNT] = {
    [KERNEL_ID_rmsnorm_fwd] = 4,  [KERNEL_ID_rmsnorm_bwd] = 9,  [KERNEL_ID_add_bias] = 1,
    [KERNEL_ID_add] = 1,          [KERNEL_ID_rope_part] = 6,    [KERNEL_ID_rope_fwd] = 6,
    [KERNEL_ID_swiglu_fwd] = 5,   [KERNEL_ID_softcap] = 3,      [KERNEL_ID_softcap_bwd] = 4,
    [KERNEL_ID_geglu_fwd] = 10,   [KERNEL_ID_geglu_bwd] = 20,   [KERNEL_ID_swiglu_bwd] = 10,
    [KERNEL_ID_nll] = 4,          [KERNEL_ID_kl] = 10,          [KERNEL_ID_kl_bwd] = 9,
    [KERNEL_ID_scale_rows] = 1,   [KERNEL_ID_reduce_sum] = 1,   [KERNEL_ID_scale_grad] = 2,
    [KERNEL_ID_adam_step] = 14,   [KERNEL_ID_scale_search] = 8, [KERNEL_ID_affine_search] = 1280,
    [KERNEL_ID_quantize] = 12,    [KERNEL_ID_dequant] = 4,      [KERNEL_ID_gptq_segment] = 2,
    [KERNEL_ID_col_sumsq] = 2,    [KERNEL_ID_row_dot] = 2,      [KERNEL_ID_subtract] = 1,
    [KERNEL_ID_residual] = 4,     [KERNEL_ID_gumbel_init] = 60, [KERNEL_ID_gumbel_step] = 100,
    [KERNEL_ID_mla_heads] = 6,    [KERNEL_ID_conv_silu] = 12,   [KERNEL_ID_l2norm] = 3,
    [KERNEL_ID_norm_gated] = 8,   [KERNEL_ID_gate_heads] = 4,   [KERNEL_ID_clamped_fwd] = 8,
    [KERNEL_ID_clamped_bwd] = 15, [KERNEL_ID_attn_sinks] = 4,   [KERNEL_ID_sampled_bwd] = 60,
    [KERNEL_ID_draw] = 40,
};

/* The kernel that does the same work with the same arguments. */
static unsigned alike(unsigned kernel)
{
    switch (kernel) {
    case KERNEL_ID_scale_search_uneven:
        return KERNEL_ID_scale_search;
    case KERNEL_ID_quantize_uneven:
        return KERNEL_ID_quantize;
    case KERNEL_ID_unpack_codes_uneven:
        return KERNEL_ID_unpack_codes;
    case KERNEL_ID_gptq_segment_uneven:
        return KERNEL_ID_gptq_segment;
    case KERNEL_ID_gumbel_init_uneven:
        return KERNEL_ID_gumbel_init;
    case KERNEL_ID_gumbel_step_uneven:
        return KERNEL_ID_gumbel_step;
    case KERNEL_ID_gumbel_codes_uneven:
        return KERNEL_ID_gumbel_codes;
    default:
        return kernel;
    }
}

/* The number of a kernel's buffer. */
#define BUFFER(kernel, name) (offsetof(struct kernel##_args, name) / sizeof(struct gpu_view))

static double flop_of(unsigned kernel, const union kernel_args *a, double work)
{
    if (gpu_gemm_kernel(kernel, NULL, NULL))
        return work;
    switch (kernel) {
    case KERNEL_ID_attn_fwd: /* whose work is in them, as is that of products */
    case KERNEL_ID_attn_fwd_half:
    case KERNEL_ID_attn_bwd_q:
    case KERNEL_ID_attn_bwd_kv:
    case KERNEL_ID_attn_bwd_v:
    case KERNEL_ID_attn_cap_fwd:
    case KERNEL_ID_attn_cap_fwd_half:
    case KERNEL_ID_attn_cap_bwd_q:
    case KERNEL_ID_attn_cap_bwd_kv:
    case KERNEL_ID_attn_cap_bwd_v:
        return work;
    case KERNEL_ID_attn_step:
        return 4.0 * a->attn_step.windows * a->attn_step.heads * a->attn_step.dim * (a->attn_step.at + 1.0);
    case KERNEL_ID_chol_block:
        return 2.0 / 3 * pow(a->chol_block.nb, 3);
    default:
        return work * flop_per_work[kernel];
    }
}

/* Elements that are touched of buffer i, where views hold more: rows that are further apart than they are long, and
 * operands that this call does without. Elements have 4 bytes. */
static double most_touched(unsigned kernel, const union kernel_args *a, unsigned i)
{
#define OF(...) ((const double[]){__VA_ARGS__}[i])
    const double all = INFINITY;
    if (gpu_gemm_kernel(kernel, NULL, NULL)) { /* they all have the same arguments */
        const struct gemm_args *g = &a->gemm;
        double c = (double)g->m * g->n;
        return OF((double)g->m * g->k, (double)g->n * g->k, g->beta != 0 ? c : 0, c);
    }
    switch (kernel) {
    case KERNEL_ID_transpose:
        return (double)a->transpose.rows * a->transpose.cols;
    case KERNEL_ID_copy_rect:
        return (double)a->copy_rect.rows * a->copy_rect.cols;
    case KERNEL_ID_flip:
        return (double)a->flip.rows * a->flip.n;
    case KERNEL_ID_diagonal:
        return a->diagonal.n;
    case KERNEL_ID_damp_diagonal:
        return a->damp_diagonal.n;
    case KERNEL_ID_zero_dead: /* inputs are seldom dead */
        return OF(0, all);
    case KERNEL_ID_reduce_sum:
        return OF(a->reduce_sum.n, 1);
    case KERNEL_ID_chol_block:
        return (double)a->chol_block.nb * a->chol_block.nb;
    case KERNEL_ID_scale_search: {
        const struct scale_search_args *s = &a->scale_search;
        double cols = s->col1 - s->col0, groups = (double)div_up(s->col1, s->group) - (double)div_up(s->col0, s->group);
        return OF(s->rows * cols, s->weighted ? cols : 0, s->rows * groups);
    }
    case KERNEL_ID_affine_search: {
        const struct affine_search_args *s = &a->affine_search;
        double cols = s->col1 - s->col0, groups = (double)div_up(s->col1, s->group) - (double)div_up(s->col0, s->group);
        return OF(s->rows * cols, s->weighted ? cols : 0, 2 * s->rows * groups);
    }
    case KERNEL_ID_project_scales: {
        const struct project_scales_args *s = &a->project_scales;
        double supers = (double)s->rows * s->count * (1 + s->offsets);
        return OF(supers * s->per_super, supers, supers * s->per_super);
    }
    case KERNEL_ID_quantize:
        return OF((double)a->quantize.rows * a->quantize.cols, all, all);
    case KERNEL_ID_dequant:
        return OF(all, all, (double)a->dequant.rows * a->dequant.cols);
    case KERNEL_ID_gptq_segment: {
        const struct gptq_segment_args *s = &a->gptq_segment;
        double here = (double)s->rows * s->count, groups = (double)div_up(s->count, s->group) * (1 + s->offsets);
        return OF(here, (double)s->count * s->count, s->rows * groups, here / 4, here);
    }
    case KERNEL_ID_gate_heads: /* half of g */
        return (double)a->gate_heads.rows * a->gate_heads.dim;
    case KERNEL_ID_residual:
        return (i == BUFFER(residual, w) && !a->residual.weighted) ||
                       (i == BUFFER(residual, d) && !a->residual.difference)
                   ? 0
                   : all;
    case KERNEL_ID_gumbel_init:
        return i == BUFFER(gumbel_init, w) && a->gumbel_init.origin == 0 ? 0 : all;
    case KERNEL_ID_gumbel_step:
        return i == BUFFER(gumbel_step, w) && a->gumbel_step.origin == 0 ? 0 : all;
    default:
        return all;
    }
#undef OF
}

/* Columns of a group whose levels wait in registers, and not in diff (SPEC_COLUMNS of gumbel_step in variants.cmake). */
#define IN_REGISTERS 256u

/* What a shader declares to read, and does not in this call. */
static bool only_written(unsigned kernel, const union kernel_args *a, unsigned i)
{
    return kernel == KERNEL_ID_gumbel_step && i == BUFFER(gumbel_step, diff) && a->gumbel_step.group <= IN_REGISTERS;
}

static void add(struct gpu_traffic *t, unsigned kind, uint32_t reads, uint32_t writes, const struct gpu_view *views,
                const void *push, double work)
{
    bool kernel = kind < KERNEL_COUNT;
    unsigned n = kernel ? kernel_decls[kind].n_buffers : kind == GPU_FILL_ID ? 1 : 2;
    union kernel_args a;
    memset(&a, 0, sizeof a);
    t->calls++;
    if (kernel) {
        memcpy((char *)&a + n * sizeof *views, push, kernel_decls[kind].push_bytes);
        t->flop += flop_of(alike(kind), &a, work);
    }
    for (unsigned i = 0; i < n; i++) {
        double bytes = (double)views[i].size;
        if (kernel)
            bytes = fmin(bytes, 4 * most_touched(alike(kind), &a, i));
        if (reads >> i & 1 && !(kernel && only_written(alike(kind), &a, i)))
            t->read += bytes;
        if (writes >> i & 1)
            t->written += bytes;
    }
}

void gpu_traffic_watch(void *ctx, enum gpu_part part, unsigned kind, uint32_t reads, uint32_t writes,
                       const struct gpu_view *views, const void *push, double work)
{
    (void)part;
    add((struct gpu_traffic *)ctx + kind, kind, reads, writes, views, push, work);
}

void gpu_traffic_watch_parts(void *ctx, enum gpu_part part, unsigned kind, uint32_t reads, uint32_t writes,
                             const struct gpu_view *views, const void *push, double work)
{
    if (kind < KERNEL_COUNT)
        add((struct gpu_traffic *)ctx + part, kind, reads, writes, views, push, work);
}
