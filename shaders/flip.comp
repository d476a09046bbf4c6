#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer In { float src[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Out { float dst[]; };
layout(push_constant) uniform Push { uint n, rows, in0, out0, ldi, ldo; };

void main()
{
    uint i = item_index();
    if (i >= rows * n)
        return;
    uint row = i / n;
    uint col = i % n;
    dst[out0 + row * ldo + col] = src[in0 + (rows - 1u - row) * ldi + n - 1u - col];
}
