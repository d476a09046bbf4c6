#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Ref { float ref[]; };
layout(set = 0, binding = 1, std430) readonly buffer Logits { float logits[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Out { float kl[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Top1 { float top1[]; };
layout(push_constant) uniform Push { uint rows, cols; };

const float LOWEST = -3.402823466e38;

// In the log domain: kl = sum p * ((ref - lse(ref)) - (logits - lse(logits))), with both logits relative to their maxima.
void main()
{
    uint row = wg_index();
    if (row >= rows)
        return;
    float top_p = LOWEST, top_q = LOWEST;
    uint at_p = 0xffffffffu, at_q = 0xffffffffu;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        float p = ref[row * cols + c], q = logits[row * cols + c];
        if (p > top_p || at_p == 0xffffffffu) {
            top_p = p;
            at_p = c;
        }
        if (q > top_q || at_q == 0xffffffffu) {
            top_q = q;
            at_q = c;
        }
    }
    wg_argmax(top_p, at_p);
    wg_argmax(top_q, at_q);

    float sum_p = 0.0, sum_q = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        sum_p += exp(ref[row * cols + c] - top_p);
        sum_q += exp(logits[row * cols + c] - top_q);
    }
    sum_p = wg_sum(sum_p);
    sum_q = wg_sum(sum_q);

    float gap = log(sum_q) - log(sum_p);
    float sum = 0.0;
    for (uint c = gl_LocalInvocationID.x; c < cols; c += gl_WorkGroupSize.x) {
        float lp = ref[row * cols + c] - top_p;
        float p = exp(lp);
        if (p > 0.0)
            sum += p * (lp - (logits[row * cols + c] - top_q) + gap);
    }
    sum = wg_sum(sum) / sum_p;
    if (gl_LocalInvocationID.x == 0u) {
        kl[row] = sum;
        top1[row] = at_p == at_q ? 1.0 : 0.0;
    }
}
