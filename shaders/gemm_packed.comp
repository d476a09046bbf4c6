#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
layout(constant_id = SPEC_TILE) const uint TILE_M = 128;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 128;
const uint TILE_K = 16u;
const bool K_MAJOR = true;
#define ALONG_K 1
#include "gemm.glsl"

// gemm_half by packed f16, two products an instruction, for cards without matrix cores. The tile is gemm.comp's; an invocation has
// 8 rows and RN columns of it. The products of a step are summed in f16, four columns at a time, and these sums in f32: each
// of at most 16 additions rounds to 11 bits, as the operands are.
#ifndef RN
#define RN 8u
#endif
const uint RM = 8u, VECS_N = RN / 4u, ACROSS = TILE_N / RN;
const uint STRIDE_A = TILE_M / 4u + 2u, STRIDE_B = TILE_N / 4u + 2u; // f16vec4 per k; 16 bytes aligned, in other banks

shared f16vec4 as[TILE_K * STRIDE_A];
shared f16vec4 bs[TILE_K * STRIDE_B];

const float ROOM_FIRST = 4.0, ROOM = 32.0; // TILE_K products of two such numbers: 2^14
#include "row_scale.glsl"

vec4 acc[RM * VECS_N];

// What was loaded goes to shared memory; the sums follow the scales.
void stage(unit units[UNITS], uint step_number, uint ty, uint tx)
{
    barrier(); // the step before is used up
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
        mat4 v = transpose(scaled_block(units[u], u, step_number)); // [k][row]
        if (units[u].of_a)
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                as[(units[u].k + i) * STRIDE_A + units[u].row / 4u] = f16vec4(v[i]);
        else
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                bs[(units[u].k + i) * STRIDE_B + units[u].row / 4u] = f16vec4(v[i]);
    }
    barrier();
    if (scales_fell(step_number)) {
        [[unroll]] for (uint i = 0u; i < RM; i++)
            [[unroll]] for (uint j = 0u; j < VECS_N; j++)
                acc[i * VECS_N + j] *= factors[(ty * RM + i) / 4u][i % 4u];
        subgroupMemoryBarrierShared();
        [[unroll]] for (uint j = 0u; j < VECS_N; j++) {
            vec4 by = factors[(TILE_M + tx * RN) / 4u + j];
            [[unroll]] for (uint i = 0u; i < RM; i++)
                acc[i * VECS_N + j] *= by;
        }
    }
}

void multiply_by(uint kk, uint j, uint ty, uint tx, inout f16vec4 part[RM])
{
    f16vec4 bv = bs[kk * STRIDE_B + tx * VECS_N + j];
    [[unroll]] for (uint i = 0u; i < RM / 4u; i++) {
        f16vec4 av = as[kk * STRIDE_A + ty * (RM / 4u) + i];
        [[unroll]] for (uint r = 0u; r < 4u; r++)
            part[4u * i + r] = fma(f16vec4(av[r]), bv, part[4u * i + r]);
    }
}

void main()
{
    uint m0, n0;
    if (!find_tile(m0, n0))
        return;
    uint ty = gl_LocalInvocationID.x / ACROSS, tx = gl_LocalInvocationID.x % ACROSS;
    unit units[UNITS];
    [[unroll]] for (uint i = 0u; i < RM * VECS_N; i++)
        acc[i] = vec4(0.0);
    start_scales();

    uint k_main = checked_from(m0, n0);
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
        units[u] = find_unit(u, m0, n0);
        if (k_main > 0u)
            next[u] = load_block(units[u], 0u);
    }
    for (uint k0 = 0u; k0 < k_main; k0 += TILE_K) {
        stage(units, k0 / TILE_K + 1u, ty, tx);
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_block(units[u], min(k0 + TILE_K, k_main - TILE_K));
        [[unroll]] for (uint j = 0u; j < VECS_N; j++) {
            subgroupMemoryBarrierShared();
            f16vec4 part[RM];
            [[unroll]] for (uint i = 0u; i < RM; i++)
                part[i] = f16vec4(0.0);
            [[unroll]] for (uint kk = 0u; kk < TILE_K; kk++)
                multiply_by(kk, j, ty, tx, part);
            [[unroll]] for (uint i = 0u; i < RM; i++)
                acc[i * VECS_N + j] += vec4(part[i]);
        }
    }
    for (uint k0 = k_main; k0 < k; k0 += TILE_K) {
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_checked(units[u], k0, m0, n0);
        stage(units, k0 / TILE_K + 1u, ty, tx);
        [[unroll]] for (uint j = 0u; j < VECS_N; j++) {
            subgroupMemoryBarrierShared();
            f16vec4 part[RM];
            [[unroll]] for (uint i = 0u; i < RM; i++)
                part[i] = f16vec4(0.0);
            [[dont_unroll]] for (uint kk = 0u; kk < TILE_K; kk++)
                multiply_by(kk, j, ty, tx, part);
            [[unroll]] for (uint i = 0u; i < RM; i++)
                acc[i * VECS_N + j] += vec4(part[i]);
        }
    }

    tell_inverse(units);
    [[unroll]] for (uint i = 0u; i < RM; i++)
        [[unroll]] for (uint j = 0u; j < RN; j++) {
            uint row = m0 + ty * RM + i, col = n0 + tx * RN + j;
            if (row < m && col < n) {
                uint at = row * ldc + col;
                float v = alpha * (acc[i * VECS_N + j / 4u][j % 4u] * factor_a(ty * RM + i) * factor_b(tx * RN + j));
                c[at] = beta == 0.0 ? v : v + beta * old[at];
            }
        }
}
