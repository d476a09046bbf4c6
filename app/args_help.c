#include <string.h>

#include "app/command_line.h"
#include "app/option_table.h"

enum { HELP_COLUMN = 28, HELP_WIDTH = 100 };

static const char *const section_titles[SECTION_COUNT] = {
    [SECTION_MAIN] = "Options",
    [SECTION_CALIB] = "Calibration",
    [SECTION_RUN] = "The run",
    [SECTION_LLAMA] = "As in llama-quantize (GGUF)",
    [SECTION_METHOD] = "Constants of the method",
    [SECTION_COMMON] = "Every command",
};

static const char quantize_examples[] =
    "  gsq quantize Llama-3.1-8B -o out --calib default --dry-run      # check everything, print the plan\n"
    "  gsq quantize Llama-3.1-8B -o out --calib default                # 2 bits, in the gptq format\n"
    "  gsq quantize Llama-3.1-8B -o out.gguf --type Q2_K --calib text.txt   # for llama.cpp\n"
    "  gsq quantize f16.gguf q4.gguf Q4_K_M                            # rounded, as llama-quantize does\n";

static const char *const examples[CMD_COUNT] = {
    [CMD_QUANTIZE] =
        "  gsq quantize Llama-3.1-8B -o out --calib default\n"
        "      2 bits, group 128, by GSQ, in the gptq format, on the text that comes with gsq\n"
        "  gsq quantize Llama-3.1-8B -o out --calib text.txt --dry-run\n"
        "      what it would do, and whether memory and disk suffice\n"
        "  gsq quantize Llama-3.1-8B -o out --calib text.txt --eval test.txt --report out.html\n"
        "      also perplexity and KL divergence on test.txt, and a page with charts of the run\n"
        "  gsq quantize Qwen3-8B -o out --method gptq --bits 4 --format compressed-tensors --calib text.txt\n"
        "      a quick 4-bit model for vLLM\n"
        "  gsq quantize Qwen3-8B --refine Qwen3-8B-Q2_K.gguf -o better.gguf --calib text.txt\n"
        "      a published GGUF with better codes: same types, scales and size\n"
        "  gsq quantize Qwen3-8B -o out --calib text.txt --tensor 'v_proj=4' --keep 'layers\\.0\\.'\n"
        "      mixed precision: 4 bits for every v_proj, the first block untouched\n",
    [CMD_EVAL] = "  gsq eval out --text test.txt --ctx 2048\n"
                 "  gsq eval out --text test.txt --windows 20 --json\n"
                 "  gsq eval out --tasks hellaswag.jsonl --questions 1000\n",
    [CMD_COMPARE] = "  gsq compare out Llama-3.1-8B --text test.txt --ctx 2048\n",
    [CMD_INSPECT] = "  gsq inspect Llama-3.1-8B\n"
                    "  gsq inspect out --tensors\n",
    [CMD_CONVERT] = "  gsq convert out -o out-mlx --format mlx\n"
                    "  gsq convert out -o out-ct --format compressed-tensors --container 4\n"
                    "  gsq convert Llama-3.1-8B -o llama-f16.gguf --type F16\n",
    [CMD_IMATRIX] = "  gsq imatrix Llama-3.1-8B --calib text.txt -o imatrix.gguf\n"
                    "      then: llama-quantize --imatrix imatrix.gguf model-f16.gguf model-Q2_K.gguf Q2_K\n",
    [CMD_DEVICES] = "  gsq devices\n"
                    "  gsq devices --device 1\n",
    [CMD_BENCH] = "  gsq bench --kernel gemm\n"
                  "  gsq bench --counts Llama-3.1-8B\n",
};

const char *option_section_title(enum option_section s)
{
    return section_titles[s];
}

static void number_text(const struct option *o, const struct args *a, struct strbuf *out)
{
    const char *at = (const char *)a + o->target, *at2 = (const char *)a + o->target2;
    switch (o->type) {
    case OPT_U32:
        strbuf_printf(out, "%u", (unsigned)*(const uint32_t *)(const void *)at);
        break;
    case OPT_U64:
        strbuf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)(const void *)at);
        break;
    case OPT_F32:
        strbuf_printf(out, "%.6g", (double)*(const float *)(const void *)at);
        break;
    case OPT_GIB:
        strbuf_printf(out, "%.6g GiB", (double)*(const uint64_t *)(const void *)at / 1073741824.0);
        break;
    case OPT_PAIR:
        strbuf_printf(out, "%.6g:%.6g", (double)*(const float *)(const void *)at,
                      (double)*(const float *)(const void *)at2);
        break;
    case OPT_FLAG:
    case OPT_TEXT:
    case OPT_NAME:
    case OPT_CALL:
        break;
    }
}

/* A number that is zero where zero is not a value but stands for the default. */
static bool stands_for_default(const struct option *o, const struct args *a)
{
    const char *at = (const char *)a + o->target;
    if (!o->fallback)
        return false;
    return (o->type == OPT_U32 && *(const uint32_t *)(const void *)at == 0) ||
           (o->type == OPT_GIB && *(const uint64_t *)(const void *)at == 0);
}

void option_value(const struct option *o, const struct args *a, struct strbuf *out)
{
    const char *at = (const char *)a + o->target, *text = NULL;
    if (o->show)
        o->show(a, out);
    if (o->show || o->type == OPT_CALL)
        return;
    if (o->type == OPT_FLAG)
        text = *(const bool *)(const void *)at ? "yes" : "";
    else if (o->type == OPT_TEXT || o->type == OPT_NAME)
        text = *(const char *const *)(const void *)at;
    if ((o->type == OPT_TEXT || o->type == OPT_NAME) && !text)
        text = o->fallback ? o->fallback : "";
    if (stands_for_default(o, a))
        text = o->fallback;
    if (!text) {
        number_text(o, a, out);
        return;
    }
    strbuf_puts(out, text);
    if (o->type == OPT_GIB && text[0] >= '0' && text[0] <= '9')
        strbuf_puts(out, " GiB");
}

bool option_used(const struct option *o, const struct args *a)
{
    static const char *const not_of_gsq_alone[] = {"start",       "scale-epochs", "scale-lr",
                                                   "scale-batch", "scale-steps",  "scale-power"};
    if (o->section == SECTION_CALIB || strcmp(o->name, "damp") == 0)
        return strcmp(a->q.method, "rtn") != 0;
    if (o->section != SECTION_METHOD)
        return true;
    for (size_t i = 0; i < sizeof not_of_gsq_alone / sizeof *not_of_gsq_alone; i++)
        if (strcmp(o->name, not_of_gsq_alone[i]) == 0)
            return true;
    return strcmp(a->q.method, "gsq") == 0;
}

const struct option *option_find(enum command_id c, const char *name)
{
    for (const struct option *o = options; o->name; o++)
        if (strcmp(o->name, name) == 0 && (o->commands & 1u << c))
            return o;
    return NULL;
}

/* Words from `column` on, wrapped. */
static void print_wrapped(FILE *f, const char *text, int column)
{
    int at = column;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > column && at + 1 + n > HELP_WIDTH) {
            fprintf(f, "\n%*s", column, "");
            at = column;
        }
        at += fprintf(f, "%s%.*s", at > column ? " " : "", n, text);
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

void option_help(const struct option *o, const struct args *defaults, struct strbuf *out)
{
    strbuf_puts(out, o->help);
    if (o->fallback && !o->fallback[0])
        return;
    strbuf_puts(out, " (default: ");
    if (o->fallback)
        strbuf_puts(out, o->fallback);
    else
        number_text(o, defaults, out);
    strbuf_puts(out, ")");
}

static void print_option(FILE *f, const struct option *o, const struct args *defaults)
{
    char left[96];
    struct strbuf right = {0};
    snprintf(left, sizeof left, "  %c%c%s --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
             o->letter ? "," : " ", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    option_help(o, defaults, &right);
    int n = fprintf(f, "%s", left);
    if (n >= HELP_COLUMN - 1) {
        fputc('\n', f);
        n = 0;
    }
    fprintf(f, "%*s", HELP_COLUMN - n, "");
    print_wrapped(f, right.data ? right.data : o->help, HELP_COLUMN);
    strbuf_free(&right);
}

const char *program_exit_codes(void)
{
    return "0 done, 2 wrong option or bad input, 3 the machine (no device, disk full, out of memory),\n"
           "4 a bug in gsq, 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.\n";
}

const char *command_examples(enum command_id c)
{
    return examples[c];
}

static void program_help(FILE *f)
{
    fputs("gsq " GSQ_VERSION " - quantizes language-model weights to 2-4 bits on any Vulkan device\n\n"
          "usage: gsq COMMAND [options]\n\n",
          f);
    for (int c = 0; c < CMD_COUNT; c++)
        fprintf(f, "  %-10s %s\n", commands[c].name, commands[c].summary);
    fputs("\n`gsq COMMAND --help` explains a command and its options.\n\n"
          "Exit codes: ",
          f);
    fputs(program_exit_codes(), f);
    fputs("\nTo begin:\n"
          "  gsq devices\n"
          "  gsq quantize MODEL -o OUT --calib default\n"
          "  gsq eval OUT --text test.txt\n",
          f);
}

/* Of quantize's options those that most users need; the others are in --help all. */
static bool usual(const struct option *o, enum command_id command)
{
    static const char *const names[] = {"out",    "type",   "size", "bits",   "format",  "calib", "imatrix", "method",
                                        "effort", "tensor", "keep", "report", "dry-run", "eval",  "device",  "help"};
    if (command != CMD_QUANTIZE)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(o->name, names[i]) == 0)
            return true;
    return false;
}

void args_help(FILE *f, enum command_id command, bool all)
{
    if (command >= CMD_COUNT) {
        program_help(f);
        return;
    }
    const struct command *c = &commands[command];
    struct args defaults;
    unsigned left = 0;
    args_defaults(&defaults);
    fprintf(f, "gsq %s - %s\n\nusage: gsq %s %s\n%s", c->name, c->summary, c->name, c->synopsis, c->text);
    for (int section = 0; section < SECTION_COUNT; section++) {
        bool titled = false;
        for (const struct option *o = options; o->name; o++) {
            if (!o->help || (int)o->section != section || !(o->commands & 1u << command))
                continue;
            if (!all && !usual(o, command)) {
                left++;
                continue;
            }
            if (!titled && (all || !left || section == SECTION_MAIN))
                fprintf(f, "\n%s:\n", section_titles[section]);
            titled = true;
            print_option(f, o, &defaults);
        }
    }
    fprintf(f, "\nExamples:\n%s", all || command != CMD_QUANTIZE ? examples[command] : quantize_examples);
    if (left)
        fprintf(f, "\n%u more options: gsq %s --help all\n", left, c->name);
    args_free(&defaults);
}
