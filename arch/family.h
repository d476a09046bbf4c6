/* Model families: one row of data for each. What differs between Llama-shaped models is said here and nowhere else. */
#ifndef ARCH_FAMILY_H
#define ARCH_FAMILY_H

#include "arch/config.h"

/* Rows of block.c's table that only some families have, and the names they have there. */
enum {
    PARTS_PRE_NORMS = 1 << 0,  /* of the inputs of both halves: input_layernorm, post_attention_layernorm */
    PARTS_POST_NORMS = 1 << 1, /* of their outputs: post_attention_layernorm, post_feedforward_layernorm */
    PARTS_GEMMA_NORMS =
        1 << 9, /* of both: input_layernorm, pre_feedforward_layernorm; the others as in PARTS_POST_NORMS */
    PARTS_GLM_NORMS = 1 << 10,     /* of outputs: post_self_attn_layernorm, post_mlp_layernorm */
    PARTS_FUSED_QKV = 1 << 11,     /* q, k and v are one matrix: rows of q, then of k, then of v */
    PARTS_FUSED_GATE_UP = 1 << 12, /* gate and up are: rows of gate, then of up */
    PARTS_QK_NORM = 1 << 2,        /* over each head of q and k before RoPE */
    PARTS_QK_NORM_WHOLE = 1 << 3,  /* over all heads of q, all of k */
    PARTS_EXPERTS = 1 << 4,        /* "mlp.experts.N.gate_proj", the router "mlp.gate" */
    PARTS_EXPERTS_BLOCK = 1 << 5,  /* Mixtral's: "block_sparse_moe.experts.N.w1", "block_sparse_moe.gate" */
    PARTS_EXPERTS_BIAS = 1 << 6,   /* the router has e_score_correction_bias */
    PARTS_SHARED_GATED = 1 << 7,   /* "mlp.shared_expert", times sigmoid(shared_expert_gate x), where it has a width */
    PARTS_MLA = 1 << 13,           /* attention is multi-head latent attention: q_a_proj, kv_a_proj_with_mqa */
    PARTS_SHARED_PLAIN = 1 << 8,   /* "mlp.shared_experts", added as it is */
    PARTS_EXPERTS_STACKED =
        1 << 14, /* "block_sparse_moe.router.layer"; all experts of a layer in two tensors, which are read as
                                      Mixtral's (formats/read/stacked.h) */
    PARTS_LATE_NAME = 1 << 15,     /* in a GGUF the norm of the second half's input is called post_attention_norm */
    PARTS_GATED_HEADS = 1 << 21,   /* q_proj has rows of q, then of a gate, of each head: heads times sigmoid(gate) */
    PARTS_DELTA = 1 << 22,         /* layers have the gated delta rule: in_proj_qkv, in_proj_z, in_proj_b, in_proj_a */
    PARTS_DELTA_GROUPED = 1 << 23, /* the same, by key head in in_proj_qkvz and in_proj_ba */
    PARTS_ANY_DELTA = PARTS_DELTA | PARTS_DELTA_GROUPED,
    PARTS_GPT_OSS = 1 << 16, /* "mlp.router" with a bias, biases of experts, attention sinks */
    PARTS_SHARED_FUSED =
        1 << 17, /* "shared_mlp", added as it is; rows of gate, then of up, are one matrix, in a GGUF two tensors */
    PARTS_ANY_SHARED = PARTS_SHARED_GATED | PARTS_SHARED_PLAIN | PARTS_SHARED_FUSED,
};

struct family {
    const char *name;         /* "Llama", for people */
    const char *architecture; /* config.json: "LlamaForCausalLM" */
    const char *model_type;   /* "llama" */
    const char *also_type;    /* another model_type of the same; NULL: none */
    const char *gguf;         /* general.architecture of a GGUF */
    bool query_growth;        /* config.query_growth counts */
    bool qk_norm_said;        /* config.json's use_qk_norm says whether q and k are normed */
    bool permuted_rows;       /* a GGUF has the rows of q and k in another order (gguf_row_of) */
    unsigned parts;           /* PARTS_ */
    bool norm_plus_one;       /* norms multiply by 1 + w; a GGUF holds that sum */
    bool clamped;             /* gated units with limits (clamped_fwd of shaders/kernels.def) */
    bool gelu;                /* gelu (by tanh) in place of silu */
    bool embedding_root;      /* embeddings are multiplied by sqrt(hidden_size) */
    uint32_t
        usual_query_scale; /* scores are divided by the root of query_pre_attn_scalar, where absent of this; 0: no such key */
    uint32_t odd_layers; /* llama.cpp divides them by sqrt(hidden_size / heads) in models of so many layers; else by
                                   sqrt(head_dim) */
    double usual_score_cap, usual_logit_cap; /* where config.json lacks them; 0: none */
    double usual_theta, usual_local_theta;   /* 0: 10000; as the others */
    double usual_eps;                        /* 0: must be there */
    uint32_t usual_heads, usual_kv_heads, usual_head_dim, usual_vocab, usual_context; /* likewise */
    uint32_t usual_inner;       /* of feed-forward halves; families whose layers all have experts need not say it */
    bool multipliers;           /* config.json has factors of embedding, attention, halves and logits */
    uint32_t usual_rope_step;   /* every so many layers one is without RoPE, where no list says which; 0: all have it */
    bool adjacent_pairs;        /* RoPE turns pairs (2i, 2i + 1) of a head; else (i, i + half) */
    bool factor_lists;          /* longrope has a list of factors for short windows and one for long ones */
    double usual_rope_share;    /* of a head that RoPE turns, where config.json lacks it; 0: all of it */
    bool local_rope;            /* RoPE of layers that slide is unscaled, and may have a base of its own */
    bool llama_slides;          /* llama.cpp computes sliding windows of this architecture */
    bool sliding_window;        /* config.sliding_window counts */
    uint32_t usual_window;      /* of a config.json without sliding_window; 0: none */
    uint32_t usual_full_step;   /* all layers slide but every n-th, where no list says which; 0: see below */
    uint32_t usual_full_layers; /* not 0: layers slide only where use_sliding_window says so, and then those from
                                   max_window_layers on, of which this is the usual number */
    enum gating gating;         /* of a configuration that does not say it; 0: layers have no experts */
    bool stacked_experts;       /* folders in 16 bits have them as transformers does: all of a layer in one tensor */
    bool renormalise;           /* of a configuration without norm_topk_prob */
    bool gguf_renormalise;      /* of a GGUF, whose runners do it by the architecture */
    bool gguf_router;           /* a GGUF says how experts are chosen and weighted, and which layers have none */
    bool always_bias;           /* q, k and v have biases in every model, and no key says so */
};

/* What a number of config_numbers is where config.json lacks it; 0: what it is in all families. */
uint32_t family_usual(const struct family *f, size_t at);
/* NULL past the end. */
const struct family *family_at(size_t i);
/* The row of a config: by its architecture where it names one, else by its model_type. NULL: unknown. */
const struct family *family_of(const struct model_config *c);
/* The row of a GGUF's general.architecture; sliding: its metadata have a sliding window, which tells Mistral from
 * Llama; experts: they have experts, which tell Mixtral from both; gating: as they say, which tells DeepSeek-V3 from V2, or 0; shared: one of
 * them is a shared expert, which tells Granite-MoE's from Granite-MoE. NULL: unknown. */
const struct family *family_of_gguf(const char *architecture, bool sliding, bool experts, uint32_t gating, bool shared);
/* Whether 1 is added to the weights of the norm of that name, with or without ".weight" behind it. */
bool family_adds_one(const struct family *f, const char *norm);
/* What llama.cpp multiplies scores by in a family whose GGUFs do not say it. */
double family_llama_scale(const struct family *f, const struct model_config *c);
/* What gsq would have to compute for a family that it knows by name alone: "an indexer chooses ..."; NULL: it does not know it. */
const char *family_lacks(const struct model_config *c);
/* The same as family_of for what is to be computed. Unknown: ERR_USER that lists what is known; one that gsq cannot
 * compute for another reason: ERR_USER with that. */
const struct family *family_find(const struct model_config *c, struct err *e);
/* "Llama, Mistral, Qwen2 and Qwen3"; returns out. */
const char *family_names(char *out, size_t cap);

#endif
