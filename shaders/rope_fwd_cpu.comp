#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform textureBuffer x;
layout(set = 0, binding = 1) uniform textureBuffer table; // cos, sin
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { uint rows, heads, dim, ctx; float turn; };

// Four pairs per invocation, which lie side by side where dim is a multiple of 8.
void main()
{
    uint i = item_index() * ITEMS, d = dim, half_dim = d / 2u, n = rows * heads * half_dim, h = heads, c = ctx;
    bool four = (d & 7u) == 0u;
    if (four && i < n) {
        uint p = i % half_dim, head = i / half_dim, at = head * d + p;
        uint from = (head / h % c * half_dim + p) * 2u;
        vec4 t0 = TEXEL4(table, from), t1 = TEXEL4(table, from + 4u);
        vec4 co = vec4(t0.xz, t1.xz), si = turn * vec4(t0.yw, t1.yw);
        vec4 lo = TEXEL4(x, at), hi = TEXEL4(x, at + half_dim);
        y[at >> 2] = lo * co - hi * si;
        y[(at + half_dim) >> 2] = hi * co + lo * si;
    }
    for (uint j = i; j < min(i + ITEMS, n) && !four; j++) {
        uint p = j % half_dim, head = j / half_dim, at = head * d + p, to = at + half_dim;
        uint from = (head / h % c * half_dim + p) * 2u;
        float co = TEXEL1(table, from), si = turn * TEXEL1(table, from + 1u);
        float lo = TEXEL1(x, at), hi = TEXEL1(x, to);
        y[at >> 2][at & 3u] = lo * co - hi * si;
        y[to >> 2][to & 3u] = hi * co + lo * si;
    }
}
