#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Kv { float kv[]; };
layout(set = 0, binding = 1, std430) readonly buffer Pe { float pe[]; };
layout(set = 0, binding = 2, std430) readonly buffer Table { float table[]; }; // cos, sin
layout(set = 0, binding = 3, std430) buffer Q { float q[]; };
layout(set = 0, binding = 4, std430) writeonly buffer K { float k[]; };
layout(set = 0, binding = 5, std430) writeonly buffer V { float v[]; };
layout(push_constant) uniform Push { uint rows, heads, nope, turned, values, ctx; };

void main()
{
    uint dim = nope + turned, i = item_index(), pairs = dim / 2u;
    if (i >= rows * heads * pairs)
        return;
    uint head = i / pairs, row = head / heads; // head counts through all rows
    uint c = i % pairs * 2u, from = head * (nope + values), to = head * dim + c;
    v[to] = c < values ? kv[from + nope + c] : 0.0;
    v[to + 1u] = c + 1u < values ? kv[from + nope + c + 1u] : 0.0;
    if (c < nope) {
        k[to] = kv[from + c];
        k[to + 1u] = kv[from + c + 1u];
        return;
    }
    uint at = row * turned + c - nope, angle = row % ctx * turned + c - nope;
    float co = table[angle], si = table[angle + 1u], lo = pe[at], hi = pe[at + 1u];
    k[to] = lo * co - hi * si;
    k[to + 1u] = hi * co + lo * si;
    lo = q[to];
    hi = q[to + 1u];
    q[to] = lo * co - hi * si;
    q[to + 1u] = hi * co + lo * si;
}
