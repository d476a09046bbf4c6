/* The verbs on files: types, rows, dequantization, llama-quantize, importance matrices. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "tests/llama/llama_run.h"

/* A GGUF read whole: its header and its tensors. */
struct file {
    struct gguf_context *header;
    struct ggml_context *tensors;
};

static bool file_open(struct file *f, const char *path, struct err *e)
{
    struct gguf_init_params p = {.no_alloc = false, .ctx = &f->tensors};
    f->tensors = NULL;
    f->header = gguf_init_from_file(path, p);
    return (f->header && f->tensors) || err_set(e, ERR_USER, "ggml does not read %s", path);
}

static void file_close(struct file *f)
{
    if (f->header)
        gguf_free(f->header);
    if (f->tensors)
        ggml_free(f->tensors);
    *f = (struct file){0};
}

static struct ggml_tensor *file_tensor(const struct file *f, int64_t i)
{
    return ggml_get_tensor(f->tensors, gguf_get_tensor_name(f->header, i));
}

/* types MODEL: a line for each tensor: name, type, weights, bytes. */
bool run_types(char **args, int n, struct err *e)
{
    struct file f;
    bool ok = file_open(&f, args[0], e);
    (void)n;
    for (int64_t i = 0; ok && i < gguf_get_n_tensors(f.header); i++) {
        const struct ggml_tensor *t = file_tensor(&f, i);
        printf("%s\t%s\t%lld\t%zu\n", t->name, ggml_type_name(t->type), (long long)ggml_nelements(t), ggml_nbytes(t));
    }
    file_close(&f);
    return ok;
}

/* validate MODEL: every block of every tensor passes ggml's check. */
bool run_validate(char **args, int n, struct err *e)
{
    struct file f;
    bool ok = file_open(&f, args[0], e);
    (void)n;
    for (int64_t i = 0; ok && i < gguf_get_n_tensors(f.header); i++) {
        const struct ggml_tensor *t = file_tensor(&f, i);
        ok = ggml_validate_row_data(t->type, t->data, ggml_nbytes(t)) ||
             err_set(e, ERR_USER, "%s: %s: ggml finds invalid rows", args[0], t->name);
    }
    if (ok)
        printf("{\"tensors\": %lld}\n", (long long)gguf_get_n_tensors(f.header));
    file_close(&f);
    return ok;
}

/* codes FILE: how many weights of Q2_0 and TQ2_0 have the code 3, which llama-quantize never gives. */
bool run_codes(char **args, int n, struct err *e)
{
    struct file f;
    uint64_t threes = 0, all = 0;
    bool ok = file_open(&f, args[0], e);
    (void)n;
    for (int64_t i = 0; ok && i < gguf_get_n_tensors(f.header); i++) {
        const struct ggml_tensor *t = file_tensor(&f, i);
        bool q2 = t->type == GGML_TYPE_Q2_0;
        size_t block = ggml_type_size(t->type), from = q2 ? 2 : 0, bytes = q2 ? 16 : 64;
        if (!q2 && t->type != GGML_TYPE_TQ2_0)
            continue;
        for (size_t at = 0; at < ggml_nbytes(t); at += block)
            for (size_t b = 0; b < bytes; b++)
                for (int k = 0; k < 8; k += 2, all++)
                    threes += (((const uint8_t *)t->data)[at + from + b] >> k & 3) == 3;
    }
    if (ok)
        printf("{\"weights\": %llu, \"threes\": %llu}\n", (unsigned long long)all, (unsigned long long)threes);
    file_close(&f);
    return ok;
}

/* same A B: both have the same tensors, bit for bit, whatever their order. */
bool run_same(char **args, int n, struct err *e)
{
    struct file f[2] = {{0}};
    bool ok = file_open(&f[0], args[0], e) && file_open(&f[1], args[1], e);
    (void)n;
    if (ok && gguf_get_n_tensors(f[0].header) != gguf_get_n_tensors(f[1].header))
        ok = err_set(e, ERR_USER, "%s and %s differ in the number of tensors", args[0], args[1]);
    for (int64_t i = 0; ok && i < gguf_get_n_tensors(f[0].header); i++) {
        const struct ggml_tensor *a = file_tensor(&f[0], i), *b = ggml_get_tensor(f[1].tensors, a->name);
        ok = (b && a->type == b->type && ggml_are_same_shape(a, b) && memcmp(a->data, b->data, ggml_nbytes(a)) == 0) ||
             err_set(e, ERR_USER, "%s and %s differ in %s", args[0], args[1], a->name);
    }
    file_close(&f[0]);
    file_close(&f[1]);
    return ok;
}

/* ---- dequantization ---- */

static bool to_f32(const struct ggml_tensor *from, struct ggml_tensor *to, struct err *e)
{
    const struct ggml_type_traits *traits = ggml_get_type_traits(from->type);
    if (from->type == GGML_TYPE_F32)
        memcpy(to->data, from->data, ggml_nbytes(from));
    else if (traits->to_float)
        traits->to_float(from->data, to->data, ggml_nelements(from));
    else
        return err_set(e, ERR_USER, "%s: ggml dequantizes no %s", from->name, ggml_type_name(from->type));
    return true;
}

/* dequant IN OUT: a GGUF of the same values in F32. */
bool run_dequant(char **args, int n, struct err *e)
{
    struct file f;
    struct gguf_context *out = gguf_init_empty();
    struct ggml_context *space = NULL;
    bool ok = file_open(&f, args[0], e);
    (void)n;
    if (ok) {
        int64_t count = gguf_get_n_tensors(f.header);
        size_t bytes = 1 << 20;
        for (int64_t i = 0; i < count; i++)
            bytes += (size_t)ggml_nelements(file_tensor(&f, i)) * 4 + ggml_tensor_overhead() + 64;
        space = ggml_init((struct ggml_init_params){.mem_size = bytes});
        ok = space || err_nomem(e, "the dequantized model", bytes);
    }
    if (ok)
        gguf_set_kv(out, f.header);
    for (int64_t i = 0; ok && i < gguf_get_n_tensors(f.header); i++) {
        const struct ggml_tensor *from = file_tensor(&f, i);
        struct ggml_tensor *to = ggml_new_tensor(space, GGML_TYPE_F32, ggml_n_dims(from), from->ne);
        ggml_set_name(to, from->name);
        ok = to_f32(from, to, e);
        gguf_add_tensor(out, to);
    }
    if (ok) {
        gguf_set_val_u32(out, "general.file_type", LLAMA_FTYPE_ALL_F32);
        ok = gguf_write_to_file(out, args[1], false) || err_set(e, ERR_ENV, "%s cannot be written", args[1]);
    }
    gguf_free(out);
    if (space)
        ggml_free(space);
    file_close(&f);
    return ok;
}

/* ---- llama-quantize ---- */

static const struct {
    const char *name;
    enum llama_ftype type;
} mixtures[] = {
    {"F32", LLAMA_FTYPE_ALL_F32},          {"F16", LLAMA_FTYPE_MOSTLY_F16},
    {"BF16", LLAMA_FTYPE_MOSTLY_BF16},     {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
    {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},     {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},
    {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},     {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    {"Q2_0", LLAMA_FTYPE_MOSTLY_Q2_0},     {"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},
    {"Q2_K_S", LLAMA_FTYPE_MOSTLY_Q2_K_S}, {"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S},
    {"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M}, {"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L},
    {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S}, {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    {"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S}, {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},     {"TQ1_0", LLAMA_FTYPE_MOSTLY_TQ1_0},
    {"TQ2_0", LLAMA_FTYPE_MOSTLY_TQ2_0},   {"IQ1_S", LLAMA_FTYPE_MOSTLY_IQ1_S},
    {"IQ1_M", LLAMA_FTYPE_MOSTLY_IQ1_M},   {"IQ2_XXS", LLAMA_FTYPE_MOSTLY_IQ2_XXS},
    {"IQ2_XS", LLAMA_FTYPE_MOSTLY_IQ2_XS}, {"IQ2_S", LLAMA_FTYPE_MOSTLY_IQ2_S},
    {"IQ2_M", LLAMA_FTYPE_MOSTLY_IQ2_M},   {"IQ3_XXS", LLAMA_FTYPE_MOSTLY_IQ3_XXS},
    {"IQ3_XS", LLAMA_FTYPE_MOSTLY_IQ3_XS}, {"IQ3_S", LLAMA_FTYPE_MOSTLY_IQ3_S},
    {"IQ3_M", LLAMA_FTYPE_MOSTLY_IQ3_M},   {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL},
    {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS}, {"MXFP4_MOE", LLAMA_FTYPE_MOSTLY_MXFP4_MOE},
    {"NVFP4", LLAMA_FTYPE_MOSTLY_NVFP4},
};

#define SUMS   ".in_sum2"
#define COUNTS ".counts"

/* An importance matrix as llama-quantize reads it: the mean square of each input, by the weight's name. The
 * sums are divided in place; list ends with a NULL name and points into f. */
static bool load_imatrix(struct file *f, const char *path, struct llama_model_imatrix_data **list, struct err *e)
{
    if (!file_open(f, path, e))
        return false;
    int64_t key = gguf_find_key(f->header, "general.type"), n = gguf_get_n_tensors(f->header), used = 0;
    if (key < 0 || gguf_get_kv_type(f->header, key) != GGUF_TYPE_STRING ||
        strcmp(gguf_get_val_str(f->header, key), "imatrix") || gguf_find_key(f->header, "imatrix.datasets") < 0 ||
        gguf_find_key(f->header, "imatrix.chunk_count") < 0 || gguf_find_key(f->header, "imatrix.chunk_size") < 0)
        return err_set(e, ERR_USER, "%s is no importance matrix", path);
    *list = calloc((size_t)n + 1, sizeof **list);
    if (!*list)
        return err_nomem(e, "an importance matrix", (unsigned long long)n * sizeof **list);
    for (int64_t i = 0; i < n; i++) {
        struct ggml_tensor *sums = file_tensor(f, i);
        size_t stem = strlen(sums->name) - strlen(SUMS);
        char name[GGML_MAX_NAME];
        if (strlen(sums->name) <= strlen(SUMS) || strcmp(sums->name + stem, SUMS))
            continue;
        snprintf(name, sizeof name, "%.*s" COUNTS, (int)stem, sums->name);
        const struct ggml_tensor *counts = ggml_get_tensor(f->tensors, name);
        if (!counts || sums->type != GGML_TYPE_F32 || counts->type != GGML_TYPE_F32 ||
            ggml_nelements(counts) != ggml_nrows(sums))
            return err_set(e, ERR_USER, "%s: %s has no counts that fit", path, sums->name);
        for (int64_t r = 0; r < ggml_nrows(sums); r++)
            for (int64_t c = 0; c < sums->ne[0]; c++) {
                float count = ((const float *)counts->data)[r], *v = (float *)sums->data + r * sums->ne[0] + c;
                *v = count > 0 ? *v / count : 1;
            }
        sums->name[stem] = 0;
        (*list)[used++] = (struct llama_model_imatrix_data){sums->name, sums->data, (size_t)ggml_nelements(sums)};
    }
    return used || err_set(e, ERR_USER, "%s has no sums", path);
}

static enum ggml_type type_named(const char *name)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++)
        if (ggml_type_name((enum ggml_type)i) && !strcmp(ggml_type_name((enum ggml_type)i), name))
            return (enum ggml_type)i;
    return GGML_TYPE_COUNT;
}

enum { MOST_OPTIONS = 8 };

/* Options of llama-quantize by its names, as one word each: --pure, --leave-output-tensor,
 * --token-embedding-type=q8_0, --output-tensor-type=..., --tensor-type=REGEX=TYPE. */
static bool take_option(struct llama_model_quantize_params *p, struct llama_model_tensor_override *list, char *option,
                        struct err *e)
{
    char *value = strchr(option, '=');
    size_t n = value ? (size_t)(value++ - option) : strlen(option);
#define IS(name) (n == strlen(name) && !memcmp(option, name, n))
    if (IS("--pure")) {
        p->pure = true;
    } else if (IS("--leave-output-tensor")) {
        p->quantize_output_tensor = false;
    } else if (IS("--allow-requantize")) {
        p->allow_requantize = true;
    } else if (IS("--token-embedding-type")) {
        p->token_embedding_type = type_named(value);
    } else if (IS("--output-tensor-type")) {
        p->output_tensor_type = type_named(value);
    } else if (IS("--tensor-type")) {
        char *eq = strrchr(value, '=');
        *eq = 0;
        while (list->pattern)
            list++;
        *list = (struct llama_model_tensor_override){value, type_named(eq + 1)};
    } else {
        return err_set(e, ERR_USER, "%s is no option that llama_run knows", option);
    }
#undef IS
    return true;
}

/* quantize IN OUT TYPE [IMATRIX|- [OPTION...]] */
bool run_quantize(char **args, int n, struct err *e)
{
    struct llama_model_quantize_params p = llama_model_quantize_default_params();
    struct llama_model_tensor_override overrides[MOST_OPTIONS + 1] = {{0}};
    struct llama_model_imatrix_data *list = NULL;
    struct file f = {0};
    bool found = false, ok = true;
    for (size_t i = 0; i < sizeof mixtures / sizeof mixtures[0]; i++)
        if (!strcmp(mixtures[i].name, args[2])) {
            p.ftype = mixtures[i].type;
            found = true;
        }
    if (!found)
        return err_set(e, ERR_USER, "%s is no mixture that llama_run knows", args[2]);
    p.nthread = THREADS;
    for (int i = 4; ok && i < n; i++)
        ok = take_option(&p, overrides, args[i], e);
    if (overrides[0].pattern) {
        size_t end = 0;
        while (overrides[end].pattern)
            end++;
        overrides[end].type = GGML_TYPE_COUNT;
        p.tt_overrides = overrides;
    }
    if (ok && n >= 4 && strcmp(args[3], "-"))
        ok = load_imatrix(&f, args[3], &list, e);
    p.imatrix = list;
    if (ok)
        ok = llama_model_quantize(args[0], args[1], &p) == 0 ||
             err_set(e, ERR_USER, "llama.cpp does not quantize %s to %s", args[0], args[2]);
    free(list);
    file_close(&f);
    return ok;
}

/* ---- collecting an importance matrix ---- */

struct sums {
    char name[GGML_MAX_NAME];
    int64_t n, matrices; /* columns; experts or heads of the weight, else 1 */
    double *count, *sum; /* [matrices], [matrices, n] */
};

struct collect {
    struct sums *list;
    size_t n, cap;
    bool failed;
};

static struct sums *collect_find(struct collect *c, const char *name, int64_t n, int64_t matrices)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->list[i].name, name))
            return c->list[i].n == n && c->list[i].matrices == matrices ? &c->list[i] : NULL;
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 64;
        struct sums *list = realloc(c->list, cap * sizeof *list);
        if (!list)
            return NULL;
        c->list = list;
        c->cap = cap;
    }
    struct sums *s = &c->list[c->n];
    *s = (struct sums){.n = n,
                       .matrices = matrices,
                       .count = calloc((size_t)matrices, sizeof *s->count),
                       .sum = calloc((size_t)(n * matrices), sizeof *s->sum)};
    snprintf(s->name, sizeof s->name, "%s", name);
    c->n++;
    return s->sum && s->count ? s : NULL;
}

static void collect_row(struct sums *s, int64_t matrix, const float *v)
{
    double *sum = s->sum + matrix * s->n;
    for (int64_t i = 0; i < s->n; i++)
        sum[i] += (double)v[i] * v[i];
    s->count[matrix]++;
}

/* ggml asks for each node, then shows it: the inputs of every product with a block's weight are summed; where it is one
 * of experts or heads, those of each. */
static bool collect_seen(struct ggml_tensor *t, bool ask, void *user)
{
    struct collect *c = user;
    const struct ggml_tensor *w = t->src[0], *x = t->src[1], *ids = t->src[2];
    bool chosen = t->op == GGML_OP_MUL_MAT_ID, wanted = (chosen || t->op == GGML_OP_MUL_MAT) &&
                                                        !strncmp(w->name, "blk.", 4) && x->type == GGML_TYPE_F32 &&
                                                        x->nb[0] == sizeof(float) && x->ne[3] == 1;
    if (ask || !wanted)
        return ask ? wanted : true;
    struct sums *s = collect_find(c, w->name, x->ne[0], w->ne[2]);
    if (!s) {
        c->failed = true;
        return false;
    }
    const char *data = x->data;
    for (int64_t j = 0; j < (chosen ? ids->ne[1] : x->ne[2]); j++)
        for (int64_t i = 0; i < (chosen ? ids->ne[0] : x->ne[1]); i++) {
            int32_t expert = 0;
            if (chosen)
                memcpy(&expert, (const char *)ids->data + j * ids->nb[1] + i * ids->nb[0], sizeof expert);
            const char *row = data + j * x->nb[2] + i % x->ne[1] * x->nb[1];
            collect_row(s, chosen ? expert : j % w->ne[2], (const float *)(const void *)row);
        }
    return true;
}

static bool collect_write(const struct collect *c, const char *path, const char *text, uint32_t window,
                          uint32_t windows, struct err *e)
{
    size_t bytes = 1 << 20;
    for (size_t i = 0; i < c->n; i++)
        bytes += (size_t)(c->list[i].matrices * (c->list[i].n + 1)) * 4 + 2 * (ggml_tensor_overhead() + 64);
    struct ggml_context *space = ggml_init((struct ggml_init_params){.mem_size = bytes});
    struct gguf_context *out = gguf_init_empty();
    if (!space || !out)
        return err_nomem(e, "an importance matrix", bytes);
    gguf_set_val_str(out, "general.type", "imatrix");
    gguf_set_arr_str(out, "imatrix.datasets", &text, 1);
    gguf_set_val_u32(out, "imatrix.chunk_count", windows);
    gguf_set_val_u32(out, "imatrix.chunk_size", window);
    for (size_t i = 0; i < c->n; i++) {
        const struct sums *s = &c->list[i];
        struct ggml_tensor *sum = ggml_new_tensor_2d(space, GGML_TYPE_F32, s->n, s->matrices);
        struct ggml_tensor *count = ggml_new_tensor_2d(space, GGML_TYPE_F32, 1, s->matrices);
        ggml_format_name(sum, "%s" SUMS, s->name);
        ggml_format_name(count, "%s" COUNTS, s->name);
        for (int64_t k = 0; k < s->n * s->matrices; k++)
            ((float *)sum->data)[k] = (float)s->sum[k];
        for (int64_t k = 0; k < s->matrices; k++)
            ((float *)count->data)[k] = (float)s->count[k];
        gguf_add_tensor(out, sum);
        gguf_add_tensor(out, count);
    }
    bool ok = gguf_write_to_file(out, path, false) || err_set(e, ERR_ENV, "%s cannot be written", path);
    gguf_free(out);
    ggml_free(space);
    return ok;
}

/* imatrix MODEL TEXT CTX WINDOWS OUT */
bool run_imatrix(char **args, int n, struct err *e)
{
    struct session s = {0};
    struct ids t = {0};
    struct collect c = {0};
    uint32_t ctx, at_most, windows = 0;
    (void)n;
    bool ok = parse_count(args[2], &ctx, e) && parse_count(args[3], &at_most, e) &&
              (ctx || err_set(e, ERR_USER, "a window needs tokens")) &&
              session_open(&s, args[0], ctx, collect_seen, &c, e) && ids_load(&t, &s, args[1], e) &&
              ids_windows(&t, ctx, at_most, &windows, e);
    for (uint32_t w = 0; ok && w < windows; w++)
        ok = session_decode(&s, t.id + (size_t)w * ctx, 0, e);
    ok = ok && (!c.failed || err_set(e, ERR_BUG, "the inputs of a product could not be summed"));
    ok = ok && collect_write(&c, args[4], args[1], ctx, windows, e);
    if (ok)
        printf("{\"tensors\": %zu, \"windows\": %u}\n", c.n, windows);
    for (size_t i = 0; i < c.n; i++) {
        free(c.list[i].count);
        free(c.list[i].sum);
    }
    free(c.list);
    free(t.id);
    session_close(&s);
    return ok;
}
