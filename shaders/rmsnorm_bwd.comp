#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

// dy and dx may be one buffer: every element is written by the invocation that read it, after the row's sums are known.
READ(0, x);
READ(1, w);
READ(2, dy);
WRITE(3, dx);
layout(push_constant) uniform Push { uint rows, cols; float eps; };

void main()
{
    uint row = wg_index(), n = cols, at = row * n;
    if (row >= rows)
        return;
    uint n4 = (n & 3u) == 0u ? n : 0u; // columns done four at a time: all or none
    vec4 square4 = vec4(0.0), product4 = vec4(0.0);
    for (uint c = 4u * LANE; c < n4; c += 4u * LANES) {
        vec4 v = LOAD4(x, at + c);
        square4 += v * v;
        product4 += LOAD4(w, c) * LOAD4(dy, at + c) * v;
    }
    float square = sum_of(square4), product = sum_of(product4);
    for (uint c = n4 + LANE; c < n; c += LANES) {
        float v = LOAD1(x, at + c);
        square += v * v;
        product += LOAD1(w, c) * LOAD1(dy, at + c) * v;
    }
    float r = 1.0 / sqrt(row_sum(square) / float(n) + eps);
    float along = r * r * r / float(n) * row_sum(product);
    for (uint c = 4u * LANE; c < n4; c += 4u * LANES)
        STORE4(dx, at + c, r * LOAD4(w, c) * LOAD4(dy, at + c) - along * LOAD4(x, at + c));
    for (uint c = n4 + LANE; c < n; c += LANES)
        STORE1(dx, at + c, r * LOAD1(w, c) * LOAD1(dy, at + c) - along * LOAD1(x, at + c));
}
