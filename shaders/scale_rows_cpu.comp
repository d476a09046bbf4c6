#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform textureBuffer x;
layout(set = 0, binding = 1) uniform textureBuffer w;
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { uint rows, cols; };

// Four elements per invocation.
void main()
{
    uint i = item_index() * ITEMS, d = cols, n = rows * d;
    bool four = (d & 3u) == 0u;
    if (four && i < n)
        y[i >> 2] = TEXEL4(x, i) * TEXEL1(w, i / d);
    for (uint j = i; j < min(i + ITEMS, n) && !four; j++)
        y[j >> 2][j & 3u] = TEXEL1(x, j) * TEXEL1(w, j / d);
}
