#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"
#include "glu.glsl"

READ(0, gate);
READ(1, up);
WRITE(2, act);
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation. act may be the buffer of gate or up.
void main()
{
    uint i = item_index() * 4u, end = n, at = min(i, (end - 1u) & ~3u);
    vec4 g = GATE(LOAD4_TO(gate, at, end));
    vec4 v = g / (1.0 + exp(-STEEP(g))) * UP(LOAD4_TO(up, at, end));
    STORE4_TO(act, i, end, v);
}
