/* A model folder or a GGUF opened for reading: config, tensors, and linears in whatever way they are stored
 * (16 bits, or any export format of ours). One interface for quantize, eval, compare, inspect and convert. */
#ifndef FORMATS_CHECKPOINT_IN_H
#define FORMATS_CHECKPOINT_IN_H

#include "arch/config.h"
#include "formats/read/model_source.h"

struct checkpoint;

/* Opens a folder (config.json, safetensors) or a GGUF file. */
bool checkpoint_open(struct checkpoint **out, const char *path, struct err *e);
void checkpoint_close(struct checkpoint **c);
/* Shows value heads of the gated delta rule in the order of llama.cpp's GGUFs (delta.tiled), or in that of folders, where those differ
 * (value_heads.h). A folder is opened in its own order, a GGUF too. Before anything else is asked of it. */
bool checkpoint_set_tiled(struct checkpoint *c, bool tiled, struct err *e);
const struct model_config *checkpoint_config(const struct checkpoint *c);
/* kv_b of latent attention is two matrices from here on, as in a GGUF, whoever stored it: of each head k's part, transposed, and
 * v's (ROLE_K_B, ROLE_V_B in place of ROLE_KV_B). Nothing of a model without latent attention changes. Before anybody reads. */
void checkpoint_split_latent(struct checkpoint *c);
/* The module that holds this one: kv_b, of its two; else itself. out: at least 96 bytes; returns out. */
const char *checkpoint_holder(const struct checkpoint *c, const char *module, char out[96]);
/* The path it was opened by. */
const char *checkpoint_dir(const struct checkpoint *c);
/* The GGUF file itself; NULL for a folder. */
struct gguf;
const struct gguf *checkpoint_gguf(const struct checkpoint *c);

/* The tensors, by file and offset, under their Hugging Face names. NULL: there is none of that name. */
size_t checkpoint_tensor_count(const struct checkpoint *c);
const struct tensor *checkpoint_tensor_at(const struct checkpoint *c, size_t i);
const struct tensor *checkpoint_tensor_find(const struct checkpoint *c, const char *name);
/* Path of the file a tensor lives in (messages), and a hint that its pages will not be needed soon. */
const char *checkpoint_tensor_path(const struct checkpoint *c, const struct tensor *t);
void checkpoint_drop(const struct checkpoint *c, const struct tensor *t);
/* The same for all tensors of a module. */
void checkpoint_drop_module(const struct checkpoint *c, const char *module);
/* Whether MODULE + suffix (".weight", ".qweight") is a tensor (or one of the tensors) of a packed weight, readable
 * only by checkpoint_read_f32 and checkpoint_read_codes. */
bool checkpoint_is_packed(const struct checkpoint *c, const char *module, const char *suffix);
/* The text of config.json, malloc'ed; of a GGUF, one made from its metadata. */
bool checkpoint_config_text(const struct checkpoint *c, char **text, size_t *size, struct err *e);

bool checkpoint_has_module(const struct checkpoint *c, const char *module);
/* Which stored module holds the embedding and the output head. Tied models store one of them or both; what is
 * missing keeps its usual name, so that using it fails with a sentence naming it. Never NULL. */
const char *checkpoint_embedding_module(const struct checkpoint *c);
const char *checkpoint_head_module(const struct checkpoint *c);
/* Fails (ERR_USER, naming the tensor and the file) if it is missing or its shape or dtype makes no sense. */
bool checkpoint_weight(const struct checkpoint *c, const char *module, struct weight_info *out, struct err *e);
/* What x->module is stored as; and every 2-D weight of the model, in the order of a file: embedding, the linears of one block after the
 * other, the head where it is not the embedding. *out [*n] is freed by the caller; NULL on failure. ERR_USER: one is missing
 * or cannot be read. */
struct matrix;
bool checkpoint_matrix(const struct checkpoint *c, struct matrix *x, struct err *e);
bool checkpoint_matrices(const struct checkpoint *c, struct matrix **out, size_t *n, struct err *e);
/* The raw tensor MODULE.weight of a dense module (for upload), or MODULE.bias. NULL if absent. */
const struct tensor *checkpoint_dense(const struct checkpoint *c, const char *module);
const struct tensor *checkpoint_bias(const struct checkpoint *c, const char *module);
/* The tensor MODULE.weight as stored: its rows may be permuted, or packed. NULL if absent. */
const struct tensor *checkpoint_stored(const struct checkpoint *c, const char *module);
/* Rows [row0, row0+rows) of the weight (a vector is one row) as f32 into dst [rows, cols], dequantized if
 * need be. */
bool checkpoint_read_f32(const struct checkpoint *c, const char *module, uint32_t row0, uint32_t rows, float *dst,
                         struct err *e);
/* Rows [row0, row0 + rows) of a weight with weight_info.blocks, as blocks of that type. */
bool checkpoint_read_blocks(const struct checkpoint *c, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                            struct err *e);
/* NaN and infinities in the module's float tensors (weight or scales, and bias): ERR_USER naming tensor,
 * file, element. So is a shape among the data that is not that of the tensors. */
bool checkpoint_check_finite(const struct checkpoint *c, const char *module, struct err *e);
/* Codes and scales of a quantized module; q is initialised here, the caller frees it. */
bool checkpoint_read_codes(const struct checkpoint *c, const char *module, struct qlinear *q, struct err *e);

#endif
