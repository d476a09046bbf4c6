#include "formats/read/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_type.h"
#include "formats/read/value_heads.h"
#include "host/base/grow.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"

#define SUMS   ".in_sum2"
#define COUNTS ".counts"
#define MEANS  ".in_sum"
/* As long as a tensor's name may be. */
#define NAME_BYTES 64
/* A name of the older form: longer ones mean that it is something else. */
#define DAT_NAME_MAX 255
/* Of a mean square of an input: a Hessian of more is no float. */
#define MEAN_MAX 1e30

/* ---- in memory ---- */

bool imatrix_add(struct imatrix *m, const char *module, uint32_t cols, double count, float **sums, struct err *e)
{
    struct imatrix_entry *grown = grow(m->entries, &m->cap, m->n, sizeof *grown, "an importance matrix", e);
    if (!grown)
        return false;
    m->entries = grown;
    struct imatrix_entry x = {
        .module = str_dup(module), .cols = cols, .count = count, .sums = calloc(cols, sizeof(float))};
    bool added = false;
    if (!x.module || !x.sums || !strmap_add(&m->by_module, x.module, strlen(x.module), (uint32_t)m->n, &added)) {
        free(x.module);
        free(x.sums);
        return err_nomem(e, "an importance matrix", (uint64_t)cols * sizeof(float));
    }
    m->entries[m->n++] = x;
    *sums = x.sums;
    return true;
}

void imatrix_free(struct imatrix *m)
{
    strmap_free(&m->by_module);
    for (size_t i = 0; i < m->n; i++) {
        free(m->entries[i].sums);
        free(m->entries[i].module);
    }
    free(m->entries);
    free(m->dataset);
    *m = (struct imatrix){0};
}

const struct imatrix_entry *imatrix_find(const struct imatrix *m, const char *module)
{
    uint32_t i;
    return strmap_find(&m->by_module, module, strlen(module), &i) ? &m->entries[i] : NULL;
}

/* ---- reading ---- */

/* The older form: i32 entries, then i32 length, name, i32 calls, i32 n, f32[n] of each. */
static bool looks_like_dat(const uint8_t *bytes, size_t size)
{
    static const char weight[] = ".weight";
    if (size < 8)
        return false;
    uint32_t entries = load_u32le(bytes), length = load_u32le(bytes + 4);
    if (entries == 0 || length < sizeof weight || length > DAT_NAME_MAX || size - 8 < length)
        return false;
    return memcmp(bytes + 8 + length - (sizeof weight - 1), weight, sizeof weight - 1) == 0;
}

static bool refuse_dat(const uint8_t *bytes, size_t size, const char *path, struct err *e)
{
    if (!looks_like_dat(bytes, size))
        return true;
    err_set(e, ERR_USER, "%s is an importance matrix in the older .dat form, which gsq does not read", path);
    return err_hint(e, "convert it: llama-imatrix --in-file %.200s -o imatrix.gguf; or make one with gsq imatrix",
                    path);
}

static bool bad(const char *path, const struct gguf_tensor *t, const char *what, struct err *e)
{
    err_set(e, ERR_USER, "%s: %s %s", path, t->name, what);
    return err_hint(e, "make it again: gsq imatrix MODEL --calib TEXT -o imatrix.gguf");
}

/* "blk.0.attn_v.weight" */
static const char *weight_of(const struct gguf_tensor *t, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "%.*s", (int)(strlen(t->name) - strlen(SUMS)), t->name);
    return out;
}

/* What the weight of a tensor is called in this model; of experts that one's. */
static bool module_of(const char *path, const struct gguf_tensor *t, uint32_t expert, const struct checkpoint *ck,
                      struct weight_info *info, char *module, size_t cap, struct err *e)
{
    char weight[NAME_BYTES], hf[128];
    bool known = gguf_name_to_hf(checkpoint_config(ck), weight_of(t, weight), expert, hf, sizeof hf);
    if (gguf_name_to_mixed(checkpoint_config(ck), weight, hf, sizeof hf - strlen(".weight")) ||
        gguf_name_to_shared(checkpoint_config(ck), weight, hf, sizeof hf - strlen(".weight"))) { /* both see the same */
        strcat(hf, ".weight");
        known = true;
    }
    size_t n = known ? strlen(hf) : 0, suffix = strlen(".weight");
    known = known && n > suffix && strcmp(hf + n - suffix, ".weight") == 0;
    if (known) {
        hf[n - suffix] = '\0';
        const struct model_config *c = checkpoint_config(ck);
        bool head = strcmp(hf, config_head_name(c)) == 0, embedding = str_ends(hf, "embed_tokens");
        if (head || (embedding && c->tie_word_embeddings))
            snprintf(hf, sizeof hf, "%s", checkpoint_head_module(ck));
        known = checkpoint_has_module(ck, hf);
    }
    if (!known) {
        err_set(e, ERR_USER, "%s: %s belongs to no weight of %s", path, t->name, checkpoint_dir(ck));
        return err_hint(e, "the importance matrix was made from another model: make one with gsq imatrix");
    }
    snprintf(module, cap, "%s", hf);
    return checkpoint_weight(ck, hf, info, e);
}

/* NAME.counts of NAME.in_sum2, and the other way round. NULL: it is missing. */
static const struct gguf_tensor *beside(const struct gguf *g, const struct gguf_tensor *t, const char *suffix,
                                        const char *other)
{
    char name[NAME_BYTES + 8];
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(t->name) - strlen(suffix)), t->name, other);
    return gguf_tensor_find(g, name);
}

/* Sums that mean nothing would make codes that mean nothing. */
static bool check_sums(const char *path, const struct gguf_tensor *t, const struct imatrix_entry *x, struct err *e)
{
    double most = 0;
    for (uint32_t c = 0; c < x->cols; c++) {
        if (!(x->sums[c] >= 0) || !isfinite(x->sums[c]))
            return bad(path, t, "holds a negative number or NaN", e);
        most = fmax(most, (double)x->sums[c] / x->count);
    }
    return most <= MEAN_MAX || bad(path, t, "holds impossibly large numbers", e);
}

/* Row i of n in tensor NAME.in_sum2. A count of 0 is an expert's that no token chose: it is left for share_sums. */
static bool read_row(struct imatrix *m, const struct gguf_tensor *t, const struct gguf_tensor *counts, uint32_t i,
                     uint32_t n, const char *path, const struct checkpoint *ck, struct err *e)
{
    char module[96];
    struct weight_info info;
    float count, *sums;
    if (!module_of(path, t, i, ck, &info, module, sizeof module, e))
        return false;
    if (t->ne[0] != info.cols) {
        err_set(e, ERR_USER, "%s: %s has %" PRIu64 " columns, %s of %s has %" PRIu32, path, t->name, t->ne[0], module,
                checkpoint_dir(ck), info.cols);
        return err_hint(e, "the importance matrix was made from another model: make one with gsq imatrix");
    }
    /* The head under both of its names, parts of one matrix. */
    if (imatrix_find(m, module))
        return true;
    memcpy(&count, counts->data + i * sizeof count, sizeof count);
    if (!(count > 0 || (count == 0 && n > 1)) || !isfinite(count))
        return bad(path, t, "was summed over 0 tokens", e);
    if (!imatrix_add(m, module, info.cols, (double)count, &sums, e))
        return false;
    memcpy(sums, t->data + (size_t)i * info.cols * 4, (size_t)info.cols * 4);
    if (!checkpoint_config(ck)->delta.tiled &&
        !value_heads_turn_columns(checkpoint_config(ck), module, false, sums, info.cols, e))
        return false;
    return count == 0 || check_sums(path, t, &m->entries[m->n - 1], e);
}

/* Of n experts those without tokens get what all others of the layer saw. */
static bool share_sums(struct imatrix *m, uint32_t n, const char *path, const struct gguf_tensor *t, struct err *e)
{
    struct imatrix_entry *x = m->entries + m->n - n;
    const uint32_t cols = x->cols;
    double count = 0, *all = calloc(cols, sizeof *all);
    if (!all)
        return err_nomem(e, "an importance matrix", cols * sizeof *all);
    for (uint32_t i = 0; i < n; i++) {
        count += x[i].count;
        for (uint32_t c = 0; c < cols && x[i].count > 0; c++)
            all[c] += (double)x[i].sums[c];
    }
    for (uint32_t i = 0; i < n; i++) {
        if (x[i].count > 0)
            continue;
        x[i].count = count;
        for (uint32_t c = 0; c < cols; c++)
            x[i].sums[c] = (float)all[c];
    }
    free(all);
    return count > 0 || bad(path, t, "was summed over 0 tokens", e);
}

/* Tensor NAME.in_sum2, with its NAME.counts. */
static bool read_entry(struct imatrix *m, const struct gguf *g, const struct gguf_tensor *t, const char *path,
                       const struct checkpoint *ck, struct err *e)
{
    const struct model_config *c = checkpoint_config(ck);
    const struct gguf_tensor *counts = beside(g, t, SUMS, COUNTS);
    char weight[NAME_BYTES], module[96];
    if (gguf_name_to_latent(c, weight_of(t, weight), module, sizeof module))
        return true;
    uint32_t n = c->experts.n && gguf_name_of_experts(weight_of(t, weight)) ? c->experts.n : 1;
    if (!counts)
        return bad(path, t, "has no counts beside it", e);
    if (t->type != GGML_F32 || counts->type != GGML_F32)
        return bad(path, t, "or its counts are not F32", e);
    if (t->ne[1] * t->ne[2] != n || t->ne[3] != 1 || counts->bytes != 4ull * n)
        return bad(path, t,
                   n > 1 ? "does not cover the experts that the model has"
                         : "covers several matrices, but the model's weight is one",
                   e);
    bool ok = true;
    for (uint32_t i = 0; ok && i < n; i++)
        ok = read_row(m, t, counts, i, n, path, ck, e);
    return ok && (n == 1 || share_sums(m, n, path, t, e));
}

static bool read_facts(struct imatrix *m, const struct gguf *g, const char *path, struct err *e)
{
    struct gguf_string type = {0};
    uint64_t chunks = 0, size = 0;
    enum gguf_got got = gguf_get_string(g, "general.type", &type, e);
    if (got == GGUF_BAD)
        return false;
    if (got == GGUF_ABSENT || type.size != 7 || memcmp(type.text, "imatrix", 7) != 0) {
        err_set(e, ERR_USER, "%s is a GGUF, but not an importance matrix (its general.type is not \"imatrix\")", path);
        return err_hint(e, "make one with gsq imatrix or llama-imatrix");
    }
    if (gguf_get_u64(g, "imatrix.chunk_count", &chunks, e) == GGUF_BAD ||
        gguf_get_u64(g, "imatrix.chunk_size", &size, e) == GGUF_BAD)
        return false;
    m->chunks = (uint32_t)min_u64(chunks, UINT32_MAX);
    m->chunk_size = (uint32_t)min_u64(size, UINT32_MAX);
    const struct gguf_kv *kv = gguf_find(g, "imatrix.datasets");
    if (kv && kv->type == GGUF_ARRAY && kv->element == GGUF_STRING && kv->n > 0) {
        const uint8_t *at = kv->data;
        struct gguf_string s = gguf_next_string(&at);
        m->dataset = str_dup_n(s.text, s.size);
    }
    return true;
}

bool imatrix_parse(struct imatrix *m, const uint8_t *bytes, size_t size, const char *path, const struct checkpoint *ck,
                   struct err *e)
{
    struct gguf *g = NULL;
    *m = (struct imatrix){.config = checkpoint_config(ck)};
    bool ok = refuse_dat(bytes, size, path, e) && gguf_parse(&g, bytes, size, path, e) && read_facts(m, g, path, e);
    for (size_t i = 0; ok && i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (str_ends(t->name, SUMS))
            ok = read_entry(m, g, t, path, ck, e);
        else if (str_ends(t->name, MEANS)) /* of newer files, beside the squares */
            continue;
        else if (!str_ends(t->name, COUNTS))
            ok = bad(path, t, "is neither sums of squares nor counts", e);
        else if (!beside(g, t, COUNTS, SUMS))
            ok = bad(path, t, "has no sums of squares", e);
    }
    if (ok && m->n == 0) {
        ok = err_set(e, ERR_USER, "%s is an empty importance matrix", path);
        err_hint(e, "make one with gsq imatrix or llama-imatrix");
    }
    gguf_close(&g);
    if (!ok)
        imatrix_free(m);
    return ok;
}

bool imatrix_read(struct imatrix *m, const char *path, const struct checkpoint *ck, struct err *e)
{
    struct os_map f;
    *m = (struct imatrix){0};
    if (!os_map_model(&f, path, e))
        return false;
    bool ok = imatrix_parse(m, f.data, (size_t)f.size, path, ck, e);
    os_unmap(&f);
    return ok;
}

/* ---- writing ---- */

/* Entries of one tensor. */
struct named {
    char name[NAME_BYTES]; /* "blk.0.attn_q.weight" */
    char sums[NAME_BYTES + 8], counts[NAME_BYTES + 8];
    const struct imatrix_entry *first;
    uint32_t n; /* experts of a layer; else 1 */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* Names of an entry: in a GGUF one matrix may also be two tensors. */
enum { MOST_NAMES = 3 };

static void add_named(struct named *x, const char *name, const struct imatrix_entry *first)
{
    snprintf(x->name, sizeof x->name, "%s", name);
    snprintf(x->sums, sizeof x->sums, "%s" SUMS, x->name);
    snprintf(x->counts, sizeof x->counts, "%s" COUNTS, x->name);
    x->first = first;
    x->n = 1;
}

static bool name_entries(const struct imatrix *m, struct named *list, size_t *n, struct err *e)
{
    *n = 0;
    for (size_t i = 0; i < m->n; i++) {
        struct named *x = &list[*n];
        char hf[128], name[NAME_BYTES];
        snprintf(hf, sizeof hf, "%s.weight", m->entries[i].module);
        if (!gguf_name_of(m->config, hf, name, sizeof name))
            return err_set(e, ERR_BUG, "%s has no name in a GGUF", hf);
        if (i && strcmp(name, x[-1].name) == 0) {
            x[-1].n++;
            continue;
        }
        add_named(&list[(*n)++], name, &m->entries[i]);
        for (int part = MIXED_QKV; part <= MIXED_GATE; part++) {
            char other[NAME_BYTES];
            if (gguf_name_of_mixed(name, (enum gguf_mixed)part, other, sizeof other))
                add_named(&list[(*n)++], other, &m->entries[i]);
        }
        if (gguf_name_to_shared(m->config, name, hf, sizeof hf) == SHARED_UP) {
            uint32_t layer = (uint32_t)strtoul(name + strlen("blk."), NULL, 10);
            add_named(&list[(*n)++], gguf_name_of_shared(SHARED_GATE, layer, name), &m->entries[i]);
        }
    }
    qsort(list, *n, sizeof *list, by_name);
    return true;
}

static struct gguf_keys *facts(const struct imatrix *m)
{
    struct gguf_keys *k = gguf_keys_create();
    const char *set = m->dataset ? m->dataset : "";
    gguf_add_string(k, "general.type", "imatrix", 7);
    gguf_add_strings(k, "imatrix.datasets", &(struct gguf_string){set, strlen(set)}, 1);
    gguf_add_u32(k, "imatrix.chunk_count", m->chunks);
    gguf_add_u32(k, "imatrix.chunk_size", m->chunk_size);
    return k;
}

/* In the order of a GGUF's columns. */
static bool put_sums(const struct imatrix *m, const struct imatrix_entry *x, struct gguf_writer *w, struct err *e)
{
    const size_t bytes = (size_t)x->cols * sizeof *x->sums;
    float *v = malloc(bytes + 1);
    if (!v)
        return err_nomem(e, x->module, bytes);
    memcpy(v, x->sums, bytes);
    bool ok = (m->config->delta.tiled || value_heads_turn_columns(m->config, x->module, true, v, x->cols, e)) &&
              gguf_writer_put(w, v, bytes, e);
    free(v);
    return ok;
}

static bool write_file(const struct imatrix *m, const struct named *list, size_t n, const struct gguf_tensor_plan *plan,
                       const char *path, struct err *e)
{
    struct gguf_keys *k = facts(m);
    struct gguf_writer *w = NULL;
    gguf_keys_seal(k, plan, 2 * n);
    bool ok = gguf_writer_open(&w, path, k, plan, 2 * n, e);
    for (size_t i = 0; ok && i < n; i++) {
        const struct imatrix_entry *x = list[i].first;
        for (uint32_t r = 0; ok && r < list[i].n; r++)
            ok = put_sums(m, &x[r], w, e);
        for (uint32_t r = 0; ok && r < list[i].n; r++) {
            float count = (float)x[r].count;
            ok = gguf_writer_put(w, &count, 4, e);
        }
    }
    if (ok)
        ok = gguf_writer_close(&w, e);
    else
        gguf_writer_abort(&w);
    gguf_keys_destroy(&k);
    return ok;
}

bool imatrix_write(const struct imatrix *m, const char *path, struct err *e)
{
    struct named *list = calloc(MOST_NAMES * m->n + 1, sizeof *list);
    struct gguf_tensor_plan *plan = calloc(2 * MOST_NAMES * m->n + 1, sizeof *plan);
    size_t n = 0;
    bool ok = list && plan ? name_entries(m, list, &n, e)
                           : err_nomem(e, "an importance matrix", (m->n + 1) * (sizeof *list + 2 * sizeof *plan));
    for (size_t i = 0; ok && i < n; i++) {
        uint32_t rows = list[i].n, dims = rows > 1 ? 2 : 1;
        plan[2 * i] = (struct gguf_tensor_plan){
            .name = list[i].sums, .n_dims = dims, .ne = {list[i].first->cols, rows, 1, 1}, .type = GGML_F32};
        plan[2 * i + 1] =
            (struct gguf_tensor_plan){.name = list[i].counts, .n_dims = dims, .ne = {1, rows, 1, 1}, .type = GGML_F32};
    }
    ok = ok && write_file(m, list, n, plan, path, e);
    free(plan);
    free(list);
    return ok;
}

/* ---- of some weights only ---- */

static bool named(const struct imatrix *m, const struct imatrix_entry *x, const char *text)
{
    char name[128];
    if (!gguf_name_of(m->config, x->module, name, sizeof name))
        return false;
    strcat(name, ".weight");
    return strstr(name, text) != NULL;
}

bool imatrix_limit(struct imatrix *m, const char *const *names, size_t n, bool skip, struct err *e)
{
    for (size_t k = 0; k < n; k++) {
        size_t hits = 0;
        for (size_t i = 0; i < m->n; i++)
            hits += named(m, &m->entries[i], names[k]);
        if (hits)
            continue;
        err_set(e, ERR_USER, "the importance matrix has no weight whose name holds \"%s\"", names[k]);
        return err_hint(e, "names are those of llama.cpp, such as attn_v or blk.0.ffn_down");
    }
    for (size_t i = 0; n && i < m->n; i++) {
        struct imatrix_entry *x = &m->entries[i];
        bool hit = false;
        for (size_t k = 0; k < n; k++)
            hit = hit || named(m, x, names[k]);
        if (hit != skip)
            continue;
        x->count = 1;
        for (uint32_t c = 0; c < x->cols; c++)
            x->sums[c] = 1;
    }
    return true;
}
