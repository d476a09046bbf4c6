#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer Table { float table[]; }; // cos, sin
layout(push_constant) uniform Push { uint rows, heads, dim, turned, adjacent, ctx; float turn; };

void main()
{
    uint i = item_index(), pairs = turned / 2u;
    if (i >= rows * heads * pairs)
        return;
    uint p = i % pairs, head = i / pairs; // head counts through all rows
    uint at = head * dim + (adjacent != 0u ? 2u * p : p), to = at + (adjacent != 0u ? 1u : pairs);
    uint from = (head / heads % ctx * pairs + p) * 2u;
    float co = table[from], si = turn * table[from + 1u], lo = x[at], hi = x[to];
    x[at] = lo * co - hi * si;
    x[to] = hi * co + lo * si;
}
