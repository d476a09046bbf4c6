#include "formats/read/stacked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "host/base/str.h"

/* What a tensor behind "layers.N." holds of each expert: parts, whose rows follow each other. '*' is the expert's number. */
static const struct rule {
    const char *tensor;
    const char *parts[2]; /* the second NULL: there is one */
} rules[] = {
    {"block_sparse_moe.input_linear.weight", {"block_sparse_moe.experts.*.w1", "block_sparse_moe.experts.*.w3"}},
    {"block_sparse_moe.output_linear.weight", {"block_sparse_moe.experts.*.w2"}},
    {"mlp.experts.gate_up_proj", {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"}},
    {"mlp.experts.down_proj", {"mlp.experts.*.down_proj"}},
};

struct part {
    struct tensor tensor; /* first: what callers hold is a pointer to this */
    char name[112];
};

struct stacked {
    const struct safetensors *s;
    const struct model_config *config;
    struct part *parts;
    size_t n_parts;
    const struct tensor **list;
    size_t n;
    struct strmap by_name;
};

/* The rule of a tensor, and its layer; NULL: it is none of those. */
static const struct rule *rule_of(const struct model_config *c, const char *name, uint32_t *layer)
{
    const struct family *f = family_of(c);
    char front[48], *end;
    snprintf(front, sizeof front, "%slayers.", config_prefix(c));
    size_t n = strlen(front);
    if (!f || !c->experts.n || strncmp(name, front, n) != 0 || name[n] < '0' || name[n] > '9')
        return NULL;
    *layer = (uint32_t)strtoul(name + n, &end, 10);
    if (*end != '.' || *layer >= c->num_layers)
        return NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(end + 1, rules[i].tensor) == 0) {
            const struct block_part *p;
            for (size_t k = 0; (p = block_part_at(k)); k++)
                if (family_has(f, p) && strcmp(p->hf, rules[i].parts[0]) == 0)
                    return &rules[i];
        }
    return NULL;
}

static uint32_t parts_of(const struct rule *r)
{
    return r->parts[1] ? 2 : 1;
}

static bool check_shape(const struct stacked *x, const struct tensor *t, const struct rule *r, struct err *e)
{
    if (t->n_dims == 3 && t->shape[0] == x->config->experts.n && t->shape[1] % parts_of(r) == 0 && dtype_size(t->dtype))
        return true;
    err_set(e, ERR_USER, "%s in %s is not one tensor of %u experts' matrices", t->name, safetensors_path(x->s, t),
            (unsigned)x->config->experts.n);
    return err_hint(e, "the file does not match its config.json: download both again");
}

/* Counts what a tensor becomes, and lists it where there is room. */
static bool add(struct stacked *x, const struct tensor *t, bool fill, struct err *e)
{
    uint32_t layer = 0;
    const struct rule *r = rule_of(x->config, t->name, &layer);
    if (!r) {
        if (fill)
            x->list[x->n] = t;
        x->n++;
        return true;
    }
    if (!check_shape(x, t, r, e))
        return false;
    uint32_t experts = x->config->experts.n, of = parts_of(r);
    uint64_t rows = t->shape[1] / of, bytes = t->bytes / experts / of;
    for (uint32_t i = 0; i < experts * of; i++, x->n_parts++, x->n++) {
        if (!fill)
            continue;
        struct part *p = &x->parts[x->n_parts];
        const char *hf = r->parts[i % of], *star = strchr(hf, '*');
        bool added;
        snprintf(p->name, sizeof p->name, "%slayers.%u.%.*s%u%s.weight", config_prefix(x->config), (unsigned)layer,
                 (int)(star - hf), hf, (unsigned)(i / of), star + 1);
        p->tensor = (struct tensor){.name = p->name,
                                    .dtype = t->dtype,
                                    .n_dims = 2,
                                    .shape = {rows, t->shape[2]},
                                    .data = t->data + i * bytes,
                                    .bytes = bytes,
                                    .file = t->file};
        memcpy(p->tensor.stored_dtype, t->stored_dtype, sizeof t->stored_dtype);
        x->list[x->n] = &p->tensor;
        if (!strmap_add(&x->by_name, p->name, strlen(p->name), (uint32_t)x->n_parts, &added))
            return err_nomem(e, "the list of tensors", x->n * sizeof *x->list);
        if (!added || safetensors_find(x->s, p->name))
            return err_set(e, ERR_USER, "%s holds %s twice, in %s too", safetensors_path(x->s, t), p->name, t->name);
    }
    return true;
}

static bool list(struct stacked *x, bool fill, struct err *e)
{
    bool ok = true;
    x->n = x->n_parts = 0;
    for (size_t i = 0; ok && i < safetensors_count(x->s); i++)
        ok = add(x, safetensors_at(x->s, i), fill, e);
    return ok;
}

bool stacked_make(struct stacked **out, const struct safetensors *s, const struct model_config *c, struct err *e)
{
    struct stacked *x = *out = calloc(1, sizeof *x);
    if (!x)
        return err_nomem(e, "the list of tensors", sizeof *x);
    x->s = s;
    x->config = c;
    bool ok = list(x, false, e);
    if (ok && x->n_parts) {
        x->parts = calloc(x->n_parts, sizeof *x->parts);
        x->list = calloc(x->n, sizeof *x->list);
        if (!x->parts || !x->list)
            ok = err_nomem(e, "the list of tensors", x->n_parts * sizeof *x->parts);
        ok = ok && list(x, true, e);
    }
    if (!ok || !x->n_parts)
        stacked_free(out);
    return ok;
}

void stacked_free(struct stacked **out)
{
    struct stacked *x = *out;
    *out = NULL;
    if (!x)
        return;
    strmap_free(&x->by_name);
    free(x->list);
    free(x->parts);
    free(x);
}

size_t stacked_count(const struct stacked *x)
{
    return x->n;
}

const struct tensor *stacked_at(const struct stacked *x, size_t i)
{
    return x->list[i];
}

const struct tensor *stacked_find(const struct stacked *x, const char *name)
{
    uint32_t i;
    return strmap_find(&x->by_name, name, strlen(name), &i) ? &x->parts[i].tensor : safetensors_find(x->s, name);
}
