/* Writes a synthetic Llama checkpoint: random bf16 weights, a trivial byte-level tokenizer. By default one
 * full Llama-3.1-8B block with a small vocabulary; options make it smaller.
 *
 *     make_big_block DIR [--hidden N] [--intermediate N] [--heads N] [--kv N] [--layers N] [--vocab N]
 * [--seed N]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf/safetensors.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"

struct shape {
    uint32_t hidden, intermediate, heads, kv, layers, vocab, seed;
};

/* Elements written at a time. */
enum { CHUNK = 1 << 16 };

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Roughly normal with this deviation: four bytes added up. */
static void fill_random(uint16_t *dst, size_t n, float deviation, uint64_t *state)
{
    for (size_t i = 0; i < n; i += 2) {
        uint64_t r = next_random(state);
        for (size_t k = 0; k < 2 && i + k < n; k++, r >>= 32) {
            int sum = (int)(r & 255) + (int)(r >> 8 & 255) + (int)(r >> 16 & 255) + (int)(r >> 24 & 255) - 510;
            dst[i + k] = f32_to_bf16((float)sum * (deviation / 147.8f));
        }
    }
}

struct list {
    struct tensor_plan plan[4096];
    char names[4096][96];
    size_t n;
};

static void add(struct list *l, const char *name, uint32_t rows, uint32_t cols)
{
    if (l->n == sizeof l->plan / sizeof *l->plan) {
        fprintf(stderr, "too many layers\n");
        exit(2);
    }
    snprintf(l->names[l->n], sizeof l->names[0], "%s", name);
    l->plan[l->n] = (struct tensor_plan){
        .name = l->names[l->n],
        .dtype = DTYPE_BF16,
        .n_dims = rows ? 2 : 1,
        .shape = {rows ? rows : cols, cols},
    };
    l->n++;
}

static void list_tensors(struct list *l, const struct shape *s)
{
    uint32_t dim = s->hidden / s->heads;
    add(l, "model.embed_tokens.weight", s->vocab, s->hidden);
    for (uint32_t i = 0; i < s->layers; i++) {
        const struct {
            const char *name;
            uint32_t rows, cols;
        } block[] = {
            {"input_layernorm", 0, s->hidden},
            {"self_attn.q_proj", s->hidden, s->hidden},
            {"self_attn.k_proj", s->kv * dim, s->hidden},
            {"self_attn.v_proj", s->kv * dim, s->hidden},
            {"self_attn.o_proj", s->hidden, s->hidden},
            {"post_attention_layernorm", 0, s->hidden},
            {"mlp.gate_proj", s->intermediate, s->hidden},
            {"mlp.up_proj", s->intermediate, s->hidden},
            {"mlp.down_proj", s->hidden, s->intermediate},
        };
        for (size_t k = 0; k < sizeof block / sizeof *block; k++) {
            char name[96];
            snprintf(name, sizeof name, "model.layers.%u.%s.weight", (unsigned)i, block[k].name);
            add(l, name, block[k].rows, block[k].cols);
        }
    }
    add(l, "model.norm.weight", 0, s->hidden);
}

static bool write_weights(const char *dir, const struct shape *s, struct err *e)
{
    static struct list l;
    static uint16_t values[CHUNK];
    char path[1024];
    struct safetensors_writer *w = NULL;
    uint64_t state = 0x9E3779B97F4A7C15u ^ s->seed;
    list_tensors(&l, s);
    if (!os_path_join(path, sizeof path, dir, "model.safetensors", e) ||
        !safetensors_writer_open(&w, path, l.plan, l.n, NULL, 0, e))
        return false;
    for (size_t i = 0; i < l.n; i++) {
        const struct tensor_plan *t = &l.plan[i];
        uint64_t left = t->n_dims == 2 ? t->shape[0] * t->shape[1] : t->shape[0];
        for (size_t k = 0; t->n_dims == 1 && k < CHUNK; k++)
            values[k] = f32_to_bf16(1.0f);
        while (left) {
            size_t n = (size_t)min_u64(left, CHUNK);
            if (t->n_dims == 2)
                fill_random(values, n, 0.02f, &state);
            if (!safetensors_writer_put(w, values, 2 * n, e)) {
                safetensors_writer_abort(&w);
                return false;
            }
            left -= n;
        }
    }
    return safetensors_writer_close(&w, e);
}

static bool write_text(const char *dir, const char *name, struct strbuf *b, struct err *e)
{
    char path[1024];
    bool ok = !b->failed && os_path_join(path, sizeof path, dir, name, e) && os_write_file(path, b->data, b->size, e);
    strbuf_free(b);
    return ok;
}

static bool write_config(const char *dir, const struct shape *s, struct err *e)
{
    struct strbuf b = {0};
    strbuf_printf(&b,
                  "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"torch_dtype\": "
                  "\"bfloat16\",\n"
                  " \"hidden_size\": %u, \"intermediate_size\": %u, \"num_hidden_layers\": %u,\n",
                  (unsigned)s->hidden, (unsigned)s->intermediate, (unsigned)s->layers);
    strbuf_printf(&b,
                  " \"num_attention_heads\": %u, \"num_key_value_heads\": %u, \"vocab_size\": %u,\n"
                  " \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0,\n"
                  " \"hidden_act\": \"silu\", \"tie_word_embeddings\": true}\n",
                  (unsigned)s->heads, (unsigned)s->kv, (unsigned)s->vocab);
    return write_text(dir, "config.json", &b, e);
}

/* Byte-level BPE without merges: each byte is a token, by GPT-2's table of visible stand-ins. */
static bool write_tokenizer(const char *dir, struct err *e)
{
    struct strbuf b = {0};
    strbuf_puts(&b,
                "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [],\n"
                " \"normalizer\": null,\n"
                " \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true,"
                " \"use_regex\": true},\n"
                " \"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\"},\n"
                " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"merges\": [], \"vocab\": "
                "{");
    uint32_t spare = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool visible = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        char utf8[5] = {0};
        utf8_encode(visible ? byte : spare++, utf8);
        strbuf_puts(&b, byte ? ", " : "");
        strbuf_json(&b, utf8);
        strbuf_printf(&b, ": %u", (unsigned)byte);
    }
    strbuf_puts(&b, "}}}\n");
    return write_text(dir, "tokenizer.json", &b, e);
}

int main(int argc, char **argv)
{
    struct shape s = {
        .hidden = 4096, .intermediate = 14336, .heads = 32, .kv = 8, .layers = 1, .vocab = 256, .seed = 1};
    const struct {
        const char *name;
        uint32_t *value;
    } options[] = {
        {"--hidden", &s.hidden}, {"--intermediate", &s.intermediate},
        {"--heads", &s.heads},   {"--kv", &s.kv},
        {"--layers", &s.layers}, {"--vocab", &s.vocab},
        {"--seed", &s.seed},
    };
    if (argc < 2 || argc % 2) {
        fprintf(stderr, "usage: make_big_block DIR [--hidden N] ...\n");
        return 2;
    }
    for (int i = 2; i < argc; i += 2) {
        size_t k = 0;
        while (k < sizeof options / sizeof *options && strcmp(argv[i], options[k].name) != 0)
            k++;
        if (k == sizeof options / sizeof *options) {
            fprintf(stderr, "unknown option %s\n", argv[i]);
            return 2;
        }
        *options[k].value = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    }
    struct err e = {0};
    if (os_mkdirs(argv[1], &e) && write_config(argv[1], &s, &e) && write_tokenizer(argv[1], &e) &&
        write_weights(argv[1], &s, &e))
        return 0;
    fprintf(stderr, "error: %s\n", e.msg);
    return os_exit_code(&e);
}
