#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "reduce.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Grad { float grad[]; };
layout(set = 0, binding = 1, std430) readonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 2, std430) buffer Dscales { float dscales[]; };
layout(push_constant) uniform Push { uint rows, cols, group, groups, ldc, offsets; };

// One workgroup per (row, group).
void main()
{
    uint unit = wg_index();
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, cols);
    float sum = 0.0, total = 0.0;
    for (uint col = begin + gl_LocalInvocationID.x; col < end; col += gl_WorkGroupSize.x) {
        float g = grad[row * cols + col];
        sum += g * float(code_at(codes[row * ldc + col / 4u], col % 4u));
        total += g;
    }
    sum = wg_sum(sum);
    if (offsets != 0u)
        total = wg_sum(total);
    if (gl_LocalInvocationID.x == 0u) {
        uint place = scale_place(row, unit % groups, groups, offsets);
        dscales[place] += sum;
        if (offsets != 0u)
            dscales[place + groups] += total;
    }
}
