#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attn_chunks.glsl"
layout(constant_id = SPEC_TILE) const uint TILE_Q = 32; // the host sizes the grid by it; fixed by the layout below

// A workgroup has TILE_Q queries of one head of one window, and walks the keys they may see in tiles of TILE_K, keeping
// for every query the running maximum, the running sum and the unnormalised output (streaming softmax).
// 128 invocations as 8 x 16: (ty, tx) owns queries ty*4..ty*4+3, the scores of keys tx and tx+16, and the output
// dimensions tx and tx+16 of every chunk of 32. Q, K and V pass through shared memory in chunks of 32 dimensions.
const float LOWEST = -3.0e38; // stands for -inf, whose differences are NaN
const uint TILE_K = 32u;

layout(set = 0, binding = 0, std430) readonly buffer Q { float q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { float k[]; };
layout(set = 0, binding = 2, std430) readonly buffer V { float v[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Out { float attn[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Lse { float lse[]; };
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, sliding; float scale; uint start; };

shared float qs[32u * STRIDE];
shared float ks[TILE_K * STRIDE]; // keys, later values
shared float ps[32u * STRIDE];    // scores, later weights
shared float row_max[32], row_sum[32], row_scale[32];

// Adds weights times values of chunk c to a, what was there before times keep.
void add_values(uint c, uint kv_base, uint k0, float keep[4], inout float a[4][2])
{
    uint l = gl_LocalInvocationID.x, ty = l / 16u, tx = l % 16u;
    barrier();
    for (uint e = l; e < TILE_K * CHUNK; e += gl_WorkGroupSize.x) {
        uint r = e / CHUNK, d = c * CHUNK + e % CHUNK;
        ks[r * STRIDE + e % CHUNK] = d < dim && k0 + r < ctx ? v[kv_base + (k0 + r) * kv_heads * dim + d] : 0.0;
    }
    barrier();
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        a[i][0] *= keep[i];
        a[i][1] *= keep[i];
    }
    [[dont_unroll]] for (uint j = 0u; j < TILE_K; j++) {
        float va = ks[j * STRIDE + tx], vb = ks[j * STRIDE + tx + 16u];
        [[unroll]] for (uint i = 0u; i < 4u; i++) {
            float p = ps[(ty * 4u + i) * STRIDE + j];
            a[i][0] += p * va;
            a[i][1] += p * vb;
        }
    }
}

void main()
{
    uint tiles = (ctx + TILE_Q - 1u) / TILE_Q;
    uint t = start + wg_index();
    uint q0 = t % tiles * TILE_Q;
    uint head = t / tiles % heads, window = t / tiles / heads;
    if (window >= windows)
        return;
    uint kv_head = head / (heads / kv_heads);
    uint l = gl_LocalInvocationID.x, ty = l / 16u, tx = l % 16u;
    uint q_base = (window * ctx * heads + head) * dim;          // + position * heads * dim
    uint kv_base = (window * ctx * kv_heads + kv_head) * dim;   // + position * kv_heads * dim

    float acc[MAX_CHUNKS][4][2];
#define CLEAR(c) [[unroll]] for (uint i = 0u; i < 4u; i++) acc[c][i][0] = acc[c][i][1] = 0.0;
    EACH_CHUNK(CLEAR)
    if (l < TILE_Q) {
        row_max[l] = LOWEST;
        row_sum[l] = 0.0;
    }

    uint first = sliding != 0u && q0 + 1u > sliding ? q0 + 1u - sliding : 0u;
    uint last = min(q0 + TILE_Q, ctx);
    for (uint k0 = first / TILE_K * TILE_K; k0 < last; k0 += TILE_K) {
        float s[4][2];
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            s[i][0] = s[i][1] = 0.0;
        for (uint d0 = 0u; d0 < dim; d0 += CHUNK) {
            barrier();
            for (uint e = l; e < 32u * CHUNK; e += gl_WorkGroupSize.x) {
                uint r = e / CHUNK, d = e % CHUNK;
                bool in_dim = d0 + d < dim;
                qs[r * STRIDE + d] = in_dim && q0 + r < ctx ? q[q_base + (q0 + r) * heads * dim + d0 + d] : 0.0;
                ks[r * STRIDE + d] = in_dim && k0 + r < ctx ? k[kv_base + (k0 + r) * kv_heads * dim + d0 + d] : 0.0;
            }
            barrier();
            [[dont_unroll]] for (uint d = 0u; d < CHUNK; d++) {
                float ka = ks[tx * STRIDE + d], kb = ks[(tx + 16u) * STRIDE + d];
                [[unroll]] for (uint i = 0u; i < 4u; i++) {
                    float qv = qs[(ty * 4u + i) * STRIDE + d];
                    s[i][0] += qv * ka;
                    s[i][1] += qv * kb;
                }
            }
        }
        [[unroll]] for (uint i = 0u; i < 4u; i++) {
            ps[(ty * 4u + i) * STRIDE + tx] = s[i][0];
            ps[(ty * 4u + i) * STRIDE + tx + 16u] = s[i][1];
        }
        barrier();
        // One invocation per query: mask, new maximum, weights, and the factor for what was summed before.
        if (l < TILE_Q) {
            uint pos = q0 + l;
            float was = row_max[l], top = was;
            [[dont_unroll]] for (uint j = 0u; j < TILE_K; j++) {
                bool seen = k0 + j <= pos && (sliding == 0u || k0 + j + sliding > pos);
                float x = seen ? ps[l * STRIDE + j] * scale : LOWEST;
                ps[l * STRIDE + j] = x;
                top = max(top, x);
            }
            float sum = 0.0;
            [[dont_unroll]] for (uint j = 0u; j < TILE_K; j++) {
                float x = ps[l * STRIDE + j];
                float p = x > LOWEST ? exp(x - top) : 0.0;
                ps[l * STRIDE + j] = p;
                sum += p;
            }
            float keep = exp(was - top);
            row_scale[l] = keep;
            row_sum[l] = row_sum[l] * keep + sum;
            row_max[l] = top;
        }
        barrier();
        float keep[4];
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            keep[i] = row_scale[ty * 4u + i];
#define ADD_VALUES(c) if (c * CHUNK < dim) add_values(c, kv_base, k0, keep, acc[c]);
        EACH_CHUNK(ADD_VALUES)
    }

    if (l < TILE_Q && q0 + l < ctx)
        lse[(window * ctx + q0 + l) * heads + head] = row_max[l] + log(row_sum[l]);
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        uint pos = q0 + ty * 4u + i;
        float r = 1.0 / row_sum[ty * 4u + i];
#define STORE(c)                                                                                                       \
    [[unroll]] for (uint h = 0u; h < 2u; h++) {                                                                        \
        uint d = c * CHUNK + h * 16u + tx;                                                                             \
        if (pos < ctx && d < dim)                                                                                      \
            attn[q_base + pos * heads * dim + d] = acc[c][i][h] * r;                                                   \
    }
        EACH_CHUNK(STORE)
    }
}
