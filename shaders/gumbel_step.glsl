// One weight's part of a Gumbel-Softmax step, for gumbel_step.comp and gumbel_step_cpu.comp.
#ifndef GUMBEL_STEP_GLSL
#define GUMBEL_STEP_GLSL

layout(push_constant) uniform Push
{
    uint rows, cols, group, groups, ldc, levels, relative;
    int lo, hi;
    uint seed, tensor, row0, step;
    float tau, kappa, tau1, kappa1, lr_logits, lr_scales, beta1, beta2, decay, origin;
};

// One step of Lion (Chen et al. 2023): value and momentum from the gradient.
void lion(inout float value, inout float m, float g, float lr, float weight_decay)
{
    float u = sign(beta1 * m + (1.0 - beta1) * g);
    value = value * (1.0 - lr * weight_decay) - lr * u;
    m = beta2 * m + (1.0 - beta2) * g;
}

// Logits and momenta of one weight by one step; those of masked levels stay. g: dLoss/dw~. Returns the mean level; next
// is the next step's, from which the difference follows when the group's new scale is known.
float step_weight(levels_of lv, uvec2 element, float s, float g, inout float l[LEVELS], inout float m[LEVELS],
                  out float next)
{
    uint bits[LEVELS];
    float p[LEVELS];
    noise_words(element, tensor, step, seed, bits);
    float mean = soft_level(lv, l, bits, tau, kappa, p);

    // dLoss/dl_d = (kappa/tau) P_d s G (d - sum_e P_e e)
    float common_part = kappa / tau * s * g;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        float new_l = l[k], new_m = m[k];
        lion(new_l, new_m, common_part * p[k] * (lv.d[k] - mean), lr_logits, decay);
        l[k] = lv.valid[k] ? new_l : l[k];
        m[k] = lv.valid[k] ? new_m : m[k];
    }

    noise_words(element, tensor, step + 1u, seed, bits);
    next = soft_level(lv, l, bits, tau1, kappa1, p);
    return mean;
}

#endif
