/* Of the report page: errors of the linears, and what their codes and scales look like. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/report_parts.h"
#include "lib/svg_chart.h"

unsigned report_kind(const char *module)
{
    const char *dot = strrchr(module, '.');
    for (unsigned id = 0; id < LINEAR_COUNT; id++)
        if (strcmp(dot ? dot + 1 : module, linear_short_name((enum linear_id)id)) == 0)
            return id;
    return LINEAR_COUNT;
}

uint32_t report_layer(const char *module)
{
    const char *at = strstr(module, "layers.");
    return at ? (uint32_t)strtoul(at + 7, NULL, 10) : 0;
}

const char *report_kind_name(unsigned kind)
{
    return kind < LINEAR_COUNT ? linear_short_name((enum linear_id)kind) : "other";
}

void report_legend(struct strbuf *b, const unsigned *colors, const char *const *names, size_t n)
{
    strbuf_puts(b, "<p class=\"legend\">");
    for (size_t i = 0; i < n; i++)
        strbuf_printf(b, "<span><i class=\"b%u\"></i>%s</span> ", colors[i], names[i]);
    strbuf_puts(b, "</p>\n");
}

/* ---- errors
 * ----------------------------------------------------------------------------------------------------- */

enum { SERIES = 3 }; /* RTN, GPTQ, final */

/* The series that a run measured. */
struct series {
    size_t n;
    int which[SERIES];
    unsigned colors[SERIES];
    const char *names[SERIES];
};

static void losses_of(const struct linear_report *l, double out[SERIES])
{
    out[0] = l->loss_rtn;
    out[1] = l->loss_gptq;
    out[2] = l->loss_final;
}

/* GPTQ's own result is its final one: no third bar that repeats the second. */
static struct series find_series(const struct quantize_result *r)
{
    static const char *const names[SERIES] = {"RTN (round to nearest)", "GPTQ", "final"};
    static const unsigned colors[SERIES] = {COLOR_RTN, COLOR_GPTQ, COLOR_FINAL};
    bool any[SERIES] = {false}, differs = false;
    for (size_t i = 0; i < r->n_linears; i++) {
        double v[SERIES];
        losses_of(&r->linears[i], v);
        for (int s = 0; s < SERIES; s++)
            any[s] |= isfinite(v[s]) && v[s] > 0;
        differs |= v[1] != v[2];
    }
    struct series out = {0};
    for (int s = 0; s < SERIES; s++) {
        if (!any[s] || (s == 1 && !differs))
            continue;
        out.which[out.n] = s;
        out.colors[out.n] = colors[s];
        out.names[out.n++] = s == 2 && !differs ? "GPTQ" : names[s];
    }
    return out;
}

/* Geometric mean of final / which, over linears that have both; NAN if none. */
static double mean_ratio(const struct quantize_result *r, int which)
{
    double sum = 0, v[SERIES];
    size_t n = 0;
    for (size_t i = 0; i < r->n_linears; i++) {
        losses_of(&r->linears[i], v);
        if (v[which] > 0 && v[2] > 0 && isfinite(v[which]) && isfinite(v[2])) {
            sum += log(v[2] / v[which]);
            n++;
        }
    }
    return n ? exp(sum / (double)n) : NAN;
}

static void overview(struct strbuf *b, const struct quantize_result *r, uint32_t layers)
{
    struct axis x = {.unit = AXIS_COUNT, .label = "block"},
                y = {.log = true, .label = "final error (relative, squared)"};
    struct chart_line lines[LINEAR_COUNT + 1];
    unsigned colors[LINEAR_COUNT + 1];
    const char *names[LINEAR_COUNT + 1];
    size_t n = 0, used = 0;
    double *xs = calloc(2 * r->n_linears + 1, sizeof *xs);
    if (!xs) {
        b->failed = true;
        return;
    }
    for (unsigned kind = 0; kind <= LINEAR_COUNT; kind++) {
        size_t from = used;
        for (size_t i = 0; i < r->n_linears; i++) {
            if (report_kind(r->linears[i].module) != kind)
                continue;
            xs[used] = report_layer(r->linears[i].module) + 1;
            xs[r->n_linears + used] = r->linears[i].loss_final;
            axis_add(&y, xs[r->n_linears + used]);
            used++;
        }
        if (used == from)
            continue;
        colors[n] = COLOR_LINEARS + kind;
        names[n] = report_kind_name(kind);
        lines[n++] = (struct chart_line){.x = xs + from,
                                         .y = xs + r->n_linears + from,
                                         .n = used - from,
                                         .color = COLOR_LINEARS + kind,
                                         .dots = true,
                                         .name = report_kind_name(kind)};
    }
    axis_settle(&y, false);
    x.lo = 0.5;
    x.hi = layers + 0.5;
    struct chart_frame f = {"Final error of every linear, by block", 230, 52, layers < 9 ? layers + 1 : 9, 7};
    report_legend(b, colors, names, n);
    chart_lines(b, &f, &x, &y, lines, n, NULL);
    free(xs);
}

static bool has_note(const struct linear_report *l)
{
    return l->rows_rolled_back || l->damp_raised || l->diagonal_only;
}

static const struct plan_item *find_item(const struct report_input *in, const char *module)
{
    for (size_t i = 0; in->plan && i < in->plan->n_items; i++)
        if (strcmp(in->plan->items[i].module, module) == 0)
            return &in->plan->items[i];
    return NULL;
}

static void note_of(struct strbuf *b, const struct report_input *in, const struct linear_report *l)
{
    const struct plan_item *item = find_item(in, l->module);
    const char *between = "";
    if (l->rows_rolled_back) {
        strbuf_printf(b, "%u ", (unsigned)l->rows_rolled_back);
        if (item)
            strbuf_printf(b, "of %u ", (unsigned)item->rows);
        strbuf_puts(b, "rows rolled back");
        between = ", ";
    }
    if (l->diagonal_only)
        strbuf_printf(b, "%sonly the Hessian's diagonal could be used", between);
    else if (l->damp_raised)
        strbuf_printf(b, "%sdamping raised", between);
}

static void block_notes(struct strbuf *b, const struct report_input *in, const struct linear_report *l,
                        size_t n)
{
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        if (!has_note(&l[i]))
            continue;
        strbuf_puts(b, open ? "" : "<ul class=\"notes\">");
        open = true;
        strbuf_printf(b, "<li><b>%s</b> ", report_kind_name(report_kind(l[i].module)));
        note_of(b, in, &l[i]);
        strbuf_puts(b, "</li>");
    }
    if (open)
        strbuf_puts(b, "</ul>\n");
}

/* "mean 0.012, worst down_proj 0.034, 5 rows rolled back". */
static void block_summary(struct strbuf *b, const struct linear_report *l, size_t n)
{
    double sum = 0;
    size_t measured = 0, worst = 0;
    unsigned rows = 0;
    char text[32];
    for (size_t i = 0; i < n; i++) {
        rows += l[i].rows_rolled_back;
        if (!isfinite(l[i].loss_final))
            continue;
        sum += l[i].loss_final;
        if (!measured || l[i].loss_final > l[worst].loss_final)
            worst = i;
        measured++;
    }
    if (measured) {
        strbuf_printf(b, "mean %s, ", number_text(sum / (double)measured, text, sizeof text));
        strbuf_printf(b, "worst %s %s", report_kind_name(report_kind(l[worst].module)),
                      number_text(l[worst].loss_final, text, sizeof text));
    } else {
        strbuf_puts(b, "not measured");
    }
    if (rows)
        strbuf_printf(b, ", %u row%s rolled back", rows, rows == 1 ? "" : "s");
}

static void block_chart(struct strbuf *b, const struct report_input *in, const struct series *s,
                        const struct axis *x, const struct linear_report *l, size_t n)
{
    struct chart_row rows[2 * LINEAR_COUNT] = {{0}};
    double values[2 * LINEAR_COUNT][SERIES];
    char title[64];
    if (n > 2 * LINEAR_COUNT)
        n = 2 * LINEAR_COUNT;
    for (size_t i = 0; i < n; i++) {
        double v[SERIES];
        losses_of(&l[i], v);
        for (size_t k = 0; k < s->n; k++)
            values[i][k] = v[s->which[k]];
        rows[i] =
            (struct chart_row){.label = report_kind_name(report_kind(l[i].module)), .values = values[i]};
    }
    snprintf(title, sizeof title, "Errors of the linears of block %u", (unsigned)report_layer(l->module) + 1);
    struct chart_frame f = {.title = title, .left = 76, .x_ticks = 5};
    chart_groups(b, &f, x, rows, n, s->colors, s->names, s->n);
    block_notes(b, in, l, n);
}

static void all_blocks(struct strbuf *b, const struct report_input *in, const struct series *s,
                       uint32_t layers)
{
    const struct quantize_result *r = in->result;
    struct axis x = {.log = true, .label = "relative squared error of the output"};
    bool fold = layers > MANY_BLOCKS;
    for (size_t i = 0; i < r->n_linears; i++) {
        double v[SERIES];
        losses_of(&r->linears[i], v);
        for (int k = 0; k < SERIES; k++)
            axis_add(&x, v[k]);
    }
    axis_settle(&x, true);
    report_legend(b, s->colors, s->names, s->n);
    strbuf_puts(b, fold ? "<div class=\"folds\">\n" : "<div class=\"cards wide\">\n");
    for (size_t i = 0, n; i < r->n_linears; i += n) {
        uint32_t layer = report_layer(r->linears[i].module);
        for (n = 1; i + n < r->n_linears && report_layer(r->linears[i + n].module) == layer; n++)
            ;
        strbuf_printf(b,
                      fold ? "<details><summary>Block %u <span class=\"muted\">"
                           : "<figure><h3>Block %u <span class=\"muted\">",
                      (unsigned)layer + 1);
        block_summary(b, r->linears + i, n);
        strbuf_puts(b, fold ? "</span></summary>\n" : "</span></h3>\n");
        block_chart(b, in, s, &x, r->linears + i, n);
        strbuf_puts(b, fold ? "</details>\n" : "</figure>\n");
    }
    strbuf_puts(b, "</div>\n");
}

static void table_of_linears(struct strbuf *b, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    char text[32];
    strbuf_printf(b, "<details><summary>All %llu linears as a table</summary>\n",
                  (unsigned long long)r->n_linears);
    strbuf_puts(
        b,
        "<div class=\"scroll\"><table><thead><tr><th>module</th><th class=\"num\">RTN</th>"
        "<th class=\"num\">GPTQ</th><th class=\"num\">final</th><th class=\"num\">seconds</th><th>notes</th>"
        "</tr></thead><tbody>\n");
    for (size_t i = 0; i < r->n_linears; i++) {
        const struct linear_report *l = &r->linears[i];
        double v[SERIES];
        losses_of(l, v);
        strbuf_puts(b, "<tr><td>");
        html_text(b, l->module);
        strbuf_puts(b, "</td>");
        for (int s = 0; s < SERIES; s++)
            strbuf_printf(b, "<td class=\"num\">%s</td>", number_text(v[s], text, sizeof text));
        strbuf_printf(b, "<td class=\"num\">%.1f</td><td>", isfinite(l->seconds) ? l->seconds : 0.0);
        note_of(b, in, l);
        strbuf_puts(b, "</td></tr>\n");
    }
    strbuf_puts(b, "</tbody></table></div></details>\n");
}

/* What the rules left in 16 bits. */
static void kept_linears(struct strbuf *b, const struct report_input *in)
{
    size_t kept = 0;
    for (size_t i = 0; in->plan && i < in->plan->n_items; i++)
        kept += in->plan->items[i].keep;
    if (!kept)
        return;
    strbuf_printf(b, "<details><summary>%llu linear%s stayed in 16 bits</summary><p class=\"list\">",
                  (unsigned long long)kept, kept == 1 ? "" : "s");
    for (size_t i = 0; i < in->plan->n_items; i++) {
        if (!in->plan->items[i].keep)
            continue;
        strbuf_puts(b, "<code>");
        html_text(b, in->plan->items[i].module);
        strbuf_puts(b, "</code> ");
    }
    strbuf_puts(b, "</p></details>\n");
}

static void tell_ratios(struct strbuf *b, const struct quantize_result *r)
{
    double rtn = mean_ratio(r, 0), gptq = mean_ratio(r, 1);
    if (!isfinite(rtn) && !isfinite(gptq))
        return;
    strbuf_puts(b, "<p>On average (geometric mean) the final error is ");
    if (isfinite(rtn))
        strbuf_printf(b, "<b>%.1f&#160;%%</b> of round-to-nearest's", 100 * rtn);
    if (isfinite(gptq) && fabs(gptq - 1) > 1e-6)
        strbuf_printf(b, "%s<b>%.1f&#160;%%</b> of GPTQ's", isfinite(rtn) ? " and " : "", 100 * gptq);
    strbuf_puts(b, ".</p>\n");
}

void report_linears(struct strbuf *b, const struct report_input *in)
{
    const struct quantize_result *r = in->result;
    uint32_t layers = 0;
    unsigned noted = 0;
    struct series s = find_series(r);
    for (size_t i = 0; i < r->n_linears; i++) {
        uint32_t layer = report_layer(r->linears[i].module);
        layers = layer + 1 > layers ? layer + 1 : layers;
        noted += has_note(&r->linears[i]);
    }
    strbuf_puts(b, "<section id=\"linears\"><h2>Errors of the linears</h2>\n");
    if (!r->n_linears) {
        strbuf_puts(b, "<p>No linear was quantized.</p>\n");
    } else if (!s.n) {
        strbuf_puts(
            b,
            "<p>Not measured: rounding to nearest reads no text, and the error of a linear's output is taken "
            "on calibration text. <code>--method gptq</code> and <code>gsq</code> measure it.</p>\n");
    } else {
        strbuf_puts(b, "<p>Squared error of each linear's output on the calibration text, relative to the "
                       "squared output "
                       "itself: tr(D&#8239;H&#8239;D&#7488;) / tr(W&#8239;H&#8239;W&#7488;), D the change of "
                       "the weights W, H "
                       "the Hessian of the inputs. 0 is a perfect copy, 1 as bad as no linear at all.</p>\n");
        tell_ratios(b, r);
        if (r->n_stages)
            strbuf_puts(
                b, "<p class=\"muted\">Of each linear alone, before it was trained together with its half of "
                   "the block.</p>\n");
        if (layers > 1) {
            strbuf_puts(b, "<figure>");
            overview(b, r, layers);
            strbuf_puts(b, "</figure>\n");
        }
        all_blocks(b, in, &s, layers);
        if (noted)
            strbuf_puts(
                b, "<p class=\"muted\">Rows are rolled back where the start was better on held-out windows. "
                   "Damping is raised where the Hessian was not positive definite.</p>\n");
    }
    kept_linears(b, in);
    if (r->n_linears)
        table_of_linears(b, in);
    strbuf_puts(b, "</section>\n");
}

/* ---- codes and scales
 * ------------------------------------------------------------------------------------------- */

/* Counts of all linears of one kind with the same codes. */
struct tally {
    unsigned kind, linears;
    struct code_stats s;
    uint64_t n_codes, n_scales;
};
enum { TALLIES = 4 * (LINEAR_COUNT + 1) };

static size_t tally_codes(const struct quantize_result *r, struct tally *t)
{
    size_t n = 0;
    for (unsigned kind = 0; kind <= LINEAR_COUNT; kind++) {
        size_t from = n;
        for (size_t i = 0; i < r->n_linears; i++) {
            const struct code_stats *s = &r->linears[i].stats;
            size_t at = from;
            if (report_kind(r->linears[i].module) != kind)
                continue;
            while (at < n && (t[at].s.lo != s->lo || t[at].s.bins != s->bins))
                at++;
            if (at == TALLIES || s->bins > CODE_BINS)
                continue;
            if (at == n)
                t[n++] = (struct tally){.kind = kind, .s = {.lo = s->lo, .bins = s->bins}};
            t[at].linears++;
            for (unsigned c = 0; c < s->bins; c++) {
                t[at].s.codes[c] += s->codes[c];
                t[at].n_codes += s->codes[c];
            }
            for (unsigned c = 0; c < SCALE_BINS; c++) {
                t[at].s.scales[c] += s->scales[c];
                t[at].n_scales += s->scales[c];
            }
            t[at].n_scales += s->zero;
            t[at].s.negative += s->negative;
            t[at].s.zero += s->zero;
        }
    }
    return n;
}

static void open_card(struct strbuf *b, const struct tally *t)
{
    strbuf_printf(b, "<figure><h3>%s <span class=\"muted\">%u linear%s</span></h3>",
                  report_kind_name(t->kind), t->linears, t->linears == 1 ? "" : "s");
}

static void code_card(struct strbuf *b, const struct tally *t, const struct axis *y)
{
    double share[CODE_BINS], entropy = 0;
    struct axis x = {
        .unit = AXIS_COUNT, .label = "code", .lo = t->s.lo - 0.6, .hi = t->s.lo + (double)t->s.bins - 0.4};
    for (unsigned c = 0; c < t->s.bins; c++) {
        share[c] = (double)t->s.codes[c] / (double)t->n_codes;
        entropy -= share[c] > 0 ? share[c] * log2(share[c]) : 0;
    }
    struct chart_frame f = {"How often each code occurs", 96, 44, 9, 4};
    struct chart_bins bins = {share, t->s.bins, t->s.lo, 1, true, COLOR_LINEARS + t->kind};
    open_card(b, t);
    chart_histogram(b, &f, &x, y, &bins);
    strbuf_printf(b, "<figcaption>entropy %.2f of %.2f bits</figcaption></figure>\n", entropy,
                  log2((double)t->s.bins));
}

static void scale_card(struct strbuf *b, const struct tally *t, const struct axis *x, const struct axis *y)
{
    double share[SCALE_BINS];
    for (unsigned c = 0; c < SCALE_BINS; c++)
        share[c] = (double)t->s.scales[c] / (double)t->n_scales;
    struct chart_frame f = {"How large the scales are", 96, 44, 5, 4};
    struct chart_bins bins = {share, SCALE_BINS, SCALE_LOW, 0.5, false, COLOR_LINEARS + t->kind};
    open_card(b, t);
    chart_histogram(b, &f, x, y, &bins);
    strbuf_printf(b, "<figcaption>%.1f %% negative", 100 * (double)t->s.negative / (double)t->n_scales);
    if (t->s.zero)
        strbuf_printf(b, ", %llu zero", (unsigned long long)t->s.zero);
    strbuf_puts(b, "</figcaption></figure>\n");
}

void report_codes(struct strbuf *b, const struct report_input *in)
{
    struct tally *t = calloc(TALLIES, sizeof *t);
    if (!t) {
        b->failed = true;
        return;
    }
    size_t n = tally_codes(in->result, t);
    struct axis y_codes = {.unit = AXIS_PERCENT, .label = "share of the weights"};
    struct axis x_scales = {.unit = AXIS_POWER_OF_2, .label = "size of the scale |s|"};
    struct axis y_scales = {.unit = AXIS_PERCENT, .label = "share of the scales"};
    bool wide = false;
    for (size_t i = 0; i < n; i++) {
        wide |= t[i].s.bins == 0 && t[i].n_scales;
        for (unsigned c = 0; c < t[i].s.bins && t[i].n_codes; c++)
            axis_add(&y_codes, (double)t[i].s.codes[c] / (double)t[i].n_codes);
        for (unsigned c = 0; c < SCALE_BINS && t[i].n_scales; c++) {
            if (!t[i].s.scales[c])
                continue;
            axis_add(&y_scales, (double)t[i].s.scales[c] / (double)t[i].n_scales);
            axis_add(&x_scales, SCALE_LOW + 0.5 * c);
            axis_add(&x_scales, SCALE_LOW + 0.5 * (c + 1));
        }
    }
    strbuf_puts(b, "<section id=\"codes\"><h2>Codes and scales</h2>\n");
    if (!y_codes.any && !x_scales.any)
        strbuf_puts(b, "<p>Not recorded by this run.</p>\n");
    axis_settle(&y_codes, true);
    axis_settle(&y_scales, true);
    if (y_codes.any) {
        strbuf_puts(
            b, "<p>A weight is its code times the scale of its group. Each kind of linear is summed over the "
               "blocks.</p>\n<h3>Codes</h3>\n<div class=\"cards\">\n");
        for (size_t i = 0; i < n; i++)
            if (t[i].n_codes)
                code_card(b, &t[i], &y_codes);
        strbuf_puts(b, "</div>\n");
    }
    if (wide)
        strbuf_puts(b, "<p class=\"muted\">Codes of more than 4 bits are not counted.</p>\n");
    if (x_scales.any) {
        strbuf_puts(
            b,
            "<h3>Scales</h3>\n<p>A negative scale turns its group's codes round: grids such as -2..1 reach "
            "further on one side.</p>\n<div class=\"cards\">\n");
        for (size_t i = 0; i < n; i++)
            if (t[i].n_scales)
                scale_card(b, &t[i], &x_scales, &y_scales);
        strbuf_puts(b, "</div>\n");
    }
    strbuf_puts(b, "</section>\n");
    free(t);
}
