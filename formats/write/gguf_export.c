/* Keys of general.* and of the architecture, and what else a file carries. */
#include "formats/write/gguf_export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/gguf/gguf_names.h"
#include "formats/write/carried.h"
#include "formats/read/hub_cache.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/str.h"

/* ---- one key ---- */

/* True if the folder carries this key: it was then added. */
static bool carried(struct key_list *k, const char *key)
{
    const struct gguf_kv *kv = k->carried ? gguf_find(k->carried, key) : NULL;
    if (!kv)
        return false;
    gguf_add_kv(k->keys, kv);
    for (size_t i = 0; i < gguf_kv_count(k->carried); i++)
        k->used[i] |= gguf_kv_at(k->carried, i) == kv;
    return true;
}

void key_u32(struct key_list *k, const char *key, uint32_t v)
{
    if (!carried(k, key))
        gguf_add_u32(k->keys, key, v);
}

void key_f32(struct key_list *k, const char *key, float v)
{
    if (!carried(k, key))
        gguf_add_f32(k->keys, key, v);
}

void key_bool(struct key_list *k, const char *key, bool v)
{
    if (!carried(k, key))
        gguf_add_bool(k->keys, key, v);
}

void key_string(struct key_list *k, const char *key, const char *text)
{
    if (!carried(k, key))
        gguf_add_string(k->keys, key, text, strlen(text));
}

void key_array(struct key_list *k, const char *key, enum gguf_value element, const void *values, uint64_t n)
{
    if (!carried(k, key))
        gguf_add_array(k->keys, key, element, values, n);
}

void key_strings(struct key_list *k, const char *key, const struct gguf_string *list, uint64_t n)
{
    if (!carried(k, key))
        gguf_add_strings(k->keys, key, list, n);
}

static bool starts_with(struct gguf_string s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.size >= n && memcmp(s.text, prefix, n) == 0;
}

static bool equals(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

bool gguf_key_of_storage(struct gguf_string key)
{
    return starts_with(key, "split.") || equals(key, "general.alignment") || equals(key, "general.file_type") ||
           equals(key, "general.quantization_version") || equals(key, GGUF_SEAL);
}

/* ---- the model ---- */

/* The last part of a path; of a snapshot in the Hugging Face cache, the model's. */
static void base_name(const char *dir, char *out, size_t cap)
{
    if (hub_name_of(dir, out, cap))
        return;
    size_t end = strlen(dir);
    while (end > 0 && (dir[end - 1] == '/' || dir[end - 1] == '\\'))
        end--;
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/' && dir[begin - 1] != '\\')
        begin--;
    snprintf(out, cap, "%.*s", (int)(end - begin), dir + begin);
    if (!out[0] || strcmp(out, ".") == 0 || strcmp(out, "..") == 0)
        snprintf(out, cap, "model");
}

void gguf_rope_freqs(const struct model_config *c, float *out)
{
    if (c->rope_scaling == ROPE_FACTORS) {
        memcpy(out, c->rope_factors, config_rope_dim(c) / 2 * sizeof *out);
        return;
    }
    const double turn = 6.28318530717958647692, context = c->rope_original_context;
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double wave = turn * pow(c->rope_theta, 2.0 * i / c->head_dim);
        double smooth = (context / wave - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
        if (wave < context / c->rope_high_freq)
            out[i] = 1;
        else if (wave > context / c->rope_low_freq)
            out[i] = (float)c->rope_factor;
        else
            out[i] = (float)(1 / ((1 - smooth) / c->rope_factor + smooth));
    }
}

/* Keys "ARCH.name". */
struct arch_keys {
    struct key_list *list;
    const char *arch;
    char key[128];
};

static const char *arch_key(struct arch_keys *a, const char *name)
{
    snprintf(a->key, sizeof a->key, "%s.%s", a->arch, name);
    return a->key;
}

static void rope_keys(struct arch_keys *a, const struct family *f, const struct model_config *c)
{
    key_u32(a->list, arch_key(a, "rope.dimension_count"), config_rope_dim(c));
    if (c->rope_factors_long)
        key_u32(a->list, arch_key(a, "rope.scaling.original_context_length"), c->rope_original_context);
    key_f32(a->list, arch_key(a, "rope.freq_base"), (float)c->rope_theta);
    if (c->rope_scaling == ROPE_LINEAR) {
        key_string(a->list, arch_key(a, "rope.scaling.type"), "linear");
        key_f32(a->list, arch_key(a, "rope.scaling.factor"), (float)c->rope_factor);
    }
    if (c->rope_scaling == ROPE_YARN) {
        double usual = c->mla.kv_rank ? 1 : rope_yarn_attention(c->rope_factor), more = rope_attention(c) / usual;
        if (f->query_growth && usual > 1) { /* llama.cpp wants config.json's mscale_all_dim, beside an mscale of 1 */
            key_f32(a->list, arch_key(a, "rope.scaling.yarn_log_multiplier"),
                    (float)((usual / rope_attention(c) - 1) / (usual - 1)));
            more = 1;
        }
        key_string(a->list, arch_key(a, "rope.scaling.type"), "yarn");
        key_f32(a->list, arch_key(a, "rope.scaling.factor"), (float)c->rope_factor);
        key_u32(a->list, arch_key(a, "rope.scaling.original_context_length"), c->rope_original_context);
        if (fabs(more - 1) > 1e-6)
            key_f32(a->list, arch_key(a, "rope.scaling.attn_factor"), (float)more);
        if (c->rope_beta_fast != 32)
            key_f32(a->list, arch_key(a, "rope.scaling.yarn_beta_fast"), (float)c->rope_beta_fast);
        if (c->rope_beta_slow != 1)
            key_f32(a->list, arch_key(a, "rope.scaling.yarn_beta_slow"), (float)c->rope_beta_slow);
        if ((c->rope_beta_fast != 32 || c->rope_beta_slow != 1 || c->rope_unrounded) && !a->list->quiet)
            log_warn("for this architecture llama.cpp blends yarn between 32 rotations and 1 (rounded); this model "
                     "asks for %g and %g%s",
                     c->rope_beta_fast, c->rope_beta_slow, c->rope_unrounded ? ", not rounded" : "");
    }
    if (c->rope_scaling != ROPE_YARN && fabs(rope_attention(c) - 1) > 1e-6)
        key_f32(a->list, arch_key(a, "rope.scaling.attn_factor"), (float)rope_attention(c));
    /* The tensor rope_freqs says it to llama.cpp, but the numbers that made it cannot be recovered from it. Under the
     * usual names they would be taken for linear scaling. */
    if (c->rope_scaling == ROPE_LLAMA3) {
        key_f32(a->list, "gsq.rope.llama3.factor", (float)c->rope_factor);
        key_f32(a->list, "gsq.rope.llama3.low_freq_factor", (float)c->rope_low_freq);
        key_f32(a->list, "gsq.rope.llama3.high_freq_factor", (float)c->rope_high_freq);
        key_u32(a->list, "gsq.rope.llama3.original_context_length", c->rope_original_context);
    }
}

/* Windows as llama.cpp knows them: some architectures' layers slide but every n-th, others it does not compute. */
static void window_keys(struct arch_keys *a, const struct family *f, const struct model_config *c, const char *dir)
{
    uint32_t step = 1;
    bool even = false;
    if (!c->sliding_window)
        return;
    for (step = 1; c->slides && !even && step <= c->num_layers; step++) {
        even = true;
        for (uint32_t i = 0; i < c->num_layers; i++)
            even = even && c->slides[i] == ((i + 1) % step != 0);
        if (even)
            break;
    }
    key_u32(a->list, arch_key(a, "attention.sliding_window"), c->sliding_window);
    if (even && f->usual_full_step)
        key_u32(a->list, arch_key(a, "attention.sliding_window_pattern"), step);
    else if (c->slides)
        key_array(a->list, arch_key(a, "attention.sliding_window_pattern"), GGUF_BOOL, c->slides, c->num_layers);
    bool other = f->llama_slides && (!even || step != f->usual_full_step);
    if (c->sliding_window < c->max_position && !a->list->quiet && (!f->llama_slides || other))
        log_warn(other ? "%s: llama.cpp has the sliding window of %u tokens in other layers than this model"
                       : "%s: llama.cpp ignores the sliding window of %u tokens in this architecture",
                 dir, (unsigned)c->sliding_window);
}

/* Factors, and layers without RoPE. */
static void family_keys(struct arch_keys *a, const struct family *f, const struct model_config *c, const char *dir)
{
    bool usual = true;
    if (c->query_growth > 0)
        key_f32(a->list, arch_key(a, "attention.temperature_scale"), (float)c->query_growth);
    if (f->multipliers) {
        key_f32(a->list, arch_key(a, "embedding_scale"), (float)config_factor(c->embedding_scale));
        key_f32(a->list, arch_key(a, "attention.scale"), (float)config_attention_scale(c));
        key_f32(a->list, arch_key(a, "residual_scale"), (float)config_factor(c->residual_scale));
        key_f32(a->list, arch_key(a, "logit_scale"), (float)config_factor(c->logit_divisor));
    }
    if (c->score_cap > 0)
        key_f32(a->list, arch_key(a, "attn_logit_softcapping"), (float)c->score_cap);
    if (c->logit_cap > 0)
        key_f32(a->list, arch_key(a, "final_logit_softcapping"), (float)c->logit_cap);
    if (f->usual_local_theta > 0)
        key_f32(a->list, arch_key(a, "rope.freq_base_swa"), (float)c->rope_local_theta);
    if (f->usual_query_scale && fabs(config_attention_scale(c) / family_llama_scale(f, c) - 1) > 1e-6 &&
        !a->list->quiet)
        log_warn("%s: llama.cpp multiplies scores of this architecture by %g, this model by %g", dir,
                 family_llama_scale(f, c), config_attention_scale(c));
    for (uint32_t i = 0; c->no_rope && i < c->num_layers; i++)
        usual = usual && c->no_rope[i] == ((i + 1) % f->usual_rope_step == 0);
    if (!usual && !a->list->quiet)
        log_warn("%s: llama.cpp leaves RoPE out of every %u-th layer of this architecture; this model in others", dir,
                 (unsigned)f->usual_rope_step);
}

/* Multi-head latent attention, which llama.cpp computes with one key and value for all heads, of the width of their rank. */
static bool latent_keys(struct arch_keys *a, const char *dir, const struct model_config *c, struct err *e)
{
    const struct mla_config *x = &c->mla;
    double stretch = c->rope_scaling == ROPE_YARN && c->rope_factor > 1 ? log(c->rope_factor) : 0;
    double m = sqrt(config_attention_scale(c) * sqrt(c->head_dim)), all = stretch > 0 ? (m - 1) / (0.1 * stretch) : 0;
    bool scores = fabs(m - 1) < 1e-6; /* as in models without a longer context */
    if (!(c->rope_scaling == ROPE_UNSCALED || c->rope_scaling == ROPE_YARN) || fabs(rope_attention(c) - 1) > 1e-6 ||
        scores != (stretch == 0)) {
        err_set(e, ERR_USER, "%s: llama.cpp scales latent attention otherwise than this model's rope_scaling says",
                dir);
        return err_hint(e, "write a folder: --format gptq, for instance");
    }
    if (x->q_rank)
        key_u32(a->list, arch_key(a, "attention.q_lora_rank"), x->q_rank);
    key_u32(a->list, arch_key(a, "attention.kv_lora_rank"), x->kv_rank);
    key_u32(a->list, arch_key(a, "attention.key_length"), x->kv_rank + x->turned);
    key_u32(a->list, arch_key(a, "attention.value_length"), x->kv_rank);
    key_u32(a->list, arch_key(a, "attention.key_length_mla"), c->head_dim);
    key_u32(a->list, arch_key(a, "attention.value_length_mla"), x->values);
    if (stretch > 0)
        key_f32(a->list, arch_key(a, "rope.scaling.yarn_log_multiplier"), (float)(0.1 * rint(all * 1e6) / 1e6));
    return true;
}

/* The gated delta rule; which layers have it, as every n-th has not, or one by one. */
static void delta_keys(struct arch_keys *a, const struct family *f, const struct model_config *c)
{
    const struct delta_config *x = &c->delta;
    uint32_t step = 2, pairs = config_rope_dim(c) / 2;
    bool even = false;
    if (!x->value_heads)
        return;
    for (; !even && step <= c->num_layers; step += !even) {
        even = true;
        for (uint32_t i = 0; i < c->num_layers; i++)
            even = even && x->layers[i] == ((i + 1) % step != 0);
    }
    key_u32(a->list, arch_key(a, "ssm.conv_kernel"), x->taps);
    key_u32(a->list, arch_key(a, "ssm.state_size"), x->key_dim);
    key_u32(a->list, arch_key(a, "ssm.group_count"), x->key_heads);
    key_u32(a->list, arch_key(a, "ssm.time_step_rank"), x->value_heads);
    key_u32(a->list, arch_key(a, "ssm.inner_size"), config_delta_values(c));
    if (even)
        key_u32(a->list, arch_key(a, "full_attention_interval"), step);
    else
        key_array(a->list, arch_key(a, "attention.recurrent_layers"), GGUF_BOOL, x->layers, c->num_layers);
    /* How pairs are shared out among time, height and width, which are one in a text. */
    const int32_t sections[4] = {(int32_t)((pairs + 2) / 3), (int32_t)((pairs + 1) / 3), (int32_t)(pairs / 3), 0};
    if (f->parts & PARTS_DELTA)
        key_array(a->list, arch_key(a, "rope.dimension_sections"), GGUF_I32, sections, 4);
}

static bool expert_keys(struct arch_keys *a, const struct family *f, const char *dir, const struct model_config *c,
                        struct err *e)
{
    const struct expert_config *x = &c->experts;
    if (!x->n)
        return true;
    bool said = f->gguf_router; /* keys say how they are chosen */
    bool even = x->step < 2 && !x->dense && (said || !x->first_dense);
    if (!even || (!said && x->renormalise != f->gguf_renormalise)) {
        err_set(e, ERR_USER, "%s: %s", dir,
                even ? "llama.cpp weights the experts of this architecture otherwise than \"norm_topk_prob\" says"
                     : "llama.cpp has no layers without experts in this architecture");
        return err_hint(e, "write a folder: --format gptq, for instance");
    }
    if (x->gating == GATING_SOFTMAX && x->groups_used < x->groups) {
        err_set(e, ERR_USER, "%s: llama.cpp chooses groups of experts by two of each, this model by the best one", dir);
        return err_hint(e, "write a folder: --format gptq, for instance");
    }
    key_u32(a->list, arch_key(a, "expert_count"), x->n);
    key_u32(a->list, arch_key(a, "expert_used_count"), x->used);
    if (f->parts & (PARTS_EXPERTS | PARTS_GPT_OSS))
        key_u32(a->list, arch_key(a, "expert_feed_forward_length"), x->width);
    if (said) {
        key_u32(a->list, arch_key(a, "leading_dense_block_count"), x->first_dense);
        key_u32(a->list, arch_key(a, "expert_shared_count"), x->shared_width / x->width);
        key_u32(a->list, arch_key(a, "expert_gating_func"), (uint32_t)x->gating);
        key_f32(a->list, arch_key(a, "expert_weights_scale"), x->scale);
        key_bool(a->list, arch_key(a, "expert_weights_norm"), x->renormalise);
        key_u32(a->list, arch_key(a, "expert_group_count"), x->groups);
        key_u32(a->list, arch_key(a, "expert_group_used_count"), x->groups_used);
    } else if (x->shared_width)
        key_u32(a->list, arch_key(a, "expert_shared_feed_forward_length"), x->shared_width);
    return true;
}

static bool model_keys(struct key_list *k, const char *dir, const struct model_config *c,
                       const struct gguf_facts *facts, struct err *e)
{
    const struct family *f = family_of(c);
    struct arch_keys a = {.list = k, .arch = f ? f->gguf : NULL};
    char name[512];
    if (!f) {
        err_set(e, ERR_USER, "%s: gsq cannot write the architecture %s as a GGUF", dir,
                c->architecture[0] ? c->architecture : c->model_type);
        return err_hint(e, "gsq writes GGUFs of %s models", family_names(name, sizeof name));
    }
    base_name(dir, name, sizeof name);
    key_string(k, "general.architecture", a.arch);
    key_string(k, "general.type", "model");
    key_string(k, "general.name", name);
    gguf_add_u32(k->keys, "general.file_type", (uint32_t)facts->file_type);
    if (facts->quantized)
        gguf_add_u32(k->keys, "general.quantization_version", 2);
    key_u32(k, arch_key(&a, "vocab_size"), facts->vocab);
    key_u32(k, arch_key(&a, "context_length"), c->max_position ? c->max_position : 2048);
    key_u32(k, arch_key(&a, "embedding_length"), c->hidden_size);
    key_u32(k, arch_key(&a, "block_count"), c->num_layers);
    key_u32(k, arch_key(&a, "feed_forward_length"), c->intermediate_size);
    key_u32(k, arch_key(&a, "attention.head_count"), c->num_heads);
    key_u32(k, arch_key(&a, "attention.head_count_kv"), c->mla.kv_rank ? 1 : c->num_kv_heads);
    key_f32(k, arch_key(&a, "attention.layer_norm_rms_epsilon"), c->rms_eps);
    if (c->mla.kv_rank) {
        if (!latent_keys(&a, dir, c, e))
            return false;
    } else if ((uint64_t)c->head_dim * c->num_heads != c->hidden_size) {
        key_u32(k, arch_key(&a, "attention.key_length"), c->head_dim);
        key_u32(k, arch_key(&a, "attention.value_length"), c->head_dim);
    }
    window_keys(&a, f, c, dir);
    family_keys(&a, f, c, dir);
    rope_keys(&a, f, c);
    delta_keys(&a, f, c);
    return expert_keys(&a, f, dir, c, e);
}

static void extra_keys(struct gguf_keys *keys, const struct gguf_facts *facts)
{
    for (size_t i = 0; i < facts->n_metadata; i++)
        gguf_add_string(keys, facts->metadata[i][0], facts->metadata[i][1], strlen(facts->metadata[i][1]));
}

/* Whether the keys of this run hold one of that name. */
static bool is_extra(const struct gguf_facts *facts, struct gguf_string key)
{
    for (size_t i = 0; i < facts->n_metadata; i++)
        if (equals(key, facts->metadata[i][0]))
            return true;
    return false;
}

static bool open_carried(struct gguf **out, const char *dir, struct err *e)
{
    char path[4096];
    *out = NULL;
    if (!os_path_join(path, sizeof path, dir, GGUF_CARRIED, e))
        return false;
    return os_stat(path, NULL) != OS_FILE || gguf_open(out, path, e);
}

bool gguf_export_keys(struct gguf_keys **out, const char *dir, const struct model_config *c,
                      const struct gguf_facts *facts, struct err *e)
{
    struct gguf *beside = NULL;
    struct key_list k = {.keys = *out = gguf_keys_create(), .quiet = facts->quiet};
    if (!*out)
        return err_nomem(e, "the keys of a GGUF", 64);
    if (!export_check_carried(dir, e) || !open_carried(&beside, dir, e))
        return false;
    size_t n = beside ? gguf_kv_count(beside) : 0;
    k.carried = n ? beside : NULL;
    k.used = calloc(n + 1, sizeof *k.used);
    bool ok = k.used ? true : err_nomem(e, "the keys of a GGUF", n);
    ok = ok && model_keys(&k, dir, c, facts, e) && gguf_export_tokenizer(&k, dir, facts->vocab, e);
    for (size_t i = 0; ok && i < n; i++) {
        const struct gguf_kv *kv = gguf_kv_at(beside, i);
        if (!k.used[i] && !gguf_key_of_storage(kv->key) && !is_extra(facts, kv->key))
            gguf_add_kv(k.keys, kv);
    }
    if (ok)
        extra_keys(k.keys, facts);
    free(k.used);
    gguf_close(&beside);
    return ok;
}

static bool ends_with(struct gguf_string s, const char *end)
{
    size_t n = strlen(end);
    return s.size >= n && memcmp(s.text + s.size - n, end, n) == 0;
}

/* The number of the first key that ends so; 0: there is none. */
static int64_t integer_of(const struct gguf *src, const char *end)
{
    for (size_t i = 0; i < gguf_kv_count(src); i++)
        if (ends_with(gguf_kv_at(src, i)->key, end))
            return gguf_integer(gguf_kv_at(src, i), 0);
    return 0;
}

bool gguf_export_copied_keys(struct gguf_keys **out, const struct gguf *src, const struct gguf_facts *facts,
                             struct err *e)
{
    struct gguf_keys *keys = *out = gguf_keys_create();
    if (!keys)
        return err_nomem(e, "the keys of a GGUF", 64);
    bool typed = false;
    int64_t behind = integer_of(src, ".nextn_predict_layers");
    for (size_t i = 0; i < gguf_kv_count(src); i++) {
        const struct gguf_kv *kv = gguf_kv_at(src, i);
        if (behind > 0 && ends_with(kv->key, ".nextn_predict_layers"))
            continue;
        if (behind > 0 && ends_with(kv->key, ".block_count")) { /* without those layers, which are left out */
            char key[128];
            snprintf(key, sizeof key, "%.*s", (int)kv->key.size, kv->key.text);
            gguf_add_u32(keys, key, (uint32_t)(gguf_integer(kv, 0) - behind));
            continue;
        }
        bool here = equals(kv->key, "general.file_type");
        if (here) {
            gguf_add_u32(keys, "general.file_type", (uint32_t)facts->file_type);
            if (facts->quantized)
                gguf_add_u32(keys, "general.quantization_version", 2);
            typed = true;
        }
        if (!gguf_key_of_storage(kv->key) && !is_extra(facts, kv->key))
            gguf_add_kv(keys, kv);
    }
    if (!typed) {
        gguf_add_u32(keys, "general.file_type", (uint32_t)facts->file_type);
        if (facts->quantized)
            gguf_add_u32(keys, "general.quantization_version", 2);
    }
    extra_keys(keys, facts);
    return true;
}

/* ---- the way back ---- */

static bool same_value(const struct gguf_kv *a, const struct gguf_kv *b)
{
    return a->type == b->type && a->element == b->element && a->n == b->n && a->bytes == b->bytes &&
           memcmp(a->data, b->data, (size_t)a->bytes) == 0;
}

static bool write_keys(const char *path, const struct gguf_keys *keys, struct err *e)
{
    struct gguf_writer *w = NULL;
    return gguf_writer_open(&w, path, keys, NULL, 0, e) && gguf_writer_close(&w, e);
}

/* Keys of g that `made` lacks or has otherwise. */
static struct gguf_keys *difference(const struct gguf *g, const struct gguf *made, size_t *n)
{
    struct gguf_keys *keys = gguf_keys_create();
    bool behind = integer_of(g, ".nextn_predict_layers") > 0;
    *n = 0;
    for (size_t i = 0; keys && i < gguf_kv_count(g); i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i), *other = NULL;
        if (behind && (ends_with(kv->key, ".nextn_predict_layers") || ends_with(kv->key, ".block_count")))
            continue; /* which would count layers that a GGUF of ours does not hold */
        for (size_t j = 0; j < gguf_kv_count(made) && !other; j++) {
            const struct gguf_kv *x = gguf_kv_at(made, j);
            if (x->key.size == kv->key.size && memcmp(x->key.text, kv->key.text, x->key.size) == 0)
                other = x;
        }
        if (gguf_key_of_storage(kv->key) || (other && same_value(kv, other)))
            continue;
        gguf_add_kv(keys, kv);
        ++*n;
    }
    return keys;
}

bool gguf_write_carried(const struct gguf *g, const char *dir, const struct model_config *c, uint32_t vocab,
                        struct err *e)
{
    struct gguf_facts facts = {.vocab = vocab, .quiet = true};
    struct gguf_keys *keys = NULL;
    struct gguf *made = NULL;
    char path[4096];
    size_t n = 0;
    if (!os_path_join(path, sizeof path, dir, GGUF_CARRIED, e))
        return false;
    os_remove(path);
    bool ok = gguf_export_keys(&keys, dir, c, &facts, e) && write_keys(path, keys, e) && gguf_open(&made, path, e);
    gguf_keys_destroy(&keys);
    if (ok && !(keys = difference(g, made, &n)))
        ok = err_nomem(e, "the keys of a GGUF", 64);
    if (made)
        gguf_close(&made);
    os_remove(path);
    ok = ok && (n == 0 || write_keys(path, keys, e));
    gguf_keys_destroy(&keys);
    return ok;
}
