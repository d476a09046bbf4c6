#include "host/quant/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/imatrix.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/quant/tune_block.h"

/* Of each tensor's data, this much at either end goes into the model's hash: a whole 16 GB file would take
 * minutes. */
#define SAMPLE_BYTES 4096u

static void put(struct identity *id, const char *name, const char *value)
{
    snprintf(id->values[id->n], sizeof id->values[0], "%s", value);
    id->fields[id->n] = (struct store_field){name, id->values[id->n]};
    id->n++;
}

static void put_hash(struct identity *id, const char *name, struct hash128 h)
{
    char hex[33];
    hash_hex(h, hex);
    put(id, name, hex);
}

static bool hash_model(const struct checkpoint *ck, struct hash128 *out, struct err *e)
{
    char *text;
    size_t size;
    if (!checkpoint_config_text(ck, &text, &size, e))
        return false;
    struct hash128 h = hash_bytes(text, size, (struct hash128){0});
    free(text);
    for (size_t i = 0; i < checkpoint_tensor_count(ck); i++) {
        const struct tensor *t = checkpoint_tensor_at(ck, i);
        size_t part = (size_t)min_u64(t->bytes, SAMPLE_BYTES);
        h = hash_bytes(t->name, strlen(t->name), h);
        h = hash_bytes(&t->dtype, sizeof t->dtype, h);
        h = hash_bytes(t->shape, t->n_dims * sizeof t->shape[0], h);
        if (part) {
            h = hash_bytes(t->data, part, h);
            h = hash_bytes(t->data + t->bytes - part, part, h);
        }
    }
    *out = h;
    return true;
}

static struct hash128 hash_items(const struct plan *p)
{
    struct hash128 h = {0};
    for (size_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        char line[192];
        int n = snprintf(line, sizeof line, "%s %s %u %s", item->module,
                         item->keep ? "keep" : item->spec.type->name, item->keep ? 0 : item->spec.group,
                         item->keep ? "" : scale_type_name(item->spec.scale));
        h = hash_bytes(line, (size_t)n, h);
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        h = hash_bytes(t->module, strlen(t->module), h);
        h = hash_bytes(t->type->name, strlen(t->type->name), h);
    }
    return h;
}

static struct hash128 hash_imatrix(const struct imatrix *m)
{
    struct hash128 h = {0};
    for (size_t i = 0; i < m->n; i++) {
        const struct imatrix_entry *x = &m->entries[i];
        h = hash_bytes(x->module, strlen(x->module), h);
        h = hash_bytes(&x->count, sizeof x->count, h);
        h = hash_bytes(x->sums, x->cols * sizeof *x->sums, h);
    }
    return h;
}

bool identity_make(struct identity *id, const struct quantize_options *o, const struct checkpoint *ck,
                   struct gpu_cmd *cmd, const struct plan *p, const struct windows *w, struct err *e)
{
    char text[512];
    struct hash128 model;
    const struct gpu_info *info = gpu_info(gpu_cmd_gpu(cmd));
    const struct gumbel_options *g = &o->gumbel;
    *id = (struct identity){0};
    if (!hash_model(ck, &model, e))
        return false;
    put(id, "gsq", GSQ_VERSION);
    put_hash(id, "model", model);
    if (p->from.refined) {
        if (!hash_model(p->from.refined->ck, &model, e))
            return false;
        put_hash(id, "refined", model);
    }
    if (p->from.imatrix)
        put_hash(id, "imatrix", hash_imatrix(p->from.imatrix));
    put(id, "method", method_name(o->method));
    if (o->mixture)
        put(id, "mixture", o->mixture);
    put_hash(id, "types", hash_items(p));
    snprintf(text, sizeof text, "%u of |error|^%g", o->scale_search.steps, (double)o->scale_search.power);
    put(id, "scale search", text);
    snprintf(text, sizeof text, "%s, driver %s", info->name, info->driver);
    put(id, "device", text);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)gpu_kernels_identity(gpu_cmd_gpu(cmd)));
    put(id, "kernels", text);
    if (o->method == METHOD_RTN)
        return true;
    char hex[33];
    hash_hex(w->hash, hex);
    snprintf(text, sizeof text, "%u windows of %u tokens, %u held out, text %s", p->samples, p->ctx,
             p->holdout, hex);
    put(id, "calibration", text);
    snprintf(text, sizeof text, "%g", (double)o->damp);
    put(id, "damping", text);
    if (o->method == METHOD_GPTQ)
        return true;
    snprintf(text, sizeof text, "%llu", (unsigned long long)o->seed);
    put(id, "seed", text);
    snprintf(text, sizeof text,
             "steps %u, tau %.9g:%.9g, kappa %.9g:%.9g, rates %.9g %.9g, reach %.9g, end %.9g, beta %.9g "
             "%.9g, decay %.9g, freeze %.9g, "
             "start %.9g %.9g",
             g->steps, (double)g->tau0, (double)g->tau1, (double)g->kappa0, (double)g->kappa1,
             (double)g->lr_logits, (double)g->lr_scales, (double)g->reach, (double)g->lr_end,
             (double)g->beta1, (double)g->beta2, (double)g->decay, (double)g->freeze, (double)g->init_noise,
             (double)g->init_gap);
    put(id, "learning", text);
    snprintf(text, sizeof text, "no");
    if (plan_block_objective(o))
        snprintf(text, sizeof text, "%u epochs, batch %u, %u at a time, reach %.9g, start %.9g %.9g, from %s",
                 o->block.epochs, tune_block_batch(o, p->samples - p->holdout), p->micro_windows,
                 (double)o->block.reach, (double)o->block.init_noise, (double)o->block.init_gap,
                 start_name(o->block.start));
    put(id, "block objective", text);
    snprintf(text, sizeof text, "no");
    if (plan_scales(o))
        snprintf(text, sizeof text, "epochs %u, batch %u, rate %.9g, end %.9g, beta %.9g %.9g",
                 o->scales.epochs, o->scales.batch, (double)o->scales.lr, (double)o->scales.lr_end,
                 (double)o->scales.beta1, (double)o->scales.beta2);
    put(id, "pass over scales", text);
    return true;
}
