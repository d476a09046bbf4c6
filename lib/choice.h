/* What was measured of the candidates (TUNE in shaders/variants.cmake) of a device, as it is remembered, and what follows: which
 * are used. choose.h makes it. */
#ifndef LIB_CHOICE_H
#define LIB_CHOICE_H

#include <cjson/cJSON.h>

#include "host/base/str.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernel_decl.h"
#include "lib/trial.h"

enum candidate_state {
    CANDIDATE_NEW,      /* not tried */
    CANDIDATE_MEASURED, /* right; us and usual_us are known */
    CANDIDATE_REFUSED,  /* wrong, or cannot be run: why */
    CANDIDATE_EXCLUDED, /* the driver died while it was tried */
};
struct candidate {
    const char *name;
    enum candidate_state state;
    double us, usual_us; /* of the same calls: its own time, and that of the variant in use without it */
    char why[TRIAL_WHY];
};
/* The candidates of each kernel that the device can run, as in variants.cmake. */
struct choice {
    struct {
        unsigned n;
        struct candidate c[GPU_PREFER_MAX];
    } kernels[KERNEL_COUNT];
    char trying[128]; /* "KERNEL.VARIANT": a trial that has begun; "": none */
};

/* What there is to choose from, nothing tried yet. */
void choice_begin(struct choice *c, const struct gpu *g);
/* Whether nothing is left to be tried. */
bool choice_complete(const struct choice *c);
/* Of the name "KERNEL.VARIANT"; NULL: not there. */
struct candidate *choice_find(struct choice *c, const char *name);
/* The candidates of a kernel that are used, fastest first, of those that are right and at least 2 % faster than the variant in
 * use without them. Returns how many. */
unsigned choice_rank(const struct choice *c, unsigned kernel, const char *names[GPU_PREFER_MAX]);
/* Makes the device use them. */
bool choice_apply(const struct choice *c, struct gpu *g, struct err *e);

/* As a JSON text for a file, with what it was measured on; NULL: out of memory. Free it. */
char *choice_text(const struct choice *c, const struct gpu *g);
/* From such a text. False, and *c is as choice_begin leaves it, where it is none, or of another device, driver or set of shaders. */
bool choice_read(struct choice *c, const struct gpu *g, const char *text, size_t size);

/* Why a kernel uses what it uses, in words; "" where it has no candidates. */
void choice_why(const struct choice *c, unsigned kernel, struct strbuf *out);
/* {KERNEL: {"variant", "candidates": [{"variant", "state", "us", "usual_us", "why"}]}} of kernels that have any. */
cJSON *choice_json(const struct choice *c, struct gpu *g);

#endif
