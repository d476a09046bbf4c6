#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "common.glsl"
#include "gemm.glsl"
layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
layout(constant_id = SPEC_TILE) const uint TILE_M = 64;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 64;
layout(constant_id = SPEC_COOPMAT_M) const uint CM = 8; // as defaults what lavapipe has: older validation layers look at these alone
layout(constant_id = SPEC_COOPMAT_N) const uint CN = 8;
layout(constant_id = SPEC_COOPMAT_K) const uint CK = 8;

// gemm_half by cooperative matrices: operands rounded to f16, sums in f32.
//
// A workgroup computes TILE_M x TILE_N of C. Its subgroups share the tile out: of 64 x 64, two have 64 x 32 each, four
// 32 x 32, eight 16 x 32, sixteen 16 x 16, so that 128 invocations serve devices with subgroups of 8 to 64.
//
// f16 reaches from 6e-8 to 65504, and neither activations nor gradients keep to that. So each operand is multiplied by a
// power of two, which the sums are divided by in the end: taken from the largest number of the first step along k that has one,
// with room for eight times as much; where a later step is larger still, the sums are scaled down to its. Numbers 2^27 times
// smaller than the largest are rounded coarser than f16 rounds, and 2^37 times smaller ones are lost.
const uint COUNT = gl_WorkGroupSize.x / SUBGROUP; // subgroups
const uint SPLIT_N = COUNT < 16u ? 2u : 4u, SPLIT_M = COUNT / SPLIT_N;
const uint WM = TILE_M / SPLIT_M, WN = TILE_N / SPLIT_N; // what one has
const uint NM = WM / CM, NN = WN / CN;
const uint TILE_K = 16u, STRIDE = TILE_K + 8u; // halves
const uint LOADS_A = TILE_M * TILE_K / 4u / gl_WorkGroupSize.x, LOADS_B = TILE_N * TILE_K / 4u / gl_WorkGroupSize.x;

shared float16_t as[TILE_M * STRIDE];
shared float16_t bs[TILE_N * STRIDE];
shared float out_s[COUNT * CM * CN];
shared float most[2][2][COUNT]; // of the next step and the present one: largest of A and B that each subgroup has seen

#define SUMS coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>
#define LEFT coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA>
#define RIGHT coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB>

float largest(vec4 v)
{
    v = abs(v);
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The power of two that brings numbers up to `top` (not 0) below `room`, a power of two itself, and no lower than half of it.
float scale_to(float top, float room)
{
    uint e = floatBitsToUint(room) + (126u << 23) - (floatBitsToUint(top) & 0x7F800000u);
    return uintBitsToFloat(clamp(e, 1u << 23, 254u << 23));
}

// The scale for a step whose largest number is `top`: what it was, unless there was none (0), or it would overflow.
float next_scale(float was, float top)
{
    if (!(top > 0.0))
        return was;
    return was == 0.0 ? scale_to(top, 4096.0) : top * was < 32768.0 ? was : scale_to(top, 32768.0);
}

void main()
{
    uint tiles_n = (n + TILE_N - 1u) / TILE_N;
    uint t = wg_index();
    uint m0 = t / tiles_n * TILE_M, n0 = t % tiles_n * TILE_N;
    if (m0 >= m)
        return;
    uint l = gl_LocalInvocationID.x, sub = gl_SubgroupID;
    uint wm = sub / SPLIT_N * WM, wn = sub % SPLIT_N * WN;
    uint load_row = l / (TILE_K / 4u), load_k = l % (TILE_K / 4u) * 4u;
    uint load_rows = gl_WorkGroupSize.x / (TILE_K / 4u);

    SUMS sums[NM * NN];
    [[unroll]] for (uint i = 0u; i < NM * NN; i++)
        sums[i] = SUMS(0.0);
    vec4 next_a[LOADS_A], next_b[LOADS_B];
    float scale_a = 0.0, scale_b = 0.0;
    for (uint step = 0u, k0 = 0u; k0 < k + TILE_K; step++, k0 += TILE_K) {
        // The loads of step s are made while step s - 1 is multiplied; the first turn only loads.
        if (step > 0u) {
            float top_a = 0.0, top_b = 0.0;
            barrier(); // the products before are done, and what the loads saw is known
            [[unroll]] for (uint i = 0u; i < COUNT; i++) {
                top_a = max(top_a, most[step & 1u][0][i]);
                top_b = max(top_b, most[step & 1u][1][i]);
            }
            float now_a = next_scale(scale_a, top_a), now_b = next_scale(scale_b, top_b);
            if (scale_a * scale_b != 0.0 && (now_a != scale_a || now_b != scale_b)) {
                float down = (now_a / scale_a) * (now_b / scale_b);
                [[unroll]] for (uint i = 0u; i < NM * NN; i++)
                    sums[i] = sums[i] * down;
            }
            scale_a = now_a;
            scale_b = now_b;
            [[unroll]] for (uint i = 0u; i < LOADS_A; i++)
                [[unroll]] for (uint j = 0u; j < 4u; j++)
                    as[(load_row + i * load_rows) * STRIDE + load_k + j] = float16_t(next_a[i][j] * scale_a);
            [[unroll]] for (uint i = 0u; i < LOADS_B; i++)
                [[unroll]] for (uint j = 0u; j < 4u; j++)
                    bs[(load_row + i * load_rows) * STRIDE + load_k + j] = float16_t(next_b[i][j] * scale_b);
            barrier();
        }
        if (k0 < k) {
            float top_a = 0.0, top_b = 0.0;
            [[unroll]] for (uint i = 0u; i < LOADS_A; i++) {
                next_a[i] = load_a(m0 + load_row + i * load_rows, k0 + load_k);
                top_a = max(top_a, largest(next_a[i]));
            }
            [[unroll]] for (uint i = 0u; i < LOADS_B; i++) {
                next_b[i] = load_b(n0 + load_row + i * load_rows, k0 + load_k);
                top_b = max(top_b, largest(next_b[i]));
            }
            top_a = subgroupMax(top_a);
            top_b = subgroupMax(top_b);
            if (subgroupElect()) {
                most[(step + 1u) & 1u][0][sub] = top_a;
                most[(step + 1u) & 1u][1][sub] = top_b;
            }
        }
        if (step > 0u) {
            [[unroll]] for (uint kk = 0u; kk < TILE_K; kk += CK) {
                LEFT x[NM];
                [[unroll]] for (uint i = 0u; i < NM; i++)
                    coopMatLoad(x[i], as, (wm + i * CM) * STRIDE + kk, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint j = 0u; j < NN; j++) {
                    RIGHT y;
                    coopMatLoad(y, bs, (wn + j * CN) * STRIDE + kk, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint i = 0u; i < NM; i++)
                        sums[i * NN + j] = coopMatMulAdd(x[i], y, sums[i * NN + j]);
                }
            }
        }
    }

    float back_a = scale_a != 0.0 ? 1.0 / scale_a : 0.0, back_b = scale_b != 0.0 ? 1.0 / scale_b : 0.0;
    [[unroll]] for (uint i = 0u; i < NM; i++)
        [[unroll]] for (uint j = 0u; j < NN; j++) {
            coopMatStore(sums[i * NN + j], out_s, sub * CM * CN, CN, gl_CooperativeMatrixLayoutRowMajor);
            subgroupMemoryBarrierShared();
            subgroupBarrier();
            for (uint e = gl_SubgroupInvocationID; e < CM * CN; e += SUBGROUP) {
                uint row = m0 + wm + i * CM + e / CN, col = n0 + wn + j * CN + e % CN;
                if (row < m && col < n) {
                    uint at = row * ldc + col;
                    float v = alpha * (out_s[sub * CM * CN + e] * back_a * back_b);
                    c[at] = beta == 0.0 ? v : v + beta * old[at];
                }
            }
            subgroupBarrier();
        }
}
