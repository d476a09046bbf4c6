#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 1, std430) readonly buffer Weights { float weights[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Scales { float scales[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, ldw, col0, col1, group, groups;
    int lo, hi;
    uint candidates;
    float power;
    uint scale_type, weighted, offsets;
    GRID_PUSH
};

// docs/method.md 1: base = max|w| / ((hi - lo) / 2), candidates +-(1 - i/100) base. Errors are measured on w / base, so that
// neither tiny nor huge weights leave the range of the power. Below this base a group counts as zero.
const float LEAST_BASE = 1.17549435e-38;
const float INFINITE = 3.0e38;

struct candidate {
    float s;       // rounded to what is stored
    float inverse; // base / s
    float unit;    // |s / base|^power: what an error of one scale counts
};

candidate make_candidate(float base, uint i, bool negative)
{
    candidate c;
    float s = base * (1.0 - 0.01 * float(i));
    float stored = storable_scale(s, scale_type);
#ifdef LEVEL_TABLE
    if (scale_type >= STORED_E8M0) // steps that are too large to be passed over
        s = stored;
#endif
    c.s = negative ? -stored : stored;
    c.inverse = (negative ? -base : base) / s;
    c.unit = exp2(power * log2(s / base));
    return c;
}

#ifdef LANE_PER_GROUP
// x^p for x >= 0 within 2e-5, relative: log2 and exp2 as short polynomials, nearly minimax and exact at the ends of an
// octave, on top of what the bits of a float already are, 2^23 (127 + exponent + mantissa). Cheaper than a CPU device's own.
// (Within 3e-4 was not enough: near ties fell the wrong way often enough to move perplexities by 2 %.)
float power_of(float x, float p)
{
    uint bits = floatBitsToUint(x);
    float t = uintBitsToFloat((bits & 0x7fffffu) | 0x3f800000u) - 1.0;
    float bend = fma(fma(fma(fma(0.0262730509, t, -0.0983876166), t, 0.1848622324), t, -0.2767283341), t, 0.4426594388);
    float log2_x = fma(fma(-t, t, t), bend, fma(float(int(bits)), 1.0 / 8388608.0, -127.0));
    float y = clamp(fma(p, log2_x, 127.0), 1.0, 254.0);
    float f = y - floor(y);
    float z = fma(fma(-f, f, f), fma(fma(-0.0137113518, f, -0.0656114918), f, -0.3069104566), y);
    return uintBitsToFloat(uint(int(z * 8388608.0)));
}
#else
float power_of(float x, float p)
{
    return exp2(p * log2(max(x, 1.0e-30)));
}
#endif

// To the power, in units of the scale.
float candidate_error(candidate c, float x)
{
    float position = x * c.inverse;
    return power_of(abs(nearest_level(position, GRID) - position), power);
}

#ifdef LANE_PER_GROUP
// One lane per group, BATCH candidates at a time so that a weight is loaded once for all of them.
const uint BATCH = 16u;
const uint STRIDE = 16u; // columns between looks at whether the batch can still win

void main()
{
    uint g0 = (col0 + group - 1u) / group;
    uint n = (col1 + group - 1u) / group - g0;
    uint unit = item_index();
    if (unit >= rows * n)
        return;
    uint row = unit / n;
    uint g = g0 + unit % n;
    uint begin = row * ldw + g * group;
    uint end = row * ldw + min((g + 1u) * group, cols);

    float most = 0.0;
    for (uint at = begin; at < end; at++)
        most = max(most, abs(w[at]));
    float base = most / (0.5 * float(hi - lo));
    if (!(base >= LEAST_BASE)) {
        scales[scale_place(row, g, groups, offsets)] = 0.0;
        return;
    }
    float to_base = 1.0 / base;

    float best = INFINITE;
    float best_scale = storable_scale(base, scale_type);
    // On a grid that is its own mirror image the negative candidates are the positive ones again.
    uint signs = lo == -hi ? 1u : 2u;
    for (uint first = 0u; first < candidates; first += BATCH) {
        for (uint negative = 0u; negative < signs; negative++) {
            candidate c[BATCH];
            float sum[BATCH];
            [[unroll]] for (uint k = 0u; k < BATCH; k++) {
                c[k] = make_candidate(base, min(first + k, candidates - 1u), negative != 0u);
                sum[k] = 0.0;
            }
            for (uint at = begin; at < end;) {
                uint stop = min(at + STRIDE, end);
                for (; at < stop; at++) {
                    float x = w[at] * to_base;
                    float weight = weighted != 0u ? weights[at - row * ldw] : 1.0;
                    [[unroll]] for (uint k = 0u; k < BATCH; k++)
                        sum[k] += weight * candidate_error(c[k], x);
                }
                float least = INFINITE;
                [[unroll]] for (uint k = 0u; k < BATCH; k++)
                    least = min(least, sum[k] * c[k].unit);
                if (least >= best)
                    break;
            }
            [[unroll]] for (uint k = 0u; k < BATCH; k++) {
                best_scale = sum[k] * c[k].unit < best ? c[k].s : best_scale;
                best = min(best, sum[k] * c[k].unit);
            }
        }
    }
    scales[scale_place(row, g, groups, offsets)] = best_scale;
}

#else
// One workgroup per group: lanes hold SLOTS candidates each and walk the group, kept in shared memory a tile at a time.
const uint SLOTS = 5u;
const uint TILE = 256u;
const uint LANES = gl_WorkGroupSize.x;
shared vec2 tile[TILE]; // a weight and what its error counts
shared float lane_error[LANES];
shared uint lane_pick[LANES];

void main()
{
    uint g0 = (col0 + group - 1u) / group;
    uint n = (col1 + group - 1u) / group - g0;
    uint lane = gl_LocalInvocationID.x;
    uint unit = wg_index();
    if (unit >= rows * n)
        return;
    uint row = unit / n;
    uint g = g0 + unit % n;
    uint begin = row * ldw + g * group;
    uint end = row * ldw + min((g + 1u) * group, cols);

    float most = 0.0;
    for (uint at = begin + lane; at < end; at += LANES)
        most = max(most, abs(w[at]));
    lane_error[lane] = most;
    barrier();
    most = 0.0;
    for (uint k = 0u; k < LANES; k++)
        most = max(most, lane_error[k]);
    float base = most / (0.5 * float(hi - lo));
    if (!(base >= LEAST_BASE)) {
        if (lane == 0u)
            scales[scale_place(row, g, groups, offsets)] = 0.0;
        return;
    }
    float to_base = 1.0 / base;

    float best = INFINITE;
    uint pick = 0u;
    // Candidate number = 2 i + sign; on a grid that is its own mirror image the negative ones are left out.
    uint signs = lo == -hi ? 1u : 2u;
    uint count = candidates * signs;
    for (uint first = 0u; first < count; first += SLOTS * LANES) {
        candidate c[SLOTS];
        float sum[SLOTS];
        [[unroll]] for (uint k = 0u; k < SLOTS; k++) {
            uint id = min(first + k * LANES + lane, count - 1u);
            c[k] = make_candidate(base, id / signs, id % signs != 0u);
            sum[k] = 0.0;
        }
        for (uint at = begin; at < end; at += TILE) {
            barrier();
            for (uint k = lane; k < TILE && at + k < end; k += LANES)
                tile[k] = vec2(w[at + k] * to_base, weighted != 0u ? weights[at + k - row * ldw] : 1.0);
            barrier();
            uint filled = min(end - at, TILE);
            for (uint j = 0u; j < filled; j++) {
                vec2 x = tile[j];
                [[unroll]] for (uint k = 0u; k < SLOTS; k++)
                    sum[k] += x.y * candidate_error(c[k], x.x);
            }
        }
        [[unroll]] for (uint k = 0u; k < SLOTS; k++) {
            float error = sum[k] * c[k].unit;
            pick = error < best ? min(first + k * LANES + lane, count - 1u) : pick;
            best = min(best, error);
        }
    }
    barrier();
    lane_error[lane] = best;
    lane_pick[lane] = pick;
    barrier();
    if (lane == 0u) {
        // Ties go to the smaller number, whatever the workgroup size.
        for (uint k = 1u; k < LANES; k++)
            if (lane_error[k] < best || (lane_error[k] == best && lane_pick[k] < pick)) {
                best = lane_error[k];
                pick = lane_pick[k];
            }
        scales[scale_place(row, g, groups, offsets)] = make_candidate(base, pick / signs, pick % signs != 0u).s;
    }
}
#endif
