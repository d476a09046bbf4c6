#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#define HEAD_MAX 128u
layout(constant_id = SPEC_TILE) const uint TILE_K = 32; // the host sizes the grid by it; fixed by attn_bwd.glsl

// attn_bwd_kv and, with ONLY_V, attn_bwd_v.
layout(set = 0, binding = 0, std430) readonly buffer Q { float q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { float k[]; };
#ifdef ONLY_V
layout(set = 0, binding = 2, std430) readonly buffer Dout { float dout[]; };
layout(set = 0, binding = 3, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Dv { float dv[]; };
#else
layout(set = 0, binding = 2, std430) readonly buffer V { float v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Dout { float dout[]; };
layout(set = 0, binding = 4, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5, std430) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dk { float dk[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Dv { float dv[]; };
#endif
#include "attn_bwd.glsl"

const uint PASS = MAX_CHUNKS * CHUNK; // dimensions whose sums fit registers: wider heads take two passes

#ifdef ONLY_V
#define SUMS inout float sum_v[4][2]
#define SUMS_OF(c) acc_v[c]
#else
#define SUMS inout float sum_v[4][2], inout float sum_k[4][2]
#define SUMS_OF(c) acc_v[c], acc_k[c]
#endif

// Adds what a tile of queries gives the dimensions from d on: weights times dout, score gradients times q.
void add_queries(uint d, uint q_base, uint q0, SUMS)
{
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    barrier();
    LOAD_CHUNK(ks, dout, q_base, heads * dim, q0, d) // dout passes through ks, whose keys are done with
#ifndef ONLY_V
    LOAD_CHUNK(qs, q, q_base, heads * dim, q0, d)
#endif
    barrier();
    [[dont_unroll]] for (uint j = 0u; j < SIDE; j++)
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint h = 0u; h < 2u; h++) {
                sum_v[i][h] += ps[j * STRIDE + ty * 4u + i] * ks[j * STRIDE + tx + h * 16u];
#ifndef ONLY_V
                sum_k[i][h] += dss[j * STRIDE + ty * 4u + i] * qs[j * STRIDE + tx + h * 16u];
#endif
            }
}

// A workgroup has TILE_K keys of one key head of one window, and walks the queries that see them, of all heads of the group.
// (ty, tx) owns keys ty*4..ty*4+3 and the dimensions tx and tx+16 of every chunk.
void main()
{
    uint tiles = (ctx + TILE_K - 1u) / TILE_K;
    uint t = start + wg_index();
    uint k0 = t % tiles * TILE_K;
    uint kv_head = t / tiles % kv_heads, window = t / tiles / kv_heads;
    if (window >= windows)
        return;
    uint group = heads / kv_heads;
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    uint kv_base = (window * ctx * kv_heads + kv_head) * dim;
    uint last = sliding != 0u ? min(k0 + TILE_K - 1u + sliding, ctx) : ctx;

    for (uint d0 = 0u; d0 < dim; d0 += PASS) {
        float acc_v[MAX_CHUNKS][4][2];
#define CLEAR_V(c) [[unroll]] for (uint i = 0u; i < 4u; i++) acc_v[c][i][0] = acc_v[c][i][1] = 0.0;
        EACH_CHUNK(CLEAR_V)
#ifndef ONLY_V
        float acc_k[MAX_CHUNKS][4][2];
#define CLEAR_K(c) [[unroll]] for (uint i = 0u; i < 4u; i++) acc_k[c][i][0] = acc_k[c][i][1] = 0.0;
        EACH_CHUNK(CLEAR_K)
#endif
        for (uint head = kv_head * group; head < (kv_head + 1u) * group; head++) {
            uint q_base = (window * ctx * heads + head) * dim;
            for (uint q0 = k0; q0 < last; q0 += SIDE) {
                tile_scores(window, head, q_base, kv_base, q0, k0);
#define ADD_QUERIES(c) if (d0 + c * CHUNK < dim) add_queries(d0 + c * CHUNK, q_base, q0, SUMS_OF(c));
                EACH_CHUNK(ADD_QUERIES)
            }
        }
#define STORE_V(c, i, h, at) dv[at] = acc_v[c][i][h];
#ifdef ONLY_V
#define STORE_K(c, i, h, at)
#else
#define STORE_K(c, i, h, at) dk[at] = scale * acc_k[c][i][h];
#endif
#define STORE(c)                                                                                                       \
    [[unroll]] for (uint i = 0u; i < 4u; i++)                                                                          \
        [[unroll]] for (uint h = 0u; h < 2u; h++) {                                                                    \
            uint key = k0 + ty * 4u + i, d = d0 + c * CHUNK + h * 16u + tx;                                            \
            if (key < ctx && d < dim) {                                                                                \
                STORE_V(c, i, h, kv_base + key * kv_heads * dim + d)                                                   \
                STORE_K(c, i, h, kv_base + key * kv_heads * dim + d)                                                   \
            }                                                                                                          \
        }
        EACH_CHUNK(STORE)
    }
}
