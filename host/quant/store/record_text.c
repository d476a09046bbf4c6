#include "host/quant/store/record_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void linear_report_print(const struct linear_report *r, char out[LINEAR_REPORT_CAP])
{
    const struct expert_report *x = &r->expert;
    int n = snprintf(out, LINEAR_REPORT_CAP, "%.17g %.17g %.17g %u %d %d %.6f", r->loss_rtn, r->loss_gptq,
                     r->loss_final, r->rows_rolled_back, r->damp_raised, r->diagonal_only, r->seconds);
    if (x->counted)
        snprintf(out + n, LINEAR_REPORT_CAP - (size_t)n, " %u %d %u %u %u %u %.17g %.17g %.6f", x->tokens, x->starved,
                 x->trained.steps, x->trained.epochs, x->trained.best_epoch, x->trained.retries, x->trained.loss_start,
                 x->trained.loss_final, x->trained.seconds);
}

void linear_report_scan(const char *text, struct linear_report *r)
{
    struct expert_report *x = &r->expert;
    int raised = 0, diagonal = 0, starved = 0, used = 0;
    if (!text || sscanf(text, "%lf %lf %lf %u %d %d %lf%n", &r->loss_rtn, &r->loss_gptq, &r->loss_final,
                        &r->rows_rolled_back, &raised, &diagonal, &r->seconds, &used) != 7)
        r->loss_rtn = r->loss_gptq = r->loss_final = NAN;
    x->counted = used && sscanf(text + used, " %u %d %u %u %u %u %lf %lf %lf", &x->tokens, &starved, &x->trained.steps,
                                &x->trained.epochs, &x->trained.best_epoch, &x->trained.retries, &x->trained.loss_start,
                                &x->trained.loss_final, &x->trained.seconds) == 9;
    x->starved = starved != 0;
    r->damp_raised = raised != 0;
    r->diagonal_only = diagonal != 0;
}

/* Numbers, a space between: facts, then both curves. */
bool stage_report_print(const struct stage_report *r, char *out, size_t cap)
{
    size_t at = (size_t)snprintf(out, cap, "%.17g %.17g %u %u %u %u %.6f %u %u", r->trained.loss_start,
                                 r->trained.loss_final, r->trained.steps, r->trained.epochs, r->trained.best_epoch,
                                 r->trained.retries, r->trained.seconds, r->n_soft, r->n_hard);
    for (uint32_t i = 0; i < r->n_soft + r->n_hard && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, " %.9g",
                               (double)(i < r->n_soft ? r->soft[i] : r->hard[i - r->n_soft]));
    return at < cap;
}

bool stage_report_scan(const char *text, struct stage_report *r)
{
    int used = 0;
    if (!text ||
        sscanf(text, "%lf %lf %u %u %u %u %lf %u %u%n", &r->trained.loss_start, &r->trained.loss_final,
               &r->trained.steps, &r->trained.epochs, &r->trained.best_epoch, &r->trained.retries, &r->trained.seconds,
               &r->n_soft, &r->n_hard, &used) != 9 ||
        r->n_soft > CURVE_POINTS || r->n_hard > CURVE_EPOCHS)
        return false;
    for (uint32_t i = 0; i < r->n_soft + r->n_hard; i++) {
        char *end;
        text += used;
        float v = strtof(text, &end);
        used = (int)(end - text);
        *(i < r->n_soft ? &r->soft[i] : &r->hard[i - r->n_soft]) = v;
    }
    return true;
}
