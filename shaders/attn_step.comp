#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

// One query of each window, which sees positions 0 .. at. Scores of all positions lie in shared memory; each invocation has every
// LANES-th of them, then every LANES-th dimension.

READ(0, q);
READ(1, keys);
READ(2, values);
layout(set = 0, binding = 3, std430) writeonly buffer Out { float result[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Lse { float lse[]; };
layout(push_constant) uniform Push { uint windows, at, heads, kv_heads, dim, sliding; float scale, cap; };

const float LOWEST = -1e30;

shared float scores[ATTN_STEP_MAX];

void main()
{
    uint row = wg_index(), head = row % heads, window = row / heads;
    if (window >= windows)
        return;
    uint key = head / (heads / kv_heads), stride = windows * kv_heads * dim, base = (window * kv_heads + key) * dim;
    uint first = sliding != 0u && at + 1u > sliding ? at + 1u - sliding : 0u;
    float top = LOWEST;
    for (uint j = first + LANE; j <= at; j += LANES) {
        float s = 0.0;
        for (uint d = 0u; d < dim; d++)
            s += LOAD1(q, row * dim + d) * LOAD1(keys, j * stride + base + d);
        s *= scale;
        if (cap > 0.0)
            s = cap * tanh(s / cap);
        scores[j] = s;
        top = max(top, s);
    }
    top = row_max(top);
    float part = 0.0;
    for (uint j = first + LANE; j <= at; j += LANES) {
        float p = exp(scores[j] - top);
        scores[j] = p;
        part += p;
    }
    float sum = row_sum(part);
    barrier();
    for (uint d = LANE; d < dim; d += LANES) {
        float v = 0.0;
        for (uint j = first; j <= at; j++)
            v += scores[j] * LOAD1(values, j * stride + base + d);
        result[row * dim + d] = v / sum;
    }
    if (LANE == 0u)
        lse[row] = top + log(sum);
}
