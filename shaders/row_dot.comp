#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer A { float a[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { float b[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Out { float result[]; };
layout(push_constant) uniform Push { uint rows, cols; };

shared float partial[gl_WorkGroupSize.x];

// One workgroup per row; lanes stride over the columns, then a tree in shared memory.
void main()
{
    uint row = wg_index();
    uint lane = gl_LocalInvocationID.x;
    if (row >= rows)
        return;
    float sum = 0.0;
    for (uint col = lane; col < cols; col += gl_WorkGroupSize.x)
        sum += a[row * cols + col] * b[row * cols + col];
    partial[lane] = sum;
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        barrier();
        if (lane < half_size)
            partial[lane] += partial[lane + half_size];
    }
    if (lane == 0u)
        result[row] = partial[0];
}
