#include "host/gpu/gpu_choice.h"

#include <stdio.h>
#include <string.h>

#include "host/gpu/gpu_pipeline_internal.h"

void gpu_choice_text(const struct gpu *g, char out[GPU_CHOICE_TEXT])
{
    const char *names[GPU_PREFER_MAX];
    size_t n = 0;
    out[0] = 0;
    for (unsigned k = 0; k < KERNEL_COUNT && !gpu_kernels_forced(g); k++) {
        unsigned count = gpu_kernel_preferred(g, k, names);
        for (unsigned i = 0; i < count && n < GPU_CHOICE_TEXT; i++) {
            if (i == 0)
                n += (size_t)snprintf(out + n, GPU_CHOICE_TEXT - n, "%s%s=", n ? " " : "", kernel_decls[k].name);
            if (n < GPU_CHOICE_TEXT)
                n += (size_t)snprintf(out + n, GPU_CHOICE_TEXT - n, "%s%s", i ? "," : "", names[i]);
        }
    }
}

/* "a,b" up to the next space into names, which point into the text; returns how many. */
static unsigned split_names(char *list, const char *names[GPU_PREFER_MAX])
{
    unsigned n = 0;
    for (char *next; list && n < GPU_PREFER_MAX; list = next) {
        next = strchr(list, ',');
        if (next)
            *next++ = 0;
        names[n++] = list;
    }
    return n;
}

static unsigned kernel_of(const char *name)
{
    unsigned k = 0;
    while (k < KERNEL_COUNT && strcmp(kernel_decls[k].name, name) != 0)
        k++;
    return k;
}

bool gpu_choice_take(struct gpu *g, const char *text, struct err *e)
{
    const char *names[KERNEL_COUNT][GPU_PREFER_MAX];
    unsigned n[KERNEL_COUNT] = {0};
    char copy[GPU_CHOICE_TEXT];
    if (strlen(text) >= sizeof copy)
        return err_set(e, ERR_USER, "a choice of variants is too long: %.60s...", text);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *at = copy, *next; at && *at; at = next) {
        next = strchr(at, ' ');
        if (next)
            *next++ = 0;
        char *list = strchr(at, '=');
        if (list)
            *list++ = 0;
        unsigned k = kernel_of(at);
        if (!list || k == KERNEL_COUNT)
            return err_set(e, ERR_USER, "there is no kernel %s", at);
        n[k] = split_names(list, names[k]);
        for (unsigned i = 0; i < n[k]; i++)
            if (!gpu_kernel_usable(g, k, names[k][i], e))
                return false;
    }
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        if (!gpu_kernel_prefer(g, k, names[k], n[k], e))
            return false;
    return true;
}

bool gpu_choice_open(const struct gpu *g, unsigned kernel)
{
    bool found = false;
    if (gpu_kernels_forced(g) || (gpu_info(g)->caps & GPU_CAP_CPU))
        return false;
    for (unsigned k = 0; k < KERNEL_COUNT && !found; k++)
        for (unsigned i = 0; (kernel == KERNEL_COUNT || kernel == k) && gpu_kernel_at(g, k, i) && !found; i++)
            found = gpu_kernel_candidate(g, k, i);
    return found;
}

struct hash128 gpu_choice_hash(const struct gpu *g)
{
    struct hash128 h = {0};
    const struct gpu_kernel *row;
    h = hash_bytes(&gpu_info(g)->caps, sizeof gpu_info(g)->caps, h);
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        for (unsigned i = 0; gpu_choice_open(g, k) && (row = gpu_kernel_at(g, k, i)); i++)
            if (row->usable)
                h = gpu_kernel_hash(row, hash_bytes(kernel_decls[k].name, strlen(kernel_decls[k].name), h));
    return h;
}
