#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"
#include "gumbel_step.glsl"

layout(set = 0, binding = 0, std430) readonly buffer OldLogits { float old_logits[]; };
layout(set = 0, binding = 1, std430) readonly buffer OldMom { float old_mom[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Logits { float logits[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Mom { float mom[]; };
layout(set = 0, binding = 4, std430) buffer Scales { float scales[]; };
layout(set = 0, binding = 5, std430) buffer Smom { float smom[]; };
layout(set = 0, binding = 6, std430) readonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 7, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 8, std430) readonly buffer Grad { float grad[]; };
layout(set = 0, binding = 9, std430) buffer Diff { float diff[]; };

shared float partial[gl_WorkGroupSize.x];
shared float totals[gl_WorkGroupSize.x];

// One workgroup per (row, group).
void main()
{
    uint unit = wg_index();
    uint lane = gl_LocalInvocationID.x;
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, cols);
    uint place = scale_place(row, unit % groups, groups, offsets), behind = place + groups * offsets;
    float s = scales[place], o = offsets != 0u ? scales[behind] : 0.0;
    float m = smom[place], mo = smom[behind];
    float sum = 0.0, total = 0.0, z = centre();
    for (uint col = begin + lane; col < end; col += gl_WorkGroupSize.x) {
        uint at = row * levels * cols + col; // of level 0 in [rows, levels, cols]
        float g = grad[row * cols + col];
        levels_of lv = find_levels(levels, relative, lo, hi, code_at(codes[row * ldc + col / 4u], col % 4u));
        float l[LEVELS], lm[LEVELS], next;
        [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
            l[k] = k < levels ? old_logits[at + k * cols] : 0.0;
            lm[k] = k < levels ? old_mom[at + k * cols] : 0.0;
        }
        sum += g * (step_weight(lv, element_number(row0 + row, cols, col), s, g, l, lm, next) - z);
        total += g;
        [[unroll]] for (uint k = 0u; k < LEVELS; k++)
            if (lv.valid[k]) {
                logits[at + k * cols] = l[k];
                mom[at + k * cols] = lm[k];
            }
        diff[row * cols + col] = next;
    }
    partial[lane] = sum;
    totals[lane] = total;
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        barrier();
        if (lane < half_size) {
            partial[lane] += partial[lane + half_size];
            totals[lane] += totals[lane + half_size];
        }
    }
    barrier();
    // Every lane takes the same step from the same sums.
    step_group(s, o, m, mo, partial[0], totals[0]);
    if (lane == 0u) {
        scales[place] = s;
        smom[place] = m;
        if (offsets != 0u) {
            scales[behind] = o;
            smom[behind] = mo;
        }
    }
    for (uint col = begin + lane; col < end; col += gl_WorkGroupSize.x) {
        uint at = row * cols + col;
        diff[at] = from_origin(s * diff[at] + o, origin, w[at]);
    }
}
