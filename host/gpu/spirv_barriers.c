#include "host/gpu/spirv_barriers.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "host/gpu/spirv_words.h"

enum {
    MODEL_VULKAN = 3,

    ACCESS_ALIGNED = 0x2,
    ACCESS_MAKE_AVAILABLE = 0x8,
    ACCESS_MAKE_VISIBLE = 0x10,

    ACQUIRE_RELEASE = 0x8,
    WORKGROUP_MEMORY = 0x100,
    MAKE_AVAILABLE = 0x2000,
    MAKE_VISIBLE = 0x4000,
};

/* What is known of one result id. */
struct id {
    bool shared;         /* a pointer to shared memory, or the type of one */
    bool constant;       /* of 32 bits, */
    uint32_t value;      /* this */
    bool orders;         /* semantics of a barrier for shared memory; */
    uint32_t made_known; /* the same with what makes available and visible: an id of its own */
};

struct module {
    const uint32_t *words;
    size_t n_words;
    struct id *ids;
    uint32_t bound;
    bool vulkan;
    uint32_t n_semantics, n_accesses; /* to change */
};

static struct id *id_at(const struct module *m, uint32_t id)
{
    return &m->ids[id < m->bound ? id : m->bound]; // the last: of names that are none
}

/* Where a load's or store's mask is, if it is of shared memory and has what goes; else 0. */
static uint32_t mask_of_access(const struct module *m, const struct spirv_instruction *x)
{
    uint32_t pointer, mask;
    switch (x->op) {
    case OP_LOAD:
        pointer = 3, mask = 4;
        break;
    case OP_STORE:
        pointer = 1, mask = 3;
        break;
    case OP_COOPMAT_LOAD:
        pointer = 3, mask = 6;
        break;
    case OP_COOPMAT_STORE:
        pointer = 1, mask = 5;
        break;
    default:
        return 0;
    }
    bool known = mask < x->len && id_at(m, x->words[pointer])->shared;
    return known && (x->words[mask] & (ACCESS_MAKE_AVAILABLE | ACCESS_MAKE_VISIBLE)) ? mask : 0;
}

/* Where a barrier's semantics are; 0: it is no barrier. */
static uint32_t semantics_of(const struct spirv_instruction *x)
{
    uint32_t at = x->op == OP_CONTROL_BARRIER ? 3 : x->op == OP_MEMORY_BARRIER ? 2 : 0;
    return at < x->len ? at : 0;
}

/* False where an instruction is cut short, or a barrier's semantics are not those that glslang writes. */
static bool read_module(struct module *m)
{
    struct spirv_instruction x;
    size_t at = SPIRV_HEADER;
    while (spirv_next(m->words, m->n_words, &at, &x)) {
        const uint32_t *w = x.words;
        if (x.op == OP_MEMORY_MODEL && x.len >= 3) {
            m->vulkan = w[2] == MODEL_VULKAN;
        } else if (x.op == OP_TYPE_POINTER && x.len >= 4) {
            id_at(m, w[1])->shared = w[2] == CLASS_WORKGROUP;
        } else if (x.op == OP_CONSTANT && x.len == 4) {
            id_at(m, w[2])->constant = true;
            id_at(m, w[2])->value = w[3];
        } else if ((x.op == OP_VARIABLE || x.op == OP_ACCESS_CHAIN || x.op == OP_IN_BOUNDS_ACCESS_CHAIN) &&
                   x.len >= 4) {
            id_at(m, w[2])->shared = id_at(m, w[1])->shared;
        } else if (semantics_of(&x)) {
            struct id *semantics = id_at(m, w[semantics_of(&x)]);
            if (!semantics->constant)
                return false;
            if (!(semantics->value & WORKGROUP_MEMORY))
                continue;
            if (!(semantics->value & ACQUIRE_RELEASE))
                return false;
            m->n_semantics += !semantics->orders;
            semantics->orders = true;
        }
        m->n_accesses += mask_of_access(m, &x) != 0;
    }
    return at == m->n_words;
}

/* Without the two bits and the scopes that go with them. */
static uint32_t copy_access(const struct spirv_instruction *x, uint32_t mask, uint32_t *to)
{
    uint32_t bits = x->words[mask], len = mask + 1 + (bits & ACCESS_ALIGNED ? 1 : 0);
    if (len > x->len)
        len = x->len;
    memcpy(to, x->words, len * 4);
    to[0] = len << 16 | x->op;
    to[mask] = bits & ~(uint32_t)(ACCESS_MAKE_AVAILABLE | ACCESS_MAKE_VISIBLE);
    return len;
}

static size_t write_module(struct module *m, uint32_t *out)
{
    struct spirv_instruction x;
    size_t n = SPIRV_HEADER;
    uint32_t bound = m->bound;
    memcpy(out, m->words, SPIRV_HEADER * 4);
    for (size_t at = SPIRV_HEADER; spirv_next(m->words, m->n_words, &at, &x);) {
        uint32_t mask = mask_of_access(m, &x), semantics = semantics_of(&x);
        if (mask) {
            n += copy_access(&x, mask, out + n);
            continue;
        }
        memcpy(out + n, x.words, x.len * 4);
        if (semantics && id_at(m, x.words[semantics])->made_known)
            out[n + semantics] = id_at(m, x.words[semantics])->made_known;
        n += x.len;
        struct id *id = x.op == OP_CONSTANT && x.len == 4 ? id_at(m, x.words[2]) : NULL;
        if (id && id->orders && !id->made_known) { // a constant of its own: numbers may use the other
            id->made_known = bound++;
            uint32_t more[4] = {x.words[0], x.words[1], id->made_known, id->value | MAKE_AVAILABLE | MAKE_VISIBLE};
            memcpy(out + n, more, sizeof more);
            n += 4;
        }
    }
    out[SPIRV_BOUND] = bound;
    return n;
}

bool spirv_share_by_barriers(const uint32_t *words, size_t n_words, uint32_t **out, size_t *n_out, struct err *e)
{
    *out = NULL;
    *n_out = 0;
    if (!spirv_is_module(words, n_words) || words[SPIRV_BOUND] == 0)
        return true;
    struct module m = {.words = words, .n_words = n_words, .bound = words[SPIRV_BOUND]};
    m.ids = calloc(m.bound + 1, sizeof *m.ids);
    if (!m.ids)
        return err_nomem(e, "the names of a shader", (m.bound + 1) * sizeof *m.ids);
    bool ok = true;
    if (read_module(&m) && m.vulkan && m.n_accesses && m.n_semantics) {
        size_t bytes = (n_words + 4ull * m.n_semantics) * 4;
        *out = malloc(bytes);
        ok = *out || err_nomem(e, "a shader", bytes);
        if (ok)
            *n_out = write_module(&m, *out);
    }
    free(m.ids);
    return ok;
}
