#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
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

// Dimensions whose sums fit an invocation's registers: wider heads take two passes, each of which computes the scores.
const uint PASS_CHUNKS = 4u, PASS = PASS_CHUNKS * CHUNK;

// A workgroup has TILE_K keys of one key head of one window, and walks the queries that see them, of all heads of the group.
// (ty, tx) owns keys ty*4..ty*4+3 and the dimensions tx and tx+16 of every chunk.
void main()
{
    uint tiles = (ctx + TILE_K - 1u) / TILE_K;
    uint t = wg_index();
    uint k0 = t % tiles * TILE_K;
    uint kv_head = t / tiles % kv_heads, window = t / tiles / kv_heads;
    if (window >= windows)
        return;
    uint group = heads / kv_heads;
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    uint kv_base = (window * ctx * kv_heads + kv_head) * dim;
    uint last = sliding != 0u ? min(k0 + TILE_K - 1u + sliding, ctx) : ctx;

    for (uint d0 = 0u; d0 < dim; d0 += PASS) {
        float acc_v[PASS_CHUNKS][4][2];
        [[unroll]] for (uint c = 0u; c < PASS_CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                acc_v[c][i][0] = acc_v[c][i][1] = 0.0;
#ifndef ONLY_V
        float acc_k[PASS_CHUNKS][4][2];
        [[unroll]] for (uint c = 0u; c < PASS_CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                acc_k[c][i][0] = acc_k[c][i][1] = 0.0;
#endif
        for (uint head = kv_head * group; head < (kv_head + 1u) * group; head++) {
            uint q_base = (window * ctx * heads + head) * dim;
            for (uint q0 = k0; q0 < last; q0 += SIDE) {
                tile_scores(window, head, q_base, kv_base, q0, k0);
                [[unroll]] for (uint c = 0u; c < PASS_CHUNKS; c++) {
                    uint d = d0 + c * CHUNK;
                    if (d < dim) {
                        // dout passes through ks, whose keys are done with.
                        barrier();
                        LOAD_CHUNK(ks, dout, q_base, heads * dim, q0, d)
#ifndef ONLY_V
                        LOAD_CHUNK(qs, q, q_base, heads * dim, q0, d)
#endif
                        barrier();
                        for (uint j = 0u; j < SIDE; j++)
                            [[unroll]] for (uint i = 0u; i < 4u; i++)
                                [[unroll]] for (uint h = 0u; h < 2u; h++) {
                                    acc_v[c][i][h] += ps[j * STRIDE + ty * 4u + i] * ks[j * STRIDE + tx + h * 16u];
#ifndef ONLY_V
                                    acc_k[c][i][h] += dss[j * STRIDE + ty * 4u + i] * qs[j * STRIDE + tx + h * 16u];
#endif
                                }
                    }
                }
            }
        }
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint c = 0u; c < PASS_CHUNKS; c++)
                [[unroll]] for (uint h = 0u; h < 2u; h++) {
                    uint key = k0 + ty * 4u + i, d = d0 + c * CHUNK + h * 16u + tx;
                    if (key < ctx && d < dim) {
                        dv[kv_base + key * kv_heads * dim + d] = acc_v[c][i][h];
#ifndef ONLY_V
                        dk[kv_base + key * kv_heads * dim + d] = scale * acc_k[c][i][h];
#endif
                    }
                }
    }
}
