#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer logits;
layout(set = 0, binding = 1, std430) readonly buffer Target { uint target[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Out { float nll[]; };
layout(push_constant) uniform Push { uint rows, cols; };

const float LOWEST = -1e30;

// Texel t less what is not of this row, which starts at `begin`.
vec4 load(uint t, uint begin, uint n)
{
    vec4 v = texelFetch(logits, int(t));
    uint i = 4u * t - begin; // wraps before the row
    return vec4(i < n ? v.x : LOWEST, i + 1u < n ? v.y : LOWEST, i + 2u < n ? v.z : LOWEST, i + 3u < n ? v.w : LOWEST);
}

// One subgroup per row; rows may start anywhere in a texel.
void main()
{
    uint row = wg_index(), l = gl_LocalInvocationID.x, n = cols;
    if (row >= rows)
        return;
    uint begin = row * n, first = begin >> 2, last = (begin + n - 1u) >> 2;
    vec4 v = vec4(LOWEST);
    for (uint t = first + l; t <= last; t += 8u)
        v = max(v, load(t, begin, n));
    float top = max8(max(max(v.x, v.y), max(v.z, v.w)));
    v = vec4(0.0);
    for (uint t = first + l; t <= last; t += 8u)
        v += exp(load(t, begin, n) - top);
    float sum = sum8(v.x + v.y + v.z + v.w);
    float hit = TEXEL1(logits, begin + min(target[row], n - 1u));
    if (l == 0u)
        nll[row] = log(sum) - (hit - top);
}
