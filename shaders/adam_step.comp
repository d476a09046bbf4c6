#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer Param { float param[]; };
layout(set = 0, binding = 1, std430) buffer M { float m[]; };
layout(set = 0, binding = 2, std430) buffer V { float v[]; };
layout(set = 0, binding = 3, std430) readonly buffer Grad { float grad[]; };
layout(set = 0, binding = 4, std430) readonly buffer Size { float size[]; };
layout(push_constant) uniform Push { uint n; float lr, beta1, beta2, correct1, correct2, eps, decay; };

void main()
{
    uint i = item_index();
    if (i >= n)
        return;
    float g = grad[i], value = param[i];
    float mean = beta1 * m[i] + (1.0 - beta1) * g;
    float square = beta2 * v[i] + (1.0 - beta2) * g * g;
    m[i] = mean;
    v[i] = square;
    float towards = mean * correct1 / (sqrt(square * correct2) + eps);
    param[i] = value - lr * (size[i] * towards + decay * value);
}
