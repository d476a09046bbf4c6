/* What the store keeps of what comes before the blocks: the tokens that a model writes itself, the Hessians of linears' outputs, a file
 * for each layer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/method/hessian.h"
#include "host/quant/store/store_internal.h"

static bool output_path(const struct store *s, uint32_t layer, char *out, size_t cap, struct err *e)
{
    char name[PART_NAME_CAP];
    snprintf(name, sizeof name, STORE_OUTPUT "%04u.safetensors", (unsigned)layer);
    return store_path(s, name, out, cap, e);
}

static const char *tensor_name(const struct matrix *item, char out[TENSOR_NAME_CAP])
{
    snprintf(out, TENSOR_NAME_CAP, "%s.outputs", item->module);
    return out;
}

bool store_write_outputs(struct store *s, uint32_t layer, struct block_items b, const float *const *tiles,
                         struct err *e)
{
    char path[4096];
    struct tensor_plan *plan = calloc(b.n + 1u, sizeof *plan);
    char(*names)[TENSOR_NAME_CAP] = calloc(b.n + 1u, sizeof *names);
    const char *metadata[STORE_OWN_FACTS][2];
    struct safetensors_writer *w;
    size_t n = 0;
    store_own_facts(s, metadata);
    bool ok = ((plan && names) || err_nomem(e, "the list of outputs", b.n * (sizeof *plan + sizeof *names))) &&
              output_path(s, layer, path, sizeof path, e);
    for (uint32_t i = 0; ok && i < b.n; i++)
        if (tiles[i]) {
            plan[n] = (struct tensor_plan){tensor_name(&b.items[i], names[n]),
                                           DTYPE_F32,
                                           2,
                                           {b.items[i].rows, output_hessian_cols(b.items[i].rows)}};
            n++;
        }
    if (ok) {
        safetensors_close(&s->outputs); /* a mapped file cannot be replaced everywhere */
        ok = safetensors_writer_open(&w, path, plan, n, (const char *const(*)[2])metadata, STORE_OWN_FACTS, e);
    }
    if (ok) {
        for (uint32_t i = 0; ok && i < b.n; i++)
            ok = !tiles[i] ||
                 safetensors_writer_put(
                     w, tiles[i], (size_t)b.items[i].rows * output_hessian_cols(b.items[i].rows) * sizeof(float), e);
        if (ok)
            ok = safetensors_writer_close(&w, e);
        else
            safetensors_writer_abort(&w);
    }
    free(plan);
    free(names);
    return ok;
}

/* A layer's file; its checksum is compared as it is opened. */
static bool open_outputs(struct store *s, uint32_t layer, struct err *e)
{
    char path[4096];
    if (s->outputs && s->outputs_layer == layer)
        return true;
    safetensors_close(&s->outputs);
    s->outputs_layer = layer;
    return output_path(s, layer, path, sizeof path, e) && store_open_whole(&s->outputs, path, s->run, NULL, e);
}

bool store_has_outputs(struct store *s, uint32_t layer)
{
    char path[4096];
    struct err e = {0};
    if (!output_path(s, layer, path, sizeof path, &e) || os_stat(path, NULL) == OS_ABSENT)
        return false;
    if (open_outputs(s, layer, &e))
        return true;
    log_warn("%s; it is made again", e.msg);
    return false;
}

bool store_outputs(struct store *s, const struct matrix *item, const float **tiles, struct err *e)
{
    char name[TENSOR_NAME_CAP];
    *tiles = NULL;
    if (!open_outputs(s, item->layer, e))
        return err_hint(e, "repeat the command: what is damaged is made again");
    const struct tensor *t = safetensors_find(s->outputs, tensor_name(item, name));
    if (!t)
        return true;
    if (t->dtype != DTYPE_F32 || t->bytes != (uint64_t)item->rows * output_hessian_cols(item->rows) * sizeof(float))
        return err_set(e, ERR_ENV, STORE_OUTPUT "%04u.safetensors in %s does not hold %s as this run needs it",
                       (unsigned)item->layer, s->dir, item->module);
    *tiles = (const void *)t->data; /* a file begins with a multiple of 8 bytes of header */
    return true;
}

/* ---- tokens ---- */

bool store_write_sampled(struct store *s, const uint32_t *ids, uint64_t n, struct err *e)
{
    char path[4096];
    const struct tensor_plan plan = {"ids", DTYPE_U32, 1, {n}};
    const char *metadata[STORE_OWN_FACTS][2];
    struct safetensors_writer *w;
    store_own_facts(s, metadata);
    if (!store_path(s, STORE_SAMPLED, path, sizeof path, e) ||
        !safetensors_writer_open(&w, path, &plan, 1, (const char *const(*)[2])metadata, STORE_OWN_FACTS, e))
        return false;
    if (safetensors_writer_put(w, ids, (size_t)n * sizeof *ids, e))
        return safetensors_writer_close(&w, e);
    safetensors_writer_abort(&w);
    return false;
}

uint64_t store_read_sampled(struct store *s, uint32_t *ids, uint64_t n)
{
    char path[4096];
    struct err e = {0};
    struct safetensors *f = NULL;
    uint64_t there = 0;
    if (!store_path(s, STORE_SAMPLED, path, sizeof path, &e) || os_stat(path, NULL) == OS_ABSENT)
        return 0;
    if (!store_open_whole(&f, path, s->run, NULL, &e)) {
        log_warn("%s; it is made again", e.msg);
        return 0;
    }
    const struct tensor *t = safetensors_find(f, "ids");
    if (t && t->dtype == DTYPE_U32) {
        there = min_u64(n, t->bytes / sizeof *ids);
        memcpy(ids, t->data, (size_t)there * sizeof *ids);
    }
    safetensors_close(&f);
    return there;
}
