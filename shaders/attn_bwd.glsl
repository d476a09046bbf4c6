// Shared by the base variants of attn_bwd_q, attn_bwd_kv and attn_bwd_v: weights and score gradients of a tile of 32 queries
// by 32 keys, computed again from q, k and lse, so that no matrix of scores is ever stored.
//
// 128 invocations as 8 x 16, (ty, tx). Matrices pass through shared memory in chunks of 32 dimensions.
#ifndef ATTN_BWD_GLSL
#define ATTN_BWD_GLSL

#include "attn_chunks.glsl"

const uint SIDE = 32u;

layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, sliding; float scale; uint start; };

shared float qs[SIDE * STRIDE];
shared float ks[SIDE * STRIDE];
shared float ps[SIDE * STRIDE]; // p[query, key]
shared float row_lse[SIDE];
#ifndef ONLY_V
shared float dos[SIDE * STRIDE];
shared float vs[SIDE * STRIDE];
shared float dss[SIDE * STRIDE]; // ds[query, key]
shared float row_delta[SIDE];
#endif

// dst[r, c] = the element at base + (row0 + r) * stride + d0 + c of src; zero past the window and the head.
#define LOAD_CHUNK(dst, src, base, stride, row0, d0)                                               \
    for (uint e_ = gl_LocalInvocationID.x; e_ < SIDE * CHUNK; e_ += gl_WorkGroupSize.x) {          \
        uint pos_ = (row0) + e_ / CHUNK, d_ = (d0) + e_ % CHUNK;                                   \
        dst[e_ / CHUNK * STRIDE + e_ % CHUNK] =                                                    \
            d_ < dim && pos_ < ctx ? src[(base) + pos_ * (stride) + d_] : 0.0;                     \
    }

// Leaves ps (and dss) of queries q0.. of `head` and keys k0.. in shared memory, after a barrier. q_base and kv_base: where
// the head's rows of position 0 start.
void tile_scores(uint window, uint head, uint q_base, uint kv_base, uint q0, uint k0)
{
    uint l = gl_LocalInvocationID.x, ty = l / 16u, tx = l % 16u;
    float s[4][2], dp[4][2];
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        s[i][0] = s[i][1] = dp[i][0] = dp[i][1] = 0.0;
    for (uint d0 = 0u; d0 < dim; d0 += CHUNK) {
        barrier();
        LOAD_CHUNK(qs, q, q_base, heads * dim, q0, d0)
        LOAD_CHUNK(ks, k, kv_base, kv_heads * dim, k0, d0)
#ifndef ONLY_V
        LOAD_CHUNK(dos, dout, q_base, heads * dim, q0, d0)
        LOAD_CHUNK(vs, v, kv_base, kv_heads * dim, k0, d0)
#endif
        if (d0 == 0u && l < SIDE) {
            uint at = (window * ctx + q0 + l) * heads + head;
            row_lse[l] = q0 + l < ctx ? lse[at] : 0.0;
#ifndef ONLY_V
            row_delta[l] = q0 + l < ctx ? delta[at] : 0.0;
#endif
        }
        barrier();
        [[dont_unroll]] for (uint d = 0u; d < CHUNK; d++)
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                [[unroll]] for (uint h = 0u; h < 2u; h++) {
                    s[i][h] += qs[(ty * 4u + i) * STRIDE + d] * ks[(tx + h * 16u) * STRIDE + d];
#ifndef ONLY_V
                    dp[i][h] += dos[(ty * 4u + i) * STRIDE + d] * vs[(tx + h * 16u) * STRIDE + d];
#endif
                }
    }
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        [[unroll]] for (uint h = 0u; h < 2u; h++) {
            uint r = ty * 4u + i, c = tx + h * 16u, pos = q0 + r, key = k0 + c;
            bool seen = pos < ctx && key <= pos && (sliding == 0u || key + sliding > pos);
            float p = seen ? exp(s[i][h] * scale - row_lse[r]) : 0.0;
            ps[r * STRIDE + c] = p;
#ifndef ONLY_V
            dss[r * STRIDE + c] = p * (dp[i][h] - row_delta[r]);
#endif
        }
    barrier();
}

#endif
