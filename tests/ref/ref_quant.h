/* The quantization kernels in plain C and double precision: what tests compare with. Integer parts (the
 * noise) are bit-exact. */
#ifndef REF_QUANT_H
#define REF_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REF_LEVELS = 5 };

/* A scale as stored (0 f32, 1 f16, 2 bf16, 3 half of E8M0, the next power of two, 4 half of E4M3; the last two without sign): rounded,
 * finite, not zero unless it was. */
float ref_storable_scale(float s, unsigned scale_type);
/* clamp(round(w / s), lo, hi); with levels [16], ascending, the last one repeated, the nearest of them. w counts as 0 where s is 0. */
int ref_level(double w, double s, int lo, int hi, const int8_t *levels);
/* Sum of cost * |s * level - w|^power over n weights; cost NULL: 1. */
double ref_scale_error(const float *w, const float *cost, size_t n, double s, int lo, int hi, const int8_t *levels,
                       double power);
/* The least of that sum over all candidates; with `stored`, over those alone that are rounded to *stored
 * (INFINITY if none is). An all-zero group has the one candidate 0. */
double ref_best_scale(const float *w, const float *cost, size_t n, int lo, int hi, const int8_t *levels,
                      unsigned candidates, double power, unsigned scale_type, const float *stored);

/* sums[cols] += squares of x[rows, cols], summed over the rows. */
void ref_col_sumsq(const float *x, size_t rows, size_t cols, double *sums);
/* Sum of cost * (s * level + o - w)^2; cost NULL: 1. */
double ref_affine_error(const float *w, const float *cost, size_t n, double s, double o, int lo, int hi);
/* The least of that sum over affine_search's candidates, each refitted once. */
double ref_best_affine(const float *w, const float *cost, size_t n, int lo, int hi);
/* Sum of (v - stored)^2. */
double ref_super_error(const double *v, const float *stored, size_t n);
/* The least sum of squared errors of v as d times integers in [lo, hi], over the f16 d of project_scales. */
double ref_best_super(const double *v, size_t n, int lo, int hi);
/* Scales (or negated offsets) of one super-block as d times integers in [lo, hi]: the f16 d with the largest integers for which
 * that is exact. False: there is none. All zero: d = 0. */
bool ref_super_scale(const float *scales, size_t n, int lo, int hi, float *d, int *integers);

/* ---- Gumbel-Softmax ---- */
struct ref_gumbel {
    uint32_t levels, relative;
    int lo, hi;
    uint32_t seed, tensor;
    const int8_t *table; /* of ref_level; NULL: all integers lo .. hi */
};
/* Reserved steps of the start's noise. */
#define REF_NOISE_INIT_A 0xffffffffu
#define REF_NOISE_INIT_B 0xfffffffeu

/* Returns the word for rounding. */
uint32_t ref_noise_words(uint64_t element, uint32_t tensor, uint32_t step, uint32_t seed, uint32_t bits[REF_LEVELS]);
double ref_uniform(uint32_t bits);
/* Level k of a weight whose start code is c0; false where it is masked. */
bool ref_level_value(const struct ref_gumbel *g, unsigned k, int c0, int *d);
/* Words of a weight's state, and bits of a logit in them. */
unsigned ref_state_words(const struct ref_gumbel *g);
unsigned ref_logit_bits(const struct ref_gumbel *g);
/* The state of one weight, words `stride` apart, to numbers; 0 where masked. */
void ref_load_state(const struct ref_gumbel *g, int c0, const uint32_t *state, size_t stride, double l[REF_LEVELS],
                    double m[REF_LEVELS]);
/* What it holds of level k; false: nothing, k is the start code's. */
bool ref_level_stored(const struct ref_gumbel *g, unsigned k, int c0, const uint32_t *state, size_t stride, int *logit,
                      float *momentum);
/* Numbers as a state holds them of level k; rounding: of ref_noise_words. */
int ref_stored_logit(const struct ref_gumbel *g, unsigned k, int c0, double logit, uint32_t rounding);
float ref_stored_momentum(const struct ref_gumbel *g, unsigned k, int c0, double momentum, uint32_t rounding);
/* Start logits, less the start code's. */
void ref_gumbel_init(const struct ref_gumbel *g, int c0, uint64_t element, double init_noise, double init_gap,
                     double logits[REF_LEVELS]);
/* p = softmax((kappa l + Gumbel) / tau) with the noise of `step`; returns the mean level. */
double ref_gumbel_soft(const struct ref_gumbel *g, int c0, uint64_t element, uint32_t step, const double *logits,
                       double tau, double kappa, double p[REF_LEVELS]);
/* Level of the largest logit; ties go to the level nearest c0. */
int ref_gumbel_code(const struct ref_gumbel *g, int c0, const double logits[REF_LEVELS]);

#endif
