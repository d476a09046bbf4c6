#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

READ(0, a);
READ(1, b);
layout(set = 0, binding = 2, std430) writeonly buffer Out { float result[]; };
layout(push_constant) uniform Push { uint rows, cols; };

void main()
{
    uint row = wg_index(), n = cols, begin = row * n, end = rows * n;
    if (row >= rows)
        return;
    vec4 sum = vec4(0.0);
    EACH_FOUR(t, begin, n)
        sum += of_row(FOUR_TO(a, t, end) * FOUR_TO(b, t, end), 4u * t - begin, n, 0.0);
    float all = row_sum(sum_of(sum));
    if (LANE == 0u)
        result[row] = all;
}
