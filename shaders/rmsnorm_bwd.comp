#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

// dy and dx may be one buffer: every element is written by the invocation that read it, after the row's sums are known.
layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 2, std430) readonly buffer Dy { float dy[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Dx { float dx[]; };
layout(push_constant) uniform Push { uint rows, cols; float eps; };

void main()
{
    uint row = wg_index();
    if (row >= rows)
        return;
    float square = 0.0, product = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        float v = x[row * cols + c];
        square += v * v;
        product += w[c] * dy[row * cols + c] * v;
    }
    float r = 1.0 / sqrt(wg_sum(square) / float(cols) + eps);
    float along = r * r * r / float(cols) * wg_sum(product);
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x)
        dx[row * cols + c] = r * w[c] * dy[row * cols + c] - along * x[row * cols + c];
}
