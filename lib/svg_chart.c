#include "lib/svg_chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/clean.h"
#include "host/base/num.h"

/* ---- text
 * ------------------------------------------------------------------------------------------------------- */

void html_text(struct strbuf *b, const char *s)
{
    size_t n = strlen(s), cap = n * CLEAN_GROWTH + 1;
    char few[512], *clean = cap <= sizeof few ? few : malloc(cap);
    if (!clean) {
        b->failed = true;
        return;
    }
    clean_text(clean, cap, s, n, true);
    for (const char *p = clean; *p; p++) {
        if (*p == '&')
            strbuf_puts(b, "&amp;");
        else if (*p == '<')
            strbuf_puts(b, "&lt;");
        else if (*p == '>')
            strbuf_puts(b, "&gt;");
        else if (*p == '"')
            strbuf_puts(b, "&quot;");
        else if (*p == '\'')
            strbuf_puts(b, "&#39;");
        else
            strbuf_add(b, p, 1);
    }
    if (clean != few)
        free(clean);
}

const char *number_text(double v, char *out, size_t cap)
{
    if (!isfinite(v))
        snprintf(out, cap, "\xE2\x80\x93");
    else if (v != 0 && (fabs(v) < 1e-4 || fabs(v) >= 1e6))
        snprintf(out, cap, "%.2e", v);
    else
        snprintf(out, cap, "%.4g", v);
    return out;
}

const char *unit_text(enum axis_unit unit, double v, char *out, size_t cap)
{
    if (!isfinite(v))
        return number_text(v, out, cap);
    switch (unit) {
    case AXIS_PERCENT:
        snprintf(out, cap, "%.3g %%", 100 * v);
        return out;
    case AXIS_BYTES:
        return format_bytes(v < 0 ? 0 : v < 0x1p63 ? (uint64_t)v : UINT64_MAX, out, cap);
    case AXIS_SECONDS:
        if (v < 10)
            snprintf(out, cap, "%.2g s", v);
        else
            format_seconds(v, out, cap);
        return out;
    case AXIS_POWER_OF_2:
    case AXIS_COUNT:
    case AXIS_NUMBER:
        break;
    }
    return number_text(v, out, cap);
}

/* Of a tick, as SVG: short, and all ticks of an axis in one unit. */
static const char *tick_text(const struct axis *a, double v, char *out, size_t cap)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    switch (a->unit) {
    case AXIS_BYTES:
        for (double hi = a->hi; hi >= 1024 && unit < 4; hi /= 1024)
            unit++;
        snprintf(out, cap, "%.4g %s", ldexp(v, -10 * unit), names[unit]);
        return out;
    case AXIS_SECONDS:
        if (v >= 60)
            return format_seconds(v, out, cap);
        snprintf(out, cap, "%.4g s", v);
        return out;
    case AXIS_PERCENT:
        snprintf(out, cap, "%.4g %%", 100 * v);
        return out;
    case AXIS_POWER_OF_2:
        snprintf(out, cap, "2<tspan class=\"s\" dy=\"-5\">%.4g</tspan>", v);
        return out;
    case AXIS_COUNT:
    case AXIS_NUMBER:
        break;
    }
    if (v != 0 && (fabs(v) < 1e-3 || fabs(v) >= 1e5)) {
        int e = (int)floor(log10(fabs(v)) + 1e-9);
        snprintf(out, cap, "%.3ge%d", v / pow(10, e), e);
    } else {
        snprintf(out, cap, "%.4g", v);
    }
    return out;
}

/* ---- axes
 * ------------------------------------------------------------------------------------------------------- */

/* What is absurdly far away would leave nothing to see of the rest. */
static bool drawable(const struct axis *a, double v)
{
    return isfinite(v) && fabs(v) < 1e30 && (!a->log || v > 1e-30);
}

void axis_add(struct axis *a, double v)
{
    if (!drawable(a, v))
        return;
    a->lo = a->any && a->lo < v ? a->lo : v;
    a->hi = a->any && a->hi > v ? a->hi : v;
    a->any = true;
}

/* Where bars of a log axis begin: a round value well below the smallest, so that its bar is still seen. */
static double below(double v)
{
    double power = pow(10, floor(log10(v / 2)));
    return v / 2 >= 5 * power ? 5 * power : v / 2 >= 2 * power ? 2 * power : power;
}

void axis_settle(struct axis *a, bool from_zero)
{
    if (!a->any) {
        a->lo = a->log ? 0.1 : 0;
        a->hi = 1;
    } else if (a->log) {
        double room = from_zero ? 0 : 0.06 * log10(a->hi / a->lo) + 0.02;
        a->lo = from_zero ? below(a->lo) : a->lo * pow(10, -room);
        a->hi *= pow(10, room);
    } else if (from_zero) {
        a->lo = a->lo < 0 ? a->lo : 0;
        a->hi = a->hi > 0 ? a->hi : a->lo < 0 ? 0 : 1;
    } else {
        /* Also where all values are (nearly) the same, so that ticks differ in their first digits. */
        double room = fmax(0.06 * (a->hi - a->lo), 0.005 * fmax(fabs(a->lo), fabs(a->hi)));
        room = room > 0 ? room : 0.5;
        a->lo -= room;
        a->hi += room;
    }
}

static double axis_map(const struct axis *a, double v)
{
    return a->log ? log10(v) : v;
}

double axis_at(const struct axis *a, double v)
{
    if (!drawable(a, v))
        return 0;
    double lo = axis_map(a, a->lo), hi = axis_map(a, a->hi);
    double at = hi > lo ? (axis_map(a, v) - lo) / (hi - lo) : 0.5;
    return at > 0 ? at < 1 ? at : 1 : 0;
}

/* Multiples of 1, 2 or 5 times a power of ten (of bytes: of two; of minutes and hours: round on a clock). */
static unsigned linear_ticks(const struct axis *a, unsigned at_most, double *out)
{
    enum { CLOCK_STEPS = 13 };
    static const double clock_steps[CLOCK_STEPS] = {10,   20,   30,   60,   120,   300,  600,
                                                    1200, 1800, 3600, 7200, 21600, 43200};
    static const double steps[] = {1, 2, 5};
    double span = a->hi - a->lo, unit = 1;
    if (a->unit == AXIS_BYTES)
        while (unit * 1024 <= a->hi && unit < 1e15)
            unit *= 1024;
    double power = pow(10, floor(log10(span / unit / at_most)));
    if (!(power > 0) || !isfinite(power))
        return 0;
    for (int round = 0; round < 60; round++) {
        double step = steps[round % 3] * power * unit * pow(10, round / 3);
        if (a->unit == AXIS_SECONDS && a->hi >= 60)
            step = round < CLOCK_STEPS ? clock_steps[round] : 86400 * pow(2, round - CLOCK_STEPS);
        double first = ceil(a->lo / step - 1e-9), end = a->hi + 1e-9 * span;
        if (step < 1 && (a->unit == AXIS_POWER_OF_2 || a->unit == AXIS_COUNT))
            continue;
        if ((first + at_most) * step <= end)
            continue; /* too dense */
        unsigned n = 0;
        while (n < at_most && (first + n) * step <= end) {
            out[n] = (first + n) * step;
            n++;
        }
        return n;
    }
    return 0;
}

/* Powers of ten, with these digits in front of every `decades`-th. False if they are too many. */
static bool log_ticks(const struct axis *a, int decades, const char *digits, unsigned at_most, double *out,
                      unsigned *n)
{
    int first = (int)floor(log10(a->lo)) - 1, last = (int)ceil(log10(a->hi)) + 1;
    *n = 0;
    for (int e = first; e <= last; e++) {
        for (const char *d = digits; *d && e % decades == 0; d++) {
            double v = (*d - '0') * pow(10, e);
            if (v < a->lo * (1 - 1e-9) || v > a->hi * (1 + 1e-9))
                continue;
            if (*n == at_most)
                return false;
            out[(*n)++] = v;
        }
    }
    return true;
}

unsigned axis_ticks(const struct axis *a, unsigned at_most, double out[AXIS_TICKS])
{
    static const struct {
        int decades;
        const char *digits;
    } sets[] = {{1, "123456789"}, {1, "12357"}, {1, "125"}, {1, "13"}, {1, "1"},
                {2, "1"},         {3, "1"},     {5, "1"},   {10, "1"}, {100, "1"}};
    at_most = at_most < AXIS_TICKS ? at_most : AXIS_TICKS;
    unsigned n = 0;
    /* The densest of these that is not too dense. */
    for (size_t s = 0; a->log && s < sizeof sets / sizeof *sets; s++)
        if (log_ticks(a, sets[s].decades, sets[s].digits, at_most, out, &n))
            break;
    return a->log && (n >= 3 || a->hi > 10 * a->lo) ? n : linear_ticks(a, at_most, out);
}

/* ---- the frame
 * --------------------------------------------------------------------------------------------------- */

static void open_plot(struct strbuf *b, const char *title, unsigned top, unsigned right, unsigned bottom,
                      unsigned left, unsigned height)
{
    strbuf_printf(
        b,
        "<div class=\"plot\" style=\"padding:%upx %upx %upx %upx\"><svg width=\"100%%\" height=\"%u\" "
        "role=\"img\" aria-label=\"",
        top, right, bottom, left, height);
    html_text(b, title ? title : "");
    strbuf_puts(b, "\">");
}

static void close_plot(struct strbuf *b)
{
    strbuf_puts(b, "</svg></div>\n");
}

/* Upright grid lines, their values below the plot, and the axis' name below those. */
static void draw_x(struct strbuf *b, const struct axis *a, unsigned at_most, unsigned height, bool grid)
{
    double ticks[AXIS_TICKS];
    char text[64];
    unsigned n = axis_ticks(a, at_most, ticks);
    for (unsigned i = 0; i < n; i++) {
        double at = 100 * axis_at(a, ticks[i]);
        if (grid)
            strbuf_printf(b, "<line class=\"g\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"0\" y2=\"%u\"/>", at, at,
                          height);
        strbuf_printf(b, "<text class=\"t m\" x=\"%.2f%%\" y=\"%u\">%s</text>", at, height + 15,
                      tick_text(a, ticks[i], text, sizeof text));
    }
    if (a->label) {
        strbuf_printf(b, "<text class=\"t e\" x=\"100%%\" y=\"%u\">", height + 31);
        html_text(b, a->label);
        strbuf_puts(b, "</text>");
    }
}

/* Level grid lines with values at their left, and the axis' name above. */
static void draw_y(struct strbuf *b, const struct axis *a, unsigned at_most, unsigned height, unsigned left)
{
    double ticks[AXIS_TICKS];
    char text[64];
    unsigned n = axis_ticks(a, at_most, ticks);
    for (unsigned i = 0; i < n; i++) {
        double y = height * (1 - axis_at(a, ticks[i]));
        strbuf_printf(b,
                      "<line class=\"g\" x1=\"0\" x2=\"100%%\" y1=\"%.1f\" y2=\"%.1f\"/>"
                      "<text class=\"t e\" x=\"-6\" y=\"%.1f\">%s</text>",
                      y, y, y + 4, tick_text(a, ticks[i], text, sizeof text));
    }
    if (a->label) {
        strbuf_printf(b, "<text class=\"t\" x=\"-%u\" y=\"-9\">", left > 4 ? left - 4 : 0);
        html_text(b, a->label);
        strbuf_puts(b, "</text>");
    }
}

/* ---- lines
 * ------------------------------------------------------------------------------------------------------- */

/* Coordinates run to this in the inner drawing, which is stretched to the plot. */
#define STRETCH 1000.0

static void draw_line(struct strbuf *b, const struct axis *x, const struct axis *y,
                      const struct chart_line *l)
{
    size_t i = 0;
    while (i < l->n) {
        size_t end = i;
        while (end < l->n && drawable(x, l->x[end]) && drawable(y, l->y[end]))
            end++;
        if (end - i >= 2) {
            strbuf_printf(b, "<polyline class=\"l%s k%u\" points=\"", l->dashed ? " d" : "", l->color);
            for (size_t p = i; p < end; p++)
                strbuf_printf(b, "%s%.0f,%.0f", p > i ? " " : "", STRETCH * axis_at(x, l->x[p]),
                              STRETCH * (1 - axis_at(y, l->y[p])));
            strbuf_puts(b, "\"/>");
        }
        i = end > i ? end : i + 1;
    }
}

static void draw_dots(struct strbuf *b, const struct axis *x, const struct axis *y,
                      const struct chart_line *l, unsigned height, const char *radius)
{
    char xt[32], yt[32];
    for (size_t i = 0; i < l->n; i++) {
        if (!drawable(x, l->x[i]) || !drawable(y, l->y[i]))
            continue;
        strbuf_printf(b, "<circle class=\"p k%u\" cx=\"%.2f%%\" cy=\"%.1f\" r=\"%s\"><title>", l->color,
                      100 * axis_at(x, l->x[i]), height * (1 - axis_at(y, l->y[i])), radius);
        if (l->name) {
            html_text(b, l->name);
            strbuf_puts(b, ", ");
        }
        if (x->label) {
            html_text(b, x->label);
            strbuf_puts(b, " ");
        }
        strbuf_printf(b, "%s: %s</title></circle>", unit_text(x->unit, l->x[i], xt, sizeof xt),
                      unit_text(y->unit, l->y[i], yt, sizeof yt));
    }
}

void chart_lines(struct strbuf *b, const struct chart_frame *f, const struct axis *x, const struct axis *y,
                 const struct chart_line *lines, size_t n_lines, const struct chart_line *marks)
{
    open_plot(b, f->title, y->label ? 24 : 10, 14, x->label ? 36 : 20, f->left, f->height);
    draw_y(b, y, f->y_ticks, f->height, f->left);
    draw_x(b, x, f->x_ticks, f->height, false);
    strbuf_printf(b, "<line class=\"a\" x1=\"0\" x2=\"100%%\" y1=\"%u\" y2=\"%u\"/>", f->height, f->height);
    strbuf_printf(b,
                  "<svg width=\"100%%\" height=\"%u\" viewBox=\"0 0 %.0f %.0f\" preserveAspectRatio=\"none\" "
                  "overflow=\"visible\">",
                  f->height, STRETCH, STRETCH);
    for (size_t i = 0; i < n_lines; i++)
        draw_line(b, x, y, &lines[i]);
    strbuf_puts(b, "</svg>");
    for (size_t i = 0; i < n_lines; i++)
        if (lines[i].dots || lines[i].n == 1)
            draw_dots(b, x, y, &lines[i], f->height, "2.5");
    if (marks)
        draw_dots(b, x, y, marks, f->height, "4.5");
    close_plot(b);
}

/* ---- bars
 * ------------------------------------------------------------------------------------------------------- */

static void draw_bar(struct strbuf *b, const struct axis *x, double v, double y, unsigned height,
                     unsigned color, const char *label, const char *name)
{
    char text[32];
    strbuf_printf(b,
                  "<rect class=\"f%u\" x=\"0\" y=\"%.1f\" width=\"%.2f%%\" height=\"%u\" rx=\"1.5\"><title>",
                  color, y, 100 * axis_at(x, v), height);
    html_text(b, label);
    if (name) {
        strbuf_puts(b, ", ");
        html_text(b, name);
    }
    strbuf_printf(b, ": %s</title></rect>", unit_text(x->unit, v, text, sizeof text));
}

void chart_groups(struct strbuf *b, const struct chart_frame *f, const struct axis *x,
                  const struct chart_row *rows, size_t n_rows, const unsigned *colors,
                  const char *const *names, size_t n_series)
{
    enum { BAR = 7, STEP = 8, GAP = 9 };
    unsigned row_height = (unsigned)n_series * STEP + GAP, height = (unsigned)n_rows * row_height;
    char text[32];
    open_plot(b, f->title, 4, 58, x->label ? 36 : 20, f->left, height);
    draw_x(b, x, f->x_ticks, height, true);
    for (size_t r = 0; r < n_rows; r++) {
        double top = (double)r * row_height + GAP / 2.0, last = NAN;
        strbuf_printf(b, "<text class=\"n e\" x=\"-8\" y=\"%.1f\">", top + n_series * STEP / 2.0 + 4);
        html_text(b, rows[r].label);
        strbuf_puts(b, "</text>");
        for (size_t s = 0; s < n_series; s++) {
            double v = rows[r].values[s];
            if (!drawable(x, v))
                continue;
            draw_bar(b, x, v, top + (double)s * STEP, BAR, colors[s], rows[r].label, names[s]);
            last = v;
        }
        if (isfinite(
                last)) /* behind the longest bar would be far away: behind the last, which is the final one */
            strbuf_printf(b, "<text class=\"t\" x=\"100%%\" dx=\"6\" y=\"%.1f\">%s</text>",
                          top + n_series * STEP / 2.0 + 4, number_text(last, text, sizeof text));
        else
            strbuf_printf(b, "<text class=\"t\" x=\"6\" y=\"%.1f\">%s</text>",
                          top + n_series * STEP / 2.0 + 4, rows[r].note ? rows[r].note : "not measured");
    }
    strbuf_printf(b, "<line class=\"a\" x1=\"0\" x2=\"0\" y1=\"0\" y2=\"%u\"/>", height);
    close_plot(b);
}

void chart_bars(struct strbuf *b, const char *title, const struct axis *x, const struct chart_row *rows,
                size_t n_rows, const unsigned *colors)
{
    enum { ROW = 38, BAR = 11, TEXT = 20 };
    unsigned height = (unsigned)n_rows * ROW;
    char text[32];
    open_plot(b, title, 2, 12, x->label ? 38 : 22, 12, height);
    draw_x(b, x, 5, height, true);
    for (size_t r = 0; r < n_rows; r++) {
        double top = (double)r * ROW, v = rows[r].values[0];
        strbuf_printf(b, "<text class=\"n\" x=\"4\" y=\"%.1f\">", top + TEXT - 3);
        html_text(b, rows[r].label);
        strbuf_printf(b, "</text><text class=\"n e v\" x=\"100%%\" y=\"%.1f\">%s", top + TEXT - 3,
                      unit_text(x->unit, v, text, sizeof text));
        if (rows[r].note) {
            strbuf_puts(b, " ");
            html_text(b, rows[r].note);
        }
        strbuf_puts(b, "</text>");
        if (drawable(x, v))
            draw_bar(b, x, v, top + TEXT + 1, BAR, colors[r], rows[r].label, NULL);
    }
    strbuf_printf(b, "<line class=\"a\" x1=\"0\" x2=\"0\" y1=\"0\" y2=\"%u\"/>", height);
    close_plot(b);
}

void chart_histogram(struct strbuf *b, const struct chart_frame *f, const struct axis *x,
                     const struct axis *y, const struct chart_bins *bins)
{
    char text[32];
    open_plot(b, f->title, y->label ? 24 : 10, 10, x->label ? 36 : 20, f->left, f->height);
    draw_y(b, y, f->y_ticks, f->height, f->left);
    draw_x(b, x, f->x_ticks, f->height, false);
    for (size_t i = 0; i < bins->n; i++) {
        double from = bins->first + (double)i * bins->step - (bins->centred ? bins->step / 2 : 0);
        double left = axis_at(x, from), right = axis_at(x, from + bins->step),
               h = f->height * axis_at(y, bins->share[i]);
        if (!(bins->share[i] > 0) || !(right > left))
            continue;
        h = h > 0.8 ? h : 0.8;
        double gap = (right - left) * (bins->centred ? 0.12 : 0.06);
        strbuf_printf(
            b,
            "<rect class=\"f%u\" x=\"%.2f%%\" y=\"%.1f\" width=\"%.2f%%\" height=\"%.1f\" rx=\"1\"><title>",
            bins->color, 100 * (left + gap), f->height - h, 100 * (right - left - 2 * gap), h);
        if (bins->centred)
            strbuf_printf(b, "code %.0f: ", bins->first + (double)i);
        else
            strbuf_printf(b, "2^%.3g to 2^%.3g: ", from, from + bins->step);
        strbuf_printf(b, "%s</title></rect>", unit_text(AXIS_PERCENT, bins->share[i], text, sizeof text));
    }
    strbuf_printf(b, "<line class=\"a\" x1=\"0\" x2=\"100%%\" y1=\"%u\" y2=\"%u\"/>", f->height, f->height);
    close_plot(b);
}
