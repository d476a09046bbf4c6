/* A transformer block and what surrounds it, in double and in the plainest order: the truth that the device
 * is compared with. Matrices are row-major; weights [out, in]. */
#ifndef REF_MODEL_H
#define REF_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/ref/ref_delta.h"

enum { REF_Q, REF_K, REF_V, REF_O, REF_GATE, REF_UP, REF_DOWN, REF_LINEARS };

struct ref_config {
    uint32_t hidden, intermediate, heads, kv_heads, head_dim, vocab;
    uint32_t ctx;     /* tokens per window */
    uint32_t sliding; /* positions a query sees, its own included; 0: all before it */
    double eps, rope_theta;
    double embedding_scale, residual_scale, logit_divisor; /* factors; 0: 1 */
    bool gelu, norm_plus_one;                              /* gelu by tanh; norms multiply by 1 + w */
    uint32_t rope_dim;                                     /* RoPE turns the first ones of a head; 0: all */
    bool adjacent;                                         /* in pairs (2i, 2i + 1) */
    const double *factors;                                 /* frequencies are divided by; NULL: 1 */
    double score_cap, logit_cap;                           /* cap * tanh(x / cap); 0: none */
    double attention_scale;                                /* of scores; 0: 1 / sqrt(head_dim) */
    double local_theta;     /* unscaled RoPE of blocks that slide; 0: they have the other one */
    bool gated;             /* q has rows of q, then of a gate, of each head: its output times sigmoid(gate) */
    struct ref_delta delta; /* of blocks that have it; ctx is not read */
    uint32_t delta_taps;
    double rope_linear; /* positions are divided by it; 0: off */
    struct {
        double factor, low, high, original; /* factor 0: off */
    } llama3;
    struct {
        double factor, original, fast, slow; /* factor 0: off */
        double attention;                    /* 0: 0.1 ln(factor) + 1 */
    } yarn;
};

struct ref_block {
    const float *w[REF_LINEARS], *bias[REF_LINEARS]; /* a bias may be NULL */
    const float *attn_norm, *ffn_norm;               /* of what a half reads; NULL: it reads x */
    const float *attn_post_norm, *ffn_post_norm;     /* of what a half adds; NULL: it adds that as it is */
    const float *q_norm, *k_norm;                    /* NULL: none */
    const float *sinks;                              /* [heads] a score of no position; NULL: none */
    bool whole_norm;                                 /* these are over all heads together */
    bool no_rope;
    /* The gated delta rule in place of attention, where mixed is not NULL. Grouped: mixed has z too, beta has alpha. */
    const float *mixed, *z, *beta, *alpha, *conv, *a_log, *dt_bias, *delta_norm, *delta_out;
    bool full; /* its queries see all before them, whatever the config's window */
};

/* h[T, hidden] = x + o(attention(norm(x))), then y = h + down(silu(gate) * up), what is added scaled and normed where the
 * model does that; T = windows * ctx. h, y may be NULL or x. False: out of memory. */
bool ref_block_forward(const struct ref_config *c, const struct ref_block *b, uint32_t windows, const double *x,
                       double *h, double *y);
/* The same; besides, sums[i][column] += squares of the inputs of q, k, v (i = 0), o (1), gate, up (2) and
 * down (3) over all T rows. */
enum { REF_IN_ATTN, REF_IN_O, REF_IN_FFN, REF_IN_DOWN, REF_INPUTS };
bool ref_block_inputs(const struct ref_config *c, const struct ref_block *b, uint32_t windows, const double *x,
                      double *y, double *const sums[REF_INPUTS]);
/* y[n] = x * w / rms(x). */
void ref_norm(const double *x, const float *w, double *y, uint32_t n, double eps);
/* Natural logarithms of the probabilities of the next token: x[hidden] behind the last block, final norm
 * [hidden], head [vocab, hidden]; out[vocab]. */
void ref_log_probs(const struct ref_config *c, const float *final_norm, const float *head, const double *x,
                   double *out);
/* Angle of position p for pair i of head_dim / 2. */
double ref_rope_angle(const struct ref_config *c, uint32_t p, uint32_t i);

#endif
