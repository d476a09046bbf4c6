#include "formats/read/checkpoint_sum.h"

#include <stdlib.h>
#include <string.h>

struct named {
    const char *name;
    size_t at;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static bool sort_names(struct checkpoint_sums *s, struct err *e)
{
    struct named *list = calloc(s->n + 1, sizeof *list);
    s->by_name = calloc(s->n + 1, sizeof *s->by_name);
    bool ok = (list && s->by_name) || err_nomem(e, "the model's checksums", s->n * sizeof *list);
    for (size_t i = 0; ok && i < s->n; i++)
        list[i] = (struct named){checkpoint_tensor_at(s->ck, i)->name, i};
    if (ok)
        qsort(list, s->n, sizeof *list, by_name);
    for (size_t i = 0; ok && i < s->n; i++)
        s->by_name[i] = list[i].at;
    free(list);
    return ok;
}

bool checkpoint_sums_create(struct checkpoint_sums *out, const struct checkpoint *ck, struct err *e)
{
    size_t n = checkpoint_tensor_count(ck);
    *out = (struct checkpoint_sums){.ck = ck, .n = n};
    out->tensor = calloc(n ? n : 1, sizeof *out->tensor);
    out->known = calloc(n ? n : 1, sizeof *out->known);
    return ((out->tensor && out->known) || err_nomem(e, "the model's checksums", n * sizeof *out->tensor)) &&
           sort_names(out, e);
}

void checkpoint_sums_free(struct checkpoint_sums *s)
{
    free(s->tensor);
    free(s->known);
    free(s->by_name);
    *s = (struct checkpoint_sums){0};
}

static struct hash128 sum_of(const struct tensor *t)
{
    return hash_bytes(t->data, (size_t)t->bytes, (struct hash128){0});
}

static void take(struct checkpoint_sums *s, size_t i)
{
    s->tensor[i] = sum_of(checkpoint_tensor_at(s->ck, i));
    s->known[i] = true;
}

void checkpoint_sum_module(struct checkpoint_sums *s, const char *module)
{
    size_t len = strlen(module), first = 0, end = s->n;
    while (first < end) { /* the first name that is not below it in the order */
        size_t half = first + (end - first) / 2;
        if (strcmp(checkpoint_tensor_at(s->ck, s->by_name[half])->name, module) < 0)
            first = half + 1;
        else
            end = half;
    }
    for (; first < s->n; first++) {
        size_t i = s->by_name[first];
        const char *name = checkpoint_tensor_at(s->ck, i)->name;
        if (strncmp(name, module, len) != 0)
            break;
        if (!s->known[i] && name[len] == '.' && !strchr(name + len + 1, '.'))
            take(s, i);
    }
}

void checkpoint_sum_rest(struct checkpoint_sums *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->known[i])
            continue;
        take(s, i);
        checkpoint_drop(s->ck, checkpoint_tensor_at(s->ck, i));
    }
}

struct hash128 checkpoint_sum_total(const struct checkpoint_sums *s)
{
    struct hash128 h = {0};
    for (size_t i = 0; i < s->n; i++) {
        const struct tensor *t = checkpoint_tensor_at(s->ck, i);
        h = hash_bytes(t->name, strlen(t->name) + 1, h);
        h = hash_bytes(t->stored_dtype, strlen(t->stored_dtype), h);
        h = hash_bytes(&t->dtype, sizeof t->dtype, h);
        h = hash_bytes(t->shape, t->n_dims * sizeof t->shape[0], h);
        h = hash_bytes(&s->tensor[i], sizeof s->tensor[i], h);
    }
    return h;
}

bool checkpoint_sum_same(const struct checkpoint_sums *s, const char *prefix, struct err *e)
{
    size_t len = strlen(prefix);
    for (size_t i = 0; i < s->n; i++) {
        const struct tensor *t = checkpoint_tensor_at(s->ck, i);
        if (strncmp(t->name, prefix, len) != 0)
            continue;
        struct hash128 now = sum_of(t);
        if (now.lo == s->tensor[i].lo && now.hi == s->tensor[i].hi)
            continue;
        err_set(e, ERR_USER, "the model changed while it was being quantized: %.200s in %.500s", t->name,
                checkpoint_tensor_path(s->ck, t));
        return err_hint(e,
                        "put the file back as it was and repeat the command; finished blocks are kept. To quantize the "
                        "changed model, give another --work folder");
    }
    return true;
}
