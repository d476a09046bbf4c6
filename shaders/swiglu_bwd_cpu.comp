#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform textureBuffer gate;
layout(set = 0, binding = 1) uniform textureBuffer up;
layout(set = 0, binding = 2) uniform textureBuffer dact;
layout(set = 0, binding = 3, std430) writeonly buffer Dgate { vec4 dgate[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Dup { vec4 dup[]; };
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation. What it writes may be the memory of what it reads.
void main()
{
    uint i = item_index() * ITEMS, all = n;
    uint at = min(i, all - 1u);
    vec4 g = TEXEL4(gate, at), u = TEXEL4(up, at), d = TEXEL4(dact, at);
    groupMemoryBarrier(); // dup does not depend on up: nothing else keeps that write behind this read
    vec4 sigma = 1.0 / (1.0 + exp(-g));
    vec4 to_gate = d * u * sigma * (1.0 + g * (1.0 - sigma)), to_up = d * g * sigma;
    if (i + 3u < all) {
        dgate[i >> 2] = to_gate;
        dup[i >> 2] = to_up;
    }
    for (uint j = i; j < all && i + 3u >= all; j++) {
        dgate[j >> 2][j & 3u] = pick(to_gate, j & 3u);
        dup[j >> 2][j & 3u] = pick(to_up, j & 3u);
    }
}
