#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer DY { float dy[]; };
layout(set = 0, binding = 1, std430) readonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint n; float cap; };

void main()
{
    uint i = item_index();
    if (i < n) {
        float t = y[i] / cap;
        dy[i] *= 1.0 - t * t;
    }
}
