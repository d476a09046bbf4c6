// One weight's part of a Gumbel-Softmax step, for gumbel_step.comp and gumbel_step_cpu.comp.
#ifndef GUMBEL_STEP_GLSL
#define GUMBEL_STEP_GLSL

layout(push_constant) uniform Push
{
    uint rows, cols, group, groups, ldc, levels, relative;
    int lo, hi;
    uint seed, tensor, row0, step;
    float tau, kappa, tau1, kappa1, lr_logits, lr_scales, beta1, beta2, decay, origin;
    uint offsets;
    float lr_offsets;
    GRID_PUSH
};

// One step of Lion (Chen et al. 2023): value and momentum from the gradient.
void lion(inout float value, inout float m, float g, float lr, float weight_decay)
{
    float u = sign(beta1 * m + (1.0 - beta1) * g);
    value = value * (1.0 - lr * weight_decay) - lr * u;
    m = beta2 * m + (1.0 - beta2) * g;
}

// The middle of the levels, which a change of the scale leaves where it is.
float centre()
{
    return offsets != 0u ? 0.5 * float(lo + hi) : 0.0;
}

// A group's scale and offset by one step. ds: dLoss/ds with the levels counted from the centre; total: the sum of dLoss/dw~.
void step_group(inout float s, inout float o, inout float ms, inout float mo, float ds, float total)
{
    float was = s;
    lion(s, ms, ds, lr_scales, 0.0);
    if (offsets != 0u) {
        s = max(s, 0.0);
        o -= centre() * (s - was);
        lion(o, mo, total, lr_offsets, 0.0);
        o = min(o, 0.0);
    }
}

// One weight's state by one step. g: dLoss/dw~. Returns the mean level; next is the next step's, from which the difference
// follows when the group's new scale is known.
float step_weight(levels_of lv, uvec2 element, float s, float g, inout uint state[WORDS], out float next)
{
    uint bits[LEVELS];
    float l[LEVELS], m[LEVELS], p[LEVELS];
    load_state(lv, state, l, m);
    uint rounding = noise_words(element, tensor, step, seed, bits);
    float mean = soft_level(lv, l, bits, tau, kappa, p);

    // dLoss/dl_d = (kappa/tau) P_d s G (d - sum_e P_e e)
    float common_part = kappa / tau * s * g;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++)
        lion(l[k], m[k], common_part * p[k] * (lv.d[k] - mean), lr_logits, decay);
    store_state(lv, l, m, rounding, state);

    load_state(lv, state, l, m);
    noise_words(element, tensor, step + 1u, seed, bits);
    next = soft_level(lv, l, bits, tau1, kappa1, p);
    return mean;
}

#endif
