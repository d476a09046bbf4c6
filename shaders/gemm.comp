#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
layout(constant_id = SPEC_TILE) const uint TILE_M = 64;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 64;
const uint TILE_K = 16u;
const bool K_MAJOR = true;
#include "gemm.glsl"

// C[m,n] = alpha * A[m,k] B[n,k]^T + beta * old for GPUs without anything special: a tile of C per workgroup, staged
// through shared memory in steps of TILE_K along k.
//
//                B rows of this tile (columns of C)            one invocation (ty, tx) owns RM x RN of C
//                   <----- TILE_N = 16 * RN ----->
//     A      ^    +----+----+----+- - - - -+----+               +--------------+
//     rows   |    |0,0 |0,1 |0,2 |         |0,15|               | c00 .. c03   |  RM = 8 rows,
//     of     |    +----+----+----+- - - - -+----+               |  :       :   |  RN = 4 columns:
//     this TILE_M |1,0 |                        |               | c70 .. c73   |  2 + 1 shared vec4 reads
//     tile   |    :    :                        :               +--------------+  feed 32 multiply-adds
//            v    +----+- - - - - - - - - - - - +
//
// Shared tiles are k-major, so that the rows and columns of an invocation are neighbours and are read as vec4. The next
// step's global loads are issued before the products of this one. The workgroup must be (TILE_M / RM) * (TILE_N / RN)
// invocations. With RN = 8 (variant wide) an invocation's columns are two groups of four, half a tile apart: 4 shared reads
// feed 64 multiply-adds.
#ifndef RN
#define RN 4u
#endif
const uint RM = 8u, VECS_N = RN / 4u, ACROSS = TILE_N / RN;
const uint STRIDE_A = TILE_M / 4u + 1u, STRIDE_B = TILE_N / 4u + 1u; // vec4 per k

shared vec4 as[TILE_K * STRIDE_A];
shared vec4 bs[TILE_K * STRIDE_B];

void store_shared(unit x, mat4 v)
{
    v = transpose(by_rows(x, v)); // [k][row]
    if (x.of_a)
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            as[(x.k + i) * STRIDE_A + x.row / 4u] = v[i];
    else
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            bs[(x.k + i) * STRIDE_B + x.row / 4u] = v[i];
}

vec4 acc[RM * VECS_N];

void multiply(uint kk, uint ty, uint tx)
{
    vec4 bv[VECS_N];
    [[unroll]] for (uint j = 0u; j < VECS_N; j++)
        bv[j] = bs[kk * STRIDE_B + j * ACROSS + tx];
    [[unroll]] for (uint i = 0u; i < RM / 4u; i++) {
        vec4 av = as[kk * STRIDE_A + ty * (RM / 4u) + i];
        [[unroll]] for (uint r = 0u; r < 4u; r++)
            [[unroll]] for (uint j = 0u; j < VECS_N; j++)
                acc[(4u * i + r) * VECS_N + j] += av[r] * bv[j];
    }
}

void main()
{
    uint m0, n0;
    if (!find_tile(m0, n0))
        return;
    uint ty = gl_LocalInvocationID.x / ACROSS, tx = gl_LocalInvocationID.x % ACROSS;
    unit units[UNITS];
    mat4 next[UNITS];
    [[unroll]] for (uint i = 0u; i < RM * VECS_N; i++)
        acc[i] = vec4(0.0);

    uint k_main = checked_from(m0, n0);
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
        units[u] = find_unit(u, m0, n0);
        if (k_main > 0u)
            next[u] = load_block(units[u], 0u);
    }
    for (uint k0 = 0u; k0 < k_main; k0 += TILE_K) {
        barrier(); // the step before is used up
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            store_shared(units[u], next[u]);
        barrier();
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            next[u] = load_block(units[u], min(k0 + TILE_K, k_main - TILE_K));
        [[unroll]] for (uint kk = 0u; kk < TILE_K; kk++)
            multiply(kk, ty, tx);
    }
    for (uint k0 = k_main; k0 < k; k0 += TILE_K) {
        barrier();
        [[unroll]] for (uint u = 0u; u < UNITS; u++)
            store_shared(units[u], load_checked(units[u], k0, m0, n0));
        barrier();
        [[dont_unroll]] for (uint kk = 0u; kk < TILE_K; kk++)
            multiply(kk, ty, tx);
    }

    [[unroll]] for (uint i = 0u; i < RM; i++)
        [[unroll]] for (uint j = 0u; j < RN; j++) {
            uint row = m0 + ty * RM + i, col = n0 + j / 4u * (TILE_N / VECS_N) + tx * 4u + j % 4u;
            if (row < m && col < n) {
                uint at = row * ldc + col;
                float v = alpha * acc[i * VECS_N + j / 4u][j % 4u];
                c[at] = beta == 0.0 ? v : v + beta * old[at];
            }
        }
}
