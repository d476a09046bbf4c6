#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 1, std430) readonly buffer Scales { float scales[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Codes { uint codes[]; };
layout(push_constant) uniform Push { uint rows, cols, ldw, group, groups, ldc; int lo, hi; uint offsets; GRID_PUSH };

void main()
{
    uint i = item_index();
    if (i >= rows * ldc)
        return;
    uint row = i / ldc;
    uint col = (i % ldc) * 4u;
    uint word = 0u;
    for (uint lane = 0u; lane < 4u && col + lane < cols; lane++) {
        uint at = scale_place(row, (col + lane) / group, groups, offsets);
        float s = scales[at], o = offsets != 0u ? scales[at + groups] : 0.0;
        word |= code_to_lane(
            nearest_level((w[row * ldw + col + lane] - o) * inverse_scale(s), GRID), lane);
    }
    codes[i] = word;
}
