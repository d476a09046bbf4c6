#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer x;
layout(set = 0, binding = 1) uniform textureBuffer w;
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { uint rows, cols; float eps; };

// One subgroup per row.
void main()
{
    uint row = wg_index(), l = gl_LocalInvocationID.x, n = cols;
    if (row >= rows)
        return;
    uint at = row * n;
    uint n4 = (n & 3u) == 0u ? n : 0u; // columns done four at a time: all or none
    vec4 sum4 = vec4(0.0);
    for (uint c = 4u * l; c < n4; c += 32u) {
        vec4 v = TEXEL4(x, at + c);
        sum4 += v * v;
    }
    float sum = sum4.x + sum4.y + sum4.z + sum4.w;
    for (uint c = n4 + l; c < n; c += 8u) {
        float v = TEXEL1(x, at + c);
        sum += v * v;
    }
    float r = 1.0 / sqrt(sum8(sum) / float(n) + eps);
    for (uint c = 4u * l; c < n4; c += 32u)
        y[(at + c) >> 2] = TEXEL4(x, at + c) * r * TEXEL4(w, c);
    for (uint c = n4 + l; c < n; c += 8u)
        y[(at + c) >> 2][(at + c) & 3u] = TEXEL1(x, at + c) * r * TEXEL1(w, c);
}
