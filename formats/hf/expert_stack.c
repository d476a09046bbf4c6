#include "formats/hf/expert_stack.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/str.h"

#define MOE      "block_sparse_moe."
#define OF_BLOCK (PARTS_EXPERTS_BLOCK | PARTS_EXPERTS_STACKED)
/* clang-format off */
static const struct expert_stack stacks[] = {
    /* whose, families, without, tensor or module, parts, suffix, pairs, turned. mlx-lm has no GraniteMoeShared, and in its folders of Qwen3-Next
     * norms and convolutions are others too. */
    {STACK_HF, PARTS_EXPERTS_STACKED, 0, MOE "input_linear.weight", {MOE "experts.*.w1", MOE "experts.*.w3"}, ".weight", false, false},
    {STACK_HF, PARTS_EXPERTS_STACKED, 0, MOE "output_linear.weight", {MOE "experts.*.w2"}, ".weight", false, false},
    {STACK_HF, PARTS_EXPERTS, 0, "mlp.experts.gate_up_proj", {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"}, ".weight", false, false},
    {STACK_HF, PARTS_EXPERTS, 0, "mlp.experts.down_proj", {"mlp.experts.*.down_proj"}, ".weight", false, false},
    {STACK_HF, PARTS_GPT_OSS, 0, "mlp.experts.gate_up_proj", {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"}, ".weight", true, true},
    {STACK_HF, PARTS_GPT_OSS, 0, "mlp.experts.down_proj", {"mlp.experts.*.down_proj"}, ".weight", false, true},
    {STACK_HF, PARTS_GPT_OSS, 0, "mlp.experts.gate_up_proj_bias", {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"}, ".bias", true, false},
    {STACK_HF, PARTS_GPT_OSS, 0, "mlp.experts.down_proj_bias", {"mlp.experts.*.down_proj"}, ".bias", false, false},
    {STACK_PACKED, PARTS_GPT_OSS, 0, "mlp.experts.gate_up_proj_blocks", {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"}, ".weight_packed", true, false},
    {STACK_PACKED, PARTS_GPT_OSS, 0, "mlp.experts.gate_up_proj_scales", {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"}, ".weight_scale", true, false},
    {STACK_PACKED, PARTS_GPT_OSS, 0, "mlp.experts.down_proj_blocks", {"mlp.experts.*.down_proj"}, ".weight_packed", false, false},
    {STACK_PACKED, PARTS_GPT_OSS, 0, "mlp.experts.down_proj_scales", {"mlp.experts.*.down_proj"}, ".weight_scale", false, false},
    {STACK_MLX, PARTS_EXPERTS, PARTS_DELTA_GROUPED, "mlp.switch_mlp.gate_proj", {"mlp.experts.*.gate_proj"}, NULL, false, false},
    {STACK_MLX, PARTS_EXPERTS, PARTS_DELTA_GROUPED, "mlp.switch_mlp.up_proj", {"mlp.experts.*.up_proj"}, NULL, false, false},
    {STACK_MLX, PARTS_EXPERTS, PARTS_DELTA_GROUPED, "mlp.switch_mlp.down_proj", {"mlp.experts.*.down_proj"}, NULL, false, false},
    {STACK_MLX, OF_BLOCK, PARTS_SHARED_FUSED, MOE "switch_mlp.gate_proj", {MOE "experts.*.w1"}, NULL, false, false},
    {STACK_MLX, OF_BLOCK, PARTS_SHARED_FUSED, MOE "switch_mlp.up_proj", {MOE "experts.*.w3"}, NULL, false, false},
    {STACK_MLX, OF_BLOCK, PARTS_SHARED_FUSED, MOE "switch_mlp.down_proj", {MOE "experts.*.w2"}, NULL, false, false},
    {STACK_MLX, PARTS_GPT_OSS, 0, "mlp.experts.gate_proj", {"mlp.experts.*.gate_proj"}, NULL, false, false},
    {STACK_MLX, PARTS_GPT_OSS, 0, "mlp.experts.up_proj", {"mlp.experts.*.up_proj"}, NULL, false, false},
    {STACK_MLX, PARTS_GPT_OSS, 0, "mlp.experts.down_proj", {"mlp.experts.*.down_proj"}, NULL, false, false},
};
/* clang-format on */
#define N (sizeof stacks / sizeof *stacks)

static bool of_family(const struct expert_stack *s, const struct family *f)
{
    return (f->parts & s->of) && !(f->parts & s->without);
}

/* What follows "layers.N." of a layer that the model has; NULL: the name does not begin so. */
static const char *in_layer(const struct model_config *c, const char *name, uint32_t *layer)
{
    char front[48], *end;
    snprintf(front, sizeof front, "%slayers.", config_prefix(c));
    size_t n = strlen(front);
    if (!c->experts.n || strncmp(name, front, n) != 0 || name[n] < '0' || name[n] > '9')
        return NULL;
    *layer = (uint32_t)strtoul(name + n, &end, 10);
    return *end == '.' && *layer < c->num_layers ? end + 1 : NULL;
}

/* What follows the name of the module in that of one of its tensors; NULL: it is none. */
static const char *suffix_behind(const char *module, const char *tensor)
{
    static const char *const suffixes[] = {".weight", ".scales", ".biases", ".bias"};
    size_t n = strlen(module);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (strncmp(tensor, module, n) == 0 && strcmp(tensor + n, suffixes[i]) == 0)
            return suffixes[i];
    return NULL;
}

const struct expert_stack *expert_stack_read(const struct model_config *c, const char *tensor, uint32_t *layer,
                                             const char **suffix)
{
    const struct family *f = family_of(c);
    const char *name = f ? in_layer(c, tensor, layer) : NULL;
    for (size_t i = 0; name && i < N; i++) {
        const struct expert_stack *s = &stacks[i];
        *suffix = s->suffix ? s->suffix : suffix_behind(s->tensor, name);
        if (of_family(s, f) && *suffix && (!s->suffix || strcmp(name, s->tensor) == 0))
            return s;
    }
    return NULL;
}

const struct expert_stack *expert_stack_write(const struct family *f, enum stack_way way, const struct block_part *part,
                                              const char *suffix)
{
    for (size_t i = 0; f && i < N; i++) {
        const struct expert_stack *s = &stacks[i];
        bool right = s->way == way && of_family(s, f) && (!s->suffix || strcmp(s->suffix, suffix) == 0);
        for (uint32_t k = 0; right && k < expert_stack_parts(s); k++)
            if (strcmp(s->parts[k], part->hf) == 0)
                return s;
    }
    return NULL;
}

const char *expert_stack_name(const struct expert_stack *s, const struct model_config *c, uint32_t layer, char *out,
                              size_t cap)
{
    snprintf(out, cap, "%slayers.%" PRIu32 ".%s", config_prefix(c), layer, s->tensor);
    return out;
}

const char *expert_stack_part(const struct expert_stack *s, const struct model_config *c, uint32_t layer,
                              uint32_t expert, uint32_t which, char *out, size_t cap)
{
    const char *hf = s->parts[which], *star = strchr(hf, '*');
    snprintf(out, cap, "%slayers.%" PRIu32 ".%.*s%" PRIu32 "%s", config_prefix(c), layer, (int)(star - hf), hf, expert,
             star + 1);
    return out;
}

const struct block_part *expert_part_named(const struct model_config *c, const char *module, uint32_t *layer,
                                           uint32_t *expert)
{
    const struct family *f = family_of(c);
    const char *name = f ? in_layer(c, module, layer) : NULL;
    const struct block_part *p = name ? block_part_named(f, name, strlen(name), expert) : NULL;
    return p && block_part_is_expert(p) && *expert < c->experts.n ? p : NULL;
}
