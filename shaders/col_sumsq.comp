#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) buffer Sums { float sums[]; };
layout(push_constant) uniform Push { uint rows, cols; };

// One invocation per column: neighbours read neighbours. The sum keeps what its additions lose (Kahan).
void main()
{
    uint c = item_index();
    if (c >= cols)
        return;
    precise float sum = 0.0, lost = 0.0;
    for (uint r = 0u; r < rows; r++) {
        float v = x[r * cols + c];
        precise float term = v * v - lost;
        precise float next = sum + term;
        lost = next - sum - term;
        sum = next;
    }
    sums[c] += sum;
}
