/* What a model's configuration says: its shapes, RoPE, windows, and how its weights are stored. Read from config.json
 * (formats/hf/hf_config.h) or from a GGUF's metadata (formats/read/gguf_config.h). */
#ifndef ARCH_CONFIG_H
#define ARCH_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

enum rope_scaling { ROPE_UNSCALED, ROPE_LINEAR, ROPE_LLAMA3, ROPE_FACTORS, ROPE_YARN };
enum quant_method {
    QUANT_NONE,
    QUANT_GPTQ,
    QUANT_GPTQ_V2,
    QUANT_COMPRESSED_TENSORS,
    QUANT_MLX,
    QUANT_HUMMING,
    QUANT_FP8 /* read only, as floating point */
};

/* More than any model has. */
#define CONFIG_EXPERTS_MAX 4096u
/* How a layer's experts are chosen for a token, from logits z of the router. */
enum gating {
    GATING_SOFTMAX = 1, /* the largest of softmax(z) */
    GATING_SIGMOID,     /* the largest of sigmoid(z) + bias, which are weighted without the bias */
    GATING_CHOSEN       /* the largest of z, weighted by the softmax over those */
};
/* Layers whose feed-forward half is a choice of experts. GGUF's numbers for gating. */
struct expert_config {
    uint32_t n, used;      /* of a layer; for each token. n 0: the model has none */
    uint32_t width;        /* rows of an expert's gate and up */
    uint32_t shared_width; /* of the expert that every token goes through; 0: there is none */
    enum gating gating;
    bool renormalise;             /* the weights of those chosen are divided by their sum */
    float scale;                  /* and all multiplied by this */
    uint32_t groups, groups_used; /* experts are chosen from so many of the groups; 1 and 1: from all */
    uint32_t first_dense, step;   /* layers below first_dense have none, then each step-th has */
    bool *dense;                  /* [num_layers] further ones that have none; NULL: no further ones */
};

/* More dimensions than a head of latent attention has. */
#define LATENT_NOPE_MAX 4096u
/* Multi-head latent attention: q, and k with v, come through narrow matrices; RoPE turns a part of a head of its own. */
struct mla_config {
    uint32_t q_rank,
        kv_rank;           /* rows of q_a, 0: q is one matrix; of kv_a, without RoPE's part of k, 0: the model has usual
                               attention */
    uint32_t nope, turned; /* dimensions of a head of q and k: without RoPE, then with it. Their sum is head_dim */
    uint32_t values;       /* of a head of v */
    bool split;            /* kv_b is two matrices, as in a GGUF (checkpoint_split_latent) */
};

/* Layers with the gated delta rule in place of attention: heads of q and k, and of v, so many for each of those. */
struct delta_config {
    uint32_t key_heads, value_heads; /* 0: the model has no such layers */
    uint32_t key_dim, value_dim;     /* of a head */
    uint32_t taps;                   /* positions that the convolution of q, k and v sees, its own included */
    /* Value head h goes with key head h % key_heads, as llama.cpp has it; else with h / (value_heads / key_heads). It is the order of
     * what is read (checkpoint_set_tiled), not of the model. */
    bool tiled;
    bool *layers; /* [num_layers] whether a layer has it */
};

/* One rule of quantization_config that says how some modules are stored. Rules are tried in order; the first
 * whose pattern matches the module name wins. */
struct quant_rule {
    char *regex;         /* PCRE2, searched in the module name ("model.layers.0.mlp.up_proj"); anchors are in it;
                     * NULL matches every linear */
    bool skip;           /* stored in 16 bits */
    bool floats;         /* stored as narrow floating point, not as codes */
    unsigned bits;       /* storage bits */
    uint32_t group;      /* 0: one group per row */
    uint32_t block_rows; /* of floats, not 0: rows that share a scale, of `group` columns */
};

struct model_config {
    char architecture[64]; /* architectures[0], "" if absent */
    char model_type[32];   /* "llama" */
    char torch_dtype[16];  /* "bfloat16", "" if absent (also read from `dtype`) */
    uint32_t hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim, vocab_size;
    uint32_t max_position;   /* 0 if absent */
    uint32_t sliding_window; /* positions a query sees, its own included, in layers that slide; 0: none does */
    bool *slides;            /* [num_layers] whether a layer slides; NULL: all do, if sliding_window is set */
    float rms_eps;
    uint32_t rope_dim; /* dimensions of a head that RoPE turns, the first ones; 0: all */
    double rope_theta;
    double rope_local_theta; /* of layers that slide, which are not scaled; 0: they are as the others */
    bool *no_rope;           /* [num_layers] whether a layer is without RoPE; NULL: none is */
    enum rope_scaling rope_scaling;
    double rope_factor, rope_low_freq, rope_high_freq; /* llama3; linear and yarn use factor alone */
    double rope_beta_fast, rope_beta_slow;             /* yarn: turns within the original context */
    bool rope_unrounded;   /* yarn: the pairs of those turns are not rounded to whole ones (truncate: false) */
    double rope_attention; /* yarn and factors: what cos and sin are multiplied by; 0 means 1 */
    uint32_t rope_original_context;
    float *rope_factors_long; /* [rope_dim / 2]: in windows longer than the original context; NULL: as in others */
    float *rope_factors;      /* ROPE_FACTORS: what the frequency of each pair is divided by, [rope_dim / 2]. Of a
                            GGUF whose factors are no llama3 scaling, or longrope with one list of factors */
    double embedding_scale;   /* what embeddings are multiplied by; 0 means 1, here and below */
    double attention_scale;   /* scores; 0: 1 / sqrt(head_dim) */
    double
        query_growth; /* queries at position p are multiplied by 1 + this * ln(1 + floor(p / rope_original_context)) */
    double residual_scale;       /* what each half adds */
    double score_cap, logit_cap; /* caps of scores and logits: cap * tanh(x / cap); 0: none */
    double logit_divisor;        /* what logits are divided by */
    struct expert_config experts;
    struct mla_config mla;
    struct delta_config delta;
    bool no_qk_norm;            /* the family's norms of q and k are not in this model */
    uint32_t next_token_layers; /* behind the others, which guess further tokens: gsq leaves them as they are */
    bool tie_word_embeddings;
    bool tie_unsaid;               /* config.json does not say whether */
    bool attention_bias, mlp_bias; /* of a GGUF, for the config.json of its folder: gsq goes by the tensors */
    int64_t bos_id, eos_id;        /* -1: none; the first where config.json lists several */
    char hidden_act[32];
    bool gelu; /* the feed-forward half has gelu, by tanh, in place of silu */

    /* Where the text part of a checkpoint's names begins, and the head: config_part_name, config_head_name. "": "model." and
     * "lm_head" */
    char prefix[32], head[32];
    char wrapper[64]; /* "Mistral3ForConditionalGeneration": the model whose text part this is; "": it is all text */

    char unsupported[320], unsupported_hint[256]; /* why gsq cannot compute this model, and what to do; ""
                                                   * where nothing speaks against it */

    enum quant_method quant;
    struct quant_rule *rules; /* in order; a last rule with regex NULL holds the defaults */
    size_t n_rules;
};

void config_free(struct model_config *c);

/* The ways in which models name their text part: prefix and head, NULL past the end. The first is that of a model of text alone. */
struct config_names {
    const char *prefix, *head;
};
const struct config_names *config_names_at(size_t i);
/* "model.layers.3", "model.norm": under the model's own prefix, into out (64 bytes hold any); return out. */
const char *config_layer_name(const struct model_config *c, uint32_t layer, char *out, size_t cap);
const char *config_part_name(const struct model_config *c, const char *part, char *out, size_t cap);
/* "model." and "lm_head", or what this model has in their place. */
const char *config_prefix(const struct model_config *c);
const char *config_head_name(const struct model_config *c);
/* Whether a tensor or module of this name belongs to the text part that is computed; all do where the model is all text and has no
 * layers behind the last (next_token_layers). */
bool config_is_text(const struct model_config *c, const char *name);

/* The whole numbers of a shape: what each kind of file calls them, and what they may be. */
struct config_number {
    size_t at;             /* a uint32_t of struct model_config */
    const char *hf, *gguf; /* in a GGUF behind "llama."; NULL: not said there */
    uint32_t lo, hi;
    int64_t fallback; /* where it is absent; -1: it must be there */
};
enum { CONFIG_NUMBERS = 8 };
extern const struct config_number config_numbers[CONFIG_NUMBERS];
/* The numbers that follow where they are absent (0): num_kv_heads, head_dim. Returns the number that does not go with the
 * others and, in `what`, why ("must divide num_attention_heads"), in a GGUF's words or config.json's; NULL: all do. */
const struct config_number *config_settle_shape(struct model_config *c, bool gguf, char what[128]);

/* Notes why gsq cannot compute this model. The first reason counts. */
void config_unsupported(struct model_config *c, const char *hint, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* False, and ERR_USER with the reason, where `unsupported` gives one. */
bool config_supported(const struct model_config *c, struct err *e);
/* Once slides has a value for each layer: the list goes where all layers are alike, and the window too where none slides. */
void config_settle_slides(struct model_config *c);
/* Positions that a query of this layer sees, its own included; 0: all before it. */
uint32_t config_window(const struct model_config *c, uint32_t layer);
/* Whether RoPE turns q and k in this layer; whether it is the unscaled one of layers that slide. */
bool config_has_rope(const struct model_config *c, uint32_t layer);
bool config_rope_is_local(const struct model_config *c, uint32_t layer);
/* Whether a layer has the gated delta rule. */
bool config_has_delta(const struct model_config *c, uint32_t layer);
/* Whether attention of some layers is gone through forward alone: nothing is trained on what such a layer gives. */
bool config_forward_only(const struct model_config *c);
/* Columns of [q | k | v], and of v, of the gated delta rule. */
uint32_t config_delta_mixed(const struct model_config *c);
uint32_t config_delta_values(const struct model_config *c);
/* Dimensions of a head that RoPE turns. */
uint32_t config_rope_dim(const struct model_config *c);
/* What scores are multiplied by before the softmax, and a factor for which 0 stands for 1. */
double config_attention_scale(const struct model_config *c);
double config_factor(double v);
/* Why the numbers of experts do not go together; *groups: it is that of groups, else that of those a token uses. NULL: they
 * do. */
const char *config_experts_odd(const struct expert_config *x, bool *groups);
/* Whether the feed-forward half of a layer is experts. */
bool config_has_experts(const struct model_config *c, uint32_t layer);
/* Radians per position of pair `pair` of rope_dim / 2, scaling included (rope.c). */
double rope_frequency(const struct model_config *c, uint32_t pair);
/* The same in windows longer than the original context, where those have factors of their own. */
double rope_long_frequency(const struct model_config *c, uint32_t pair);
/* The same in layers whose RoPE is local. */
double rope_local_frequency(const struct model_config *c, uint32_t pair);
/* What cos and sin are multiplied by. */
double rope_attention(const struct model_config *c);
/* The factor that goes with a yarn factor where none is given. */
double rope_yarn_attention(double factor);

#endif
