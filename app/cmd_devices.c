/* gsq devices. */
#include "app/app.h"
#include "host/base/clean.h"

bool cmd_devices(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_device_info d = {.size = sizeof d};
    gsq_device *device = NULL;
    char limit[24];
    char *all = a->json ? gsq_devices_json(&why) : gsq_devices_text(&why);
    if (!app_result(all != NULL, &why, e))
        return false;
    if (!a->json)
        say_text(stdout, all);
    char *kernels = NULL, *choice = NULL;
    bool ok = app_device_open(&device, a, e);
    if (ok) {
        gsq_device_get_info(device, &d);
        if (!a->json)
            say(stdout, "used: device %u, %s; up to %s of its memory\n\n", (unsigned)d.index, d.name,
                format_bytes(d.memory_limit, limit, sizeof limit));
        kernels = a->json ? gsq_kernels_json(device, &why) : gsq_kernels_text(device, &why);
        choice = kernels ? gsq_choice_json(device, &why) : NULL;
        ok = app_device_close(&device, app_result(choice != NULL, &why, e), e);
    }
    if (ok && a->json) {
        cJSON *o = json_event("result");
        cJSON_AddStringToObject(o, "command", "devices");
        cJSON_AddItemToObject(o, "devices", cJSON_Parse(all));
        cJSON_AddNumberToObject(o, "used", d.index);
        cJSON_AddItemToObject(o, "kernels", cJSON_Parse(kernels));
        cJSON_AddItemToObject(o, "choice", cJSON_Parse(choice));
        json_emit(o);
    } else if (ok) {
        say_text(stdout, kernels);
    }
    gsq_free(choice);
    gsq_free(kernels);
    gsq_free(all);
    return ok;
}
