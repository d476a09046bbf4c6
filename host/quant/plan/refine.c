#include "host/quant/plan/refine.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_type.h"
#include "host/base/num.h"
#include "host/base/os.h"

static bool differs(const struct checkpoint *file, const struct checkpoint *master, const char *what, uint64_t a,
                    uint64_t b, struct err *e)
{
    err_set(e, ERR_USER, "--refine %s: it has %" PRIu64 " %s, %s has %" PRIu64, checkpoint_dir(file), a, what,
            checkpoint_dir(master), b);
    return err_hint(e, "give the model that the GGUF was made from");
}

/* Whether that layer is made of the same. */
static bool same_parts(const struct model_config *a, const struct model_config *b, uint32_t layer)
{
    for (uint32_t i = 0;; i++) {
        const struct block_part *x = block_part_in(a, layer, i), *y = block_part_in(b, layer, i);
        if (!x || !y)
            return x == y;
        if (x->role != y->role || x->kind != y->kind || block_part_rows(x, a) != block_part_rows(y, b) ||
            block_part_cols(x, a) != block_part_cols(y, b))
            return false;
    }
}

bool refine_check(const struct checkpoint *file, const struct checkpoint *master, struct err *e)
{
    const struct model_config *a = checkpoint_config(file), *b = checkpoint_config(master);
    const struct gguf *g = checkpoint_gguf(file);
    uint64_t parts = 1;
    if (!g) {
        err_set(e, ERR_USER, "--refine %s: that is not a GGUF file", checkpoint_dir(file));
        return err_hint(e, "gsq quantize MODEL -o OUT quantizes a folder");
    }
    if (gguf_get_u64(g, "split.count", &parts, e) == GGUF_BAD)
        return false;
    if (parts > 1) {
        err_set(e, ERR_USER, "--refine %s: it is split into %" PRIu64 " files", checkpoint_dir(file), parts);
        return err_hint(e, "merge them first: llama-gguf-split --merge");
    }
    const struct family *fa = family_of(a), *fb = family_of(b);
    const char *arch_a = fa ? fa->gguf : NULL, *arch_b = fb ? fb->gguf : NULL;
    if (!arch_a || !arch_b || strcmp(arch_a, arch_b) != 0) {
        err_set(e, ERR_USER, "--refine %s: its architecture is %s, that of %s is %s", checkpoint_dir(file),
                arch_a ? arch_a : "unknown", checkpoint_dir(master), arch_b ? arch_b : "unknown");
        return err_hint(e, "give the model that the GGUF was made from");
    }
    const struct {
        const char *what;
        uint32_t a, b;
    } facts[] = {
        {"blocks", a->num_layers, b->num_layers},
        {"hidden dimensions", a->hidden_size, b->hidden_size},
        {"feed-forward dimensions", a->intermediate_size, b->intermediate_size},
        {"heads", a->num_heads, b->num_heads},
        {"key heads", a->num_kv_heads, b->num_kv_heads},
        {"dimensions per head", a->head_dim, b->head_dim},
        {"tokens in its vocabulary", a->vocab_size, b->vocab_size},
        {"experts in a layer", a->experts.n, b->experts.n},
        {"experts for each token", a->experts.used, b->experts.used},
        {"dimensions in an expert", a->experts.width, b->experts.width},
    };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (facts[i].a != facts[i].b)
            return differs(file, master, facts[i].what, facts[i].a, facts[i].b, e);
    for (uint32_t layer = 0; layer < a->num_layers; layer++)
        if (!same_parts(a, b, layer)) {
            err_set(e, ERR_USER, "--refine %s: its block %" PRIu32 " has other parts than that of %s",
                    checkpoint_dir(file), layer + 1, checkpoint_dir(master));
            return err_hint(e, "give the model that the GGUF was made from");
        }
    return true;
}

const char *refine_module(const struct checkpoint *file, const struct checkpoint *master, const struct matrix *x,
                          char out[MODULE_CAP])
{
    const char *own = config_prefix(checkpoint_config(file)), *prefix = config_prefix(checkpoint_config(master));
    if (x->embedding)
        snprintf(out, MODULE_CAP, "%s", checkpoint_embedding_module(file));
    else if (x->head)
        snprintf(out, MODULE_CAP, "%s", checkpoint_head_module(file));
    else
        snprintf(out, MODULE_CAP, "%s%s", own, x->module + strlen(prefix));
    return out;
}

bool refine_size(struct plan *p)
{
    const struct checkpoint *file = p->from.refined->ck;
    const struct gguf *g = checkpoint_gguf(file);
    double bits = 0;
    uint64_t all = 0, weights = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *x = &p->items[i];
        if (matrix_quantized(x))
            bits += 8.0 * (double)(x->rows * gguf_row_bytes(x->type, x->cols));
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->n_dims < 2)
            continue;
        all += t->bytes;
        weights += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    p->bpw = p->weights_quantized ? bits / (double)p->weights_quantized : 16;
    p->file_bpw = weights ? 8.0 * (double)all / (double)weights : 0;
    os_stat(checkpoint_dir(file), &p->out_bytes);
    return true;
}
