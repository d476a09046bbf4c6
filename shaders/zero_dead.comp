#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer W { float w[]; };
layout(set = 0, binding = 1, std430) readonly buffer Diag { float diag[]; };
layout(push_constant) uniform Push { uint rows, cols, ldw; };

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    uint col = i % cols;
    if (diag[col] == 0.0)
        w[(i / cols) * ldw + col] = 0.0;
}
