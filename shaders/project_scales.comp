#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) buffer Scales { float scales[]; };
layout(set = 0, binding = 1, std430) writeonly buffer D { float d[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Integers { float integers[]; };
layout(push_constant) uniform Push
{
    uint rows, groups, offsets, per_super, first, count;
    int lo, hi, offset_hi;
    float centre;
};

// Groups of a super-block, at most.
const uint MOST = SUPER_GROUPS_MAX;
const float LEAST = 5.9604644775390625e-8; // of an f16

float v[MOST], integer[MOST];

// Sum of squared errors of v as d times integers in [low, high]; next: the d that is best for these integers.
float error_of(float d, uint n, float low, float high, out float next)
{
    float error = 0.0, kv = 0.0, kk = 0.0, inverse = 1.0 / d;
    for (uint i = 0u; i < n; i++) {
        float k = clamp(roundEven(v[i] * inverse), low, high);
        float off = v[i] - d * k;
        error += off * off;
        kv += k * v[i];
        kk += k * k;
    }
    next = kk > 0.0 ? kv / kk : d;
    return error;
}

float half_scale(float s)
{
    return storable_scale(s, STORED_F16);
}

float multiplied(float d, float k)
{
    return k == 0.0 ? 0.0 : d * k;
}

// v becomes the nearest d * integers, whose f16 d is returned: what makes any of low .. high of the largest of v, or what is best for
// the integers that this gives. Of equals the first counts, and the largest integers come first: low is 0 or -high - 1.
float nearest(uint n, int low, int high)
{
    float largest = 0.0;
    for (uint i = 0u; i < n; i++)
        largest = abs(v[i]) > abs(largest) ? v[i] : largest;
    float unit = abs(largest); // errors are shares of this: no square leaves its range
    bool zero = !(unit >= 0.5 * LEAST);
    float best = 3.0e38, found = half_scale(largest / float(high));
    float scale = 1.0 / unit;
    for (int i = 0; i < high - low && best > 0.0 && !zero; i++) {
        int k = low == 0 ? high - i : (i & 1) == 1 ? high - i / 2 : low + i / 2;
        float d = half_scale(largest / float(k)), next, more;
        float error = error_of(d, n, float(low), float(high), next) * scale * scale;
        if (error < best) {
            best = error;
            found = d;
        }
        d = half_scale(next);
        error = error_of(d, n, float(low), float(high), more) * scale * scale;
        if (d != 0.0 && error < best) {
            best = error;
            found = d;
        }
    }
    bool any = false;
    for (uint i = 0u; i < n; i++) {
        integer[i] = zero ? 0.0 : clamp(roundEven(v[i] / found), float(low), float(high));
        v[i] = multiplied(found, integer[i]);
        any = any || v[i] != 0.0;
    }
    return any ? found : 0.0;
}

// The same. The second turn changes no product, but where several d give them it takes that of the largest integers: equal scales
// are then equal bytes, and what is projected already stays.
float project(uint n, int low, int high)
{
    float found = 0.0;
    for (int turn = 0; turn < 2; turn++)
        found = nearest(n, low, high);
    return found;
}

// One invocation per (row, super-block).
void main()
{
    uint unit = item_index();
    if (unit >= rows * count)
        return;
    uint row = unit / count, super = first + unit % count, supers = (groups + per_super - 1u) / per_super;
    uint g = super * per_super;
    uint n = min(min(per_super, groups - g), MOST);
    uint place = scale_place(row, g, groups, offsets), at = scale_place(row, super, supers, offsets);
    float middle[MOST]; // of the levels, which the new scales leave where it is as far as offsets can
    for (uint i = 0u; i < n; i++) {
        v[i] = scales[place + i];
        middle[i] = v[i];
    }
    d[at] = project(n, lo, hi);
    for (uint i = 0u; i < n; i++) {
        integers[place + i] = integer[i];
        scales[place + i] = v[i];
        middle[i] = centre * (middle[i] - v[i]);
    }
    if (offsets == 0u)
        return;
    for (uint i = 0u; i < n; i++)
        v[i] = max(-(scales[place + groups + i] + middle[i]), 0.0);
    d[at + supers] = 0.0 - project(n, 0, offset_hi);
    for (uint i = 0u; i < n; i++) {
        integers[place + groups + i] = integer[i];
        scales[place + groups + i] = 0.0 - v[i];
    }
}
