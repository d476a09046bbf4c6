#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rows.glsl"

// logits and dlogits may be one buffer: every element is written by the invocation that read it, after the row's sums are
// known. What it reads of other rows, in the first and the last four, does not count.
READ(0, ref);
READ(1, logits);
WRITE(2, dlogits);
layout(push_constant) uniform Push { uint rows, cols; float factor; };

const float LOWEST = -1e30;

void main()
{
    uint row = wg_index(), n = cols, begin = row * n, end = rows * n;
    if (row >= rows)
        return;
    vec4 p = vec4(LOWEST), q = vec4(LOWEST);
    EACH_FOUR(t, begin, n) {
        p = max(p, of_row(FOUR_TO(ref, t, end), 4u * t - begin, n, LOWEST));
        q = max(q, of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST));
    }
    float top_p = row_max(max_of(p)), top_q = row_max(max_of(q));

    p = q = vec4(0.0);
    EACH_FOUR(t, begin, n) {
        p += exp(of_row(FOUR_TO(ref, t, end), 4u * t - begin, n, LOWEST) - top_p);
        q += exp(of_row(FOUR_TO(logits, t, end), 4u * t - begin, n, LOWEST) - top_q);
    }
    float scale_p = factor / row_sum(sum_of(p));
    float scale_q = factor / row_sum(sum_of(q));

    EACH_FOUR(t, begin, n) {
        vec4 d = exp(FOUR_TO(logits, t, end) - top_q) * scale_q - exp(FOUR_TO(ref, t, end) - top_p) * scale_p;
        uint c = 4u * t - begin;
        bool whole = c < n && c + 3u < n;
        if (whole)
            STORE4(dlogits, 4u * t, d);
        for (uint e = whole ? 4u : 0u; e < 4u; e++)
            if (c + e < n)
                STORE1(dlogits, 4u * t + e, pick(d, e));
    }
}
