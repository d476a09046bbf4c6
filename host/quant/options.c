#include "host/quant/options.h"

#include <string.h>

static const char *const method_names[] = {"rtn", "gptq", "gsq"};
static const char *const effort_names[] = {"fast", "balanced", "best"};
static const char *const start_names[] = {"rtn", "gptq", "hessian"};

/* Number of a name; -1: none has it. */
static int find_name(const char *const names[3], const char *name)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

bool method_parse(const char *name, enum method *out)
{
    int i = find_name(method_names, name);
    *out = i < 0 ? *out : (enum method)i;
    return i >= 0;
}

bool start_parse(const char *name, enum start *out)
{
    int i = find_name(start_names, name);
    *out = i < 0 ? *out : (enum start)i;
    return i >= 0;
}

const char *start_name(enum start x)
{
    return start_names[x];
}

const char *method_name(enum method m)
{
    return method_names[m];
}

bool effort_parse(const char *name, enum effort *out)
{
    int i = find_name(effort_names, name);
    *out = i < 0 ? *out : (enum effort)i;
    return i >= 0;
}

const char *effort_name(enum effort x)
{
    return effort_names[x];
}

void quantize_set_effort(struct quantize_options *o, enum effort effort)
{
    o->effort = effort;
    o->samples = effort == EFFORT_BEST ? 4096 : 128;
    o->gumbel.steps = 500;
    o->block.epochs = effort == EFFORT_FAST ? 0 : effort == EFFORT_BALANCED ? 10 : 20;
    o->block.batch = effort == EFFORT_BEST ? 0 : 4;
    o->scales.epochs = effort == EFFORT_FAST ? 0 : effort == EFFORT_BALANCED ? 3 : 5;
}

void quantize_defaults(struct quantize_options *o)
{
    *o = (struct quantize_options){
        .method = METHOD_GSQ,
        .type = quant_type_find("2"),
        .group = 128,
        .format = EXPORT_GPTQ,
        .damp = 0.01f,
        .scale_search = {.steps = 80, .power = 2.4f},
        .gumbel = {.tau0 = 2.0f,
                   .tau1 = 0.05f,
                   .kappa0 = 100.0f,
                   .kappa1 = 500.0f,
                   .lr_logits = 1e-4f,
                   .lr_scales = 5e-5f,
                   .reach = 2.0f,
                   .lr_end = 0.1f,
                   .beta1 = 0.9f,
                   .beta2 = 0.95f,
                   .decay = 1.0f,
                   .freeze = 0.5f,
                   .init_noise = 0.01f,
                   .init_gap = 6.0f},
        .block = {.reach = 1.0f,
                  .init_noise = 0.001f,
                  .init_gap = 60.0f,
                  .train_qk = true,
                  .start = START_HESSIAN},
        .scales = {.epochs = 0, .batch = 8, .lr = 0.01f, .lr_end = 0.1f, .beta1 = 0.9f, .beta2 = 0.95f},
        .seed = 1,
    };
    quantize_set_effort(o, EFFORT_BALANCED);
}
