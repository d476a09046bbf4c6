#include "lib/choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "host/gpu/gpu_choice.h"

/* Raised with a change of what is tried or how, after which old measurements say nothing. */
#define CHOICE_REVISION 2
/* A candidate must be faster by more than two measurements of one kernel differ. */
#define WORTH 0.98

static const char *const states[] = {[CANDIDATE_NEW] = "new",
                                     [CANDIDATE_MEASURED] = "measured",
                                     [CANDIDATE_REFUSED] = "refused",
                                     [CANDIDATE_EXCLUDED] = "excluded"};

void choice_begin(struct choice *c, const struct gpu *g)
{
    const char *name;
    *c = (struct choice){0};
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        for (unsigned i = 0; gpu_choice_open(g, k) && gpu_kernel_variant_at(g, k, i, &name, NULL); i++)
            if (gpu_kernel_candidate(g, k, i) && c->kernels[k].n < GPU_PREFER_MAX)
                c->kernels[k].c[c->kernels[k].n++] = (struct candidate){.name = name};
}

bool choice_complete(const struct choice *c)
{
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        for (unsigned i = 0; i < c->kernels[k].n; i++)
            if (c->kernels[k].c[i].state == CANDIDATE_NEW)
                return false;
    return true;
}

struct candidate *choice_find(struct choice *c, const char *name)
{
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        size_t n = strlen(kernel_decls[k].name);
        for (unsigned i = 0; i < c->kernels[k].n; i++)
            if (strncmp(name, kernel_decls[k].name, n) == 0 && name[n] == '.' &&
                strcmp(name + n + 1, c->kernels[k].c[i].name) == 0)
                return &c->kernels[k].c[i];
    }
    return NULL;
}

static double share(const struct candidate *c)
{
    return c->state == CANDIDATE_MEASURED && c->us > 0 && c->usual_us > 0 ? c->us / c->usual_us : INFINITY;
}

unsigned choice_rank(const struct choice *c, unsigned kernel, const char *names[GPU_PREFER_MAX])
{
    const struct candidate *ranked[GPU_PREFER_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < c->kernels[kernel].n; i++) {
        const struct candidate *x = &c->kernels[kernel].c[i];
        if (!(share(x) < WORTH))
            continue;
        unsigned at = n++;
        for (; at > 0 && share(x) < share(ranked[at - 1]); at--)
            ranked[at] = ranked[at - 1];
        ranked[at] = x;
    }
    for (unsigned i = 0; i < n; i++)
        names[i] = ranked[i]->name;
    return n;
}

bool choice_apply(const struct choice *c, struct gpu *g, struct err *e)
{
    const char *names[GPU_PREFER_MAX];
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        if (gpu_choice_open(g, k) && !gpu_kernel_prefer(g, k, names, choice_rank(c, k, names), e))
            return false;
    return true;
}

/* ---- as a file ---- */

static cJSON *candidates_json(const struct choice *c, unsigned kernel)
{
    cJSON *list = cJSON_CreateArray();
    for (unsigned i = 0; i < c->kernels[kernel].n; i++) {
        const struct candidate *x = &c->kernels[kernel].c[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "variant", x->name);
        cJSON_AddStringToObject(o, "state", states[x->state]);
        if (x->state == CANDIDATE_MEASURED) {
            cJSON_AddNumberToObject(o, "us", x->us);
            cJSON_AddNumberToObject(o, "usual_us", x->usual_us);
        }
        if (x->why[0])
            cJSON_AddStringToObject(o, "why", x->why);
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

/* What measurements are good for: another device, driver or shader, and they are made again. */
static void measured_on(const struct gpu *g, char out[700])
{
    const struct gpu_info *i = gpu_info(g);
    char hex[33];
    hash_hex(gpu_choice_hash(g), hex);
    snprintf(out, 700, "%s, %s, driver version %u, shaders %s, revision %d", i->name, i->driver, i->driver_version, hex,
             CHOICE_REVISION);
}

char *choice_text(const struct choice *c, const struct gpu *g)
{
    char on[700];
    cJSON *o = cJSON_CreateObject();
    measured_on(g, on);
    cJSON_AddStringToObject(o, "measured_on", on);
    cJSON_AddStringToObject(o, "trying", c->trying);
    cJSON *kernels = cJSON_AddObjectToObject(o, "kernels");
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        if (c->kernels[k].n)
            cJSON_AddItemToObject(kernels, kernel_decls[k].name, candidates_json(c, k));
    char *printed = cJSON_Print(o), *text = printed ? str_dup(printed) : NULL;
    cJSON_free(printed);
    cJSON_Delete(o);
    return text;
}

static const char *text_in(const cJSON *o, const char *key)
{
    const char *text = cJSON_GetStringValue(json_get(o, key));
    return text ? text : "";
}

static void read_candidate(struct candidate *x, const cJSON *o)
{
    const char *state = text_in(o, "state");
    for (int s = CANDIDATE_NEW; s <= CANDIDATE_EXCLUDED; s++)
        if (strcmp(state, states[s]) == 0)
            x->state = (enum candidate_state)s;
    if (x->state == CANDIDATE_MEASURED) {
        x->us = cJSON_GetNumberValue(json_get(o, "us"));
        x->usual_us = cJSON_GetNumberValue(json_get(o, "usual_us"));
    }
    snprintf(x->why, sizeof x->why, "%s", text_in(o, "why"));
}

bool choice_read(struct choice *c, const struct gpu *g, const char *text, size_t size)
{
    char on[700], name[128];
    choice_begin(c, g);
    cJSON *root = json_parse(text, size, "", NULL);
    measured_on(g, on);
    bool ok = root && strcmp(text_in(root, "measured_on"), on) == 0;
    const cJSON *kernels = ok ? json_get(root, "kernels") : NULL, *kernel, *o;
    if (ok)
        snprintf(c->trying, sizeof c->trying, "%s", text_in(root, "trying"));
    cJSON_ArrayForEach(kernel, kernels)
    {
        cJSON_ArrayForEach(o, kernel)
        {
            snprintf(name, sizeof name, "%s.%s", kernel->string ? kernel->string : "", text_in(o, "variant"));
            struct candidate *x = choice_find(c, name);
            if (x)
                read_candidate(x, o);
        }
    }
    cJSON_Delete(root);
    return ok;
}

/* ---- for people ---- */

static void candidate_words(const struct candidate *x, struct strbuf *out)
{
    switch (x->state) {
    case CANDIDATE_MEASURED:
        strbuf_printf(out, "%s: %.0f us against %.0f us", x->name, x->us, x->usual_us);
        break;
    case CANDIDATE_REFUSED:
        strbuf_printf(out, "%s: %s", x->name, x->why);
        break;
    case CANDIDATE_EXCLUDED:
        strbuf_printf(out, "%s excluded: the driver died while trying it", x->name);
        break;
    default:
        strbuf_printf(out, "%s: not measured yet", x->name);
    }
}

void choice_why(const struct choice *c, unsigned kernel, struct strbuf *out)
{
    for (unsigned i = 0; i < c->kernels[kernel].n; i++) {
        if (i)
            strbuf_puts(out, "; ");
        candidate_words(&c->kernels[kernel].c[i], out);
    }
}

cJSON *choice_json(const struct choice *c, struct gpu *g)
{
    cJSON *o = cJSON_CreateObject();
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        if (!c->kernels[k].n)
            continue;
        cJSON *kernel = cJSON_AddObjectToObject(o, kernel_decls[k].name);
        const char *variant = gpu_kernel_variant(g, k, NULL, NULL);
        cJSON_AddStringToObject(kernel, "variant", variant ? variant : "");
        cJSON_AddItemToObject(kernel, "candidates", candidates_json(c, k));
    }
    return o;
}
