#include "host/quant/run/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/write/gguf_export.h"
#include "formats/write/carried.h"
#include "formats/read/imatrix.h"
#include "formats/write/export.h"
#include "formats/write/gguf_override.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/out_path.h"
#include "host/base/version.h"
#include "host/gpu/gpu_choice.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/quant/method/tune_block.h"

/* Windows at a time: in a forward pass, in the training of half a block, in the pass over scales, in that for Hessians of outputs. */
#define MEMORY_FORMAT "%u windows forward, %u in training, %u for scales, %u for outputs"

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

static bool hash_model(const struct checkpoint_sums *sums, struct hash128 *out, struct err *e)
{
    char *text;
    size_t size;
    if (!checkpoint_config_text(sums->ck, &text, &size, e))
        return false;
    struct hash128 h = hash_bytes(text, size, checkpoint_sum_total(sums));
    free(text);
    *out = h;
    return true;
}

struct files {
    const char *dir;
    struct hash128 h;
};

static bool hash_file(void *ctx, const char *name, struct err *e)
{
    struct files *f = ctx;
    char path[4096];
    struct os_map m;
    bool carried = export_carries(name) || strcmp(name, GGUF_CARRIED) == 0;
    if (!carried || !os_path_join(path, sizeof path, f->dir, name, e) || os_stat(path, NULL) != OS_FILE)
        return true;
    if (!os_map_file(&m, path, e))
        return false;
    f->h = hash_bytes(name, strlen(name) + 1, f->h);
    f->h = hash_bytes(m.data ? (const void *)m.data : "", (size_t)m.size, f->h);
    os_unmap(&m);
    return true;
}

/* What goes into the result beside the weights: tokenizer, templates, metadata. */
static bool hash_files(const struct checkpoint *ck, struct hash128 *h, struct err *e)
{
    const struct gguf *g = checkpoint_gguf(ck);
    struct files f = {checkpoint_dir(ck), *h};
    for (size_t i = 0; g && i < gguf_kv_count(g); i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        f.h = hash_bytes(kv->key.text, kv->key.size, f.h);
        f.h = hash_bytes(&kv->type, sizeof kv->type, f.h);
        f.h = hash_bytes(&kv->element, sizeof kv->element, f.h);
        f.h = hash_bytes(kv->data, (size_t)kv->bytes, f.h);
    }
    bool ok = g || (os_list(f.dir, hash_file, &f, e) && export_list_templates(f.dir, hash_file, &f, e));
    *h = f.h;
    return ok;
}

static struct hash128 hash_items(const struct plan *p)
{
    struct hash128 h = {0};
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        char line[192];
        /* Super-blocks by what they had when products were stored: a run keeps its name. */
        const char *scale = item->coded && item->spec.type->super ? "f32" : scale_type_name(item->spec.scale);
        int n = snprintf(line, sizeof line, "%s %s %u %s", item->module, item->coded ? item->spec.type->name : "keep",
                         item->coded ? item->spec.group : 0, item->coded ? scale : "");
        h = hash_bytes(line, (size_t)n, h);
    }
    for (size_t i = 0; plan_typed(p) && i < p->n_matrices; i++) {
        const struct matrix *t = &p->matrices[i];
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

void identity_memory(const struct plan *p, char *out, size_t cap)
{
    snprintf(out, cap, MEMORY_FORMAT, p->batch_windows, p->micro_windows, p->scale_micro, p->output_micro);
}

void identity_kernels(struct gpu *g, char *out, size_t cap)
{
    char choice[GPU_CHOICE_TEXT];
    gpu_choice_text(g, choice);
    snprintf(out, cap, "%016llx%s%s", (unsigned long long)gpu_kernels_identity(g), choice[0] ? " " : "", choice);
}

bool identity_take_up_kernels(struct gpu *g, const char *value, struct err *e)
{
    const char *choice = strchr(value, ' ');
    return gpu_kernels_forced(g) || gpu_choice_take(g, choice ? choice + 1 : "", e);
}

void identity_take_up_memory(struct plan *p, const char *value)
{
    unsigned batch, micro, scale, output;
    if (sscanf(value, MEMORY_FORMAT, &batch, &micro, &scale, &output) != 4 || batch > p->batch_windows ||
        micro > p->micro_windows || scale > p->scale_micro || output > p->output_micro || !batch ||
        !micro != !p->micro_windows || !scale != !p->scale_micro || !output != !p->output_micro)
        return;
    p->batch_windows = batch;
    p->micro_windows = micro;
    p->scale_micro = scale;
    p->output_micro = output;
}

static bool any_expert(const struct plan *p)
{
    bool any = false;
    for (size_t i = 0; i < p->n_items && !any; i++)
        any = p->items[i].coded && block_part_is_expert(p->items[i].part);
    return any;
}

bool identity_make(struct identity *id, const struct quantize_options *o, const struct checkpoint_sums *model,
                   const struct checkpoint_sums *refined, struct gpu_cmd *cmd, const struct plan *p,
                   const struct windows *w, struct err *e)
{
    char text[512];
    struct hash128 h, files = {0};
    const struct gpu_info *info = gpu_info(gpu_cmd_gpu(cmd));
    const struct gumbel_options *g = &o->gumbel;
    *id = (struct identity){0};
    if (!hash_model(model, &h, e) || !hash_files(model->ck, &files, e))
        return false;
    snprintf(text, sizeof text, "method %d", METHOD_REVISION);
    put(id, MANIFEST_VERSION, version_text());
    put(id, "gsq", text);
    put_hash(id, "model", h);
    if (refined) {
        if (!hash_model(refined, &h, e) || !hash_files(refined->ck, &files, e))
            return false;
        put_hash(id, "refined", h);
    }
    put_hash(id, "files", files);
    if (p->from.imatrix)
        put_hash(id, "imatrix", hash_imatrix(p->from.imatrix));
    put(id, "method", method_name(o->method));
    if (o->mixture)
        put(id, "mixture", o->mixture);
    put_hash(id, "types", hash_items(p));
    snprintf(text, sizeof text, "%u of |error|^%g", o->scale_search.candidates, (double)o->scale_search.power);
    put(id, "scale search", text);
    put(id, "device", info->name);
    put(id, "driver", info->driver);
    identity_kernels(gpu_cmd_gpu(cmd), text, sizeof text);
    put(id, IDENTITY_KERNELS, text);
    if (o->method == METHOD_RTN)
        return true;
    char hex[33];
    hash_hex(w->hash, hex);
    snprintf(text, sizeof text, "%u windows of %u tokens, %u held out, text %s", p->samples, p->ctx, p->holdout, hex);
    put(id, "calibration", text);
    if (!quantize_diagonal(o) && any_expert(p)) {
        snprintf(text, sizeof text, "revision %d", EXPERTS_REVISION);
        put(id, "experts", text);
    }
    if (plan_embedding(p).type)
        put(id, "embedding", plan_embedding(p).type->name);
    identity_memory(p, text, sizeof text);
    put(id, "memory", text);
    snprintf(text, sizeof text, "%g", (double)o->damp);
    put(id, "damping", text);
    if (quantize_correction(o, false) > 0 && plan_chained(p)) {
        const double own = quantize_correction(o, false), experts = quantize_correction(o, true);
        if (p->experts)
            snprintf(text, sizeof text, "%g, of experts %g", own, experts);
        else
            snprintf(text, sizeof text, "%g", own);
        put(id, "correction", text);
    }
    if (o->method == METHOD_GPTQ)
        return true;
    snprintf(text, sizeof text, "%llu", (unsigned long long)o->seed);
    put(id, "seed", text);
    snprintf(text, sizeof text,
             "steps %u, tau %.9g:%.9g, kappa %.9g:%.9g, rates %.9g %.9g, reach %.9g, end %.9g, beta %.9g "
             "%.9g, decay %.9g, freeze %.9g, "
             "start %.9g %.9g",
             g->steps, (double)g->tau0, (double)g->tau1, (double)g->kappa0, (double)g->kappa1, (double)g->lr_logits,
             (double)g->lr_scales, (double)g->reach, (double)g->lr_end, (double)g->beta1, (double)g->beta2,
             (double)g->decay, (double)g->freeze, (double)g->init_noise, (double)g->init_gap);
    put(id, "learning", text);
    if (p->output_windows) {
        snprintf(text, sizeof text, "%u windows, revision %d", p->output_windows, OUTPUTS_REVISION);
        put(id, "outputs", text);
    }
    snprintf(text, sizeof text, "no");
    if (plan_block_objective(o))
        snprintf(text, sizeof text, "%u epochs, batch %u, reach %.9g, start %.9g %.9g, from %s%s", o->block.epochs,
                 tune_block_batch(o, p->samples - p->holdout), (double)o->block.reach, (double)o->block.init_noise,
                 (double)o->block.init_gap, start_name(o->block.start),
                 p->output_windows ? ", by Hessians of outputs" : "");
    put(id, "block objective", text);
    snprintf(text, sizeof text, "no");
    if (plan_scales(o))
        snprintf(text, sizeof text, "epochs %u, batch %u, rate %.9g, end %.9g, beta %.9g %.9g", o->scales.epochs,
                 o->scales.batch, (double)o->scales.lr, (double)o->scales.lr_end, (double)o->scales.beta1,
                 (double)o->scales.beta2);
    put(id, "pass over scales", text);
    return true;
}

static struct hash128 add_text(const char *text, struct hash128 h)
{
    return hash_bytes(text ? text : "", text ? strlen(text) + 1 : 0, h);
}

void identity_result(const struct identity *id, const struct quantize_options *o, const struct plan *p, char hex[33])
{
    static const char *const leaves[] = {MANIFEST_VERSION, "device", "driver", IDENTITY_KERNELS, "memory"};
    struct hash128 h = {0};
    char path[4096], dir[4096], text[64];
    for (size_t i = 0; i < id->n; i++) {
        bool left = false;
        for (size_t k = 0; k < sizeof leaves / sizeof *leaves; k++)
            left = left || strcmp(id->fields[i].name, leaves[k]) == 0;
        if (!left)
            h = add_text(id->fields[i].value, add_text(id->fields[i].name, h));
    }
    /* A GGUF has the model's name. */
    snprintf(path, sizeof path, "%s", o->model_dir);
    out_trim(path);
    h = add_text(os_path_split(path, dir, sizeof dir), h);
    snprintf(text, sizeof text, "%s %u", export_format_name(o->format), o->container);
    h = add_text(o->mixture, add_text(text, h));
    for (size_t i = 0; plan_typed(p) && i < p->n_matrices; i++)
        h = add_text(p->matrices[i].type->name, add_text(p->matrices[i].module, h));
    for (size_t i = 0; i < o->n_overrides; i++) {
        const struct gguf_override *x = &o->overrides[i];
        snprintf(text, sizeof text, "%d %u %.9g", (int)x->type, x->u, (double)x->f);
        h = add_text(x->text, add_text(text, add_text(x->key, h)));
    }
    hash_hex(h, hex);
}
