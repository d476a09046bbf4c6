#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Gate { float gate[]; };
layout(set = 0, binding = 1, std430) readonly buffer Up { float up[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Act { float act[]; };
layout(push_constant) uniform Push { uint n; };

// One invocation per element. act may be the buffer of gate or up.
void main()
{
    uint i = item_index();
    if (i < n) {
        float g = gate[i];
        act[i] = g / (1.0 + exp(-g)) * up[i];
    }
}
