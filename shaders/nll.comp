#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Logits { float logits[]; };
layout(set = 0, binding = 1, std430) readonly buffer Target { uint target[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Out { float nll[]; };
layout(push_constant) uniform Push { uint rows, cols; };

void main()
{
    uint row = wg_index();
    if (row >= rows)
        return;
    float top = -3.402823466e38;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x)
        top = max(top, logits[row * cols + c]);
    top = wg_max(top);
    float sum = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x)
        sum += exp(logits[row * cols + c] - top);
    sum = wg_sum(sum);
    if (gl_LocalInvocationID.x == 0u)
        nll[row] = log(sum) - (logits[row * cols + min(target[row], cols - 1u)] - top);
}
