#include "host/gpu/spirv.h"

#include <stdlib.h>
#include <string.h>

#include "host/gpu/spirv_words.h"

enum {
    DEC_NON_WRITABLE = 24,
    DEC_NON_READABLE = 25,
    DEC_BINDING = 33,
    DEC_SET = 34,
    DEC_OFFSET = 35,

    MODEL_GLCOMPUTE = 5,
    DIM_BUFFER = 5,
    IMAGE_SAMPLED = 1,
};

/* What is known of one result id. */
struct id {
    uint16_t op;
    uint32_t bytes;   /* size of a scalar or vector type */
    uint32_t members; /* OP_TYPE_STRUCT: how many, */
    uint32_t first;   /* and the word index of the first member's type */
    uint32_t pointee; /* OP_TYPE_POINTER; OP_TYPE_IMAGE of a texel buffer: the type of a component */
    uint32_t binding, set;
    bool non_writable, non_readable;         /* of a variable */
    uint32_t n_non_writable, n_non_readable; /* of a struct: members so decorated */
};

struct module {
    const uint32_t *words;
    size_t n_words;
    struct id *ids;
    uint32_t bound;
};

static struct id *id_at(struct module *m, uint32_t id)
{
    return id < m->bound ? &m->ids[id] : NULL;
}

static void decorate(struct id *id, uint32_t what, uint32_t value, bool member)
{
    switch (what) {
    case DEC_NON_WRITABLE:
        member ? (void)id->n_non_writable++ : (void)(id->non_writable = true);
        break;
    case DEC_NON_READABLE:
        member ? (void)id->n_non_readable++ : (void)(id->non_readable = true);
        break;
    case DEC_BINDING:
        id->binding = value;
        break;
    case DEC_SET:
        id->set = value;
        break;
    default:
        break;
    }
}

/* Records types and decorations; counts entry points. False where an instruction is cut short. */
static bool read_types(struct module *m, unsigned *n_compute, unsigned *n_entries)
{
    struct spirv_instruction x;
    size_t end = SPIRV_HEADER;
    while (spirv_next(m->words, m->n_words, &end, &x)) {
        const uint32_t *w = x.words, op = x.op, len = x.len;
        struct id *id = len > 1 ? id_at(m, w[1]) : NULL;
        if (op == OP_ENTRY_POINT && len >= 3) {
            ++*n_entries;
            *n_compute += w[1] == MODEL_GLCOMPUTE;
        } else if ((op == OP_TYPE_INT || op == OP_TYPE_FLOAT) && id && len >= 3) {
            id->op = (uint16_t)op;
            id->bytes = w[2] / 8;
        } else if (op == OP_TYPE_VECTOR && id && len >= 4 && w[3] <= 4) {
            struct id *part = id_at(m, w[2]);
            id->op = (uint16_t)op;
            id->bytes = part && part->bytes <= 8 ? part->bytes * w[3] : 0;
        } else if (op == OP_TYPE_STRUCT && id) {
            id->op = (uint16_t)op;
            id->members = len - 2;
            id->first = (uint32_t)(end - len) + 2;
        } else if (op == OP_TYPE_POINTER && id && len >= 4) {
            id->op = (uint16_t)op;
            id->pointee = w[3];
        } else if (op == OP_TYPE_IMAGE && id && len >= 9 && w[3] == DIM_BUFFER && w[7] == IMAGE_SAMPLED) {
            id->op = (uint16_t)op;
            id->pointee = w[2];
        } else if (op == OP_DECORATE && id && len >= 3) {
            decorate(id, w[2], len >= 4 ? w[3] : 0, false);
        } else if (op == OP_MEMBER_DECORATE && id && len >= 4) {
            decorate(id, w[3], 0, true);
        }
    }
    return end == m->n_words;
}

/* End of the block's last member. */
static bool push_size(struct module *m, uint32_t type, uint32_t *bytes, struct err *e)
{
    struct id *block = id_at(m, type);
    if (!block || block->op != OP_TYPE_STRUCT)
        return err_set(e, ERR_BUG, "the push constant block is not a struct");
    *bytes = 0;
    struct spirv_instruction x;
    for (size_t at = SPIRV_HEADER; spirv_next(m->words, m->n_words, &at, &x);) {
        const uint32_t *w = x.words;
        if (x.op != OP_MEMBER_DECORATE || x.len < 5 || w[1] != type || w[3] != DEC_OFFSET)
            continue;
        struct id *member = w[2] < block->members ? id_at(m, m->words[block->first + w[2]]) : NULL;
        if (!member || !member->bytes)
            return err_set(e, ERR_BUG, "push constant %u is neither a number nor a vector", w[2]);
        if (w[4] > 65536)
            return err_set(e, ERR_BUG, "push constant %u has offset %u", w[2], w[4]);
        if (w[4] + member->bytes > *bytes)
            *bytes = w[4] + member->bytes;
    }
    return true;
}

static bool read_variable(struct module *m, const uint32_t *w, struct spirv_info *out, struct err *e)
{
    struct id *pointer = id_at(m, w[1]), *var = id_at(m, w[2]);
    if (!pointer || !var || pointer->op != OP_TYPE_POINTER)
        return err_set(e, ERR_BUG, "a variable has no pointer type");
    if (w[3] == CLASS_PUSH_CONSTANT)
        return push_size(m, pointer->pointee, &out->push_bytes, e);
    if (w[3] == CLASS_UNIFORM)
        return err_set(e, ERR_BUG, "a uniform buffer; kernels have storage and texel buffers only");
    if (w[3] != CLASS_STORAGE_BUFFER && w[3] != CLASS_UNIFORM_CONSTANT)
        return true;
    struct id *block = id_at(m, pointer->pointee);
    if (w[3] == CLASS_STORAGE_BUFFER && (!block || block->op != OP_TYPE_STRUCT))
        return err_set(e, ERR_BUG, "a storage buffer is not a struct");
    if (w[3] == CLASS_UNIFORM_CONSTANT && (!block || block->op != OP_TYPE_IMAGE))
        return err_set(e, ERR_BUG, "an image or sampler that is not a uniform texel buffer");
    if (var->set != 0 || var->binding >= SPIRV_MAX_BINDINGS)
        return err_set(e, ERR_BUG, "a buffer is at set %u, binding %u", var->set, var->binding);
    /* Two declarations may share a binding (float and vec4 views of it): it is written if either is. */
    uint32_t bit = UINT32_C(1) << var->binding;
    if (w[3] == CLASS_UNIFORM_CONSTANT) {
        struct id *part = id_at(m, block->pointee);
        out->texels |= bit;
        if (part && part->op == OP_TYPE_INT)
            out->texels_u32 |= bit;
        out->reads |= bit;
    } else {
        if (!var->non_writable && !(block->members && block->n_non_writable >= block->members))
            out->writes |= bit;
        if (!var->non_readable && !(block->members && block->n_non_readable >= block->members))
            out->reads |= bit;
    }
    if (out->texels & bit && out->writes & bit)
        return err_set(e, ERR_BUG, "binding %u is declared as a texel buffer and as a storage buffer", var->binding);
    if (var->binding + 1 > out->n_buffers)
        out->n_buffers = var->binding + 1;
    return true;
}

bool spirv_reflect(const uint32_t *words, size_t n_words, struct spirv_info *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    if (!spirv_is_module(words, n_words) || n_words > UINT32_MAX)
        return err_set(e, ERR_BUG, "not a SPIR-V module");
    struct module m = {.words = words, .n_words = n_words, .bound = words[SPIRV_BOUND]};
    m.ids = calloc((size_t)m.bound + 1, sizeof *m.ids);
    if (!m.ids)
        return err_nomem(e, "SPIR-V reflection", (m.bound + 1ull) * sizeof *m.ids);
    unsigned n_compute = 0, n_entries = 0;
    bool ok = read_types(&m, &n_compute, &n_entries);
    if (!ok)
        err_set(e, ERR_BUG, "a SPIR-V instruction is cut short");
    else if (n_entries != 1 || n_compute != 1)
        ok = err_set(e, ERR_BUG, "%u entry points, %u of them compute; one is needed", n_entries, n_compute);
    struct spirv_instruction x;
    for (size_t at = SPIRV_HEADER; ok && spirv_next(words, n_words, &at, &x);)
        if (x.op == OP_VARIABLE && x.len >= 4)
            ok = read_variable(&m, x.words, out, e);
    free(m.ids);
    return ok;
}
