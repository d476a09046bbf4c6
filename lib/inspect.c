/* What is in a model folder or a GGUF, and what a run would make of it, without a device. */
#include <stdlib.h>
#include <string.h>

#include "formats/hf/hf_quant.h"
#include "formats/write/export.h"
#include "formats/write/hf_linear.h"
#include "host/base/num.h"
#include "host/base/table.h"
#include "host/model/model.h"
#include "host/quant/plan.h"
#include "host/quant/plan/planner.h"
#include "lib/lib_internal.h"
#include "lib/plan_text.h"

/* The blocks' linears of one kind; those of one shape share a row of the table. */
struct shape {
    struct matrix x; /* the first */
    unsigned count;
};
enum { SHAPES_MAX = 64 };

struct contents {
    const struct checkpoint *ck;
    const struct model_config *cfg;
    const struct family *family; /* NULL: not one that gsq knows */
    struct model *model;         /* as the plan sees it; NULL: it would refuse, and why */
    struct checkpoint *split_ck; /* the same as a GGUF has it, where that is otherwise; else NULL */
    struct model *split;
    struct err why_not;
    struct quantize_options run; /* that is asked about */
    bool every_tensor;           /* listed */
    bool quantized;              /* some linear of the blocks is */
    uint64_t params, linear_params, bytes, linear_bytes;
    struct shape shapes[SHAPES_MAX];
    size_t n_shapes;
};

static const char *format_name(const struct contents *c)
{
    return checkpoint_gguf(c->ck) ? "gguf" : quant_method_name(c->cfg->quant);
}

/* ---- counting ---- */

static uint64_t elements(const struct tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (!mul_u64(n, t->shape[i], &n))
            return 0;
    return n;
}

/* A module's weight, or the codes of it: the one of its tensors that stands for all its weights. */
static bool is_weight(const char *suffix)
{
    return strcmp(suffix, ".weight") == 0 || strcmp(suffix, ".qweight") == 0 || strcmp(suffix, ".weight_packed") == 0;
}

/* Parameters as the model sees them: a packed matrix counts its weights, not its words. */
static void count_params(struct contents *c)
{
    for (size_t i = 0; i < checkpoint_tensor_count(c->ck); i++) {
        const struct tensor *t = checkpoint_tensor_at(c->ck, i);
        const char *dot = strrchr(t->name, '.');
        size_t n = dot ? (size_t)(dot - t->name) : 0;
        char module[256];
        struct weight_info w;
        c->bytes += t->bytes;
        if (!dot || n >= sizeof module || (!is_weight(dot) && strcmp(dot, ".bias") != 0))
            continue;
        memcpy(module, t->name, n);
        module[n] = 0;
        if (strcmp(module, "rope_freqs") == 0)
            continue;
        if (is_weight(dot) && t->n_dims == 2 && checkpoint_weight(c->ck, module, &w, NULL))
            c->params += (uint64_t)w.rows * w.cols;
        else
            c->params += elements(t);
    }
}

static void add_shape(struct contents *c, const struct matrix *x)
{
    for (size_t i = 0; i < c->n_shapes; i++) {
        const struct matrix *a = &c->shapes[i].x;
        if (a->part == x->part && a->rows == x->rows && a->cols == x->cols &&
            (a->stored && x->stored ? strcmp(a->stored, x->stored) == 0 : a->stored == x->stored) &&
            a->coded == x->coded &&
            (!x->coded ||
             (a->spec.type == x->spec.type && a->spec.group == x->spec.group && a->spec.scale == x->spec.scale))) {
            c->shapes[i].count++;
            return;
        }
    }
    if (c->n_shapes < SHAPES_MAX)
        c->shapes[c->n_shapes++] = (struct shape){.x = *x, .count = 1};
}

static bool count_linears(struct contents *c, struct err *e)
{
    struct model_shape shape = {0};
    bool ok = !c->family || model_shape_make(&shape, c->cfg, e);
    for (uint32_t layer = 0; ok && c->family && layer < c->cfg->num_layers; layer++) {
        struct block_shape b = model_shape_of(&shape, layer);
        for (uint32_t place = 0; ok && place < b.n; place++) {
            struct matrix x = {.part = b.matrices[place].part};
            block_matrix_name(c->cfg, &b.matrices[place], layer, x.module, sizeof x.module);
            ok = checkpoint_matrix(c->ck, &x, e);
            if (!ok)
                break;
            uint64_t weights = (uint64_t)x.rows * x.cols;
            c->linear_params += weights;
            c->linear_bytes += x.bytes;
            c->quantized |= matrix_quantized(&x);
            add_shape(c, &x);
        }
    }
    model_shape_free(&shape);
    return ok;
}

static double bits_each(uint64_t bytes, uint64_t params)
{
    return params ? 8.0 * (double)bytes / (double)params : 0;
}

/* ---- telling people ---- */

static void shape_line_text(struct strbuf *b, const struct model_config *c)
{
    strbuf_printf(b,
                  "shape           %u blocks, hidden %u, intermediate %u, %u heads of %u (%u for keys and values), "
                  "%u tokens\n",
                  (unsigned)c->num_layers, (unsigned)c->hidden_size, (unsigned)c->intermediate_size,
                  (unsigned)c->num_heads, (unsigned)c->head_dim, (unsigned)c->num_kv_heads, (unsigned)c->vocab_size);
    strbuf_printf(b, "positions       ");
    if (c->max_position)
        strbuf_printf(b, "%u, ", (unsigned)c->max_position);
    strbuf_printf(b, "rope theta %g%s", c->rope_theta,
                  c->rope_scaling == ROPE_LLAMA3    ? ", llama3 scaling"
                  : c->rope_scaling == ROPE_LINEAR  ? ", linear scaling"
                  : c->rope_scaling == ROPE_YARN    ? ", yarn scaling"
                  : c->rope_scaling == ROPE_FACTORS ? ", a factor per pair"
                                                    : "");
    if (c->sliding_window)
        strbuf_printf(b, ", sliding window %u", (unsigned)c->sliding_window);
    strbuf_printf(b, "%s\n", c->tie_word_embeddings ? ", embeddings tied" : "");
}

static const char *stored_name(const struct tensor *t)
{
    return t->stored_dtype[0] ? t->stored_dtype : dtype_name(t->dtype);
}

/* One line per type, in the order in which they first appear. */
static void dtypes_text(struct strbuf *b, const struct contents *c)
{
    struct table *t = table_create(checkpoint_gguf(c->ck) ? "lrrr" : "lrr");
    size_t count = checkpoint_tensor_count(c->ck);
    for (size_t first = 0; first < count; first++) {
        const char *name = stored_name(checkpoint_tensor_at(c->ck, first));
        uint64_t bytes = 0, weights = 0;
        unsigned n = 0;
        char text[24];
        bool seen = false;
        for (size_t i = 0; i < count && !seen; i++) {
            const struct tensor *x = checkpoint_tensor_at(c->ck, i);
            if (strcmp(stored_name(x), name) != 0)
                continue;
            seen = i < first;
            n++;
            bytes += x->bytes;
            weights += elements(x);
        }
        if (seen)
            continue;
        table_cell(t, "%s", name);
        table_cell(t, "%u tensors", n);
        table_cell(t, "%s", format_bytes(bytes, text, sizeof text));
        if (checkpoint_gguf(c->ck))
            table_cell(t, "%.4g bits per weight", bits_each(bytes, weights));
    }
    strbuf_printf(b, "\nstored\n");
    table_add(&t, b, 2);
}

static void tensors_text(struct strbuf *b, const struct contents *c)
{
    struct table *t = table_create(checkpoint_gguf(c->ck) ? "lllrr" : "lllr");
    for (size_t i = 0; i < checkpoint_tensor_count(c->ck); i++) {
        const struct tensor *x = checkpoint_tensor_at(c->ck, i);
        char shape[160] = "[", size[24];
        for (uint32_t k = 0; k < x->n_dims; k++) {
            size_t n = strlen(shape);
            snprintf(shape + n, sizeof shape - n, "%s%llu", k ? ", " : "", (unsigned long long)x->shape[k]);
        }
        table_cell(t, "%s", x->name);
        table_cell(t, "%s", stored_name(x));
        table_cell(t, "%s]", shape);
        table_cell(t, "%s", format_bytes(x->bytes, size, sizeof size));
        if (checkpoint_gguf(c->ck))
            table_cell(t, "%.4g bits per weight", bits_each(x->bytes, elements(x)));
    }
    strbuf_printf(b, "\ntensors\n");
    table_add(&t, b, 2);
}

static void linears_text(struct strbuf *b, const struct contents *c)
{
    struct table *t = table_create("lrrl");
    for (size_t i = 0; i < c->n_shapes; i++) {
        const struct matrix *x = &c->shapes[i].x;
        unsigned count = c->shapes[i].count;
        table_cell(t, "%s", matrix_kind(x));
        table_cell(t, "%u x %u", (unsigned)x->rows, (unsigned)x->cols);
        table_cell(t, "%u %s", count, count == 1 ? "matrix" : "matrices");
        if (x->stored)
            table_cell(t, "%s", x->stored);
        else
            table_cell(t, "%s%s, group %u", x->spec.type->name, x->spec.type->learned ? " bits" : "",
                       (unsigned)x->spec.group);
    }
    strbuf_printf(b, "\nlinears of the blocks (outputs x inputs)\n");
    table_add(&t, b, 2);
}

/* ---- what quantize would do: the plan's own verdict ---- */

static void collect(void *ctx, const char *line)
{
    struct strbuf *b = ctx; /* the first, which others are like */
    if (!b->size)
        strbuf_puts(b, line);
}

/* Fates of all weights in a format by a method, or the refusal. why: what the plan would warn of. plan_free in any
 * case. */
static bool fates(const struct contents *c, enum export_format f, enum method method, struct plan *p,
                  struct strbuf *why, struct err *e)
{
    struct quantize_options o = c->run;
    const struct plan_listener listener = {collect, why};
    *p = (struct plan){0};
    o.format = f;
    o.method = method;
    if (f != EXPORT_GGUF)
        o.mixture = NULL;
    const struct model *m = f == EXPORT_GGUF && c->split ? c->split : c->model;
    return quantize_settle(&o, e) && plan_fates(p, m, &o, (struct plan_sources){0}, &listener, e);
}

/* Of a format, whatever the method: rounding takes all that learning does. */
static enum export_verdict verdict_of(const struct contents *c, enum export_format f, char *why, size_t cap)
{
    struct plan p;
    struct strbuf warned = {0};
    struct err e = {0};
    bool ok = fates(c, f, METHOD_RTN, &p, &warned, &e);
    snprintf(why, cap, "%s", !ok ? e.msg : warned.size ? warned.data : "");
    plan_free(&p);
    strbuf_free(&warned);
    return !ok ? EXPORT_REFUSED : why[0] ? EXPORT_WARN : EXPORT_OK;
}

/* Those that quantize writes: packed folders and the file. */
enum { N_FORMATS = EXPORT_GGUF + 1 };

static void formats_text(struct strbuf *b, const struct contents *c)
{
    uint32_t group = c->run.group ? c->run.group : GROUP_DEFAULT;
    strbuf_printf(b, "\nformats at %s bits, group %u", c->run.code_type->name, (unsigned)group);
    if (c->run.mixture)
        strbuf_printf(b, "; gguf as %s", c->run.mixture);
    strbuf_puts(b, "\n");
    for (int i = 0; i < N_FORMATS; i++) {
        char why[640];
        enum export_verdict v = verdict_of(c, (enum export_format)i, why, sizeof why);
        if (v == EXPORT_WARN && c->run.mixture && (enum export_format)i == EXPORT_GGUF)
            snprintf(why, sizeof why, "other types stand in for some, see below");
        strbuf_printf(b, "  %-18s  %s", export_format_name((enum export_format)i),
                      v == EXPORT_OK     ? "takes every linear"
                      : v == EXPORT_WARN ? "takes every linear; "
                                         : "does not take this model: ");
        strbuf_puts(b, v == EXPORT_OK ? "" : why);
        strbuf_puts(b, "\n");
    }
}

static void refusal_text(struct strbuf *b, const char *what, const struct err *e)
{
    strbuf_printf(b, "\ngsq quantize %s: ", what);
    strbuf_puts(b, e->msg);
    strbuf_puts(b, "\n");
    strbuf_puts(b, e->hint);
    strbuf_puts(b, "\n");
}

/* With a type of GGUF the whole file, else in words. */
static void fates_text(struct strbuf *b, const struct contents *c)
{
    const char *mixture = c->run.mixture;
    struct plan p;
    struct strbuf warned = {0};
    struct err e = {0};
    if (mixture && fates(c, EXPORT_GGUF, METHOD_RTN, &p, &warned, &e)) {
        strbuf_printf(b, "\nas %s\n", mixture);
        plan_fates_text(b, &p);
    }
    if (mixture)
        plan_free(&p);
    strbuf_free(&warned);
    if (!fates(c, mixture ? EXPORT_GGUF : EXPORT_GPTQ, METHOD_GSQ, &p, &warned, &e))
        refusal_text(b, "--method gsq would refuse this", &e);
    else if (!mixture)
        strbuf_puts(b,
                    "\ngsq quantize would take the linears above; embeddings, norms and the head stay in 16 bits (in a "
                    "GGUF they are rounded, too: --type)\n");
    plan_free(&p);
    strbuf_free(&warned);
}

static void contents_text(struct strbuf *b, const struct contents *c)
{
    char size[24];
    strbuf_puts(b, "model           ");
    strbuf_puts(b, checkpoint_dir(c->ck));
    strbuf_puts(b, "\narchitecture    ");
    strbuf_puts(b, c->cfg->architecture[0] ? c->cfg->architecture : "not named");
    strbuf_printf(b, " (%s)%s\n", c->cfg->model_type, c->family ? "" : ", not supported by this version");
    shape_line_text(b, c->cfg);
    strbuf_printf(b, "parameters      %.4g million", 1e-6 * (double)c->params);
    if (c->linear_params)
        strbuf_printf(b, ", %.1f %% of them in the blocks' linears",
                      100 * (double)c->linear_params / (double)(c->params ? c->params : 1));
    strbuf_printf(b, "\nsize            %s, %.3f bits per parameter\n", format_bytes(c->bytes, size, sizeof size),
                  bits_each(c->bytes, c->params));
    if (c->quantized)
        strbuf_printf(b, "quantized       %s, the linears at %.3f bits per weight\n", format_name(c),
                      bits_each(c->linear_bytes, c->linear_params));
    dtypes_text(b, c);
    if (c->family)
        linears_text(b, c);
    if (c->model && !c->quantized)
        formats_text(b, c);
    if (c->every_tensor)
        tensors_text(b, c);
    if (!c->model)
        refusal_text(b, "would refuse this model", &c->why_not);
    else if (c->quantized)
        strbuf_puts(b, "\nalready quantized: gsq eval, compare and convert read it\n");
    else
        fates_text(b, c);
}

/* ---- telling programs ---- */

static cJSON *shapes_json(const struct contents *c)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < c->n_shapes; i++) {
        const struct matrix *x = &c->shapes[i].x;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "linear", matrix_kind(x));
        cJSON_AddNumberToObject(o, "rows", x->rows);
        cJSON_AddNumberToObject(o, "cols", x->cols);
        cJSON_AddNumberToObject(o, "count", c->shapes[i].count);
        if (x->coded) {
            cJSON_AddStringToObject(o, "type", x->spec.type->name);
            cJSON_AddNumberToObject(o, "group", x->spec.group);
        } else {
            cJSON_AddStringToObject(o, "dtype", x->stored);
        }
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

static cJSON *tensors_json(const struct contents *c)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < checkpoint_tensor_count(c->ck); i++) {
        const struct tensor *x = checkpoint_tensor_at(c->ck, i);
        cJSON *o = cJSON_CreateObject(), *shape = NULL;
        cJSON_AddStringToObject(o, "name", x->name);
        cJSON_AddStringToObject(o, "dtype", stored_name(x));
        shape = cJSON_AddArrayToObject(o, "shape");
        for (uint32_t k = 0; k < x->n_dims; k++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)x->shape[k]));
        cJSON_AddNumberToObject(o, "bytes", (double)x->bytes);
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

static void contents_json(cJSON *o, const struct contents *c)
{
    static const char *const verdicts[] = {"ok", "warning", "refused"};
    cJSON_AddStringToObject(o, "model", checkpoint_dir(c->ck));
    cJSON_AddStringToObject(o, "architecture", c->cfg->architecture);
    cJSON_AddStringToObject(o, "model_type", c->cfg->model_type);
    cJSON_AddBoolToObject(o, "supported", c->family != NULL);
    cJSON_AddNumberToObject(o, "layers", c->cfg->num_layers);
    cJSON_AddNumberToObject(o, "hidden_size", c->cfg->hidden_size);
    cJSON_AddNumberToObject(o, "vocab_size", c->cfg->vocab_size);
    cJSON_AddNumberToObject(o, "parameters", (double)c->params);
    cJSON_AddNumberToObject(o, "linear_parameters", (double)c->linear_params);
    cJSON_AddNumberToObject(o, "bytes", (double)c->bytes);
    cJSON_AddStringToObject(o, "format", format_name(c));
    if (c->linear_params)
        cJSON_AddNumberToObject(o, "bits_per_weight", bits_each(c->linear_bytes, c->linear_params));
    cJSON_AddItemToObject(o, "linears", shapes_json(c));
    if (c->model && !c->quantized) {
        cJSON *formats = cJSON_AddObjectToObject(o, "formats");
        for (int i = 0; i < N_FORMATS; i++) {
            char why[640];
            enum export_verdict v = verdict_of(c, (enum export_format)i, why, sizeof why);
            cJSON *one = cJSON_AddObjectToObject(formats, export_format_name((enum export_format)i));
            cJSON_AddStringToObject(one, "verdict", verdicts[v]);
            if (why[0])
                cJSON_AddStringToObject(one, "why", why);
        }
    }
    if (c->every_tensor)
        cJSON_AddItemToObject(o, "tensors", tensors_json(c));
}

/* ---- what gsq.h declares ---- */

void gsq_inspect_options_init_sized(struct gsq_inspect_options *o, size_t size)
{
    struct gsq_inspect_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static bool read_options(struct contents *c, const struct gsq_inspect_options *options, struct err *e)
{
    struct gsq_inspect_options o = {0};
    if (!lib_take(&o, sizeof o, options, "gsq_inspect_options", e))
        return false;
    quantize_defaults(&c->run);
    c->run.group = o.group;
    c->every_tensor = o.tensors;
    if (!lib_types(&c->run, o.bits, o.type, e))
        return false;
    if (!c->run.target.like)
        return true;
    err_set(e, ERR_USER, "--type %s: such types are chosen by what is measured on a text", o.type);
    return err_hint(
        e, "gsq quantize MODEL -o OUT.gguf --type %s --calib default --dry-run says what sizes are possible", o.type);
}

static bool look(struct contents *c, const struct checkpoint *ck, const struct gsq_inspect_options *options,
                 struct err *e)
{
    struct err why = {0};
    if (!read_options(c, options, e))
        return false;
    c->ck = ck;
    c->cfg = checkpoint_config(ck);
    c->family = family_find(c->cfg, &c->why_not);
    count_params(c);
    if (c->family)
        model_describe(&c->model, ck, 2, &c->why_not);
    if (c->model && c->cfg->mla.kv_rank && checkpoint_open(&c->split_ck, checkpoint_dir(ck), &c->why_not)) {
        checkpoint_split_latent(c->split_ck);
        model_describe(&c->split, c->split_ck, 2, &c->why_not);
    }
    /* Linears that are not there, or not readable, are a reason not to quantize; the rest is shown. */
    if (!count_linears(c, &why)) {
        c->family = NULL;
        c->n_shapes = 0;
        c->linear_params = c->linear_bytes = 0;
        if (c->why_not.kind == ERR_NONE)
            c->why_not = why;
    }
    return true;
}

/* One or the other is filled. */
static bool inspect(struct strbuf *text, cJSON *json, const gsq_model *model, const struct gsq_inspect_options *o,
                    struct err *e)
{
    struct contents *c = calloc(1, sizeof *c);
    if (!c)
        return err_nomem(e, "the inspection", sizeof *c);
    bool ok = look(c, model->ck, o, e);
    if (ok && text)
        contents_text(text, c);
    else if (ok)
        contents_json(json, c);
    model_close(&c->model);
    model_close(&c->split);
    checkpoint_close(&c->split_ck);
    free(c);
    return ok;
}

char *gsq_model_text(const gsq_model *model, const struct gsq_inspect_options *o, struct gsq_error *e)
{
    struct err why = {0};
    struct strbuf text = {0};
    return lib_text(inspect(&text, NULL, model, o, &why), &text, &why, e);
}

char *gsq_model_json(const gsq_model *model, const struct gsq_inspect_options *o, struct gsq_error *e)
{
    struct err why = {0};
    cJSON *json = cJSON_CreateObject();
    return lib_json(inspect(NULL, json, model, o, &why), json, &why, e);
}
