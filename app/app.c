#include "app/app.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/clean.h"
#include "host/base/os.h"
#include "host/base/str.h"

FILE *app_out(const struct args *a)
{
    return a->json ? stderr : stdout;
}

/* ---- the device ---- */

bool app_result(bool ok, const struct gsq_error *from, struct err *e)
{
    static const enum err_kind kinds[] = {
        [GSQ_ERROR_NONE] = ERR_BUG, [GSQ_ERROR_USER] = ERR_USER,       [GSQ_ERROR_ENVIRONMENT] = ERR_ENV,
        [GSQ_ERROR_BUG] = ERR_BUG,  [GSQ_ERROR_STOPPED] = ERR_STOPPED,
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
    if (*device)
        gsq_device_get_info(*device, &d);
    gsq_device_close(device);
    if (ok && d.validation_messages)
        return err_set(e, ERR_BUG, "the Vulkan validation layer reported %u messages", (unsigned)d.validation_messages);
    return ok;
}

/* ---- JSON lines ---- */

/* docs/json.md says what belongs to it; it grows when a field goes away or means something else. */
enum { JSON_SCHEMA = 1 };

cJSON *json_event(const char *name)
{
    static bool first_said;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "event", name);
    if (!first_said) {
        cJSON_AddNumberToObject(o, "schema", JSON_SCHEMA);
        cJSON_AddStringToObject(o, "version", gsq_version());
    }
    first_said = true;
    return o;
}

void json_take(cJSON *o, const char *object)
{
    cJSON *fields = cJSON_Parse(object);
    while (fields && fields->child) {
        cJSON *field = cJSON_DetachItemViaPointer(fields, fields->child);
        cJSON_AddItemToObject(o, field->string, field);
    }
    cJSON_Delete(fields);
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
