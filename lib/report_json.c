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

/* "model.layers.3.mlp.experts.*.up_proj" into out; returns out. */
static const char *any_expert(const struct matrix *x, char out[MODULE_CAP])
{
    const char *star = strchr(x->part->hf, '*'), *rest = star ? star + 1 : "";
    const size_t n = strlen(x->module), tail = strlen(rest);
    char number[12];
    int digits = snprintf(number, sizeof number, "%u", (unsigned)x->expert);
    if (star && n > tail + (size_t)digits)
        snprintf(out, MODULE_CAP, "%.*s*%s", (int)(n - tail - (size_t)digits), x->module, rest);
    else
        snprintf(out, MODULE_CAP, "%s", x->module);
    return out;
}

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
    cJSON_AddBoolToObject(o, "refined", in->o->refine != NULL);
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
    add(o, "linears_made", r->made);
    add(o, "device_peak_bytes", (double)r->device_peak);
    add(o, "host_peak_bytes", (double)r->host_peak);
    add(o, "device_busy_seconds", r->device_busy);
    add(o, "reach", r->reach);
    if (in->eval.measured)
        add_eval(o, &in->eval);
}

static void add_kept(cJSON *kept, const char *name, uint32_t n)
{
    char module[MODULE_CAP * CLEAN_GROWTH + 32];
    clean_text(module, sizeof module, name, strlen(name), true);
    if (n > 1)
        snprintf(module + strlen(module), 32, " (%u)", (unsigned)n);
    add_row(kept, cJSON_CreateString(module));
}

/* Of experts a name stands for all that are kept of one role in a layer. */
static void add_plan(cJSON *root, const struct plan *p)
{
    cJSON *o = cJSON_AddObjectToObject(root, "plan"), *kept = cJSON_AddArrayToObject(root, "kept");
    plan_json(o, p);
    add(o, "holdout", p->holdout);
    add(o, "activation_bytes", (double)p->acts_bytes);
    for (uint32_t layer = 0; layer < p->n_layers; layer++) {
        const struct block_items b = plan_block(p, layer), common = plan_common(b);
        char name[MODULE_CAP];
        for (uint32_t i = 0; i < common.n; i++)
            if (!b.items[i].coded)
                add_kept(kept, b.items[i].module, 1);
        for (uint32_t role = 0; role < EXPERT_MATRICES && common.n < b.n; role++) {
            uint32_t n = 0;
            for (uint32_t i = common.n + role; i < b.n; i += EXPERT_MATRICES)
                n += !b.items[i].coded;
            if (n)
                add_kept(kept, any_expert(&b.items[common.n + role], name), n);
        }
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

static const char *loss_key(const struct report_input *in)
{
    return in->o->refine ? "loss_file" : "loss_rtn";
}

static void add_linear(cJSON *linears, const struct report_input *in, const struct linear_report *l,
                       const struct matrix *item)
{
    cJSON *o = cJSON_CreateObject();
    add_text(o, "module", l->module);
    if (item) {
        add(o, "rows", item->rows);
        add(o, "cols", item->cols);
    }
    add_loss(o, loss_key(in), l->loss_rtn);
    add_loss(o, "loss_gptq", l->loss_gptq);
    add_loss(o, "loss", l->loss_final);
    add(o, "rows_rolled_back", l->rows_rolled_back);
    cJSON_AddBoolToObject(o, "damp_raised", l->damp_raised);
    cJSON_AddBoolToObject(o, "diagonal_only", l->diagonal_only);
    add(o, "seconds", l->seconds);
    add_stats(o, &l->stats);
    add_row(linears, o);
}

/* ---- experts: hundreds in a layer, of which a page tells what is usual and which are the worst ---- */

#define WORST  5u /* experts named of a role in a layer */
#define FEWEST 8u /* those named that fewest tokens chose */

/* Linears of one layer's experts, those that have codes, by expert; or of one role of them. */
struct expert_linears {
    const struct linear_report *const *of; /* [n] */
    const struct matrix *const *items;     /* [n] */
    size_t n;
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of n sorted numbers, the one that `share` of them are below. */
static double quantile(const double *sorted, size_t n, double share)
{
    return sorted[(size_t)(share * (double)(n - 1) + 0.5)];
}

/* Those that were measured, sorted; returns how many. */
static size_t losses_of(const struct expert_linears *x, double (*loss)(const struct linear_report *l), double *out)
{
    size_t n = 0;
    for (size_t i = 0; i < x->n; i++)
        if (!isnan(loss(x->of[i])))
            out[n++] = loss(x->of[i]);
    qsort(out, n, sizeof *out, compare_doubles);
    return n;
}

static double loss_start(const struct linear_report *l)
{
    return l->loss_rtn;
}

static double loss_gptq(const struct linear_report *l)
{
    return l->loss_gptq;
}

static double loss_final(const struct linear_report *l)
{
    return l->loss_final;
}

/* Geometric mean of the final losses as shares of others. */
static void add_ratio(cJSON *o, const char *key, const struct expert_linears *x,
                      double (*loss)(const struct linear_report *l))
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < x->n; i++)
        if (loss(x->of[i]) > 0 && x->of[i]->loss_final > 0) {
            sum += log(x->of[i]->loss_final / loss(x->of[i]));
            n++;
        }
    if (n)
        add(o, key, exp(sum / (double)n));
}

static void add_worst(cJSON *o, const struct expert_linears *x)
{
    cJSON *list = cJSON_AddArrayToObject(o, "worst");
    double below = INFINITY; /* losses named so far are this or more */
    size_t last = 0;
    for (unsigned k = 0; k < WORST && k < x->n; k++) {
        const struct linear_report *worst = NULL;
        size_t at = 0;
        for (size_t i = 0; i < x->n; i++) {
            double v = x->of[i]->loss_final;
            bool behind = v < below || (v == below && i > last);
            if (behind && (!worst || v > worst->loss_final)) {
                worst = x->of[i];
                at = i;
            }
        }
        if (!worst)
            break;
        cJSON *w = cJSON_CreateObject();
        add(w, "expert", x->items[at]->expert);
        if (worst->expert.counted)
            add(w, "tokens", worst->expert.tokens);
        add(w, "loss", worst->loss_final);
        add_row(list, w);
        below = worst->loss_final;
        last = at;
    }
}

/* Codes of the first one's type. */
static struct code_stats sum_stats(const struct expert_linears *x)
{
    struct code_stats s = x->of[0]->stats;
    for (size_t i = 1; i < x->n; i++) {
        const struct code_stats *t = &x->of[i]->stats;
        for (unsigned k = 0; k < CODE_BINS && t->bins == s.bins && t->lo == s.lo; k++)
            s.codes[k] += t->codes[k];
        for (unsigned k = 0; k < SCALE_BINS; k++)
            s.scales[k] += t->scales[k];
        s.negative += t->negative;
        s.zero += t->zero;
    }
    return s;
}

/* One role of a layer's experts: its losses are medians. */
static void add_role(cJSON *groups, const struct report_input *in, const struct expert_linears *x, double *room)
{
    const struct matrix *item = x->items[0];
    char name[MODULE_CAP];
    cJSON *o = cJSON_CreateObject();
    size_t n;
    double rows = 0, damped = 0, diagonal = 0, seconds = 0;
    add_text(o, "module", any_expert(item, name));
    add(o, "block", item->layer + 1.0);
    add(o, "linears", (double)x->n);
    add(o, "rows", item->rows);
    add(o, "cols", item->cols);
    if ((n = losses_of(x, loss_start, room)) > 0)
        add(o, loss_key(in), quantile(room, n, 0.5));
    if ((n = losses_of(x, loss_gptq, room)) > 0)
        add(o, "loss_gptq", quantile(room, n, 0.5));
    if ((n = losses_of(x, loss_final, room)) > 0) {
        add(o, "loss", quantile(room, n, 0.5));
        add(o, "loss_least", room[0]);
        add(o, "loss_90", quantile(room, n, 0.9));
        add(o, "loss_most", room[n - 1]);
        add_ratio(o, in->o->refine ? "of_file" : "of_rtn", x, loss_start);
        add_ratio(o, "of_gptq", x, loss_gptq);
        add_worst(o, x);
    }
    for (size_t i = 0; i < x->n; i++) {
        rows += x->of[i]->rows_rolled_back;
        damped += x->of[i]->damp_raised;
        diagonal += x->of[i]->diagonal_only;
        seconds += x->of[i]->seconds;
    }
    add(o, "rows_rolled_back", rows);
    add(o, "damp_raised", damped);
    add(o, "diagonal_only", diagonal);
    add(o, "seconds", seconds);
    const struct code_stats stats = sum_stats(x);
    add_stats(o, &stats);
    add_row(groups, o);
}

/* Tokens of a layer's experts, each once; those that fewest chose by name. */
static void add_tokens(cJSON *root, const struct expert_linears *x, double *room)
{
    size_t n = 0, starved = 0;
    for (size_t i = 0; i < x->n; i++) {
        if (!x->of[i]->expert.counted || (i && x->items[i]->expert == x->items[i - 1]->expert))
            continue;
        room[n++] = x->of[i]->expert.tokens;
        starved += x->of[i]->expert.starved;
    }
    if (!n)
        return;
    qsort(room, n, sizeof *room, compare_doubles);
    cJSON *all = cJSON_GetObjectItem(root, "experts"), *o = cJSON_CreateObject();
    all = all ? all : cJSON_AddArrayToObject(root, "experts");
    add(o, "block", x->items[0]->layer + 1.0);
    add(o, "experts", (double)n);
    add(o, "tokens_least", room[0]);
    add(o, "tokens_median", quantile(room, n, 0.5));
    add(o, "tokens_most", room[n - 1]);
    add(o, "starved", (double)starved);
    cJSON *named = cJSON_AddArrayToObject(o, "fewest");
    const double most = room[n < FEWEST ? n - 1 : FEWEST - 1]; /* names go up to this */
    for (size_t i = 0; i < x->n && cJSON_GetArraySize(named) < (int)FEWEST; i++) {
        const struct expert_report *e = &x->of[i]->expert;
        if (!e->counted || !e->starved || e->tokens > most || (i && x->items[i]->expert == x->items[i - 1]->expert))
            continue;
        cJSON *w = cJSON_CreateObject();
        add(w, "expert", x->items[i]->expert);
        add(w, "tokens", e->tokens);
        add_row(named, w);
    }
    add_row(all, o);
}

/* Those of one layer. */
static bool add_layer_experts(cJSON *root, const struct report_input *in, const struct expert_linears *x, struct err *e)
{
    cJSON *groups = cJSON_GetObjectItem(root, "expert_linears");
    const struct linear_report **of = calloc(x->n, sizeof *of);
    const struct matrix **items = calloc(x->n, sizeof *items);
    double *room = calloc(x->n, sizeof *room);
    bool ok = (of && items && room) || err_nomem(e, "the report", x->n * 3 * sizeof *room);
    for (int role = ROLE_GATE; ok && role <= ROLE_DOWN; role++) {
        struct expert_linears part = {of, items, 0};
        for (size_t i = 0; i < x->n; i++)
            if ((int)x->items[i]->part->role == role) {
                of[part.n] = x->of[i];
                items[part.n++] = x->items[i];
            }
        if (part.n)
            add_role(groups, in, &part, room);
    }
    if (ok)
        add_tokens(root, x, room);
    free(of);
    free(items);
    free(room);
    return ok;
}

static bool is_expert(const struct matrix *item)
{
    return item && item->part && block_part_is_expert(item->part);
}

static bool add_linears(cJSON *root, const struct report_input *in, struct err *e)
{
    const struct quantize_result *r = in->result;
    cJSON *linears = cJSON_AddArrayToObject(root, "linears");
    const struct linear_report **of = calloc(r->n_linears + 1, sizeof *of);
    const struct matrix **items = calloc(r->n_linears + 1, sizeof *items);
    bool ok = (of && items) || err_nomem(e, "the report", r->n_linears * 2 * sizeof *of);
    size_t at = 0;
    cJSON_AddArrayToObject(root, "expert_linears");
    for (size_t i = 0; ok && i < r->n_linears; i++) {
        of[i] = &r->linears[i];
        items[i] = find_item(in, of[i]->module, &at);
    }
    for (size_t i = 0, n; ok && i < r->n_linears; i += n) {
        for (n = 1; is_expert(items[i]) && is_expert(items[i + n]) && items[i + n]->layer == items[i]->layer;)
            n++;
        if (is_expert(items[i]))
            ok = add_layer_experts(root, in, &(struct expert_linears){of + i, items + i, n}, e);
        else
            add_linear(linears, in, of[i], items[i]);
    }
    free(of);
    free(items);
    return ok;
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
    add(o, "loss_start", s->trained.loss_start);
    add(o, "loss", s->trained.loss_final);
    add_curve(o, "losses", s->hard, s->n_hard, CURVE_EPOCHS);
    add_curve(o, "soft", s->soft, s->n_soft, CURVE_POINTS);
    add(o, "steps", s->trained.steps);
    add(o, "epochs", s->trained.epochs);
    add(o, "best_epoch", s->trained.best_epoch);
    add(o, "retries", s->trained.retries);
    add(o, "seconds", s->trained.seconds);
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
    bool ok = add_linears(root, in, e);
    cJSON *stages = cJSON_AddArrayToObject(root, "stages");
    for (size_t i = 0; i < r->n_stages; i++)
        add_stage(stages, &r->stages[i]);
    add_settings(cJSON_AddArrayToObject(root, "settings"), in);
    char *printed = ok ? cJSON_Print(root) : NULL, *clean = printed ? clean_json(printed) : NULL;
    if (clean)
        escape(b, clean);
    const bool made = clean && !b->failed;
    free(clean);
    cJSON_free(printed);
    cJSON_Delete(root);
    return made || (ok && err_nomem(e, "the report", b->size));
}
