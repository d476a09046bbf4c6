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

// attn_bwd_kv and, with ONLY_V, attn_bwd_v on matrix cores.
layout(set = 0, binding = 0, std430) readonly buffer Q { vec4 q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { vec4 k[]; };
#ifdef ONLY_V
layout(set = 0, binding = 2, std430) readonly buffer Dout { vec4 dout[]; };
layout(set = 0, binding = 3, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Dv { float dv[]; };
#else
layout(set = 0, binding = 2, std430) readonly buffer V { vec4 v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Dout { vec4 dout[]; };
layout(set = 0, binding = 4, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5, std430) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dk { float dk[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Dv { float dv[]; };
#endif

shared float lse_s[SPAN]; // of the queries
#ifndef ONLY_V
shared float delta_s[SPAN];
#define STAGE_ROW(at) lse_s[lane()] = lse[at], delta_s[lane()] = delta[at]
#else
#define STAGE_ROW(at) lse_s[lane()] = lse[at]
#endif

// A workgroup has OWN keys of one key head of one window, and walks the queries that see them, of all heads of the group: for
// dv, then for dk. So the scores are computed twice, but the sums of both together do not fit the registers of all cards.
void main()
{
    uint tiles = (ctx + OWN - 1u) / OWN;
    uint t = start + wg_index();
    uint k0 = t % tiles * OWN;
    uint kv_head = t / tiles % kv_heads, window = t / tiles / kv_heads;
    if (window >= windows)
        return;
    uint group = heads / kv_heads, row = lane() / 4u, part = lane() % 4u * 8u;
    uint kv_base = (window * ctx * kv_heads + kv_head) * dim, kv_stride = kv_heads * dim, q_stride = heads * dim;
    uint last = sliding != 0u ? min(k0 + OWN - 1u + sliding, ctx) : ctx;
    OWN_SCALE(scale_k, k, kv_base, kv_stride, k0)
#ifdef ONLY_V
    const bool of_k = false;
#else
    OWN_SCALE(scale_v, v, kv_base, kv_stride, k0)
    [[dont_unroll]] for (uint pass = 0u; pass < 2u; pass++) {
        bool of_k = pass == 1u;
#endif
    float scale_q = 0.0, scale_do = 0.0, scale_w = 0.0;
    SUM sum[SUMS_EACH];
    [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++)
        sum[i] = SUM(0.0);
    [[dont_unroll]] for (uint head = kv_head * group; head < (kv_head + 1u) * group; head++) {
        uint q_base = (window * ctx * heads + head) * dim;
        [[dont_unroll]] for (uint q0 = k0; q0 < last; q0 += SPAN) {
            float w[8], was = of_k ? scale_q : scale_do, was_w = scale_w;
#ifndef ONLY_V
            if (of_k) { // products of dout and v
                TOP_OF_OTHERS(top, dout, q_base, q_stride, q0)
                scale_do = next_scale(scale_do, top_of_all(top));
                STAGE_OTHERS(dout, q_base, q_stride, q0, scale_do)
                PAIRS(v, kv_base, kv_stride, k0, scale_v)
                float back = scale_do != 0.0 ? 1.0 / scale_do / scale_v : 0.0;
                [[unroll]] for (uint j = 0u; j < 8u; j++)
                    w[j] = pair_s[row * PAIR_STRIDE + part + j] * back;
            }
#endif
            TOP_OF_OTHERS(top, q, q_base, q_stride, q0)
            scale_q = next_scale(scale_q, top_of_all(top));
            if (lane() < SPAN) {
                uint at = (window * ctx + min(q0 + lane(), ctx - 1u)) * heads + head;
                STAGE_ROW(at);
            }
            STAGE_OTHERS(q, q_base, q_stride, q0, scale_q)
            PAIRS(k, kv_base, kv_stride, k0, scale_k)
            float back = scale_q != 0.0 ? scale / scale_q / scale_k : 0.0;
            top = 0.0;
            [[unroll]] for (uint j = 0u; j < 8u; j++) {
                float s = CAPPED(pair_s[row * PAIR_STRIDE + part + j] * back) - lse_s[part + j];
                float p = sees(q0 + part + j, k0 + row) ? exp(s) : 0.0;
#ifdef ONLY_V
                w[j] = p;
#else
                w[j] = of_k ? p * (w[j] - delta_s[part + j]) SLOPE(pair_s[row * PAIR_STRIDE + part + j] * back) : p;
#endif
                top = max(top, abs(w[j]));
            }
            scale_w = next_scale(scale_w, top_of_all(top));
            put_weights(w, scale_w);
            if (!of_k) {
                barrier(); // all have read what top_of_all left
                TOP_OF_OTHERS(top_do, dout, q_base, q_stride, q0)
                scale_do = next_scale(scale_do, top_of_all(top_do));
                STAGE_OTHERS(dout, q_base, q_stride, q0, scale_do)
            }
            barrier();
            rescale(sum, change(was, of_k ? scale_q : scale_do) * change(was_w, scale_w));
            add_others(sum);
        }
    }
    barrier();
    float of = of_k ? scale_q : scale_do, factor = of != 0.0 && scale_w != 0.0 ? (of_k ? scale : 1.0) / of / scale_w : 0.0;
#ifdef ONLY_V
#define PUT(at, x) dv[at] = x
#else
#define PUT(at, x) if (of_k) dk[at] = x; else dv[at] = x
#endif
    STORE_SUMS(PUT, sum, kv_base, kv_stride, k0, factor)
#ifndef ONLY_V
        barrier();
    }
#endif
}
