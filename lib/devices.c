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

static const char *caps_text(uint32_t caps, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (const struct gpu_cap_name *c = gpu_cap_names; c->bit; c++)
        if ((caps & c->bit) && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", c->name);
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
    for (const struct gpu_cap_name *c = gpu_cap_names; c->bit; c++)
        if (d->caps & c->bit)
            cJSON_AddItemToArray(caps, cJSON_CreateString(c->name));
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
    strbuf_printf(l->text, "   compute       subgroup %u, %u invocations, %u KiB shared%s\n\n",
                  (unsigned)d->subgroup_size, (unsigned)d->max_invocations, (unsigned)d->shared_bytes / 1024,
                  d->timestamp_ns > 0 ? "" : "; no clock: each kernel is measured once, by the host's");
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

/* "sg base": what there is, the ones the device cannot run in brackets. */
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

static bool is_forced(const struct gpu *g, unsigned kernel)
{
    const char *names[GPU_PREFER_MAX];
    return gpu_kernels_forced(g) && gpu_kernel_preferred(g, kernel, names) > 0;
}

/* Why a kernel uses the variant that it uses. */
static void add_why(const gsq_device *d, unsigned kernel, struct strbuf *out)
{
    const struct gpu *g = d->gpu;
    const char *name;
    bool usable;
    unsigned n = 0;
    for (unsigned i = 0; gpu_kernel_variant_at(g, kernel, i, &name, &usable); i++)
        n += usable;
    size_t before = out->size;
    choice_why(&d->choice, kernel, out);
    if (out->size > before)
        return;
    strbuf_puts(out, is_forced(g, kernel)              ? "--variant"
                     : n == 1                          ? "only one"
                     : gpu_info(g)->caps & GPU_CAP_CPU ? "for CPU devices"
                                                       : "the first that the device can run");
}

char *gsq_kernels_text(gsq_device *device, struct gsq_error *e)
{
    struct err why = {0};
    struct strbuf text = {0};
    struct table *t = table_create("llll");
    const char *variant = "";
    char all[128];
    table_cell(t, "kernel");
    table_cell(t, "variant");
    table_cell(t, "why");
    table_cell(t, "all variants (unusable in parentheses)");
    for (unsigned k = 0; variant && k < KERNEL_COUNT; k++) {
        struct strbuf reason = {0};
        variant = gpu_kernel_variant(device->gpu, k, NULL, &why);
        add_why(device, k, &reason);
        table_cell(t, "%s", kernel_decls[k].name);
        table_cell(t, "%s", variant ? variant : "");
        table_cell(t, "%s", reason.data ? reason.data : "");
        table_cell(t, "%s", all_variants(device->gpu, k, all, sizeof all));
        strbuf_free(&reason);
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

bool gsq_device_choose(gsq_device *device, bool again, struct gsq_error *e)
{
    struct err why = {0};
    return lib_result(lib_device_choose(device, again, &why), &why, e);
}

char *gsq_choice_text(gsq_device *device, struct gsq_error *e)
{
    struct err why = {0};
    struct strbuf text = {0};
    bool ok = true;
    strbuf_puts(&text, "");
    for (unsigned k = 0; ok && k < KERNEL_COUNT; k++) {
        if (!device->choice.kernels[k].n)
            continue;
        const char *variant = gpu_kernel_variant(device->gpu, k, NULL, &why);
        ok = variant != NULL;
        strbuf_printf(&text, "%-17s %-7s ", kernel_decls[k].name, ok ? variant : "");
        choice_why(&device->choice, k, &text);
        strbuf_puts(&text, "\n");
    }
    return lib_text(ok, &text, &why, e);
}

char *gsq_choice_json(gsq_device *device, struct gsq_error *e)
{
    struct err why = {0};
    return lib_json(true, choice_json(&device->choice, device->gpu), &why, e);
}
