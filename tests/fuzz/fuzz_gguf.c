/* Any bytes as a GGUF: what is accepted is looked up, walked, dequantized, and planned again to its own size. */
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "host/base/num.h"

#define MAX_WEIGHTS 65536u /* of a tensor that is read: the time goes into headers */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_value(const struct gguf_kv *kv)
{
    const uint8_t *at = kv->data;
    volatile double sum = 0;
    for (uint64_t i = 0; i < kv->n; i++) {
        if (kv->element == GGUF_STRING) {
            struct gguf_string s = gguf_next_string(&at);
            if (s.size)
                sum = sum + s.text[0] + s.text[s.size - 1];
        } else {
            sum = sum + gguf_number(kv, i) + (double)gguf_integer(kv, i);
        }
    }
    if (kv->element == GGUF_STRING && at != kv->data + kv->bytes)
        __builtin_trap();
}

static void walk_keys(const struct gguf *g)
{
    for (size_t i = 0; i < gguf_kv_count(g); i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        char key[128];
        struct err e;
        uint64_t u;
        double d;
        bool b;
        struct gguf_string s;
        walk_value(kv);
        if (kv->key.size >= sizeof key)
            continue;
        memcpy(key, kv->key.text, kv->key.size);
        key[kv->key.size] = 0;
        if (gguf_find(g, key) != kv || gguf_get_u64(g, key, &u, &e) == GGUF_ABSENT ||
            gguf_get_f64(g, key, &d, &e) == GGUF_ABSENT || gguf_get_bool(g, key, &b, &e) == GGUF_ABSENT ||
            gguf_get_string(g, key, &s, &e) == GGUF_ABSENT)
            __builtin_trap();
    }
}

static void read_tensor(const struct gguf_tensor *t, const struct gguf_type *type, uint64_t n)
{
    uint64_t row = gguf_row_bytes(type, t->ne[0]);
    float *w = malloc(n * sizeof *w);
    if (!w || row * (n / t->ne[0]) != t->bytes)
        __builtin_trap();
    gguf_dequant(type, t->data, n, w);
    gguf_row_valid(type, t->data, n);
    if (type->codes && t->ne[0] % type->codes->group == 0 && t->ne[0] <= UINT32_MAX) {
        struct qlinear q;
        uint8_t *copy = malloc(row);
        if (!copy || !qlinear_init(&q, 1, (uint32_t)t->ne[0],
                                   (struct quant_spec){type->codes, type->codes->group, SCALE_F32}, NULL))
            __builtin_trap();
        gguf_unpack_row(type, t->data, &q, 0);
        gguf_replace_codes(type, t->data, q.codes, t->ne[0], copy);
        free(copy);
        qlinear_free(&q);
    }
    free(w);
}

/* False if there are types that a plan cannot hold. */
static bool walk_tensors(const struct gguf *g, struct gguf_tensor_plan *plan)
{
    bool known = true;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        const struct gguf_type *type = gguf_type_of(t->type);
        uint64_t n = t->ne[0];
        if (gguf_tensor_find(g, t->name) != t)
            __builtin_trap();
        plan[i] = (struct gguf_tensor_plan){t->name, t->n_dims, {0}, t->type};
        memcpy(plan[i].ne, t->ne, sizeof plan[i].ne);
        known = known && type;
        for (int d = 1; d < 4; d++)
            n *= t->ne[d];
        if (type && n <= MAX_WEIGHTS)
            read_tensor(t, type, n);
    }
    return known;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct err e;
    if (!gguf_parse(&g, data, size, "fuzz", &e)) {
        if (e.kind != ERR_USER || !e.msg[0] || !e.hint[0] || strchr(e.msg, '\n'))
            __builtin_trap();
        return 0;
    }
    size_t n = gguf_tensor_count(g);
    struct gguf_tensor_plan *plan = calloc(n + 1, sizeof *plan);
    struct gguf_keys *keys = gguf_keys_create();
    if (!plan || !keys)
        __builtin_trap();
    walk_keys(g);
    for (size_t i = 0; i < gguf_kv_count(g); i++)
        gguf_add_kv(keys, gguf_kv_at(g, i));
    /* The reader leaves no freedom: written again, the file ends where the last tensor does, and its padding. */
    if (walk_tensors(g, plan) && n) {
        const struct gguf_tensor *last = gguf_tensor_at(g, n - 1);
        uint64_t end = (uint64_t)(last->data - data) + last->bytes;
        if (end > size || gguf_file_bytes(keys, plan, n) != round_up(end, gguf_alignment(g)))
            __builtin_trap();
    }
    gguf_keys_destroy(&keys);
    free(plan);
    gguf_close(&g);
    return 0;
}
