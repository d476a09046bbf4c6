#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"
#include "noise.glsl"

// logits and dlogits may be one buffer, as in kl_bwd.
READ(0, logits);
WRITE(1, dlogits);
layout(push_constant) uniform Push { uint rows, cols; float factor; uint row0, seed; };

const float LOWEST = -1e30;
const float LOG2E = 1.44269504089;

// The likeliest of logits with Gumbel noise is a sample of their softmax.
float noisy(float logit, uint row, uint col)
{
    return logit * LOG2E + gumbel_log2(uniform_of(pcg4d(uvec4(row, col, 0u, seed)).x));
}

void main()
{
    uint row = wg_index(), n = cols, begin = row * n, end = rows * n;
    if (row >= rows)
        return;
    float top = LOWEST, best = LOWEST;
    uint label = 0u;
    EACH_FOUR(t, begin, n) {
        vec4 v = FOUR_TO(logits, t, end);
        for (uint e = 0u; e < 4u; e++) {
            uint c = 4u * t + e - begin;
            if (c >= n)
                continue;
            float l = pick(v, e), with_noise = noisy(l, row0 + row, c);
            top = max(top, l);
            if (with_noise > best) {
                best = with_noise;
                label = c;
            }
        }
    }
    top = row_max(top);
    row_argmax(best, label);
    vec4 s = vec4(0.0);
    EACH_FOUR(t, begin, n)
        s += exp(of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST) - top);
    float scale = factor / row_sum(sum_of(s));

    EACH_FOUR(t, begin, n) {
        vec4 d = exp(FOUR_TO(logits, t, end) - top) * scale;
        uint c = 4u * t - begin;
        bool whole = c < n && c + 3u < n;
        if (label - c < 4u)
            d[label - c] -= factor;
        if (whole)
            STORE4(dlogits, 4u * t, d);
        for (uint e = whole ? 4u : 0u; e < 4u; e++)
            if (c + e < n)
                STORE1(dlogits, 4u * t + e, pick(d, e));
    }
}
