#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(set = 0, binding = 0, std430) buffer X { float x[]; };
layout(push_constant) uniform Push { uint rows, cols, heads, dim; float eps; };

void main()
{
    uint at = wg_index();
    if (at >= rows * heads)
        return;
    at = at / heads * cols + at % heads * dim;
    float sum = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < dim; c += gl_WorkGroupSize.x)
        sum += x[at + c] * x[at + c];
    float r = 1.0 / sqrt(wg_sum(sum) + eps);
    for (uint c = gl_LocalInvocationID.x; c < dim; c += gl_WorkGroupSize.x)
        x[at + c] *= r;
}
