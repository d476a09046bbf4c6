#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer G { float g[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, dim; };

void main()
{
    uint i = item_index();
    if (i >= rows * dim)
        return;
    y[i] = x[i] / (1.0 + exp(-g[(i / dim * 2u + 1u) * dim + i % dim]));
}
