/* Kernels of shaders/kernels.def with their grids and tiles chosen.
 *
 * Each function takes the argument struct of its kernel as if any view could be bound whole: it finds the
 * grid of the variant in use, and cuts the rows into tiles where a view exceeds gpu_info.max_range or the
 * work exceeds a submission. Tiles change no bit of the result (sums stay within a row; noise is keyed by the
 * row's place in the whole matrix). Views start aligned (as gpu_alloc gives them) and are dense from there
 * on; row strides are those of the struct.
 *
 *     tiled_rmsnorm_fwd(cmd, &(struct rmsnorm_fwd_args){.x = x, .w = w, .y = y, .rows = n, .cols = k, .eps = eps});
 *
 * Sizes (in elements) of quantization's views: w, diff, grad [rows, ldw or cols]; scales, smom [rows, groups], or
  * [rows, 2, groups]
 * where offsets is 1, groups = ceil(cols / group); codes [rows, ldc] words, ldc = ceil(cols / 4), int8 x 4
 * little-endian, pad lanes 0; logits, mom [rows, levels, cols]. */
#ifndef GPU_TILED_H
#define GPU_TILED_H

#include "host/gpu/kernels.h"

/* y may be x. */
void tiled_rmsnorm_fwd(struct gpu_cmd *cmd, const struct rmsnorm_fwd_args *args);
/* dx may be dy. */
void tiled_rmsnorm_bwd(struct gpu_cmd *cmd, const struct rmsnorm_bwd_args *args);
/* y may be x. */
void tiled_add_bias(struct gpu_cmd *cmd, const struct add_bias_args *args);

/* Scales of the groups that start in [col0, col1); col1 <= cols. Others are left alone. weights may be empty
 * where weighted is 0. */
void tiled_scale_search(struct gpu_cmd *cmd, const struct scale_search_args *args);
void tiled_affine_search(struct gpu_cmd *cmd, const struct affine_search_args *args);
void tiled_project_scales(struct gpu_cmd *cmd, const struct project_scales_args *args);
void tiled_quantize(struct gpu_cmd *cmd, const struct quantize_args *args);
void tiled_unpack_codes(struct gpu_cmd *cmd, const struct unpack_codes_args *args);
void tiled_dequant(struct gpu_cmd *cmd, const struct dequant_args *args);
/* r is the whole of R (any size); r0 is filled in here. err is [rows, count], dense. */
void tiled_gptq_segment(struct gpu_cmd *cmd, const struct gptq_segment_args *args);
/* The whole matrix; row0 is filled in here. */
void tiled_diagonal(struct gpu_cmd *cmd, const struct diagonal_args *args);
void tiled_damp_diagonal(struct gpu_cmd *cmd, const struct damp_diagonal_args *args);
void tiled_zero_dead(struct gpu_cmd *cmd, const struct zero_dead_args *args);
/* All n rows; `rows`, in0 and out0 are filled in here. in and out must not overlap. */
void tiled_flip(struct gpu_cmd *cmd, const struct flip_args *args);
/* `rows` of them: from row in_row on to those from out_row on, which must not overlap; views are of whole matrices. */
void tiled_flip_rows(struct gpu_cmd *cmd, const struct flip_args *args, uint32_t in_row, uint32_t out_row);
void tiled_copy_rect(struct gpu_cmd *cmd, const struct copy_rect_args *args);
void tiled_chol_block(struct gpu_cmd *cmd, const struct chol_block_args *args);
/* row0 is the first row's place in the whole matrix (0 unless the caller tiles as well). */
void tiled_gumbel_init(struct gpu_cmd *cmd, const struct gumbel_init_args *args);
void tiled_gumbel_step(struct gpu_cmd *cmd, const struct gumbel_step_args *args);
void tiled_gumbel_codes(struct gpu_cmd *cmd, const struct gumbel_codes_args *args);
/* dscales of every group are added to. */
void tiled_scale_grad(struct gpu_cmd *cmd, const struct scale_grad_args *args);
void tiled_adam_step(struct gpu_cmd *cmd, const struct adam_step_args *args);
/* Any number of rows. */
void tiled_col_sumsq(struct gpu_cmd *cmd, const struct col_sumsq_args *args);
void tiled_residual(struct gpu_cmd *cmd, const struct residual_args *args);
void tiled_row_dot(struct gpu_cmd *cmd, const struct row_dot_args *args);
void tiled_round_scales(struct gpu_cmd *cmd, const struct round_scales_args *args);
/* y may be x. */
void tiled_scale_rows(struct gpu_cmd *cmd, const struct scale_rows_args *args);
void tiled_subtract(struct gpu_cmd *cmd, const struct subtract_args *args);

/* Levels of a table of int8, four to a word (quant.glsl); NULL: lo .. hi. */
void tiled_scale_search_levels(struct gpu_cmd *cmd, const struct scale_search_args *args, const uint32_t *table);
void tiled_quantize_levels(struct gpu_cmd *cmd, const struct quantize_args *args, const uint32_t *table);
void tiled_unpack_codes_levels(struct gpu_cmd *cmd, const struct unpack_codes_args *args, const uint32_t *table);
void tiled_gptq_segment_levels(struct gpu_cmd *cmd, const struct gptq_segment_args *args, const uint32_t *table);
void tiled_gumbel_init_levels(struct gpu_cmd *cmd, const struct gumbel_init_args *args, const uint32_t *table);
void tiled_gumbel_step_levels(struct gpu_cmd *cmd, const struct gumbel_step_args *args, const uint32_t *table);
void tiled_gumbel_codes_levels(struct gpu_cmd *cmd, const struct gumbel_codes_args *args, const uint32_t *table);
void tiled_scale_search_uneven(struct gpu_cmd *cmd, const struct scale_search_uneven_args *args);
void tiled_quantize_uneven(struct gpu_cmd *cmd, const struct quantize_uneven_args *args);
void tiled_unpack_codes_uneven(struct gpu_cmd *cmd, const struct unpack_codes_uneven_args *args);
void tiled_gptq_segment_uneven(struct gpu_cmd *cmd, const struct gptq_segment_uneven_args *args);
void tiled_gumbel_init_uneven(struct gpu_cmd *cmd, const struct gumbel_init_uneven_args *args);
void tiled_gumbel_step_uneven(struct gpu_cmd *cmd, const struct gumbel_step_uneven_args *args);
void tiled_gumbel_codes_uneven(struct gpu_cmd *cmd, const struct gumbel_codes_uneven_args *args);

/* Attention: all windows and heads of the call, `start` is filled in here. Cut by work alone, so views are no larger than
 * can be bound. */
void tiled_attn_fwd(struct gpu_cmd *cmd, const struct attn_fwd_args *args);
/* The forward pass of what only steers (gradients), scores capped where `cap` is not 0: attn_fwd_half or attn_cap_fwd_half where a
 * variant for matrix cores is in use, else the exact kernel, so that nothing is rounded for no gain. */
void tiled_attn_fwd_steering(struct gpu_cmd *cmd, const struct attn_fwd_args *args, float cap);
void tiled_attn_fwd_half(struct gpu_cmd *cmd, const struct attn_fwd_half_args *args);
/* Scores capped by `cap` (attn_cap_fwd); 0: not. */
void tiled_attn_fwd_capped(struct gpu_cmd *cmd, const struct attn_fwd_args *args, float cap);
void tiled_attn_bwd_q_capped(struct gpu_cmd *cmd, const struct attn_bwd_q_args *args, float cap);
void tiled_attn_bwd_kv_capped(struct gpu_cmd *cmd, const struct attn_bwd_kv_args *args, float cap);
void tiled_attn_bwd_v_capped(struct gpu_cmd *cmd, const struct attn_bwd_v_args *args, float cap);
void tiled_attn_cap_fwd(struct gpu_cmd *cmd, const struct attn_cap_fwd_args *args);
void tiled_attn_cap_fwd_half(struct gpu_cmd *cmd, const struct attn_cap_fwd_half_args *args);
void tiled_attn_cap_bwd_q(struct gpu_cmd *cmd, const struct attn_cap_bwd_q_args *args);
void tiled_attn_cap_bwd_kv(struct gpu_cmd *cmd, const struct attn_cap_bwd_kv_args *args);
void tiled_attn_cap_bwd_v(struct gpu_cmd *cmd, const struct attn_cap_bwd_v_args *args);
void tiled_attn_bwd_q(struct gpu_cmd *cmd, const struct attn_bwd_q_args *args);
void tiled_attn_bwd_kv(struct gpu_cmd *cmd, const struct attn_bwd_kv_args *args);
void tiled_attn_bwd_v(struct gpu_cmd *cmd, const struct attn_bwd_v_args *args);

#endif
