#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

READ(0, a);
READ(1, b);
WRITE(2, d);
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation. d may be the buffer of a or b.
void main()
{
    uint i = item_index() * 4u, end = n, at = min(i, (end - 1u) & ~3u);
    vec4 v = LOAD4_TO(a, at, end) - LOAD4_TO(b, at, end);
    STORE4_TO(d, i, end, v);
}
