#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { float b[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, cols; };

// One invocation per element.
void main()
{
    uint i = item_index();
    if (i < rows * cols)
        y[i] = x[i] + b[i % cols];
}
