#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

READ(0, logits);
READ_WORDS(1, target);
layout(set = 0, binding = 2, std430) writeonly buffer Out { float nll[]; };
layout(push_constant) uniform Push { uint rows, cols; };

const float LOWEST = -1e30;

void main()
{
    uint row = wg_index(), n = cols, begin = row * n, end = rows * n;
    if (row >= rows)
        return;
    vec4 v = vec4(LOWEST);
    EACH_FOUR(t, begin, n)
        v = max(v, of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST));
    float top = row_max(max_of(v));
    v = vec4(0.0);
    EACH_FOUR(t, begin, n)
        v += exp(of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST) - top);
    float sum = row_sum(sum_of(v));
    float hit = LOAD1(logits, begin + min(LOAD1(target, row), n - 1u));
    if (LANE == 0u)
        nll[row] = log(sum) - (hit - top);
}
