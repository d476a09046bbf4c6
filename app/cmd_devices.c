/* gsq devices. */
#include <string.h>

#include "app/app.h"
#include "host/base/num.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"

static const struct {
    uint32_t bit;
    const char *name;
} cap_names[] = {
    {GPU_CAP_CPU, "cpu"},   {GPU_CAP_SUBGROUP, "subgroup"}, {GPU_CAP_LANES8, "lanes8"}, {GPU_CAP_F16, "f16"},
    {GPU_CAP_INT8, "int8"}, {GPU_CAP_COOPMAT, "coopmat"},   {GPU_CAP_PUSH_DESCRIPTOR, "push_descriptor"},
};
enum { N_CAPS = sizeof cap_names / sizeof *cap_names };

static const char *caps_text(uint32_t caps, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < N_CAPS; i++)
        if ((caps & cap_names[i].bit) && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", cap_names[i].name);
    return out;
}

struct listing {
    const struct args *args;
    cJSON *devices; /* with --json */
    unsigned n;
};

static cJSON *device_json(const struct gpu_info *d)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "index", d->index);
    cJSON_AddStringToObject(o, "name", d->name);
    cJSON_AddStringToObject(o, "kind", d->kind);
    cJSON_AddStringToObject(o, "driver", d->driver);
    cJSON_AddStringToObject(o, "vulkan", d->api);
    cJSON *caps = cJSON_AddArrayToObject(o, "caps");
    for (int i = 0; i < N_CAPS; i++)
        if (d->caps & cap_names[i].bit)
            cJSON_AddItemToArray(caps, cJSON_CreateString(cap_names[i].name));
    cJSON_AddNumberToObject(o, "heap_bytes", (double)d->heap_bytes);
    cJSON_AddNumberToObject(o, "mem_limit", (double)d->mem_limit);
    cJSON_AddNumberToObject(o, "max_range", (double)d->max_range);
    cJSON_AddNumberToObject(o, "max_alloc", (double)d->max_alloc);
    cJSON_AddNumberToObject(o, "subgroup_size", d->subgroup_size);
    cJSON_AddNumberToObject(o, "max_invocations", d->max_invocations);
    cJSON_AddNumberToObject(o, "shared_bytes", d->shared_bytes);
    cJSON_AddNumberToObject(o, "min_align", d->min_align);
    cJSON_AddNumberToObject(o, "timestamp_ns", d->timestamp_ns);
    return o;
}

static bool list_device(void *ctx, const struct gpu_info *d, bool usable, const char *why)
{
    struct listing *l = ctx;
    char caps[128], heap[24], range[24], alloc[24];
    l->n++;
    if (l->args->json) {
        cJSON *o = device_json(d);
        cJSON_AddBoolToObject(o, "usable", usable);
        if (!usable)
            cJSON_AddStringToObject(o, "why", why ? why : "");
        cJSON_AddItemToArray(l->devices, o);
        return true;
    }
    printf("%u  %s (%s)%s%s\n", (unsigned)d->index, d->name, d->kind, usable ? "" : " - not usable: ",
           usable ? ""
           : why  ? why
                  : "");
    printf("   driver        %s, Vulkan %s\n", d->driver, d->api);
    printf("   capabilities  %s\n", caps_text(d->caps, caps, sizeof caps));
    printf("   memory        %s; one buffer at most %s, one binding %s\n",
           format_bytes(d->heap_bytes, heap, sizeof heap), format_bytes(d->max_alloc, alloc, sizeof alloc),
           format_bytes(d->max_range, range, sizeof range));
    printf("   compute       subgroup %u, %u invocations, %u KiB shared\n\n", (unsigned)d->subgroup_size,
           (unsigned)d->max_invocations, (unsigned)d->shared_bytes / 1024);
    return true;
}

/* "sg base": what else there is, the ones the device cannot run in brackets. */
static const char *all_variants(const struct gpu *g, unsigned kernel, char *out, size_t cap)
{
    const char *name;
    bool usable;
    size_t n = 0;
    out[0] = 0;
    for (unsigned i = 0; gpu_kernel_variant_at(g, kernel, i, &name, &usable) && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, usable ? "%s%s" : "%s(%s)", i ? " " : "", name);
    return out;
}

/* Which variant each kernel uses. Makes every pipeline, so a driver that cannot is found here. */
static bool tell_variants(const struct args *a, struct gpu *g, cJSON *kernels, struct err *e)
{
    struct table *t = a->json ? NULL : table_create("lll");
    bool ok = true;
    if (!a->json) {
        table_cell(t, "kernel");
        table_cell(t, "variant");
        table_cell(t, "there are (and the device cannot run)");
    }
    for (unsigned k = 0; ok && k < KERNEL_COUNT; k++) {
        char all[128];
        const char *variant = gpu_kernel_variant(g, k, e);
        ok = variant != NULL;
        if (ok && a->json)
            cJSON_AddStringToObject(kernels, kernel_decls[k].name, variant);
        else if (ok) {
            table_cell(t, "%s", kernel_decls[k].name);
            table_cell(t, "%s", variant);
            table_cell(t, "%s", all_variants(g, k, all, sizeof all));
        }
    }
    if (!a->json)
        app_print_table(&t, 0);
    return ok;
}

bool cmd_devices(const struct args *a, struct err *e)
{
    struct listing l = {.args = a, .devices = a->json ? cJSON_CreateArray() : NULL};
    struct app_gpu g;
    if (!gpu_list(list_device, &l, e)) {
        cJSON_Delete(l.devices);
        return false;
    }
    if (!app_gpu_open(&g, a, e)) {
        cJSON_Delete(l.devices);
        return false;
    }
    const struct gpu_info *d = gpu_info(g.gpu);
    uint32_t used = d->index;
    char limit[24];
    if (!a->json)
        printf("used: device %u, %s; up to %s of its memory\n\n", (unsigned)d->index, d->name,
               format_bytes(d->mem_limit, limit, sizeof limit));
    cJSON *kernels = a->json ? cJSON_CreateObject() : NULL;
    bool ok = app_gpu_close(&g, tell_variants(a, g.gpu, kernels, e), e);
    if (ok && a->json) {
        cJSON *o = json_event("result");
        cJSON_AddStringToObject(o, "command", "devices");
        cJSON_AddItemToObject(o, "devices", l.devices);
        cJSON_AddNumberToObject(o, "used", used);
        cJSON_AddItemToObject(o, "kernels", kernels);
        json_emit(o);
        return true;
    }
    cJSON_Delete(l.devices);
    cJSON_Delete(kernels);
    return ok;
}
