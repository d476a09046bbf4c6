#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform textureBuffer gate;
layout(set = 0, binding = 1) uniform textureBuffer up;
layout(set = 0, binding = 2, std430) writeonly buffer Act { vec4 act[]; };
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation.
void main()
{
    uint i = item_index() * ITEMS, all = n;
    uint at = min(i, all - 1u);
    vec4 g = TEXEL4(gate, at);
    vec4 v = g / (1.0 + exp(-g)) * TEXEL4(up, at);
    if (i + 3u < all)
        act[i >> 2] = v;
    for (uint j = i; j < all && i + 3u >= all; j++)
        act[j >> 2][j & 3u] = pick(v, j & 3u);
}
