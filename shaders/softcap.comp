#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer X { float x[]; };
layout(push_constant) uniform Push { uint n; float cap; };

void main()
{
    uint i = item_index();
    if (i < n)
        x[i] = cap * tanh(clamp(x[i] / cap, -15.0, 15.0)); // beyond, it is cap, and tanh may overflow
}
