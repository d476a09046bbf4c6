#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "texel.glsl"
#include "attn_cpu.glsl"
#ifdef SMALL
#define ROWS 2u
#else
#define ROWS 1u // two are hardly quicker, and take LLVM more than twice as long to compile
#endif
layout(constant_id = SPEC_TILE) const uint TILE_Q = 8u * ROWS; // ROWS queries per lane

layout(set = 0, binding = 0) uniform textureBuffer q;
layout(set = 0, binding = 1) uniform textureBuffer k;
layout(set = 0, binding = 2) uniform textureBuffer v;
layout(set = 0, binding = 3) uniform textureBuffer dout;
layout(set = 0, binding = 4) uniform textureBuffer lse;
layout(set = 0, binding = 5) uniform textureBuffer delta;
layout(set = 0, binding = 6, std430) writeonly buffer Dq { vec4 dq[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dq2 { vec2 dq2[]; };
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, sliding; float scale; uint start; };

const float LOG2E = 1.44269504088896341;

// One subgroup of 8 has ROWS * 8 queries of one head with their dout and dq in registers; keys and values are the same for
// all lanes and pass by once.
void main()
{
    uint dim_ = dim, sliding_ = sliding, l = gl_LocalInvocationID.x;
    float scale_ = scale;
    uint tiles = (ctx + TILE_Q - 1u) / TILE_Q, t = start + wg_index();
    uint q0 = t % tiles * TILE_Q, head = t / tiles % heads, window = t / tiles / heads;
    if (window >= windows)
        return;
    uint kv_stride = kv_heads * dim_;
    uint kv_base = window * ctx * kv_stride + head / (heads / kv_heads) * dim_;
    uint first = sliding_ != 0u && q0 + 1u > sliding_ ? q0 + 1u - sliding_ : 0u;
    uint last = min(q0 + TILE_Q, ctx);
    bool aligned = (dim_ & 3u) == 0u;
    uint pos[ROWS], at[ROWS];
    float row_lse[ROWS], row_delta[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        pos[r] = min(q0 + r * 8u + l, ctx - 1u);
        uint row = (window * ctx + pos[r]) * heads + head;
        at[r] = row * dim_;
        row_lse[r] = TEXEL1(lse, row) * LOG2E;
        row_delta[r] = TEXEL1(delta, row);
    }

#ifdef SMALL
#define PARTS 2u
#define CHUNKS 1u
#define KEYS 4u
#define USED dim_ <= 8u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_q_cpu.glsl"
#define PARTS 4u
#define CHUNKS 1u
#define KEYS 4u
#define USED dim_ > 8u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_q_cpu.glsl"
#else
#define PARTS 8u
#define CHUNKS 2u
#define KEYS 2u
#define USED aligned && dim_ <= 64u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_q_cpu.glsl"
#define PARTS 8u
#define CHUNKS 4u
#define KEYS 2u
#define USED aligned && dim_ > 64u && dim_ <= 128u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_q_cpu.glsl"
#define PARTS 8u
#define CHUNKS 8u
#define KEYS 2u
#define USED !aligned || dim_ > 128u
#define LOAD LOAD_ANY
#define STORE STORE_ANY
#include "attn_bwd_q_cpu.glsl"
#endif
}
