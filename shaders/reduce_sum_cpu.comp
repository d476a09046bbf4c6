#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer x;
layout(set = 0, binding = 1, std430) buffer Out { float result[]; };
layout(push_constant) uniform Push { uint n, at; float factor; };

// Texel t, without what is behind the end.
vec4 load(uint t, uint end)
{
    vec4 v = texelFetch(x, int(min(t, (end - 1u) >> 2)));
    uint i = 4u * t;
    return vec4(i < end ? v.x : 0.0, i + 1u < end ? v.y : 0.0, i + 2u < end ? v.z : 0.0, i + 3u < end ? v.w : 0.0);
}

// One subgroup. Each invocation's sums keep what their additions lose (Kahan), so that their length costs no digits; eight
// texels at a time, because loops end after 65535 iterations.
void main()
{
    uint l = gl_LocalInvocationID.x, end = n;
    precise vec4 sum = vec4(0.0), lost = vec4(0.0);
    for (uint t = l; 4u * t < end; t += 64u) {
        vec4 low = load(t, end) + load(t + 8u, end) + (load(t + 16u, end) + load(t + 24u, end));
        vec4 high = load(t + 32u, end) + load(t + 40u, end) + (load(t + 48u, end) + load(t + 56u, end));
        precise vec4 v = low + high - lost;
        precise vec4 next = sum + v;
        lost = next - sum - v;
        sum = next;
    }
    float all = sum8(sum.x + sum.y + (sum.z + sum.w));
    if (wg_index() == 0u && l == 0u)
        result[at] += factor * all;
}
