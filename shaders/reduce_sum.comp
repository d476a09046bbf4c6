#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) buffer Out { float result[]; };
layout(push_constant) uniform Push { uint n, at; float factor; };

// Each invocation's sum keeps what its additions lose (Kahan), so that its length costs no digits.
void main()
{
    uint l = gl_LocalInvocationID.x, s = gl_WorkGroupSize.x;
    precise float sum = 0.0, lost = 0.0;
    for (uint i = l; i < n; i += 4u * s) {
        float low = x[i] + (i + s < n ? x[i + s] : 0.0);
        float high = (i + 2u * s < n ? x[i + 2u * s] : 0.0) + (i + 3u * s < n ? x[i + 3u * s] : 0.0);
        precise float v = low + high - lost;
        precise float next = sum + v;
        lost = next - sum - v;
        sum = next;
    }
    float all = wg_sum(sum);
    if (wg_index() == 0u && l == 0u)
        result[at] += factor * all;
}
