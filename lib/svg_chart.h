/* Charts as inline SVG in an HTML page. They are as wide as their column: x runs in percent, y in pixels, so
 * that text keeps its size on a phone. Colours are CSS classes c0..c9, defined by the page. Values that are
 * not finite (or not positive on a log axis) are left out; nothing but numbers gets into an attribute. */
#ifndef LIB_SVG_CHART_H
#define LIB_SVG_CHART_H

#include "host/base/str.h"

/* Text for HTML, between tags or in an attribute: <, >, & and quotes escaped; cleaned (clean.h), with its
 * lines. */
void html_text(struct strbuf *b, const char *s);
/* "0.0123", "3.2e-5"; a dash for what is not finite. Returns out. */
const char *number_text(double v, char *out, size_t cap);

enum axis_unit { AXIS_NUMBER, AXIS_COUNT, AXIS_PERCENT, AXIS_BYTES, AXIS_SECONDS, AXIS_POWER_OF_2 };
/* A value of this unit with its name: "1.2 GiB", "4:05", "12 %". Returns out. */
const char *unit_text(enum axis_unit unit, double v, char *out, size_t cap);

/* A range of values. Start from {.log = ..., .unit = ...}, add values, then settle. */
struct axis {
    bool log;
    enum axis_unit unit;
    const char *label; /* what it measures, with the unit if ticks do not say it; may be NULL */
    double lo, hi;
    bool any; /* lo and hi are values */
};
void axis_add(struct axis *a, double v);
/* Room beyond the values. from_zero: bars begin at 0, or on a log axis below the smallest value. */
void axis_settle(struct axis *a, bool from_zero);
/* Where v lies, 0..1, cut at both ends. */
double axis_at(const struct axis *a, double v);
enum { AXIS_TICKS = 16 };
/* Round values in the range, at most `at_most` (>= 2). Returns how many. */
unsigned axis_ticks(const struct axis *a, unsigned at_most, double out[AXIS_TICKS]);

/* One line through points; y not finite: a gap. */
struct chart_line {
    const double *x, *y;
    size_t n;
    unsigned color;
    bool dashed, dots;
    const char *name; /* in tooltips; may be NULL */
};
struct chart_frame {
    const char *title; /* said to screen readers */
    unsigned height;   /* pixels of the plot itself */
    unsigned left;     /* pixels for the labels of y */
    unsigned x_ticks, y_ticks;
};
void chart_lines(struct strbuf *b, const struct chart_frame *f, const struct axis *x, const struct axis *y,
                 const struct chart_line *lines, size_t n_lines, const struct chart_line *marks);

/* Rows of bars, from the left. A row has a bar per series. */
struct chart_row {
    const char *label;
    const double *values; /* [n_series] */
    const char *note;     /* behind the last bar; may be NULL */
};
/* Short labels stand left of the bars. colors[n_series], names[n_series]. */
void chart_groups(struct strbuf *b, const struct chart_frame *f, const struct axis *x,
                  const struct chart_row *rows, size_t n_rows, const unsigned *colors,
                  const char *const *names, size_t n_series);
/* One bar per row, its label and value above it. */
void chart_bars(struct strbuf *b, const char *title, const struct axis *x, const struct chart_row *rows,
                size_t n_rows, const unsigned *colors);

/* Upright bars, one per bin. first: where the first bin begins, on an x axis whose bins are `step` wide;
 * centred: bins are whole numbers, and ticks stand in their middle. */
struct chart_bins {
    const double *share; /* 0..1 */
    size_t n;
    double first, step;
    bool centred;
    unsigned color;
};
void chart_histogram(struct strbuf *b, const struct chart_frame *f, const struct axis *x,
                     const struct axis *y, const struct chart_bins *bins);

#endif
