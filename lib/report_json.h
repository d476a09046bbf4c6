/* A finished run as JSON: what the report page (report.html) draws. */
#ifndef LIB_REPORT_JSON_H
#define LIB_REPORT_JSON_H

#include "host/base/str.h"
#include "host/quant/run/job.h"
#include "lib/gsq.h"

/* What a comparison with the source said. */
struct report_eval {
    bool measured;
    const char *text; /* file */
    double ppl_reference, ppl_model, mean_kl, top1;
    uint32_t windows, ctx;
    double ppl_reference_error, ppl_model_error, kl_error, top1_error; /* standard errors */
};
struct report_input {
    const struct gsq_setting *settings; /* of the run, for the page's table */
    size_t n_settings;
    const struct quantize_options *o;
    const struct plan *plan; /* may be NULL: what only the plan knows is then left out */
    const struct quantize_result *result;
    uint64_t source_bytes; /* of the model that was quantized; 0: not known */
    const char *device;
    const char *command; /* that repeats the run, as it is typed; NULL: not known */
    struct report_eval eval;
};

/* Adds the run to b: one object. Figures have the names of docs/json.md, and what was not measured is null or left out. Texts
 * are cleaned (clean.h), with their lines. It may stand in a <script> of HTML: <, > and & are \u escapes, as are all characters
 * that JavaScript takes for line ends. False: out of memory. */
bool report_json(struct strbuf *b, const struct report_input *in, struct err *e);

#endif
