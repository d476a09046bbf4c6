#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"
layout(local_size_x_id = 0) in;

layout(set = 0, binding = 0, std430) buffer Logits { float logits[]; };
layout(set = 0, binding = 1, std430) buffer Mom { float mom[]; };
layout(set = 0, binding = 2, std430) buffer Scales { float scales[]; };
layout(set = 0, binding = 3, std430) buffer Smom { float smom[]; };
layout(set = 0, binding = 4, std430) readonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 5, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 6, std430) readonly buffer Grad { float grad[]; };
layout(set = 0, binding = 7, std430) buffer Diff { float diff[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, group, groups, ldc, levels, relative;
    int lo, hi;
    uint seed, tensor, row0, step;
    float tau, kappa, tau1, kappa1, lr_logits, lr_scales, beta1, beta2, decay;
};

// One step of Lion (Chen et al. 2023): value and momentum from the gradient.
void lion(inout float value, inout float m, float g, float lr, float weight_decay)
{
    float u = sign(beta1 * m + (1.0 - beta1) * g);
    value = value * (1.0 - lr * weight_decay) - lr * u;
    m = beta2 * m + (1.0 - beta2) * g;
}

// Logits and momenta of one weight by one step. Returns its part of dLoss/ds; leaves the next step's mean level in diff,
// because the group's new scale is known only once the whole group has been seen.
float step_weight(uint row, uint col, float s)
{
    uint element_at = row * cols + col;
    uint at = row * levels * cols + col; // of level 0 in [rows, levels, cols]
    int c0 = code_at(codes[row * ldc + col / 4u], col % 4u);
    levels_of lv = find_levels(levels, relative, lo, hi, c0);
    uvec2 element = element_number(row0 + row, cols, col);

    float l[LEVELS];
    [[unroll]] for (uint k = 0u; k < LEVELS; k++)
        l[k] = k < levels ? logits[at + k * cols] : 0.0;
    uint bits[LEVELS];
    float p[LEVELS];
    noise_words(element, tensor, step, seed, bits);
    float mean = soft_level(lv, l, bits, tau, kappa, p);

    // dLoss/dl_d = (kappa/tau) P_d s G (d - sum_e P_e e)
    float g = grad[element_at];
    float common_part = kappa / tau * s * g;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++)
        if (lv.valid[k]) {
            float m = mom[at + k * cols];
            lion(l[k], m, common_part * p[k] * (lv.d[k] - mean), lr_logits, decay);
            logits[at + k * cols] = l[k];
            mom[at + k * cols] = m;
        }

    noise_words(element, tensor, step + 1u, seed, bits);
    diff[element_at] = soft_level(lv, l, bits, tau1, kappa1, p);
    return g * mean;
}

#ifdef LANE_PER_GROUP
void main()
{
    uint unit = item_index();
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, cols);
    float s = scales[unit];
    float g = 0.0;
    for (uint col = begin; col < end; col++)
        g += step_weight(row, col, s);
    float m = smom[unit];
    lion(s, m, g, lr_scales, 0.0);
    scales[unit] = s;
    smom[unit] = m;
    for (uint at = row * cols + begin; at < row * cols + end; at++)
        diff[at] = s * diff[at] - w[at];
}
#else
shared float partial[gl_WorkGroupSize.x];

void main()
{
    uint unit = wg_index();
    uint lane = gl_LocalInvocationID.x;
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, cols);
    float s = scales[unit];
    float m = smom[unit];
    float g = 0.0;
    for (uint col = begin + lane; col < end; col += gl_WorkGroupSize.x)
        g += step_weight(row, col, s);
    partial[lane] = g;
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        barrier();
        if (lane < half_size)
            partial[lane] += partial[lane + half_size];
    }
    barrier();
    // Every lane takes the same step from the same sum.
    lion(s, m, partial[0], lr_scales, 0.0);
    if (lane == 0u) {
        scales[unit] = s;
        smom[unit] = m;
    }
    for (uint col = begin + lane; col < end; col += gl_WorkGroupSize.x) {
        uint at = row * cols + col;
        diff[at] = s * diff[at] - w[at];
    }
}
#endif
