#include "host/quant/store/store_costs.h"
#include "host/quant/store/store_internal.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"

#define MANIFEST "manifest.json"

bool store_path(const struct store *s, const char *name, char *out, size_t cap, struct err *e)
{
    return os_path_join(out, cap, s->dir, name, e);
}

static bool part_path(const struct store *s, uint32_t layer, uint32_t part, char *out, size_t cap, struct err *e)
{
    char name[PART_NAME_CAP];
    return store_path(s, store_part_name(layer, part, name), out, cap, e);
}

bool store_open_whole(struct safetensors **out, const char *path, const char *run, struct hash128 *data, struct err *e)
{
    if (!safetensors_open_file(out, path, e)) {
        e->kind = ERR_ENV;
        return false;
    }
    const char *of = safetensors_metadata(*out, "run");
    bool ok = safetensors_verify(*out, data, e) &&
              (!run || (of && strcmp(of, run) == 0) || err_set(e, ERR_ENV, "%s belongs to another run", path));
    if (!ok)
        safetensors_close(out);
    return ok;
}

/* ---- the manifest ---- */

static struct manifest *read_manifest(const char *path, struct err *e)
{
    char *text;
    size_t size;
    if (!os_read_file(path, 1 << 20, &text, &size, e)) {
        e->kind = ERR_ENV;
        return NULL;
    }
    struct manifest *m = manifest_parse(text, size, path, e);
    free(text);
    return m;
}

static bool is_block_name(const char *name)
{
    return strncmp(name, "block-", 6) == 0 && strlen(name) > 18 &&
           strcmp(name + strlen(name) - 12, ".safetensors") == 0;
}

struct recovery {
    const char *dir;
    struct manifest *found;
    char from[64];
    unsigned blocks;
};

/* The copy in the last block that is whole: the newest. */
static bool copy_in_block(void *ctx, const char *name, struct err *e)
{
    struct recovery *r = ctx;
    struct safetensors *block = NULL;
    char path[4096];
    struct err why = {0};
    (void)e;
    if (!is_block_name(name) || !os_path_join(path, sizeof path, r->dir, name, &why))
        return true;
    r->blocks++;
    if (!store_open_whole(&block, path, NULL, NULL, &why))
        return true;
    const char *text = safetensors_metadata(block, "manifest");
    struct manifest *m = text ? manifest_parse(text, strlen(text), path, &why) : NULL;
    if (m) {
        manifest_free(&r->found);
        r->found = m;
        snprintf(r->from, sizeof r->from, "%s", name);
    }
    safetensors_close(&block);
    return true;
}

static void recover(struct recovery *r, const char *dir, const char *path, bool missing)
{
    *r = (struct recovery){.dir = dir};
    os_list(dir, copy_in_block, r, NULL);
    if (r->found)
        log_warn("%s is %s; the copy in %s is used", path, missing ? "missing" : "damaged", r->from);
    else if (r->blocks)
        log_warn("%s is %s, and no block beside it is intact: all are made again", path,
                 missing ? "missing" : "damaged");
    else if (!missing)
        log_warn("%s is damaged; no block was finished, so nothing is lost", path);
}

static bool is_block(void *ctx, const char *name, struct err *e)
{
    bool *any = ctx;
    (void)e;
    *any = *any || is_block_name(name);
    return true;
}

static bool open_manifest(struct store *s, const struct store_field *fields, size_t n, const char *accept, bool joins,
                          struct err *e)
{
    char path[4096];
    if (!os_path_join(path, sizeof path, s->dir, MANIFEST, e))
        return false;
    struct recovery r = {0};
    struct err why = {0};
    bool there = os_stat(path, NULL) != OS_ABSENT, write = false;
    if (there)
        s->manifest = read_manifest(path, &why);
    if (!s->manifest && why.kind == ERR_USER) {
        *e = why;
        return false;
    }
    if (!s->manifest && joins) {
        *e = why;
        return e->kind || err_set(e, ERR_ENV, "%s is not there any more", path);
    }
    /* Where no block is finished, nothing speaks against another run. */
    bool any = joins;
    os_list(s->dir, is_block, &any, NULL);
    if (s->manifest && !any) {
        manifest_free(&s->manifest);
        s->manifest = manifest_make(fields, n, e);
        write = true;
    } else if (!s->manifest) {
        recover(&r, s->dir, path, !there);
        s->manifest = r.found ? r.found : manifest_make(fields, n, e);
        write = true;
    }
    bool changed = false;
    if (!s->manifest || !manifest_settle(&s->manifest, fields, n, accept, path, &changed, e))
        return false;
    hash_hex(manifest_run(s->manifest), s->run);
    const char *text = manifest_text(s->manifest);
    return joins || (!write && !changed) || os_write_file(path, text, strlen(text), e);
}

bool store_recorded(const char *dir, const char *field, char *out, size_t cap)
{
    char path[4096];
    struct err e = {0};
    if (!os_path_join(path, sizeof path, dir, MANIFEST, &e) || os_stat(path, NULL) != OS_FILE)
        return false;
    struct manifest *m = read_manifest(path, &e);
    const char *value = m ? manifest_value(m, field) : NULL;
    if (value)
        snprintf(out, cap, "%s", value);
    manifest_free(&m);
    return value != NULL;
}

/* ---- opening ---- */

static bool open_store(struct store **out, const char *dir, const struct store_field *fields, size_t n,
                       const char *accept, bool joins, struct err *e)
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, "the store", sizeof *s);
    bool ok = strlen(dir) < sizeof s->dir || err_set(e, ERR_USER, "the path is too long: %.200s", dir);
    if (ok)
        strcpy(s->dir, dir);
    if (!ok || !os_mkdirs(dir, e) || !open_manifest(s, fields, n, accept, joins, e)) {
        store_close(&s);
        return false;
    }
    store_open_scales(s);
    *out = s;
    return true;
}

bool store_open(struct store **out, const char *dir, const struct store_field *fields, size_t n, const char *accept,
                struct err *e)
{
    return open_store(out, dir, fields, n, accept, false, e);
}

bool store_join(struct store **out, const char *dir, const struct store_field *fields, size_t n, const char *accept,
                struct err *e)
{
    return open_store(out, dir, fields, n, accept, true, e);
}

bool store_begun(const char *dir)
{
    char path[4096];
    return os_path_join(path, sizeof path, dir, MANIFEST, NULL) && os_stat(path, NULL) == OS_FILE;
}

void store_close(struct store **s)
{
    if (!*s)
        return;
    safetensors_close(&(*s)->block);
    safetensors_close(&(*s)->scales);
    safetensors_close(&(*s)->outputs);
    manifest_free(&(*s)->manifest);
    for (uint32_t i = 0; i < (*s)->n_seen; i++)
        free((*s)->seen[i].parts);
    free((*s)->seen);
    free(*s);
    *s = NULL;
}

static bool see(struct store *s, uint32_t layer, uint32_t part, struct seen what, struct err *e)
{
    if (layer >= s->n_seen) {
        uint32_t n = layer + 64;
        struct seen_block *grown = realloc(s->seen, n * sizeof *grown);
        if (!grown)
            return err_nomem(e, "the list of blocks", n * sizeof *grown);
        memset(grown + s->n_seen, 0, (n - s->n_seen) * sizeof *grown);
        s->seen = grown;
        s->n_seen = n;
    }
    struct seen_block *b = &s->seen[layer];
    if (part >= b->n) {
        struct seen *grown = realloc(b->parts, (part + 1u) * sizeof *grown);
        if (!grown)
            return err_nomem(e, "the list of a block's parts", (part + 1u) * sizeof *grown);
        memset(grown + b->n, 0, (part + 1u - b->n) * sizeof *grown);
        b->parts = grown;
        b->n = part + 1;
    }
    b->parts[part] = what;
    return true;
}

static int state_of(const struct store *s, uint32_t layer, uint32_t part)
{
    return layer < s->n_seen && part < s->seen[layer].n ? (int)s->seen[layer].parts[part].state : UNSEEN;
}

/* A part's file; its checksum is compared once. */
static bool open_part(struct store *s, uint32_t layer, uint32_t part, struct err *e)
{
    char path[4096];
    struct seen seen = {.state = WHOLE};
    if (s->block && s->layer == layer && s->part == part)
        return true;
    safetensors_close(&s->block);
    s->layer = layer;
    s->part = part;
    if (!part_path(s, layer, part, path, sizeof path, e))
        return false;
    bool known = state_of(s, layer, part) == WHOLE;
    bool ok =
        known ? safetensors_open_file(&s->block, path, e) : store_open_whole(&s->block, path, s->run, &seen.data, e);
    if (!ok)
        err_hint(e, "repeat the command: what is damaged is made again");
    return ok && (known || see(s, layer, part, seen, e));
}

/* Whether a part has a file of its own. */
static bool part_there(const struct store *s, uint32_t layer, uint32_t part)
{
    char path[4096];
    struct err e = {0};
    return part_path(s, layer, part, path, sizeof path, &e) && os_stat(path, NULL) != OS_ABSENT;
}

/* The file that a linear is in: its part's or, of an earlier gsq, the block's only one. */
static bool open_for(struct store *s, const struct matrix *item, struct err *e)
{
    uint32_t part = store_part_of(item);
    bool open = s->block && s->layer == item->layer && s->part == part;
    return open_part(s, item->layer, open || part_there(s, item->layer, part) ? part : 0, e);
}

static bool get_linear(struct store *s, const struct matrix *item, struct qlinear *out, struct err *e)
{
    char name[PART_NAME_CAP];
    return open_for(s, item, e) &&
           linear_get(s->block, store_part_name(item->layer, s->part, name), s->dir, item, out, e);
}

/* Under what a training stage stands in a block's metadata. */
static const char *const stage_keys[HALF_COUNT] = {"attention", "feed-forward"};

void store_own_facts(const struct store *s, const char *(*metadata)[2])
{
    metadata[0][0] = SAFETENSORS_CHECKSUM;
    metadata[0][1] = SAFETENSORS_NO_SUM_YET;
    metadata[1][0] = "run";
    metadata[1][1] = s->run;
}

/* What a part's file says: its tensors, and its facts. */
struct block_header {
    struct tensor_plan *tensors; /* of each linear that is coded */
    size_t n_tensors;
    char (*names)[TENSOR_NAME_CAP], (*texts)[LINEAR_REPORT_CAP], (*curves)[STAGE_REPORT_CAP];
    const char *(*facts)[2];
    size_t n_facts;
};

static void header_free(struct block_header *h)
{
    free(h->tensors);
    free(h->names);
    free(h->texts);
    free(h->curves);
    free(h->facts);
}

static bool header_alloc(struct block_header *h, uint32_t n, struct err *e)
{
    size_t facts = STORE_OWN_FACTS + 1u + n + HALF_COUNT;
    *h = (struct block_header){.tensors = calloc(LINEAR_TENSORS_MAX * (n + 1u), sizeof *h->tensors),
                               .names = calloc(LINEAR_TENSORS_MAX * (n + 1u), sizeof *h->names),
                               .texts = calloc(n + 1u, sizeof *h->texts),
                               .curves = calloc(HALF_COUNT, sizeof *h->curves),
                               .facts = calloc(facts, sizeof *h->facts)};
    return (h->tensors && h->names && h->texts && h->curves && h->facts) ||
           err_nomem(e, "a block's header", (uint64_t)n * (LINEAR_TENSORS_MAX * TENSOR_NAME_CAP + LINEAR_REPORT_CAP));
}

static void add_fact(struct block_header *h, const char *key, const char *value)
{
    h->facts[h->n_facts][0] = key;
    h->facts[h->n_facts++][1] = value;
}

static bool header_make(struct block_header *h, const struct store *s, struct block_items b,
                        const struct linear_report *reports, const struct stage_report *stages, struct err *e)
{
    if (!header_alloc(h, b.n, e))
        return false;
    store_own_facts(s, h->facts);
    h->n_facts = STORE_OWN_FACTS;
    add_fact(h, "manifest", manifest_text(s->manifest));
    for (uint32_t i = 0; i < b.n; i++) {
        const struct matrix *item = &b.items[i];
        if (!item->coded)
            continue;
        for (unsigned which = 0; which < linear_tensors(item); which++, h->n_tensors++)
            h->tensors[h->n_tensors] = linear_tensor(item, which, h->names[h->n_tensors]);
        linear_report_print(&reports[i], h->texts[i]);
        add_fact(h, item->module, h->texts[i]);
    }
    for (int i = 0; stages && i < HALF_COUNT; i++)
        if (stages[i].trained.steps && stage_report_print(&stages[i], h->curves[i], sizeof h->curves[i]))
            add_fact(h, stage_keys[i], h->curves[i]);
    return true;
}

static bool write_part(const char *path, const struct block_header *h, struct block_items b,
                       const struct qlinear *linears, struct err *e)
{
    struct safetensors_writer *w;
    if (!safetensors_writer_open(&w, path, h->tensors, h->n_tensors, (const char *const(*)[2])h->facts, h->n_facts, e))
        return false;
    for (uint32_t i = 0; i < b.n; i++) {
        if (b.items[i].coded && !linear_put(w, &b.items[i], &linears[i], e)) {
            safetensors_writer_abort(&w);
            return false;
        }
    }
    return safetensors_writer_close(&w, e);
}

bool store_forget_part(struct store *s, uint32_t layer, uint32_t part, struct err *e)
{
    if (s->layer == layer && s->part == part)
        safetensors_close(&s->block); /* a mapped file cannot be replaced everywhere */
    return see(s, layer, part, (struct seen){.state = UNSEEN}, e);
}

bool store_put_part(const struct store *s, uint32_t layer, struct block_items part, const struct qlinear *linears,
                    const struct linear_report *reports, const struct stage_report *stages, struct err *e)
{
    struct block_header h = {0};
    char path[4096];
    uint32_t number = part.n ? store_part_of(&part.items[0]) : 0;
    if (!store_part_has_file(part))
        return true;
    for (uint32_t i = 0; i < part.n; i++)
        if (part.items[i].coded && !linear_sane(&linears[i], &part.items[i]))
            return err_set(e, ERR_BUG,
                           "%s got codes or integers outside its type's range, or scales that are not finite",
                           part.items[i].module);
    if (!part_path(s, layer, number, path, sizeof path, e))
        return false;
    bool ok = header_make(&h, s, part, reports, number ? NULL : stages, e) && write_part(path, &h, part, linears, e);
    header_free(&h);
    return ok;
}

bool store_write_block(struct store *s, uint32_t layer, struct block_items b, const struct qlinear *linears,
                       const struct linear_report *reports, const struct stage_report *stages, struct err *e)
{
    bool ok = true;
    for (uint32_t part = 0; ok && part < store_parts(b); part++) {
        struct block_items of = store_part(b, part);
        size_t first = (size_t)(of.items - b.items);
        ok = store_forget_part(s, layer, part, e) &&
             store_put_part(s, layer, of, linears + first, reports + first, stages, e);
    }
    return ok;
}

bool store_part_written(const struct store *s, uint32_t layer, uint32_t part)
{
    char path[4096];
    struct err e = {0};
    struct safetensors *f = NULL;
    bool whole = part_path(s, layer, part, path, sizeof path, &e) && os_stat(path, NULL) == OS_FILE &&
                 store_open_whole(&f, path, s->run, NULL, &e);
    safetensors_close(&f);
    return whole;
}

/* ---- before a block is finished ---- */

const char *store_unit_linear(const struct matrix *item, char out[UNIT_NAME_CAP])
{
    snprintf(out, UNIT_NAME_CAP, "block-%04u-linear-%03u", item->layer, item->place);
    return out;
}

const char *store_unit_half(uint32_t layer, enum block_half half, char out[UNIT_NAME_CAP])
{
    snprintf(out, UNIT_NAME_CAP, "block-%04u-half-%d", layer, (int)half);
    return out;
}

static bool unit_path(const struct store *s, const char *unit, char *out, size_t cap, struct err *e)
{
    char name[UNIT_NAME_CAP + 16];
    snprintf(name, sizeof name, "%s.safetensors", unit);
    return store_path(s, name, out, cap, e);
}

bool store_put_unit(const struct store *s, const char *unit, struct block_items items, const struct qlinear *linears,
                    const struct linear_report *reports, const struct stage_report *stages, struct err *e)
{
    struct block_header h = {0};
    char path[4096];
    bool ok = unit_path(s, unit, path, sizeof path, e) && header_make(&h, s, items, reports, stages, e) &&
              write_part(path, &h, items, linears, e);
    header_free(&h);
    return ok;
}

bool store_has_unit(const struct store *s, const char *unit)
{
    char path[4096];
    return unit_path(s, unit, path, sizeof path, NULL) && os_stat(path, NULL) == OS_FILE;
}

bool store_get_unit(const struct store *s, const char *unit, struct block_items items, struct qlinear *linears,
                    struct linear_report *reports, struct stage_report *stages)
{
    char path[4096];
    struct err e = {0};
    struct safetensors *f = NULL;
    if (!store_has_unit(s, unit) || !unit_path(s, unit, path, sizeof path, &e))
        return false;
    bool ok = store_open_whole(&f, path, s->run, NULL, &e);
    for (uint32_t i = 0; ok && i < items.n; i++) {
        const struct matrix *item = &items.items[i];
        struct qlinear q;
        if (!item->coded)
            continue;
        ok = linear_get(f, unit, s->dir, item, &q, &e);
        if (ok) {
            qlinear_free(&linears[i]);
            linears[i] = q;
            snprintf(reports[i].module, sizeof reports[i].module, "%s", item->module);
            linear_report_scan(safetensors_metadata(f, item->module), &reports[i]);
        }
    }
    for (int i = 0; ok && stages && i < HALF_COUNT; i++)
        if (safetensors_metadata(f, stage_keys[i]))
            stage_report_scan(safetensors_metadata(f, stage_keys[i]), &stages[i]);
    safetensors_close(&f);
    return ok;
}

void store_drop_units(const struct store *s, uint32_t layer, struct block_items items)
{
    char name[UNIT_NAME_CAP], path[4096];
    for (uint32_t i = 0; i < items.n; i++)
        if (unit_path(s, store_unit_linear(&items.items[i], name), path, sizeof path, NULL))
            os_remove(path);
    for (int i = 0; i < HALF_COUNT; i++)
        if (unit_path(s, store_unit_half(layer, (enum block_half)i, name), path, sizeof path, NULL))
            os_remove(path);
}

/* What is in a part's file, or of such a part in that of part 0. */
static bool check_part(struct store *s, struct block_items part, struct err *e)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < part.n; i++) {
        struct qlinear q = {0};
        ok = !part.items[i].coded || get_linear(s, &part.items[i], &q, e);
        qlinear_free(&q);
    }
    return ok;
}

/* Whether part 0, being whole, has all of a block. */
static bool in_first(struct store *s, uint32_t layer, struct block_items part)
{
    struct err e = {0};
    uint32_t i = 0;
    while (i < part.n && !part.items[i].coded)
        i++;
    return i < part.n && state_of(s, layer, 0) == WHOLE && open_part(s, layer, 0, &e) &&
           linear_there(s->block, &part.items[i]);
}

/* What becomes of a part is in s->seen. */
static void look_at(struct store *s, uint32_t layer, uint32_t part, struct block_items of)
{
    struct err e = {0};
    bool there = part_there(s, layer, part), needs = store_part_has_file(of);
    see(s, layer, part, (struct seen){.state = !needs ? EMPTY : UNSEEN}, &e);
    if (!needs || (!there && !in_first(s, layer, of)))
        return;
    if (open_part(s, layer, there ? part : 0, &e) && check_part(s, of, &e)) {
        if (!there)
            see(s, layer, part, (struct seen){.state = IN_FIRST}, &e);
        return;
    }
    log_warn("%s; this %s is made again", e.msg, part ? "part" : "block");
    safetensors_close(&s->block);
    see(s, layer, part, (struct seen){.state = DAMAGED}, NULL);
}

bool store_look(struct store *s, uint32_t layer, uint32_t part, struct block_items of)
{
    if (!store_has_part(s, layer, part) && state_of(s, layer, part) != DAMAGED)
        look_at(s, layer, part, of);
    return store_has_part(s, layer, part);
}

void store_look_scales(struct store *s)
{
    safetensors_close(&s->scales);
    store_open_scales(s);
}

uint32_t store_check(struct store *s, const struct plan *p)
{
    uint32_t whole = 0;
    for (uint32_t layer = 0; layer < p->n_layers; layer++) {
        const struct block_items b = plan_block(p, layer);
        for (uint32_t part = 0; part < store_parts(b); part++)
            look_at(s, layer, part, store_part(b, part));
        whole += store_has_block(s, layer);
    }
    return whole;
}

static bool is_whole(const struct store *s, uint32_t layer, uint32_t part)
{
    int state = state_of(s, layer, part);
    return state == WHOLE || state == IN_FIRST;
}

bool store_has_part(const struct store *s, uint32_t layer, uint32_t part)
{
    return is_whole(s, layer, part) || state_of(s, layer, part) == EMPTY;
}

uint32_t store_whole_parts(const struct store *s, uint32_t layer)
{
    uint32_t whole = 0;
    for (uint32_t part = 0; layer < s->n_seen && part < s->seen[layer].n; part++)
        whole += is_whole(s, layer, part);
    return whole;
}

bool store_has_block(const struct store *s, uint32_t layer)
{
    bool all = layer < s->n_seen && s->seen[layer].n;
    for (uint32_t part = 0; all && part < s->seen[layer].n; part++)
        all = store_has_part(s, layer, part);
    return all;
}

bool store_hash_blocks(struct store *s, const struct plan *p, char hex[33], struct err *e)
{
    struct hash128 h = {0};
    char name[PART_NAME_CAP];
    for (uint32_t layer = 0; layer < p->n_layers; layer++) {
        const struct block_items b = plan_block(p, layer);
        for (uint32_t part = 0; part < store_parts(b); part++) {
            if (state_of(s, layer, part) == DAMAGED)
                return err_set(e, ERR_ENV, "%s in %s is damaged", store_part_name(layer, part, name), s->dir);
            if (state_of(s, layer, part) == IN_FIRST || !store_part_has_file(store_part(b, part)))
                continue;
            if (state_of(s, layer, part) != WHOLE && !open_part(s, layer, part, e))
                return false;
            const struct hash128 *data = &s->seen[layer].parts[part].data;
            h = hash_bytes(data, sizeof *data, h);
        }
    }
    hash_hex(h, hex);
    return true;
}

bool store_read_linear(struct store *s, const struct matrix *item, struct qlinear *out, struct linear_report *report,
                       struct err *e)
{
    if (!get_linear(s, item, out, e))
        return false;
    if (report) {
        snprintf(report->module, sizeof report->module, "%s", item->module);
        linear_report_scan(safetensors_metadata(s->block, item->module), report);
        report->stats = code_stats_of(out, item->spec.type);
    }
    return true;
}

bool store_read_final(struct store *s, const struct matrix *item, struct qlinear *out, struct err *e)
{
    if (!store_read_linear(s, item, out, NULL, e))
        return false;
    bool ok = !s->scales_done || store_read_scales_part(s, item, SCALES_BEST, out->scales, e);
    if (!ok)
        qlinear_free(out);
    return ok;
}

void store_read_stages(struct store *s, uint32_t layer, struct stage_report stages[HALF_COUNT])
{
    struct err e = {0};
    for (int i = 0; i < HALF_COUNT; i++) {
        const struct stage_report none = {.stage = (enum tune_stage)i, .layer = layer};
        struct stage_report r = none;
        bool there = open_part(s, layer, 0, &e) && stage_report_scan(safetensors_metadata(s->block, stage_keys[i]), &r);
        stages[i] = there ? r : none;
    }
}

/* An empty file in a folder that stays because the user wants it to. */
#define KEPT "kept"

/* Every file that a store may have written, half written ones too. */
static bool remove_own(void *ctx, const char *name, struct err *e)
{
    static const char half_manifest[] = MANIFEST ".";
    static const char *const begins[] = {"block-",      "scales.safetensors", "head-importance.safetensors",
                                         STORE_OUTPUT,  STORE_SAMPLED,        KEPT,
                                         half_manifest, STORE_COSTS};
    char path[4096];
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncmp(name, begins[i], strlen(begins[i])) == 0 && os_path_join(path, sizeof path, ctx, name, e)) {
            stop_point("remove", NULL);
            os_remove(path);
        }
    return true;
}

void store_keep(struct store *s)
{
    char path[4096];
    if (os_path_join(path, sizeof path, s->dir, KEPT, NULL))
        os_write_file(path, "", 0, NULL);
}

bool store_kept(const char *dir)
{
    char path[4096];
    return os_path_join(path, sizeof path, dir, KEPT, NULL) && os_stat(path, NULL) == OS_FILE;
}

void store_remove(struct store **s)
{
    safetensors_close(&(*s)->block);
    safetensors_close(&(*s)->scales);
    safetensors_close(&(*s)->outputs);
    os_list((*s)->dir, remove_own, (*s)->dir, NULL);
    char path[4096];
    if (os_path_join(path, sizeof path, (*s)->dir, MANIFEST, NULL))
        os_remove(path); /* last: where a run is killed before, the next one knows what the rest is */
    os_remove_dir((*s)->dir);
    store_close(s);
}
