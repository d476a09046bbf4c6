#include "app/manual.h"

#include <stdlib.h>
#include <string.h>

#include "app/option_table.h"

/* ---- the manual page ---- */

/* One line's worth of text: what troff would take for its own is escaped. bol: it may stand at the begin of a line. */
static void roff_text(FILE *f, const char *text, size_t n, bool bol)
{
    for (size_t i = 0; i < n; i++) {
        if (bol && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", f);
        bol = text[i] == '\n';
        if (text[i] == '-')
            fputs("\\-", f);
        else if (text[i] == '\\')
            fputs("\\e", f);
        else
            fputc(text[i], f);
    }
}

/* Lines as they stand. */
static void roff_lines(FILE *f, const char *text)
{
    fputs(".nf\n", f);
    roff_text(f, text, strlen(text), true);
    fputs(".fi\n", f);
}

static void roff_option(FILE *f, const struct option *o, const struct args *defaults)
{
    struct strbuf help = {0};
    fputs(".TP\n", f);
    if (o->letter)
        fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
    fputs("\\fB\\-\\-", f);
    roff_text(f, o->name, strlen(o->name), false);
    fputs("\\fR", f);
    if (o->arg) {
        fputs(" \\fI", f);
        roff_text(f, o->arg, strlen(o->arg), false);
        fputs("\\fR", f);
    }
    fputc('\n', f);
    option_help(o, defaults, &help);
    if (help.data)
        roff_text(f, help.data, strlen(help.data), true);
    fputc('\n', f);
    strbuf_free(&help);
}

static bool shown(const struct option *o, enum command_id c)
{
    return o->help && o->commands & 1u << c;
}

static void roff_command(FILE *f, enum command_id id)
{
    const struct command *c = &commands[id];
    struct args defaults;
    args_defaults(&defaults);
    fprintf(f, ".SS %s\n", c->name);
    roff_text(f, c->summary, strlen(c->summary), true);
    fprintf(f, "\n.PP\n.B gsq %s\n", c->name);
    roff_text(f, c->synopsis, strlen(c->synopsis), true);
    fputs("\n.PP\n", f);
    roff_lines(f, c->text);
    for (int section = 0; section < SECTION_COMMON; section++) {
        bool titled = false;
        for (const struct option *o = options; o->name; o++) {
            if ((int)o->section != section || !shown(o, id))
                continue;
            if (!titled)
                fprintf(f, ".PP\n%s:\n", option_section_title(o->section));
            titled = true;
            roff_option(f, o, &defaults);
        }
    }
    fputs(".PP\nExamples:\n.PP\n", f);
    roff_lines(f, command_examples(id));
    args_free(&defaults);
}

void manual_page(FILE *f)
{
    struct args defaults;
    args_defaults(&defaults);
    fputs(".TH GSQ 1 \"\" \"gsq " GSQ_VERSION "\" \"User Commands\"\n"
          ".SH NAME\ngsq \\- quantizes language\\-model weights to 2\\-4 bits on any Vulkan device\n"
          ".SH SYNOPSIS\n.B gsq\n.I COMMAND\n[options]\n"
          ".SH DESCRIPTION\n"
          "gsq makes language models small: it quantizes their weights to 2, 3 or 4 bits (or ternary) on any device "
          "that has Vulkan,\nand writes formats that today's inference programs load. It learns by Gumbel\\-Softmax "
          "sampling which level of the grid\nevery weight takes, together with the scales (GSQ, arXiv "
          "2604.18556).\n"
          ".SH COMMANDS\n",
          f);
    for (int c = 0; c < CMD_COUNT; c++)
        roff_command(f, (enum command_id)c);
    fputs(".SH OPTIONS OF EVERY COMMAND\n", f);
    for (const struct option *o = options; o->name; o++)
        if (o->section == SECTION_COMMON && o->help)
            roff_option(f, o, &defaults);
    fputs(".SH EXIT STATUS\n", f);
    roff_text(f, program_exit_codes(), strlen(program_exit_codes()), true);
    fputs(
        ".SH ENVIRONMENT\n"
        ".TP\n.B GSQ_DEVICE\nVulkan device to use without \\fB\\-\\-device\\fR.\n"
        ".TP\n.B GSQ_DATA\nfolder with the text of \\fB\\-\\-calib default\\fR, if it is not in share/gsq beside or "
        "above the program.\n"
        ".TP\n.B GSQ_WITHOUT\ncapabilities of the device to do without, by the names that gsq devices lists, separated "
        "by commas.\n"
        ".TP\n.B GSQ_VALIDATE\n1: run with Vulkan's validation layer; any message of it fails the run.\n"
        ".SH FILES\n"
        ".TP\n.I OUT.work\nfinished blocks of a run: the same command resumes from them.\n"
        ".TP\n.I ~/.cache/gsq\ncompiled shaders and measured choices of each device.\n",
        f);
    args_free(&defaults);
}

/* ---- completions ---- */

/* What an option's argument can be. */
enum arg_kind { ARG_NONE, ARG_WORDS, ARG_PATH, ARG_OTHER };

static void add_word(struct strbuf *out, const char *word)
{
    if (out->size)
        strbuf_puts(out, " ");
    strbuf_puts(out, word);
}

static void add_names(struct strbuf *out, enum gsq_name_kind kind)
{
    for (size_t i = 0; gsq_name_at(kind, i); i++)
        add_word(out, gsq_name_at(kind, i));
}

/* The words come from where the option's reader has them. */
static enum arg_kind arg_kind(const struct option *o, struct strbuf *words)
{
    if (!o->arg)
        return ARG_NONE;
    if (strcmp(o->arg, "FILE") == 0 || strcmp(o->arg, "DIR") == 0 || strcmp(o->arg, "OUT") == 0)
        return ARG_PATH;
    if (o->type == OPT_NAME)
        add_names(words, (enum gsq_name_kind)o->target2);
    else if (o->commands & 1u << CMD_CONVERT && strcmp(o->name, "format") == 0)
        add_names(words, GSQ_NAME_CONVERT_FORMAT);
    else if (o->commands & 1u << CMD_CONVERT && strcmp(o->name, "type") == 0)
        add_names(words, GSQ_NAME_TYPE);
    else if (strcmp(o->name, "log-level") == 0)
        strbuf_puts(words, "error warn info debug");
    return words->size ? ARG_WORDS : ARG_OTHER;
}

static void bash_option_cases(FILE *f, enum command_id c)
{
    for (const struct option *o = options; o->name; o++) {
        struct strbuf words = {0};
        if (!shown(o, (enum command_id)c))
            continue;
        enum arg_kind kind = arg_kind(o, &words);
        if (kind != ARG_NONE) {
            fprintf(f, "    %s:--%s", commands[c].name, o->name);
            if (o->letter)
                fprintf(f, " | %s:-%c", commands[c].name, o->letter);
            if (kind == ARG_WORDS)
                fprintf(f, ") words='%s' ;;\n", words.data);
            else
                fprintf(f, ") %s=yes ;;\n", kind == ARG_PATH ? "paths" : "nothing");
        }
        strbuf_free(&words);
    }
}

void completion_bash(FILE *f)
{
    fputs("# bash completion of gsq, made from its table of options.\n"
          "_gsq()\n{\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev= command=${COMP_WORDS[1]} words= paths= nothing=\n"
          "    [[ $COMP_CWORD -gt 1 ]] && prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
          "    case $COMP_CWORD:$command:$prev in\n    1:*) words='",
          f);
    for (int c = 0; c < CMD_COUNT; c++)
        fprintf(f, "%s ", commands[c].name);
    fputs("--help --version' ;;\n    esac\n    [[ -n $words ]] || case $command:$prev in\n", f);
    for (int c = 0; c < CMD_COUNT; c++)
        bash_option_cases(f, (enum command_id)c);
    fputs("    *)\n        [[ $cur != -* ]] || case $command in\n", f);
    for (int c = 0; c < CMD_COUNT; c++) {
        fprintf(f, "        %s) words='", commands[c].name);
        for (const struct option *o = options; o->name; o++)
            if (shown(o, (enum command_id)c))
                fprintf(f, "--%s ", o->name);
        fputs("' ;;\n", f);
    }
    fputs("        esac\n        paths=yes\n        ;;\n    esac\n"
          "    COMPREPLY=()\n"
          "    if [[ -n $words ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "    elif [[ -n $paths ]]; then\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "    fi\n}\n"
          "complete -F _gsq gsq\n",
          f);
}

/* The first clause of a help text, with a backslash before what `escape` holds and ' as '\'' inside quotes. A colon ends
 * one that has said something by then. */
static void clause(FILE *f, const char *help, const char *escape)
{
    enum { SAID_SOMETHING = 24 };
    size_t n = strcspn(help, ";"), colon = strcspn(help, ":");
    if (colon > SAID_SOMETHING && colon < n)
        n = colon;
    for (size_t i = 0; i < n; i++) {
        if (help[i] == '\'') {
            fputs("'\\''", f);
            continue;
        }
        if (strchr(escape, help[i]))
            fputc('\\', f);
        fputc(help[i], f);
    }
}

void completion_zsh(FILE *f)
{
    fputs("#compdef gsq\n# zsh completion of gsq, made from its table of options.\n"
          "if (( CURRENT == 2 )); then\n    local -a commands=(\n",
          f);
    for (int c = 0; c < CMD_COUNT; c++) {
        fprintf(f, "        '%s:", commands[c].name);
        clause(f, commands[c].summary, ":");
        fputs("'\n", f);
    }
    fputs("    )\n    _describe command commands\n    return\nfi\n"
          "local command=$words[2]\nshift words\n(( CURRENT-- ))\ncase $command in\n",
          f);
    for (int c = 0; c < CMD_COUNT; c++) {
        fprintf(f, "%s)\n    _arguments -S \\\n", commands[c].name);
        for (const struct option *o = options; o->name; o++) {
            struct strbuf words = {0};
            if (!shown(o, (enum command_id)c))
                continue;
            enum arg_kind kind = arg_kind(o, &words);
            if (o->letter)
                fprintf(f, "        '(-%c --%s)'{-%c,--%s}'[", o->letter, o->name, o->letter, o->name);
            else
                fprintf(f, "        '--%s[", o->name);
            clause(f, o->help, "[]:\\");
            fputc(']', f);
            if (kind != ARG_NONE)
                fprintf(f, ":%s:", o->name);
            if (kind == ARG_PATH)
                fputs("_files", f);
            else if (kind == ARG_WORDS)
                fprintf(f, "(%s)", words.data);
            fputs("' \\\n", f);
            strbuf_free(&words);
        }
        fputs("        '*:model:_files'\n    ;;\n", f);
    }
    fputs("esac\n", f);
}

void completion_fish(FILE *f)
{
    fputs("# fish completion of gsq, made from its table of options.\n", f);
    for (int c = 0; c < CMD_COUNT; c++) {
        fprintf(f, "complete -c gsq -n __fish_use_subcommand -f -a %s -d '", commands[c].name);
        clause(f, commands[c].summary, "\\");
        fputs("'\n", f);
    }
    for (int c = 0; c < CMD_COUNT; c++) {
        for (const struct option *o = options; o->name; o++) {
            struct strbuf words = {0};
            if (!shown(o, (enum command_id)c))
                continue;
            enum arg_kind kind = arg_kind(o, &words);
            fprintf(f, "complete -c gsq -n '__fish_seen_subcommand_from %s' -l %s", commands[c].name, o->name);
            if (o->letter)
                fprintf(f, " -s %c", o->letter);
            if (kind == ARG_PATH)
                fputs(" -r", f);
            else if (kind != ARG_NONE)
                fputs(" -x", f);
            if (kind == ARG_WORDS)
                fprintf(f, " -a '%s'", words.data);
            fputs(" -d '", f);
            clause(f, o->help, "\\");
            fputs("'\n", f);
            strbuf_free(&words);
        }
    }
}
