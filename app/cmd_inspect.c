/* gsq inspect. */
#include "app/app.h"
#include "host/base/clean.h"

/* The model's own fields, added to those of every result. */
static void emit(const char *model)
{
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", "inspect");
    json_take(o, model);
    json_emit(o);
}

bool cmd_inspect(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_inspect_options o;
    gsq_model *model = NULL;
    gsq_inspect_options_init(&o);
    o.bits = a->q.bits;
    o.type = a->q.type;
    o.group = a->q.group;
    o.tensors = a->all_tensors;
    char *told = NULL;
    if (gsq_model_open(&model, a->positional[0], &why))
        told = a->json ? gsq_model_json(model, &o, &why) : gsq_model_text(model, &o, &why);
    gsq_model_close(&model);
    if (!app_result(told != NULL, &why, e))
        return false;
    if (a->json)
        emit(told);
    else
        say_text(stdout, told);
    gsq_free(told);
    return true;
}
