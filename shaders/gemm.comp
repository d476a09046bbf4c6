#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "gemm.glsl"
layout(constant_id = SPEC_TILE) const uint TILE_M = 64;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 64;

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
// Shared tiles are k-major (as[k][row]), so that the rows and columns of an invocation are neighbours and are read as
// vec4; one vec4 of padding spreads the transposing stores over the banks. The next step's global loads are issued
// before the products of this one. The workgroup must be (TILE_M / RM) * (TILE_N / RN) invocations.
const uint RM = 8u, RN = 4u, TILE_K = 16u;
const uint STRIDE_A = TILE_M / 4u + 1u, STRIDE_B = TILE_N / 4u + 1u;               // vec4 per k
const uint LOADS_A = TILE_M * TILE_K / 4u / gl_WorkGroupSize.x;                     // vec4 per invocation and step
const uint LOADS_B = TILE_N * TILE_K / 4u / gl_WorkGroupSize.x;

shared vec4 as[TILE_K * STRIDE_A];
shared vec4 bs[TILE_K * STRIDE_B];

void main()
{
    uint tiles_n = (n + TILE_N - 1u) / TILE_N;
    uint t = wg_index();
    uint m0 = t / tiles_n * TILE_M, n0 = t % tiles_n * TILE_N;
    if (m0 >= m)
        return;
    uint l = gl_LocalInvocationID.x;
    uint ty = l / (TILE_N / RN), tx = l % (TILE_N / RN);
    uint load_row = l / (TILE_K / 4u), load_k = l % (TILE_K / 4u) * 4u; // TILE_K / 4 invocations read a row's step
    uint load_rows = gl_WorkGroupSize.x / (TILE_K / 4u);

    vec4 acc[RM];
    [[unroll]] for (uint i = 0u; i < RM; i++)
        acc[i] = vec4(0.0);
    vec4 next_a[LOADS_A], next_b[LOADS_B];
    [[unroll]] for (uint i = 0u; i < LOADS_A; i++)
        next_a[i] = load_a(m0 + load_row + i * load_rows, load_k);
    [[unroll]] for (uint i = 0u; i < LOADS_B; i++)
        next_b[i] = load_b(n0 + load_row + i * load_rows, load_k);

    for (uint k0 = 0u; k0 < k; k0 += TILE_K) {
        barrier(); // the step before is used up
        [[unroll]] for (uint i = 0u; i < LOADS_A; i++) {
            uint row = load_row + i * load_rows;
            [[unroll]] for (uint j = 0u; j < 4u; j++)
                as[(load_k + j) * STRIDE_A + (row >> 2)][row & 3u] = next_a[i][j];
        }
        [[unroll]] for (uint i = 0u; i < LOADS_B; i++) {
            uint row = load_row + i * load_rows;
            [[unroll]] for (uint j = 0u; j < 4u; j++)
                bs[(load_k + j) * STRIDE_B + (row >> 2)][row & 3u] = next_b[i][j];
        }
        barrier();
        if (k0 + TILE_K < k) {
            [[unroll]] for (uint i = 0u; i < LOADS_A; i++)
                next_a[i] = load_a(m0 + load_row + i * load_rows, k0 + TILE_K + load_k);
            [[unroll]] for (uint i = 0u; i < LOADS_B; i++)
                next_b[i] = load_b(n0 + load_row + i * load_rows, k0 + TILE_K + load_k);
        }
        [[unroll]] for (uint kk = 0u; kk < TILE_K; kk++) {
            vec4 bv = bs[kk * STRIDE_B + tx];
            [[unroll]] for (uint i = 0u; i < RM / 4u; i++) {
                vec4 av = as[kk * STRIDE_A + ty * (RM / 4u) + i];
                acc[4u * i] += av.x * bv;
                acc[4u * i + 1u] += av.y * bv;
                acc[4u * i + 2u] += av.z * bv;
                acc[4u * i + 3u] += av.w * bv;
            }
        }
    }

    [[unroll]] for (uint i = 0u; i < RM; i++)
        [[unroll]] for (uint j = 0u; j < RN; j++) {
            uint row = m0 + ty * RM + i, col = n0 + tx * RN + j;
            if (row < m && col < n) {
                uint at = row * ldc + col;
                c[at] = beta == 0.0 ? alpha * acc[i][j] : alpha * acc[i][j] + beta * old[at];
            }
        }
}
