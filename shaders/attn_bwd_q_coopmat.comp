#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "attn_coopmat.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Q { vec4 q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { vec4 k[]; };
layout(set = 0, binding = 2, std430) readonly buffer V { vec4 v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Dout { vec4 dout[]; };
layout(set = 0, binding = 4, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5, std430) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dq { float dq[]; };

// attn_bwd_q on matrix cores: a workgroup has OWN queries of one head of one window, and walks the keys they may see.
void main()
{
    uint tiles = (ctx + OWN - 1u) / OWN;
    uint t = start + wg_index();
    uint q0 = t % tiles * OWN;
    uint head = t / tiles % heads, window = t / tiles / heads;
    if (window >= windows)
        return;
    uint row = lane() / 4u, part = lane() % 4u * 8u, pos = q0 + row;
    uint q_base = (window * ctx * heads + head) * dim, q_stride = heads * dim;
    uint kv_base = (window * ctx * kv_heads + head / (heads / kv_heads)) * dim, kv_stride = kv_heads * dim;
    uint at = (window * ctx + min(pos, ctx - 1u)) * heads + head;
    OWN_SCALE(scale_q, q, q_base, q_stride, q0)
    OWN_SCALE(scale_do, dout, q_base, q_stride, q0)

    SUM sum[SUMS_EACH];
    [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++)
        sum[i] = SUM(0.0);
    float scale_k = 0.0, scale_v = 0.0, scale_ds = 0.0;
    uint first = sliding != 0u && q0 + 1u > sliding ? q0 + 1u - sliding : 0u;
    uint last = min(q0 + OWN, ctx);
    [[dont_unroll]] for (uint k0 = first / SPAN * SPAN; k0 < last; k0 += SPAN) {
        float dp[8];
        {
            TOP_OF_OTHERS(top, v, kv_base, kv_stride, k0)
            scale_v = next_scale(scale_v, top_of_all(top));
            STAGE_OTHERS(v, kv_base, kv_stride, k0, scale_v)
            PAIRS(dout, q_base, q_stride, q0, scale_do)
            float back = scale_v != 0.0 ? 1.0 / scale_v / scale_do : 0.0;
            [[unroll]] for (uint j = 0u; j < 8u; j++)
                dp[j] = pair_s[row * PAIR_STRIDE + part + j] * back;
        }
        float was_k = scale_k;
        {
            TOP_OF_OTHERS(top, k, kv_base, kv_stride, k0)
            scale_k = next_scale(scale_k, top_of_all(top));
            STAGE_OTHERS(k, kv_base, kv_stride, k0, scale_k)
            PAIRS(q, q_base, q_stride, q0, scale_q)
        }
        float back = scale_k != 0.0 ? scale / scale_k / scale_q : 0.0, top = 0.0;
        float row_lse = lse[at], row_delta = delta[at]; // here: registers are scarce
        [[unroll]] for (uint j = 0u; j < 8u; j++) {
            float p = sees(pos, k0 + part + j) ? exp(CAPPED(pair_s[row * PAIR_STRIDE + part + j] * back) - row_lse) : 0.0;
            dp[j] = p * (dp[j] - row_delta) SLOPE(pair_s[row * PAIR_STRIDE + part + j] * back);
            top = max(top, abs(dp[j]));
        }
        float was_ds = scale_ds;
        scale_ds = next_scale(scale_ds, top_of_all(top));
        put_weights(dp, scale_ds);
        barrier();
        rescale(sum, change(was_k, scale_k) * change(was_ds, scale_ds));
        add_others(sum);
    }
    barrier();
    float factor = scale_k != 0.0 && scale_ds != 0.0 ? scale / scale_k / scale_ds : 0.0;
#define PUT(at, x) dq[at] = x
    STORE_SUMS(PUT, sum, q_base, q_stride, q0, factor)
}
