#include "app/option_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "host/base/str.h"

const struct command commands[CMD_COUNT] = {
    [CMD_QUANTIZE] =
        {
            "quantize",
            "MODEL -o OUT [options]",
            "quantize a model to 2-4 bits",
            1,
            {"MODEL"},
            {"out"},
            NULL,
            "Also as llama-quantize is called: gsq quantize MODEL OUT.gguf TYPE [THREADS].\n"
            "\n"
            "MODEL is a Hugging Face folder, an F32, F16 or BF16 GGUF, or a Hugging Face name (org/name) that\n"
            "was downloaded. OUT becomes a folder in the chosen format, or one GGUF file for llama.cpp if its\n"
            "name ends in .gguf. Three methods, each starting from the one before it:\n"
            "  rtn   rounds to the nearest level, with a searched scale per group; needs no text\n"
            "  gptq  rounds column by column and corrects the columns not yet rounded, by statistics of the text\n"
            "  gsq   learns which level every weight takes, and the scales\n"
            "Finished blocks are kept in OUT.work: after an interruption the same command continues.\n",
        },
    [CMD_EVAL] =
        {
            "eval",
            "MODEL --text FILE | --tasks FILE [options]",
            "perplexity of a model on a text, or its accuracy on questions",
            1,
            {"MODEL"},
            {"text"},
            "tasks",
            "MODEL is a Hugging Face folder or a GGUF, unquantized or in any format gsq writes.\n"
            "The text is tokenized whole with one BOS in front, cut into windows of --ctx tokens (the "
            "remainder is\n"
            "dropped), and exp(mean negative log-likelihood) is taken over positions 1..ctx-1 of every "
            "window.\n"
            "With --protocol llama.cpp a BOS replaces the first token of every window, where the tokenizer has "
            "one, and\n"
            "only positions ctx/2+1..ctx-1 count: the number llama-perplexity prints (its default is --ctx "
            "512).\n"
            "--tasks asks multiple-choice questions instead, one JSON object in a line, such as\n"
            "  {\"question\": \"...\", \"choices\": [\"...\", \"...\"], \"answer\": 0}\n"
            "or as HellaSwag, ARC and PIQA have them. A choice counts by its -ln p behind the question; by length: "
            "divided\n"
            "by its bytes (acc_norm).\n",
        },
    [CMD_COMPARE] =
        {
            "compare",
            "MODEL REFERENCE --text FILE [options]",
            "how far a model is from a reference: KL divergence, agreement",
            2,
            {"MODEL", "REFERENCE"},
            {"text"},
            NULL,
            "REFERENCE is what MODEL should equal: the original of a quantized model. Both read the same windows of "
            "the\ntext. Printed: KL(reference || model) per position, its mean and how it is spread (with 95 % "
            "confidence), how\n"
            "often both find the same token most likely, how the probability of the text's tokens changed, and both\n"
            "perplexities. With --protocol llama.cpp the numbers are those of llama-perplexity "
            "--kl-divergence (see\ngsq eval --help).\n",
        },
    [CMD_INSPECT] =
        {
            "inspect",
            "MODEL [options]",
            "what is in a model, and what would be quantized",
            1,
            {"MODEL"},
            {NULL},
            NULL,
            "Needs no Vulkan device. Shows architecture, parameters, tensors, bits per weight, the linears "
            "that\n"
            "gsq quantize would take and which formats can hold them; for a quantized folder its format and "
            "bits.\n",
        },
    [CMD_CONVERT] =
        {
            "convert",
            "IN -o OUT --format F [options]",
            "write a model in another format: GGUF, Hugging Face, or another packing of its codes",
            1,
            {"IN"},
            {"out"},
            NULL,
            "IN is a Hugging Face folder or a GGUF, unquantized or in any format gsq writes. OUT is a file for gguf, "
            "else a\n"
            "folder. Codes are copied, never requantized. Scales are rounded again only where the new format "
            "stores\n"
            "another 16-bit type. Needs no Vulkan device.\n",
        },
    [CMD_IMATRIX] =
        {
            "imatrix",
            "MODEL --calib FILE -o OUT.gguf [options]",
            "importance matrix: how large each input of every linear is",
            1,
            {"MODEL"},
            {"calib", "out"},
            NULL,
            "Sums the squares of the inputs of every linear and of the head over the windows of the text, and "
            "writes\n"
            "them as llama-imatrix does (GGUF): for llama-quantize --imatrix, or gsq quantize --imatrix.\n",
        },
    [CMD_DEVICES] =
        {
            "devices",
            "[options]",
            "Vulkan devices, and the kernel variants they would run",
            0,
            {NULL},
            {NULL},
            NULL,
            "Lists every device Vulkan shows. For the one that would be used (--device), also the variant of "
            "each\n"
            "kernel.\n",
        },
    [CMD_BENCH] =
        {
            "bench",
            "[options]",
            "speed of each kernel against the device's measured limits",
            0,
            {NULL},
            {NULL},
            NULL,
            "Prints GFLOP/s or GB/s for each kernel, and the share of the limit measured on that device. With --counts "
            "it\n"
            "measures nothing: it counts what quantizing a model computes and moves, by the shapes in its header.\n",
        },
};

/* ---- options that are more than a number or a text ---- */

const char *args_find_name(enum gsq_name_kind kind, const char *text, const char *option, struct err *e)
{
    struct gsq_error why;
    const char *name = gsq_name_find(kind, text, option, &why);
    app_result(name != NULL, &why, e);
    return name;
}

bool args_read_name(struct args *a, const struct option *o, const char *value, struct err *e)
{
    char option[48];
    snprintf(option, sizeof option, "--%s", o->name);
    const char *name = args_find_name((enum gsq_name_kind)o->target2, value, option, e);
    if (name)
        *(const char **)(void *)((char *)a + o->target) = name;
    return name != NULL;
}

static bool read_log_level(struct args *a, const struct option *o, const char *value, struct err *e)
{
    (void)o;
    a->log_level_given = true;
    if (log_level_parse(value, &a->log_level))
        return true;
    err_set(e, ERR_USER, "--log-level %s is unknown", value);
    return err_hint(e, "levels: error, warn, info, debug");
}

/* The first, and further ones beside it. */
static bool read_calib(struct args *a, const struct option *o, const char *value, struct err *e)
{
    (void)o;
    if (!value[0])
        return err_set(e, ERR_USER, "--calib needs a file, \"default\" or \"self\"");
    if (!a->q.calib) {
        a->q.calib = value;
        return true;
    }
    const char **list = realloc(a->more_calib, (a->q.n_more_calib + 1) * sizeof *list);
    if (!list)
        return err_nomem(e, "the list of texts", sizeof *list);
    list[a->q.n_more_calib++] = value;
    a->more_calib = list;
    a->q.more_calib = list;
    return true;
}

static void show_calib(const struct args *a, struct strbuf *out)
{
    strbuf_puts(out, a->q.calib ? a->q.calib : "");
    for (size_t i = 0; i < a->q.n_more_calib; i++) {
        strbuf_puts(out, "  ");
        strbuf_puts(out, a->q.more_calib[i]);
    }
}

/* "25Gb/s", "3.1GB/s", "12.5": gigabytes a second; "any". */
static bool read_link(struct args *a, const struct option *o, const char *value, struct err *e)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1e9}, {"GB/s", 1e9}, {"MB/s", 1e6}, {"Gb/s", 1e9 / 8}, {"Mb/s", 1e6 / 8}};
    char *end;
    const double n = strtod(value, &end);
    (void)o;
    if (strcmp(value, "any") == 0) {
        a->q.link = INFINITY;
        return true;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && end != value && n * units[i].bytes >= 1e3 && n * units[i].bytes < 1e15) {
            a->q.link = n * units[i].bytes;
            return true;
        }
    err_set(e, ERR_USER, "--link: '%s' is no speed", value);
    return err_hint(e, "25Gb/s (bits), 3.1GB/s (bytes) or any");
}

static void show_link(const struct args *a, struct strbuf *out)
{
    if (isinf(a->q.link))
        strbuf_puts(out, "any");
    else if (a->q.link > 0)
        strbuf_printf(out, "%.6gGB/s", a->q.link * 1e-9);
}

/* "7.5GiB", "900MB", "123456789". */
static bool read_size(struct args *a, const struct option *o, const char *value, struct err *e)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"K", 1024.0},
                 {"KiB", 1024.0},
                 {"KB", 1e3},
                 {"M", 1048576.0},
                 {"MiB", 1048576.0},
                 {"MB", 1e6},
                 {"G", 1073741824.0},
                 {"GiB", 1073741824.0},
                 {"GB", 1e9},
                 {"T", 1099511627776.0},
                 {"TiB", 1099511627776.0},
                 {"TB", 1e12}};
    char *end;
    double number = strtod(value, &end);
    if (value[0] < '0' || value[0] > '9') /* nor "inf" */
        number = -1;
    for (size_t i = 0; number >= 0 && i < sizeof units / sizeof *units; i++) {
        double bytes = number * units[i].bytes;
        if (strcmp(end, units[i].name) != 0 || !(bytes >= 1 && bytes < 1e18))
            continue;
        a->q.target_bytes = (uint64_t)bytes;
        return true;
    }
    err_set(e, ERR_USER, "--%s %s: expected a size", o->name, value);
    return err_hint(e, "for example 7.5GiB, 900MB, or bytes");
}

static void show_size(const struct args *a, struct strbuf *out)
{
    if (a->q.target_bytes)
        strbuf_printf(out, "%llu", (unsigned long long)a->q.target_bytes);
}

static void show_bpw(const struct args *a, struct strbuf *out)
{
    if (a->q.target_bpw > 0)
        strbuf_printf(out, "%.9g", a->q.target_bpw);
}

static bool read_bpw(struct args *a, const struct option *o, const char *value, struct err *e)
{
    char *end;
    double number = strtod(value, &end);
    if (*value && !*end && number > 0 && number <= 32) {
        a->q.target_bpw = number;
        return true;
    }
    err_set(e, ERR_USER, "--%s %s: expected bits per weight, more than 0 and at most 32", o->name, value);
    return err_hint(e, "for example 3.3");
}

/* A type, or the size of one's file. */
static bool read_type(struct args *a, const struct option *o, const char *value, struct err *e)
{
    static const char prefix[] = "auto:";
    if (a->command != CMD_QUANTIZE || strncmp(value, prefix, sizeof prefix - 1) != 0)
        return args_read_name(a, o, value, e);
    a->q.type = value;
    return args_find_name(GSQ_NAME_TYPE, value + sizeof prefix - 1, "--type auto:", e) != NULL;
}

static bool read_keep(struct args *a, const struct option *o, const char *value, struct err *e)
{
    (void)o;
    if (!value[0])
        return err_set(e, ERR_USER, "--keep needs a regular expression");
    return args_add_rule(a, str_dup(value), (struct gsq_tensor_rule){0}, false, e);
}

/* REGEX=TYPE or REGEX=TYPE,gGROUP; the regex may hold '=' itself. */
static bool read_tensor(struct args *a, const struct option *o, const char *value, struct err *e)
{
    (void)o;
    const char *eq = strrchr(value, '=');
    if (!eq || eq == value) {
        err_set(e, ERR_USER, "--tensor %s: expected REGEX=TYPE or REGEX=TYPE,gGROUP", value);
        return err_hint(e, "for example --tensor 'down_proj=3,g64', or for a GGUF --tensor 'down_proj=Q4_K'");
    }
    char bits[16];
    const char *comma = strchr(eq, ',');
    size_t n = comma ? (size_t)(comma - eq - 1) : strlen(eq + 1);
    snprintf(bits, sizeof bits, "%.*s", (int)(n < sizeof bits ? n : sizeof bits - 1), eq + 1);
    struct gsq_tensor_rule rule = {.type = args_find_name(GSQ_NAME_TENSOR_TYPE, bits, "--tensor", e)};
    if (!rule.type)
        return false;
    if (comma) {
        char *end;
        struct strbuf type = {0};
        unsigned long group = strtoul(comma[1] == 'g' ? comma + 2 : comma + 1, &end, 10);
        if (comma[1] != 'g' || *end || group < 1 || group > 65536) {
            err_set(e, ERR_USER, "--tensor %s: expected g and a group size after the comma", value);
            return err_hint(e, "for example --tensor 'down_proj=3,g64'");
        }
        strbuf_printf(&type, "%s,g%lu", rule.type, group);
        if (!(rule.type = args_own(a, type.data)))
            return err_nomem(e, "a tensor rule", type.size);
    }
    return args_add_rule(a, str_dup_n(value, (size_t)(eq - value)), rule, false, e);
}

/* ---- what options are set to, where that is not what was given ---- */

static void show_type(const struct args *a, struct strbuf *out)
{
    strbuf_puts(out, a->q.type ? a->q.type : "");
}

static void show_format(const struct args *a, struct strbuf *out)
{
    bool file = a->out && str_ends_nocase(a->out, ".gguf");
    strbuf_puts(out, a->q.format ? a->q.format : file ? "gguf" : "gptq");
}

static void show_tensor(const struct args *a, struct strbuf *out)
{
    const char *between = "";
    for (size_t i = 0; i < a->q.n_rules; i++) {
        const struct gsq_tensor_rule *r = &a->rules[i];
        if (r->llama || !r->type)
            continue;
        strbuf_puts(out, between);
        strbuf_puts(out, r->pattern);
        strbuf_printf(out, "=%s", r->type);
        between = "  ";
    }
}

static void show_keep(const struct args *a, struct strbuf *out)
{
    const char *between = "";
    for (size_t i = 0; i < a->q.n_rules; i++) {
        if (a->rules[i].type)
            continue;
        strbuf_puts(out, between);
        strbuf_puts(out, a->rules[i].pattern);
        between = "  ";
    }
}

/* ---- the table ---- */

#define ON(c)                    (1u << CMD_##c)
#define ALL                      ((1u << CMD_COUNT) - 1)
#define AT(m)                    offsetof(struct args, m), 0, 0, 0, NULL, NULL
#define NUM(m, lo, hi)           offsetof(struct args, m), 0, lo, hi, NULL, NULL
#define PAIR(m, n, lo, hi)       offsetof(struct args, m), offsetof(struct args, n), lo, hi, NULL, NULL
#define NAME(m, kind)            offsetof(struct args, m), GSQ_NAME_##kind, 0, 0, NULL, NULL
#define NAMES(m, kind, s)        offsetof(struct args, m), GSQ_NAME_##kind, 0, 0, NULL, s
#define NAME_CALL(m, kind, f, s) offsetof(struct args, m), GSQ_NAME_##kind, 0, 0, f, s
#define CALL(f)                  0, 0, 0, 0, f, NULL
#define CALLS(f, show)           0, 0, 0, 0, f, show
#define U32_MAX                  4294967295.0
#define TEXTS                    (ON(EVAL) | ON(COMPARE))
#define DEVICE                   (TEXTS | ON(QUANTIZE) | ON(IMATRIX) | ON(DEVICES) | ON(BENCH)) /* that open one */

/* clang-format off */
const struct option options[] = {
    /* name, letter, argument, type, target(s) and range or function, default in words, commands, section, help */
    {"out", 'o', "FILE", OPT_TEXT, AT(out), "", ON(IMATRIX), SECTION_MAIN,
     "file to write"},
    {"out", 'o', "OUT", OPT_TEXT, AT(out), "", ON(QUANTIZE) | ON(CONVERT), SECTION_MAIN,
     "folder to write, or a file OUT.gguf"},
    {"text", 0, "FILE", OPT_TEXT, AT(text), "", TEXTS, SECTION_MAIN,
     "text to evaluate on (UTF-8), not one used for calibration"},
    {"tasks", 0, "FILE", OPT_TEXT, AT(tasks), "", ON(EVAL), SECTION_MAIN,
     "multiple-choice questions to answer, one JSON object in each line"},
    {"questions", 0, "N", OPT_U32, NUM(questions, 1, U32_MAX), "all", ON(EVAL), SECTION_MAIN,
     "answer the first N of --tasks"},
    {"ctx", 0, "N", OPT_U32, NUM(ctx, 2, 1 << 20), "the model's context, at most 2048", TEXTS | ON(BENCH), SECTION_MAIN,
     "tokens per window"},
    {"windows", 0, "N", OPT_U32, NUM(windows, 1, U32_MAX), "all", TEXTS, SECTION_MAIN,
     "evaluate at most this many windows"},
    {"spill", 0, "DIR", OPT_TEXT, AT(spill), "the system's folder for temporary files", TEXTS | ON(IMATRIX), SECTION_RUN,
     "folder for activations that fit neither on the device nor in memory"},
    {"protocol", 0, "P", OPT_NAME, NAME(protocol, PROTOCOL), "gsq", TEXTS, SECTION_MAIN,
     "gsq, or llama.cpp: the numbers of llama-perplexity"},
    {"tensors", 0, NULL, OPT_FLAG, AT(all_tensors), "", ON(INSPECT), SECTION_MAIN,
     "list every tensor"},
    {"kernel", 0, "TEXT", OPT_TEXT, AT(kernel), "all", ON(BENCH), SECTION_MAIN,
     "only kernels whose name holds this text"},
    {"choose", 0, NULL, OPT_FLAG, AT(choose), "", ON(BENCH), SECTION_MAIN,
     "choose kernel variants anew, by measurement, and show the choice, then stop. Otherwise that is done at the first use of a "
     "device with a driver, and remembered"},

    {"counts", 0, "MODEL", OPT_TEXT, AT(counts), "", ON(BENCH), SECTION_MAIN,
     "run nothing; count what quantizing MODEL computes and moves, by piece and kernel (--bits, --group, --ctx)"},

    {"method", 0, "M", OPT_NAME, NAME(q.method, METHOD), "gsq", ON(QUANTIZE), SECTION_MAIN,
     "rtn, gptq or gsq"},
    {"bits", 0, "B", OPT_NAME, NAME(q.bits, BITS), "2", ON(QUANTIZE) | ON(INSPECT) | ON(BENCH), SECTION_MAIN,
     "2, 3, 4 or ternary; 8 with --method rtn or gptq"},
    {"group", 0, "N", OPT_U32, NUM(q.group, 1, 65536), "128; in a GGUF the type's own", ON(QUANTIZE) | ON(INSPECT) | ON(BENCH), SECTION_MAIN,
     "weights that share one scale"},
    {"format", 0, "F", OPT_NAME, NAMES(q.format, FORMAT, show_format), "gptq; gguf if OUT ends in .gguf", ON(QUANTIZE), SECTION_MAIN,
     "gptq, gptq_v2, compressed-tensors, mlx, humming or gguf"},
    {"type", 0, "T", OPT_NAME, NAME_CALL(q.type, TYPE, read_type, show_type), "chosen from --bits", ON(QUANTIZE) | ON(INSPECT), SECTION_MAIN,
     "GGUF: all types by llama-quantize's name, Q2_K, Q3_K_M ...; auto:Q3_K_M: --size of that"},
    {"size", 0, "S", OPT_CALL, CALLS(read_size, show_size), "", ON(QUANTIZE), SECTION_MAIN,
     "the best of at most 7.5GiB, 900MB ...: types by what each costs (--bpw)"},
    {"bpw", 0, "B", OPT_CALL, CALLS(read_bpw, show_bpw), "", ON(QUANTIZE), SECTION_MAIN,
     "as --size, by bits per weight: in a GGUF of all its weights, embeddings and head included, in a folder of the linears of the "
     "blocks. What types cost is measured on the text first; the plan says what sizes are possible, then which --tensor options are the same"},
    {"format", 0, "F", OPT_TEXT, AT(convert_format), "gguf for -o *.gguf", ON(CONVERT), SECTION_MAIN,
     "gguf, hf, gptq, gptq_v2, compressed-tensors, mlx or humming"},
    {"type", 0, "T", OPT_TEXT, AT(convert_type), "codes stay codes, other weights keep their type", ON(CONVERT),
     SECTION_MAIN, "gguf: F32, F16 or BF16 for all weights, or the type that stores the codes"},
    {"container", 0, "BITS", OPT_U32, NUM(q.container, 2, 8), "as many as the codes have",
     ON(QUANTIZE) | ON(CONVERT), SECTION_MAIN,
     "compressed-tensors: store codes in fields of this many bits; 4 loads in every kernel"},
    {"tensor", 0, "REGEX=T[,gN]", OPT_CALL, CALLS(read_tensor, show_tensor), "", ON(QUANTIZE), SECTION_MAIN,
     "other bits (and group) for weights whose name matches, in a GGUF another type such as Q6_K; may be repeated, the last "
     "match wins. Names: model.layers.0.mlp.up_proj, or blk.0.ffn_up.weight as in llama.cpp"},
    {"keep", 0, "REGEX", OPT_CALL, CALLS(read_keep, show_keep), "", ON(QUANTIZE), SECTION_MAIN,
     "keep weights whose name matches in 16 bits (in a GGUF, INT4 of the model as Q4_0); may be repeated, the last match wins"},
    {"refine", 0, "FILE", OPT_TEXT, AT(q.refine), "", ON(QUANTIZE), SECTION_MAIN,
     "a GGUF made from MODEL: only its codes are learned again, all other bytes stay"},
    {"report", 0, "FILE", OPT_TEXT, AT(q.report), "", ON(QUANTIZE), SECTION_MAIN,
     "write a page (HTML, one file) with charts of errors, training, codes, memory and time"},
    {"eval", 0, "FILE", OPT_TEXT, AT(q.eval), "", ON(QUANTIZE), SECTION_MAIN,
     "compare the result with MODEL on this text at the end, in windows of --ctx tokens"},
    {"windows", 0, "N", OPT_U32, NUM(q.eval_windows, 1, U32_MAX), "all", ON(QUANTIZE), SECTION_MAIN,
     "use at most this many windows of the --eval text"},

    {"calib", 0, "FILE", OPT_CALL, CALLS(read_calib, show_calib), "", ON(QUANTIZE), SECTION_CALIB,
     "text like what the model will read: UTF-8, or \"text\" or \"messages\" of a .jsonl file; may be compressed with gzip or zstd; "
     "\"default\": the text that comes with gsq; \"self\", as without --calib: the model writes it (files: ./default, ./self). "
     "May be repeated: a window of each in turn"},
    {"calib", 0, "FILE", OPT_CALL, CALLS(read_calib, show_calib), "", ON(IMATRIX), SECTION_CALIB,
     "text like what the model will read: UTF-8, or \"text\" or \"messages\" of a .jsonl file; may be compressed with gzip or zstd; "
     "\"default\": the text that comes with gsq (a file of that name: ./default). May be repeated: a window of each in turn"},
    {"samples", 0, "N", OPT_U32, NUM(q.samples, 1, 1 << 20), NULL, ON(QUANTIZE), SECTION_CALIB,
     "windows to use, from the start of the text. Without it as many more, where they are short, as fast and balanced need for 65536 tokens, "
     "best for 131072"},
    {"samples", 0, "N", OPT_U32, NUM(q.samples, 1, 1 << 20), NULL, ON(IMATRIX), SECTION_CALIB,
     "windows to use, from the start of the text"},
    {"ctx", 0, "N", OPT_U32, NUM(q.context, 2, 1 << 20), "the model's context, at most 2048",
     ON(QUANTIZE) | ON(IMATRIX), SECTION_CALIB,
     "tokens per window"},
    {"imatrix", 0, "FILE", OPT_TEXT, AT(q.imatrix), "", ON(QUANTIZE), SECTION_CALIB,
     "importance matrix (GGUF) of gsq imatrix or llama-imatrix: instead of --calib (each linear alone), or beside it for "
     "tensors that calibration does not cover, such as embeddings"},
    {"holdout", 0, "N", OPT_U32, NUM(q.holdout, 0, 1 << 20), "an eighth, at most 16", ON(QUANTIZE), SECTION_CALIB,
     "windows to judge by and not to learn from: training that makes them worse is undone"},

    {"dry-run", 0, NULL, OPT_FLAG, AT(dry_run), "", ON(QUANTIZE), SECTION_RUN,
     "check everything and print the plan, then stop"},
    {"ranks", 0, "N", OPT_U32, NUM(q.ranks, 1, 64), "those that mpirun starts", ON(QUANTIZE), SECTION_RUN,
     "with --dry-run: plan for so many devices or machines at one run: time, memory of each, what goes between them (docs/scale.md)"},
    {"link", 0, "SPEED", OPT_CALL, CALLS(read_link, show_link), "measured between those that are there", ON(QUANTIZE), SECTION_RUN,
     "how fast data goes between two ranks: 25Gb/s, 3.1GB/s; where fewer ranks would be faster the run is refused; any: it is not"},
    {"work", 0, "DIR", OPT_TEXT, AT(q.work), "OUT.work", ON(QUANTIZE), SECTION_RUN,
     "folder for finished blocks"},
    {"keep-work", 0, NULL, OPT_FLAG, AT(q.keep_work), "", ON(QUANTIZE), SECTION_RUN,
     "do not remove the work folder at the end"},
    {"join", 0, NULL, OPT_FLAG, AT(q.join), "", ON(QUANTIZE), SECTION_RUN,
     "help a run that is at work with the same options and work folder, from another card or machine; where there is none, begin it"},
    {"accept", 0, "NAMES", OPT_TEXT, AT(q.accept), "nothing", ON(QUANTIZE), SECTION_RUN,
     "resume although these changed since the run began, separated by commas: version, gsq (its method), device, driver, kernels, memory, files (the tokenizer's). The result will differ from that of an uninterrupted run"},
    {"seed", 0, "N", OPT_U64, NUM(q.seed, 0, 18446744073709551615.0), NULL, ON(QUANTIZE), SECTION_RUN,
     "seed of the random numbers; the same seed, device and variant give the same bytes"},
    {"force", 0, NULL, OPT_FLAG, AT(q.force), "", ON(QUANTIZE) | ON(CONVERT) | ON(IMATRIX), SECTION_RUN,
     "overwrite an output that gsq did not write, or that the same command has finished; inputs are never overwritten"},
    {"host-limit", 0, "GiB", OPT_GIB, NUM(q.host_limit, 0.001, 1 << 20), "half of what is free", ON(QUANTIZE), SECTION_RUN,
     "host memory for activations; more than that goes to a file in the work folder"},

    {"pure", 0, NULL, OPT_FLAG, AT(q.pure), "", ON(QUANTIZE), SECTION_LLAMA,
     "use the main type of --type for all weights, embeddings and head included"},
    {"tensor-type", 0, "NAME=T", OPT_CALL, CALLS(read_llama_tensor, show_llama_tensor), "", ON(QUANTIZE), SECTION_LLAMA,
     "as --tensor, with llama.cpp's names in any case; the first match wins, --tensor and --keep win over it"},
    {"tensor-type-file", 0, "FILE", OPT_CALL, CALL(read_llama_tensor_file), "", ON(QUANTIZE), SECTION_LLAMA,
     "a file with such rules, separated by spaces or line breaks"},
    {"token-embedding-type", 0, "T", OPT_NAME, NAME(q.embedding_type, GGUF_TYPE), "", ON(QUANTIZE), SECTION_LLAMA,
     "type of token_embd.weight"},
    {"output-tensor-type", 0, "T", OPT_NAME, NAME(q.head_type, GGUF_TYPE), "", ON(QUANTIZE), SECTION_LLAMA,
     "type of output.weight, or of a tied embedding"},
    {"leave-output-tensor", 0, NULL, OPT_FLAG, AT(q.keep_head), "", ON(QUANTIZE), SECTION_LLAMA,
     "output.weight keeps the type it has in MODEL"},
    {"allow-requantize", 0, NULL, OPT_FLAG, AT(q.requantize), "", ON(QUANTIZE), SECTION_LLAMA,
     "accept a MODEL that is already quantized; worse than quantizing its 16-bit original"},
    {"include-weights", 0, "NAME", OPT_CALL, CALL(read_importance_name), "", ON(QUANTIZE), SECTION_LLAMA,
     "use --imatrix only for weights whose name contains this text; may be repeated"},
    {"exclude-weights", 0, "NAME", OPT_CALL, CALL(read_importance_name), "", ON(QUANTIZE), SECTION_LLAMA,
     "use --imatrix only for weights whose name does not contain this text; may be repeated"},
    {"override-kv", 0, "KEY=T:V", OPT_CALL, CALL(read_override), "", ON(QUANTIZE), SECTION_LLAMA,
     "set a value in the file's metadata; T is int, float, bool or str; may be repeated"},
    {"keep-split", 0, NULL, OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"prune-layers", 0, "LIST", OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"target-bpw", 0, "N", OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"target-size", 0, "N", OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"state-file", 0, NULL, OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"save-state", 0, NULL, OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"keep-bpw-state", 0, NULL, OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},
    {"no-importance", 0, NULL, OPT_CALL, CALL(refuse_llama_option), "", ON(QUANTIZE), SECTION_LLAMA, NULL},

    {"effort", 0, "E", OPT_NAME, NAME(q.effort, EFFORT), "balanced", ON(QUANTIZE), SECTION_MAIN,
     "quick, fast: each linear alone; balanced: then halves of blocks together, and all scales end to end; best: the same on "
     "four times the text; paper: the paper's budget, days for an 8B model. The plan says what each would take here"},
    {"steps", 0, "N", OPT_U32, NUM(q.steps, 1, 1000000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "optimiser steps per linear"},
    {"reach", 0, "X", OPT_F32, NUM(q.reach, 0.001, 1000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "how far a weight's logits can move in all steps, as a multiple of the paper's schedule; scales both learning rates"},
    {"correction", 0, "X", OPT_F32, NUM(q.correction, 0, 1), NULL, ON(QUANTIZE), SECTION_METHOD,
     "the share of what was lost before a linear, in blocks quantized so far, that it makes good where it learns on its own or "
     "starts so; by default 0.5, of experts 1, with --method gptq 0. Not for latent attention, and in models with experts not where any is "
     "trained on what it gives (balanced, best, paper)"},
    {"output-hessian", 0, "W", OPT_NAME, NAME(q.output_hessian, OUTPUT_HESSIAN), "auto", ON(QUANTIZE), SECTION_METHOD,
     "linears that learn alone: also weigh errors of their outputs by what these cost the model's predictions, found in one pass "
     "forward and back. auto: where they do and gsq can go back through the model; on, off"},
    {"epochs", 0, "N", OPT_U32, NUM(q.epochs, 0, 1000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "block objective (halves of a block trained together on their outputs): epochs over the windows; 0: none"},
    {"batch", 0, "N", OPT_U32, NUM(q.batch, 0, 65536), NULL, ON(QUANTIZE), SECTION_METHOD,
     "block objective: windows per optimiser step; 0: chosen to give 1280 steps, but at least 4 windows from 4 bits on"},
    {"block-reach", 0, "X", OPT_F32, NUM(q.block_reach, 0.001, 1000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "block objective: as --reach; K-quants use 0.4 of it"},
    {"start", 0, "S", OPT_NAME, NAME(q.start, START), "hessian", ON(QUANTIZE), SECTION_METHOD,
     "block objective: its starting point: rtn (quick), gptq, or hessian (each linear tuned alone first)"},
    {"scale-epochs", 0, "N", OPT_U32, NUM(q.scale_epochs, 0, 1000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "pass over scales (at the end all scales learn on the model's output, codes stay): epochs over the windows; 0: none"},
    {"scale-lr", 0, "X", OPT_F32, NUM(q.scale_lr, 0, 1), NULL, ON(QUANTIZE), SECTION_METHOD,
     "pass over scales: maximum relative change of a scale per step at 2 bits; scaled down for more bits and for K-quants"},
    {"scale-batch", 0, "N", OPT_U32, NUM(q.scale_batch, 1, 65536), NULL, ON(QUANTIZE), SECTION_METHOD,
     "pass over scales: windows per step"},
    {"tau", 0, "A:B", OPT_PAIR, PAIR(q.tau[0], q.tau[1], 1e-4, 1e4), NULL, ON(QUANTIZE), SECTION_METHOD,
     "temperature at the first and last step"},
    {"kappa", 0, "A:B", OPT_PAIR, PAIR(q.kappa[0], q.kappa[1], 1e-3, 1e6), NULL, ON(QUANTIZE), SECTION_METHOD,
     "factor on the logits at the first and last step"},
    {"lr-logits", 0, "X", OPT_F32, NUM(q.lr_logits, 0, 1), NULL, ON(QUANTIZE), SECTION_METHOD,
     "learning rate of the logits in a run of 1280 steps; times reach * 1280 / steps"},
    {"lr-scales", 0, "X", OPT_F32, NUM(q.lr_scales, 0, 1), NULL, ON(QUANTIZE), SECTION_METHOD,
     "learning rate of the scales; scaled in the same way"},
    {"lr-end", 0, "X", OPT_F32, NUM(q.lr_end, 0, 1), NULL, ON(QUANTIZE), SECTION_METHOD,
     "cosine decay of both rates down to this share"},
    {"beta1", 0, "X", OPT_F32, NUM(q.beta1, 0, 0.99999), NULL, ON(QUANTIZE), SECTION_METHOD,
     "Lion: share of the momentum in a step"},
    {"beta2", 0, "X", OPT_F32, NUM(q.beta2, 0, 0.99999), NULL, ON(QUANTIZE), SECTION_METHOD,
     "Lion: share of the momentum kept from step to step"},
    {"decay", 0, "X", OPT_F32, NUM(q.decay, 0, 1000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "weight decay of the logits, per unit of learning rate"},
    {"init-noise", 0, "X", OPT_F32, NUM(q.init_noise, 0, 100), NULL, ON(QUANTIZE), SECTION_METHOD,
     "spread of the starting logits"},
    {"init-gap", 0, "X", OPT_F32, NUM(q.init_gap, 0, 10000), NULL, ON(QUANTIZE), SECTION_METHOD,
     "lead of the starting code's logit, in units of the spread"},
    {"damp", 0, "X", OPT_F32, NUM(q.damp, 0, 10), NULL, ON(QUANTIZE), SECTION_METHOD,
     "GPTQ: share of the mean diagonal added to the Hessian"},
    {"scale-steps", 0, "N", OPT_U32, NUM(q.scale_steps, 1, 100), NULL, ON(QUANTIZE), SECTION_METHOD,
     "scale search: candidates per sign, one percent apart"},
    {"scale-power", 0, "X", OPT_F32, NUM(q.scale_power, 0.1, 10), NULL, ON(QUANTIZE), SECTION_METHOD,
     "scale search: power of the absolute error"},

    {"device", 0, "N|NAME", OPT_TEXT, AT(device), "$GSQ_DEVICE, else the best", DEVICE, SECTION_COMMON,
     "Vulkan device of `gsq devices`, by number or part of its name; 0,1: several of them"},
    {"mem-limit", 0, "GiB", OPT_GIB, NUM(mem_limit, 0.01, 1 << 20), "what is free, less a reserve", DEVICE, SECTION_COMMON,
     "the most device memory to use"},
    {"variant", 0, "V", OPT_TEXT, AT(variant), "the best each", DEVICE, SECTION_COMMON,
     "run this variant of every kernel that has it (base runs everywhere)"},
    {"threads", 0, "N", OPT_U32, NUM(threads, 1, 4096), "all", DEVICE | ON(CONVERT), SECTION_COMMON,
     "CPU threads for texts, exports and a CPU device"},
    {"json", 0, NULL, OPT_FLAG, AT(json), "", ALL, SECTION_COMMON,
     "JSON lines on stdout, the last one {\"event\":\"result\", ...}; text for people on stderr"},
    {"quiet", 'q', NULL, OPT_FLAG, AT(quiet), "", ALL, SECTION_COMMON,
     "no progress; only results, warnings and errors"},
    {"log-level", 0, "L", OPT_CALL, CALL(read_log_level), "info", ALL, SECTION_COMMON,
     "error, warn, info or debug"},
    {"help", 'h', NULL, OPT_FLAG, AT(help), "", ALL, SECTION_COMMON,
     "this text; --help all: every option"},
    {0},
};
