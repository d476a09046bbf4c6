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
layout(set = 0, binding = 3, std430) writeonly buffer Out { float attn[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Lse { float lse[]; };

const float ONE = 1024.0;      // what a weight of 1 is as f16: those of less than 1e-7 are lost
const float LOWEST = -3.0e38; // stands for -inf, whose differences are NaN

shared float factor_s[OWN];

// attn_fwd_half on matrix cores: a workgroup has OWN queries of one head of one window, and walks the keys they may see,
// keeping for every query the running maximum, the running sum and the unnormalised output (streaming softmax).
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
    OWN_SCALE(scale_q, q, q_base, q_stride, q0)

    SUM sum[SUMS_EACH];
    [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++)
        sum[i] = SUM(0.0);
    float scale_k = 0.0, scale_v = 0.0, highest = LOWEST, total = 0.0; // the sum over its own pairs alone
    uint first = sliding != 0u && q0 + 1u > sliding ? q0 + 1u - sliding : 0u;
    uint last = min(q0 + OWN, ctx);
    [[dont_unroll]] for (uint k0 = first / SPAN * SPAN; k0 < last; k0 += SPAN) {
        {
            TOP_OF_OTHERS(top, k, kv_base, kv_stride, k0)
            scale_k = next_scale(scale_k, top_of_all(top));
            STAGE_OTHERS(k, kv_base, kv_stride, k0, scale_k)
            PAIRS(q, q_base, q_stride, q0, scale_q)
        }
        float back = scale_k != 0.0 ? scale / scale_k / scale_q : 0.0, now = highest, s[8];
        [[unroll]] for (uint j = 0u; j < 8u; j++) {
            s[j] = sees(pos, k0 + part + j) ? CAPPED(pair_s[row * PAIR_STRIDE + part + j] * back) : LOWEST;
            now = max(now, s[j]);
        }
        now = max(now, subgroupShuffleXor(now, 1u));
        now = max(now, subgroupShuffleXor(now, 2u));
        float keep = exp(highest - now);
        highest = now;
        total *= keep;
        [[unroll]] for (uint j = 0u; j < 8u; j++) {
            s[j] = s[j] > LOWEST ? exp(s[j] - now) : 0.0;
            total += s[j];
        }
        put_weights(s, ONE);
        // What remains of the row's sums, once for each column of a tile, where the row's pairs were.
        subgroupBarrier();
        for (uint j = lane() % 4u; j < CN; j += 4u)
            pair_s[row * PAIR_STRIDE + j] = keep;
        float was = scale_v;
        TOP_OF_OTHERS(top, v, kv_base, kv_stride, k0)
        scale_v = next_scale(scale_v, top_of_all(top));
        STAGE_OTHERS(v, kv_base, kv_stride, k0, scale_v)
        barrier();
        SUM keeps;
        coopMatLoad(keeps, pair_s, sum_row() * PAIR_STRIDE, PAIR_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++)
            sum[i] = sum[i] * keeps;
        rescale(sum, change(was, scale_v));
        add_others(sum);
    }
    total += subgroupShuffleXor(total, 1u);
    total += subgroupShuffleXor(total, 2u);
    if (part == 0u) {
        factor_s[row] = scale_v != 0.0 ? 1.0 / total / scale_v / ONE : 0.0;
        if (pos < ctx)
            lse[(window * ctx + pos) * heads + head] = highest + log(total);
    }
    barrier();
#define PUT(at, x) attn[at] = x
    STORE_SUMS(PUT, sum, q_base, q_stride, q0, factor_s[row])
}
