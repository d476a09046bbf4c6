#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "delta.glsl"

// x and y may be one buffer: every element is written by the invocation that read it, after the head's sum is known.
layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 2, std430) readonly buffer Z { float z[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, heads, kv_heads, dim, values, lds, grouped; float eps; };

void main()
{
    uint row = wg_index() / heads, head = wg_index() % heads, at = wg_index() * values;
    if (row >= rows)
        return;
    float sum = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < values; c += gl_WorkGroupSize.x)
        sum += x[at + c] * x[at + c];
    float r = 1.0 / sqrt(wg_sum(sum) / float(values) + eps);
    uint gate = head * values, from = row * lds + (grouped != 0u ? grouped_gate(gate, dim, heads / kv_heads * values) : gate);
    for (uint c = gl_LocalInvocationID.x; c < values; c += gl_WorkGroupSize.x) {
        float g = z[from + c];
        y[at + c] = x[at + c] * r * w[c] * (g / (1.0 + exp(-g)));
    }
}
