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
layout(constant_id = SPEC_TILE) const uint TILE_K = 8u * ROWS; // ROWS keys per lane

// attn_bwd_kv and, with ONLY_V, attn_bwd_v.
layout(set = 0, binding = 0) uniform textureBuffer q;
layout(set = 0, binding = 1) uniform textureBuffer k;
#ifdef ONLY_V
layout(set = 0, binding = 2) uniform textureBuffer dout;
layout(set = 0, binding = 3) uniform textureBuffer lse;
layout(set = 0, binding = 4, std430) writeonly buffer Dv { vec4 dv[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Dv2 { vec2 dv2[]; };
#else
layout(set = 0, binding = 2) uniform textureBuffer v;
layout(set = 0, binding = 3) uniform textureBuffer dout;
layout(set = 0, binding = 4) uniform textureBuffer lse;
layout(set = 0, binding = 5) uniform textureBuffer delta;
layout(set = 0, binding = 6, std430) writeonly buffer Dk { vec4 dk[]; };
layout(set = 0, binding = 6, std430) writeonly buffer Dk2 { vec2 dk2[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Dv { vec4 dv[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Dv2 { vec2 dv2[]; };
#endif
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, sliding; float scale; uint start; };

const float LOG2E = 1.44269504088896341;

// One subgroup of 8 has ROWS * 8 keys of one key head with their values and gradients in registers; the queries that see
// them, of all heads of the group, are the same for all lanes and pass by once.
void main()
{
    uint dim_ = dim, sliding_ = sliding, heads_ = heads, l = gl_LocalInvocationID.x;
    float scale_ = scale;
    uint tiles = (ctx + TILE_K - 1u) / TILE_K, t = start + wg_index();
    uint k0 = t % tiles * TILE_K, kv_head = t / tiles % kv_heads, window = t / tiles / kv_heads;
    if (window >= windows)
        return;
    uint group = heads_ / kv_heads;
    uint row0 = window * ctx * heads_ + kv_head * group; // lse's element of position 0, first head of the group
    uint last = sliding_ != 0u ? min(k0 + TILE_K - 1u + sliding_, ctx) : ctx;
    bool aligned = (dim_ & 3u) == 0u;
    uint pos[ROWS], at[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        pos[r] = min(k0 + r * 8u + l, ctx - 1u);
        at[r] = ((window * ctx + pos[r]) * kv_heads + kv_head) * dim_;
    }

#ifdef SMALL
#define PARTS 2u
#define CHUNKS 1u
#define QUERIES 4u
#define USED dim_ <= 8u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_kv_cpu.glsl"
#define PARTS 4u
#define CHUNKS 1u
#define QUERIES 4u
#define USED dim_ > 8u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_kv_cpu.glsl"
#else
#define PARTS 8u
#define CHUNKS 2u
#define QUERIES 2u
#define USED aligned && dim_ <= 64u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_kv_cpu.glsl"
#define PARTS 8u
#define CHUNKS 4u
#define QUERIES 2u
#define USED aligned && dim_ > 64u && dim_ <= 128u
#define LOAD LOAD_ALIGNED
#define STORE STORE_ALIGNED
#include "attn_bwd_kv_cpu.glsl"
#define PARTS 8u
#define CHUNKS 8u
#define QUERIES 2u
#define USED !aligned || dim_ > 128u
#define LOAD LOAD_ANY
#define STORE STORE_ANY
#include "attn_bwd_kv_cpu.glsl"
#endif
}
