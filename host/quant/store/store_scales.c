/* What the store keeps of all blocks together: the last pass over scales, and what the head reads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/quant/store/store_internal.h"

#define SCALES_FILE     "scales.safetensors"
#define IMPORTANCE_FILE "head-importance.safetensors"

/* Of each part of the pass over scales. */
static uint64_t part_bytes(const struct matrix *item)
{
    return item->coded ? (uint64_t)item->rows * 4 * quant_row_scales(&item->spec, item->cols) : 0;
}

uint64_t store_scales_bytes(const struct matrix *item)
{
    return SCALES_PARTS * part_bytes(item);
}

static const char *part_name(const struct matrix *item, enum scales_part part, char out[TENSOR_NAME_CAP])
{
    static const char *const names[SCALES_PARTS] = {"scales", "now", "m", "v"};
    snprintf(out, TENSOR_NAME_CAP, "%s.%s", item->module, names[part]);
    return out;
}

/* Of a done pass the best scales alone. */
static int parts_of(const struct scales_state *state)
{
    return state->done ? 1 : SCALES_PARTS;
}

/* Tensors of the file; names holds [plan->n_items * SCALES_PARTS]. */
static size_t list_scales(const struct plan *p, const struct scales_state *state, struct tensor_plan *plan,
                          char (*names)[TENSOR_NAME_CAP])
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        for (int part = 0; item->coded && part < parts_of(state); part++, n++)
            plan[n] = (struct tensor_plan){part_name(item, (enum scales_part)part, names[n]),
                                           DTYPE_F32,
                                           2,
                                           {item->rows, quant_row_scales(&item->spec, item->cols)}};
    }
    if (!state->done)
        plan[n++] = (struct tensor_plan){"losses", DTYPE_F32, 1, {state->n_losses}};
    return n;
}

static bool put_scales(struct safetensors_writer *w, const struct plan *p, const struct scales_state *state,
                       scales_pull *pull, void *ctx, struct err *e)
{
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        for (int part = 0; item->coded && part < parts_of(state); part++) {
            const float *x = pull(ctx, i, (enum scales_part)part, e);
            if (!x || !safetensors_writer_put(w, x, (size_t)part_bytes(item), e))
                return false;
        }
    }
    return state->done || safetensors_writer_put(w, state->losses, state->n_losses * sizeof *state->losses, e);
}

/* A damaged file is as good as none. Whether it goes with the blocks is seen when it is read. */
void store_open_scales(struct store *s)
{
    char path[4096];
    struct err e = {0};
    s->scales_done = false;
    if (!store_path(s, SCALES_FILE, path, sizeof path, &e) || os_stat(path, NULL) == OS_ABSENT)
        return;
    if (!store_open_whole(&s->scales, path, s->run, NULL, &e)) {
        s->scales = NULL;
        log_warn("%s; the pass over scales is done again", e.msg);
    }
}

/* Whether a file was made from the blocks as they are. *known false: that cannot be said while one is
 * missing. */
static bool of_blocks(struct store *s, const struct plan *p, const struct safetensors *f, bool *known)
{
    char now[33];
    struct err why = {0};
    const char *then = safetensors_metadata(f, "blocks");
    *known = store_hash_blocks(s, p, now, &why);
    return *known && then && strcmp(then, now) == 0;
}

static bool save(void *store, const struct scales_state *state, scales_pull *pull, void *ctx, struct err *e)
{
    struct store *s = store;
    const struct plan *p = s->plan;
    char path[4096], curves[STAGE_REPORT_CAP], epochs[16], rate[32], blocks[33];
    size_t most = p->n_items * SCALES_PARTS + 1;
    struct tensor_plan *plan = calloc(most, sizeof *plan);
    char(*names)[TENSOR_NAME_CAP] = calloc(most, sizeof *names);
    struct safetensors_writer *w;
    const char *metadata[STORE_OWN_FACTS + 5][2] = {[STORE_OWN_FACTS] = {"blocks", blocks},
                                                    {"state", state->done ? "done" : "training"},
                                                    {"epochs", epochs},
                                                    {"rate", rate},
                                                    {"report", curves}};
    store_own_facts(s, metadata);
    snprintf(epochs, sizeof epochs, "%u", state->epochs);
    snprintf(rate, sizeof rate, "%.9g", (double)state->rate);
    bool ok = (plan && names) || err_nomem(e, "the list of scales", most * (sizeof *plan + sizeof *names));
    ok = ok && store_hash_blocks(s, p, blocks, e);
    ok = ok &&
         (stage_report_print(&state->report, curves, sizeof curves) || err_set(e, ERR_BUG, "the report is too long"));
    ok = ok && store_path(s, SCALES_FILE, path, sizeof path, e);
    if (ok) {
        safetensors_close(&s->scales); /* a mapped file cannot be replaced everywhere */
        size_t n = list_scales(p, state, plan, names);
        ok = safetensors_writer_open(&w, path, plan, n, (const char *const(*)[2])metadata,
                                     sizeof metadata / sizeof *metadata, e);
        if (ok && !put_scales(w, p, state, pull, ctx, e)) {
            safetensors_writer_abort(&w);
            ok = false;
        } else if (ok) {
            ok = safetensors_writer_close(&w, e);
        }
    }
    free(plan);
    free(names);
    if (ok) {
        stop_point("epoch", NULL);
        store_open_scales(s);
    }
    s->scales_done = ok && s->scales && state->done;
    return ok;
}

/* Whether every tensor is there in its size. */
static bool scales_whole(const struct store *s, const struct plan *p, const struct scales_state *state)
{
    char name[TENSOR_NAME_CAP];
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        for (int part = 0; item->coded && part < parts_of(state); part++) {
            const struct tensor *t = safetensors_find(s->scales, part_name(item, (enum scales_part)part, name));
            if (!t || t->dtype != DTYPE_F32 || t->bytes != part_bytes(item))
                return false;
        }
    }
    return true;
}

bool store_read_scales(struct store *s, const struct plan *p, struct scales_state *state)
{
    struct scales_state found = {.losses = state->losses};
    bool known;
    s->scales_done = false;
    if (!s->scales)
        return false;
    bool ok = of_blocks(s, p, s->scales, &known);
    if (!known)
        return false;
    const char *done = safetensors_metadata(s->scales, "state");
    found.done = done && strcmp(done, "done") == 0;
    const char *epochs = safetensors_metadata(s->scales, "epochs"), *rate = safetensors_metadata(s->scales, "rate");
    const struct tensor *losses = safetensors_find(s->scales, "losses");
    found.report.stage = STAGE_SCALES;
    ok = ok && epochs && rate && sscanf(epochs, "%u", &found.epochs) == 1 && sscanf(rate, "%f", &found.rate) == 1 &&
         stage_report_scan(safetensors_metadata(s->scales, "report"), &found.report) && scales_whole(s, p, &found);
    if (ok && !found.done && found.losses) {
        ok = losses && losses->dtype == DTYPE_F32 && losses->bytes <= state->n_losses * sizeof *found.losses;
        if (ok)
            memcpy(found.losses, losses->data, (size_t)losses->bytes);
        found.n_losses = ok ? (uint32_t)(losses->bytes / 4) : 0;
    }
    if (ok)
        *state = found;
    else
        log_warn("scales.safetensors in %s is not what this run needs; the pass over scales is done again", s->dir);
    s->scales_done = found.done && ok;
    return ok;
}

bool store_read_scales_part(struct store *s, const struct matrix *item, enum scales_part part, float *out,
                            struct err *e)
{
    char name[TENSOR_NAME_CAP];
    const struct tensor *t = s->scales ? safetensors_find(s->scales, part_name(item, part, name)) : NULL;
    uint64_t bytes = part_bytes(item);
    if (!t || t->bytes != bytes) {
        err_set(e, ERR_ENV, "scales.safetensors in %s does not hold %s as this run needs it", s->dir, item->module);
        return err_hint(e, "repeat the command: what is damaged is made again");
    }
    memcpy(out, t->data, (size_t)bytes);
    return true;
}

static bool linear_of(void *ctx, const struct matrix *item, bool last, struct qlinear *q, struct err *e)
{
    return last ? store_read_final(ctx, item, q, e) : store_read_linear(ctx, item, q, NULL, e);
}

static bool state_of(void *ctx, struct scales_state *state)
{
    struct store *s = ctx;
    return store_read_scales(s, s->plan, state);
}

static bool part_of(void *ctx, const struct matrix *item, enum scales_part part, float *out, struct err *e)
{
    return store_read_scales_part(ctx, item, part, out, e);
}

struct scales_store store_for_scales(struct store *s, const struct plan *p)
{
    s->plan = p;
    return (struct scales_store){s, linear_of, state_of, part_of, save};
}

/* ---- what the head reads ---- */

bool store_write_importance(struct store *s, const struct plan *p, const float *sums, uint32_t n, struct err *e)
{
    char path[4096], blocks[33];
    const struct tensor_plan plan = {"sums", DTYPE_F32, 1, {n}};
    const char *metadata[STORE_OWN_FACTS + 1][2] = {[STORE_OWN_FACTS] = {"blocks", blocks}};
    struct safetensors_writer *w;
    store_own_facts(s, metadata);
    if (!store_path(s, IMPORTANCE_FILE, path, sizeof path, e) || !store_hash_blocks(s, p, blocks, e) ||
        !safetensors_writer_open(&w, path, &plan, 1, (const char *const(*)[2])metadata, STORE_OWN_FACTS + 1, e))
        return false;
    if (safetensors_writer_put(w, sums, n * sizeof *sums, e))
        return safetensors_writer_close(&w, e);
    safetensors_writer_abort(&w);
    return false;
}

bool store_read_importance(struct store *s, const struct plan *p, float *sums, uint32_t n)
{
    char path[4096];
    struct err e = {0};
    struct safetensors *f = NULL;
    if (!store_path(s, IMPORTANCE_FILE, path, sizeof path, &e) || os_stat(path, NULL) == OS_ABSENT)
        return false;
    bool known = true, ok = store_open_whole(&f, path, s->run, NULL, &e);
    const struct tensor *t = ok ? safetensors_find(f, "sums") : NULL;
    if (ok)
        ok = of_blocks(s, p, f, &known) && t && t->dtype == DTYPE_F32 && t->bytes == n * sizeof *sums;
    if (ok)
        memcpy(sums, t->data, (size_t)t->bytes);
    else if (known)
        log_warn("%s; it is made again",
                 e.msg[0] ? e.msg : "head-importance.safetensors does not belong to these blocks");
    safetensors_close(&f);
    return ok;
}
