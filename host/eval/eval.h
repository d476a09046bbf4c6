/* Perplexity of a model, and KL divergence between two. */
#ifndef QUANT_EVAL_H
#define QUANT_EVAL_H

#include "host/eval/spread.h"
#include "host/gpu/progress.h"
#include "host/model/windows.h"

/* What of a window is read and scored. */
enum eval_protocol {
    EVAL_GSQ,   /* as the text is; positions 1..ctx-1 */
    EVAL_LLAMA, /* llama-perplexity's: the first token of every window is the BOS, where the tokenizer has
                   one; positions ctx/2+1..ctx-1 */
};
/* "gsq", "llama.cpp"; false: no such name. */
const char *eval_protocol_name(enum eval_protocol p);
bool eval_protocol_parse(const char *name, enum eval_protocol *out);

struct eval_options {
    const char *text; /* file */
    uint32_t ctx;     /* tokens per window */
    enum eval_protocol protocol;
    uint32_t windows;                /* at most; 0: all */
    const struct windows *reference; /* of the text, as the reference of a comparison reads it; NULL: not known yet */
    const char *spill_dir;           /* for activations that fit nowhere else */
    struct progress progress;
};
struct eval_result {
    double perplexity, mean_nll;
    double nll_error, perplexity_error; /* standard errors, as llama-perplexity gives them: tokens count as
                                           independent; exp's slope carries the one over to the other */
    uint64_t tokens;                    /* of the whole text */
    uint32_t windows;                   /* evaluated */
    uint64_t scored;                    /* positions */
    char token_hash[33];                /* XXH3-128 of the text's ids as u32le */
    double seconds;
};
/* exp(mean NLL) over the scored positions of every window (docs/method.md 6). Weights are streamed block
 * by block. */
bool eval_perplexity(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct eval_options *o,
                     struct eval_result *out, struct err *e);

/* The same pass over windows that are there already (EVAL_GSQ; o->text, ctx and windows do not count): -ln p of every token but
 * the first of each window goes to `fn` as soon as it is known, nll[t] being that of token t + 1. */
typedef void eval_window_fn(void *ctx, uint32_t window, const float *nll);
bool eval_windows(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct windows *w,
                  const struct eval_options *o, eval_window_fn *fn, void *ctx, struct err *e);

enum { EVAL_QUANTILES = 6 };
struct compare_result {
    struct eval_result model, reference;
    double mean_kl; /* KL(reference || model) per position, nats, over the positions that predict the scored
                       ones */
    double top1;    /* share of positions whose most likely token agrees */
    double kl_error, top1_error;        /* standard errors of both */
    struct quantile kl[EVAL_QUANTILES]; /* shares .01, .1, .5, .9, .99, .999 of the positions */
    double kl_most;
    /* ln of the model's perplexity over the reference's, from pairs of positions; correlation of both sides' -ln p. */
    double log_ratio, log_ratio_error, correlation;
    /* How much more probable the text's tokens are to the model: mean, and root of the mean square. */
    double p_change, p_change_error, p_change_rms, p_change_rms_error;
};
/* Both must share the vocabulary size and the token ids of the text. */
bool eval_compare(struct gpu_cmd *cmd, const struct checkpoint *model, const struct checkpoint *reference,
                  const struct eval_options *o, struct compare_result *out, struct err *e);

#endif
