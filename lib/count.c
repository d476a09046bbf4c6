/* What a run's pieces compute and move. */
#include <string.h>

#include "host/model/windows.h"
#include "host/quant/plan/counts.h"
#include "lib/lib_internal.h"

void gsq_count_options_init_sized(struct gsq_count_options *o, size_t size)
{
    struct gsq_count_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static void on_count(void *ctx, const struct count_row *r)
{
    const struct gsq_count_options *o = ctx;
    const struct gpu_traffic *t = &r->traffic;
    struct gsq_count_row row = {
        .size = sizeof row,
        .piece = count_piece_names[r->piece],
        .kernel = gpu_traffic_name(r->record),
        .calls = t->calls,
        .flop = t->flop,
        .bytes_read = t->read,
        .written = t->written,
        .layer_kind = r->of ? r->of->name : NULL,
        .first_layer = r->of ? r->of->first : 0,
        .layers = r->of ? r->of->layers : 0,
        .layer_weights = r->of ? r->of->weights : 0,
        .layer_expert_weights = r->of ? r->of->expert_weights : 0,
        .step_weights = r->stepped,
    };
    if (o->row)
        o->row(o->ctx, &row);
}

static bool count(gsq_device *device, const gsq_model *model, struct gsq_count_options *a, struct gsq_count_result *out,
                  struct err *e)
{
    struct quantize_options o;
    struct model *m = NULL;
    quantize_defaults(&o);
    o.group = a->group;
    if (!lib_types(&o, a->bits, NULL, e) || !quantize_settle(&o, e) ||
        !model_open(&m, device->cmd, model->ck, windows_context(model->ck, a->context), e))
        return false;
    const struct block_shape b = model_block(m, 0);
    bool ok = count_pieces(m, &o, on_count, a, e);
    out->layers = m->cfg->num_layers;
    out->context = m->ctx;
    out->windows_at_once = COUNT_WINDOWS;
    out->experts = m->cfg->experts.n;
    out->experts_used = m->cfg->experts.used;
    for (uint32_t i = 0; i < b.n; i++)
        out->block_weights += (double)b.matrices[i].rows * b.matrices[i].cols;
    model_close(&m);
    return ok;
}

bool gsq_count(gsq_device *device, const gsq_model *model, const struct gsq_count_options *options,
               struct gsq_count_result *result, struct gsq_error *e)
{
    struct err why = {0};
    struct gsq_count_options o = {0};
    struct gsq_count_result out = {.size = sizeof out};
    bool ok = lib_take(&o, sizeof o, options, "gsq_count_options", &why) && lib_device_ready(device, &why) &&
              count(device, model, &o, &out, &why);
    if (ok)
        lib_give(result, &out, sizeof out);
    return lib_result(ok, &why, e);
}
