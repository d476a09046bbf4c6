#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Src { float src[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Dst { float dst[]; };
layout(push_constant) uniform Push { uint rows, cols, lds, ldd; };

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    uint row = i / cols;
    uint col = i % cols;
    dst[row * ldd + col] = src[row * lds + col];
}
