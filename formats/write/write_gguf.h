/* Writes a GGUF from a checkpoint (a Hugging Face folder or another GGUF): metadata, tokenizer, tensors in
 * their types. */
#ifndef FORMATS_WRITE_GGUF_H
#define FORMATS_WRITE_GGUF_H

#include "formats/read/checkpoint_in.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "formats/write/write_hf.h"

/* What becomes of one 2-D weight. */
struct gguf_item {
    const char *module; /* Hugging Face name: "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head" */
    const struct gguf_type *type; /* what it is stored as */
    bool coded;             /* codes and scales come from the source (source->linear); else its weights are rounded */
    struct quant_spec spec; /* of the codes, where coded */
};
/* A metadata key with another value than it would have. */
struct gguf_override {
    const char *key;
    enum gguf_value type; /* GGUF_U32, GGUF_F32, GGUF_BOOL (1 or 0 in u) or GGUF_STRING */
    uint32_t u;
    float f;
    const char *text;
};
/* "KEY=int:7", "KEY=float:0.5", "KEY=bool:true", "KEY=str:words", as llama-quantize's --override-kv has it. *key is
 * malloc'ed and becomes out->key; out->text points into spec. ERR_USER. */
bool gguf_override_parse(const char *spec, struct gguf_override *out, char **key, struct err *e);

struct gguf_options {
    int file_type;                    /* general.file_type; -1: found from the types (the commonest) */
    const char *const (*metadata)[2]; /* extra string keys, n pairs: how it was made; may be NULL */
    size_t n_metadata;
    const struct gguf_override *overrides; /* may be NULL */
    size_t n_overrides;
};
struct gguf_source {
    void *ctx;
    /* Codes of a coded item, rows in Hugging Face order. The writer frees q. */
    bool (*linear)(void *ctx, const struct gguf_item *item, struct qlinear *q, struct err *e);
    /* importance[cols] for rounding a weight (the Hessian's diagonal); NULL result or NULL function: all 1.
     */
    const float *(*importance)(void *ctx, const char *module);
    /* done of total units of work, which go with time: weights, each times what its rounding costs
     * (gguf_round_cost; 1 where codes are packed). Called several times a second, always on the calling
     * thread. False stops (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
};
/* Rounds on all threads of pool.h, to the same bytes with any number of them.
 * items: every 2-D weight of the model (write_gguf_items lists them). Norms, biases and other vectors are
 * F32. */
bool write_gguf(const char *path, const struct checkpoint *src, const struct gguf_item *items, size_t n,
                const struct gguf_options *o, const struct gguf_source *source, struct err *e);
/* Bytes the file will take; 0 if it cannot be written, and why: it asks all that write_gguf asks before its first byte,
 * and looks for values that F16 cannot hold where that is a weight's type. */
uint64_t write_gguf_size(const struct checkpoint *src, const struct gguf_item *items, size_t n,
                         const struct gguf_options *o, struct err *e);
/* Whether PATH may be written (preflight): no file of the source, its folder exists, and what is there already is
 * a file that gsq wrote, or `force`. */
bool write_gguf_check(const char *path, const struct checkpoint *src, bool force, struct err *e);
/* Names of all 2-D weights of the model in file order (embedding, blocks, head where it is stored): calls fn
 * for each. */
bool gguf_weights_each(const struct checkpoint *src,
                       bool (*fn)(void *ctx, const char *module, uint32_t rows, uint32_t cols), void *ctx);

/* A mixture by the name users know ("Q2_K", "Q3_K_M", "Q2_0", "F16" ...): the type of one module by llama-quantize's
 * rules, with its fallback where cols % block != 0 (*fell_back is then true). NULL: no such mixture. */
const struct gguf_type *gguf_mixture_type(const char *mixture, const struct model_config *c, const char *module,
                                          uint32_t cols, bool *fell_back);
/* The type of most tensors of a mixture; NULL: no such mixture. */
const struct gguf_type *gguf_mixture_base(const char *mixture);
/* The type itself where rows of `cols` weights divide by its block, else the one that stands in for it
 * (*fell_back is then true). */
const struct gguf_type *gguf_type_fitting(const struct gguf_type *t, uint32_t cols, bool *fell_back);
/* A mixture's own name by any of its names; NULL: no such mixture. */
const char *gguf_mixture_named(const char *name);
/* What llama-quantize takes as a type: a name in any case, or its number ("10": Q2_K). *out is the mixture, or
 * GGUF_COPY: every tensor as it is. False: a type that only llama-quantize writes (ERR_USER naming the nearest that gsq
 * learns), or none at all (*e is untouched). */
#define GGUF_COPY "COPY"
bool gguf_mixture_read(const char *text, const char **out, struct err *e);
/* Whether that is a type of llama-quantize, gsq's or not. */
bool gguf_mixture_is_name(const char *text);
/* general.file_type of a mixture, -1: none; name of mixture i, NULL past the end. Names are found in any
 * case; "Q3_K", "Q4_K" and "Q5_K" stand for their _M. */
int gguf_mixture_file_type(const char *mixture);
const char *gguf_mixture_at(size_t i);

#endif
