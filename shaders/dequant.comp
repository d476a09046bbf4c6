#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 1, std430) readonly buffer Scales { float scales[]; };
layout(set = 0, binding = 2, std430) writeonly buffer W { float w[]; };
layout(push_constant) uniform Push { uint rows, cols, ldw, group, groups, ldc, offsets; };

void main()
{
    uint i = item_index();
    if (i >= rows * ldc)
        return;
    uint row = i / ldc;
    uint col = (i % ldc) * 4u;
    uint word = codes[i];
    for (uint lane = 0u; lane < 4u && col + lane < cols; lane++) {
        uint at = scale_place(row, (col + lane) / group, groups, offsets);
        float o = offsets != 0u ? scales[at + groups] : 0.0;
        w[row * ldw + col + lane] = float(code_at(word, lane)) * scales[at] + o;
    }
}
