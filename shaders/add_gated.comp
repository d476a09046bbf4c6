#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer Z { float z[]; };
layout(set = 0, binding = 2, std430) readonly buffer Old { float old[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, cols; };

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    precise float product = x[i] / (1.0 + exp(-z[i / cols]));
    precise float sum = old[i] + product;
    y[i] = sum;
}
