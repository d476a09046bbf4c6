#include "app/app.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/clean.h"
#include "host/base/os.h"
#include "host/base/version.h"
#include "host/base/str.h"

FILE *app_out(const struct args *a)
{
    return a->json ? stderr : stdout;
}

uint32_t app_default_ctx(const struct model_config *c)
{
    enum { MOST = 2048 };
    return c->max_position && c->max_position < MOST ? c->max_position : MOST;
}

const char *app_spill_dir(const struct args *a)
{
    static const char *const names[] = {"TMPDIR", "TEMP", "TMP"};
    if (a->spill)
        return a->spill;
    for (int i = 0; i < 3; i++) {
        const char *dir = os_getenv(names[i]);
        if (dir && os_stat(dir, NULL) == OS_DIR)
            return dir;
    }
    return os_stat("/tmp", NULL) == OS_DIR ? "/tmp" : ".";
}

/* ---- the device
 * --------------------------------------------------------------------------------------------------- */

bool app_result(bool ok, const struct gsq_error *from, struct err *e)
{
    static const enum err_kind kinds[] = {
        [GSQ_ERROR_NONE] = ERR_BUG,        [GSQ_ERROR_USER] = ERR_USER,       [GSQ_ERROR_ENVIRONMENT] = ERR_ENV,
        [GSQ_ERROR_BUG] = ERR_BUG,         [GSQ_ERROR_STOPPED] = ERR_STOPPED,
    };
    if (ok)
        return true;
    err_set(e, kinds[from->kind], "%s", from->message);
    return from->hint[0] ? err_hint(e, "%s", from->hint) : false;
}

bool app_device_open(gsq_device **out, const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_device_options o;
    gsq_device_options_init(&o);
    o.device = a->device;
    o.variant = a->variant;
    o.memory_limit = a->mem_limit;
    o.threads = a->threads;
    return app_result(gsq_device_open(out, &o, &why), &why, e);
}

bool app_device_close(gsq_device **device, bool ok, struct err *e)
{
    struct gsq_device_info d = {.size = sizeof d};
    gsq_device_get_info(*device, &d);
    gsq_device_close(device);
    if (ok && d.validation_messages)
        return err_set(e, ERR_BUG, "the Vulkan validation layer reported %u messages",
                       (unsigned)d.validation_messages);
    return ok;
}

static bool go_on(void *ctx)
{
    (void)ctx;
    return !os_stop_requested();
}

bool app_gpu_open(struct app_gpu *g, const struct args *a, struct err *e)
{
    static char cache[1024]; /* gpu_options keeps the pointer */
    *g = (struct app_gpu){0};
    struct gpu_options o = {
        .device = a->device,
        .variant = a->variant,
        .mem_limit = a->mem_limit,
        .cache_dir = os_cache_dir(cache, sizeof cache) ? cache : NULL,
        .threads = a->threads,
    };
    if (!gpu_create(&g->gpu, &o, e))
        return false;
    if (!gpu_cmd_create(&g->cmd, g->gpu, e)) {
        gpu_destroy(&g->gpu);
        return false;
    }
    gpu_cmd_set_poll(g->cmd, go_on, NULL);
    return true;
}

bool app_gpu_close(struct app_gpu *g, bool ok, struct err *e)
{
    if (g->cmd)
        gpu_cmd_destroy(&g->cmd);
    if (!g->gpu)
        return ok;
    unsigned messages = gpu_validation_messages(g->gpu);
    gpu_destroy(&g->gpu);
    if (ok && messages)
        return err_set(e, ERR_BUG, "the Vulkan validation layer reported %u messages", messages);
    return ok;
}

/* ---- JSON lines
 * --------------------------------------------------------------------------------------------------- */

/* docs/json.md says what belongs to it; it grows when a field goes away or means something else. */
enum { JSON_SCHEMA = 1 };

cJSON *json_event(const char *name)
{
    static bool first_said;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "event", name);
    if (!first_said) {
        cJSON_AddNumberToObject(o, "schema", JSON_SCHEMA);
        cJSON_AddStringToObject(o, "version", version_text());
    }
    first_said = true;
    return o;
}

void json_emit(cJSON *o)
{
    char *raw = o ? cJSON_PrintUnformatted(o) : NULL, *text = raw ? clean_json(raw) : NULL;
    puts(text ? text : "{\"event\":\"error\",\"message\":\"out of memory\"}");
    fflush(stdout);
    free(text);
    cJSON_free(raw);
    cJSON_Delete(o);
}

/* ---- texts
 * -------------------------------------------------------------------------------------------------------- */

void app_print(FILE *f, struct strbuf *text)
{
    if (text->size)
        say_text(f, text->data);
    fflush(f);
    strbuf_free(text);
}
