#include "lib/report_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cjson/cJSON.h>

#include "host/base/clean.h"
#include "host/base/version.h"
#include "lib/plan_text.h"

static void add_text(cJSON *o, const char *key, const char *s)
{
    size_t n = s ? strlen(s) : 0, cap = n * CLEAN_GROWTH + 1;
    char *clean = s ? malloc(cap) : NULL;
    if (!clean)
        return;
    clean_text(clean, cap, s, n, true);
    cJSON_AddStringToObject(o, key, clean);
    free(clean);
}

/* What is not finite is null. */
static void add(cJSON *o, const char *key, double v)
{
    cJSON_AddNumberToObject(o, key, v);
}

static void add_row(cJSON *array, cJSON *row)
{
    cJSON_AddItemToArray(array, row);
}

/* ---- the whole ---- */

static void add_eval(cJSON *o, const struct report_eval *v)
{
    add(o, "perplexity", v->ppl_model);
    add(o, "perplexity_error", v->ppl_model_error);
    add(o, "reference_perplexity", v->ppl_reference);
    add(o, "reference_perplexity_error", v->ppl_reference_error);
    add(o, "mean_kl", v->mean_kl);
    add(o, "mean_kl_error", v->kl_error);
    add(o, "top1_agreement", v->top1);
    add(o, "top1_agreement_error", v->top1_error);
    add(o, "eval_windows", v->windows);
    add(o, "eval_ctx", v->ctx);
    add_text(o, "eval_text", v->text);
}

static void add_result(cJSON *o, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    add_text(o, "model", in->o->model_dir);
    add_text(o, "out", in->o->out_dir);
    add_text(o, "format", export_format_name(in->o->format));
    add_text(o, "type", in->o->mixture);
    add_text(o, "codes", in->o->code_type->name);
    add(o, "group", in->o->group);
    add_text(o, "method", method_name(in->o->method));
    add_text(o, "effort", effort_name(in->o->effort));
    add_text(o, "device", in->device);
    add(o, "bits_per_weight", r->bpw);
    if (r->file_bpw > 0)
        add(o, "file_bits_per_weight", r->file_bpw);
    if (in->source_bytes)
        add(o, "source_bytes", (double)in->source_bytes);
    add(o, "out_bytes", (double)r->out_bytes);
    add(o, "seconds", r->seconds);
    add(o, "predicted_seconds", r->predicted_seconds);
    add(o, "mean_loss", r->mean_loss);
    add(o, "blocks", r->blocks_done);
    add(o, "blocks_resumed", r->blocks_resumed);
    add(o, "device_peak_bytes", (double)r->device_peak);
    add(o, "host_peak_bytes", (double)r->host_peak);
    add(o, "device_busy_seconds", r->device_busy);
    add(o, "reach", r->reach);
    if (in->eval.measured)
        add_eval(o, &in->eval);
}

static void add_plan(cJSON *root, const struct plan *p)
{
    cJSON *o = cJSON_AddObjectToObject(root, "plan"), *kept = cJSON_AddArrayToObject(root, "kept");
    plan_json(o, p);
    add(o, "holdout", p->holdout);
    add(o, "activation_bytes", (double)p->acts_bytes);
    for (size_t i = 0; i < p->n_items; i++) {
        char module[sizeof p->items[i].module * CLEAN_GROWTH];
        if (p->items[i].coded)
            continue;
        clean_text(module, sizeof module, p->items[i].module, strlen(p->items[i].module), true);
        add_row(kept, cJSON_CreateString(module));
    }
}

static void add_phases(cJSON *phases, const struct quantize_result *r)
{
    for (int p = 0; p < PHASE_COUNT; p++) {
        if (!(r->phases[p].seconds > 0) && !r->phases[p].device_bytes)
            continue;
        cJSON *o = cJSON_CreateObject();
        add_text(o, "phase", phase_name((enum run_phase)p));
        add(o, "seconds", r->phases[p].seconds);
        add(o, "device_busy_seconds", r->phases[p].device_busy);
        add(o, "device_bytes", (double)r->phases[p].device_bytes);
        add_row(phases, o);
    }
}

/* ---- linears and stages ---- */

static void add_loss(cJSON *o, const char *key, double v)
{
    if (!isnan(v))
        add(o, key, v);
}

static void add_counts(cJSON *o, const uint64_t *counts, unsigned n)
{
    cJSON *array = cJSON_AddArrayToObject(o, "counts");
    for (unsigned i = 0; i < n; i++)
        add_row(array, cJSON_CreateNumber((double)counts[i]));
}

static void add_stats(cJSON *linear, const struct code_stats *s)
{
    unsigned from = 0, to = SCALE_BINS;
    if (s->bins && s->bins <= CODE_BINS) {
        cJSON *codes = cJSON_AddObjectToObject(linear, "codes");
        add(codes, "first", s->lo);
        add_counts(codes, s->codes, s->bins);
    }
    while (from < to && !s->scales[from])
        from++;
    while (to > from && !s->scales[to - 1])
        to--;
    cJSON *scales = cJSON_AddObjectToObject(linear, "scales");
    add(scales, "log2_first", SCALE_LOW + 0.5 * from);
    add(scales, "log2_step", 0.5);
    add_counts(scales, s->scales + from, to - from);
    add(scales, "negative", (double)s->negative);
    add(scales, "zero", (double)s->zero);
}

/* Linears come in the order of the items: it is looked for behind the one found last, *at. */
static const struct matrix *find_item(const struct report_input *in, const char *module, size_t *at)
{
    const size_t n = in->plan ? in->plan->n_items : 0;
    for (size_t i = 0; i < n; i++, *at = (*at + 1) % n)
        if (strcmp(in->plan->items[*at].module, module) == 0)
            return &in->plan->items[*at];
    return NULL;
}

static void add_linear(cJSON *linears, const struct report_input *in, const struct linear_report *l, size_t *at)
{
    const struct matrix *item = find_item(in, l->module, at);
    cJSON *o = cJSON_CreateObject();
    add_text(o, "module", l->module);
    if (item) {
        add(o, "rows", item->rows);
        add(o, "cols", item->cols);
    }
    add_loss(o, in->o->refine ? "loss_file" : "loss_rtn", l->loss_rtn);
    add_loss(o, "loss_gptq", l->loss_gptq);
    add_loss(o, "loss", l->loss_final);
    add(o, "rows_rolled_back", l->rows_rolled_back);
    cJSON_AddBoolToObject(o, "damp_raised", l->damp_raised);
    cJSON_AddBoolToObject(o, "diagonal_only", l->diagonal_only);
    add(o, "seconds", l->seconds);
    if (l->expert.counted) {
        add(o, "tokens", l->expert.tokens);
        cJSON_AddBoolToObject(o, "starved", l->expert.starved);
    }
    add_stats(o, &l->stats);
    add_row(linears, o);
}

/* Experts that few tokens chose, once each: the matrices of one come one after the other. */
static void add_starved(cJSON *root, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    const struct matrix *last = NULL;
    cJSON *list = NULL;
    size_t at = 0;
    for (size_t i = 0; i < r->n_linears; i++) {
        if (!r->linears[i].expert.starved)
            continue;
        const struct matrix *item = find_item(in, r->linears[i].module, &at);
        if (!item || (last && last->layer == item->layer && last->expert == item->expert))
            continue;
        last = item;
        list = list ? list : cJSON_AddArrayToObject(root, "starved_experts");
        cJSON *o = cJSON_CreateObject();
        add(o, "block", item->layer + 1.0);
        add(o, "expert", item->expert);
        add(o, "tokens", r->linears[i].expert.tokens);
        add_row(list, o);
    }
}

static void add_curve(cJSON *o, const char *key, const float *v, uint32_t n, uint32_t most)
{
    cJSON *array = cJSON_AddArrayToObject(o, key);
    for (uint32_t i = 0; i < n && i < most; i++)
        add_row(array, cJSON_CreateNumber((double)v[i]));
}

static void add_stage(cJSON *stages, const struct stage_report *s)
{
    cJSON *o = cJSON_CreateObject();
    add_text(o, "stage", stage_name(s->stage));
    if (s->stage != STAGE_SCALES)
        add(o, "block", s->layer + 1.0);
    add(o, "loss_start", s->loss_start);
    add(o, "loss", s->loss_final);
    add_curve(o, "losses", s->hard, s->n_hard, CURVE_EPOCHS);
    add_curve(o, "soft", s->soft, s->n_soft, CURVE_POINTS);
    add(o, "steps", s->steps);
    add(o, "epochs", s->epochs);
    add(o, "best_epoch", s->best_epoch);
    add(o, "retries", s->retries);
    add(o, "seconds", s->seconds);
    add_row(stages, o);
}

static void add_settings(cJSON *settings, const struct report_input *in)
{
    for (size_t i = 0; i < in->n_settings; i++) {
        const struct gsq_setting *s = &in->settings[i];
        cJSON *o = cJSON_CreateObject();
        add_text(o, "section", s->section);
        add_text(o, "name", s->name);
        add_text(o, "value", s->value);
        cJSON_AddBoolToObject(o, "set", s->set);
        cJSON_AddBoolToObject(o, "used", s->used);
        add_text(o, "help", s->help);
        add_row(settings, o);
    }
}

/* ---- the text ---- */

static void add_date(cJSON *root)
{
    char date[64];
    time_t now = time(NULL);
    struct tm *utc = gmtime(&now);
    if (utc && strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", utc))
        add_text(root, "date", date);
}

/* JSON has these characters in strings alone. */
static void escape(struct strbuf *b, const char *json)
{
    for (size_t n; *json; json += n) {
        n = strcspn(json, "<>&");
        strbuf_add(b, json, n);
        if (json[n])
            strbuf_printf(b, "\\u%04x", (unsigned)json[n++]);
    }
}

bool report_json(struct strbuf *b, const struct report_input *in, struct err *e)
{
    const struct quantize_result *r = in->result;
    cJSON *root = cJSON_CreateObject();
    add_text(root, "version", version_text());
    add_date(root);
    add_text(root, "command_line", in->command);
    cJSON_AddBoolToObject(root, "evaluated", in->eval.measured);
    add_result(cJSON_AddObjectToObject(root, "result"), in);
    if (in->plan)
        add_plan(root, in->plan);
    add_phases(cJSON_AddArrayToObject(root, "phases"), r);
    cJSON *linears = cJSON_AddArrayToObject(root, "linears"), *stages = cJSON_AddArrayToObject(root, "stages");
    size_t at = 0;
    for (size_t i = 0; i < r->n_linears; i++)
        add_linear(linears, in, &r->linears[i], &at);
    add_starved(root, in);
    for (size_t i = 0; i < r->n_stages; i++)
        add_stage(stages, &r->stages[i]);
    add_settings(cJSON_AddArrayToObject(root, "settings"), in);
    char *printed = cJSON_Print(root), *clean = printed ? clean_json(printed) : NULL;
    if (clean)
        escape(b, clean);
    bool ok = clean && !b->failed;
    free(clean);
    cJSON_free(printed);
    cJSON_Delete(root);
    return ok || err_nomem(e, "the report", b->size);
}
