/* What a GGUF will hold: a tensor for each weight of the model, and keys. */
#include "formats/write/gguf_plan.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "formats/read/tensor_values.h"
#include "formats/read/value_heads.h"
#include "formats/write/gguf_export.h"
#include "formats/write/gguf_mixture.h"
#include "formats/write/gguf_override.h"
#include "host/base/grow.h"
#include "host/base/log.h"
#include "host/base/num.h"

#define UNSUPPORTED "the model may be of an architecture that is not supported"

/* ---- the tensors ---- */

static struct gguf_entry *add_entry(struct gguf_plan *p, const char *module, const char *name)
{
    struct gguf_entry *grown = grow(p->entries, &p->cap, p->n, sizeof *grown, "the list of tensors", p->e);
    if (!grown)
        return NULL;
    p->entries = grown;
    struct gguf_entry *x = &p->entries[p->n++];
    *x = (struct gguf_entry){.n_dims = 1, .rows = 1, .type = gguf_type_of(GGML_F32)};
    snprintf(x->module, sizeof x->module, "%s", module);
    checkpoint_holder(p->src, module, x->holder);
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

/* "model.norm" and ".weight" -> "output_norm.weight". */
static bool name_of(struct gguf_plan *p, const char *module, const char *suffix, char out[64])
{
    char hf[128];
    snprintf(hf, sizeof hf, "%s%s", module, suffix);
    return gguf_name_of(checkpoint_config(p->src), hf, out, 64) ||
           err_set(p->e, ERR_BUG, "%s has no name in a GGUF", hf);
}

/* Permuted rows are rows of heads of head_dim. */
static bool find_heads(struct gguf_plan *p, struct gguf_entry *x, uint32_t rows)
{
    const struct model_config *c = checkpoint_config(p->src);
    x->heads = gguf_permuted_heads(c, x->module);
    if (!x->heads || (uint64_t)x->heads * c->head_dim == rows)
        return true;
    err_set(p->e, ERR_USER, "%s of %s has %u rows, not %u heads of %u", x->module, checkpoint_dir(p->src),
            (unsigned)rows, (unsigned)x->heads, (unsigned)c->head_dim);
    return err_hint(p->e, "check config.json against the one of the original model");
}

static bool plan_vector(struct gguf_plan *p, const char *module)
{
    struct weight_info w;
    char name[64];
    if (!checkpoint_weight(p->src, module, &w, p->e) || !name_of(p, module, ".weight", name))
        return false;
    if (w.rows != 1) {
        err_set(p->e, ERR_USER, "%s.weight of %s is a matrix, expected a vector", module, checkpoint_dir(p->src));
        return err_hint(p->e, UNSUPPORTED);
    }
    struct gguf_entry *x = add_entry(p, module, name);
    if (x)
        x->cols = w.cols;
    return x != NULL;
}

static bool plan_bias(struct gguf_plan *p, const char *module, uint32_t rows)
{
    const struct tensor *t = checkpoint_bias(p->src, module);
    char name[64];
    if (!t)
        return true;
    if (t->n_dims != 1 || t->shape[0] != rows) {
        err_set(p->e, ERR_USER, "%s.bias of %s does not have one value for each of %u rows", module,
                checkpoint_dir(p->src), (unsigned)rows);
        return err_hint(p->e, UNSUPPORTED);
    }
    if (!name_of(p, module, ".bias", name))
        return false;
    struct gguf_entry *x = add_entry(p, module, name);
    if (!x)
        return false;
    x->bias = true;
    x->cols = rows;
    return find_heads(p, x, rows);
}

/* Whether a GGUF can hold that matrix as it is to be. */
static bool check_item(struct gguf_plan *p, const struct matrix *item, const char *module)
{
    if (!item->type || strcmp(item->module, module) != 0)
        return err_set(p->e, ERR_BUG, "no type was chosen for %s", module);
    if (item->cols % item->type->block != 0) {
        err_set(p->e, ERR_USER, "%s: its %u columns are not a multiple of %u, the block size of %s", module,
                (unsigned)item->cols, (unsigned)item->type->block, item->type->name);
        return err_hint(p->e, "choose another type for it with --tensor");
    }
    if (!item->coded && !item->copied && !item->type->rounded) {
        err_set(p->e, ERR_USER, "%s: weights cannot be rounded to %s", module, item->type->name);
        return err_hint(p->e, "choose another type for it with --tensor");
    }
    return true;
}

static const struct matrix *next_item(struct gguf_plan *p, const char *module)
{
    if (p->listed < p->n_items)
        return check_item(p, &p->items[p->listed], module) ? &p->items[p->listed++] : NULL;
    err_set(p->e, ERR_BUG, "no type was chosen for %s", module);
    return NULL;
}

/* fixed: NULL, or what it is called whatever its module is: embedding and head. */
static bool plan_matrix(struct gguf_plan *p, const char *module, const char *fixed)
{
    char name[64];
    const struct matrix *item = next_item(p, module);
    if (!item)
        return false;
    if (fixed)
        snprintf(name, sizeof name, "%s", fixed);
    else if (!name_of(p, module, ".weight", name))
        return false;
    struct gguf_entry *x = add_entry(p, module, name);
    if (!x)
        return false;
    const bool apart = item->part && block_part_is_split(item->part);
    x->apart = apart ? checkpoint_config(p->src)->num_heads : 0;
    x->n_dims = apart ? 3 : 2;
    x->rows = item->rows;
    x->cols = item->cols;
    x->type = item->type;
    x->item = item;
    /* llama.cpp knows biases within blocks only. */
    return find_heads(p, x, item->rows) && (fixed || plan_bias(p, module, item->rows));
}

/* Both tensors of a shared expert's gate and up. */
static bool plan_shared(struct gguf_plan *p, const char *module, uint32_t layer)
{
    const struct matrix *item = next_item(p, module);
    char name[64];
    if (!item)
        return false;
    for (int part = SHARED_GATE; part <= SHARED_UP; part++) {
        struct gguf_entry *x = add_entry(p, module, gguf_name_of_shared((enum gguf_shared)part, layer, name));
        if (!x)
            return false;
        x->n_dims = 2;
        x->rows = item->rows / 2;
        x->row0 = part == SHARED_UP ? x->rows : 0;
        x->cols = item->cols;
        x->type = item->type;
        x->item = item;
    }
    return true;
}

/* Biases of one part of all experts: a row of each. */
static bool plan_expert_biases(struct gguf_plan *p, const struct matrix *first, uint32_t n)
{
    char name[64];
    for (uint32_t i = 0; i < n; i++) {
        const struct matrix *item = first + (size_t)i * EXPERT_MATRICES;
        const struct tensor *t = checkpoint_bias(p->src, item->module);
        if (t && t->n_dims == 1 && t->shape[0] == item->rows)
            continue;
        err_set(p->e, ERR_USER, "%s.bias of %s does not have one value for each of %u rows", item->module,
                checkpoint_dir(p->src), (unsigned)item->rows);
        return err_hint(p->e, UNSUPPORTED);
    }
    struct gguf_entry *x = name_of(p, first->module, ".bias", name) ? add_entry(p, first->module, name) : NULL;
    if (!x)
        return false;
    x->bias = true;
    x->n_dims = 2;
    x->rows = 1;
    x->cols = first->rows;
    x->item = first;
    x->experts = n;
    return true;
}

/* One part of all experts of a layer; which: of gate, up and down. They are listed expert by expert. */
static bool plan_experts(struct gguf_plan *p, const struct block_part *part, uint32_t layer, uint32_t which)
{
    const uint32_t n = checkpoint_config(p->src)->experts.n;
    const struct matrix *first = &p->items[p->listed + which];
    char module[96], name[64];
    if (p->listed + (size_t)n * EXPERT_MATRICES > p->n_items)
        return err_set(p->e, ERR_BUG, "no type was chosen for the experts of layer %u", (unsigned)layer);
    for (uint32_t i = 0; i < n; i++) {
        const struct matrix *item = first + (size_t)i * EXPERT_MATRICES;
        if (!check_item(p, item, block_part_name(checkpoint_config(p->src), part, layer, i, module, sizeof module)))
            return false;
        if (item->type == first->type && item->coded == first->coded && item->copied == first->copied)
            continue;
        err_set(p->e, ERR_USER, "%s would be %s and %s %s: in a GGUF all experts of a layer are one tensor of one type",
                first->module, first->type->name, item->module, item->type->name);
        return err_hint(p->e,
                        "write patterns of --tensor and --keep so that they mean all experts of a layer, or none");
    }
    struct gguf_entry *x = name_of(p, first->module, ".weight", name) ? add_entry(p, first->module, name) : NULL;
    if (!x)
        return false;
    x->n_dims = 3;
    x->rows = first->rows;
    x->cols = first->cols;
    x->type = first->type;
    x->item = first;
    x->experts = n;
    return !checkpoint_bias(p->src, first->module) || plan_expert_biases(p, first, n);
}

/* What decides stays exact: f32. */
static bool plan_router(struct gguf_plan *p, const char *module)
{
    struct weight_info w;
    char name[64];
    if (!checkpoint_weight(p->src, module, &w, p->e) || !name_of(p, module, ".weight", name))
        return false;
    struct gguf_entry *x = add_entry(p, module, name);
    if (!x)
        return false;
    x->n_dims = w.rows == 1 ? 1 : 2;
    x->rows = w.rows;
    x->cols = w.cols;
    return true;
}

/* A tensor that is called so, whole. */
static bool plan_named(struct gguf_plan *p, const char *tensor)
{
    const struct tensor *t = checkpoint_tensor_find(p->src, tensor);
    char name[64];
    if (!t || t->n_dims != 1 || t->shape[0] > UINT32_MAX) {
        err_set(p->e, ERR_USER, "%s of %s is %s", tensor, checkpoint_dir(p->src), t ? "no vector" : "missing");
        return err_hint(p->e, UNSUPPORTED);
    }
    struct gguf_entry *x = name_of(p, tensor, "", name) ? add_entry(p, tensor, name) : NULL;
    if (!x)
        return false;
    x->whole = true;
    x->cols = (uint32_t)t->shape[0];
    return true;
}

static bool plan_part(struct gguf_plan *p, const struct block_part *part, uint32_t layer, uint32_t *expert_parts)
{
    char module[96];
    if (block_part_is_expert(part))
        return plan_experts(p, part, layer, (*expert_parts)++);
    block_part_name(checkpoint_config(p->src), part, layer, 0, module, sizeof module);
    switch (part->kind) {
    case PART_MATRIX:
        if (part->of & PARTS_SHARED_FUSED && part->role == ROLE_GATE_UP)
            return plan_shared(p, module, layer);
        return plan_matrix(p, module, NULL);
    case PART_ROUTER:
        return plan_router(p, module);
    case PART_VECTOR:
        return plan_named(p, module);
    case PART_NORM:
        break;
    }
    return plan_vector(p, module);
}

static bool add_factors(struct gguf_plan *p, const struct model_config *c, const char *name)
{
    struct gguf_entry *x = add_entry(p, "", name);
    if (x)
        x->cols = config_rope_dim(c) / 2;
    return x != NULL;
}

/* Factors of RoPE's frequencies. */
static bool plan_factors(struct gguf_plan *p, const struct model_config *c)
{
    const struct gguf *source = checkpoint_gguf(p->src);
    bool factors = c->rope_scaling == ROPE_FACTORS;
    if (family_of(c)->factor_lists)
        return !factors ||
               (add_factors(p, c, "rope_factors_long.weight") && add_factors(p, c, "rope_factors_short.weight"));
    if (source ? !gguf_tensor_find(source, "rope_freqs.weight") : c->rope_scaling != ROPE_LLAMA3 && !factors)
        return true;
    return add_factors(p, c, "rope_freqs.weight");
}

static bool plan_model(struct gguf_plan *p)
{
    const struct model_config *c = checkpoint_config(p->src);
    const struct block_part *part;
    char module[96], known[512];
    if (!family_of(c)) {
        err_set(p->e, ERR_USER, "%s: gsq cannot write the architecture %s as a GGUF", checkpoint_dir(p->src),
                c->architecture[0] ? c->architecture : c->model_type);
        return err_hint(p->e, "gsq writes GGUFs of %s models", family_names(known, sizeof known));
    }
    if (c->delta.key_dim != c->delta.value_dim) {
        err_set(p->e, ERR_USER, "%s: of its gated delta rule llama.cpp expects keys as wide as values",
                checkpoint_dir(p->src));
        return err_hint(p->e, "write a folder: --format gptq, for instance");
    }
    if (value_heads_differ(c) && !c->delta.tiled)
        return err_set(p->e, ERR_BUG, "value heads of %s are in the order of folders", checkpoint_dir(p->src));
    assert(c->mla.split || !c->mla.kv_rank);
    if (!config_supported(c, p->e) || !plan_matrix(p, checkpoint_embedding_module(p->src), "token_embd.weight"))
        return false;
    for (uint32_t l = 0; l < c->num_layers; l++) {
        uint32_t expert_parts = 0;
        for (uint32_t i = 0; (part = block_part_in(c, l, i)); i++)
            if (!plan_part(p, part, l, &expert_parts))
                return false;
        p->listed += (size_t)expert_parts * c->experts.n;
    }
    if (!plan_vector(p, config_part_name(c, "norm", module, sizeof module)) ||
        (!p->items[0].head && !plan_matrix(p, checkpoint_head_module(p->src), "output.weight")))
        return false;
    return plan_factors(p, c);
}

/* Whether a tensor of the source went into an entry, or need not: tables that follow from config.json, the
 * second copy of a tied matrix. names: of modules, and which entry is the weight of each. */
static bool is_planned(const struct gguf_plan *p, const struct strmap *names, const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : strlen(name);
    char module[96];
    uint32_t at;
    if (!dot || n >= sizeof module)
        return false;
    memcpy(module, name, n);
    module[n] = 0;
    const struct model_config *c = checkpoint_config(p->src);
    if (strcmp(dot, ".inv_freq") == 0 || strcmp(name, "rope_freqs.weight") == 0 ||
        strncmp(name, "rope_factors_", 13) == 0 || (p->items[0].head && strcmp(module, config_head_name(c)) == 0))
        return true;
    if (strmap_find(names, name, strlen(name), &at))
        return p->entries[at].whole;
    if (!strmap_find(names, module, n, &at))
        return false;
    if (strcmp(dot, ".bias") == 0) /* an entry of its own, after the weight */
        return at + 1 < p->n && p->entries[at + 1].bias &&
               (p->entries[at + 1].experts || strcmp(p->entries[at + 1].module, module) == 0);
    return strcmp(dot, ".weight") == 0 || checkpoint_is_packed(p->src, module, dot);
}

/* A tensor that this code does not know would silently be missing from the result. */
static bool check_complete(struct gguf_plan *p)
{
    struct strmap names = {0};
    bool ok = true, added;
    for (size_t i = 0; ok && i < p->n; i++)
        for (uint32_t k = 0; ok && k < gguf_entry_matrices(&p->entries[i]); k++) {
            const struct gguf_entry *x = &p->entries[i];
            const char *module = x->experts ? gguf_entry_item(x, k)->module : x->holder;
            assert(module);
            ok = strmap_add(&names, module, strlen(module), (uint32_t)i, &added) ||
                 err_nomem(p->e, "the list of tensors", p->n);
        }
    for (size_t i = 0; ok && i < checkpoint_tensor_count(p->src); i++) {
        const struct tensor *t = checkpoint_tensor_at(p->src, i);
        bool text = config_is_text(checkpoint_config(p->src), t->name);
        p->left_out += !text;
        if (!text || is_planned(p, &names, t->name))
            continue;
        err_set(p->e, ERR_USER, "%s in %s has no place in a GGUF of this architecture", t->name,
                checkpoint_tensor_path(p->src, t));
        ok = err_hint(p->e, UNSUPPORTED);
    }
    strmap_free(&names);
    return ok;
}

static uint64_t entry_work(const struct gguf_entry *x)
{
    bool rounded = x->item && !x->item->coded && !x->item->copied;
    return (uint64_t)x->rows * x->cols * gguf_entry_matrices(x) * (rounded ? gguf_round_cost(x->type) : 1);
}

static bool plan_tensors(struct gguf_plan *p)
{
    p->tensors = calloc(p->n, sizeof *p->tensors);
    if (!p->tensors)
        return err_nomem(p->e, "the list of tensors", p->n * sizeof *p->tensors);
    for (size_t i = 0; i < p->n; i++) {
        struct gguf_entry *x = &p->entries[i];
        uint32_t apart = x->apart ? x->apart : 1;
        x->bytes = gguf_row_bytes(x->type, x->cols) * x->rows * gguf_entry_matrices(x);
        p->work += entry_work(x);
        p->tensors[i] = (struct gguf_tensor_plan){.name = x->name,
                                                  .n_dims = x->n_dims,
                                                  .ne = {x->cols, x->rows / apart, gguf_entry_matrices(x) * apart, 1},
                                                  .type = (uint32_t)x->type->id};
        if (x->bias && x->experts) {
            p->tensors[i].ne[1] = x->experts;
            p->tensors[i].ne[2] = 1;
        }
    }
    return true;
}

/* ---- the keys ---- */

/* The type of the most weights, as general.file_type numbers it. */
static int commonest_file_type(const struct gguf_plan *p)
{
    const struct gguf_type *t;
    uint64_t most = 0;
    int best = 0;
    for (size_t k = 0; (t = gguf_type_at(k)); k++) {
        int number = gguf_mixture_file_type(t->name);
        uint64_t weights = 0;
        for (size_t i = 0; i < p->n_items; i++)
            if (p->items[i].type == t)
                weights += (uint64_t)p->items[i].rows * p->items[i].cols;
        if (weights > most || (weights && weights == most && number < best)) {
            most = weights;
            best = number;
        }
    }
    return best;
}

bool gguf_plan_keys(struct gguf_plan *p, bool quiet, struct err *e)
{
    const struct export_options *o = &p->options;
    bool wrapped = checkpoint_config(p->src)->wrapper[0] != 0;
    struct gguf_facts facts = {.file_type = o->file_type,
                               .vocab = p->entries[0].rows,
                               .metadata = o->metadata,
                               .n_metadata = o->n_metadata,
                               .quiet = quiet};
    if (facts.file_type < 0)
        facts.file_type = commonest_file_type(p);
    for (size_t i = 0; i < p->n; i++)
        facts.quantized |= p->entries[i].type->block > 1;
    if (p->left_out && !quiet)
        log_warn("%s: a GGUF holds %s of this model; %zu tensors of %s are left out", checkpoint_dir(p->src),
                 wrapped ? "the text part" : "the layers", p->left_out,
                 wrapped ? "other parts" : "what guesses further tokens behind them");
    gguf_keys_destroy(&p->keys);
    const struct gguf *source = checkpoint_gguf(p->src);
    bool ok = source ? gguf_export_copied_keys(&p->keys, source, &facts, e)
                     : gguf_export_keys(&p->keys, checkpoint_dir(p->src), checkpoint_config(p->src), &facts, e);
    ok = ok && gguf_keys_override(&p->keys, o->overrides, o->n_overrides, e);
    if (ok)
        gguf_keys_seal(p->keys, p->tensors, p->n);
    return ok;
}

/* ---- what F16 cannot hold ---- */

bool gguf_too_large(const struct checkpoint *src, const char *module, float v, struct err *e)
{
    err_set(e, ERR_USER, "%s holds %g, which F16 cannot hold (read from %s)", module, (double)v, checkpoint_dir(src));
    return err_hint(e, "choose BF16 or F32 for it");
}

/* Values that the 16-bit types of the file cannot hold, where the source's own type could have them: hours
 * of work would end at one. */
static bool check_range(const struct gguf_plan *p, struct err *e)
{
    float block[1024];
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *x = &p->items[i];
        const struct tensor *t = !x->coded && x->type->id == GGML_F16 ? checkpoint_stored(p->src, x->module) : NULL;
        uint64_t n = t && (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16) ? t->bytes / dtype_size(t->dtype) : 0;
        for (uint64_t at = 0; at < n; at += 1024) {
            uint64_t count = min_u64(n - at, 1024);
            if (!tensor_read_f32(t, at, count, block, e))
                return false;
            float most = 0;
            for (uint64_t j = 0; j < count; j++)
                most = isfinite(block[j]) && fabsf(block[j]) > most ? fabsf(block[j]) : most;
            if (most > F16_MOST)
                return gguf_too_large(p->src, x->module, most, e);
        }
    }
    return true;
}

/* ---- the whole ---- */

bool gguf_plan_make(struct gguf_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                    const struct export_options *o, struct err *e)
{
    struct gguf_plan *p = *out = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, "the list of tensors", sizeof *p);
    p->src = src;
    p->options = *o;
    p->e = e;
    p->items = list;
    p->n_items = n;
    bool ok = plan_model(p) && check_complete(p) && plan_tensors(p);
    if (!ok)
        gguf_plan_free(out);
    return ok;
}

bool gguf_plan_size(struct gguf_plan *p, uint64_t *bytes, struct err *e)
{
    if (!gguf_plan_keys(p, true, e) || !check_range(p, e))
        return false;
    *bytes = gguf_file_bytes(p->keys, p->tensors, p->n);
    gguf_keys_destroy(&p->keys);
    return true;
}

void gguf_plan_free(struct gguf_plan **out)
{
    struct gguf_plan *p = *out;
    *out = NULL;
    if (!p)
        return;
    free(p->entries);
    free(p->tensors);
    gguf_keys_destroy(&p->keys);
    free(p);
}
