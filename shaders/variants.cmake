# Which variants of each kernel are built. One line each, best first: the first whose needs the device meets is used, unless one
# of the lines with TUNE was measured to be faster.
#
#   kernel(NAME VARIANT [TUNE] [NEEDS CAP...] [WHERE constant step most] [PROBE probe] [FILE x.comp] [OPT -O0] [DEFINES a=b ...]
#          [WG n | WG SUBGROUP] [SUBGROUP_SIZE smallest | largest] [SPEC name=value ...])
#
#   NAME     a row of kernels.def; compiled from NAME.comp, or from FILE
#   VARIANT  "base" for every kernel: fp32, at most 128 invocations, no 16-bit or subgroup feature
#   TUNE     a candidate: never taken by its place among the lines, but where it was measured, on the device, to be right and
#            faster than the line that is taken otherwise, or where --variant names it. CPU devices measure nothing
#   NEEDS    device bits, host/gpu/gpu_device.h: CPU SUBGROUP LANES8 F16 INT8 COOPMAT BF16 REGISTERS. Order matters: a CPU variant comes first
#   WHERE    only for calls whose push constant is a multiple of `step` and at most `most` (numbers, or names of limits.h): sizes of
#            their own beside the other variants, and before them
#   PROBE    the line is dropped where the installed glslc cannot compile probe/PROBE.comp
#   DEFINES  preprocessor symbols; CPU=1: lanes.glsl, one source for CPU devices and GPUs
#   OPT      glslc's optimisation, -O where it is not said: -O0 leaves large unrolled loops to the driver, which is quicker
#            at them
#   WG       invocations per workgroup (constant 0); default 64. SUBGROUP: one subgroup of the device
#   SUBGROUP_SIZE  of the sizes that the device's subgroups can have, where the driver lets a pipeline choose: matrix cores are
#            made for the smallest (32 on RDNA and NVIDIA, 16 and 8 on Intel). Without the word: the device's usual one
#   SPEC     specialization constants, named as in limits.h without SPEC_; the host reads them with gpu_kernel_constant
#
# Constants that a shader may declare without a line's word for it (limits.h has the numbers):
#   layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 8;   gl_SubgroupSize in variants that need SUBGROUP or have a
#                                                                  SUBGROUP_SIZE, the device's usual one in the others
#   SPEC_COOPMAT_M, _N, _K                                         of the device's cooperative matrix product (NEEDS COOPMAT)
#
# What is fast on a CPU device is written in texel.glsl.

# ---- data movement
kernel(unpack16 cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(unpack16 base SPEC ITEMS=2)
kernel(add base SPEC ITEMS=4)
kernel(subtract cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(subtract base SPEC ITEMS=4)
kernel(transpose cpu NEEDS CPU WG 8 SPEC TILE=32 DEFINES CPU=1)
kernel(transpose base WG 128 SPEC TILE=32)

# ---- the matrix product: TILE x TILE_N is the part of C that one workgroup computes. A_T, B_T: an operand lies the other way.
# wide: 8 x 8 of C an invocation, whose 64 sums are half of Arc's registers; packed: the same with products in f16
foreach(form "" _nn _tn)
    set(lies DEFINES A_T=0)
    if(form STREQUAL _nn)
        set(lies DEFINES B_T=1)
    elseif(form STREQUAL _tn)
        set(lies DEFINES A_T=1 B_T=1)
    endif()
    kernel(gemm${form} cpu NEEDS CPU LANES8 WG 8 SPEC TILE=16 TILE_N=32 FILE gemm_cpu.comp ${lies} OPT -O0)
    kernel(gemm${form} wide TUNE NEEDS REGISTERS WG 256 SPEC TILE=128 TILE_N=128 FILE gemm.comp ${lies} RN=8)
    kernel(gemm${form} base WG 128 SPEC TILE=64 TILE_N=64 FILE gemm.comp ${lies})
    kernel(gemm_half${form} cpu NEEDS CPU LANES8 WG 8 SPEC TILE=16 TILE_N=32 FILE gemm_cpu.comp ${lies} OPT -O0)
    kernel(gemm_half${form} wide TUNE NEEDS REGISTERS WG 256 SPEC TILE=128 TILE_N=128 FILE gemm.comp ${lies} RN=8)
    kernel(gemm_half${form} packed TUNE NEEDS F16 SUBGROUP REGISTERS WG 256 SPEC TILE=128 TILE_N=128 FILE gemm_packed.comp ${lies} OPT -O0)
    kernel(gemm_half${form} base WG 128 SPEC TILE=64 TILE_N=64 FILE gemm.comp ${lies})
    kernel(gemm_half${form} coopmat_large TUNE NEEDS COOPMAT SUBGROUP F16 REGISTERS PROBE coopmat WG 256 SUBGROUP_SIZE smallest SPEC TILE=128 TILE_N=128 FILE gemm_coopmat_large.comp ${lies})
    kernel(gemm_half${form} bf16_large TUNE NEEDS COOPMAT BF16 SUBGROUP F16 REGISTERS PROBE bf16 WG 256 SUBGROUP_SIZE smallest SPEC TILE=128 TILE_N=128 FILE gemm_coopmat_large.comp ${lies} BF16=1)
    kernel(gemm_half${form} bf16 TUNE NEEDS COOPMAT BF16 SUBGROUP F16 PROBE bf16 WG 128 SUBGROUP_SIZE smallest SPEC TILE=64 TILE_N=64 FILE gemm_coopmat_large.comp ${lies} BF16=1 STEP=16)
    kernel(gemm_half${form} coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WG 128 SUBGROUP_SIZE smallest SPEC TILE=64 TILE_N=64 FILE gemm_coopmat.comp ${lies})
endforeach()

# ---- transformer forward
kernel(rmsnorm_fwd cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(rmsnorm_fwd base WG 128)
kernel(add_bias cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(add_bias base SPEC ITEMS=4)
kernel(rope_fwd cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(rope_fwd base SPEC ITEMS=4)
kernel(rope_part base)
kernel(mla_heads base)
kernel(mla_join base)
kernel(mla_queries base)
kernel(conv_silu base)
kernel(l2norm base WG 128)
kernel(delta_rule d128 WHERE dim 4 128 WG 128 DEFINES SPAN=128)
kernel(delta_rule base WG 128 DEFINES SPAN=256)
kernel(norm_gated base WG 128)
kernel(gate_heads base)
kernel(attn_fwd small NEEDS CPU LANES8 WHERE dim SMALL_HEAD_STEP SMALL_HEAD_MAX WG 8 SPEC TILE=16 FILE attn_fwd_cpu.comp DEFINES SMALL=1 OPT -O0)
kernel(attn_fwd cpu NEEDS CPU LANES8 WG 8 SPEC TILE=8 FILE attn_fwd_cpu.comp OPT -O0)
kernel(attn_fwd d64 WHERE dim 64 64 WG 128 SPEC TILE=32 DEFINES SPAN=64 DIM=64)
kernel(attn_fwd d128 WHERE dim 128 128 WG 128 SPEC TILE=32 DEFINES SPAN=64 DIM=128)
kernel(attn_fwd base WG 128 SPEC TILE=32 DEFINES SPAN=32)
kernel(attn_cap_fwd d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=64 DIM=128 CAP=1)
kernel(attn_cap_fwd d256 WHERE dim 256 256 WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=32 DIM=256 CAP=1)
kernel(attn_cap_fwd base WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=32 CAP=1)
kernel(attn_cap_fwd_half coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_fwd_half_coopmat.comp DEFINES CAP=1)
kernel(attn_cap_fwd_half d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=64 DIM=128 CAP=1)
kernel(attn_cap_fwd_half base WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=32 CAP=1)
kernel(attn_sinks base)
kernel(attn_step cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(attn_step base WG 64)
kernel(softcap base)
kernel(softcap_bwd base)
kernel(attn_fwd_half coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_fwd_half_coopmat.comp)
kernel(attn_fwd_half d64 WHERE dim 64 64 WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=64 DIM=64)
kernel(attn_fwd_half d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=64 DIM=128)
kernel(attn_fwd_half base WG 128 SPEC TILE=32 FILE attn_fwd.comp DEFINES SPAN=32)
kernel(swiglu_fwd cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(swiglu_fwd base SPEC ITEMS=4)
kernel(geglu_fwd cpu NEEDS CPU SPEC ITEMS=4 FILE swiglu_fwd.comp DEFINES CPU=1 GELU=1)
kernel(geglu_fwd base SPEC ITEMS=4 FILE swiglu_fwd.comp DEFINES GELU=1)
kernel(clamped_fwd cpu NEEDS CPU SPEC ITEMS=4 FILE swiglu_fwd.comp DEFINES CPU=1 CLAMPED=1)
kernel(clamped_fwd base SPEC ITEMS=4 FILE swiglu_fwd.comp DEFINES CLAMPED=1)
kernel(gather_rows base)
kernel(scatter_rows base)
kernel(add_gated base)
kernel(nll cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(nll base WG 128)
kernel(kl cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(kl base WG 128)
kernel(draw cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(draw base WG 128)

# ---- transformer backward
kernel(rmsnorm_bwd cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(rmsnorm_bwd base WG 128)
kernel(swiglu_bwd cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(swiglu_bwd base SPEC ITEMS=4)
kernel(geglu_bwd cpu NEEDS CPU SPEC ITEMS=4 FILE swiglu_bwd.comp DEFINES CPU=1 GELU=1)
kernel(geglu_bwd base SPEC ITEMS=4 FILE swiglu_bwd.comp DEFINES GELU=1)
kernel(clamped_bwd cpu NEEDS CPU SPEC ITEMS=4 FILE swiglu_bwd.comp DEFINES CPU=1 CLAMPED=1)
kernel(clamped_bwd base SPEC ITEMS=4 FILE swiglu_bwd.comp DEFINES CLAMPED=1)
kernel(kl_bwd cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(kl_bwd base WG 128)
kernel(sampled_bwd cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(sampled_bwd base WG 128)
kernel(scale_rows cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(scale_rows base SPEC ITEMS=4)
kernel(reduce_sum cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(reduce_sum base WG 128)
kernel(scale_grad cpu NEEDS CPU WG 8 SPEC LANE_PER_UNIT=1 DEFINES CPU=1)
kernel(scale_grad base WG 64)
kernel(adam_step base)
kernel(attn_bwd_q small NEEDS CPU LANES8 WHERE dim SMALL_HEAD_STEP SMALL_HEAD_MAX WG 8 SPEC TILE=16 FILE attn_bwd_q_cpu.comp DEFINES SMALL=1 OPT -O0)
kernel(attn_bwd_q cpu NEEDS CPU LANES8 WG 8 SPEC TILE=8 FILE attn_bwd_q_cpu.comp OPT -O0)
kernel(attn_bwd_q coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_bwd_q_coopmat.comp)
kernel(attn_bwd_q d64 WHERE dim 64 64 WG 128 SPEC TILE=32 DEFINES SPAN=64 DIM=64)
kernel(attn_bwd_q d128 WHERE dim 128 128 WG 128 SPEC TILE=32 DEFINES SPAN=64 DIM=128)
kernel(attn_bwd_q base WG 128 SPEC TILE=32 DEFINES SPAN=32)
kernel(attn_cap_bwd_q coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_bwd_q_coopmat.comp DEFINES CAP=1)
kernel(attn_cap_bwd_q d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_bwd_q.comp DEFINES SPAN=64 DIM=128 CAP=1)
kernel(attn_cap_bwd_q d256 WHERE dim 256 256 WG 128 SPEC TILE=32 FILE attn_bwd_q.comp DEFINES SPAN=32 DIM=256 CAP=1)
kernel(attn_cap_bwd_q base WG 128 SPEC TILE=32 FILE attn_bwd_q.comp DEFINES SPAN=32 CAP=1)
kernel(attn_cap_bwd_kv coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_bwd_kv_coopmat.comp DEFINES CAP=1)
kernel(attn_cap_bwd_kv d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=32 DIM=128 CAP=1)
kernel(attn_cap_bwd_kv d256 WHERE dim 256 256 WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=32 DIM=256 CAP=1)
kernel(attn_cap_bwd_kv base WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=32 CAP=1)
kernel(attn_cap_bwd_v coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_bwd_kv_coopmat.comp DEFINES CAP=1 ONLY_V=1)
kernel(attn_cap_bwd_v d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=64 DIM=128 CAP=1 ONLY_V=1)
kernel(attn_cap_bwd_v d256 WHERE dim 256 256 WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=32 DIM=256 CAP=1 ONLY_V=1)
kernel(attn_cap_bwd_v base WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=32 CAP=1 ONLY_V=1)
kernel(attn_bwd_kv small NEEDS CPU LANES8 WHERE dim SMALL_HEAD_STEP SMALL_HEAD_MAX WG 8 SPEC TILE=16 FILE attn_bwd_kv_cpu.comp DEFINES SMALL=1 OPT -O0)
kernel(attn_bwd_kv cpu NEEDS CPU LANES8 WG 8 SPEC TILE=8 FILE attn_bwd_kv_cpu.comp OPT -O0)
kernel(attn_bwd_kv coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_bwd_kv_coopmat.comp)
kernel(attn_bwd_kv d64 WHERE dim 64 64 WG 128 SPEC TILE=32 DEFINES SPAN=64 DIM=64)
kernel(attn_bwd_kv d128 WHERE dim 128 128 WG 128 SPEC TILE=32 DEFINES SPAN=32 DIM=128)
kernel(attn_bwd_kv base WG 128 SPEC TILE=32 DEFINES SPAN=32)
kernel(attn_bwd_v small NEEDS CPU LANES8 WHERE dim SMALL_HEAD_STEP SMALL_HEAD_MAX WG 8 SPEC TILE=16 FILE attn_bwd_kv_cpu.comp DEFINES ONLY_V=1 SMALL=1 OPT -O0)
kernel(attn_bwd_v cpu NEEDS CPU LANES8 WG 8 SPEC TILE=8 FILE attn_bwd_kv_cpu.comp DEFINES ONLY_V=1 OPT -O0)
kernel(attn_bwd_v coopmat TUNE NEEDS COOPMAT SUBGROUP F16 PROBE coopmat WHERE dim 8 128 WG 256 SUBGROUP_SIZE smallest SPEC TILE=64 FILE attn_bwd_kv_coopmat.comp DEFINES ONLY_V=1)
kernel(attn_bwd_v d64 WHERE dim 64 64 WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=64 DIM=64 ONLY_V=1)
kernel(attn_bwd_v d128 WHERE dim 128 128 WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=64 DIM=128 ONLY_V=1)
kernel(attn_bwd_v base WG 128 SPEC TILE=32 FILE attn_bwd_kv.comp DEFINES SPAN=32 ONLY_V=1)

# ---- quantization. LANE_PER_UNIT: 1 where one invocation, not one workgroup, works on a group (host/gpu/tiled.c)
kernel(scale_search cpu NEEDS CPU DEFINES LANE_PER_GROUP=1 WG 8 SPEC LANE_PER_UNIT=1)
kernel(scale_search base WG 32)
kernel(affine_search cpu NEEDS CPU DEFINES PRIVATE_GROUP=1 WG 8)
kernel(affine_search base WG 32) # 32 weights of each invocation in shared memory: 4 KiB
kernel(project_scales base WG 32)
kernel(quantize base)
kernel(dequant cpu NEEDS CPU SPEC ITEMS=4 DEFINES CPU=1)
kernel(dequant base SPEC ITEMS=1)
kernel(unpack_codes base)
kernel(gptq_segment cpu NEEDS CPU DEFINES PRIVATE_ERRORS=1 WG 8 SPEC ROWS_PER_LANE=16)
kernel(gptq_segment base WG 32) # 128 errors per row in shared memory: 16 KiB
kernel(diagonal base)
kernel(damp_diagonal base)
kernel(zero_dead base)
kernel(flip base)
kernel(copy_rect base)
kernel(chol_block base WG 64) # one lane per row of the block
kernel(gumbel_init base)
kernel(gumbel_step cpu3 NEEDS CPU WHERE levels 3 3 WG 8 FILE gumbel_step_cpu.comp DEFINES LEVEL_COUNT=3)
kernel(gumbel_step cpu4 NEEDS CPU WHERE levels 4 4 WG 8 FILE gumbel_step_cpu.comp DEFINES LEVEL_COUNT=4)
kernel(gumbel_step cpu NEEDS CPU WG 8 FILE gumbel_step_cpu.comp)
kernel(gumbel_step levels3 WHERE levels 3 3 WG 64 SPEC COLUMNS=256 DEFINES LEVEL_COUNT=3)
kernel(gumbel_step levels4 WHERE levels 4 4 WG 64 SPEC COLUMNS=256 DEFINES LEVEL_COUNT=4)
kernel(gumbel_step base WG 64 SPEC COLUMNS=256)
kernel(gumbel_codes cpu NEEDS CPU DEFINES CPU=1)
kernel(gumbel_codes base)
kernel(col_sumsq cpu NEEDS CPU WG 8 SPEC ITEMS=4 DEFINES CPU=1)
kernel(col_sumsq base)
kernel(row_dot cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(row_dot base WG 128)
kernel(residual cpu NEEDS CPU LANES8 WG 8 DEFINES CPU=1)
kernel(residual base WG 128)
kernel(round_scales base)

# ---- measurement
kernel(peak_fma base)
