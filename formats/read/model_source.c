#include "formats/read/model_source.h"

#include <stdio.h>

const struct tensor *source_tensor(const struct model_source *s, const void *self, const char *module,
                                   const char *suffix)
{
    char name[1024];
    int n = snprintf(name, sizeof name, "%s%s", module, suffix);
    return n > 0 && (size_t)n < sizeof name ? s->find(self, name) : NULL;
}

const struct tensor *source_weight(const struct model_source *s, const void *self, const char *module,
                                   const char *model, struct err *e)
{
    const struct tensor *t = source_tensor(s, self, module, ".weight");
    if (t)
        return t;
    err_set(e, ERR_USER, "the tensor %s.weight is missing from %s", module, model);
    err_hint(e, "a shard is missing, the download is not complete, or the model has another architecture");
    return NULL;
}

bool source_shape(const struct tensor *t, const char *name, const char *path, struct weight_info *out, struct err *e)
{
    uint64_t rows = t->n_dims > 1 ? t->shape[0] : 1, cols = t->n_dims ? t->shape[t->n_dims - 1] : 0;
    bool conv = t->n_dims == 3 && t->shape[1] == 1; /* a row of taps for each channel */
    if (t->n_dims < 1 || (t->n_dims > 2 && !conv) || !rows || !cols || rows > INT32_MAX || cols > INT32_MAX) {
        err_set(e, ERR_USER, "%s in %s has %u dimensions or an odd size; a vector or a matrix is expected", name, path,
                (unsigned)t->n_dims);
        return err_hint(e, "the model may be of an architecture that is not supported");
    }
    *out = (struct weight_info){.rows = (uint32_t)rows, .cols = (uint32_t)cols, .dtype = t->dtype, .bytes = t->bytes};
    return true;
}
