/* What of a run can be refused before a device is opened. */
#include "formats/shipped_text.h"
#include "host/base/os.h"
#include "host/base/out_path.h"
#include "host/model/windows.h"
#include "host/quant/store/manifest.h"
#include "lib/lib_internal.h"
#include "lib/report_html.h"

bool lib_copies(const struct lib_options *o)
{
    return o->q.format == EXPORT_GGUF && quantize_copies(&o->q) && !o->asked.report && !o->asked.eval;
}

static bool check_copy(const struct quantize_options *o, struct err *e)
{
    /* It reads none of them, but they are on its command line. */
    const char *const named[] = {o->calib, o->imatrix, o->refine};
    if (!out_not_input("the output", o->out_dir, named, sizeof named / sizeof *named, e))
        return false;
    if (!o->n_rules && !o->pure && !o->embedding_type && !o->head_type && !o->keep_head && !o->group && !o->refine)
        return true;
    err_set(e, ERR_USER, "--type %s stores all weights in one type: no option changes single ones", o->mixture);
    return err_hint(e, "use a type such as Q8_0 with --tensor and --keep");
}

/* A refined file's types are its own. */
static bool check_refine(const struct lib_options *all, struct err *e)
{
    const struct quantize_options *o = &all->q;
    bool types =
        o->mixture || all->asked.bits || o->group || o->pure || o->embedding_type || o->head_type || o->keep_head;
    for (size_t i = 0; i < o->n_rules; i++)
        types = types || o->rules[i].type || o->rules[i].gguf;
    if (!types)
        return true;
    err_set(e, ERR_USER,
            "--refine keeps the types of its file: --type, --bits, --group and --tensor cannot be used with it");
    return err_hint(e, "leave them out; --keep REGEX keeps codes as they are");
}

/* What can be said without opening anything. */
static bool check_options(struct lib_options *all, struct err *e)
{
    struct quantize_options *o = &all->q;
    const struct gsq_quantize_options *asked = &all->asked;
    if (o->refine && !check_refine(all, e))
        return false;
    if (o->container && o->format != EXPORT_COMPRESSED_TENSORS) {
        err_set(e, ERR_USER, "--container is for --format compressed-tensors only");
        return err_hint(e, "leave it out for --format %s", export_format_name(o->format));
    }
    if (o->mixture && asked->bits) {
        err_set(e, ERR_USER, "--bits and --type cannot be used together: both choose the linears' type");
        return err_hint(e, "leave one of them out; --type names all types of a GGUF");
    }
    if (size_target_set(&o->target) && asked->bits) {
        err_set(e, ERR_USER, "--bits cannot be used with a size: types are chosen for that");
        return err_hint(e, "leave one of them out; --tensor gives single weights a type");
    }
    if (asked->eval_windows && !asked->eval) {
        err_set(e, ERR_USER, "--windows needs --eval");
        return err_hint(e, "add --eval FILE; the number of calibration windows is --samples");
    }
    return quantize_settle(o, e) && manifest_accept_check(o->accept, e);
}

bool lib_eval_text(struct windows *w, const struct lib_options *o, const gsq_model *model, uint32_t at_most,
                   const struct progress *progress, struct err *e)
{
    const char *text = o->asked.eval;
    struct progress_watch watch;
    struct eta eta;
    uint64_t size = 0;
    *w = (struct windows){0};
    if (!text)
        return true;
    if (os_stat(text, &size) != OS_FILE || size == 0) {
        err_set(e, ERR_USER, "--eval %s: %s", text, size ? "not a file" : "there is no such text, or it is empty");
        return err_hint(e, "give a text file (UTF-8) like what the model will read, not used for calibration");
    }
    eta_start(&eta, os_now_ns(), 0);
    progress_watch_begin(&watch, progress, &eta, NULL);
    bool ok = windows_load(w, model->ck, text, windows_context(model->ck, o->q.ctx), at_most, &watch, e);
    progress_watch_end(&watch);
    return ok || (e->kind != ERR_STOPPED && err_context(e, "--eval"));
}

static bool check_files(const struct lib_options *all, const gsq_model *model, struct err *e)
{
    const struct quantize_options *o = &all->q;
    const char *report = all->asked.report, *folder = o->format == EXPORT_GGUF ? NULL : o->out_dir;
    char text[4096];
    const char *calib = quantize_samples(o) ? NULL : o->calib;
    if (o->method != METHOD_RTN && !shipped_text_path(&calib, text, sizeof text, calib, e))
        return false;
    const char *const inputs[] = {o->model_dir, calib, o->imatrix, o->refine, all->asked.eval};
    const size_t n = sizeof inputs / sizeof *inputs;
    if (!out_not_input("the output", o->out_dir, inputs, n, e) ||
        (report && !out_not_input("--report", report, inputs, n, e)) ||
        (report && !out_not_input("--report", report, o->more_calib, o->n_more_calib, e)))
        return false;
    if (report && out_same(report, o->out_dir)) {
        err_set(e, ERR_USER, "--report %s is also the output of the run", report);
        return err_hint(e, "give the report a name of its own");
    }
    return !report ||
           (report_html_check(report, folder, o->dry_run, o->force, e) &&
            out_fits("the report", report, report_html_bytes(checkpoint_config(model->ck)->num_layers), "--report", e));
}

bool lib_check(struct lib_options *o, const gsq_model *model, bool plan, struct err *e)
{
    o->q.dry_run = plan;
    if (!plan && o->q.ranks) {
        err_set(e, ERR_USER, "--ranks is for a plan");
        return err_hint(e, "--dry-run makes one; ranks of a run are those that mpirun starts (docs/scale.md)");
    }
    if (lib_copies(o))
        return check_copy(&o->q, e);
    return check_options(o, e) && (!model || check_files(o, model, e));
}

bool gsq_quantize_check(const gsq_model *model, const struct gsq_quantize_options *options, bool plan,
                        struct gsq_error *e)
{
    struct err why = {0};
    struct lib_options o;
    struct windows w = {0};
    bool ok = lib_options(&o, model, options, &why) && lib_check(&o, model, plan, &why) &&
              (!model || lib_eval_text(&w, &o, model, 1, NULL, &why));
    windows_free(&w);
    lib_options_free(&o);
    return lib_result(ok, &why, e);
}
