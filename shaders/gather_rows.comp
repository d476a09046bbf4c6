#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Src { float src[]; };
layout(set = 0, binding = 1, std430) readonly buffer Index { uint index[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Dst { float dst[]; };
layout(push_constant) uniform Push { uint rows, cols, at, row0, src_rows; };

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    uint from = min(index[at + i / cols] - row0, src_rows - 1u);
    dst[i] = src[from * cols + i % cols];
}
