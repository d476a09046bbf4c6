#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

// x and y may be one buffer: every element is written by the invocation that read it, after the row's sum is known.
layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, cols; float eps; };

void main()
{
    uint row = wg_index();
    if (row >= rows)
        return;
    float sum = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        float v = x[row * cols + c];
        sum += v * v;
    }
    float r = 1.0 / sqrt(wg_sum(sum) / float(cols) + eps);
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x)
        y[row * cols + c] = x[row * cols + c] * r * w[c];
}
