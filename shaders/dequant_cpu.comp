#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "quant.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform utextureBuffer codes;
layout(set = 0, binding = 1) uniform textureBuffer scales;
layout(set = 0, binding = 2, std430) writeonly buffer W { vec4 w[]; };
layout(push_constant) uniform Push { uint rows, cols, ldw, group, groups, ldc, offsets; };

float offset_at(uint place)
{
    return offsets != 0u ? TEXEL1(scales, place + groups * offsets) : 0.0;
}

// Four words of codes, 16 weights, per invocation, which are of one row and group where the sizes are multiples of 16.
void main()
{
    uint i = item_index() * ITEMS, n = rows * ldc, per_row = ldc, size = group;
    bool together = ((cols | ldw | size) & 15u) == 0u;
    uint row = i / per_row, col = (i - row * per_row) * 4u;
    uvec4 words = texelFetch(codes, int(min(i, n - 1u) >> 2));
    if (together && i < n) {
        uint place = scale_place(row, col / size, groups, offsets);
        float s = TEXEL1(scales, place), o = offset_at(place);
        uint at = (row * ldw + col) >> 2;
        [[unroll]] for (uint e = 0u; e < 4u; e++)
            w[at + e] = s * vec4(code_at(words[e], 0u), code_at(words[e], 1u), code_at(words[e], 2u), code_at(words[e], 3u)) + o;
    }
    for (uint j = 4u * i; j < 4u * min(i + ITEMS, n) && !together; j++) {
        uint e = (j >> 2) & 3u, word = e == 0u ? words.x : e == 1u ? words.y : e == 2u ? words.z : words.w;
        uint at = row * ldw + col, place = scale_place(row, col / size, groups, offsets);
        if (col < cols)
            w[at >> 2][at & 3u] = TEXEL1(scales, place) * float(code_at(word, j & 3u)) + offset_at(place);
        col++;
        row += col == 4u * per_row ? 1u : 0u;
        col = col == 4u * per_row ? 0u : col;
    }
}
