#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attn_tile.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Q { NUMBERS q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { NUMBERS k[]; };
layout(set = 0, binding = 2, std430) readonly buffer V { NUMBERS v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Dout { NUMBERS dout[]; };
layout(set = 0, binding = 4, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5, std430) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dq { NUMBERS dq[]; };

// A workgroup has OWN queries of one head of one window, and walks the keys they may see. Weights and score gradients are
// computed again from q, k and lse, so that no matrix of scores is ever stored.
void main()
{
    uint tiles = (ctx + OWN - 1u) / OWN;
    uint t = start + wg_index();
    uint q0 = t % tiles * OWN;
    uint head = t / tiles % heads, window = t / tiles / heads;
    if (window >= windows)
        return;
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    uint q_base = (window * ctx * heads + head) * dim, q_stride = heads * dim;
    uint kv_base = (window * ctx * kv_heads + head / (heads / kv_heads)) * dim, kv_stride = kv_heads * dim;

    vec4 row_lse, row_delta;
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        uint at = (window * ctx + min(q0 + own_row() + i, ctx - 1u)) * heads + head;
        row_lse[i] = lse[at];
        row_delta[i] = delta[at];
    }
    vec4 sum[4][PARTS];
    CLEAR(sum)
    uint first = sliding != 0u && q0 + 1u > sliding ? q0 + 1u - sliding : 0u;
    uint last = min(q0 + OWN, ctx);
    [[dont_unroll]] for (uint k0 = first / uint(SPAN) * uint(SPAN); k0 < last; k0 += uint(SPAN)) {
        float s[4][WIDE], dp[4][WIDE];
        PAIRS(s, q, q_base, q_stride, q0, k, kv_base, kv_stride, k0)
        PAIRS(dp, dout, q_base, q_stride, q0, v, kv_base, kv_stride, k0)
        [[unroll]] for (uint h = 0u; h < WIDE; h++) {
            vec4 ds;
            [[unroll]] for (uint i = 0u; i < 4u; i++) {
                uint pos = q0 + own_row() + i;
                float p = pos < ctx && sees(pos, k0 + tx + 16u * h) ? exp(SCORE(s[i][h]) - row_lse[i]) : 0.0;
                ds[i] = p * (dp[i][h] - row_delta[i]) SLOPE(s[i][h]);
            }
            weights[(tx + 16u * h) * WEIGHT_STRIDE + ty] = ds;
        }
        ADD_ROWS(sum, k, kv_base, kv_stride, k0, last, 0u)
    }
    vec4 factor = vec4(scale);
    STORE_ROWS(dq, sum, factor, q_base, q_stride, q0, 0u)
}
