# Which variants of each kernel are built. One line each, best first: the first whose needs the device meets is used.
#
#   kernel(NAME VARIANT [NEEDS CAP...] [PROBE probe] [FILE x.comp] [DEFINES a=b ...] [WG n | WG SUBGROUP] [SPEC id=value ...])
#
#   NAME     a row of kernels.def; compiled from NAME.comp, or from FILE
#   VARIANT  "base" for every kernel: fp32, at most 128 invocations, no 16-bit or subgroup feature
#   NEEDS    device bits, host/gpu/gpu_device.h: CPU SUBGROUP F16 INT8 COOPMAT. Order matters: a CPU variant comes first
#   PROBE    the line is dropped where the installed glslc cannot compile probe/PROBE.comp
#   DEFINES  preprocessor symbols
#   WG       invocations per workgroup (constant 0); default 64. SUBGROUP: one subgroup of the device
#   SPEC     specialization constants, ids from 2 up; the host reads them with gpu_kernel_constant
#
# Constants that every shader may declare:
#   layout(local_size_x_id = 0) in;                    workgroup size, from WG
#   layout(constant_id = 1) const uint SUBGROUP = 8;   gl_SubgroupSize in variants that need SUBGROUP, and the
#                                                      device's usual subgroup size in the others

# ---- data movement
kernel(unpack16 base)
kernel(add base)
kernel(subtract base)
kernel(transpose base WG 128 SPEC 2=32)

# ---- the matrix product: constants 2 and 3 are the tile of C that one workgroup computes
kernel(gemm base WG 128 SPEC 2=64 3=64)

# ---- transformer forward
kernel(rmsnorm_fwd base WG 128)
kernel(add_bias base)
kernel(rope_fwd base)
kernel(attn_fwd base WG 128 SPEC 2=32)
kernel(swiglu_fwd base)
kernel(nll base WG 128)
kernel(kl base WG 128)
