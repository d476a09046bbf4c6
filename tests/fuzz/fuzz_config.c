/* Any bytes as config.json: what is accepted must be within range; of a model that gsq does not compute, what is shown. */
#include "arch/family.h"
#include "formats/hf/hf_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config c;
    struct err e;
    if (!hf_config_parse(&c, (const char *)data, size, "fuzz", &e))
        return 0;
    bool supported = config_supported(&c, &e);
    if (!supported && (e.kind != ERR_USER || !e.msg[0] || !e.hint[0]))
        __builtin_trap();
    if (supported && family_of(&c) &&
        (!c.hidden_size || !c.num_kv_heads || c.num_heads % c.num_kv_heads || !c.head_dim || c.head_dim % 2))
        __builtin_trap();
    if ((c.quant == QUANT_NONE) != (c.n_rules == 0) || (c.n_rules && c.rules[c.n_rules - 1].regex))
        __builtin_trap();
    for (size_t i = 0; i < c.n_rules; i++)
        if (!c.rules[i].skip && (c.rules[i].bits < 2 || c.rules[i].bits > 8))
            __builtin_trap();
    config_free(&c);
    return 0;
}
