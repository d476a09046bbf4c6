#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Q { float q[]; };
layout(set = 0, binding = 1, std430) writeonly buffer X { float x[]; };
layout(push_constant) uniform Push { uint rows, heads, nope, dim, stride; };

void main()
{
    uint i = item_index(), head = i / (rows * nope), at = i % (rows * nope);
    if (head >= heads)
        return;
    x[head * stride + at] = q[(at / nope * heads + head) * dim + at % nope];
}
