#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

READ(0, x);
layout(set = 0, binding = 1, std430) buffer Out { float result[]; };
layout(push_constant) uniform Push { uint n, at; float factor; };

// Four t, without what is past the end.
vec4 load(uint t, uint end)
{
    return of_row(FOUR_TO(x, min(t, (end - 1u) >> 2), end), 4u * t, end, 0.0);
}

// One workgroup. Each invocation's sums keep what their additions lose (Kahan), so that their length costs no digits; eight
// fours at a time, because lavapipe ends loops after 65535 iterations.
void main()
{
    const uint s = LANES;
    uint end = n;
    precise vec4 sum = vec4(0.0), lost = vec4(0.0);
    for (uint t = LANE; 4u * t < end; t += 8u * s) {
        vec4 low = load(t, end) + load(t + s, end) + (load(t + 2u * s, end) + load(t + 3u * s, end));
        vec4 high = load(t + 4u * s, end) + load(t + 5u * s, end) + (load(t + 6u * s, end) + load(t + 7u * s, end));
        precise vec4 v = low + high - lost;
        precise vec4 next = sum + v;
        lost = next - sum - v;
        sum = next;
    }
    float all = row_sum(sum.x + sum.y + (sum.z + sum.w));
    if (wg_index() == 0u && LANE == 0u)
        result[at] += factor * all;
}
