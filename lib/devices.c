/* What there is to run on, and which variant of each kernel would run. */
#include <cjson/cJSON.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/str.h"
#include "host/base/table.h"
#include "host/gpu/gpu_create.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"
#include "lib/lib_internal.h"

static const struct {
    uint32_t bit;
    const char *name;
} cap_names[] = {
    {GPU_CAP_CPU, "cpu"},
    {GPU_CAP_SUBGROUP, "subgroup"},
    {GPU_CAP_LANES8, "lanes8"},
    {GPU_CAP_F16, "f16"},
    {GPU_CAP_INT8, "int8"},
    {GPU_CAP_COOPMAT, "coopmat"},
    {GPU_CAP_PUSH_DESCRIPTOR, "push_descriptor"},
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
    cJSON *devices; /* one or the other */
    struct strbuf *text;
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
    if (l->devices) {
        cJSON *o = device_json(d);
        cJSON_AddBoolToObject(o, "usable", usable);
        if (!usable)
            cJSON_AddStringToObject(o, "why", why ? why : "");
        cJSON_AddItemToArray(l->devices, o);
        return true;
    }
    strbuf_printf(l->text, "%u  %s (%s)%s%s\n", (unsigned)d->index, d->name, d->kind,
                  usable ? "" : " - not usable: ", usable || !why ? "" : why);
    strbuf_printf(l->text, "   driver        %s, Vulkan %s\n", d->driver, d->api);
    strbuf_printf(l->text, "   capabilities  %s\n", caps_text(d->caps, caps, sizeof caps));
    strbuf_printf(l->text, "   memory        %s; one buffer at most %s, one binding %s\n",
                  format_bytes(d->heap_bytes, heap, sizeof heap), format_bytes(d->max_alloc, alloc, sizeof alloc),
                  format_bytes(d->max_range, range, sizeof range));
    strbuf_printf(l->text, "   compute       subgroup %u, %u invocations, %u KiB shared\n\n",
                  (unsigned)d->subgroup_size, (unsigned)d->max_invocations, (unsigned)d->shared_bytes / 1024);
    return true;
}

char *gsq_devices_text(struct gsq_error *e)
{
    struct err why = {0};
    struct strbuf text = {0};
    struct listing l = {.text = &text};
    return lib_text(gpu_list(list_device, &l, &why), &text, &why, e);
}

char *gsq_devices_json(struct gsq_error *e)
{
    struct err why = {0};
    struct listing l = {.devices = cJSON_CreateArray()};
    bool ok = l.devices ? gpu_list(list_device, &l, &why) : err_nomem(&why, "a list of devices", 0);
    return lib_json(ok, l.devices, &why, e);
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

char *gsq_kernels_text(gsq_device *device, struct gsq_error *e)
{
    struct err why = {0};
    struct strbuf text = {0};
    struct table *t = table_create("lll");
    const char *variant = "";
    char all[128];
    table_cell(t, "kernel");
    table_cell(t, "variant");
    table_cell(t, "other variants (unusable in parentheses)");
    for (unsigned k = 0; variant && k < KERNEL_COUNT; k++) {
        variant = gpu_kernel_variant(device->gpu, k, NULL, &why);
        table_cell(t, "%s", kernel_decls[k].name);
        table_cell(t, "%s", variant ? variant : "");
        table_cell(t, "%s", all_variants(device->gpu, k, all, sizeof all));
    }
    table_add(&t, &text, 0);
    return lib_text(variant != NULL, &text, &why, e);
}

char *gsq_kernels_json(gsq_device *device, struct gsq_error *e)
{
    struct err why = {0};
    cJSON *o = cJSON_CreateObject();
    const char *variant = "";
    for (unsigned k = 0; variant && k < KERNEL_COUNT; k++) {
        variant = gpu_kernel_variant(device->gpu, k, NULL, &why);
        cJSON_AddStringToObject(o, kernel_decls[k].name, variant ? variant : "");
    }
    return lib_json(variant != NULL, o, &why, e);
}
