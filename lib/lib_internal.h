/* Inside libgsq: what stands behind the handles, and the way between public and internal structs. */
#ifndef LIB_LIB_INTERNAL_H
#define LIB_LIB_INTERNAL_H

#include <cjson/cJSON.h>

#include "formats/checkpoint_in.h"
#include "host/base/str.h"
#include "host/gpu/gpu_cmd.h"
#include "host/quant/job.h"
#include "lib/gsq.h"

struct gsq_device {
    struct gpu *gpu;
    struct gpu_cmd *cmd;
};

struct gsq_model {
    struct checkpoint *ck;
    char *path;
};

struct gsq_plan {
    struct plan plan; /* items and tensors are copies */
    struct quantize_options options;
    char *model, *out;
};

/* The public error from the internal one; returns ok. e may be NULL. */
bool lib_result(bool ok, const struct err *from, struct gsq_error *e);

/* The text for the caller, or NULL and the error; takes `text` and `o` in any case. */
char *lib_text(bool ok, struct strbuf *text, struct err *from, struct gsq_error *e);
char *lib_json(bool ok, cJSON *o, struct err *from, struct gsq_error *e);
/* For gpu_cmd_set_poll: false once a stop is asked for. */
bool lib_go_on(void *ctx);

/* Options as this version knows them: the defaults, with the caller's fields, as many as its size says, over them.
 * ERR_BUG where the size was never set. */
bool lib_take(void *into, size_t into_size, const void *from, const char *what, struct err *e);
/* As much of a result as the caller has room for. */
void lib_give(void *to, const void *from, size_t from_size);

/* A progress callback of the library on top of the internal one. */
struct lib_progress {
    gsq_progress_fn *fn;
    void *ctx;
};
struct progress lib_progress(struct lib_progress *p);

/* Text options into the internal ones. rules: room for o->n_rules; texts: what the rules' patterns and names point
 * into, freed by lib_options_free. */
struct lib_options {
    struct quantize_options q;
    struct tensor_rule *rules;
};
bool lib_options(struct lib_options *out, const struct gsq_model *model, const struct gsq_quantize_options *o,
                 struct err *e);
void lib_options_free(struct lib_options *o);
/* Bits and type of a GGUF by their names; NULL: as it was. */
bool lib_types(struct quantize_options *q, const char *bits, const char *type, struct err *e);

/* Tokens of a window where nothing is said: the model's context, at most 2048. */
uint32_t lib_context(const struct gsq_model *m, uint32_t asked);
/* Where activations go that fit nowhere else. */
const char *lib_spill_dir(const char *asked);

#endif
