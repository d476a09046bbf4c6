#include "host/gpu/spirv_shared.h"

#include <stdbool.h>
#include <stdlib.h>

#include "host/base/num.h"
#include "host/gpu/spirv_words.h"

/* Of OP_SPEC_CONSTANT_OP. */
enum {
    OP_COMPOSITE_EXTRACT = 81,
    OP_IADD = 128,
    OP_ISUB = 130,
    OP_IMUL = 132,
    OP_UDIV = 134,
    OP_UMOD = 137,
    OP_LOGICAL_OR = 166,
    OP_LOGICAL_AND = 167,
    OP_LOGICAL_NOT = 168,
    OP_SELECT = 169,
    OP_IEQUAL = 170,
    OP_INOT_EQUAL = 171,
    OP_UGREATER = 172,
    OP_UGREATER_EQUAL = 174,
    OP_ULESS = 176,
    OP_ULESS_EQUAL = 178,
    OP_SHIFT_RIGHT = 194,
    OP_SHIFT_LEFT = 196,
    OP_BIT_OR = 197,
    OP_BIT_AND = 199,

    DEC_SPEC_ID = 1,
};

struct id {
    uint64_t bytes; /* of a type; of a pointer to shared memory, what it points to; at most UINT32_MAX */
    uint32_t value; /* of a constant, */
    bool known;     /* if so */
    bool has_spec;  /* it has a number among the specialization constants: */
    uint32_t spec;
    size_t parts; /* of a composite constant: where its first is among the words; 0: it is none */
    uint32_t n_parts;
};

struct module {
    const uint32_t *words;
    struct id *ids;
    uint32_t bound;
};

static const struct id *at(const struct module *m, uint32_t id)
{
    static const struct id none;
    return id < m->bound ? &m->ids[id] : &none;
}

static uint64_t times(uint64_t bytes, uint64_t n)
{
    return n && bytes > UINT32_MAX / n ? UINT32_MAX : bytes * n;
}

/* An operation of one to three known numbers; false where it is none of those below. */
static bool operate(uint32_t op, uint32_t a, uint32_t b, uint32_t c, uint32_t *out)
{
    switch (op) {
    case OP_IADD:
        *out = a + b;
        return true;
    case OP_ISUB:
        *out = a - b;
        return true;
    case OP_IMUL:
        *out = a * b;
        return true;
    case OP_UDIV:
        *out = b ? a / b : 0;
        return b != 0;
    case OP_UMOD:
        *out = b ? a % b : 0;
        return b != 0;
    case OP_LOGICAL_OR:
        *out = a || b;
        return true;
    case OP_LOGICAL_AND:
        *out = a && b;
        return true;
    case OP_LOGICAL_NOT:
        *out = !a;
        return true;
    case OP_SELECT:
        *out = a ? b : c;
        return true;
    case OP_IEQUAL:
        *out = a == b;
        return true;
    case OP_INOT_EQUAL:
        *out = a != b;
        return true;
    case OP_UGREATER:
        *out = a > b;
        return true;
    case OP_UGREATER_EQUAL:
        *out = a >= b;
        return true;
    case OP_ULESS:
        *out = a < b;
        return true;
    case OP_ULESS_EQUAL:
        *out = a <= b;
        return true;
    case OP_SHIFT_RIGHT:
        *out = b < 32 ? a >> b : 0;
        return true;
    case OP_SHIFT_LEFT:
        *out = b < 32 ? a << b : 0;
        return true;
    case OP_BIT_OR:
        *out = a | b;
        return true;
    case OP_BIT_AND:
        *out = a & b;
        return true;
    default:
        return false;
    }
}

/* w: an OP_SPEC_CONSTANT_OP of len words. */
static void read_operation(const struct module *m, struct id *id, const uint32_t *w, uint32_t len)
{
    if (len < 5)
        return;
    const struct id *a = at(m, w[4]);
    if (w[3] == OP_COMPOSITE_EXTRACT) {
        const struct id *part = len == 6 && a->parts && w[5] < a->n_parts ? at(m, m->words[a->parts + w[5]]) : NULL;
        id->known = part && part->known;
        id->value = part ? part->value : 0;
        return;
    }
    bool known = a->known;
    uint32_t values[3] = {a->value, 0, 0};
    for (uint32_t i = 5; i < len && i < 7; i++) {
        known = known && at(m, w[i])->known;
        values[i - 4] = at(m, w[i])->value;
    }
    id->known = known && operate(w[3], values[0], values[1], values[2], &id->value);
}

static void read_type(const struct module *m, struct id *id, const uint32_t *w, uint32_t len)
{
    switch (w[0] & 0xffff) {
    case OP_TYPE_BOOL:
        id->bytes = 4;
        break;
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT:
        id->bytes = len >= 3 ? w[2] / 8 : 0;
        break;
    case OP_TYPE_VECTOR:
        id->bytes = len >= 4 ? times(at(m, w[2])->bytes, w[3]) : 0;
        break;
    case OP_TYPE_ARRAY:
        id->known = len >= 4 && at(m, w[3])->known; /* of a type: its length is */
        id->bytes = id->known ? times(at(m, w[2])->bytes, at(m, w[3])->value) : 0;
        break;
    case OP_TYPE_STRUCT:
        id->bytes = 0;
        for (uint32_t i = 2; i < len; i++)
            id->bytes = min_u64(id->bytes + at(m, w[i])->bytes, UINT32_MAX);
        break;
    case OP_TYPE_POINTER:
        id->bytes = len >= 4 && w[2] == CLASS_WORKGROUP ? at(m, w[3])->bytes : 0;
        break;
    default:
        break;
    }
}

static void read_constant(const struct module *m, struct id *id, const uint32_t *w, uint32_t len, size_t place,
                          const struct spirv_constant *constants, size_t n)
{
    uint32_t op = w[0] & 0xffff;
    if (op == OP_CONSTANT_COMPOSITE || op == OP_SPEC_CONSTANT_COMPOSITE) {
        id->parts = place + 3;
        id->n_parts = len - 3;
        return;
    }
    if (op == OP_SPEC_CONSTANT_OP) {
        read_operation(m, id, w, len);
        return;
    }
    bool number = op == OP_CONSTANT || op == OP_SPEC_CONSTANT;
    id->known = !number || len == 4; /* of 32 bits and fewer */
    id->value = number ? (len == 4 ? w[3] : 0) : op == OP_CONSTANT_TRUE || op == OP_SPEC_CONSTANT_TRUE;
    for (size_t i = 0; id->has_spec && i < n; i++)
        if (constants[i].id == id->spec)
            id->value = constants[i].value;
}

static bool is_constant(uint32_t op)
{
    return (op >= OP_CONSTANT_TRUE && op <= OP_CONSTANT_COMPOSITE) ||
           (op >= OP_SPEC_CONSTANT_TRUE && op <= OP_SPEC_CONSTANT_OP);
}

static bool read_module(const struct module *m, size_t n_words, const struct spirv_constant *constants, size_t n,
                        uint32_t *bytes, struct err *e)
{
    uint64_t sum = 0;
    struct spirv_instruction x;
    size_t end = SPIRV_HEADER;
    while (spirv_next(m->words, n_words, &end, &x)) {
        const uint32_t *w = x.words, op = x.op, len = x.len;
        if (op == OP_DECORATE && len >= 4 && w[2] == DEC_SPEC_ID && w[1] < m->bound) {
            m->ids[w[1]].has_spec = true;
            m->ids[w[1]].spec = w[3];
        } else if (op >= OP_TYPE_BOOL && op <= OP_TYPE_POINTER && len >= 2 && w[1] < m->bound) {
            read_type(m, &m->ids[w[1]], w, len);
        } else if (is_constant(op) && len >= 3 && w[2] < m->bound) {
            read_constant(m, &m->ids[w[2]], w, len, end - len, constants, n);
        } else if (op == OP_VARIABLE && len >= 4 && w[3] == CLASS_WORKGROUP) {
            if (at(m, w[1])->bytes == 0)
                return err_set(e, ERR_BUG, "the size of a shared variable is not known");
            sum += at(m, w[1])->bytes;
        }
    }
    if (end != n_words)
        return err_set(e, ERR_BUG, "a SPIR-V instruction is cut short");
    *bytes = (uint32_t)min_u64(sum, UINT32_MAX);
    return true;
}

bool spirv_shared_bytes(const uint32_t *words, size_t n_words, const struct spirv_constant *constants, size_t n,
                        uint32_t *bytes, struct err *e)
{
    *bytes = 0;
    if (!spirv_is_module(words, n_words))
        return err_set(e, ERR_BUG, "not a SPIR-V module");
    struct module m = {.words = words, .bound = words[SPIRV_BOUND]};
    m.ids = calloc((size_t)m.bound + 1, sizeof *m.ids);
    if (!m.ids)
        return err_nomem(e, "SPIR-V reflection", (m.bound + 1ull) * sizeof *m.ids);
    bool ok = read_module(&m, n_words, constants, n, bytes, e);
    free(m.ids);
    return ok;
}
