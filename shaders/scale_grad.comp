#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "lanes.glsl"

READ(0, grad);
READ_WORDS(1, codes);
layout(set = 0, binding = 2, std430) buffer Dscales { float dscales[]; };
layout(push_constant) uniform Push { uint rows, cols, group, groups, ldc, offsets; };

// Each (row, group) has an invocation on a CPU device, else a workgroup.
#ifdef CPU
#define UNIT         item_index()
#define FIRST        0u
#define STEP         1u
#define all_lanes(v) (v)
#else
#include "reduce.glsl"
#define UNIT         wg_index()
#define FIRST        LANE
#define STEP         gl_WorkGroupSize.x
#define all_lanes(v) wg_sum(v)
#endif

float sum_of(vec4 v)
{
    return v.x + v.y + (v.z + v.w);
}

// Four columns at a time where groups and rows start on fours, one where not.
void main()
{
    uint unit = UNIT, n = cols;
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, n);
    uint at0 = row * n, codes0 = row * ldc;
    bool four = ((n | group) & 3u) == 0u;
    vec4 sum = vec4(0.0), total = vec4(0.0);
    for (uint col = begin + 4u * FIRST; col < end && four; col += 4u * STEP) {
        uint word = LOAD1(codes, codes0 + col / 4u);
        vec4 code = vec4(code_at(word, 0u), code_at(word, 1u), code_at(word, 2u), code_at(word, 3u));
        vec4 g = LOAD4(grad, at0 + col);
        sum += g * code;
        total += g;
    }
    for (uint col = begin + FIRST; col < end && !four; col += STEP) {
        float g = LOAD1(grad, at0 + col);
        sum.x += g * float(code_at(LOAD1(codes, codes0 + col / 4u), col & 3u));
        total.x += g;
    }
    float by_code = all_lanes(sum_of(sum)), alone = offsets != 0u ? all_lanes(sum_of(total)) : 0.0;
    if (FIRST != 0u)
        return;
    uint place = scale_place(row, unit % groups, groups, offsets);
    dscales[place] += by_code;
    if (offsets != 0u)
        dscales[place + groups] += alone;
}
