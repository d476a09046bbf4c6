#include "host/eval/tasks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/question_file.h"
#include "formats/tokenizer/tokenizer.h"
#include "host/base/os.h"
#include "host/base/str.h"

/* Tokens of a pass: what is kept of them is hidden states; every pass reads the weights once. */
#define AT_ONCE (1u << 18)

/* A question with one of its choices. */
struct reading {
    uint32_t *ids;
    uint32_t n, from; /* tokens; the first of the choice */
    uint32_t question, choice;
};

struct tasks {
    const struct tasks_options *o;
    struct questions questions;
    struct reading *readings; /* [n], the longest first */
    uint32_t n;
    double **nll; /* [questions][choices], sums */
    uint64_t *right_tokens;
    struct tasks_result *out;
    /* The present pass. */
    const struct reading *first;
    uint64_t tokens_before, tokens_in, tokens_all;
    uint64_t start_ns;
};

/* ---- from text to tokens ---- */

/* Where the tokens of `whole` leave those of the question; at least one token is the choice's. */
static uint32_t parting(const uint32_t *question, size_t n, const uint32_t *whole, size_t n_whole)
{
    size_t i = 0;
    while (i < n && i + 1 < n_whole && question[i] == whole[i])
        i++;
    return (uint32_t)i;
}

/* The end of what is too long, behind the BOS if there is one. */
static bool cut(struct tasks *t, struct reading *r, bool bos, struct err *e)
{
    const struct question *q = &t->questions.list[r->question];
    uint32_t ctx = t->o->ctx, kept = bos ? 1 : 0, drop = r->n - ctx;
    if (r->from < kept + drop + 1) {
        err_set(e, ERR_USER,
                "%s, line %" PRIu64 ": choice %" PRIu32 " has %" PRIu32 " tokens, too many for a window of %" PRIu32,
                t->o->path, q->line, r->choice + 1, r->n - r->from, ctx);
        return err_hint(e, "use a larger --ctx");
    }
    memmove(r->ids + kept, r->ids + kept + drop, (size_t)(r->n - kept - drop) * sizeof *r->ids);
    r->n -= drop;
    r->from -= drop;
    return true;
}

static bool read_choice(struct tasks *t, const struct tokenizer *tok, const uint32_t *ids, size_t n_ids,
                        struct reading *r, struct err *e)
{
    const struct question *q = &t->questions.list[r->question];
    const char *choice = q->choices[r->choice];
    size_t length = strlen(q->text), n;
    struct strbuf whole = {0};
    strbuf_puts(&whole, q->text);
    if (length && !str_is_space(q->text[length - 1]) && !str_is_space(choice[0]))
        strbuf_puts(&whole, " ");
    strbuf_puts(&whole, choice);
    bool ok = !whole.failed || err_nomem(e, "a question", length);
    ok = ok && tokenizer_encode(tok, whole.data, whole.size, &r->ids, &n, e);
    strbuf_free(&whole);
    if (!ok)
        return false;
    r->n = (uint32_t)n;
    r->from = parting(ids, n_ids, r->ids, n);
    /* The first token of a window has no prediction. */
    if (r->from == 0)
        r->from = 1;
    if (r->n < 2) {
        err_set(e, ERR_USER, "%s, line %" PRIu64 ": question and choice are a single token", t->o->path, q->line);
        return err_hint(e, "give the question a text that the choice goes on from");
    }
    return true;
}

static bool read_question(struct tasks *t, const struct tokenizer *tok, uint32_t question, struct err *e)
{
    const struct question *q = &t->questions.list[question];
    uint32_t *ids = NULL;
    size_t n = 0;
    bool was_cut = false;
    bool ok = tokenizer_encode(tok, q->text, strlen(q->text), &ids, &n, e);
    for (uint32_t c = 0; ok && c < q->n_choices; c++) {
        struct reading *r = &t->readings[t->n++];
        *r = (struct reading){.question = question, .choice = c};
        ok = read_choice(t, tok, ids, n, r, e);
        was_cut = was_cut || (ok && r->n > t->o->ctx);
        ok = ok && (r->n <= t->o->ctx || cut(t, r, tokenizer_bos(tok) >= 0, e));
    }
    free(ids);
    t->out->cut += was_cut;
    return ok || err_context(e, "%s, line %" PRIu64, t->o->path, q->line);
}

static int longest_first(const void *a, const void *b)
{
    const struct reading *x = a, *y = b;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    if (x->question != y->question)
        return x->question < y->question ? -1 : 1;
    return (x->choice > y->choice) - (x->choice < y->choice);
}

static bool read_all(struct tasks *t, const struct checkpoint *ck, struct err *e)
{
    struct tokenizer *tok = NULL;
    size_t n = 0;
    for (uint32_t i = 0; i < t->questions.n; i++)
        n += t->questions.list[i].n_choices;
    t->readings = calloc(n + 1, sizeof *t->readings);
    if (!t->readings)
        return err_nomem(e, "the questions", n * sizeof *t->readings);
    bool ok = tokenizer_load(&tok, checkpoint_dir(ck), e);
    for (uint32_t i = 0; ok && i < t->questions.n; i++)
        ok = read_question(t, tok, i, e);
    tokenizer_destroy(&tok);
    if (!ok)
        return false;
    qsort(t->readings, t->n, sizeof *t->readings, longest_first);
    return true;
}

/* ---- passes ---- */

/* Readings that go through the model together, from `at` on: as long as the first, which is the longest. */
static uint32_t pass_size(const struct tasks *t, uint32_t at)
{
    uint64_t most = (t->o->at_once ? t->o->at_once : AT_ONCE) / t->readings[at].n;
    return (uint32_t)min_u64(most ? most : 1, t->n - at);
}

static bool make_windows(const struct tasks *t, uint32_t at, uint32_t n, uint32_t vocab, struct windows *w,
                         struct err *e)
{
    *w = (struct windows){.n = n, .ctx = t->readings[at].n, .bos = -1};
    w->ids = calloc((size_t)n * w->ctx, sizeof *w->ids);
    if (!w->ids)
        return err_nomem(e, "windows", (uint64_t)n * w->ctx * sizeof *w->ids);
    for (uint32_t i = 0; i < n; i++) /* what is behind a reading changes nothing before it */
        memcpy(w->ids + (size_t)i * w->ctx, t->readings[at + i].ids, t->readings[at + i].n * sizeof *w->ids);
    return windows_check_ids(w->ids, (size_t)n * w->ctx, vocab, e);
}

static void take_window(void *ctx, uint32_t window, const float *nll)
{
    struct tasks *t = ctx;
    const struct reading *r = &t->first[window];
    double sum = 0;
    for (uint32_t i = r->from; i < r->n; i++)
        sum += nll[i - 1];
    t->nll[r->question][r->choice] = sum;
    if (r->choice == t->questions.list[r->question].answer)
        t->right_tokens[r->question] = r->n - r->from;
}

/* What a pass tells, as a part of the whole: tokens take equally long in all of them. */
static bool tell(void *ctx, const struct progress_event *ev)
{
    const struct tasks *t = ctx;
    struct progress_event whole = *ev;
    double done = (double)t->tokens_before + ev->done * (double)t->tokens_in;
    double spent = (double)(os_now_ns() - t->start_ns) * 1e-9;
    whole.done = done / (double)t->tokens_all;
    whole.elapsed_seconds = spent;
    if (!isnan(ev->eta_seconds)) {
        double behind = (double)(t->tokens_before + t->tokens_in);
        whole.eta_seconds = ev->eta_seconds + (spent + ev->eta_seconds) / behind * ((double)t->tokens_all - behind);
    }
    return !t->o->progress.fn || t->o->progress.fn(t->o->progress.ctx, &whole);
}

static bool pass(struct tasks *t, struct gpu_cmd *cmd, const struct checkpoint *ck, uint32_t at, uint32_t n,
                 struct err *e)
{
    struct windows w;
    const struct eval_options o = {.spill_dir = t->o->spill_dir, .progress = {tell, t}};
    t->first = &t->readings[at];
    bool ok = make_windows(t, at, n, checkpoint_config(ck)->vocab_size, &w, e);
    ok = ok && eval_windows(cmd, ck, &w, &o, take_window, t, e);
    windows_free(&w);
    return ok;
}

static bool all_passes(struct tasks *t, struct gpu_cmd *cmd, const struct checkpoint *ck, struct err *e)
{
    bool ok = true;
    for (uint32_t at = 0; at < t->n; at += pass_size(t, at))
        t->tokens_all += (uint64_t)pass_size(t, at) * t->readings[at].n;
    for (uint32_t at = 0, n; ok && at < t->n; at += n) {
        n = pass_size(t, at);
        t->tokens_in = (uint64_t)n * t->readings[at].n;
        ok = pass(t, cmd, ck, at, n, e);
        t->tokens_before += t->tokens_in;
    }
    return ok;
}

/* ---- the verdict ---- */

static bool alloc_sums(struct tasks *t, struct err *e)
{
    uint32_t n = t->questions.n;
    t->nll = calloc(n, sizeof *t->nll);
    t->right_tokens = calloc(n, sizeof *t->right_tokens);
    bool ok = t->nll && t->right_tokens;
    for (uint32_t i = 0; ok && i < n; i++)
        ok = (t->nll[i] = calloc(t->questions.list[i].n_choices, sizeof **t->nll)) != NULL;
    return ok || err_nomem(e, "the scores of questions", (uint64_t)n * 64);
}

/* The choice with the least -ln p, or the least of each byte. */
static uint32_t chosen(const struct question *q, const double *nll, bool by_length)
{
    uint32_t best = 0;
    double least = INFINITY;
    for (uint32_t c = 0; c < q->n_choices; c++) {
        double x = by_length ? nll[c] / (double)strlen(q->choices[c]) : nll[c];
        if (x < least) {
            least = x;
            best = c;
        }
    }
    return isinf(least) ? UINT32_MAX : best; /* of a broken model all are NaN: it chooses none */
}

static void judge(const struct tasks *t, struct tasks_result *out)
{
    struct moments plain = {0}, by_length = {0}, chance = {0};
    double nll = 0;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < t->questions.n; i++) {
        const struct question *q = &t->questions.list[i];
        moments_add(&plain, chosen(q, t->nll[i], false) == q->answer);
        moments_add(&by_length, chosen(q, t->nll[i], true) == q->answer);
        moments_add(&chance, 1.0 / q->n_choices);
        nll += t->nll[i][q->answer];
        tokens += t->right_tokens[i];
    }
    out->questions = t->questions.n;
    out->accuracy = moments_mean(&plain);
    out->accuracy_error = moments_error(&plain);
    out->by_length = moments_mean(&by_length);
    out->by_length_error = moments_error(&by_length);
    out->chance = moments_mean(&chance);
    out->mean_nll = nll / (double)tokens;
    out->ctx = t->readings[0].n;
    for (uint32_t i = 0; i < t->n; i++)
        out->tokens += t->readings[i].n;
}

bool tasks_run(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct tasks_options *o,
               struct tasks_result *out, struct err *e)
{
    struct tasks t = {.o = o, .out = out, .start_ns = os_now_ns()};
    *out = (struct tasks_result){0};
    bool ok = questions_load(&t.questions, o->path, o->at_most, e) && read_all(&t, ck, e) && alloc_sums(&t, e) &&
              all_passes(&t, cmd, ck, e);
    if (ok) {
        judge(&t, out);
        out->seconds = (double)(os_now_ns() - t.start_ns) * 1e-9;
    }
    for (uint32_t i = 0; i < t.n; i++)
        free(t.readings[i].ids);
    for (uint32_t i = 0; t.nll && i < t.questions.n; i++)
        free(t.nll[i]);
    free(t.readings);
    free(t.nll);
    free(t.right_tokens);
    questions_free(&t.questions);
    return ok;
}
