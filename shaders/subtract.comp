#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer A { float a[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { float b[]; };
layout(set = 0, binding = 2, std430) writeonly buffer D { float d[]; };
layout(push_constant) uniform Push { uint n; };

void main()
{
    uint i = item_index();
    if (i < n)
        d[i] = a[i] - b[i];
}
