#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "texel.glsl"
#ifndef A_T
#define A_T 0
#endif
#ifndef B_T
#define B_T 0
#endif
layout(constant_id = SPEC_TILE) const uint TILE_M = 16;
layout(constant_id = SPEC_TILE_N) const uint TILE_N = 32;

// C[m,n] = alpha * A[m,k] B[n,k]^T + beta * old for a CPU that runs a subgroup of 8 invocations as one vector (lavapipe).
// One subgroup has a tile of C, ROWS x 8 * COLS, in registers: no shared memory, no barrier. With A_T=1 A lies as [k,m],
// with B_T=1 B as [k,n]; the order of sums is the same.
//
//                     B: invocation l reads rows n0 + 4 l .. n0 + 4 l + 3, as they are
//                     |  l = 0  |  l = 1  |  ..  |  l = 7  |    4 columns of C each: COLS
//     A:          ----+---------+---------+------+---------+
//     two rows    i=0 |           acc[0]: a vec4           |    rows of C are stored as vec4, if their stride allows
//     per texel   i=1 |           acc[1]                   |
//     fetch        :  |
//     ROWS = 16
//
// Along k a step is 16: one fetch of A is 2 rows x 16 numbers (a cache line of each), whose elements reach all lanes by a
// shuffle with a constant index, which compiles to a broadcast from memory; a fetch of A that lies as [k,m] is 2 numbers
// along k x 16 rows. Reads go through texel buffers: there, a
// fetch by 8 invocations is 8 vector loads and a transpose, while a storage buffer is read one number at a time, with
// a store-forwarding stall for each: measured, 20 times slower.
const uint ROWS = 16u, COLS = 4u, LANES = 8u, STEP = 16u;
const uint PAIR = 2u;  // rows in work together: each register of B is then used twice
const uint STRIP = 4u; // tile columns walked together, so that their rows of B stay in the cache

layout(set = 0, binding = 0) uniform textureBuffer a;
layout(set = 0, binding = 1) uniform textureBuffer b;
layout(set = 0, binding = 2) uniform textureBuffer old;
layout(set = 0, binding = 3, std430) writeonly buffer C { vec4 c[]; };
layout(push_constant) uniform Push { uint m, n, k, lda, ldb, ldc; float alpha, beta; };

// Numbers at, at + 1, .. at + 3 of a row, of which `left` exist: whatever the alignment, and zero beyond.
vec4 load_a(uint at, uint left)
{
    vec4 t0 = texelFetch(a, int(at >> 2)), t1 = texelFetch(a, int((at + min(left, 4u) - 1u) >> 2));
    uint s = at & 3u;
    vec4 v = s == 0u ? t0 : s == 1u ? vec4(t0.yzw, t1.x) : s == 2u ? vec4(t0.zw, t1.xy) : vec4(t0.w, t1.xyz);
    return vec4(v.x, left > 1u ? v.y : 0.0, left > 2u ? v.z : 0.0, left > 3u ? v.w : 0.0);
}

vec4 load_b(uint at, uint left)
{
    vec4 t0 = texelFetch(b, int(at >> 2)), t1 = texelFetch(b, int((at + min(left, 4u) - 1u) >> 2));
    uint s = at & 3u;
    vec4 v = s == 0u ? t0 : s == 1u ? vec4(t0.yzw, t1.x) : s == 2u ? vec4(t0.zw, t1.xy) : vec4(t0.w, t1.xyz);
    return vec4(v.x, left > 1u ? v.y : 0.0, left > 2u ? v.z : 0.0, left > 3u ? v.w : 0.0);
}

void main()
{
    // Down the strip's rows; within a row of tiles, along the strip.
    uint tiles_n = (n + TILE_N - 1u) / TILE_N, tiles_m = (m + TILE_M - 1u) / TILE_M;
    uint t = wg_index();
    uint strip = t / (tiles_m * STRIP), in_strip = t - strip * (tiles_m * STRIP);
    if (strip * STRIP >= tiles_n)
        return;
    uint width = min(STRIP, tiles_n - strip * STRIP);
    uint tile_m = in_strip / width;
    uint m0 = tile_m * TILE_M, n0 = (strip * STRIP + in_strip - tile_m * width) * TILE_N;
    uint l = gl_LocalInvocationID.x;
    uint kk = k, ld_a = lda, ld_b = ldb, last_m = m - 1u, last_n = n - 1u; // push constants are slow to read in a loop

#if A_T // element (row r, k e) of a fetch of so many along k
#define A_STEP(r, e) subgroupShuffle(av[(e) / 2u][(r) % 4u], (e) % 2u * 4u + (r) / 4u)
#define A_REST(r, e) A_STEP(r, e)
#else
#define A_STEP(r, e) subgroupShuffle(av[(r) / 2u][(e) % 4u], (r) % 2u * 4u + (e) / 4u)
#define A_REST(r, e) subgroupShuffle(av[(r) / LANES][e], (r) % LANES)
#endif
#if B_T // element (column j, k e)
#define B_STEP(j, e) bv[e][j]
#define B_REST(j, e) bv[e][j]
#else
#define B_STEP(j, e) bv[j][(e) / 4u][(e) % 4u]
#define B_REST(j, e) bv[j][e]
#endif

    vec4 acc[ROWS];
    [[unroll]] for (uint i = 0u; i < ROWS; i++)
        acc[i] = vec4(0.0);

    // Rows and columns beyond the matrix repeat its last: nothing outside is read, and they are not stored.
    uint col = n0 + COLS * l;
#if B_T
    uint in_b = min(col, last_n);
#else
    uint at_b[COLS];
    [[unroll]] for (uint j = 0u; j < COLS; j++)
        at_b[j] = min(col + j, last_n) * ld_b;
#endif

    // Whole steps, where rows start on texels.
    uint k_main = ((ld_a | ld_b) & 3u) == 0u ? kk / STEP * STEP : 0u;
#if A_T
    uint in_a = min(m0 + l % 4u * 4u, last_m); // its row, the first of a texel's
    uint at_a = (l / 4u * ld_a + in_a) / 4u;
#else
    uint at_a[ROWS / 2u];
    [[unroll]] for (uint i = 0u; i < ROWS / 2u; i++)
        at_a[i] = min(m0 + 2u * i + l / 4u, last_m) * ld_a / 4u + l % 4u;
#endif
    for (uint k0 = 0u; k0 < k_main; k0 += STEP) {
        vec4 av[ROWS / 2u];
        [[unroll]] for (uint i = 0u; i < ROWS / 2u; i++)
#if A_T
            av[i] = texelFetch(a, int(at_a + (k0 + 2u * i) * (ld_a / 4u)));
#else
            av[i] = texelFetch(a, int(at_a[i] + k0 / 4u));
#endif
#if B_T
        vec4 bv[STEP];
        [[unroll]] for (uint e = 0u; e < STEP; e++)
            bv[e] = texelFetch(b, int((k0 + e) * (ld_b / 4u) + in_b / 4u));
#else
        vec4 bv[COLS][4];
        [[unroll]] for (uint j = 0u; j < COLS; j++)
            [[unroll]] for (uint u = 0u; u < 4u; u++)
                bv[j][u] = texelFetch(b, int((at_b[j] + k0) / 4u + u));
#endif
        [[unroll]] for (uint i = 0u; i < ROWS; i += PAIR)
            [[unroll]] for (uint e = 0u; e < STEP; e++) {
                float x[PAIR];
                [[unroll]] for (uint r = 0u; r < PAIR; r++)
                    x[r] = A_STEP(i + r, e);
                [[unroll]] for (uint j = 0u; j < COLS; j++)
                    [[unroll]] for (uint r = 0u; r < PAIR; r++)
                        acc[i + r][j] += x[r] * B_STEP(j, e);
            }
    }

    // What is left of k, or all of it, four at a time; here a fetch of A as it lies in rows is 8 rows x 4 numbers.
#if !A_T
    [[unroll]] for (uint i = 0u; i < ROWS / LANES; i++)
        at_a[i] = min(m0 + LANES * i + l, last_m) * ld_a;
#endif
    for (uint k0 = k_main; k0 < kk; k0 += 4u) {
        vec4 av[2], bv[4];
        [[unroll]] for (uint i = 0u; i < 2u; i++) {
#if A_T
            uint e = k0 + 2u * i + l / 4u;
            av[i] = load_a(min(e, kk - 1u) * ld_a + in_a, m - in_a);
            av[i] = e < kk ? av[i] : vec4(0.0);
#else
            av[i] = load_a(at_a[i] + k0, kk - k0);
#endif
        }
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
#if B_T
            uint e = k0 + j;
            bv[j] = load_b(min(e, kk - 1u) * ld_b + in_b, n - in_b);
            bv[j] = e < kk ? bv[j] : vec4(0.0);
#else
            bv[j] = load_b(at_b[j] + k0, kk - k0);
#endif
        }
        [[unroll]] for (uint i = 0u; i < ROWS; i++)
            [[unroll]] for (uint e = 0u; e < 4u; e++) {
                float x = A_REST(i, e);
                [[unroll]] for (uint j = 0u; j < COLS; j++)
                    acc[i][j] += x * B_REST(j, e);
            }
    }

    // Four columns at a time where C's rows start on texels, one where not. Loops of one turn or none, since an `if`
    // would not be jumped over.
    float by = alpha, keep = beta;
    uint ld = ldc;
    bool four = (ld & 3u) == 0u && col + 3u <= last_n;
    for (bool more = keep != 0.0 && four; more; more = false)
        [[unroll]] for (uint i = 0u; i < ROWS; i++)
            acc[i] = by * acc[i] + keep * texelFetch(old, int((min(m0 + i, last_m) * ld + col) >> 2));
    for (uint j = 0u; keep != 0.0 && !four && col + j <= last_n && j < COLS; j++)
        [[unroll]] for (uint i = 0u; i < ROWS; i++) {
            uint at = min(m0 + i, last_m) * ld + col + j;
            vec4 v = texelFetch(old, int(at >> 2));
            acc[i] = mix(acc[i], by * acc[i] + keep * pick(v, at & 3u), equal(uvec4(j), uvec4(0, 1, 2, 3)));
        }
    by = keep != 0.0 ? 1.0 : by;
    [[unroll]] for (uint i = 0u; i < ROWS; i++)
        if (four && m0 + i <= last_m)
            c[((m0 + i) * ld + col) >> 2] = by * acc[i];
    for (uint j = 0u; !four && col + j <= last_n && j < COLS; j++)
        [[unroll]] for (uint i = 0u; i < ROWS; i++) {
            uint at = (m0 + i) * ld + col + j;
            if (m0 + i <= last_m)
                c[at >> 2][at & 3u] = by * pick(acc[i], j);
        }
}
