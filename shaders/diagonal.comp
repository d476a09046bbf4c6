#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer H { float h[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Diag { float diag[]; };
layout(push_constant) uniform Push { uint n, ldh, row0; };

void main()
{
    uint i = item_index();
    if (i < n)
        diag[i] = h[i * ldh + row0 + i];
}
