/* Inside libgsq: what the handles hold, and how public structs become internal ones. */
#ifndef LIB_LIB_INTERNAL_H
#define LIB_LIB_INTERNAL_H

#include <cjson/cJSON.h>

#include "formats/read/checkpoint_in.h"
#include "host/base/str.h"
#include "host/gpu/gpu_cmd.h"
#include "host/quant/run/job.h"
#include "lib/choice.h"
#include "lib/gsq.h"

struct gsq_device {
    struct gpu *gpu;
    struct gpu_cmd *cmd;
    char cache_dir[1024]; /* "": none */
    struct choice choice; /* of kernel variants (choose.h); chosen: all that there is to try has been tried */
    bool chosen;
};

/* Before work: a device that was lost is opened again; a driver that is starting is waited for, half a minute. */
bool lib_device_ready(gsq_device *d, struct err *e);
/* Before work whose time counts: chooses kernel variants by measurement, where that is not done; again: anew. A device that is
 * lost by a trial is opened again, and that variant left out. */
bool lib_device_choose(gsq_device *d, bool again, struct err *e);
/* After work that failed: whether the device was lost. d may be NULL. */
bool lib_device_lost(const gsq_device *d);
/* The same, once for each *tries, which begins at 0, with a warning: the work may be done again. *e is cleared then. */
bool lib_device_again(const gsq_device *d, unsigned *tries, struct err *e);

struct gsq_model {
    struct checkpoint *ck;
    char *path;
};

struct gsq_plan {
    struct plan plan; /* items and tensors are copies; of a conversion the bytes alone */
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

/* The name that a text stands for; NULL and ERR_USER: none. option: what the message calls it. */
const char *lib_name(enum gsq_name_kind kind, const char *text, const char *option, struct err *e);
/* A type of a rule: type or gguf of it is set. One tensor's type of a GGUF. */
bool lib_tensor_type(struct tensor_rule *rule, const char *text, const char *option, struct err *e);
bool lib_gguf_type(const struct gguf_type **out, const char *text, const char *option, struct err *e);

/* Text options into the internal ones. */
struct lib_options {
    struct quantize_options q;
    struct gsq_quantize_options asked; /* the caller's, with defaults where its struct ends */
    struct tensor_rule *rules;         /* what q points at; patterns are the caller's */
    struct gguf_override *overrides;
    char **keys, *out;
};
/* model NULL: q.model_dir stays NULL. lib_options_free in any case. */
bool lib_options(struct lib_options *out, const gsq_model *model, const struct gsq_quantize_options *o, struct err *e);
void lib_options_free(struct lib_options *o);
/* What gsq_quantize_check says, apart from the --eval text; settles o->q, but of a conversion. */
bool lib_check(struct lib_options *o, const gsq_model *model, bool plan, struct err *e);
/* The --eval text as windows, at_most of them (0: all): hours of work must not end at a text that cannot be read, or that
 * is shorter than a window. None without one. progress may be NULL. */
struct windows;
bool lib_eval_text(struct windows *w, const struct lib_options *o, const gsq_model *model, uint32_t at_most,
                   const struct progress *progress, struct err *e);
/* A type without codes: a conversion, which needs no device. */
bool lib_copies(const struct lib_options *o);
/* In front of a type's name: as large as its file. */
#define LIB_AUTO "auto:"
/* Bits and type of a GGUF by their names, or the size of one; NULL: as it was. */
bool lib_types(struct quantize_options *q, const char *bits, const char *type, struct err *e);

/* eval_compare; once more where the device was lost. */
struct eval_options;
struct compare_result;
bool lib_compare(gsq_device *d, const struct checkpoint *model, const struct checkpoint *reference,
                 const struct eval_options *o, struct compare_result *r, struct err *e);

/* A plan that outlives the run's; NULL: out of memory. */
gsq_plan *lib_plan_copy(const struct plan *p, const struct quantize_options *o);

/* Where activations go that fit nowhere else. */
const char *lib_spill_dir(const char *asked);

#endif
