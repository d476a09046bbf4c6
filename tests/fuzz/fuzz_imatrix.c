/* Any bytes as an importance matrix of a model of one block: what is accepted belongs to it and makes sense.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "formats/read/imatrix.h"
#include "host/base/os.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HIDDEN = 8, INNER = 16, VOCAB = 4 };

static const struct gguf_tensor_plan plan[] = {
    {"token_embd.weight", 2, {HIDDEN, VOCAB, 1, 1}, GGML_F32},
    {"blk.0.attn_norm.weight", 1, {HIDDEN, 1, 1, 1}, GGML_F32},
    {"blk.0.attn_q.weight", 2, {HIDDEN, HIDDEN, 1, 1}, GGML_F32},
    {"blk.0.attn_k.weight", 2, {HIDDEN, HIDDEN, 1, 1}, GGML_F32},
    {"blk.0.attn_v.weight", 2, {HIDDEN, HIDDEN, 1, 1}, GGML_F32},
    {"blk.0.attn_output.weight", 2, {HIDDEN, HIDDEN, 1, 1}, GGML_F32},
    {"blk.0.ffn_norm.weight", 1, {HIDDEN, 1, 1, 1}, GGML_F32},
    {"blk.0.ffn_gate.weight", 2, {HIDDEN, INNER, 1, 1}, GGML_F32},
    {"blk.0.ffn_up.weight", 2, {HIDDEN, INNER, 1, 1}, GGML_F32},
    {"blk.0.ffn_down.weight", 2, {INNER, HIDDEN, 1, 1}, GGML_F32},
    {"output_norm.weight", 1, {HIDDEN, 1, 1, 1}, GGML_F32},
};
enum { N_PLAN = sizeof plan / sizeof plan[0] };

static bool write_model(const char *path, struct err *e)
{
    static const float zeros[HIDDEN * INNER];
    struct gguf_keys *k = gguf_keys_create();
    struct gguf_writer *w = NULL;
    gguf_add_string(k, "general.architecture", "llama", 5);
    gguf_add_u32(k, "llama.context_length", 32);
    gguf_add_u32(k, "llama.embedding_length", HIDDEN);
    gguf_add_u32(k, "llama.block_count", 1);
    gguf_add_u32(k, "llama.feed_forward_length", INNER);
    gguf_add_u32(k, "llama.attention.head_count", 1);
    gguf_add_f32(k, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    bool ok = gguf_writer_open(&w, path, k, plan, N_PLAN, e);
    for (size_t i = 0; ok && i < N_PLAN; i++)
        ok = gguf_writer_put(w, zeros, (size_t)(plan[i].ne[0] * plan[i].ne[1]) * sizeof(float), e);
    if (ok)
        ok = gguf_writer_close(&w, e);
    else
        gguf_writer_abort(&w);
    gguf_keys_destroy(&k);
    return ok;
}

/* Models are opened by their paths: the file lies here for a moment, then lives on as its mapping. */
static const struct checkpoint *model(void)
{
    static struct checkpoint *ck;
    char path[64];
    struct err e = {0};
    if (ck)
        return ck;
    snprintf(path, sizeof path, "fuzz_imatrix-%" PRIu64 ".gguf", os_now_ns());
    bool ok = write_model(path, &e) && checkpoint_open(&ck, path, &e);
    os_remove(path);
    if (!ok) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return ck;
}

static void check_entry(const struct imatrix *m, const struct imatrix_entry *x)
{
    struct weight_info w;
    if (imatrix_find(m, x->module) != x || !checkpoint_weight(model(), x->module, &w, NULL) || w.cols != x->cols ||
        !(x->count > 0 && isfinite(x->count)))
        __builtin_trap();
    for (uint32_t c = 0; c < x->cols; c++)
        if (!(x->sums[c] >= 0 && isfinite(2 * (float)((double)x->sums[c] / x->count))))
            __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct imatrix m;
    struct err e = {0};
    if (imatrix_parse(&m, data, size, "fuzz.gguf", model(), &e)) {
        if (m.n == 0)
            __builtin_trap();
        for (size_t i = 0; i < m.n; i++)
            check_entry(&m, &m.entries[i]);
        imatrix_free(&m);
    } else if (m.entries || !e.msg[0] || !e.hint[0] || !strstr(e.msg, "fuzz.gguf")) {
        __builtin_trap(); /* a refusal names the file and a remedy */
    }
    return 0;
}
