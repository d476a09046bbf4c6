#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer Index { uint index[]; };
layout(set = 0, binding = 2, std430) readonly buffer Weight { float weight[]; };
layout(set = 0, binding = 3, std430) buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, cols, at, row0, src_rows; };

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    uint row = at + i / cols, to = min(index[row] - row0, src_rows - 1u) * cols + i % cols;
    // Never one fused operation: who adds products that were made elsewhere gets the same bits.
    precise float product = weight[row] * x[i];
    precise float sum = y[to] + product;
    y[to] = sum;
}
