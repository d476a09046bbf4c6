#include "host/quant/store.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/pack.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/qmatrix.h"

#define NAME_CAP   128
#define REPORT_CAP 256
#define STAGE_CAP  2560

struct store {
    char dir[3072];
    struct safetensors *block; /* the block read last */
    uint32_t layer;
    struct safetensors *scales; /* the last pass over scales, if there was one */
    bool scales_done;
};

static bool block_path(const struct store *s, uint32_t layer, char *out, size_t cap, struct err *e)
{
    char name[40];
    snprintf(name, sizeof name, "block-%04u.safetensors", layer);
    return os_path_join(out, cap, s->dir, name, e);
}

static bool scales_path(const struct store *s, char *out, size_t cap, struct err *e)
{
    return os_path_join(out, cap, s->dir, "scales.safetensors", e);
}

static char *manifest_text(const struct store_field *fields, size_t n)
{
    cJSON *root = cJSON_CreateObject();
    for (size_t i = 0; root && i < n; i++)
        cJSON_AddStringToObject(root, fields[i].name, fields[i].value);
    char *text = root ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    return text;
}

/* Every field as in the manifest on disk. */
static bool manifest_matches(const char *path, const struct store_field *fields, size_t n, struct err *e)
{
    char *text;
    size_t size;
    if (!os_read_file(path, 1 << 20, &text, &size, e))
        return false;
    cJSON *root = cJSON_ParseWithLength(text, size);
    free(text);
    bool ok = root != NULL;
    if (!ok) {
        err_set(e, ERR_USER, "%s is damaged", path);
        err_hint(e, "delete that work folder and start again");
    }
    for (size_t i = 0; ok && i < n; i++) {
        const char *was = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, fields[i].name));
        if (was && strcmp(was, fields[i].value) == 0)
            continue;
        ok = err_set(e, ERR_USER, "%s belongs to another run: its %s is %s, this run's is %s", path,
                     fields[i].name, was ? was : "missing", fields[i].value);
        err_hint(
            e, "repeat the earlier command to resume it, or give another --work folder, or delete that one");
    }
    cJSON_Delete(root);
    return ok;
}

/* A damaged file is as good as none. */
static void open_scales(struct store *s)
{
    char path[4096];
    struct err e = {0};
    s->scales_done = false;
    if (!scales_path(s, path, sizeof path, &e) || os_stat(path, NULL) != OS_FILE)
        return;
    if (!safetensors_open_file(&s->scales, path, &e)) {
        s->scales = NULL;
        log_warn("%s; the pass over scales is done again", e.msg);
        return;
    }
    const char *state = safetensors_metadata(s->scales, "state");
    s->scales_done = state && strcmp(state, "done") == 0;
}

bool store_open(struct store **out, const char *dir, const struct store_field *fields, size_t n,
                struct err *e)
{
    char path[4096];
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, "the store", sizeof *s);
    bool ok = strlen(dir) < sizeof s->dir || err_set(e, ERR_USER, "the path is too long: %.200s", dir);
    if (ok) {
        strcpy(s->dir, dir);
        ok = os_mkdirs(dir, e) && os_path_join(path, sizeof path, dir, "manifest.json", e);
    }
    if (ok && os_stat(path, NULL) == OS_FILE) {
        ok = manifest_matches(path, fields, n, e);
    } else if (ok) {
        char *text = manifest_text(fields, n);
        ok = text ? os_write_file(path, text, strlen(text), e) : err_nomem(e, "the manifest", n);
        cJSON_free(text);
    }
    if (!ok) {
        free(s);
        return false;
    }
    open_scales(s);
    *out = s;
    return true;
}

void store_close(struct store **s)
{
    if (!*s)
        return;
    safetensors_close(&(*s)->block);
    safetensors_close(&(*s)->scales);
    free(*s);
    *s = NULL;
}

static bool open_block(struct store *s, uint32_t layer, struct err *e)
{
    char path[4096];
    if (s->block && s->layer == layer)
        return true;
    safetensors_close(&s->block);
    s->layer = layer;
    return block_path(s, layer, path, sizeof path, e) && safetensors_open_file(&s->block, path, e);
}

uint32_t store_blocks_done(struct store *s, uint32_t layers)
{
    uint32_t done = 0;
    for (; done < layers; done++) {
        char path[4096];
        struct err e = {0};
        if (!block_path(s, done, path, sizeof path, &e) || os_stat(path, NULL) != OS_FILE)
            break;
        if (!open_block(s, done, &e)) {
            log_warn("%s; this block is done again", e.msg);
            break;
        }
    }
    return done;
}

static uint64_t words_per_row(const struct plan_item *item)
{
    return div_up((uint64_t)item->cols * item->spec.type->bits, 32);
}

uint64_t store_item_bytes(const struct plan_item *item)
{
    return item->keep
               ? 0
               : (uint64_t)item->rows * 4 * (words_per_row(item) + quant_row_scales(&item->spec, item->cols));
}

/* Columns of a part of the pass over scales; rows are the item's. */
static uint32_t part_cols(const struct plan_item *item, enum scales_part part)
{
    return part == SCALES_BEST ? quant_row_scales(&item->spec, item->cols)
                               : quant_row_steps(&item->spec, item->cols);
}

static uint64_t part_bytes(const struct plan_item *item, enum scales_part part)
{
    return item->keep ? 0 : (uint64_t)item->rows * 4 * part_cols(item, part);
}

uint64_t store_scales_bytes(const struct plan_item *item)
{
    uint64_t sum = 0;
    for (int part = 0; part < SCALES_PARTS; part++)
        sum += part_bytes(item, (enum scales_part)part);
    return sum;
}

static void report_print(const struct linear_report *r, char out[REPORT_CAP])
{
    snprintf(out, REPORT_CAP, "%.17g %.17g %.17g %u %d %d %.6f", r->loss_rtn, r->loss_gptq, r->loss_final,
             r->rows_rolled_back, r->damp_raised, r->diagonal_only, r->seconds);
}

static void report_scan(const char *text, struct linear_report *r)
{
    int raised = 0, diagonal = 0;
    if (!text || sscanf(text, "%lf %lf %lf %u %d %d %lf", &r->loss_rtn, &r->loss_gptq, &r->loss_final,
                        &r->rows_rolled_back, &raised, &diagonal, &r->seconds) != 7)
        r->loss_rtn = r->loss_gptq = r->loss_final = NAN;
    r->damp_raised = raised != 0;
    r->diagonal_only = diagonal != 0;
}

/* Numbers, a space between: facts, then both curves. */
static bool stage_print(const struct stage_report *r, char *out, size_t cap)
{
    size_t at =
        (size_t)snprintf(out, cap, "%.17g %.17g %u %u %u %u %.6f %u %u", r->loss_start, r->loss_final,
                         r->steps, r->epochs, r->best_epoch, r->retries, r->seconds, r->n_soft, r->n_hard);
    for (uint32_t i = 0; i < r->n_soft + r->n_hard && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, " %.9g",
                               (double)(i < r->n_soft ? r->soft[i] : r->hard[i - r->n_soft]));
    return at < cap;
}

static bool stage_scan(const char *text, struct stage_report *r)
{
    int used = 0;
    if (!text ||
        sscanf(text, "%lf %lf %u %u %u %u %lf %u %u%n", &r->loss_start, &r->loss_final, &r->steps, &r->epochs,
               &r->best_epoch, &r->retries, &r->seconds, &r->n_soft, &r->n_hard, &used) != 9 ||
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

/* From a type's codes to the signed ones of pack.h: those of types with offsets start at 0. */
static int code_shift(const struct quant_type *t)
{
    return t->lo == 0 ? 1 << (t->bits - 1) : 0;
}

static void shift_codes(int8_t *codes, size_t n, int by)
{
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)(codes[i] + by);
}

/* Codes of one linear, row by row as packed words, then its scales. */
static bool put_linear(struct safetensors_writer *w, const struct plan_item *item, const struct qlinear *q,
                       struct err *e)
{
    size_t words = (size_t)words_per_row(item);
    uint32_t *row = malloc(words * 4);
    int8_t *codes = malloc(q->cols);
    bool ok = (row && codes) || err_nomem(e, "packed codes", words * 4);
    for (uint32_t r = 0; ok && r < q->rows; r++) {
        memcpy(codes, q->codes + (size_t)r * q->cols, q->cols);
        shift_codes(codes, q->cols, -code_shift(item->spec.type));
        pack_codes(codes, q->cols, 1, item->spec.type->bits, row);
        ok = safetensors_writer_put(w, row, words * 4, e);
    }
    free(row);
    free(codes);
    return ok &&
           safetensors_writer_put(
               w, q->scales, (size_t)q->rows * quant_row_scales(&item->spec, item->cols) * sizeof(float), e);
}

bool store_write_block(struct store *s, uint32_t layer, const struct plan_item *items,
                       const struct qlinear *linears, const struct linear_report *reports,
                       const struct stage_report *stages, struct err *e)
{
    static const size_t n = LINEAR_COUNT;
    struct tensor_plan plan[2 * LINEAR_COUNT];
    char names[2 * LINEAR_COUNT][NAME_CAP], texts[LINEAR_COUNT][REPORT_CAP], path[4096];
    char curves[2][STAGE_CAP];
    const char *metadata[LINEAR_COUNT + 2][2];
    size_t count = 0, facts = 0;
    for (size_t i = 0; i < n; i++) {
        if (items[i].keep)
            continue;
        snprintf(names[count], NAME_CAP, "%s.codes", items[i].module);
        plan[count] =
            (struct tensor_plan){names[count], DTYPE_U32, 2, {items[i].rows, words_per_row(&items[i])}};
        count++;
        snprintf(names[count], NAME_CAP, "%s.scales", items[i].module);
        plan[count] = (struct tensor_plan){
            names[count], DTYPE_F32, 2, {items[i].rows, quant_row_scales(&items[i].spec, items[i].cols)}};
        count++;
        report_print(&reports[i], texts[i]);
        metadata[facts][0] = items[i].module;
        metadata[facts][1] = texts[i];
        facts++;
    }
    for (int i = 0; i < 2; i++) {
        if (!stages[i].steps || !stage_print(&stages[i], curves[i], sizeof curves[i]))
            continue;
        metadata[facts][0] = stage_name(stages[i].stage);
        metadata[facts][1] = curves[i];
        facts++;
    }
    if (!block_path(s, layer, path, sizeof path, e))
        return false;
    struct safetensors_writer *w;
    if (!safetensors_writer_open(&w, path, plan, count, (const char *const(*)[2])metadata, facts, e))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!items[i].keep && !put_linear(w, &items[i], &linears[i], e)) {
            safetensors_writer_abort(&w);
            return false;
        }
    }
    return safetensors_writer_close(&w, e);
}

bool store_read_linear(struct store *s, const struct plan_item *item, struct qlinear *out,
                       struct linear_report *report, struct err *e)
{
    char name[NAME_CAP];
    if (!open_block(s, item->layer, e))
        return false;
    snprintf(name, sizeof name, "%s.codes", item->module);
    const struct tensor *codes = safetensors_find(s->block, name);
    snprintf(name, sizeof name, "%s.scales", item->module);
    const struct tensor *scales = safetensors_find(s->block, name);
    uint64_t words = words_per_row(item), row_scales = quant_row_scales(&item->spec, item->cols);
    if (!codes || !scales || codes->bytes != item->rows * words * 4 ||
        scales->bytes != item->rows * row_scales * 4) {
        err_set(e, ERR_USER, "block %u in %s does not hold %s as this run needs it", item->layer, s->dir,
                item->module);
        return err_hint(e, "delete that work folder and start again");
    }
    if (!qlinear_init(out, item->rows, item->cols, item->spec, e))
        return false;
    uint32_t *row = malloc((size_t)words * 4);
    if (!row) {
        qlinear_free(out);
        return err_nomem(e, "packed codes", words * 4);
    }
    for (uint32_t r = 0; r < item->rows; r++) {
        memcpy(row, codes->data + r * words * 4, (size_t)words * 4);
        int8_t *to = out->codes + (size_t)r * item->cols;
        unpack_codes(row, item->cols, item->spec.type->bits, to, 1);
        shift_codes(to, item->cols, code_shift(item->spec.type));
    }
    free(row);
    memcpy(out->scales, scales->data, (size_t)scales->bytes);
    if (s->scales_done && !store_read_scales_part(s, item, SCALES_BEST, out->scales, e)) {
        qlinear_free(out);
        return false;
    }
    if (report) {
        snprintf(report->module, sizeof report->module, "%s", item->module);
        report_scan(safetensors_metadata(s->block, item->module), report);
        report->stats = code_stats_of(out, item->spec.type);
    }
    return true;
}

void store_read_stages(struct store *s, uint32_t layer, struct stage_report stages[2])
{
    static const enum tune_stage kinds[2] = {STAGE_ATTN, STAGE_FFN};
    struct err e = {0};
    for (int i = 0; i < 2; i++) {
        struct stage_report r = {.stage = kinds[i], .layer = layer};
        bool there =
            open_block(s, layer, &e) && stage_scan(safetensors_metadata(s->block, stage_name(kinds[i])), &r);
        stages[i] = there ? r : (struct stage_report){.stage = kinds[i], .layer = layer};
    }
}

/* ---- the last pass over scales ---------------------------------------------------------------------------
 */

static const char *part_name(const struct plan_item *item, enum scales_part part, char out[NAME_CAP])
{
    static const char *const names[SCALES_PARTS] = {"scales", "now", "m", "v"};
    snprintf(out, NAME_CAP, "%s.%s", item->module, names[part]);
    return out;
}

/* Of a done pass the best scales alone. */
static int parts_of(const struct scales_state *state)
{
    return state->done ? 1 : SCALES_PARTS;
}

/* Tensors of the file; names holds [plan->n_items * SCALES_PARTS]. */
static size_t list_scales(const struct plan *p, const struct scales_state *state, struct tensor_plan *plan,
                          char (*names)[NAME_CAP])
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        for (int part = 0; !item->keep && part < parts_of(state); part++, n++)
            plan[n] = (struct tensor_plan){part_name(item, (enum scales_part)part, names[n]),
                                           DTYPE_F32,
                                           2,
                                           {item->rows, part_cols(item, (enum scales_part)part)}};
    }
    if (!state->done)
        plan[n++] = (struct tensor_plan){"losses", DTYPE_F32, 1, {state->n_losses}};
    return n;
}

static bool put_scales(struct safetensors_writer *w, const struct plan *p, const struct scales_state *state,
                       scales_pull *pull, void *ctx, struct err *e)
{
    for (size_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        for (int part = 0; !item->keep && part < parts_of(state); part++) {
            const float *x = pull(ctx, i, (enum scales_part)part, e);
            if (!x || !safetensors_writer_put(w, x, (size_t)part_bytes(item, (enum scales_part)part), e))
                return false;
        }
    }
    return state->done ||
           safetensors_writer_put(w, state->losses, state->n_losses * sizeof *state->losses, e);
}

bool store_write_scales(struct store *s, const struct plan *p, const struct scales_state *state,
                        scales_pull *pull, void *ctx, struct err *e)
{
    char path[4096], curves[STAGE_CAP], epochs[16], rate[32];
    size_t most = p->n_items * SCALES_PARTS + 1;
    struct tensor_plan *plan = calloc(most, sizeof *plan);
    char(*names)[NAME_CAP] = calloc(most, sizeof *names);
    struct safetensors_writer *w;
    const char *const metadata[][2] = {
        {"state", state->done ? "done" : "training"}, {"epochs", epochs}, {"rate", rate}, {"report", curves}};
    snprintf(epochs, sizeof epochs, "%u", state->epochs);
    snprintf(rate, sizeof rate, "%.9g", (double)state->rate);
    bool ok = (plan && names) || err_nomem(e, "the list of scales", most * (sizeof *plan + sizeof *names));
    ok = ok && (stage_print(&state->report, curves, sizeof curves) ||
                err_set(e, ERR_BUG, "the report is too long"));
    ok = ok && scales_path(s, path, sizeof path, e);
    if (ok) {
        safetensors_close(&s->scales); /* a mapped file cannot be replaced everywhere */
        size_t n = list_scales(p, state, plan, names);
        ok = safetensors_writer_open(&w, path, plan, n, metadata, sizeof metadata / sizeof *metadata, e);
        if (ok && !put_scales(w, p, state, pull, ctx, e)) {
            safetensors_writer_abort(&w);
            ok = false;
        } else if (ok) {
            ok = safetensors_writer_close(&w, e);
        }
    }
    free(plan);
    free(names);
    if (ok)
        open_scales(s);
    return ok;
}

/* Whether every tensor is there in its size. */
static bool scales_whole(const struct store *s, const struct plan *p, const struct scales_state *state)
{
    char name[NAME_CAP];
    for (size_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        for (int part = 0; !item->keep && part < parts_of(state); part++) {
            const struct tensor *t =
                safetensors_find(s->scales, part_name(item, (enum scales_part)part, name));
            if (!t || t->dtype != DTYPE_F32 || t->bytes != part_bytes(item, (enum scales_part)part))
                return false;
        }
    }
    return true;
}

bool store_read_scales(struct store *s, const struct plan *p, struct scales_state *state)
{
    struct scales_state found = {.done = s->scales_done, .losses = state->losses};
    if (!s->scales)
        return false;
    const char *epochs = safetensors_metadata(s->scales, "epochs"),
               *rate = safetensors_metadata(s->scales, "rate");
    const struct tensor *losses = safetensors_find(s->scales, "losses");
    found.report.stage = STAGE_SCALES;
    bool ok =
        epochs && rate && sscanf(epochs, "%u", &found.epochs) == 1 && sscanf(rate, "%f", &found.rate) == 1 &&
        stage_scan(safetensors_metadata(s->scales, "report"), &found.report) && scales_whole(s, p, &found);
    if (ok && !found.done && found.losses) {
        ok = losses && losses->dtype == DTYPE_F32 && losses->bytes <= state->n_losses * sizeof *found.losses;
        if (ok)
            memcpy(found.losses, losses->data, (size_t)losses->bytes);
        found.n_losses = ok ? (uint32_t)(losses->bytes / 4) : 0;
    }
    if (ok)
        *state = found;
    else
        log_warn("scales.safetensors in %s is not what this run needs; the pass over scales is done again",
                 s->dir);
    s->scales_done = s->scales_done && ok;
    return ok;
}

bool store_read_scales_part(struct store *s, const struct plan_item *item, enum scales_part part, float *out,
                            struct err *e)
{
    char name[NAME_CAP];
    const struct tensor *t = s->scales ? safetensors_find(s->scales, part_name(item, part, name)) : NULL;
    uint64_t bytes = part_bytes(item, part);
    if (!t || t->bytes != bytes) {
        err_set(e, ERR_USER, "scales.safetensors in %s does not hold %s as this run needs it", s->dir,
                item->module);
        return err_hint(e, "delete that work folder and start again");
    }
    memcpy(out, t->data, (size_t)bytes);
    return true;
}

void store_remove(struct store **s)
{
    char path[4096];
    safetensors_close(&(*s)->block);
    safetensors_close(&(*s)->scales);
    if (scales_path(*s, path, sizeof path, NULL) && os_stat(path, NULL) == OS_FILE)
        os_remove(path);
    for (uint32_t layer = 0; block_path(*s, layer, path, sizeof path, NULL) && os_stat(path, NULL) == OS_FILE;
         layer++)
        os_remove(path);
    if (os_path_join(path, sizeof path, (*s)->dir, "manifest.json", NULL))
        os_remove(path);
    os_remove_dir((*s)->dir);
    store_close(s);
}
