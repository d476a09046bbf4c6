#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

// logits and dlogits may be one buffer: every element is written by the invocation that read it, after the row's sums are
// known.
layout(set = 0, binding = 0, std430) readonly buffer Ref { float ref[]; };
layout(set = 0, binding = 1, std430) readonly buffer Logits { float logits[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Dlogits { float dlogits[]; };
layout(push_constant) uniform Push { uint rows, cols; float factor; };

const float LOWEST = -3.402823466e38;

void main()
{
    uint row = wg_index();
    if (row >= rows)
        return;
    float top_p = LOWEST, top_q = LOWEST;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        top_p = max(top_p, ref[row * cols + c]);
        top_q = max(top_q, logits[row * cols + c]);
    }
    top_p = wg_max(top_p);
    top_q = wg_max(top_q);
    float sum_p = 0.0, sum_q = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        sum_p += exp(ref[row * cols + c] - top_p);
        sum_q += exp(logits[row * cols + c] - top_q);
    }
    float scale_p = factor / wg_sum(sum_p), scale_q = factor / wg_sum(sum_q);
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x)
        dlogits[row * cols + c] =
            exp(logits[row * cols + c] - top_q) * scale_q - exp(ref[row * cols + c] - top_p) * scale_p;
}
