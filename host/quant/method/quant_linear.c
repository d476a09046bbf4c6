#include "host/quant/method/quant_linear.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/method/code_descent.h"

/* Over a linear's columns: the third moves a code in a thousand. */
#define DESCENT_PASSES 3

static double sum(const double *x, uint32_t n)
{
    double s = 0;
    for (uint32_t i = 0; i < n; i++)
        s += x[i];
    return s;
}

/* Room for one whole Hessian, or GPTQ's factor: what needs one asks for it. */
struct square {
    struct gpu_view view; /* [cols, cols] */
    enum { SQUARE_TRAIN = HESSIAN_TRAIN, SQUARE_HELD = HESSIAN_HELD, SQUARE_OTHER } holds;
};

static void square_of(const struct linear_task *t, struct square *s, enum hessian_sum sum)
{
    if ((int)s->holds != (int)sum)
        hessian_square(t->cmd, t->hessian, sum, s->view);
    s->holds = sum == HESSIAN_TRAIN ? SQUARE_TRAIN : SQUARE_HELD;
}

/* Loss of q per row on one Hessian; NULL q: of W itself, the scale of relative losses. */
static bool losses(const struct linear_task *t, const struct qmatrix *q, struct square *s, enum hessian_sum sum,
                   double *out, struct err *e)
{
    square_of(t, s, sum);
    return hessian_loss(t->cmd, q, t->w, t->item->rows, t->item->cols, s->view, t->outputs, t->scratch, out, e);
}

/* Rows whose loss is one. */
static uint32_t rows_together(const struct linear_task *t)
{
    return t->outputs.size ? HESSIAN_TILE : 1;
}

/* Rows of `tuned` that are not better than the start, so many together, go back to it, and so do their losses. Returns how many. */
static uint32_t roll_back_rows(struct qlinear *tuned, const struct qlinear *start, double *loss_tuned,
                               const double *loss_start, uint32_t together)
{
    uint32_t back = 0;
    for (uint32_t r = 0, n; r < tuned->rows; r += n) {
        n = (uint32_t)min_u64(together, tuned->rows - r);
        if (sum(loss_tuned + r, n) <= sum(loss_start + r, n)) /* false for NaN, too */
            continue;
        for (uint32_t i = r; i < r + n; i++) {
            qlinear_copy_row(tuned, start, i);
            loss_tuned[i] = loss_start[i];
        }
        back += n;
    }
    return back;
}

/* Row losses of the stages, kept together. */
struct row_losses {
    double *norm, *start, *tuned;
};

/* Of `out`, which q holds: codes one by one, where rows share a loss. */
static bool descend(const struct linear_task *t, struct qmatrix *q, struct square *s, struct qlinear *out,
                    double *loss_rows, struct err *e)
{
    uint64_t moved;
    if (!t->outputs.size)
        return true;
    square_of(t, s, HESSIAN_TRAIN);
    return code_descent(t->cmd, t->w, s->view, t->outputs, t->scratch, out, DESCENT_PASSES, &moved, e) &&
           qmatrix_upload(t->cmd, q, out, e) && losses(t, q, s, HESSIAN_TRAIN, loss_rows, e);
}

/* Gumbel-Softmax from the start in q, then the guard. out holds the result. */
static bool tune_guarded(const struct linear_task *t, struct qmatrix *q, struct square *s, const struct row_losses *l,
                         struct qlinear *out, struct linear_report *report, struct err *e)
{
    const struct quantize_options *o = t->options;
    const struct hessian *h = t->hessian;
    const uint32_t rows = t->item->rows;
    struct qlinear start = {0};
    double held_start = 0;
    if (h->held.size) {
        if (!losses(t, q, s, HESSIAN_HELD, l->tuned, e))
            return false;
        held_start = sum(l->tuned, rows);
    }
    if (!qmatrix_download(t->cmd, q, &start, e))
        return false;
    square_of(t, s, HESSIAN_TRAIN);
    const struct tune_hessians both = {s->view, t->outputs};
    bool ok = tune_hessian(t->cmd, q, t->w, &both, t->scratch, t->tune_bytes, &o->gumbel, o->seed, t->item->number,
                           t->hooks, e) &&
              losses(t, q, s, HESSIAN_TRAIN, l->tuned, e) && qmatrix_download(t->cmd, q, out, e);
    if (ok) {
        report->rows_rolled_back = roll_back_rows(out, &start, l->tuned, l->start, rows_together(t));
        if (report->rows_rolled_back)
            ok = qmatrix_upload(t->cmd, q, out, e);
        ok = ok && descend(t, q, s, out, l->tuned, e);
        double loss = sum(l->tuned, rows);
        if (ok && h->held.size) {
            ok = losses(t, q, s, HESSIAN_HELD, l->tuned, e);
            if (ok && !(sum(l->tuned, rows) <= held_start)) {
                report->rows_rolled_back = rows;
                loss = sum(l->start, rows);
                ok = qmatrix_upload(t->cmd, q, &start, e);
                struct qlinear tuned = *out;
                *out = start;
                start = tuned;
            }
        }
        report->loss_final = loss;
        if (!ok)
            qlinear_free(out);
    }
    qlinear_free(&start);
    return ok;
}

/* What everything else begins with: RTN, or the codes given. */
static bool first_codes(const struct linear_task *t, struct qmatrix *q, struct err *e)
{
    if (t->start)
        return qmatrix_upload(t->cmd, q, t->start, e);
    quantize_rtn(t->cmd, q, t->w, &t->options->scale_search);
    return true;
}

static bool held_loss(const struct linear_task *t, const struct qmatrix *q, struct square *s, double *rows, double *out,
                      struct err *e)
{
    *out = 0;
    if (!t->hessian->held.size)
        return true;
    if (!losses(t, q, s, HESSIAN_HELD, rows, e))
        return false;
    *out = sum(rows, t->item->rows);
    return true;
}

/* GPTQ in q, whose row losses are l->start, against the codes given, whose losses are l->tuned. */
static bool better_of(const struct linear_task *t, struct qmatrix *q, struct square *s, const struct row_losses *l,
                      double held_given, struct err *e)
{
    struct qlinear gptq = {0};
    double held;
    if (!qmatrix_download(t->cmd, q, &gptq, e))
        return false;
    roll_back_rows(&gptq, t->start, l->start, l->tuned, rows_together(t));
    bool ok = qmatrix_upload(t->cmd, q, &gptq, e) && held_loss(t, q, s, l->start, &held, e);
    if (ok && !(held <= held_given))
        ok = qmatrix_upload(t->cmd, q, t->start, e);
    qlinear_free(&gptq);
    return ok && losses(t, q, s, HESSIAN_TRAIN, l->start, e);
}

/* GPTQ or GSQ. Losses come as sums, and *norm as what they are relative to. */
static bool with_hessian(const struct linear_task *t, struct qmatrix *q, struct qlinear *out,
                         struct linear_report *report, double *norm, struct err *e)
{
    const struct quantize_options *o = t->options;
    const uint32_t rows = t->item->rows, cols = t->item->cols;
    double *rows_of = calloc(3 * (size_t)rows, sizeof *rows_of);
    if (!rows_of)
        return err_nomem(e, "row losses", 3 * (uint64_t)rows * sizeof *rows_of);
    struct row_losses l = {rows_of, rows_of + rows, rows_of + 2 * (size_t)rows};
    struct square square = {.holds = SQUARE_OTHER}, *s = &square;
    struct gptq_facts facts;
    double held = 0;

    bool ok = hessian_square_create(&s->view, t->scratch, cols, q->spec.group, e) &&
              losses(t, NULL, s, HESSIAN_TRAIN, l.norm, e);
    if (ok) {
        *norm = sum(l.norm, rows);
        ok = first_codes(t, q, e) && (!t->start || held_loss(t, q, s, l.tuned, &held, e)) &&
             losses(t, q, s, HESSIAN_TRAIN, l.tuned, e);
        report->loss_rtn = sum(l.tuned, rows);
    }
    s->holds = SQUARE_OTHER;
    ok = ok &&
         quantize_gptq(t->cmd, q, t->w, t->hessian, s->view, t->scratch, o->damp, t->start ? NULL : &o->scale_search,
                       &facts, e) &&
         losses(t, q, s, HESSIAN_TRAIN, l.start, e) && (!t->start || better_of(t, q, s, &l, held, e));
    if (ok) {
        report->damp_raised = facts.damp_raised;
        report->diagonal_only = facts.diagonal_only;
        report->loss_gptq = report->loss_final = sum(l.start, rows);
        ok = plan_alone(o, t->item) ? tune_guarded(t, q, s, &l, out, report, e) : qmatrix_download(t->cmd, q, out, e);
    }
    free(rows_of);
    return ok;
}

/* What has one Hessian, or none. */
static bool quantize_piece(const struct linear_task *t, struct qlinear *out, struct linear_report *report, double *norm,
                           struct err *e)
{
    const struct matrix *item = t->item;
    gpu_mark mark = gpu_arena_mark(t->scratch);
    struct qmatrix q;
    bool ok = qmatrix_create(&q, t->scratch, item->rows, item->cols, item->spec, e);
    if (ok && !t->hessian) {
        ok = first_codes(t, &q, e) && qmatrix_download(t->cmd, &q, out, e);
    } else if (ok) {
        ok = with_hessian(t, &q, out, report, norm, e);
    }
    if (ok) {
        /* What follows sees the weights of the file. */
        qmatrix_dequant(t->cmd, &q, t->w);
        if (!gpu_cmd_finish(t->cmd, e)) {
            qlinear_free(out);
            ok = false;
        }
    }
    gpu_arena_reset(t->scratch, mark);
    return ok;
}

/* ---- rows in pieces, with a Hessian each ---- */

struct piece_watch {
    const struct tune_hooks *hooks;
    uint32_t piece, pieces;
};

static bool on_piece_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    const struct piece_watch *w = ctx;
    return !w->hooks->step || w->hooks->step(w->hooks->ctx, w->piece * steps + step, w->pieces * steps, loss);
}

static void add_report(struct linear_report *sum, const struct linear_report *x)
{
    sum->loss_rtn += x->loss_rtn;
    sum->loss_gptq += x->loss_gptq;
    sum->loss_final += x->loss_final;
    sum->rows_rolled_back += x->rows_rolled_back;
    sum->damp_raised |= x->damp_raised;
    sum->diagonal_only |= x->diagonal_only;
}

/* They begin where no view may: each is worked on in a place of its own. */
static bool quantize_pieces(const struct linear_task *t, struct qlinear *out, struct linear_report *report,
                            double *norm, struct err *e)
{
    const struct matrix *item = t->item;
    const uint32_t rows = item->rows / item->pieces;
    const uint64_t bytes = (uint64_t)rows * item->cols * 4;
    gpu_mark mark = gpu_arena_mark(t->scratch);
    struct gpu_view w;
    report->loss_rtn = report->loss_gptq = report->loss_final = 0;
    if (t->start)
        return err_set(e, ERR_BUG, "%s: pieces with codes to begin with", item->module);
    const bool counts = gpu_cmd_counts(t->cmd); /* there are no codes then, and all pieces take the same */
    bool ok =
        (counts || qlinear_init(out, item->rows, item->cols, item->spec, e)) && gpu_alloc(t->scratch, bytes, &w, e);
    for (uint32_t p = 0; ok && p < (counts ? 1 : item->pieces); p++) {
        const struct hessian h = hessian_piece(t->hessian, p);
        struct piece_watch watch = {t->hooks, p, item->pieces};
        const struct tune_hooks hooks = {on_piece_step, &watch};
        const struct gpu_view place = gpu_slice(t->w, p * bytes, bytes);
        struct matrix piece = *item;
        struct linear_task one = *t;
        struct qlinear q = {0};
        struct linear_report of = {0};
        double size = 0;
        piece.rows = rows;
        piece.number ^= p * 0x9e3779b9u; /* its noise is its own */
        one.item = &piece;
        one.hessian = &h;
        one.w = w;
        one.hooks = t->hooks ? &hooks : NULL;
        gpu_copy(t->cmd, w, place, bytes);
        ok = quantize_piece(&one, &q, &of, &size, e);
        if (ok) {
            gpu_copy(t->cmd, place, w, bytes);
            if (!counts)
                qlinear_copy_rows(out, p * rows, &q);
            add_report(report, &of);
            *norm += size;
        }
        qlinear_free(&q);
    }
    ok = gpu_cmd_finish(t->cmd, ok ? e : NULL) && ok;
    gpu_arena_reset(t->scratch, mark);
    if (!ok)
        qlinear_free(out);
    return ok;
}

bool quantize_linear(const struct linear_task *t, struct qlinear *out, struct linear_report *report, struct err *e)
{
    const struct matrix *item = t->item;
    uint64_t begin = os_now_ns();
    double norm = 0;
    *report = (struct linear_report){.loss_rtn = NAN, .loss_gptq = NAN, .loss_final = NAN};
    snprintf(report->module, sizeof report->module, "%s", item->module);
    bool ok = (t->hessian && item->pieces > 1 ? quantize_pieces : quantize_piece)(t, out, report, &norm, e);
    report->loss_rtn /= norm;
    report->loss_gptq /= norm;
    report->loss_final /= norm;
    report->seconds = (double)(os_now_ns() - begin) * 1e-9;
    return ok;
}
