#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#ifndef BF16
#define BF16 0
#endif
#if BF16
#extension GL_EXT_bfloat16 : require
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "common.glsl"
layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
layout(constant_id = SPEC_TILE) const uint TILE_M = 128;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 128;
layout(constant_id = SPEC_COOPMAT_M) const uint CM = 8; // as defaults what lavapipe has: older validation layers look at these alone
layout(constant_id = SPEC_COOPMAT_N) const uint CN = 8;
layout(constant_id = SPEC_COOPMAT_K) const uint CK = 8;

#ifndef STEP
#define STEP 32
#endif
const uint TILE_K = STEP;
const bool K_MAJOR = false;
#if BF16
#define OPERAND bfloat16_t
#define OPERAND4 bf16vec4
#include "gemm.glsl"
#include "no_scale.glsl"
#else
#define OPERAND float16_t
#define OPERAND4 f16vec4
#define ALONG_K 1
#include "gemm.glsl"
const float ROOM_FIRST = 4096.0, ROOM = 32768.0;
#include "row_scale.glsl"
#endif

// gemm_half by cooperative matrices where there are registers for it: 128 x 128 in steps of 32, of which a subgroup of 32 has
// 64 x 32, so that what else a step costs is shared by four times as many matrix products as gemm_coopmat.comp has. One scale for
// so many numbers would be too coarse, so each row of an operand has its own. BF16=1: operands in bf16, which reaches as far as f32
// and needs no scale, in tiles of either size.
const uint COUNT = gl_WorkGroupSize.x / SUBGROUP; // subgroups
const uint WN = TILE_M * TILE_N / COUNT < 512u ? 16u : 32u, WM = TILE_M * TILE_N / COUNT / WN; // what one has
const uint SPLIT_N = TILE_N / WN;
const uint NM = WM / CM, NN = WN / CN;
const uint STRIDE = TILE_K + 8u; // halves: rows start 16 bytes aligned, in other banks

shared OPERAND4 as[TILE_M * STRIDE / 4u];
shared OPERAND4 bs[TILE_N * STRIDE / 4u];
shared float out_s[COUNT * CM * CN];

#define SUMS coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>
#define LEFT coopmat<OPERAND, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA>
#define RIGHT coopmat<OPERAND, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB>

SUMS sums[NM * NN];

// Element e of a tile of sums: its row or column of the workgroup's tile, for `factors`.
float factor_of(uint wm, uint wn, uint i, uint j, uint e)
{
    return factor_a(wm + i * CM + e / CN) * factor_b(wn + j * CN + e % CN);
}

#if !BF16
// Factors of rows are the same in every column of a tile of sums, those of columns in every row: a stride of 0.
void rescale(uint wm, uint wn)
{
    SUMS by;
    [[unroll]] for (uint i = 0u; i < NM; i++) {
        coopMatLoad(by, factors, (wm + i * CM) / 4u, 0u, gl_CooperativeMatrixLayoutColumnMajor);
        [[unroll]] for (uint j = 0u; j < NN; j++)
            sums[i * NN + j] = sums[i * NN + j] * by;
    }
    [[unroll]] for (uint j = 0u; j < NN; j++) {
        coopMatLoad(by, factors, (TILE_M + wn + j * CN) / 4u, 0u, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint i = 0u; i < NM; i++)
            sums[i * NN + j] = sums[i * NN + j] * by;
    }
}
#endif

// What was loaded goes to shared memory; the sums follow the scales.
void stage(unit units[UNITS], uint step_number, uint wm, uint wn)
{
    barrier(); // the products before are done
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
        mat4 v = scaled_block(units[u], u, step_number);
        uint at = (units[u].row * STRIDE + units[u].k) / 4u;
        if (units[u].of_a)
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                as[at + i * STRIDE / 4u] = OPERAND4(v[i]);
        else
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                bs[at + i * STRIDE / 4u] = OPERAND4(v[i]);
    }
    barrier();
#if !BF16
    if (scales_fell(step_number))
        rescale(wm, wn);
#endif
}

void multiply(uint wm, uint wn)
{
    [[unroll]] for (uint kk = 0u; kk < TILE_K; kk += CK) {
        LEFT x[NM];
        [[unroll]] for (uint i = 0u; i < NM; i++)
            coopMatLoad(x[i], as, ((wm + i * CM) * STRIDE + kk) / 4u, STRIDE / 4u, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint j = 0u; j < NN; j++) {
            RIGHT y;
            coopMatLoad(y, bs, ((wn + j * CN) * STRIDE + kk) / 4u, STRIDE / 4u, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint i = 0u; i < NM; i++)
                sums[i * NN + j] = coopMatMulAdd(x[i], y, sums[i * NN + j]);
        }
    }
}

void main()
{
    uint m0, n0;
    if (!find_tile(m0, n0))
        return;
    uint sub = gl_SubgroupID, wm = sub / SPLIT_N * WM, wn = sub % SPLIT_N * WN;
    unit units[UNITS];
    [[unroll]] for (uint u = 0u; u < UNITS; u++)
        units[u] = find_unit(u, m0, n0);
    [[unroll]] for (uint i = 0u; i < NM * NN; i++)
        sums[i] = SUMS(0.0);
    start_scales();

    uint k_main = checked_from(m0, n0);
    if (k_main > 0u)
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_block(units[u], 0u);
    for (uint k0 = 0u; k0 < k_main; k0 += TILE_K) {
        stage(units, k0 / TILE_K + 1u, wm, wn);
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_block(units[u], min(k0 + TILE_K, k_main - TILE_K));
        multiply(wm, wn);
    }
    for (uint k0 = k_main; k0 < k; k0 += TILE_K) {
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_checked(units[u], k0, m0, n0);
        stage(units, k0 / TILE_K + 1u, wm, wn);
        multiply(wm, wn);
    }

    tell_inverse(units);
    [[unroll]] for (uint i = 0u; i < NM; i++)
        [[unroll]] for (uint j = 0u; j < NN; j++) {
            coopMatStore(sums[i * NN + j], out_s, sub * CM * CN, CN, gl_CooperativeMatrixLayoutRowMajor);
            subgroupMemoryBarrierShared();
            subgroupBarrier();
            for (uint e = gl_SubgroupInvocationID; e < CM * CN; e += SUBGROUP) {
                uint row = m0 + wm + i * CM + e / CN, col = n0 + wn + j * CN + e % CN;
                if (row < m && col < n) {
                    uint at = row * ldc + col;
                    float v = alpha * (out_s[sub * CM * CN + e] * factor_of(wm, wn, i, j, e));
                    c[at] = beta == 0.0 ? v : v + beta * old[at];
                }
            }
            subgroupBarrier();
        }
}
