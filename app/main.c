/* The program: reads the command line, runs one command, turns its error into words and an exit code. */
#include <string.h>

#include "app/app.h"
#include "app/command_line.h"
#include "app/helpers.h"
#include "host/base/clean.h"
#include "host/base/comm.h"
#include "host/base/os.h"

/* MODEL and REFERENCE may be names of the Hugging Face hub. */
static bool locate(struct args *a, struct err *e)
{
    struct gsq_error why;
    for (unsigned i = 0; i < args_models(a); i++) {
        const char *name = a->positional[i];
        char *path = gsq_model_locate(name, &why);
        if (!path)
            return app_result(false, &why, e);
        if (strcmp(path, name) != 0)
            log_info("%s: %s", name, path);
        if (!(a->positional[i] = args_own(a, path)))
            return err_nomem(e, "a path", strlen(name));
    }
    return true;
}

/* Commands that ranks share the work of; of others the leader does all. */
static bool is_shared(enum command_id c)
{
    return c == CMD_QUANTIZE || c == CMD_EVAL || c == CMD_COMPARE || c == CMD_IMATRIX;
}

static bool run(const struct args *a, struct err *e)
{
    if (!comm_leads() && !is_shared(a->command))
        return true;
    switch (a->command) {
    case CMD_QUANTIZE:
        return cmd_quantize(a, e);
    case CMD_EVAL:
        return cmd_eval(a, e);
    case CMD_COMPARE:
        return cmd_compare(a, e);
    case CMD_INSPECT:
        return cmd_inspect(a, e);
    case CMD_CONVERT:
        return cmd_convert(a, e);
    case CMD_IMATRIX:
        return cmd_imatrix(a, e);
    case CMD_DEVICES:
        return cmd_devices(a, e);
    case CMD_BENCH:
        return cmd_bench(a, e);
    case CMD_NONE:
        break;
    }
    return err_set(e, ERR_BUG, "no command");
}

static void tell_error(const struct args *a, const struct err *e)
{
    say(stderr, "%s%s\n", e->kind == ERR_STOPPED ? "" : "error: ", e->msg);
    if (e->hint[0])
        say(stderr, "hint: %s\n", e->hint);
    else if (e->kind == ERR_BUG)
        say(stderr, "hint: this is a fault in gsq; please report it with the command line and the lines above\n");
    if (!a->json)
        return;
    cJSON *o = json_event("error");
    cJSON_AddStringToObject(o, "kind", err_kind_name(e->kind));
    cJSON_AddStringToObject(o, "message", e->msg);
    cJSON_AddStringToObject(o, "hint", e->hint);
    cJSON_AddNumberToObject(o, "exit", os_exit_code(e));
    json_emit(o);
}

int main(int argc, char **argv)
{
    struct args a;
    struct err e = {0};
    os_open_std();
    bool started = comm_start(&argc, &argv, &e), ok;
    argv = os_utf8_argv(&argc, argv);
    ok = args_parse(&a, argc, argv, started ? &e : NULL) && started && helpers_settle(&a, &a.further, &e);
    if (!comm_leads()) /* one of several speaks for all */
        os_silence();
    if (ok && a.version) {
        say(stdout, "gsq %s\n", gsq_version());
    } else if (ok && a.help) {
        args_help(stdout, a.command, a.help_all);
    } else if (ok) {
        log_set_level(a.quiet && !a.log_level_given ? LOG_WARN : a.log_level);
        gsq_set_threads(a.threads);
        os_last_words(a.command == CMD_QUANTIZE ? "stopped at a safe point; rerun the same command to resume"
                                                : "stopped",
                      a.json);
        os_catch_stop();
        os_keep_awake();
        ok = locate(&a, &e) && run(&a, &e);
        os_stop_heard();
    }
    if (ok && (fflush(stdout) != 0 || ferror(stdout)))
        ok = err_set(&e, ERR_ENV, "cannot write to standard output");
    ok = comm_agree(ok, &e);
    if (!ok) {
        if (e.kind == ERR_NONE)
            err_set(&e, ERR_BUG, "%s failed without saying why", command_name(a.command));
        tell_error(&a, &e);
    }
    args_free(&a);
    comm_end();
    return os_exit_code(&e);
}
