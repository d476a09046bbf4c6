/* The page of a finished run: one HTML file that needs nothing else. */
#ifndef LIB_REPORT_HTML_H
#define LIB_REPORT_HTML_H

#include "host/base/os.h"
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

/* Can the report be written there? For before the run: its folder exists (or is out_dir, which the run
 * creates) and is writable, and what is there already is such a page, or `force`. With dry_run nothing is tried
 * out. */
bool report_html_check(const char *path, const char *out_dir, bool dry_run, bool force, struct err *e);
/* Of the page of a model with that many blocks, about. */
uint64_t report_html_bytes(uint32_t blocks);
/* One run at a time writes it: to be held from before the work until it is written. Of a page in out_dir, which may be
 * created for it (*made_dir: it was). ERR_ENV names the process that has it. */
bool report_html_lock(struct os_lock *l, const char *path, const char *out_dir, bool *made_dir, struct err *e);
/* Appears whole or not at all. */
bool report_html_write(const char *path, const struct report_input *in, struct err *e);

#endif
