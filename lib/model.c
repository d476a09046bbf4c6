#include <stdlib.h>
#include <string.h>

#include "formats/read/hub_cache.h"
#include "host/base/str.h"
#include "arch/family.h"
#include "lib/lib_internal.h"

bool gsq_model_open(gsq_model **out, const char *path, struct gsq_error *e)
{
    struct err why = {0};
    char found[4096];
    *out = NULL;
    if (!hub_locate(path, found, sizeof found, &why))
        return lib_result(false, &why, e);
    gsq_model *m = calloc(1, sizeof *m);
    bool ok = (m && (m->path = str_dup(found))) || err_nomem(&why, "a model", sizeof *m);
    ok = ok && checkpoint_open(&m->ck, m->path, &why);
    if (ok)
        *out = m;
    else if (m)
        gsq_model_close(&m);
    return lib_result(ok, &why, e);
}

char *gsq_model_locate(const char *name, struct gsq_error *e)
{
    struct err why = {0};
    char found[4096];
    char *path = NULL;
    if (hub_locate(name, found, sizeof found, &why) && !(path = str_dup(found)))
        err_nomem(&why, "a path", strlen(found));
    lib_result(path != NULL, &why, e);
    return path;
}

void gsq_model_close(gsq_model **model)
{
    gsq_model *m = *model;
    *model = NULL;
    if (!m)
        return;
    checkpoint_close(&m->ck);
    free(m->path);
    free(m);
}

void gsq_model_get_info(const gsq_model *model, struct gsq_model_info *info)
{
    const struct model_config *c = checkpoint_config(model->ck);
    struct gsq_model_info out = {
        .architecture = c->architecture,
        .model_type = c->model_type,
        .supported = family_find(c, NULL) != NULL,
        .layers = c->num_layers,
        .hidden_size = c->hidden_size,
        .vocab_size = c->vocab_size,
        .context = c->max_position,
        .tensors = checkpoint_tensor_count(model->ck),
    };
    for (size_t i = 0; i < checkpoint_tensor_count(model->ck); i++)
        out.bytes += checkpoint_tensor_at(model->ck, i)->bytes;
    lib_give(info, &out, sizeof out);
}
