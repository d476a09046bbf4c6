/* A way of storing a model, as checkpoint_in.c asks it: a folder (checkpoint_folder.h), a GGUF (checkpoint_gguf.h). */
#ifndef FORMATS_MODEL_SOURCE_H
#define FORMATS_MODEL_SOURCE_H

#include "formats/hf/safetensors.h"
#include "formats/gguf/gguf_type.h"

/* What a module ("model.layers.0.self_attn.q_proj", "model.embed_tokens", "model.norm") stores as its weight.
 */
struct weight_info {
    bool quantized;
    uint32_t rows, cols;    /* a vector has rows = 1 */
    enum dtype dtype;       /* of the dense weight; of the scales when quantized. DTYPE_OTHER: blocks of a GGUF type
                       * without codes of ours (Q4_1, IQ3_S ...) or narrow floating point, read as f32 */
    const char *stored;     /* "F16", "Q4_K"; NULL: packed as a Hugging Face folder does it */
    struct quant_spec spec; /* quantized only */
    /* The type whose blocks a GGUF can take over as they are (checkpoint_read_blocks), where it has no codes of ours (Q4_1, IQ3_S), or codes
     * say less: MXFP4 and NVFP4 have two zeros. NULL: none. */
    const struct gguf_type *blocks;
    uint64_t bytes; /* on disk: the weight with its scales and zeros, without the bias */
};
struct gguf;
/* The functions of checkpoint_in.h by the same names; self: what was opened. `weight`, `read` and the like take any module,
 * `codes` one that is quantized, with q made for it, `blocks` one that has them. */
struct model_source {
    void (*close)(void *self);
    const struct gguf *(*file)(const void *self); /* NULL: no file, a folder */
    size_t (*count)(const void *self);
    const struct tensor *(*at)(const void *self, size_t i);
    const struct tensor *(*find)(const void *self, const char *name);
    const char *(*path)(const void *self, const struct tensor *t);
    void (*drop)(const void *self, const struct tensor *t);
    bool (*is_packed)(const void *self, const char *module, const char *suffix); /* suffix NULL: any */
    bool (*config_text)(const void *self, char **text, size_t *size, struct err *e);
    bool (*weight)(const void *self, const char *module, struct weight_info *out, struct err *e);
    bool (*read)(const void *self, const char *module, uint32_t row0, uint32_t rows, float *dst, struct err *e);
    bool (*codes)(const void *self, const char *module, struct qlinear *q, struct err *e);
    bool (*blocks)(const void *self, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst, struct err *e);
    bool (*check_finite)(const void *self, const char *module, struct err *e); /* the weight */
};

/* MODULE + suffix; NULL if absent. */
const struct tensor *source_tensor(const struct model_source *s, const void *self, const char *module,
                                   const char *suffix);
/* Its MODULE.weight; ERR_USER naming `model` if it is missing. */
const struct tensor *source_weight(const struct model_source *s, const void *self, const char *module,
                                   const char *model, struct err *e);
/* The shape of a vector or matrix; ERR_USER for anything else. name, path: for that sentence. */
bool source_shape(const struct tensor *t, const char *name, const char *path, struct weight_info *out, struct err *e);

#endif
