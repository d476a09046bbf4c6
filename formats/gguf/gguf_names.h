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

/* Qwen3-Next's matrix of q, k, v and z, whose rows lie by key head, is ssm_in in a GGUF or, in those of newer converters, lies in two
 * tensors: all q, all k and all v; all z. */
enum gguf_mixed { MIXED_NONE, MIXED_QKV, MIXED_GATE };
/* Which of them that tensor is; out (at least 96 bytes): the Hugging Face module. */
enum gguf_mixed gguf_name_to_mixed(const struct model_config *c, const char *name, char *out, size_t cap);
/* "blk.3.attn_gate" in place of "blk.3.ssm_in", with what is behind it. False: name is none of that matrix. */
bool gguf_name_of_mixed(const char *name, enum gguf_mixed part, char *out, size_t cap);
/* The tensor that holds row r of the matrix, and which row of it; the other way round. */
uint32_t gguf_mixed_row(const struct model_config *c, uint32_t r, enum gguf_mixed *part);
uint32_t gguf_mixed_row_to_hf(const struct model_config *c, enum gguf_mixed part, uint32_t r);

/* A shared expert's gate and up as one matrix (PARTS_SHARED_FUSED) lie in two tensors: its upper rows, then its lower ones. */
enum gguf_shared { SHARED_NONE, SHARED_GATE, SHARED_UP };
/* Which of them that tensor is; out (at least 96 bytes): the Hugging Face module. */
enum gguf_shared gguf_name_to_shared(const struct model_config *c, const char *name, char *out, size_t cap);
/* "blk.3.ffn_gate_shexp.weight"; returns out (64 bytes). */
const char *gguf_name_of_shared(enum gguf_shared part, uint32_t layer, char out[64]);

/* Heads whose rows are permuted in a GGUF of this architecture: num_heads for q_proj, num_kv_heads for k_proj
 * (weights and biases) of llama, 0 for everything else. */
uint32_t gguf_permuted_heads(const struct model_config *c, const char *hf_module);
/* Row of the GGUF's tensor that holds row r of the Hugging Face one: within a head of dim rows, r = p*dim/2 +
 * j lies at 2j + p. */
uint32_t gguf_row_of(uint32_t r, uint32_t dim);
/* The Hugging Face row that lies in row r of the GGUF. */
uint32_t gguf_row_to_hf(uint32_t r, uint32_t dim);

#endif
