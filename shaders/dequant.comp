#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "lanes.glsl"

layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4; // words of codes

READ_WORDS(0, codes);
READ(1, scales);
WRITE(2, w);
layout(push_constant) uniform Push { uint rows, cols, ldw, group, groups, ldc, offsets; };

float offset_at(uint place)
{
    return offsets != 0u ? LOAD1(scales, place + groups * offsets) : 0.0;
}

// ITEMS words, four weights each, which are of one row and group where the sizes are multiples of all of them.
void main()
{
    uint i = item_index() * ITEMS, n = rows * ldc, per_row = ldc, size = group;
    bool together = ((cols | ldw | size) & (4u * ITEMS - 1u)) == 0u;
    uint row = i / per_row, col = (i - row * per_row) * 4u;
#ifdef CPU
    uvec4 words = LOAD4(codes, min(i, n - 1u));
#else
    uvec4 words = uvec4(LOAD1(codes, min(i, n - 1u)));
#endif
    if (together && i < n) {
        uint place = scale_place(row, col / size, groups, offsets);
        float s = LOAD1(scales, place), o = offset_at(place);
        uint at = row * ldw + col;
        [[unroll]] for (uint e = 0u; e < ITEMS; e++)
            STORE4(w, at + 4u * e, s * vec4(code_at(words[e], 0u), code_at(words[e], 1u), code_at(words[e], 2u), code_at(words[e], 3u)) + o);
    }
    for (uint j = 4u * i; j < 4u * min(i + ITEMS, n) && !together; j++) {
        uint word = pick(words, (j >> 2) & (ITEMS - 1u));
        uint at = row * ldw + col, place = scale_place(row, col / size, groups, offsets);
        if (col < cols)
            STORE1(w, at, LOAD1(scales, place) * float(code_at(word, j & 3u)) + offset_at(place));
        col++;
        row += col == 4u * per_row ? 1u : 0u;
        col = col == 4u * per_row ? 0u : col;
    }
}
