/* By what gsq knows a GGUF of its own: a hash of all that the header says. Programs that make another file of
 * one (llama-quantize, editors of metadata) copy keys, this one too, and then it is wrong. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf_parts.h"
#include "host/base/num.h"
#include "host/base/os.h"

static uint64_t header_hash(const struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n)
{
    struct hash128 h = {0};
    h = hash_bytes(gguf_keys_bytes(k)->data, gguf_keys_bytes(k)->size, h);
    for (size_t i = 0; i < n; i++) {
        h = hash_bytes(plan[i].name, strlen(plan[i].name), h);
        h = hash_bytes(plan[i].ne, sizeof plan[i].ne[0] * plan[i].n_dims, h);
        h = hash_bytes(&plan[i].type, sizeof plan[i].type, h);
    }
    return h.lo;
}

void gguf_keys_seal(struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n)
{
    char text[20];
    if (!k || !gguf_keys_bytes(k)->data)
        return;
    int len = snprintf(text, sizeof text, "%016" PRIx64, header_hash(k, plan, n));
    gguf_add_string(k, GGUF_SEAL, text, (size_t)len);
}

bool gguf_sealed(const struct gguf *g)
{
    struct gguf_string seal;
    char want[20];
    size_t n = gguf_tensor_count(g), keys = gguf_kv_count(g);
    if (gguf_get_string(g, GGUF_SEAL, &seal, NULL) != GGUF_OK)
        return false;
    struct gguf_keys *k = gguf_keys_create();
    struct gguf_tensor_plan *plan = calloc(n + 1, sizeof *plan);
    for (size_t i = 0; i + 1 < keys; i++) /* all but the last one, which is the seal */
        gguf_add_kv(k, gguf_kv_at(g, i));
    for (size_t i = 0; plan && i < n; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        plan[i] = (struct gguf_tensor_plan){.name = t->name, .n_dims = t->n_dims, .type = t->type};
        memcpy(plan[i].ne, t->ne, sizeof t->ne);
    }
    bool ok = k && plan && gguf_keys_bytes(k)->data && !gguf_keys_bytes(k)->failed;
    if (ok)
        snprintf(want, sizeof want, "%016" PRIx64, header_hash(k, plan, n));
    ok = ok && seal.size == 16 && memcmp(seal.text, want, 16) == 0;
    gguf_keys_destroy(&k);
    free(plan);
    return ok;
}

bool gguf_is_ours(const char *path)
{
    struct gguf *g = NULL;
    bool ours = gguf_open(&g, path, NULL) && gguf_sealed(g);
    if (g)
        gguf_close(&g);
    return ours;
}

bool gguf_run(const char *path, char run[33])
{
    struct gguf *g = NULL;
    struct gguf_string of;
    bool ok = os_stat(path, NULL) == OS_FILE && gguf_open(&g, path, NULL) && gguf_sealed(g) &&
              gguf_get_string(g, GGUF_RUN, &of, NULL) == GGUF_OK && of.size == 32;
    if (ok)
        snprintf(run, 33, "%.32s", of.text);
    if (g)
        gguf_close(&g);
    return ok;
}
