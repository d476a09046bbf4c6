// What products on GPUs share: operands, the order of tiles, and loads. To be included below TILE_M, TILE_N, TILE_K, and
// K_MAJOR: whether the shared tiles are [k][row] or [row][k].
//
// An operand is [rows, k] (A: m rows, B: n rows); with A_T=1, B_T=1 it lies as [k, rows]: transposed. Its tile, TILE_M or TILE_N
// rows by TILE_K, is loaded in blocks of 4 x 4. An invocation has UNITS of them, of A and B together, each four loads of 16
// bytes along what is contiguous; out of registers a block can be stored either way.
#ifndef GEMM_GLSL
#define GEMM_GLSL

#ifndef ALONG_K
#define ALONG_K 0 // 1: neighbours in a subgroup have the blocks of one row (row_scale.glsl)
#endif
#if ALONG_K
#define INVOCATION (gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID)
#else
#define INVOCATION gl_LocalInvocationID.x
#endif
#ifndef A_T
#define A_T 0
#endif
#ifndef B_T
#define B_T 0
#endif
const bool A_TRANSPOSED = A_T != 0, B_TRANSPOSED = B_T != 0;

layout(set = 0, binding = 0, std430) readonly buffer A { vec4 a[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { vec4 b[]; };
layout(set = 0, binding = 2, std430) readonly buffer Old { float old[]; };
layout(set = 0, binding = 3, std430) writeonly buffer C { float c[]; };
layout(push_constant) uniform Push { uint m, n, k, lda, ldb, ldc; float alpha, beta; };

const uint BLOCKS_A = TILE_M * TILE_K / 16u, BLOCKS_B = TILE_N * TILE_K / 16u;
const uint UNITS = (BLOCKS_A + BLOCKS_B) / gl_WorkGroupSize.x;
const uint GROUP = 8u; // row tiles that are walked together: what they read stays in the GPU's cache

// First row and column of this workgroup's tile; false: there is none.
bool find_tile(out uint m0, out uint n0)
{
    uint tiles_m = (m + TILE_M - 1u) / TILE_M, tiles_n = (n + TILE_N - 1u) / TILE_N;
    uint t = wg_index(), group = t / (GROUP * tiles_n), in_group = t - group * (GROUP * tiles_n);
    uint rows = min(GROUP, tiles_m - min(group * GROUP, tiles_m));
    m0 = (group * GROUP + in_group % max(rows, 1u)) * TILE_M;
    n0 = in_group / max(rows, 1u) * TILE_N;
    return rows > 0u;
}

struct unit {
    bool of_a;
    uint row, k; // of the block, in the tile
    uint at[4];  // its loads in step 0, counted in vec4
};

unit find_unit(uint u, uint m0, uint n0)
{
    const uint across = TILE_K / 4u;
    unit x;
    uint id = INVOCATION + u * gl_WorkGroupSize.x;
    x.of_a = id < BLOCKS_A;
    bool transposed = x.of_a ? A_TRANSPOSED : B_TRANSPOSED;
    id = x.of_a ? id : id - BLOCKS_A;
    // Neighbouring invocations read what is contiguous, 64 bytes at least, and store to different banks.
#if ALONG_K
    bool down = false;
#else
    bool down = K_MAJOR || transposed;
#endif
    x.row = 4u * (down ? id / (4u * across) * 4u + id % 4u : id / across);
    x.k = 4u * (down ? id / 4u % across : id % across);
    // Rows beyond the matrix repeat its last: they cost nothing, and are not stored.
    uint ld = x.of_a ? lda : ldb, last = (x.of_a ? m : n) - 1u, row = (x.of_a ? m0 : n0) + x.row;
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        x.at[i] = (transposed ? (x.k + i) * ld + min(row, last & ~3u) : min(row + i, last) * ld + x.k) >> 2;
    return x;
}

// How much of k may be loaded without a check: whole steps, where rows start on a vec4 and no vec4 lies partly outside.
uint checked_from(uint m0, uint n0)
{
    bool whole = ((lda | ldb) & 3u) == 0u;
    whole = whole && (!A_TRANSPOSED || (m & 3u) == 0u || m0 + TILE_M <= m);
    whole = whole && (!B_TRANSPOSED || (n & 3u) == 0u || n0 + TILE_N <= n);
    return whole ? k / TILE_K * TILE_K : 0u;
}

// A block from k0 along k on: v[row][k], of a transposed operand v[k][row].
mat4 load_block(unit x, uint k0)
{
    mat4 v;
    uint by_a = A_TRANSPOSED ? k0 * (lda >> 2) : k0 >> 2, by_b = B_TRANSPOSED ? k0 * (ldb >> 2) : k0 >> 2;
    if (x.of_a)
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            v[i] = a[x.at[i] + by_a];
    else
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            v[i] = b[x.at[i] + by_b];
    return v;
}

// The same one number at a time, zero beyond the matrix.
mat4 load_checked(unit x, uint k0, uint m0, uint n0)
{
    mat4 v;
    bool transposed = x.of_a ? A_TRANSPOSED : B_TRANSPOSED;
    uint ld = x.of_a ? lda : ldb, rows = x.of_a ? m : n, row0 = (x.of_a ? m0 : n0) + x.row;
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            uint row = row0 + (transposed ? j : i), kk = k0 + x.k + (transposed ? i : j);
            uint at = transposed ? kk * ld + row : row * ld + kk;
            v[i][j] = 0.0;
            if (row < rows && kk < k)
                v[i][j] = x.of_a ? a[at >> 2][at & 3u] : b[at >> 2][at & 3u];
        }
    return v;
}

// v[row][k], whichever way it was loaded.
mat4 by_rows(unit x, mat4 v)
{
    return (x.of_a ? A_TRANSPOSED : B_TRANSPOSED) ? transpose(v) : v;
}

#endif
