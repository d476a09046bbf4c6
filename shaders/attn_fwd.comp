#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attn_tile.glsl"

// A workgroup has OWN queries of one head of one window, and walks the keys they may see in tiles of SPAN, keeping for every
// query the running maximum, the running sum and the unnormalised output (streaming softmax).
const float LOWEST = -3.0e38; // stands for -inf, whose differences are NaN

layout(set = 0, binding = 0, std430) readonly buffer Q { NUMBERS q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { NUMBERS k[]; };
layout(set = 0, binding = 2, std430) readonly buffer V { NUMBERS v[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Out { NUMBERS attn[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Lse { float lse[]; };

shared vec4 across[16u * OWN / 4u]; // what each tx has of the four queries of ty: [tx * OWN / 4 + ty]

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

    vec4 sum[4][PARTS];
    CLEAR(sum)
    vec4 top = vec4(LOWEST), total = vec4(0.0); // of its four queries; the sum over its own keys alone
    uint first = sliding != 0u && q0 + 1u > sliding ? q0 + 1u - sliding : 0u;
    uint last = min(q0 + OWN, ctx);
    [[dont_unroll]] for (uint k0 = first / uint(SPAN) * uint(SPAN); k0 < last; k0 += uint(SPAN)) {
        float s[4][WIDE];
        PAIRS(s, q, q_base, q_stride, q0, k, kv_base, kv_stride, k0)
        vec4 now = top;
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint h = 0u; h < WIDE; h++) {
                s[i][h] = sees(q0 + own_row() + i, k0 + tx + 16u * h) ? SCORE(s[i][h]) : LOWEST;
                now[i] = max(now[i], s[i][h]);
            }
        across[tx * (OWN / 4u) + ty] = now;
        barrier();
        [[unroll]] for (uint x = 0u; x < 16u; x++)
            now = max(now, across[x * (OWN / 4u) + ty]);
        vec4 keep = exp(top - now);
        top = now;
        total *= keep;
        [[unroll]] for (uint h = 0u; h < WIDE; h++) {
            vec4 p;
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                p[i] = s[i][h] > LOWEST ? exp(s[i][h] - now[i]) : 0.0;
            weights[(tx + 16u * h) * WEIGHT_STRIDE + ty] = p;
            total += p;
        }
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint part = 0u; part < PARTS; part++)
                sum[i][part] *= keep[i];
        ADD_ROWS(sum, v, kv_base, kv_stride, k0, last, 0u)
    }

    barrier();
    across[tx * (OWN / 4u) + ty] = total;
    barrier();
    total = vec4(0.0);
    [[unroll]] for (uint x = 0u; x < 16u; x++)
        total += across[x * (OWN / 4u) + ty];
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        if (tx == i && q0 + own_row() + i < ctx)
            lse[(window * ctx + q0 + own_row() + i) * heads + head] = top[i] + log(total[i]);
    vec4 factor = 1.0 / total;
    STORE_ROWS(attn, sum, factor, q_base, q_stride, q0, 0u)
}
