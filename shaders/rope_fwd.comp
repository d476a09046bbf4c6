#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

READ(0, x);
READ(1, table); // cos, sin
WRITE(2, y);
layout(push_constant) uniform Push { uint rows, heads, dim, ctx; float turn; };

// Four pairs per invocation, which lie side by side where dim is a multiple of 8.
void main()
{
    uint i = item_index() * 4u, d = dim, half_dim = d / 2u, n = rows * heads * half_dim, h = heads, c = ctx;
    bool four = (d & 7u) == 0u;
    if (four && i < n) {
        uint p = i % half_dim, head = i / half_dim, at = head * d + p; // head counts through all rows
        uint from = (head / h % c * half_dim + p) * 2u;
        vec4 t0 = LOAD4(table, from), t1 = LOAD4(table, from + 4u);
        vec4 co = vec4(t0.xz, t1.xz), si = turn * vec4(t0.yw, t1.yw);
        vec4 lo = LOAD4(x, at), hi = LOAD4(x, at + half_dim);
        STORE4(y, at, lo * co - hi * si);
        STORE4(y, at + half_dim, hi * co + lo * si);
    }
    for (uint j = i; j < min(i + 4u, n) && !four; j++) {
        uint p = j % half_dim, head = j / half_dim, at = head * d + p, to = at + half_dim;
        uint from = (head / h % c * half_dim + p) * 2u;
        float co = LOAD1(table, from), si = turn * LOAD1(table, from + 1u);
        float lo = LOAD1(x, at), hi = LOAD1(x, to);
        STORE1(y, at, lo * co - hi * si);
        STORE1(y, to, hi * co + lo * si);
    }
}
