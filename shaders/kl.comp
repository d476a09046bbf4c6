#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

READ(0, ref);
READ(1, logits);
layout(set = 0, binding = 2, std430) writeonly buffer Out { float kl[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Top1 { float top1[]; };
layout(push_constant) uniform Push { uint rows, cols; };

const float LOWEST = -1e30;
const uint NONE = 0xffffffffu;

void keep_largest(vec4 v, uint c, uint n, inout float top, inout uint at)
{
    for (uint e = 0u; e < 4u; e++) {
        bool better = c + e < n && (v[e] > top || at == NONE);
        top = better ? v[e] : top;
        at = better ? c + e : at;
    }
}

// In the log domain: kl = sum p * ((ref - lse(ref)) - (logits - lse(logits))), with both logits relative to their maxima.
void main()
{
    uint row = wg_index(), n = cols, begin = row * n, end = rows * n;
    if (row >= rows)
        return;
    float top_p = LOWEST, top_q = LOWEST;
    uint at_p = NONE, at_q = NONE;
    EACH_FOUR(t, begin, n) {
        keep_largest(FOUR_TO(ref, t, end), 4u * t - begin, n, top_p, at_p);
        keep_largest(FOUR_TO(logits, t, end), 4u * t - begin, n, top_q, at_q);
    }
    row_argmax(top_p, at_p);
    row_argmax(top_q, at_q);

    vec4 p = vec4(0.0), q = vec4(0.0);
    EACH_FOUR(t, begin, n) {
        p += exp(of_row(FOUR_TO(ref, t, end), 4u * t - begin, n, LOWEST) - top_p);
        q += exp(of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST) - top_q);
    }
    float sum_p = row_sum(sum_of(p));
    float gap = log(row_sum(sum_of(q))) - log(sum_p);

    p = vec4(0.0);
    EACH_FOUR(t, begin, n) {
        vec4 lp = of_row(FOUR_TO(ref, t, end), 4u * t - begin, n, LOWEST) - top_p;
        vec4 w = exp(lp), d = lp - (of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST) - top_q) + gap;
        // What has no weight adds nothing, whatever d is.
        p += vec4(w.x > 0.0 && lp.x > -1e29 ? w.x * d.x : 0.0, w.y > 0.0 && lp.y > -1e29 ? w.y * d.y : 0.0,
                  w.z > 0.0 && lp.z > -1e29 ? w.z * d.z : 0.0, w.w > 0.0 && lp.w > -1e29 ? w.w * d.w : 0.0);
    }
    float sum = row_sum(sum_of(p)) / sum_p;
    if (LANE == 0u) {
        kl[row] = sum;
        top1[row] = at_p == at_q ? 1.0 : 0.0;
    }
}
