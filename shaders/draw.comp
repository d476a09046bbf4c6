#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"
#include "noise.glsl"

READ(0, logits);
layout(set = 0, binding = 1, std430) writeonly buffer Ids { uint ids[]; };
layout(push_constant) uniform Push { uint rows, cols; float factor; uint row0, step, seed; };

const float LOWEST = -1e30;
const float LOG2E = 1.44269504089;

void main()
{
    uint row = wg_index(), n = cols, begin = row * n, end = rows * n;
    if (row >= rows)
        return;
    float best = LOWEST;
    uint id = 0u;
    EACH_FOUR(t, begin, n) {
        vec4 v = FOUR_TO(logits, t, end);
        for (uint e = 0u; e < 4u; e++) {
            uint c = 4u * t + e - begin;
            if (c >= n)
                continue;
            // The likeliest of logits with Gumbel noise is a sample of their softmax.
            float g = gumbel_log2(uniform_of(pcg4d(uvec4(row0 + row, c, step, seed)).x));
            float l = pick(v, e) * LOG2E + factor * g;
            if (l > best) {
                best = l;
                id = c;
            }
        }
    }
    row_argmax(best, id);
    if (LANE == 0u)
        ids[row] = id;
}
