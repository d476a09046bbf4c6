#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

// a and d may be one buffer: every element is written by the invocation that read it.
READ(0, a);
READ(1, b);
READ(2, w);
WRITE(3, d);
layout(set = 0, binding = 4, std430) writeonly buffer Out { float result[]; };
layout(push_constant) uniform Push { uint rows, cols, weighted, difference; };

void main()
{
    uint row = wg_index(), n = cols, at = row * n;
    if (row >= rows)
        return;
    uint n4 = (n & 3u) == 0u ? n : 0u; // columns done four at a time: all or none
    float weight = weighted != 0u ? LOAD1(w, row) : 1.0;
    vec4 sum4 = vec4(0.0);
    for (uint c = 4u * LANE; c < n4; c += 4u * LANES) {
        vec4 v = LOAD4(a, at + c) - LOAD4(b, at + c);
        sum4 += v * v;
        if (difference != 0u)
            STORE4(d, at + c, weight * v);
    }
    float sum = sum_of(sum4);
    for (uint c = n4 + LANE; c < n; c += LANES) {
        float v = LOAD1(a, at + c) - LOAD1(b, at + c);
        sum += v * v;
        if (difference != 0u)
            STORE1(d, at + c, weight * v);
    }
    float all = row_sum(sum);
    if (LANE == 0u)
        result[row] = weight * all;
}
