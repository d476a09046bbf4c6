/* Names and row order: what a tensor of a Hugging Face model is called in a GGUF, and back
 * (docs/formats.md 7). */
#ifndef FORMATS_GGUF_NAMES_H
#define FORMATS_GGUF_NAMES_H

#include "arch/config.h"

/* "model.layers.3.self_attn.q_proj" -> "blk.3.attn_q"; "model.embed_tokens" -> "token_embd"; ".weight" and
 * ".bias" are carried over when present. The prefix is the model's own. All experts of a layer have one name:
 * "blk.3.ffn_gate_exps". False: no such name is known. out: at least 64 bytes. */
bool gguf_name_of(const struct model_config *c, const char *hf, char *out, size_t cap);
/* The reverse, in the words of the configuration's family (unknown: of the first that has such a part); of experts that one's.
 * out: at least 96 bytes. */
bool gguf_name_to_hf(const struct model_config *c, const char *name, uint32_t expert, char *out, size_t cap);
/* Whether a tensor of that name holds a layer's experts, one behind the other, or their biases. */
bool gguf_name_of_experts(const char *name);

/* kv_b of latent attention lies in two tensors of one matrix for each head: k's part transposed, [heads, kv_rank, nope], and v's,
 * [heads, values, kv_rank]. Its rows are, head by head, those of k, then those of v. */
enum gguf_latent { LATENT_NONE, LATENT_KEYS, LATENT_VALUES };
/* Which of them that tensor is; out (at least 96 bytes): the Hugging Face module. */
enum gguf_latent gguf_name_to_latent(const struct model_config *c, const char *name, char *out, size_t cap);
/* "blk.3.attn_k_b.weight"; returns out (64 bytes). */
const char *gguf_name_of_latent(enum gguf_latent part, uint32_t layer, char out[64]);

/* Heads whose rows are permuted in a GGUF of this architecture: num_heads for q_proj, num_kv_heads for k_proj
 * (weights and biases) of llama, 0 for everything else. */
uint32_t gguf_permuted_heads(const struct model_config *c, const char *hf_module);
/* Row of the GGUF's tensor that holds row r of the Hugging Face one: within a head of dim rows, r = p*dim/2 +
 * j lies at 2j + p. */
uint32_t gguf_row_of(uint32_t r, uint32_t dim);
/* The Hugging Face row that lies in row r of the GGUF. */
uint32_t gguf_row_to_hf(uint32_t r, uint32_t dim);

/* Whether gsq writes and reads a model's gated delta rule in GGUFs: keys are as wide as values, and either the matrices lie by key
 * head or there are as many heads of keys as of values, whose order llama.cpp otherwise has another way. */
bool gguf_has_delta(const struct model_config *c);

#endif
