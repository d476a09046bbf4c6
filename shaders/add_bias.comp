#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

READ(0, x);
READ(1, b);
WRITE(2, y);
layout(push_constant) uniform Push { uint rows, cols; };

// Four elements per invocation, of one row where rows are whole fours.
void main()
{
    uint i = item_index() * 4u, d = cols, n = rows * d;
    bool four = (d & 3u) == 0u;
    if (four && i < n)
        STORE4(y, i, LOAD4(x, i) + LOAD4(b, i % d));
    for (uint j = i; j < min(i + 4u, n) && !four; j++)
        STORE1(y, j, LOAD1(x, j) + LOAD1(b, j % d));
}
