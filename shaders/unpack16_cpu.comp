#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform utextureBuffer src;
layout(set = 0, binding = 1, std430) writeonly buffer Dst { vec4 dst[]; };
layout(push_constant) uniform Push { uint n, kind; };

// Four words per invocation: elements i to i + 7.
void main()
{
    uint i = item_index() * ITEMS * 2u, all = n, type = kind;
    uvec4 w = texelFetch(src, int(min(i, all - 1u) >> 3));
    vec2 a = unpack_halves(w.x, type), b = unpack_halves(w.y, type), c = unpack_halves(w.z, type), d = unpack_halves(w.w, type);
    if (i + 7u < all) {
        dst[i >> 2] = vec4(a, b);
        dst[(i >> 2) + 1u] = vec4(c, d);
    }
    for (uint j = i; j < all && i + 7u >= all; j++)
        dst[j >> 2][j & 3u] = (j & 4u) == 0u ? pick(vec4(a, b), j & 3u) : pick(vec4(c, d), j & 3u);
}
