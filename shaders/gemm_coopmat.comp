#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "common.glsl"
layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
layout(constant_id = SPEC_TILE) const uint TILE_M = 64;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 64;
layout(constant_id = SPEC_COOPMAT_M) const uint CM = 8; // as defaults what lavapipe has: older validation layers look at these alone
layout(constant_id = SPEC_COOPMAT_N) const uint CN = 8;
layout(constant_id = SPEC_COOPMAT_K) const uint CK = 8;

const uint TILE_K = 16u;
const bool K_MAJOR = false;
#include "gemm.glsl"
#include "half_scale.glsl"

// gemm_half by cooperative matrices: operands rounded to f16, sums in f32.
//
// A workgroup computes TILE_M x TILE_N of C, and its subgroups share the tile out: of 64 x 64, four have 32 x 32 each, eight
// 16 x 32, sixteen 16 x 16, so that 128 invocations serve devices with subgroups of 8 to 64. The next step's loads are issued
// before the products of this one. Steps of 32 along k, or a tile of 128 x 128, run out of registers on Arc.
//
// f16 reaches from 6e-8 to 65504, and neither activations nor gradients keep to that. So each operand is multiplied by a
// power of two, which the sums are divided by in the end: taken from the largest number of the first step along k that has one,
// with room for eight times as much; where a later step is larger still, the sums are scaled down to its. Numbers 2^27 times
// smaller than the largest are rounded coarser than f16 rounds, and 2^37 times smaller ones are lost.
const uint COUNT = gl_WorkGroupSize.x / SUBGROUP; // subgroups
const uint WN = TILE_M * TILE_N / COUNT < 512u ? 16u : 32u, WM = TILE_M * TILE_N / COUNT / WN; // what one has
const uint SPLIT_N = TILE_N / WN;
const uint NM = WM / CM, NN = WN / CN;
const uint STRIDE = TILE_K + 8u; // halves: rows start 16 bytes aligned, in other banks

shared f16vec4 as[TILE_M * STRIDE / 4u];
shared f16vec4 bs[TILE_N * STRIDE / 4u];
shared float out_s[COUNT * CM * CN];
shared float most[2][2][COUNT]; // of the next step and the present one: largest of A and B that each subgroup has seen

#define SUMS coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>
#define LEFT coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA>
#define RIGHT coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB>

void store_shared(unit x, mat4 v, float scale_a, float scale_b)
{
    v = by_rows(x, v) * (x.of_a ? scale_a : scale_b);
    uint at = (x.row * STRIDE + x.k) / 4u;
    if (x.of_a)
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            as[at + i * STRIDE / 4u] = f16vec4(v[i]);
    else
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            bs[at + i * STRIDE / 4u] = f16vec4(v[i]);
}

mat4 next[UNITS];
float top_a, top_b; // the largest of this subgroup's next step
SUMS sums[NM * NN];
float scale_a = 0.0, scale_b = 0.0;

// What a step's loads saw is known to all; `slot` is 0 and 1 in turns.
void tell_largest(unit units[UNITS], uint slot)
{
    top_a = top_b = 0.0;
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
        float top = max(max(largest(next[u][0]), largest(next[u][1])), max(largest(next[u][2]), largest(next[u][3])));
        if (units[u].of_a)
            top_a = max(top_a, top);
        else
            top_b = max(top_b, top);
    }
    top_a = subgroupMax(top_a);
    top_b = subgroupMax(top_b);
    if (subgroupElect()) {
        most[slot][0][gl_SubgroupID] = top_a;
        most[slot][1][gl_SubgroupID] = top_b;
    }
}

// What was loaded goes to shared memory, scaled so that it fits; and the sums with it.
void stage(unit units[UNITS], uint slot)
{
    barrier(); // the products before are done, and what the loads saw is known
    top_a = top_b = 0.0;
    [[unroll]] for (uint i = 0u; i < COUNT; i++) {
        top_a = max(top_a, most[slot][0][i]);
        top_b = max(top_b, most[slot][1][i]);
    }
    float now_a = next_scale(scale_a, top_a), now_b = next_scale(scale_b, top_b);
    if (scale_a * scale_b != 0.0 && (now_a != scale_a || now_b != scale_b)) {
        float down = (now_a / scale_a) * (now_b / scale_b);
        [[unroll]] for (uint i = 0u; i < NM * NN; i++)
            sums[i] = sums[i] * down;
    }
    scale_a = now_a;
    scale_b = now_b;
    [[unroll]] for (uint u = 0u; u < UNITS; u++)
        store_shared(units[u], next[u], scale_a, scale_b);
    barrier();
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

    // Of the scales' two slots a step has that of its number.
    uint k_main = checked_from(m0, n0);
    if (k_main > 0u) {
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_block(units[u], 0u);
        tell_largest(units, 0u);
    }
    for (uint k0 = 0u; k0 < k_main; k0 += TILE_K) {
        uint slot = k0 / TILE_K & 1u;
        stage(units, slot);
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_block(units[u], min(k0 + TILE_K, k_main - TILE_K));
        multiply(wm, wn);
        tell_largest(units, slot ^ 1u);
    }
    for (uint k0 = k_main; k0 < k; k0 += TILE_K) {
        uint slot = k0 / TILE_K & 1u;
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_checked(units[u], k0, m0, n0);
        tell_largest(units, slot);
        stage(units, slot);
        multiply(wm, wn);
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
