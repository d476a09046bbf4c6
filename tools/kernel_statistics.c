/* What the driver's compiler makes of every kernel variant that the device can run: one line each, `kernel variant form
 * subgroup=N NAME=value ...`, names with _ for blanks. scripts/gpu-compilers.sh runs it on drivers without their cards.
 *
 *     kernel_statistics [FOLDER]      FOLDER: also FOLDER/KERNEL.VARIANT.FORM.txt with the machine's instructions */
#include <stdio.h>
#include <string.h>

#include "host/base/os.h"
#include "host/gpu/gpu_create.h"
#include "host/gpu/gpu_statistics.h"
#include "host/gpu/kernels.h"

static void print_word(const char *text)
{
    for (; *text; text++)
        putchar(*text == ' ' || *text == '\t' ? '_' : *text);
}

static void keep_assembly(const char *folder, const struct gpu_compiled *c)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%s.%u.txt", folder, c->kernel, c->variant, (unsigned)c->subgroup_size);
    FILE *f = os_fopen(path, "wb");
    if (!f || fputs(c->assembly, f) < 0)
        fprintf(stderr, "cannot write %s\n", path);
    if (f)
        fclose(f);
}

static void print_form(void *ctx, const struct gpu_compiled *c)
{
    printf("%s %s ", c->kernel, c->variant);
    print_word(c->form);
    printf(" subgroup=%u", (unsigned)c->subgroup_size);
    for (uint32_t i = 0; i < c->n_statistics; i++) {
        putchar(' ');
        print_word(c->statistics[i].name);
        printf("=%.10g", c->statistics[i].value);
    }
    putchar('\n');
    fflush(stdout);
    if (ctx && c->assembly)
        keep_assembly(ctx, c);
}

static bool every_variant(struct gpu *g, char *folder, struct err *e)
{
    for (unsigned kernel = 0; kernel < KERNEL_COUNT; kernel++) {
        const char *variant;
        bool usable;
        for (unsigned i = 0; gpu_kernel_variant_at(g, kernel, i, &variant, &usable); i++)
            if (usable && !gpu_kernel_statistics(g, kernel, i, print_form, folder, e))
                return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct gpu *g = NULL;
    struct err e = {0};
    struct gpu_options options = {.statistics = true};
    bool ok = gpu_create(&g, &options, &e);
    if (ok && !gpu_has_statistics(g))
        ok = err_set(&e, ERR_ENV, "%s: its driver has no VK_KHR_pipeline_executable_properties", gpu_info(g)->name);
    if (ok) {
        printf("# %s, %s\n", gpu_info(g)->name, gpu_info(g)->driver);
        ok = every_variant(g, argc > 1 ? argv[1] : NULL, &e);
    }
    gpu_destroy(&g);
    if (!ok)
        fprintf(stderr, "error: %s\n", e.msg);
    return ok ? 0 : os_exit_code(&e);
}
