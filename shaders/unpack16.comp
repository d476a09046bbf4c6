#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Src { uint src[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Dst { float dst[]; };
layout(push_constant) uniform Push { uint n, kind; };

// One invocation per word: elements 2i and 2i + 1.
void main()
{
    uint i = item_index();
    if (2u * i >= n)
        return;
    vec2 v = unpack_halves(src[i], kind);
    dst[2u * i] = v.x;
    if (2u * i + 1u < n)
        dst[2u * i + 1u] = v.y;
}
