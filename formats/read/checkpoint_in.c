#include "formats/read/checkpoint_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "formats/read/checkpoint_folder.h"
#include "formats/read/checkpoint_gguf.h"
#include "formats/read/tensor_values.h"
#include "formats/read/value_heads.h"
#include "formats/foreign.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"

struct checkpoint {
    char *dir;
    struct model_config config;
    const struct model_source *source;
    void *self;         /* the source's; NULL: not open */
    char embedding[64]; /* module names */
};

/* ---- opening ---- */

/* What is called so must be one; under other names the magic number tells. */
static bool is_gguf(const char *path)
{
    char magic[4] = "";
    if (str_ends_nocase(path, ".gguf"))
        return true;
    FILE *f = os_fopen(path, "rb");
    bool found = f && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    return found;
}

static bool check_path(const char *path, struct err *e)
{
    enum os_kind kind = os_stat(path, NULL);
    if (kind == OS_DIR || (kind == OS_FILE && is_gguf(path)))
        return true;
    if (kind == OS_ABSENT) {
        err_set(e, ERR_USER, "there is no file or folder %s", path);
        return err_hint(e, "MODEL is a folder with config.json and safetensors, a GGUF file, or the name of a model "
                           "in the Hugging Face cache (org/name); check the spelling of the path");
    }
    if (kind == OS_OTHER) {
        err_set(e, ERR_USER, "%s is neither a folder nor a regular file", path);
        return err_hint(e, "a model cannot be read from a pipe or device: name a folder or a GGUF file");
    }
    char begin[64];
    FILE *f = os_fopen(path, "rb");
    size_t n = f ? fread(begin, 1, sizeof begin, f) : 0;
    if (f)
        fclose(f);
    if (foreign_file(path, begin, n, e))
        return false;
    err_set(e, ERR_USER, "%s is a file, not a model folder, and not a GGUF", path);
    return err_hint(e, "name the folder that holds config.json, or a GGUF file");
}

bool checkpoint_open(struct checkpoint **out, const char *path, struct err *e)
{
    *out = NULL;
    if (!check_path(path, e))
        return false;
    struct checkpoint *c = *out = calloc(1, sizeof *c);
    if (!c || !(c->dir = str_dup(path))) {
        checkpoint_close(out);
        return err_nomem(e, "a model", sizeof *c);
    }
    bool file = os_stat(path, NULL) == OS_FILE;
    c->source = file ? &gguf_source : &folder_source;
    c->self = file ? gguf_source_open(path, &c->config, e) : folder_source_open(path, &c->config, e);
    config_part_name(&c->config, "embed_tokens", c->embedding, sizeof c->embedding);
    if (c->self)
        return true;
    checkpoint_close(out);
    return false;
}

bool checkpoint_set_tiled(struct checkpoint *c, bool tiled, struct err *e)
{
    if (!value_heads_differ(&c->config) || c->config.delta.tiled == tiled)
        return true;
    c->config.delta.tiled = tiled;
    c->self = value_heads_open(c->source, c->self, &c->config, e);
    c->source = &value_heads_source;
    return c->self != NULL;
}

void checkpoint_close(struct checkpoint **out)
{
    struct checkpoint *c = *out;
    if (!c)
        return;
    if (c->self)
        c->source->close(c->self);
    config_free(&c->config);
    free(c->dir);
    free(c);
    *out = NULL;
}

const struct model_config *checkpoint_config(const struct checkpoint *c)
{
    return &c->config;
}

/* ---- kv_b of latent attention as two matrices ---- */

void checkpoint_split_latent(struct checkpoint *c)
{
    c->config.mla.split = c->config.mla.kv_rank > 0;
}

/* Where the name of a block's part begins in a module's; NULL: the module is not that part. */
static const char *ends_with(const char *module, enum role role)
{
    const char *part = block_part_of(role)->hf;
    size_t n = strlen(module), m = strlen(part);
    return n > m && module[n - m - 1] == '.' && strcmp(module + n - m, part) == 0 ? module + n - m : NULL;
}

/* One of the two matrices. */
struct latent_part {
    bool keys;
    uint32_t rows, cols; /* its own */
    char whole[96];      /* the module that holds it */
};

static bool latent_part(const struct checkpoint *c, const char *module, struct latent_part *x)
{
    const struct mla_config *l = &c->config.mla;
    const char *k = l->split ? ends_with(module, ROLE_K_B) : NULL, *v = l->split ? ends_with(module, ROLE_V_B) : NULL;
    if (!k && !v)
        return false;
    x->keys = k != NULL;
    x->rows = c->config.num_heads * (k ? l->kv_rank : l->values);
    x->cols = k ? l->nope : l->kv_rank;
    snprintf(x->whole, sizeof x->whole, "%.*s%s", (int)((k ? k : v) - module), module, block_part_of(ROLE_KV_B)->hf);
    return true;
}

const char *checkpoint_holder(const struct checkpoint *c, const char *module, char out[96])
{
    struct latent_part x;
    snprintf(out, 96, "%s", latent_part(c, module, &x) ? x.whole : module);
    return out;
}

static bool latent_weight(const struct checkpoint *c, const struct latent_part *x, struct weight_info *out,
                          struct err *e)
{
    const struct mla_config *l = &c->config.mla;
    const uint32_t rows = c->config.num_heads * (l->nope + l->values), cols = l->kv_rank;
    if (!c->source->weight(c->self, x->whole, out, e))
        return false;
    if (out->rows != rows || out->cols != cols) {
        err_set(e, ERR_USER, "%s of %s is %u x %u, where its configuration says %u x %u", x->whole, c->dir,
                (unsigned)out->rows, (unsigned)out->cols, (unsigned)rows, (unsigned)cols);
        return err_hint(e, "check config.json against the one of the original model");
    }
    out->bytes = out->bytes / ((uint64_t)rows * cols) * x->rows * x->cols;
    out->rows = x->rows;
    out->cols = x->cols;
    out->blocks = NULL; /* they lie otherwise in the whole */
    return true;
}

static bool latent_read(const struct checkpoint *c, const struct latent_part *x, uint32_t row0, uint32_t rows,
                        float *dst, struct err *e)
{
    const struct mla_config *l = &c->config.mla;
    const uint32_t each = x->keys ? l->kv_rank : l->values, of_head = l->nope + l->values;
    float *k = malloc((size_t)l->nope * l->kv_rank * sizeof *k); /* k's part of a head */
    if (!k)
        return err_nomem(e, x->whole, (uint64_t)l->nope * l->kv_rank * sizeof *k);
    bool ok = true;
    for (uint32_t r = row0, n; ok && r < row0 + rows; r += n) {
        const uint32_t head = r / each, in = r % each;
        float *to = dst + (size_t)(r - row0) * x->cols;
        n = (uint32_t)min_u64(each - in, row0 + rows - r);
        if (!x->keys) {
            ok = c->source->read(c->self, x->whole, head * of_head + l->nope + in, n, to, e);
            continue;
        }
        ok = c->source->read(c->self, x->whole, head * of_head, l->nope, k, e);
        for (uint32_t j = 0; ok && j < n; j++)
            for (uint32_t i = 0; i < l->nope; i++)
                to[(size_t)j * l->nope + i] = k[(size_t)i * l->kv_rank + in + j];
    }
    free(k);
    return ok;
}

const char *checkpoint_dir(const struct checkpoint *c)
{
    return c->dir;
}

const struct gguf *checkpoint_gguf(const struct checkpoint *c)
{
    return c->source->file ? c->source->file(c->self) : NULL;
}

size_t checkpoint_tensor_count(const struct checkpoint *c)
{
    return c->source->count(c->self);
}

const struct tensor *checkpoint_tensor_at(const struct checkpoint *c, size_t i)
{
    return c->source->at(c->self, i);
}

const struct tensor *checkpoint_tensor_find(const struct checkpoint *c, const char *name)
{
    return c->source->find(c->self, name);
}

const char *checkpoint_tensor_path(const struct checkpoint *c, const struct tensor *t)
{
    return c->source->path(c->self, t);
}

void checkpoint_drop(const struct checkpoint *c, const struct tensor *t)
{
    c->source->drop(c->self, t);
}

static const struct tensor *part(const struct checkpoint *c, const char *module, const char *suffix)
{
    return source_tensor(c->source, c->self, module, suffix);
}

void checkpoint_drop_module(const struct checkpoint *c, const char *module)
{
    static const char *const parts[] = {".weight", ".bias",          ".qweight",      ".qzeros", ".scales",
                                        ".g_idx",  ".weight_packed", ".weight_scale", ".biases", ".weight_scale_inv",
                                        ".values"};
    char holder[96];
    checkpoint_holder(c, module, holder);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const struct tensor *t = part(c, holder, parts[i]);
        if (t)
            checkpoint_drop(c, t);
    }
}

bool checkpoint_is_packed(const struct checkpoint *c, const char *module, const char *suffix)
{
    return c->source->is_packed(c->self, module, suffix);
}

bool checkpoint_config_text(const struct checkpoint *c, char **text, size_t *size, struct err *e)
{
    return c->source->config_text(c->self, text, size, e);
}

/* ---- modules ---- */

bool checkpoint_has_module(const struct checkpoint *c, const char *module)
{
    struct latent_part x;
    if (latent_part(c, module, &x))
        module = x.whole;
    else if (c->config.mla.split && ends_with(module, ROLE_KV_B))
        return false;
    return c->source->is_packed(c->self, module, NULL) || part(c, module, ".weight");
}

/* A matrix that is tied is known to be there when only the other one is: models store either name. */

const char *checkpoint_embedding_module(const struct checkpoint *c)
{
    const char *head = config_head_name(&c->config);
    bool swap =
        !checkpoint_has_module(c, c->embedding) && c->config.tie_word_embeddings && checkpoint_has_module(c, head);
    return swap ? head : c->embedding;
}

const char *checkpoint_head_module(const struct checkpoint *c)
{
    const char *head = config_head_name(&c->config);
    bool swap = !checkpoint_has_module(c, head) && c->config.tie_word_embeddings;
    return swap ? c->embedding : head;
}

bool checkpoint_weight(const struct checkpoint *c, const char *module, struct weight_info *out, struct err *e)
{
    struct latent_part x;
    return latent_part(c, module, &x) ? latent_weight(c, &x, out, e) : c->source->weight(c->self, module, out, e);
}

const struct tensor *checkpoint_dense(const struct checkpoint *c, const char *module)
{
    return c->source->is_packed(c->self, module, NULL) ? NULL : part(c, module, ".weight");
}

const struct tensor *checkpoint_stored(const struct checkpoint *c, const char *module)
{
    char holder[96];
    return part(c, checkpoint_holder(c, module, holder), ".weight");
}

const struct tensor *checkpoint_bias(const struct checkpoint *c, const char *module)
{
    return part(c, module, ".bias");
}

/* ---- values ---- */

bool checkpoint_read_f32(const struct checkpoint *c, const char *module, uint32_t row0, uint32_t rows, float *dst,
                         struct err *e)
{
    struct latent_part x;
    return latent_part(c, module, &x) ? latent_read(c, &x, row0, rows, dst, e)
                                      : c->source->read(c->self, module, row0, rows, dst, e);
}

bool checkpoint_read_codes(const struct checkpoint *c, const char *module, struct qlinear *q, struct err *e)
{
    struct weight_info w;
    *q = (struct qlinear){0};
    if (!checkpoint_weight(c, module, &w, e))
        return false;
    struct latent_part x;
    if (latent_part(c, module, &x))
        return err_set(e, ERR_BUG, "%s: its codes lie otherwise in %s", module, x.whole);
    if (!w.quantized)
        return err_set(e, ERR_USER, "%s of %s is not quantized", module, c->dir);
    if (!qlinear_init(q, w.rows, w.cols, w.spec, e))
        return false;
    if (c->source->codes(c->self, module, q, e))
        return true;
    qlinear_free(q);
    return false;
}

bool checkpoint_read_blocks(const struct checkpoint *c, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                            struct err *e)
{
    struct weight_info w;
    if (!checkpoint_weight(c, module, &w, e))
        return false;
    if (!w.blocks || row0 > w.rows || rows > w.rows - row0)
        return err_set(e, ERR_BUG, "blocks of rows %u to %u of %s", (unsigned)row0, (unsigned)(row0 + rows), module);
    return c->source->blocks(c->self, module, row0, rows, dst, e);
}

bool checkpoint_check_finite(const struct checkpoint *c, const char *module, struct err *e)
{
    char holder[96];
    module = checkpoint_holder(c, module, holder);
    const struct tensor *bias = checkpoint_bias(c, module);
    return (!bias || tensor_check_finite(bias, checkpoint_tensor_path(c, bias), e)) &&
           c->source->check_finite(c->self, module, e);
}
