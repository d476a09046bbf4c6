#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 1, std430) readonly buffer Weights { float weights[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Scales { float scales[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, ldw, col0, col1, group, groups;
    int lo, hi;
    uint weighted;
};

// Candidates: each end of the span drawn in by 0 .. SHRINKS-1 such shares of it.
const uint SHRINKS = 8u;
const float SHRINK_STEP = 0.07;
// Of the group's weights, how many there may be. They are kept at hand as shares of the span, so that neither tiny nor
// huge ones leave the range of squares.
const uint MOST = AFFINE_GROUP_MAX;
// Below this span a group counts as constant.
const float LEAST_SPAN = 1.17549435e-38;

// Where they are kept: GPUs put a private array that is indexed at run time into memory, or spill.
#ifdef PRIVATE_GROUP
float group_x[MOST];
#define X(i) group_x[i]
#else
shared float group_x[MOST * gl_WorkGroupSize.x];
#define X(i) group_x[(i) * gl_WorkGroupSize.x + gl_LocalInvocationID.x]
#endif

float cost_of(uint column)
{
    return weighted != 0u ? weights[column] : 1.0;
}

float level_of(float v, float s, float o)
{
    return clamp(roundEven((v - o) * inverse_scale(s)), float(lo), float(hi));
}

// The best scale and offset for the levels that (s, o) gives; o is at most 0.
void refit(inout float s, inout float o, uint first, uint n)
{
    float sum = 0.0, c1 = 0.0, x1 = 0.0, cc = 0.0, cx = 0.0;
    float z = 0.5 * float(lo + hi); // levels from the middle: less is lost in the differences below
    for (uint i = 0u; i < n; i++) {
        float v = X(i), c = level_of(v, s, o) - z, k = cost_of(first + i);
        sum += k;
        c1 += k * c;
        x1 += k * v;
        cc += k * c * c;
        cx += k * c * v;
    }
    float det = sum * cc - c1 * c1;
    if (!(det > 1.0e-6 * sum * sum))
        return; // all of one level
    float new_s = (sum * cx - c1 * x1) / det;
    float new_o = (x1 - new_s * c1) / sum - new_s * z;
    if (new_o > 0.0) { // the scale alone
        float square = cc + 2.0 * z * c1 + z * z * sum;
        new_s = (cx + z * x1) / square;
        new_o = 0.0;
    }
    if (new_s > 0.0) {
        s = new_s;
        o = new_o;
    }
}

// One invocation per (row, group).
void main()
{
    uint g0 = (col0 + group - 1u) / group;
    uint n_groups = (col1 + group - 1u) / group - g0;
    uint unit = item_index();
    if (unit >= rows * n_groups)
        return;
    uint row = unit / n_groups;
    uint g = g0 + unit % n_groups;
    uint first = g * group;
    uint n = min(min(group, cols - first), MOST);
    uint place = scale_place(row, g, groups, 1u);

    float least = 0.0, most = -3.0e38;
    for (uint i = 0u; i < n; i++) {
        float v = w[row * ldw + first + i];
        X(i) = v;
        least = min(least, v);
        most = max(most, v);
    }
    float span = most - least;
    if (!(span >= LEAST_SPAN)) {
        scales[place] = 0.0;
        scales[place + groups] = least;
        return;
    }
    float to_span = 1.0 / span;
    for (uint i = 0u; i < n; i++)
        X(i) *= to_span;
    least *= to_span;

    float best = 3.0e38, best_s = 0.0, best_o = 0.0;
    for (uint k = 0u; k < SHRINKS * SHRINKS; k++) {
        float below = SHRINK_STEP * float(k / SHRINKS), above = SHRINK_STEP * float(k % SHRINKS);
        float s = (1.0 - below - above) / float(hi - lo);
        float o = min(least + below - float(lo) * s, 0.0);
        refit(s, o, first, n);
        float error = 0.0;
        for (uint i = 0u; i < n; i++) {
            float v = X(i), d = level_of(v, s, o) * s + o - v;
            error += cost_of(first + i) * d * d;
        }
        if (error < best) {
            best = error;
            best_s = s;
            best_o = o;
        }
    }
    scales[place] = best_s * span;
    scales[place + groups] = best_o * span;
}
