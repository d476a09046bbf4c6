/* config.json of a Hugging Face model folder. */
#ifndef FORMATS_HF_CONFIG_H
#define FORMATS_HF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_FACTORS };
enum quant_method {
    QUANT_NONE,
    QUANT_GPTQ,
    QUANT_GPTQ_V2,
    QUANT_COMPRESSED_TENSORS,
    QUANT_MLX,
    QUANT_HUMMING
};

/* One rule of quantization_config that says how some modules are stored. Rules are tried in order; the first
 * whose pattern matches the module name wins. */
struct quant_rule {
    char *regex;    /* PCRE2, searched in the module name ("model.layers.0.mlp.up_proj"); anchors are in it;
                     * NULL matches every linear */
    bool skip;      /* stored in 16 bits */
    unsigned bits;  /* storage bits */
    uint32_t group; /* 0: one group per row */
};

struct model_config {
    char architecture[64]; /* architectures[0], "" if absent */
    char model_type[32];   /* "llama" */
    char torch_dtype[16];  /* "bfloat16", "" if absent (also read from `dtype`) */
    uint32_t hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim, vocab_size;
    uint32_t max_position;   /* 0 if absent */
    uint32_t sliding_window; /* 0: none, or disabled by use_sliding_window=false */
    float rms_eps;
    double rope_theta;
    enum rope_scaling rope_scaling;
    double rope_factor, rope_low_freq, rope_high_freq; /* llama3; linear uses factor alone */
    uint32_t rope_original_context;
    float *rope_factors; /* ROPE_FACTORS: what the frequency of each pair is divided by, [head_dim / 2]. Of a
                            GGUF whose factors are no llama3 scaling */
    bool tie_word_embeddings;
    bool attention_bias, mlp_bias; /* of a GGUF, for the config.json of its folder: gsq goes by the tensors */
    int64_t bos_id, eos_id;        /* -1: none; the first where config.json lists several */
    char hidden_act[32];

    enum quant_method quant;
    struct quant_rule *rules; /* in order; a last rule with regex NULL holds the defaults */
    size_t n_rules;
};

/* Parses the text of a config.json (not NUL-terminated; any bytes). path names the file in messages. Every
 * number is range-checked; a missing required key, a wrong type, an unknown rope_scaling type or hidden_act
 * other than silu/swish is ERR_USER. Unknown architectures are NOT refused here (host/model/family does
 * that). */
bool hf_config_parse(struct model_config *out, const char *text, size_t size, const char *path,
                     struct err *e);
void hf_config_free(struct model_config *c);
/* A config.json that says the same (apart from how it is quantized), malloc'ed: for models that come without
 * one. */
bool hf_config_text(const struct model_config *c, char **text, size_t *size, struct err *e);
/* Radians per position of pair `pair` of head_dim / 2, scaling included. */
double rope_frequency(const struct model_config *c, uint32_t pair);

#endif
