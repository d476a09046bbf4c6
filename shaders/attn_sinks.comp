#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer Out { float heads_out[]; };
layout(set = 0, binding = 1, std430) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 2, std430) readonly buffer Sinks { float sinks[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Sum { float sum[]; };
layout(push_constant) uniform Push { uint rows, heads, dim; };

void main()
{
    uint i = item_index();
    if (i >= rows * heads * dim)
        return;
    uint head = i / dim; // counts through all rows
    float sink = sinks[head % heads], all = lse[head], more = sink - all;
    heads_out[i] /= 1.0 + exp(more);
    if (i % dim == 0u)
        sum[head] = max(sink, all) + log(1.0 + exp(-abs(more)));
}
