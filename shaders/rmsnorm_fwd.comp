#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

// x and y may be one buffer: every element is written by the invocation that read it, after the row's sum is known.
READ(0, x);
READ(1, w);
WRITE(2, y);
layout(push_constant) uniform Push { uint rows, cols; float eps; };

void main()
{
    uint row = wg_index(), n = cols, at = row * n;
    if (row >= rows)
        return;
    uint n4 = (n & 3u) == 0u ? n : 0u; // columns done four at a time: all or none
    vec4 sum4 = vec4(0.0);
    for (uint c = 4u * LANE; c < n4; c += 4u * LANES) {
        vec4 v = LOAD4(x, at + c);
        sum4 += v * v;
    }
    float sum = sum_of(sum4);
    for (uint c = n4 + LANE; c < n; c += LANES) {
        float v = LOAD1(x, at + c);
        sum += v * v;
    }
    float r = 1.0 / sqrt(row_sum(sum) / float(n) + eps);
    for (uint c = 4u * LANE; c < n4; c += 4u * LANES)
        STORE4(y, at + c, LOAD4(x, at + c) * r * LOAD4(w, c));
    for (uint c = n4 + LANE; c < n; c += LANES)
        STORE1(y, at + c, LOAD1(x, at + c) * r * LOAD1(w, c));
}
