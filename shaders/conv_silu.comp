#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "delta.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, cols, lds, ctx, taps, heads, dim, values, grouped; };

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    uint row = i / cols, c = i % cols, from = grouped != 0u ? grouped_channel(c, heads, dim, values) : c;
    uint before = min(taps - 1u, row % ctx); // rows of the window that the convolution reaches back to
    float sum = 0.0;
    for (uint t = taps - 1u - before; t < taps; t++)
        sum += w[c * taps + t] * x[(row + t + 1u - taps) * lds + from];
    y[i] = sum / (1.0 + exp(-sum));
}
