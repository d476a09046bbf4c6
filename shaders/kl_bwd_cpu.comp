#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer ref;
layout(set = 0, binding = 1) uniform textureBuffer logits;
layout(set = 0, binding = 2, std430) writeonly buffer Dlogits { vec4 dlogits[]; };
layout(push_constant) uniform Push { uint rows, cols; float factor; };

const float LOWEST = -1e30;

// v less what is not of this row; i: the first element's column, wrapped before the row.
vec4 of_row(vec4 v, uint i, uint n)
{
    return vec4(i < n ? v.x : LOWEST, i + 1u < n ? v.y : LOWEST, i + 2u < n ? v.z : LOWEST, i + 3u < n ? v.w : LOWEST);
}

// One subgroup per row; rows may start anywhere in a texel.
void main()
{
    uint row = wg_index(), l = gl_LocalInvocationID.x, n = cols;
    if (row >= rows)
        return;
    uint begin = row * n, first = begin >> 2, last = (begin + n - 1u) >> 2;
    vec4 p = vec4(LOWEST), q = vec4(LOWEST);
    for (uint t = first + l; t <= last; t += 8u) {
        p = max(p, of_row(texelFetch(ref, int(t)), 4u * t - begin, n));
        q = max(q, of_row(texelFetch(logits, int(t)), 4u * t - begin, n));
    }
    float top_p = max8(max(max(p.x, p.y), max(p.z, p.w)));
    float top_q = max8(max(max(q.x, q.y), max(q.z, q.w)));

    p = q = vec4(0.0);
    for (uint t = first + l; t <= last; t += 8u) {
        p += exp(of_row(texelFetch(ref, int(t)), 4u * t - begin, n) - top_p);
        q += exp(of_row(texelFetch(logits, int(t)), 4u * t - begin, n) - top_q);
    }
    float scale_p = factor / sum8(p.x + p.y + p.z + p.w);
    float scale_q = factor / sum8(q.x + q.y + q.z + q.w);

    for (uint t = first + l; t <= last; t += 8u) {
        uint i = 4u * t - begin;
        vec4 d = exp(texelFetch(logits, int(t)) - top_q) * scale_q - exp(texelFetch(ref, int(t)) - top_p) * scale_p;
        bool whole = i < n && i + 3u < n;
        if (whole)
            dlogits[t] = d;
        for (uint e = whole ? 4u : 0u; e < 4u; e++)
            if (i + e < n)
                dlogits[t][e] = pick(d, e);
    }
}
