#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

layout(set = 0, binding = 0, std430) buffer Y1 { float y_1[]; };
layout(set = 0, binding = 0, std430) buffer Y4 { vec4 y_4[]; };
READ(1, x);
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation.
void main()
{
    uint i = item_index() * 4u, end = n;
    if (i + 3u < end)
        y_4[i >> 2] += LOAD4(x, i);
    for (uint j = i; j < end && i + 3u >= end; j++)
        y_1[j] += LOAD1(x, j);
}
