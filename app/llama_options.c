/* What llama-quantize takes and means the same here: its arguments without names, its options, and the
 * reasons where gsq has another way. */
#include <stdlib.h>
#include <string.h>

#include "app/option_table.h"
#include "host/base/os.h"

/* ---- MODEL [OUT] TYPE [THREADS] ---- */

/* llama-quantize's own name for an output that was not given, beside the model; of a name that is no path,
 * here. */
static bool default_out(struct args *a, struct err *e)
{
    const char *model = a->positional[0];
    size_t n = os_stat(model, NULL) == OS_ABSENT ? 0 : strlen(model);
    while (n > 0 && (model[n - 1] == '/' || model[n - 1] == '\\'))
        n--;
    while (n > 0 && model[n - 1] != '/' && model[n - 1] != '\\')
        n--;
    struct strbuf path = {0};
    strbuf_add(&path, model, n);
    strbuf_printf(&path, "ggml-model-%s.gguf", a->q.type);
    a->out = path.failed ? NULL : args_own(a, path.data);
    return a->out || err_nomem(e, "the name of the output", n);
}

static bool read_threads(struct args *a, const char *text, struct err *e)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (!*end && text[0] >= '0' && text[0] <= '9' && n >= 1 && n <= 4096) {
        a->threads = (uint32_t)n;
        return true;
    }
    err_set(e, ERR_USER, "unexpected argument %s: expected a number of threads after the type", text);
    return err_hint(e, "usage: gsq quantize MODEL OUT.gguf TYPE [THREADS]");
}

bool llama_arguments(struct args *a, unsigned n, bool *seen, struct err *e)
{
    const struct option *out = option_find(CMD_QUANTIZE, "out"), *type = option_find(CMD_QUANTIZE, "type");
    const struct option *method = option_find(CMD_QUANTIZE, "method");
    bool *out_seen = &seen[out - options], *type_seen = &seen[type - options];
    unsigned i = 1;
    if (i < n && !args_find_name(GSQ_NAME_LLAMA_TYPE, a->positional[i], "", NULL)) {
        if (*out_seen) {
            err_set(e, ERR_USER, "unexpected argument %s: -o %s is the output already", a->positional[i], a->out);
            return err_hint(e, "usage: gsq quantize %s", commands[CMD_QUANTIZE].synopsis);
        }
        a->out = a->positional[i++];
        *out_seen = true;
    }
    if (i >= n)
        return true;
    if (*type_seen) {
        err_set(e, ERR_USER, "unexpected argument %s: --type %s is the type already", a->positional[i], a->q.type);
        return err_hint(e, "usage: gsq quantize %s", commands[CMD_QUANTIZE].synopsis);
    }
    if (!args_read_name(a, type, a->positional[i++], e))
        return false;
    *type_seen = true;
    if (!*out_seen && !default_out(a, e))
        return false;
    *out_seen = true;
    bool copy = args_find_name(GSQ_NAME_COPY_TYPE, a->q.type, "", NULL) != NULL;
    a->rounds_like_llama = !seen[method - options] && !a->q.calib && !a->q.imatrix && !a->q.refine && !copy;
    if (a->rounds_like_llama)
        a->q.method = "rtn";
    return i >= n || read_threads(a, a->positional[i], e);
}

/* ---- options ---- */

/* NAME=TYPE. The first that matches wins there, the last here: each goes in front of those before it. */
bool read_llama_tensor(struct args *a, const struct option *o, const char *value, struct err *e)
{
    const char *eq = strrchr(value, '=');
    struct gsq_tensor_rule rule = {.llama = true};
    if (!eq || eq == value) {
        err_set(e, ERR_USER, "--%s %s: expected NAME=TYPE", o->name, value);
        return err_hint(e, "for example --tensor-type 'attn_v=q8_0' or 'blk\\.(0|1)\\.ffn_down=q6_k'");
    }
    return (rule.type = args_find_name(GSQ_NAME_TENSOR_TYPE, eq + 1, "--tensor-type", e)) &&
           args_add_rule(a, str_dup_n(value, (size_t)(eq - value)), rule, true, e);
}

/* Such words, apart by spaces or lines. */
bool read_llama_tensor_file(struct args *a, const struct option *o, const char *value, struct err *e)
{
    enum { MOST = 1 << 20 };
    char *text = NULL;
    size_t size;
    const char **inputs = realloc(a->inputs, (a->n_inputs + 1) * sizeof *inputs);
    if (!inputs)
        return err_nomem(e, "names of files", sizeof *inputs);
    a->inputs = inputs;
    inputs[a->n_inputs++] = value;
    if (!os_read_file(value, MOST, &text, &size, e))
        return err_context(e, "--%s", o->name);
    bool ok = true;
    for (char *word = strtok(text, " \t\r\n"); ok && word; word = strtok(NULL, " \t\r\n"))
        ok = read_llama_tensor(a, o, word, e);
    free(text);
    return ok;
}

void show_llama_tensor(const struct args *a, struct strbuf *out)
{
    const char *between = "";
    for (size_t i = a->q.n_rules; i-- > 0;) {
        if (!a->rules[i].llama)
            continue;
        strbuf_printf(out, "%s%.200s=%s", between, a->rules[i].pattern, a->rules[i].type);
        between = "  ";
    }
}

bool read_importance_name(struct args *a, const struct option *o, const char *value, struct err *e)
{
    bool skip = strcmp(o->name, "exclude-weights") == 0;
    if (a->q.n_importance_names && a->q.importance_skip != skip)
        return err_set(e, ERR_USER, "--include-weights and --exclude-weights cannot be used together");
    const char **names = realloc(a->importance_names, (a->q.n_importance_names + 1) * sizeof *names);
    if (!names)
        return err_nomem(e, "names of weights", sizeof *names);
    a->importance_names = names;
    names[a->q.n_importance_names++] = value;
    a->q.importance_names = names;
    a->q.importance_skip = skip;
    return true;
}

bool read_override(struct args *a, const struct option *o, const char *value, struct err *e)
{
    const char **list = realloc(a->overrides, (a->q.n_overrides + 1) * sizeof *list);
    (void)o;
    if (!list)
        return err_nomem(e, "metadata", sizeof *list);
    a->overrides = list;
    list[a->q.n_overrides++] = value;
    a->q.overrides = list;
    return true;
}

/* ---- what gsq has another way for ---- */

#define BY_TYPE                                                                                                        \
    "choose a type (Q2_K, Q3_K_M, Q4_K_M ...), and with --tensor others for single weights; --dry-run prints "         \
    "bits per weight and the file's size"

bool refuse_llama_option(struct args *a, const struct option *o, const char *value, struct err *e)
{
    static const struct {
        const char *name, *why, *hint;
    } rows[] = {
        {"keep-split", "gsq reads split models and writes one file",
         "leave it out; llama-gguf-split --split --split-max-size 4G OUT.gguf OUT cuts the file into OUT-00001-of-..."},
        {"prune-layers", "gsq keeps every layer of a model",
         "llama-quantize --prune-layers ... IN.gguf PRUNED.gguf COPY makes such a model, which gsq "
         "quantizes"},
        {"target-bpw", "gsq does not search types for a size", BY_TYPE},
        {"target-size", "gsq does not search types for a size", BY_TYPE},
        {"state-file", "it belongs to --target-bpw, which gsq does not have", BY_TYPE},
        {"save-state", "it belongs to --target-bpw, which gsq does not have", BY_TYPE},
        {"keep-bpw-state", "it belongs to --target-bpw, which gsq does not have", BY_TYPE},
        {"no-importance", "it belongs to --target-bpw, which gsq does not have", BY_TYPE},
    };
    (void)a;
    (void)value;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, o->name) != 0)
            continue;
        err_set(e, ERR_USER, "--%s is an option of llama-quantize that gsq does not have: %s", o->name, rows[i].why);
        return err_hint(e, "%s", rows[i].hint);
    }
    return err_set(e, ERR_BUG, "--%s is refused without a reason", o->name);
}
