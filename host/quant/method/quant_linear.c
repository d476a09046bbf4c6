#include "host/quant/method/quant_linear.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/method/code_descent.h"
#include "host/quant/method/share.h"

/* Over a linear's columns: the third moves a code in a thousand. */
#define DESCENT_PASSES 3

static double sum(const double *x, uint32_t n)
{
    double s = 0;
    for (uint32_t i = 0; i < n; i++)
        s += x[i];
    return s;
}

/* The rows of a linear, or a piece of one, that this rank makes: all of it, or a part of whole units. */
struct own {
    struct linear_task t; /* of these rows alone */
    struct matrix item;
    struct qlinear start;
    struct comm_part rows; /* of `all`: there may be none */
    uint32_t all, unit;
    struct gpu_matrix outputs;
};

/* Rows whose loss is one. */
static uint32_t rows_together(const struct linear_task *t)
{
    return t->outputs.size ? HESSIAN_TILE : 1;
}

uint32_t quantize_linear_unit(bool outputs)
{
    return outputs ? HESSIAN_TILE : SHARE_ROWS;
}

static void own_rows(struct own *p, const struct linear_task *t)
{
    const uint32_t all = t->item->rows, cols = t->item->cols;
    *p = (struct own){.t = *t, .item = *t->item, .rows = {0, all}, .all = all};
    /* What is together in a step has one rank, so nothing goes between ranks within the steps. */
    p->unit = quantize_linear_unit(t->outputs.size > 0);
    if (t->shared)
        p->rows = comm_part(all, p->unit, comm_rank());
    const uint32_t first = p->rows.first, n = p->rows.end - first;
    p->item.rows = n;
    p->t.item = &p->item;
    p->t.w = n ? gpu_slice(t->w, (uint64_t)first * cols * 4, (uint64_t)n * cols * 4) : (struct gpu_view){0};
    p->outputs = output_hessian_rows(t->outputs, all, first, n);
    if (t->start) {
        p->start = qlinear_rows(t->start, first, n);
        p->t.start = &p->start;
    }
}

static bool upload(const struct own *p, const struct qmatrix *q, const struct qlinear *in, struct err *e)
{
    return !p->item.rows || qmatrix_upload(p->t.cmd, q, in, e);
}

static bool download(const struct own *p, const struct qmatrix *q, struct qlinear *out, struct err *e)
{
    *out = (struct qlinear){0};
    return !p->item.rows || qmatrix_download(p->t.cmd, q, out, e);
}

/* Room for one whole Hessian, or GPTQ's factor: what needs one asks for it. */
struct square {
    struct gpu_view view; /* [cols, cols] */
    enum { SQUARE_TRAIN = HESSIAN_TRAIN, SQUARE_HELD = HESSIAN_HELD, SQUARE_OTHER } holds;
};

static void square_of(const struct linear_task *t, struct square *s, enum hessian_sum sum)
{
    const enum gpu_part before = gpu_part_begin(t->cmd, GPU_PART_EACH);
    if ((int)s->holds != (int)sum)
        hessian_square(t->cmd, t->hessian, sum, s->view);
    gpu_part_end(t->cmd, before);
    s->holds = sum == HESSIAN_TRAIN ? SQUARE_TRAIN : SQUARE_HELD;
}

/* Loss of q, which has this rank's rows, on one Hessian; NULL q: of W itself, the scale of relative losses. out: of each of all rows. */
static bool losses(const struct own *p, const struct qmatrix *q, struct square *s, enum hessian_sum sum, double *out,
                   struct err *e)
{
    const struct linear_task *t = &p->t;
    if (p->item.rows) {
        square_of(t, s, sum);
        if (!hessian_loss(t->cmd, q, t->w, p->item.rows, p->item.cols, s->view, p->outputs, t->scratch,
                          out + p->rows.first, e))
            return false;
    }
    return !t->shared || comm_gather(COMM_LOSSES, out, p->all, p->unit, sizeof *out, e);
}

/* Rows of `tuned` that are not better than the start, so many together, go back to it, and so do their losses. Returns how many of
 * all; losses are of all rows. */
static uint32_t roll_back_rows(const struct own *p, struct qlinear *tuned, const struct qlinear *start,
                               double *loss_tuned, const double *loss_start)
{
    uint32_t back = 0;
    for (uint32_t r = 0, n; r < p->all; r += n) {
        n = (uint32_t)min_u64(rows_together(&p->t), p->all - r);
        if (sum(loss_tuned + r, n) <= sum(loss_start + r, n)) /* false for NaN, too */
            continue;
        for (uint32_t i = r; i < r + n; i++) {
            if (i >= p->rows.first && i < p->rows.end)
                qlinear_copy_row(tuned, start, i - p->rows.first);
            loss_tuned[i] = loss_start[i];
        }
        back += n;
    }
    return back;
}

/* Losses of all rows at the stages, kept together. */
struct row_losses {
    double *norm, *start, *tuned;
};

/* Of `out`, which q holds: codes one by one, where rows share a loss. */
static bool descend(const struct own *p, struct qmatrix *q, struct square *s, struct qlinear *out, double *loss_rows,
                    struct err *e)
{
    const struct linear_task *t = &p->t;
    uint64_t moved;
    if (!t->outputs.size)
        return true;
    if (p->item.rows) {
        square_of(t, s, HESSIAN_TRAIN);
        if (!code_descent(t->cmd, t->w, s->view, p->outputs, t->scratch, out, DESCENT_PASSES, &moved, e))
            return false;
    }
    return upload(p, q, out, e) && losses(p, q, s, HESSIAN_TRAIN, loss_rows, e);
}

static bool tune(const struct own *p, struct qmatrix *q, struct square *s, struct err *e)
{
    const struct linear_task *t = &p->t;
    const struct tune_key key = {t->options->seed, p->item.number, p->rows.first};
    if (!p->item.rows)
        return true;
    square_of(t, s, HESSIAN_TRAIN);
    const struct tune_hessians both = {s->view, p->outputs};
    return tune_hessian(t->cmd, q, t->w, &both, t->scratch, t->tune_bytes, &t->options->gumbel, key, t->hooks, e);
}

static bool held_loss(const struct own *p, const struct qmatrix *q, struct square *s, double *rows, double *out,
                      struct err *e)
{
    *out = 0;
    if (!p->t.hessian->held.size)
        return true;
    if (!losses(p, q, s, HESSIAN_HELD, rows, e))
        return false;
    *out = sum(rows, p->all);
    return true;
}

/* Gumbel-Softmax from the start in q, then the guard. out holds the result. */
static bool tune_guarded(const struct own *p, struct qmatrix *q, struct square *s, const struct row_losses *l,
                         struct qlinear *out, struct linear_report *report, struct err *e)
{
    struct qlinear start = {0};
    double held_start, held;
    if (!held_loss(p, q, s, l->tuned, &held_start, e) || !download(p, q, &start, e))
        return false;
    bool ok = tune(p, q, s, e) && losses(p, q, s, HESSIAN_TRAIN, l->tuned, e) && download(p, q, out, e);
    if (ok) {
        report->rows_rolled_back = roll_back_rows(p, out, &start, l->tuned, l->start);
        if (report->rows_rolled_back)
            ok = upload(p, q, out, e);
        ok = ok && descend(p, q, s, out, l->tuned, e);
        double loss = sum(l->tuned, p->all);
        ok = ok && held_loss(p, q, s, l->tuned, &held, e);
        if (ok && !(held <= held_start)) {
            report->rows_rolled_back = p->all;
            loss = sum(l->start, p->all);
            ok = upload(p, q, &start, e);
            struct qlinear tuned = *out;
            *out = start;
            start = tuned;
        }
        report->loss_final = loss;
        if (!ok)
            qlinear_free(out);
    }
    qlinear_free(&start);
    return ok;
}

/* What everything else begins with: RTN, or the codes given. */
static bool first_codes(const struct own *p, struct qmatrix *q, struct err *e)
{
    const struct linear_task *t = &p->t;
    if (t->start)
        return upload(p, q, t->start, e);
    if (p->item.rows)
        quantize_rtn(t->cmd, q, t->w, &t->options->scale_search);
    return true;
}

/* Every rank that has rows makes the factor for itself: of a linear of n inputs two thirds of n^3 operations, a thousandth of the
 * 250 steps on it, where sending it is n^2 * 4 bytes. The last rank always has rows. */
static bool gptq(const struct own *p, struct qmatrix *q, struct square *s, struct gptq_facts *facts, struct err *e)
{
    const struct linear_task *t = &p->t;
    *facts = (struct gptq_facts){0};
    s->holds = SQUARE_OTHER;
    if (p->item.rows && !quantize_gptq(t->cmd, q, t->w, t->hessian, s->view, t->scratch, t->options->damp,
                                       t->start ? NULL : &t->options->scale_search, facts, e))
        return false;
    return !t->shared || comm_broadcast(COMM_CODES, facts, sizeof *facts, comm_size() - 1, e);
}

/* GPTQ in q, whose row losses are l->start, against the codes given, whose losses are l->tuned. */
static bool better_of(const struct own *p, struct qmatrix *q, struct square *s, const struct row_losses *l,
                      double held_given, struct err *e)
{
    struct qlinear found = {0};
    double held;
    if (!download(p, q, &found, e))
        return false;
    roll_back_rows(p, &found, p->t.start, l->start, l->tuned);
    bool ok = upload(p, q, &found, e) && held_loss(p, q, s, l->start, &held, e);
    if (ok && !(held <= held_given))
        ok = upload(p, q, p->t.start, e);
    qlinear_free(&found);
    return ok && losses(p, q, s, HESSIAN_TRAIN, l->start, e);
}

/* The weights become what makes a share of the drift good. s is used up. */
static bool make_good(const struct own *p, struct square *s, struct err *e)
{
    const struct linear_task *t = &p->t;
    const struct quantize_options *o = t->options;
    struct gptq_facts facts;
    if (!t->drift || !t->drift->sum.size || !p->item.rows)
        return true;
    s->holds = SQUARE_OTHER;
    return gptq_factor(t->cmd, t->hessian, o->damp, t->scratch, s->view, &facts, e) &&
           (facts.diagonal_only ||
            drift_make_good(t->cmd, t->drift, t->w, p->rows.first, p->item.rows, s->view,
                            quantize_correction(o, block_part_is_expert(p->item.part)), t->scratch, e));
}

/* GPTQ or GSQ. Losses come as sums, and *norm as what they are relative to. */
static bool with_hessian(const struct own *p, struct qmatrix *q, struct qlinear *out, struct linear_report *report,
                         double *norm, struct err *e)
{
    const struct linear_task *t = &p->t;
    const uint32_t rows = p->all;
    double *rows_of = calloc(3 * (size_t)rows, sizeof *rows_of);
    if (!rows_of)
        return err_nomem(e, "row losses", 3 * (uint64_t)rows * sizeof *rows_of);
    struct row_losses l = {rows_of, rows_of + rows, rows_of + 2 * (size_t)rows};
    struct square square = {.holds = SQUARE_OTHER}, *s = &square;
    struct gptq_facts facts;
    double held = 0;

    bool ok = hessian_square_create(&s->view, t->scratch, p->item.cols, q->spec.group, e) && make_good(p, s, e) &&
              losses(p, NULL, s, HESSIAN_TRAIN, l.norm, e);
    if (ok) {
        *norm = sum(l.norm, rows);
        ok = first_codes(p, q, e) && (!t->start || held_loss(p, q, s, l.tuned, &held, e)) &&
             losses(p, q, s, HESSIAN_TRAIN, l.tuned, e);
        report->loss_rtn = sum(l.tuned, rows);
    }
    ok = ok && gptq(p, q, s, &facts, e) && losses(p, q, s, HESSIAN_TRAIN, l.start, e) &&
         (!t->start || better_of(p, q, s, &l, held, e));
    if (ok) {
        report->damp_raised = facts.damp_raised;
        report->diagonal_only = facts.diagonal_only;
        report->loss_gptq = report->loss_final = sum(l.start, rows);
        ok = plan_alone(t->options, &p->item) ? tune_guarded(p, q, s, &l, out, report, e) : download(p, q, out, e);
    }
    free(rows_of);
    return ok;
}

/* From this rank's rows in out to all of them, in q and in out. */
static bool gather_rows(const struct own *p, struct qmatrix *q, struct qlinear *out, struct err *e)
{
    struct qlinear mine = *out;
    bool ok = qlinear_init(out, p->all, p->item.cols, p->item.spec, e);
    if (ok && p->item.rows)
        qlinear_copy_rows(out, p->rows.first, &mine);
    qlinear_free(&mine);
    const enum gpu_part before = gpu_part_begin(p->t.cmd, GPU_PART_EXCHANGE);
    ok = ok && share_codes(out, p->unit, e) && qmatrix_upload(p->t.cmd, q, out, e);
    gpu_part_end(p->t.cmd, before);
    if (!ok)
        qlinear_free(out);
    return ok;
}

/* What has one Hessian, or none. */
static bool quantize_piece(const struct linear_task *t, struct qlinear *out, struct linear_report *report, double *norm,
                           struct err *e)
{
    const struct matrix *item = t->item;
    gpu_mark mark = gpu_arena_mark(t->scratch);
    struct qmatrix q, mine;
    struct own p;
    own_rows(&p, t);
    bool ok = qmatrix_create(&q, t->scratch, item->rows, item->cols, item->spec, e);
    const enum gpu_part before = gpu_part_begin(t->cmd, t->shared ? GPU_PART_ROWS : GPU_PART_OWN);
    if (ok) {
        mine = p.item.rows ? qmatrix_rows(&q, p.rows.first, p.item.rows) : (struct qmatrix){.spec = item->spec};
        ok = t->hessian ? with_hessian(&p, &mine, out, report, norm, e)
                        : first_codes(&p, &mine, e) && download(&p, &mine, out, e);
    }
    gpu_part_end(t->cmd, before);
    ok = ok && (!t->shared || comm_size() == 1 || gather_rows(&p, &q, out, e));
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

/* ---- what ranks exchange ---- */

/* As with_hessian and those that it calls ask for them. */
static unsigned times_losses(const struct linear_exchange *of)
{
    unsigned n = 3; /* of the weights, RTN and GPTQ */
    if (of->start)
        n += 2u * of->held + 1;
    if (plan_alone(of->options, of->item))
        n += 1u + 2u * of->held + of->outputs;
    return n;
}

void quantize_linear_expect(struct comm_expected *x, const struct linear_exchange *of)
{
    const struct matrix *item = of->item;
    const uint32_t pieces = of->hessian && item->pieces > 1 ? item->pieces : 1, rows = item->rows / pieces,
                   unit = quantize_linear_unit(of->outputs);
    for (uint32_t p = 0; p < pieces; p++) {
        if (of->hessian) {
            comm_expect_gather(x, COMM_LOSSES, rows, unit, sizeof(double), times_losses(of));
            comm_expect_broadcast(x, COMM_CODES, sizeof(struct gptq_facts), x->ranks - 1, 1);
        }
        share_codes_expect(x, rows, unit, item->cols, &item->spec);
    }
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
