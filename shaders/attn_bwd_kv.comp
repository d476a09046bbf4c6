#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#if !defined(DIM) || DIM > 128
#define HEAD_MAX 128u // dimensions whose sums fit registers: wider heads take two passes
#endif
#include "attn_tile.glsl"

// attn_bwd_kv and, with ONLY_V, attn_bwd_v.
layout(set = 0, binding = 0, std430) readonly buffer Q { NUMBERS q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { NUMBERS k[]; };
#ifdef ONLY_V
layout(set = 0, binding = 2, std430) readonly buffer Dout { NUMBERS dout[]; };
layout(set = 0, binding = 3, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Dv { NUMBERS dv[]; };
#else
layout(set = 0, binding = 2, std430) readonly buffer V { NUMBERS v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Dout { NUMBERS dout[]; };
layout(set = 0, binding = 4, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5, std430) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dk { NUMBERS dk[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Dv { NUMBERS dv[]; };
#endif

// A workgroup has OWN keys of one key head of one window, and walks the queries that see them, of all heads of the group, in
// tiles of SPAN.
void main()
{
    uint tiles = (ctx + OWN - 1u) / OWN;
    uint t = start + wg_index();
    uint k0 = t % tiles * OWN;
    uint kv_head = t / tiles % kv_heads, window = t / tiles / kv_heads;
    if (window >= windows)
        return;
    uint group = heads / kv_heads;
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    uint kv_base = (window * ctx * kv_heads + kv_head) * dim, kv_stride = kv_heads * dim, q_stride = heads * dim;
    uint last = sliding != 0u ? min(k0 + OWN - 1u + sliding, ctx) : ctx;

    [[dont_unroll]] for (uint d_pass = 0u; d_pass < dim; d_pass += HEAD) {
        vec4 sum_v[4][PARTS];
        CLEAR(sum_v)
#ifndef ONLY_V
        vec4 sum_k[4][PARTS];
        CLEAR(sum_k)
#endif
        [[dont_unroll]] for (uint head = kv_head * group; head < (kv_head + 1u) * group; head++) {
            uint q_base = (window * ctx * heads + head) * dim;
            [[dont_unroll]] for (uint q0 = k0; q0 < last; q0 += uint(SPAN)) {
                float s[4][WIDE];
                PAIRS(s, k, kv_base, kv_stride, k0, q, q_base, q_stride, q0)
#ifndef ONLY_V
                float dp[4][WIDE];
                PAIRS(dp, v, kv_base, kv_stride, k0, dout, q_base, q_stride, q0)
#endif
                [[unroll]] for (uint h = 0u; h < WIDE; h++) {
                    uint pos = q0 + tx + 16u * h, at = (window * ctx + min(pos, ctx - 1u)) * heads + head;
                    float row_lse = lse[at];
                    vec4 p;
#ifndef ONLY_V
                    float row_delta = delta[at];
#endif
                    [[unroll]] for (uint i = 0u; i < 4u; i++) {
                        p[i] = pos < ctx && sees(pos, k0 + own_row() + i) ? exp(SCORE(s[i][h]) - row_lse) : 0.0;
#ifndef ONLY_V
                        dp[i][h] = p[i] * (dp[i][h] - row_delta) SLOPE(s[i][h]);
#endif
                    }
                    weights[(tx + 16u * h) * WEIGHT_STRIDE + ty] = p;
                }
                ADD_ROWS(sum_v, dout, q_base, q_stride, q0, last, d_pass)
#ifndef ONLY_V
                barrier(); // the weights are done with
                [[unroll]] for (uint h = 0u; h < WIDE; h++)
                    weights[(tx + 16u * h) * WEIGHT_STRIDE + ty] = vec4(dp[0][h], dp[1][h], dp[2][h], dp[3][h]);
                ADD_ROWS(sum_k, q, q_base, q_stride, q0, last, d_pass)
#endif
            }
        }
        vec4 factor = vec4(1.0);
        STORE_ROWS(dv, sum_v, factor, kv_base, kv_stride, k0, d_pass)
#ifndef ONLY_V
        factor = vec4(scale);
        STORE_ROWS(dk, sum_k, factor, kv_base, kv_stride, k0, d_pass)
#endif
    }
}
