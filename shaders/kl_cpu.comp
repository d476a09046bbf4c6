#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer ref;
layout(set = 0, binding = 1) uniform textureBuffer logits;
layout(set = 0, binding = 2, std430) writeonly buffer Out { float kl[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Top1 { float top1[]; };
layout(push_constant) uniform Push { uint rows, cols; };

const float LOWEST = -1e30;
const uint NONE = 0xffffffffu;

// v less what is not of this row; i: the first element's column, wrapped before the row.
vec4 of_row(vec4 v, uint i, uint n)
{
    return vec4(i < n ? v.x : LOWEST, i + 1u < n ? v.y : LOWEST, i + 2u < n ? v.z : LOWEST, i + 3u < n ? v.w : LOWEST);
}

void keep_largest(vec4 v, uint i, uint n, inout float top, inout uint at)
{
    for (uint e = 0u; e < 4u; e++) {
        bool better = i + e < n && (v[e] > top || at == NONE);
        top = better ? v[e] : top;
        at = better ? i + e : at;
    }
}

// One subgroup per row; rows may start anywhere in a texel. As in kl.comp otherwise.
void main()
{
    uint row = wg_index(), l = gl_LocalInvocationID.x, n = cols;
    if (row >= rows)
        return;
    uint begin = row * n, first = begin >> 2, last = (begin + n - 1u) >> 2;
    float top_p = LOWEST, top_q = LOWEST;
    uint at_p = NONE, at_q = NONE;
    for (uint t = first + l; t <= last; t += 8u) {
        keep_largest(texelFetch(ref, int(t)), 4u * t - begin, n, top_p, at_p);
        keep_largest(texelFetch(logits, int(t)), 4u * t - begin, n, top_q, at_q);
    }
    argmax8(top_p, at_p);
    argmax8(top_q, at_q);

    vec4 p = vec4(0.0), q = vec4(0.0);
    for (uint t = first + l; t <= last; t += 8u) {
        p += exp(of_row(texelFetch(ref, int(t)), 4u * t - begin, n) - top_p);
        q += exp(of_row(texelFetch(logits, int(t)), 4u * t - begin, n) - top_q);
    }
    float sum_p = sum8(p.x + p.y + p.z + p.w);
    float gap = log(sum8(q.x + q.y + q.z + q.w)) - log(sum_p);

    p = vec4(0.0);
    for (uint t = first + l; t <= last; t += 8u) {
        vec4 lp = of_row(texelFetch(ref, int(t)), 4u * t - begin, n) - top_p;
        vec4 w = exp(lp), d = lp - (of_row(texelFetch(logits, int(t)), 4u * t - begin, n) - top_q) + gap;
        // What has no weight adds nothing, whatever d is.
        p += vec4(w.x > 0.0 && lp.x > -1e29 ? w.x * d.x : 0.0, w.y > 0.0 && lp.y > -1e29 ? w.y * d.y : 0.0,
                  w.z > 0.0 && lp.z > -1e29 ? w.z * d.z : 0.0, w.w > 0.0 && lp.w > -1e29 ? w.w * d.w : 0.0);
    }
    float sum = sum8(p.x + p.y + p.z + p.w) / sum_p;
    if (l == 0u) {
        kl[row] = sum;
        top1[row] = at_p == at_q ? 1.0 : 0.0;
    }
}
