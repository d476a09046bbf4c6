#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Packed { uint packed[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Codes { uint codes[]; };
layout(push_constant) uniform Push { uint rows, cols, ldp, ldc, bits; int lo; GRID_PUSH };

// Of its number among the type's codes.
int code_of(uint number)
{
#ifdef LEVEL_TABLE
    return table_level(GRID, number);
#else
    return int(number) + lo;
#endif
}

void main()
{
    uint i = item_index();
    if (i >= rows * ldc)
        return;
    uint row = i / ldc, col = (i - row * ldc) * 4u, size = bits;
    // The bits of four codes are at most 32, in two words.
    uint bit = col * size, at = bit >> 5, shift = bit & 31u, last = ldp - 1u;
    uint low = packed[row * ldp + at] >> shift, high = packed[row * ldp + min(at + 1u, last)];
    uint four = shift == 0u ? low : low | high << (32u - shift);
    uint word = 0u;
    [[unroll]] for (uint lane = 0u; lane < 4u; lane++)
        if (col + lane < cols)
            word |= code_to_lane(float(code_of(bitfieldExtract(four, int(lane * size), int(size)))), lane);
    codes[i] = word;
}
