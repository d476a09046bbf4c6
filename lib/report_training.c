/* Of the report page: the training stages. */
#include <math.h>
#include <stdlib.h>

#include "lib/report_parts.h"
#include "lib/svg_chart.h"

/* Colours of curves, and their names in the legend. */
enum { COLOR_SOFT = COLOR_GPTQ, COLOR_HARD = COLOR_FINAL };

static void stage_title(struct strbuf *b, const struct stage_report *s)
{
    if (s->stage == STAGE_SCALES)
        strbuf_puts(b, "Scales end to end");
    else
        strbuf_printf(b, "Block %u, %s", (unsigned)s->layer + 1, stage_name(s->stage));
}

static void stage_caption(struct strbuf *b, const struct stage_report *s)
{
    double change = 100 * (s->loss_final / s->loss_start - 1);
    strbuf_puts(b, "<figcaption>");
    if (!s->best_epoch)
        strbuf_puts(b, "start kept");
    else if (isfinite(change))
        strbuf_printf(b, "%+.1f %%, best: epoch %u", change, (unsigned)s->best_epoch);
    else
        strbuf_printf(b, "best: epoch %u", (unsigned)s->best_epoch);
    if (s->retries)
        strbuf_printf(b, ", %u retr%s", (unsigned)s->retries, s->retries == 1 ? "y" : "ies");
    strbuf_puts(b, "</figcaption>");
}

static void stage_chart(struct strbuf *b, const struct stage_report *s)
{
    double soft_x[CURVE_POINTS], soft_y[CURVE_POINTS], hard_x[CURVE_EPOCHS], hard_y[CURVE_EPOCHS];
    struct axis x = {.unit = AXIS_COUNT, .label = "epoch"},
                y = {.label = s->stage == STAGE_SCALES ? "KL, nats" : "loss"};
    uint32_t n_soft = s->n_soft < CURVE_POINTS ? s->n_soft : CURVE_POINTS;
    uint32_t n_hard = s->n_hard < CURVE_EPOCHS ? s->n_hard : CURVE_EPOCHS;
    double epochs = s->epochs ? s->epochs : n_hard > 1 ? n_hard - 1 : 1;
    struct axis range = {.log = true};
    for (uint32_t i = 0; i < n_soft; i++) {
        soft_x[i] = (i + 0.5) / n_soft * epochs;
        soft_y[i] = (double)s->soft[i];
        axis_add(&range, soft_y[i]);
    }
    for (uint32_t i = 0; i < n_hard; i++) {
        hard_x[i] = i;
        hard_y[i] = (double)s->hard[i];
        axis_add(&range, hard_y[i]);
    }
    y.log = range.any && range.hi > 4 * range.lo;
    for (uint32_t i = 0; i < n_soft; i++)
        axis_add(&y, soft_y[i]);
    for (uint32_t i = 0; i < n_hard; i++)
        axis_add(&y, hard_y[i]);
    axis_add(&x, 0);
    axis_add(&x, epochs);
    axis_settle(&y, false);
    const struct chart_line lines[] = {
        {.x = soft_x, .y = soft_y, .n = n_soft, .color = COLOR_SOFT, .name = "soft"},
        {.x = hard_x, .y = hard_y, .n = n_hard, .color = COLOR_HARD, .dots = n_hard <= 17, .name = "hard"},
    };
    uint32_t best = s->best_epoch < n_hard ? s->best_epoch : 0;
    const struct chart_line mark = {
        .x = hard_x + best, .y = hard_y + best, .n = 1, .color = COLOR_HARD, .name = "best"};
    struct chart_frame f = {"Training curve", 90, 46, 5, 4};
    strbuf_puts(b, "<figure><h3>");
    stage_title(b, s);
    strbuf_puts(b, "</h3>");
    chart_lines(b, &f, &x, &y, lines, 2, n_hard ? &mark : NULL);
    stage_caption(b, s);
    strbuf_puts(b, "</figure>\n");
}

/* Losses before and after, by block. */
static void stage_overview(struct strbuf *b, const struct quantize_result *r)
{
    enum { LINES = 4 }; /* attention start, final, feed-forward start, final */
    static const unsigned colors[] = {LINEAR_Q, LINEAR_DOWN};
    static const char *const names[] = {"attention", "feed-forward"};
    struct axis x = {.unit = AXIS_COUNT, .label = "block", .lo = 0.5},
                y = {.log = true, .label = "held-out loss: start (dashed), final"};
    struct chart_line lines[LINES];
    double *points = calloc(r->n_stages * 3 * 2, sizeof *points);
    size_t n = 0;
    if (!points) {
        b->failed = true;
        return;
    }
    for (int stage = STAGE_ATTN; stage <= STAGE_FFN; stage++) {
        double *xs = points + (size_t)stage * 3 * r->n_stages, *start = xs + r->n_stages,
               *final = start + r->n_stages;
        size_t used = 0;
        for (size_t i = 0; i < r->n_stages; i++) {
            const struct stage_report *s = &r->stages[i];
            if ((int)s->stage != stage)
                continue;
            xs[used] = s->layer + 1;
            start[used] = s->loss_start;
            final[used++] = s->loss_final;
            x.hi = fmax(x.hi, s->layer + 1.5);
            axis_add(&y, s->loss_start);
            axis_add(&y, s->loss_final);
        }
        lines[n++] = (struct chart_line){
            .x = xs, .y = start, .n = used, .color = colors[stage], .dashed = true, .name = "start"};
        lines[n++] = (struct chart_line){
            .x = xs, .y = final, .n = used, .color = colors[stage], .dots = true, .name = names[stage]};
    }
    if (x.hi > 2 && y.any) {
        axis_settle(&y, false);
        struct chart_frame f = {"Loss of every block's halves before and after training", 180, 52, 9, 6};
        strbuf_puts(b, "<figure>");
        report_legend(b, colors, names, 2);
        chart_lines(b, &f, &x, &y, lines, n, NULL);
        strbuf_puts(b, "</figure>\n");
    }
    free(points);
}

static void stage_table(struct strbuf *b, const struct quantize_result *r)
{
    char text[32];
    bool fold = r->n_stages > 2 * MANY_BLOCKS + 1;
    if (fold)
        strbuf_printf(b, "<details><summary>All %llu stages as a table</summary>\n",
                      (unsigned long long)r->n_stages);
    strbuf_puts(b, fold ? "<div class=\"scroll\">" : "<figure class=\"scroll\">");
    strbuf_puts(b,
                "<table><thead><tr><th>stage</th><th class=\"num\">start</th><th class=\"num\">final</th>"
                "<th class=\"num\">change</th><th class=\"num\">best epoch</th><th class=\"num\">steps</th>"
                "<th class=\"num\">retries</th><th class=\"num\">seconds</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < r->n_stages; i++) {
        const struct stage_report *s = &r->stages[i];
        double change = 100 * (s->loss_final / s->loss_start - 1);
        strbuf_puts(b, "<tr><td>");
        stage_title(b, s);
        strbuf_printf(b, "</td><td class=\"num\">%s</td>", number_text(s->loss_start, text, sizeof text));
        strbuf_printf(b, "<td class=\"num\">%s</td>", number_text(s->loss_final, text, sizeof text));
        if (isfinite(change))
            strbuf_printf(b, "<td class=\"num\">%+.1f %%</td>", change);
        else
            strbuf_puts(b, "<td class=\"num\">&#8211;</td>");
        if (s->best_epoch)
            strbuf_printf(b, "<td class=\"num\">%u of %u</td>", (unsigned)s->best_epoch, (unsigned)s->epochs);
        else
            strbuf_puts(b, "<td class=\"num\">start kept</td>");
        strbuf_printf(b,
                      "<td class=\"num\">%u</td><td class=\"num\">%u</td><td class=\"num\">%.1f</td></tr>\n",
                      (unsigned)s->steps, (unsigned)s->retries, isfinite(s->seconds) ? s->seconds : 0.0);
    }
    strbuf_puts(b, fold ? "</tbody></table></div></details>\n" : "</tbody></table></figure>\n");
}

/* Too many to show at once: by what was trained. */
static void folded_curves(struct strbuf *b, const struct quantize_result *r)
{
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        size_t n = 0;
        for (size_t i = 0; i < r->n_stages; i++)
            n += (int)r->stages[i].stage == stage;
        if (!n)
            continue;
        if (n > 1)
            strbuf_printf(b, "<details><summary>%llu curves: %s</summary>\n", (unsigned long long)n,
                          stage_name((enum tune_stage)stage));
        strbuf_puts(b, "<div class=\"cards\">\n");
        for (size_t i = 0; i < r->n_stages; i++)
            if ((int)r->stages[i].stage == stage)
                stage_chart(b, &r->stages[i]);
        strbuf_puts(b, n > 1 ? "</div></details>\n" : "</div>\n");
    }
}

void report_training(struct strbuf *b, const struct report_input *in)
{
    static const unsigned colors[] = {COLOR_SOFT, COLOR_HARD};
    static const char *const names[] = {"soft weights, training windows",
                                        "rounded weights, held-out windows"};
    const struct quantize_result *r = in->result;
    if (!r->n_stages)
        return;
    bool scales = false;
    for (size_t i = 0; i < r->n_stages; i++)
        scales |= r->stages[i].stage == STAGE_SCALES;
    strbuf_puts(b,
                "<section id=\"training\"><h2>Training</h2>\n"
                "<p>Each half of a block is trained as a whole against the 16-bit half: squared error of its "
                "output over the squared size of what the half adds to its input. ");
    if (scales)
        strbuf_puts(b, "At last the scales are trained end to end on KL divergence. ");
    strbuf_puts(b,
                "The epoch whose rounded weights were best on held-out windows is kept (the large dot). Each "
                "curve has axes of its own.</p>\n");
    stage_overview(b, r);
    report_legend(b, colors, names, 2);
    if (r->n_stages <= 2 * MANY_BLOCKS + 1) {
        strbuf_puts(b, "<div class=\"cards\">\n");
        for (size_t i = 0; i < r->n_stages; i++)
            stage_chart(b, &r->stages[i]);
        strbuf_puts(b, "</div>\n");
    } else {
        folded_curves(b, r);
    }
    stage_table(b, r);
    strbuf_puts(b, "</section>\n");
}
