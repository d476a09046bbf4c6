#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"
#include "glu.glsl"

READ(0, gate);
READ(1, up);
READ(2, dact);
WRITE(3, dgate);
WRITE(4, dup);
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation. What it writes may be the memory of what it reads.
void main()
{
    uint i = item_index() * 4u, end = n, at = min(i, (end - 1u) & ~3u);
    vec4 g = LOAD4_TO(gate, at, end), u = LOAD4_TO(up, at, end), d = LOAD4_TO(dact, at, end);
    groupMemoryBarrier(); // dup does not depend on up: nothing else keeps that write behind this read
#ifdef CLAMPED
    vec4 free_g = vec4(lessThan(g, vec4(LIMIT))), free_u = vec4(lessThan(abs(u), vec4(LIMIT)));
    g = GATE(g);
    u = UP(u);
#endif
    vec4 sigma = 1.0 / (1.0 + exp(-STEEP(g)));
    vec4 to_gate = d * u * sigma * (1.0 + g * (1.0 - sigma) SLOPE(g)), to_up = d * g * sigma;
#ifdef CLAMPED
    to_gate *= free_g;
    to_up *= free_u;
#endif
    if (i + 3u < end) {
        STORE4(dgate, i, to_gate);
        STORE4(dup, i, to_up);
    }
    for (uint j = i; j < end && i + 3u >= end; j++) { // one loop for both: each costs a CPU device its turn
        STORE1(dgate, j, pick(to_gate, j & 3u));
        STORE1(dup, j, pick(to_up, j & 3u));
    }
}
