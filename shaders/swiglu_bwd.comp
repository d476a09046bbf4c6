#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Gate { float gate[]; };
layout(set = 0, binding = 1, std430) readonly buffer Up { float up[]; };
layout(set = 0, binding = 2, std430) readonly buffer Dact { float dact[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Dgate { float dgate[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Dup { float dup[]; };
layout(push_constant) uniform Push { uint n; };

// One invocation per element. What it writes may be the memory of what it reads.
void main()
{
    uint i = item_index();
    if (i >= n)
        return;
    float g = gate[i], u = up[i], d = dact[i];
    groupMemoryBarrier(); // dup does not depend on up: nothing else keeps that write behind this read
    float sigma = 1.0 / (1.0 + exp(-g));
    dgate[i] = d * u * sigma * (1.0 + g * (1.0 - sigma));
    dup[i] = d * g * sigma;
}
