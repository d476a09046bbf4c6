#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer a;
layout(set = 0, binding = 1) uniform textureBuffer b;
layout(set = 0, binding = 2, std430) writeonly buffer Out { float result[]; };
layout(push_constant) uniform Push { uint rows, cols; };

// One subgroup per row; rows may start anywhere in a texel.
void main()
{
    uint row = wg_index(), l = gl_LocalInvocationID.x, n = cols;
    if (row >= rows)
        return;
    uint begin = row * n, first = begin >> 2, last = (begin + n - 1u) >> 2;
    vec4 sum = vec4(0.0);
    for (uint t = first + l; t <= last; t += 8u) {
        vec4 v = texelFetch(a, int(t)) * texelFetch(b, int(t));
        uint i = 4u * t - begin; // wraps before the row
        sum += vec4(i < n ? v.x : 0.0, i + 1u < n ? v.y : 0.0, i + 2u < n ? v.z : 0.0, i + 3u < n ? v.w : 0.0);
    }
    float all = sum8(sum.x + sum.y + sum.z + sum.w);
    if (l == 0u)
        result[row] = all;
}
