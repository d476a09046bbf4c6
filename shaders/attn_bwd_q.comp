#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
layout(constant_id = SPEC_TILE) const uint TILE_Q = 32; // the host sizes the grid by it; fixed by attn_bwd.glsl

layout(set = 0, binding = 0, std430) readonly buffer Q { float q[]; };
layout(set = 0, binding = 1, std430) readonly buffer K { float k[]; };
layout(set = 0, binding = 2, std430) readonly buffer V { float v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Dout { float dout[]; };
layout(set = 0, binding = 4, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5, std430) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dq { float dq[]; };
#include "attn_bwd.glsl"

// A workgroup has TILE_Q queries of one head of one window, and walks the keys they may see. (ty, tx) owns queries
// ty*4..ty*4+3 and the dimensions tx and tx+16 of every chunk.
// Adds score gradients times keys of chunk c to a.
void add_keys(uint c, uint kv_base, uint k0, inout float a[4][2])
{
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    barrier();
    LOAD_CHUNK(ks, k, kv_base, kv_heads * dim, k0, c * CHUNK)
    barrier();
    [[dont_unroll]] for (uint j = 0u; j < SIDE; j++)
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint h = 0u; h < 2u; h++)
                a[i][h] += dss[(ty * 4u + i) * STRIDE + j] * ks[j * STRIDE + tx + h * 16u];
}

void main()
{
    uint tiles = (ctx + TILE_Q - 1u) / TILE_Q;
    uint t = start + wg_index();
    uint q0 = t % tiles * TILE_Q;
    uint head = t / tiles % heads, window = t / tiles / heads;
    if (window >= windows)
        return;
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    uint q_base = (window * ctx * heads + head) * dim;
    uint kv_base = (window * ctx * kv_heads + head / (heads / kv_heads)) * dim;

    float acc[MAX_CHUNKS][4][2];
#define CLEAR(c) [[unroll]] for (uint i = 0u; i < 4u; i++) acc[c][i][0] = acc[c][i][1] = 0.0;
    EACH_CHUNK(CLEAR)

    uint first = sliding != 0u && q0 + 1u > sliding ? q0 + 1u - sliding : 0u;
    uint last = min(q0 + TILE_Q, ctx);
    for (uint k0 = first / SIDE * SIDE; k0 < last; k0 += SIDE) {
        tile_scores(window, head, q_base, kv_base, q0, k0);
#define ADD_KEYS(c) if (c * CHUNK < dim) add_keys(c, kv_base, k0, acc[c]);
        EACH_CHUNK(ADD_KEYS)
    }

#define STORE(c)                                                                                                       \
    [[unroll]] for (uint i = 0u; i < 4u; i++)                                                                          \
        [[unroll]] for (uint h = 0u; h < 2u; h++) {                                                                    \
            uint pos = q0 + ty * 4u + i, d = c * CHUNK + h * 16u + tx;                                                 \
            if (pos < ctx && d < dim)                                                                                  \
                dq[q_base + pos * heads * dim + d] = scale * acc[c][i][h];                                             \
        }
    EACH_CHUNK(STORE)
}
