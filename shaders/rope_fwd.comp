#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer Table { vec2 table[]; }; // cos, sin
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, heads, dim, ctx; float turn; };

// One invocation per pair.
void main()
{
    uint i = item_index();
    uint half_dim = dim / 2u;
    if (i >= rows * heads * half_dim)
        return;
    uint p = i % half_dim, head = i / half_dim; // head counts through all rows
    vec2 cs = table[head / heads % ctx * half_dim + p];
    uint at = head * dim + p;
    float lo = x[at], hi = x[at + half_dim];
    cs.y *= turn;
    y[at] = lo * cs.x - hi * cs.y;
    y[at + half_dim] = hi * cs.x + lo * cs.y;
}
