#include "host/quant/plan/refine.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
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
    };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (facts[i].a != facts[i].b)
            return differs(file, master, facts[i].what, facts[i].a, facts[i].b, e);
    return true;
}

bool refine_size(struct plan *p)
{
    const struct checkpoint *file = p->from.refined->ck;
    const struct gguf *g = checkpoint_gguf(file);
    uint64_t bytes = 0, all = 0, weights = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        struct weight_info info;
        if (p->items[i].coded && checkpoint_weight(file, p->items[i].module, &info, NULL))
            bytes += info.bytes;
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->n_dims < 2)
            continue;
        all += t->bytes;
        weights += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    p->bpw = p->weights_quantized ? 8.0 * (double)bytes / (double)p->weights_quantized : 16;
    p->file_bpw = weights ? 8.0 * (double)all / (double)weights : 0;
    os_stat(checkpoint_dir(file), &p->out_bytes);
    return true;
}
