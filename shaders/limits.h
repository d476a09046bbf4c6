/* What kernels and the host must agree on, once: C includes it through host/gpu/kernels.h, every shader through
 * common.glsl. Numbers only. */
#ifndef SHADERS_LIMITS_H
#define SHADERS_LIMITS_H

/* ---- specialization constants: ids; variants.cmake names them without SPEC_ ---- */
#define SPEC_WORKGROUP     0 /* invocations of a workgroup */
#define SPEC_SUBGROUP      1 /* invocations of a subgroup */
#define SPEC_TILE          2 /* rows of a workgroup: of C (gemm), queries or keys (attention), of a square (transpose) */
#define SPEC_TILE_N        3 /* gemm: columns of C that a workgroup computes */
#define SPEC_LANE_PER_UNIT 2 /* work on (row, group): 1 where one invocation has a unit, 0 where a workgroup has */
#define SPEC_ROWS_PER_LANE 3 /* gptq_segment: rows of an invocation */
#define SPEC_COLUMNS       3 /* gumbel_step: columns of a workgroup, four an invocation; none: an invocation has a group */
#define SPEC_ITEMS         59 /* items of an invocation, where gpu_items sizes the grid */
#define SPEC_COOPMAT_M     60 /* the device's cooperative matrix product */
#define SPEC_COOPMAT_N     61
#define SPEC_COOPMAT_K     62

/* ---- sizes that kernels are written for ---- */
#define WORKGROUP_MAX    128u /* of base variants; what sums over a workgroup hold */
#define HEAD_DIM_MAX     256u /* attention; even */
#define ATTN_STEP_MAX    512u /* attn_step: positions */
#define DELTA_DIM_MAX    256u /* delta_rule: of q and k */
#define DELTA_LANES      8u   /* delta_rule: invocations for a column of the state */
#define DELTA_COLUMNS    16u  /* delta_rule: columns of a workgroup, WORKGROUP_MAX / DELTA_LANES */
#define SMALL_HEAD_MAX   16u  /* attention's variants for small heads; a multiple of SMALL_HEAD_STEP */
#define SMALL_HEAD_STEP  4u
#define AFFINE_GROUP_MAX 32u  /* affine_search: columns of a group */
#define SUPER_GROUPS_MAX 16u  /* project_scales: groups of a super-block */
#define SEGMENT_MAX      128u /* gptq_segment: columns of a segment */
#define SEGMENT_GROUP    8u   /* gptq_segment: so many columns, from the first, are of one group */
#define CHOL_BLOCK       64u  /* chol_block: rows of a block */
#define TABLE_LEVELS     16u  /* levels of a table, in TABLE_LEVELS / 4 words */
#define GUMBEL_LEVELS    5u   /* levels of a weight, at most */
/* The state of a weight (gumbel.glsl): words, and bits of a level's logit and momentum. With five levels a fourth state lies in
 * what the others leave. */
#define GUMBEL_WORDS(levels)         ((levels) > 4u ? 3u : (levels)-1u)
#define GUMBEL_LOGIT_BITS(levels)    ((levels) > 4u ? 12u : 14u)
#define GUMBEL_MOMENTUM_BITS(levels) ((levels) > 4u ? 12u : 18u)
#define GUMBEL_COLS                  4u /* gumbel_step with SPEC_COLUMNS: columns of an invocation at a time */
#define COL_SUMSQ_ROWS               32768u /* rows of one col_sumsq: lavapipe ends an invocation's loops after 65535 turns */

/* ---- kinds ---- */
#define HALVES_F16  0u /* what a 16-bit number is: unpack16 */
#define HALVES_BF16 1u
#define STORED_F32  0u /* what a scale is rounded to: scale_search, round_scales; enum scale_type */
#define STORED_F16  1u
#define STORED_BF16 2u
#define STORED_E8M0 3u /* half of a power of two: the least one that is no smaller */
#define STORED_E4M3 4u /* half of it */

#endif
