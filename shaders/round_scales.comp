#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) buffer Scales { float scales[]; };
layout(push_constant) uniform Push { uint n, scale_type; };

void main()
{
    uint i = item_index();
    if (i < n)
        scales[i] = storable_scale(scales[i], scale_type);
}
