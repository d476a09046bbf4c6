#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer H { float h[]; };
layout(push_constant) uniform Push { uint n, ldh, row0; float one, damp; };

void main()
{
    uint i = item_index();
    if (i >= n)
        return;
    uint at = i * ldh + row0 + i;
    h[at] = h[at] == 0.0 ? one : h[at] + damp;
}
