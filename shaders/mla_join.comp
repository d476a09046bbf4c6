#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer K { float k[]; };
layout(set = 0, binding = 1, std430) readonly buffer V { float v[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Kv { float kv[]; };
layout(push_constant) uniform Push { uint heads, nope, values, rank; };

void main()
{
    uint i = item_index(), each = nope + values;
    if (i >= heads * each * rank)
        return;
    uint col = i % rank, row = i / rank, head = row / each, at = row % each;
    kv[i] = at < nope ? k[(head * rank + col) * nope + at] : v[(head * values + at - nope) * rank + col];
}
