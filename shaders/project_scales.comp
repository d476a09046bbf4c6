#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) buffer Scales { float scales[]; };
layout(push_constant) uniform Push
{
    uint rows, groups, offsets, per_super, first, count;
    int lo, hi, offset_hi;
    float centre;
};

// Groups of a super-block, at most.
const uint MOST = SUPER_GROUPS_MAX;
const float LEAST = 5.9604644775390625e-8; // of an f16

float v[MOST];

// Sum of squared errors of v as step times integers in [low, high]; next: the step that is best for these integers.
float error_of(float step, uint n, float low, float high, out float next)
{
    float error = 0.0, kv = 0.0, kk = 0.0, inverse = 1.0 / step;
    for (uint i = 0u; i < n; i++) {
        float k = clamp(roundEven(v[i] * inverse), low, high);
        float d = v[i] - step * k;
        error += d * d;
        kv += k * v[i];
        kk += k * k;
    }
    next = kk > 0.0 ? kv / kk : step;
    return error;
}

float as_step(float s)
{
    return storable_scale(s, STORED_F16);
}

// v becomes the nearest d * integers with an f16 d, which makes any of low .. high of the largest of them, or what is best
// for the integers that this gives. What is of that form already stays as it is.
void project(uint n, int low, int high)
{
    float largest = 0.0;
    for (uint i = 0u; i < n; i++)
        largest = abs(v[i]) > abs(largest) ? v[i] : largest;
    float unit = abs(largest); // errors are shares of this: no square leaves its range
    if (!(unit >= 0.5 * LEAST)) {
        for (uint i = 0u; i < n; i++)
            v[i] = 0.0;
        return;
    }
    float best = 3.0e38, step = as_step(largest / float(high));
    float scale = 1.0 / unit;
    for (int k = low; k <= high; k++) {
        if (k == 0)
            continue;
        float d = as_step(largest / float(k)), next, more;
        float error = error_of(d, n, float(low), float(high), next) * scale * scale;
        if (error < best) {
            best = error;
            step = d;
        }
        d = as_step(next);
        error = error_of(d, n, float(low), float(high), more) * scale * scale;
        if (d != 0.0 && error < best) {
            best = error;
            step = d;
        }
    }
    for (uint i = 0u; i < n; i++)
        v[i] = step * clamp(roundEven(v[i] / step), float(low), float(high));
}

// One invocation per (row, super-block).
void main()
{
    uint unit = item_index();
    if (unit >= rows * count)
        return;
    uint row = unit / count;
    uint g = (first + unit % count) * per_super;
    uint n = min(min(per_super, groups - g), MOST);
    uint place = scale_place(row, g, groups, offsets);
    float middle[MOST]; // of the levels, which the new scales leave where it is as far as offsets can
    for (uint i = 0u; i < n; i++) {
        v[i] = scales[place + i];
        middle[i] = v[i];
    }
    project(n, lo, hi);
    for (uint i = 0u; i < n; i++) {
        scales[place + i] = v[i];
        middle[i] = centre * (middle[i] - v[i]);
    }
    if (offsets == 0u)
        return;
    for (uint i = 0u; i < n; i++)
        v[i] = max(-(scales[place + groups + i] + middle[i]), 0.0);
    project(n, 0, offset_hi);
    for (uint i = 0u; i < n; i++)
        scales[place + groups + i] = v[i] == 0.0 ? 0.0 : -v[i];
}
