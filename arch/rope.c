/* Rotary embeddings: how fast each pair of a head turns, under the scalings that stretch a context. */
#include <math.h>

#include "arch/config.h"

#define PI 3.14159265358979323846

/* Slow turns are stretched, fast ones kept, a linear blend between. */
static double llama3(const struct model_config *c, double f)
{
    double turns = c->rope_original_context * f / (2 * PI);
    if (turns < c->rope_low_freq)
        return f / c->rope_factor;
    if (turns > c->rope_high_freq)
        return f;
    double smooth = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return (1 - smooth) * f / c->rope_factor + smooth * f;
}

/* The pair that makes so many turns within the original context; no whole number. */
static double pair_of_turns(const struct model_config *c, double turns)
{
    return config_rope_dim(c) * log(c->rope_original_context / (turns * 2 * PI)) / (2 * log(c->rope_theta));
}

/* Pairs up to beta_fast's are kept, those from beta_slow's on are stretched; a linear blend between. */
static double yarn(const struct model_config *c, double f, uint32_t pair)
{
    double low = pair_of_turns(c, c->rope_beta_fast), high = pair_of_turns(c, c->rope_beta_slow);
    if (!c->rope_unrounded) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, config_rope_dim(c) - 1.0);
    double ramp = (pair - low) / fmax(0.001, high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return f / c->rope_factor * ramp + f * (1 - ramp);
}

double rope_frequency(const struct model_config *c, uint32_t pair)
{
    double f = pow(c->rope_theta, -2.0 * pair / config_rope_dim(c));
    switch (c->rope_scaling) {
    case ROPE_FACTORS:
        return f / (double)c->rope_factors[pair];
    case ROPE_LINEAR:
        return f / c->rope_factor;
    case ROPE_LLAMA3:
        return llama3(c, f);
    case ROPE_YARN:
        return yarn(c, f, pair);
    case ROPE_UNSCALED:
        break;
    }
    return f;
}

double rope_long_frequency(const struct model_config *c, uint32_t pair)
{
    return pow(c->rope_theta, -2.0 * pair / config_rope_dim(c)) / (double)c->rope_factors_long[pair];
}

double rope_local_frequency(const struct model_config *c, uint32_t pair)
{
    return pow(c->rope_local_theta, -2.0 * pair / config_rope_dim(c));
}

double rope_attention(const struct model_config *c)
{
    return c->rope_attention > 0 ? c->rope_attention : 1;
}

double rope_yarn_attention(double factor)
{
    return factor > 1 ? 0.1 * log(factor) + 1 : 1;
}
