#include "lib/report_html.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "lib/report_parts.h"
#include "lib/svg_chart.h"
#include "host/base/num.h"
#include "host/base/out_path.h"
#include "host/base/version.h"

/* By this a page is known as gsq's. */
#define GENERATOR "<meta name=\"generator\" content=\"gsq\""

/* ---- the look
 * --------------------------------------------------------------------------------------------------- */

static const char style_text[] =
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,\"Segoe "
    "UI\",Roboto,"
    "\"Helvetica Neue\",Arial,sans-serif;-webkit-text-size-adjust:100%}\n"
    "main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}\n"
    "h1{font-size:26px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}\n"
    "h2{font-size:19px;margin:0 0 8px}h3{font-size:14px;margin:0 0 8px;font-weight:600}\n"
    "p{margin:0 0 12px;max-width:76ch}section{margin-top:40px}section>h3{margin:20px 0 6px;font-size:15px}\n"
    ".muted,figcaption,.lead{color:var(--soft)}.muted{font-weight:400}figcaption{font-size:12.5px;margin-top:"
    "4px}\n"
    "code{font:13px ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}\n"
    "figure,.tile,details{background:var(--card);border:1px solid var(--edge);border-radius:10px}\n"
    "figure{margin:0 0 16px;padding:14px 14px 10px;min-width:0}\n"
    "details{margin:0 0 8px}details>*{margin-left:14px;margin-right:14px}\n"
    "summary{cursor:pointer;margin:0;padding:9px "
    "14px;font-weight:600}details[open]>summary{margin-bottom:6px}\n"
    ".folds details{margin:0 0 6px}details>.cards,details>.scroll{margin-bottom:14px}\n"
    "details figure{border-color:var(--grid)}\n";
static const char style_parts[] =
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:12px;margin:20px 0}\n"
    ".tile{padding:12px 14px}.tile b{display:block;font-size:22px;line-height:1.25;font-weight:650;"
    "overflow-wrap:anywhere}\n"
    ".tile span{display:block;font-size:12.5px;color:var(--soft)}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:0}dt{color:var(--soft)}\n"
    "dd{margin:0;overflow-wrap:anywhere;min-width:0}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(218px,1fr));gap:12px;"
    "margin-bottom:14px}\n"
    ".wide{grid-template-columns:repeat(auto-fill,minmax(300px,1fr))}.cards figure{margin:0}\n"
    ".halves{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:12px}\n"
    ".halves figure{margin:0}th.num,td.num{padding:4px 0 4px 14px}"
    ".num+td:not(.num),.num+th:not(.num){padding-left:18px}details "
    ".plot+p,details>.plot:last-child{margin-bottom:8px}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;color:var(--soft);margin:4px 0 "
    "10px;max-width:none}\n"
    ".legend "
    "i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}\n"
    ".notes{font-size:13px;color:var(--soft);margin-top:6px;margin-bottom:8px;padding-left:18px}.list "
    "code{margin-right:10px}\n"
    ".scroll{overflow-x:auto}.scroll "
    "td:first-child{white-space:nowrap}table{border-collapse:collapse;font-size:13.5px;width:100%}\n"
    "th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--grid);vertical-align:top}\n"
    "th{font-weight:600;color:var(--soft);white-space:nowrap}.num{text-align:right;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}\n"
    "td.val{min-width:11em}tr.unused td{opacity:.55}.set td:first-child{white-space:nowrap}\n"
    ".set tr+tr th{padding-top:18px}\n"
    ".tag{font-size:11.5px;border:1px solid var(--edge);border-radius:9px;padding:0 7px;margin-left:6px;"
    "color:var(--soft);white-space:nowrap}\n"
    "footer{margin-top:44px;color:var(--soft);font-size:13px}\n"
    ".plot svg{display:block;overflow:visible}\n"
    ".t{font-size:11px;fill:var(--soft)}.n{font-size:12.5px;fill:var(--ink)}.v{font-variant-numeric:tabular-"
    "nums}\n"
    ".n,.t{paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}\n"
    ".s{font-size:8.5px}.m{text-anchor:middle}.e{text-anchor:end}\n"
    ".g{stroke:var(--grid);stroke-width:1}.a{stroke:var(--axis);stroke-width:1}\n"
    ".p{stroke:var(--card)!important;stroke-width:1}\n"
    ".l{fill:none!important;stroke-width:1.8;stroke-linejoin:round;vector-effect:non-scaling-stroke}\n"
    ".d{stroke-dasharray:5 4;opacity:.75}\n"
    "@media(max-width:560px){main{padding:20px 12px "
    "32px}h1{font-size:22px}.cards{grid-template-columns:repeat("
    "auto-fill,minmax(158px,1fr))}.wide{grid-template-columns:1fr}figure{padding:12px 10px 8px}dl{gap:2px "
    "12px}}\n"
    "@media(max-width:640px){.set tr{display:block;border-bottom:1px solid var(--grid);padding:5px 0}.set "
    "td,.set th{display:"
    "inline;border:0;padding:0 10px 0 0}.set td:last-child{display:block}}\n"
    "@media(max-width:400px){dl{grid-template-columns:1fr}dd{margin-bottom:6px}}\n"
    "@media print{body{background:#fff}figure,tr{break-inside:avoid}}\n";

/* Seven linears, another, RTN, GPTQ, final: on light and on dark. */
static const char *const colors[COLOR_COUNT][2] = {
    {"#3b6fd4", "#7ba8ff"}, {"#b97f00", "#efbf4f"}, {"#d24a3d", "#ff8a7d"}, {"#2f8f47", "#66cf80"},
    {"#8d51cf", "#c39bff"}, {"#96613f", "#d3a07c"}, {"#118787", "#4fcfcc"}, {"#6b7280", "#9aa3b2"},
    {"#b3bac6", "#5d6677"}, {"#8fb4ee", "#3f68a8"}, {"#2a62c9", "#7fb0ff"},
};

static void put_style(struct strbuf *b)
{
    static const char *const themes[2] = {"color-scheme:light;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--"
                                          "soft:#5d6778;--edge:#dfe3e9;--grid:#e8ebf0;"
                                          "--axis:#9aa3b2",
                                          "color-scheme:dark;--page:#11151b;--card:#191f27;--ink:#e6eaf0;--"
                                          "soft:#9ba6b5;--edge:#2b333e;--grid:#28303a;"
                                          "--axis:#5d6777"};
    strbuf_puts(b, "<style>\n");
    for (int theme = 0; theme < 2; theme++) {
        strbuf_puts(b, theme ? "@media(prefers-color-scheme:dark){:root{" : ":root{");
        strbuf_puts(b, themes[theme]);
        for (int c = 0; c < COLOR_COUNT; c++)
            strbuf_printf(b, ";--c%d:%s", c, colors[c][theme]);
        strbuf_puts(b, theme ? "}}\n" : "}\n");
    }
    for (int c = 0; c < COLOR_COUNT; c++)
        strbuf_printf(
            b, ".f%d{fill:var(--c%d)}.b%d{background:var(--c%d)}.k%d{fill:var(--c%d);stroke:var(--c%d)}\n", c,
            c, c, c, c, c, c);
    strbuf_puts(b, style_text);
    strbuf_puts(b, style_parts);
    strbuf_puts(b, "</style>\n");
}

/* ---- the head
 * --------------------------------------------------------------------------------------------------- */

static void fact(struct strbuf *b, const char *name, const char *value)
{
    strbuf_printf(b, "<dt>%s</dt><dd>", name);
    html_text(b, value);
    strbuf_puts(b, "</dd>\n");
}

static void tile(struct strbuf *b, const char *value, const char *name)
{
    strbuf_puts(b, "<div class=\"tile\"><b>");
    html_text(b, value);
    strbuf_printf(b, "</b><span>%s</span></div>\n", name);
}

static void put_tiles(struct strbuf *b, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    char text[64];
    strbuf_puts(b, "<div class=\"tiles\">\n");
    tile(b, number_text(r->bpw, text, sizeof text), "bits per weight, scales included");
    if (r->file_bpw > 0)
        tile(b, number_text(r->file_bpw, text, sizeof text), "the same with embeddings and head");
    tile(b, format_bytes(r->out_bytes, text, sizeof text), "size of the result");
    if (in->eval.measured) {
        tile(b, number_text(in->eval.ppl_model, text, sizeof text), "perplexity");
        tile(b, number_text(in->eval.mean_kl, text, sizeof text), "KL divergence, nats per token");
    }
    if (isfinite(r->mean_loss))
        tile(b, number_text(r->mean_loss, text, sizeof text), "mean relative error of the linears");
    tile(b, unit_text(AXIS_SECONDS, r->seconds, text, sizeof text), "time of the run");
    strbuf_puts(b, "</div>\n");
}

static void put_facts(struct strbuf *b, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    const struct plan *p = in->plan;
    char text[160], a[32], c[32];
    time_t now = time(NULL);
    struct tm *utc = gmtime(&now);
    strbuf_puts(b, "<dl>\n");
    fact(b, "model", in->o->model_dir ? in->o->model_dir : "");
    fact(b, "result", in->o->out_dir ? in->o->out_dir : "");
    fact(b, "device", in->device ? in->device : "");
    if (utc && strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", utc))
        fact(b, "date", text);
    if (p && p->weights) {
        snprintf(text, sizeof text, "%.4g million, %.1f %% of them quantized", 1e-6 * (double)p->weights,
                 100.0 * (double)p->weights_quantized / (double)p->weights);
        fact(b, "weights", text);
    }
    if (p && in->o->method != METHOD_RTN) {
        snprintf(text, sizeof text, "%u windows of %u tokens, %u of them held out", (unsigned)p->samples,
                 (unsigned)p->ctx, (unsigned)p->holdout);
        fact(b, "calibration", text);
    }
    snprintf(text, sizeof text, "%u", (unsigned)r->blocks_done);
    if (r->blocks_resumed)
        snprintf(text, sizeof text, "%u, %u of them from an earlier run", (unsigned)r->blocks_done,
                 (unsigned)r->blocks_resumed);
    fact(b, "blocks", text);
    unit_text(AXIS_SECONDS, r->seconds, a, sizeof a);
    if (r->predicted_seconds > 0 && isfinite(r->predicted_seconds))
        snprintf(text, sizeof text, "%s, predicted %s", a,
                 unit_text(AXIS_SECONDS, r->predicted_seconds, c, sizeof c));
    else
        snprintf(text, sizeof text, "%s", a);
    fact(b, "time", text);
    strbuf_puts(b, "</dl>\n");
}

static void put_head(struct strbuf *b, const struct report_input *in)
{
    const char *name = os_base_name(in->o->model_dir ? in->o->model_dir : "");
    strbuf_puts(b, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n" GENERATOR "/>\n<title>");
    html_text(b, name);
    strbuf_puts(b, ": gsq report</title>\n");
    put_style(b);
    strbuf_puts(b, "</head>\n<body>\n<main>\n<header><h1>");
    html_text(b, name);
    strbuf_puts(b, "</h1>\n<p class=\"lead\">quantized to ");
    if (in->o->mixture)
        strbuf_printf(b, "%s", in->o->mixture);
    else
        strbuf_printf(b, "%s%s in groups of %u", in->o->type->name,
                      in->o->type->name[0] >= '0' && in->o->type->name[0] <= '9' ? " bits" : " codes",
                      (unsigned)in->o->group);
    strbuf_printf(b, " by %s, effort ", method_name(in->o->method));
    html_text(b, effort_name(in->o->effort));
    strbuf_printf(b, ", format %s</p>\n", export_format_name(in->o->format));
    put_tiles(b, in);
    put_facts(b, in);
    strbuf_puts(b, "</header>\n");
}

/* ---- quality
 * ---------------------------------------------------------------------------------------------------- */

static void measured(struct strbuf *b, const char *name, double value, double error, const char *unit)
{
    char text[32], range[32] = "";
    if (isfinite(error) && error > 0)
        number_text(error, range, sizeof range);
    strbuf_printf(b, "<tr><td>%s</td><td class=\"num\">%s%s%s%s</td></tr>\n", name,
                  number_text(value, text, sizeof text), range[0] ? " &#177; " : "", range, unit);
}

static void put_quality(struct strbuf *b, const struct report_input *in)
{
    const struct report_eval *v = &in->eval;
    char more[32] = "";
    strbuf_puts(b, "<section id=\"quality\"><h2>Quality</h2>\n");
    if (!v->measured) {
        strbuf_puts(b, "<p>Perplexity and KL divergence were not measured: give a text with <code>--eval "
                       "FILE</code>, or "
                       "run <code>gsq compare</code> on the result.</p></section>\n");
        return;
    }
    strbuf_printf(b, "<p>Both models read %u windows of %u tokens of <code>", (unsigned)v->windows,
                  (unsigned)v->ctx);
    html_text(b, os_base_name(v->text ? v->text : ""));
    strbuf_puts(b, "</code>.</p>\n<div class=\"halves\"><figure>");
    static const unsigned fill[] = {COLOR_RTN, COLOR_FINAL};
    double values[] = {v->ppl_reference, v->ppl_model}, change = 100 * (v->ppl_model / v->ppl_reference - 1);
    if (isfinite(change))
        snprintf(more, sizeof more, "(%+.1f %%)", change);
    const struct chart_row rows[] = {{"16-bit model", &values[0], NULL},
                                     {"quantized model", &values[1], more}};
    struct axis x = {.label = "perplexity (smaller is better)"};
    axis_add(&x, values[0]);
    axis_add(&x, values[1]);
    axis_settle(&x, true);
    chart_bars(b, "Perplexity of both models", &x, rows, 2, fill);
    strbuf_puts(b, "</figure>\n<figure><table><tbody>\n");
    measured(b, "perplexity, 16-bit model", v->ppl_reference, v->ppl_reference_error, "");
    measured(b, "perplexity, quantized model", v->ppl_model, v->ppl_model_error, "");
    measured(b, "KL divergence from the 16-bit model", v->mean_kl, v->kl_error, " nats per token");
    measured(b, "same most likely token (top-1)", 100 * v->top1, 100 * v->top1_error, " %");
    strbuf_puts(b, "</tbody></table><p class=\"muted\">&#177; one standard error</p></figure></div></section>\n");
}

/* ---- memory and time
 * -------------------------------------------------------------------------------------------- */

static void phase_charts(struct strbuf *b, const struct quantize_result *r)
{
    struct chart_row time_rows[PHASE_COUNT] = {{0}}, memory_rows[PHASE_COUNT] = {{0}};
    double seconds[PHASE_COUNT], bytes[PHASE_COUNT];
    unsigned fill[PHASE_COUNT];
    struct axis t = {.unit = AXIS_SECONDS, .label = "time"},
                m = {.unit = AXIS_BYTES, .label = "device memory"};
    size_t n = 0;
    for (int p = 0; p < PHASE_COUNT; p++) {
        if (!(r->phases[p].seconds > 0) && !r->phases[p].device_bytes)
            continue;
        seconds[n] = r->phases[p].seconds;
        bytes[n] = (double)r->phases[p].device_bytes;
        time_rows[n] = (struct chart_row){.label = phase_name((enum run_phase)p), .values = &seconds[n]};
        memory_rows[n] = (struct chart_row){.label = phase_name((enum run_phase)p), .values = &bytes[n]};
        fill[n] = COLOR_FINAL;
        axis_add(&t, seconds[n]);
        axis_add(&m, bytes[n]);
        n++;
    }
    if (!n)
        return;
    axis_settle(&t, true);
    axis_settle(&m, true);
    strbuf_puts(b, "<figure><h3>Time by part of the run</h3>");
    chart_bars(b, "Time by part of the run", &t, time_rows, n, fill);
    strbuf_puts(b, "</figure>\n<figure><h3>Device memory by part of the run</h3>");
    chart_bars(b, "Device memory by part of the run", &m, memory_rows, n, fill);
    strbuf_puts(b, "</figure>\n");
}

/* The plan's lines, their sum, what was measured, and the limit where it is near enough to be drawn. */
static void plan_chart(struct strbuf *b, const struct plan *p, const struct quantize_result *r)
{
    enum { MOST = sizeof p->lines / sizeof *p->lines + 3 };
    struct chart_row rows[MOST] = {{0}};
    double bytes[MOST];
    unsigned fill[MOST];
    struct axis x = {.unit = AXIS_BYTES, .label = "device memory"};
    size_t n = 0;
    uint64_t most = max_u64(p->device_bytes, r->device_peak);
    for (size_t i = 0; i < p->n_lines + 3; i++) {
        static const char *const names[] = {"planned, in all", "measured peak", "may be used"};
        static const unsigned colors_after[] = {COLOR_GPTQ, COLOR_FINAL, COLOR_RTN};
        size_t extra = i - p->n_lines;
        bool line = i < p->n_lines;
        bytes[n] = line ? (double)p->lines[i].bytes
                        : (double)(extra == 0   ? p->device_bytes
                                   : extra == 1 ? r->device_peak
                                                : p->device_limit);
        if (!(bytes[n] > 0) || (!line && extra == 2 && most < p->device_limit / 4))
            continue;
        rows[n] = (struct chart_row){.label = line ? p->lines[i].name : names[extra], .values = &bytes[n]};
        fill[n] = line ? (unsigned)COLOR_OTHER : colors_after[extra];
        axis_add(&x, bytes[n++]);
    }
    axis_settle(&x, true);
    strbuf_puts(b, "<figure><h3>Device memory at the widest moment</h3>");
    chart_bars(b, "Device memory at the widest moment", &x, rows, n, fill);
    strbuf_puts(b, "</figure>\n");
}

static void put_memory(struct strbuf *b, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    const struct plan *p = in->plan;
    char text[32];
    strbuf_puts(b, "<section id=\"memory\"><h2>Memory and time</h2>\n<dl>\n<dt>device memory</dt><dd>");
    strbuf_printf(b, "%s at its peak", format_bytes(r->device_peak, text, sizeof text));
    if (p) {
        strbuf_printf(b, ", planned %s", format_bytes(p->device_bytes, text, sizeof text));
        strbuf_printf(b, ", of %s that may be used", format_bytes(p->device_limit, text, sizeof text));
    }
    strbuf_printf(b, "</dd>\n<dt>host memory</dt><dd>%s at its peak",
                  format_bytes(r->host_peak, text, sizeof text));
    if (p)
        strbuf_printf(b, ", planned %s", format_bytes(p->host_bytes, text, sizeof text));
    strbuf_puts(b, ", beyond mapped files</dd>\n");
    if (p && in->o->method != METHOD_RTN)
        strbuf_printf(b, "<dt>activations</dt><dd>%s, kept: %s</dd>\n",
                      format_bytes(p->acts_bytes, text, sizeof text), p->acts_tier ? p->acts_tier : "none");
    strbuf_puts(b, "</dl>\n<div class=\"halves\" style=\"margin-top:14px\">\n");
    if (p && p->n_lines)
        plan_chart(b, p, r);
    phase_charts(b, r);
    strbuf_puts(b, "</div></section>\n");
}

/* ---- settings
 * --------------------------------------------------------------------------------------------------- */

static void put_settings(struct strbuf *b, const struct report_input *in)
{
    const char *section = NULL;
    if (in->command) {
        strbuf_puts(b, "<section id=\"command\"><h2>Command</h2>\n<p>The same again, from the folder where it was "
                       "started:</p>\n<pre>");
        html_text(b, in->command);
        strbuf_puts(b, "</pre></section>\n");
    }
    if (!in->n_settings)
        return;
    strbuf_puts(
        b,
        "<section id=\"settings\"><h2>Settings</h2>\n<p>Every option with the value it had. "
        "<span class=\"tag\">set</span> marks what differs from the default; grey ones are not used by this "
        "method.</p>\n<figure><table class=\"set\"><tbody>\n");
    for (size_t i = 0; i < in->n_settings; i++) {
        const struct gsq_setting *s = &in->settings[i];
        if (!section || strcmp(section, s->section) != 0) {
            section = s->section;
            strbuf_puts(b, "<tr><th colspan=\"3\">");
            html_text(b, section);
            strbuf_puts(b, "</th></tr>\n");
        }
        strbuf_printf(b, "<tr%s><td><code>", s->used ? "" : " class=\"unused\"");
        html_text(b, s->name);
        strbuf_puts(b, "</code></td><td class=\"val\"><code>");
        html_text(b, s->value);
        strbuf_printf(b, "</code>%s</td><td class=\"muted\">", s->set ? "<span class=\"tag\">set</span>" : "");
        html_text(b, s->help);
        strbuf_puts(b, "</td></tr>\n");
    }
    strbuf_puts(b, "</tbody></table></figure></section>\n");
}

/* ---- the file
 * --------------------------------------------------------------------------------------------------- */

static bool folder_of(const char *path, char *out, size_t cap, struct err *e)
{
    size_t n = strlen(path);
    while (n && path[n - 1] != '/' && path[n - 1] != '\\')
        n--;
    if (n + 1 > cap || n + 8 > 4096)
        return err_set(e, ERR_USER, "--report: the path is too long: %.200s", path);
    memcpy(out, path, n);
    out[n] = 0;
    while (n > 1 && (out[n - 1] == '/' || out[n - 1] == '\\'))
        out[--n] = 0;
    if (n == 0)
        memcpy(out, ".", 2);
    return true;
}

/* A page of gsq says so in its head. */
static bool is_report(const char *path)
{
    char head[4096];
    FILE *f = os_fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;
    if (f)
        fclose(f);
    head[n] = 0;
    return strstr(head, GENERATOR) != NULL;
}

bool report_html_check(const char *path, const char *out_dir, bool dry_run, bool force, struct err *e)
{
    char folder[4096];
    struct os_out probe;
    if (os_stat(path, NULL) == OS_DIR) {
        err_set(e, ERR_USER, "--report %s is a folder", path);
        return err_hint(e, "give the name of a file, for example %s/report.html", path);
    }
    if (!folder_of(path, folder, sizeof folder, e))
        return false;
    /* No file of a model is called so. */
    if (out_dir && out_same(folder, out_dir) && !str_ends_nocase(path, ".html") && !str_ends_nocase(path, ".htm")) {
        err_set(e, ERR_USER, "--report %s lies in the folder of the result, which may have a file of that name", path);
        return err_hint(e, "give it a name that ends in .html, for example %s/report.html", folder);
    }
    if (os_stat(folder, NULL) != OS_DIR) {
        if (out_dir && out_same(folder, out_dir))
            return true;
        err_set(e, ERR_USER, "--report %s: there is no folder %s", path, folder);
        return err_hint(e, "create it first, or write the report elsewhere");
    }
    bool ok = out_file_check(path, e) &&
              (force || os_stat(path, NULL) != OS_FILE || is_report(path) || out_foreign(path, e)) &&
              (dry_run || os_out_open(&probe, path, e)); /* what the writer will do */
    if (!ok)
        return err_context(e, "--report");
    if (!dry_run)
        os_out_abort(&probe);
    return true;
}

uint64_t report_html_bytes(uint32_t blocks)
{
    return (64 + 16ull * blocks) << 10; /* measured: 35 KiB, and 10 more a block */
}

bool report_html_lock(struct os_lock *l, const char *path, const char *out_dir, bool *made_dir, struct err *e)
{
    char folder[4096];
    *made_dir = false;
    if (!folder_of(path, folder, sizeof folder, e))
        return false;
    if (out_dir && os_stat(folder, NULL) == OS_ABSENT && out_same(folder, out_dir)) {
        if (!os_mkdirs(out_dir, e))
            return false;
        *made_dir = true;
    }
    return out_lock_file(l, path, e) || err_context(e, "--report");
}

bool report_html_write(const char *path, const struct report_input *in, struct err *e)
{
    struct strbuf b = {0};
    put_head(&b, in);
    put_quality(&b, in);
    report_linears(&b, in);
    report_training(&b, in);
    report_codes(&b, in);
    put_memory(&b, in);
    put_settings(&b, in);
    strbuf_printf(&b, "<footer>gsq %s</footer>\n</main>\n</body>\n</html>\n", version_text());
    bool ok = !b.failed || err_nomem(e, "the report", b.size);
    ok = ok && os_write_file(path, b.data, b.size, e);
    strbuf_free(&b);
    return ok;
}
