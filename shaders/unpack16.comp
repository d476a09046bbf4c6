#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4; // words

READ_WORDS(0, src);
WRITE(1, dst);
layout(push_constant) uniform Push { uint n, kind; };

// Two words are four elements; here are two or four.
void main()
{
    uint first = item_index() * ITEMS, i = 2u * first, last = (n - 1u) / 2u, end = n, type = kind;
#ifdef CPU
    uvec4 w = LOAD4(src, min(first, last));
#else
    uvec4 w = uvec4(LOAD1(src, min(first, last)), LOAD1(src, min(first + 1u, last)), 0u, 0u);
#endif
    vec4 a = vec4(unpack_halves(w.x, type), unpack_halves(w.y, type));
    vec4 b = ITEMS == 4u ? vec4(unpack_halves(w.z, type), unpack_halves(w.w, type)) : a;
    bool whole = i + 2u * ITEMS <= end;
    if (whole) {
        STORE4(dst, i, a);
        if (ITEMS == 4u)
            STORE4(dst, i + 4u, b);
    }
    for (uint j = i; j < end && !whole; j++)
        STORE1(dst, j, (j & 4u) == 0u ? pick(a, j & 3u) : pick(b, j & 3u));
}
