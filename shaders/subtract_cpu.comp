#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform textureBuffer a;
layout(set = 0, binding = 1) uniform textureBuffer b;
layout(set = 0, binding = 2, std430) writeonly buffer D { vec4 d[]; };
layout(push_constant) uniform Push { uint n; };

// Four elements per invocation. d may be the buffer of a or b.
void main()
{
    uint i = item_index() * ITEMS, all = n, at = min(i, all - 1u);
    vec4 v = TEXEL4(a, at) - TEXEL4(b, at);
    if (i + 3u < all)
        d[i >> 2] = v;
    for (uint j = i; j < all && i + 3u >= all; j++)
        d[j >> 2][j & 3u] = pick(v, j & 3u);
}
