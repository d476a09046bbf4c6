/* The plan of an exported folder: every tensor, its shard, and the JSON texts. Nothing is read but headers,
 * except that F32 models are scanned for values beyond fp16. */
#include "formats/write/hf_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/gguf/gguf.h"
#include "formats/write/carried.h"
#include "formats/gguf/gguf_names.h"
#include "formats/write/hf_linear.h"
#include "formats/write/hf_quant_config.h"
#include "formats/json.h"
#include "formats/read/tensor_values.h"
#include "formats/side_file.h"
#include "host/base/grow.h"
#include "host/base/num.h"

/* Hubs and tools expect shards under 5 GB; the header needs a little of that too. */
#define SHARD_BYTES UINT64_C(4990000000)

static struct export_entry *add_entry(struct hf_plan *p, struct export_entry x, struct err *e)
{
    struct export_entry *grown = grow(p->entries, &p->cap_entries, p->n_entries, sizeof *grown, "the export plan", e);
    if (!grown)
        return NULL;
    p->entries = grown;
    x.first = p->n_tensors;
    p->entries[p->n_entries] = x;
    return &p->entries[p->n_entries++];
}

/* A tensor of the newest entry: module + suffix. */
static bool add_tensor(struct hf_plan *p, const char *module, const char *suffix, enum dtype dtype, uint32_t n_dims,
                       const uint64_t *shape, struct err *e)
{
    struct tensor_plan *grown = grow(p->tensors, &p->cap_tensors, p->n_tensors, sizeof *grown, "the export plan", e);
    struct strbuf name = {0};
    if (!grown)
        return false;
    p->tensors = grown;
    strbuf_puts(&name, module);
    strbuf_puts(&name, suffix);
    if (name.failed) {
        strbuf_free(&name);
        return err_nomem(e, "the export plan", strlen(module));
    }
    struct tensor_plan *t = &p->tensors[p->n_tensors++];
    *t = (struct tensor_plan){.name = name.data, .dtype = dtype, .n_dims = n_dims};
    uint64_t bytes = dtype_size(dtype);
    for (uint32_t i = 0; i < n_dims; i++) {
        t->shape[i] = shape[i];
        bytes *= shape[i];
    }
    struct export_entry *x = &p->entries[p->n_entries - 1];
    x->n++;
    x->bytes += bytes;
    p->data_bytes += bytes;
    return true;
}

/* ---- the model's 16-bit type ---- */

/* Tables of rotary frequencies, and what decides between nearly equal scores, would lose what they are for: they stay as they
 * are. */
static bool stays_f32(const struct tensor *t)
{
    return str_ends(t->name, ".inv_freq") || str_ends(t->name, ".e_score_correction_bias") ||
           str_ends(t->name, ".A_log") || str_ends(t->name, ".dt_bias");
}

/* DTYPE_F16 or BF16: what config.json says; where it says float32 or nothing, what most of the weights are,
 * and fp16 for F32. */
static enum dtype source_dtype(const struct checkpoint *src)
{
    const char *said = checkpoint_config(src)->torch_dtype;
    uint64_t bytes[3] = {0, 0, 0};
    if (strcmp(said, "bfloat16") == 0)
        return DTYPE_BF16;
    if (strcmp(said, "float16") == 0)
        return DTYPE_F16;
    for (size_t i = 0; i < checkpoint_tensor_count(src); i++) {
        const struct tensor *t = checkpoint_tensor_at(src, i);
        if (t->dtype <= DTYPE_BF16)
            bytes[t->dtype] += t->bytes;
    }
    return bytes[DTYPE_BF16] > bytes[DTYPE_F32] && bytes[DTYPE_BF16] > bytes[DTYPE_F16] ? DTYPE_BF16 : DTYPE_F16;
}

enum scale_type export_scale_type(enum export_format f, const struct checkpoint *src)
{
    bool fp16 = f == EXPORT_GPTQ || f == EXPORT_GPTQ_V2;
    return !fp16 && source_dtype(src) == DTYPE_BF16 ? SCALE_BF16 : SCALE_F16;
}

static bool tensor_exceeds_f16(const struct tensor *t)
{
    float block[1024];
    bool wide = t && (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16), over = false;
    uint64_t n = wide ? t->bytes / dtype_size(t->dtype) : 0;
    for (uint64_t at = 0; at < n && !over; at += 1024) {
        uint64_t count = min_u64(n - at, 1024);
        if (!tensor_read_f32(t, at, count, block, NULL))
            return false;
        for (uint64_t j = 0; j < count; j++)
            over |= fabsf(block[j]) > 65504.0f;
    }
    return over;
}

/* Whether the numbers are to be converted to the model's 16-bit type. */
static bool converts(const struct export_entry *x)
{
    return x->kind == ENTRY_CONVERT || ((x->kind == ENTRY_DENSE || x->kind == ENTRY_STACK) && !x->exact);
}

/* The tensor of a part of an expert that a stack holds; NULL: there is none. */
static const struct tensor *stack_tensor(const struct checkpoint *src, const struct export_entry *x, uint32_t expert,
                                         uint32_t which)
{
    char module[128];
    expert_stack_part(x->stack, checkpoint_config(src), x->layer, expert, which, module, sizeof module);
    return x->biases ? checkpoint_bias(src, module) : checkpoint_stored(src, module);
}

/* True if a tensor to be converted holds a value that fp16 does not. Rows that a GGUF has in another order
 * are values of a float type too. */
static bool exceeds_f16(const struct hf_plan *p, const struct checkpoint *src)
{
    bool over = false;
    for (size_t i = 0; i < p->n_entries && !over; i++) {
        const struct export_entry *x = &p->entries[i];
        if (x->kind == ENTRY_STACK && converts(x))
            for (uint32_t k = 0, of = expert_stack_parts(x->stack); k < of * checkpoint_config(src)->experts.n; k++)
                over = over || tensor_exceeds_f16(stack_tensor(src, x, k / of, k % of));
        else if (converts(x))
            over = tensor_exceeds_f16(x->kind == ENTRY_DENSE ? checkpoint_stored(src, x->module) : x->tensor);
    }
    return over;
}

/* Entries are planned before the type is known; both types have the same size. */
static void choose_dtype(struct hf_plan *p)
{
    bool bf16 = false; /* scales are of the model's own 16-bit type: its loader takes them for that */
    for (size_t i = 0; i < p->n_items; i++)
        bf16 |= p->items[i].spec.scale == SCALE_BF16;
    p->dtype = source_dtype(p->src);
    if (p->dtype == DTYPE_F16 && (bf16 || exceeds_f16(p, p->src)))
        p->dtype = DTYPE_BF16;
    for (size_t i = 0; i < p->n_entries; i++) {
        if (converts(&p->entries[i]))
            p->tensors[p->entries[i].first].dtype = p->dtype;
    }
}

/* ---- tensors ---- */

struct building {
    struct hf_plan *plan;
    const struct checkpoint *src;
    const struct matrix *items;
    size_t n_items;
    const struct export_options *options;
    struct strmap items_by_name, done; /* modules, and names of stacks, already emitted whole */
    bool *coded_experts;               /* by layer: whether any are items */
    struct err *e;
};

static bool note_dense(struct building *b, const char *module)
{
    struct hf_plan *p = b->plan;
    if (str_ends(module, "embed_tokens"))
        return true;
    char **grown = grow(p->dense, &p->cap_dense, p->n_dense, sizeof *grown, "the export plan", b->e);
    if (!grown)
        return false;
    p->dense = grown;
    p->dense[p->n_dense] = str_dup(module);
    return p->dense[p->n_dense++] ? true : err_nomem(b->e, "the export plan", strlen(module));
}

/* A name, which outlives the plan's making, is not to be emitted again. */
static bool note_done(struct building *b, const char *name)
{
    bool added;
    return strmap_add(&b->done, name, strlen(name), 0, &added) || err_nomem(b->e, "the export plan", strlen(name));
}

static bool check_item(const struct building *b, const struct matrix *item)
{
    struct weight_info w;
    if (!checkpoint_weight(b->src, item->module, &w, b->e))
        return false;
    return (w.rows == item->rows && w.cols == item->cols) ||
           err_set(b->e, ERR_BUG, "%s is %u x %u in %s, not %u x %u", item->module, (unsigned)w.rows, (unsigned)w.cols,
                   checkpoint_dir(b->src), (unsigned)item->rows, (unsigned)item->cols);
}

static bool plan_linear(struct building *b, uint32_t index)
{
    const struct matrix *item = &b->items[index];
    struct linear_tensor layout[LINEAR_TENSORS];
    if (!check_item(b, item) || !note_done(b, item->module))
        return false;
    if (!add_entry(b->plan, (struct export_entry){.kind = ENTRY_LINEAR, .item = index}, b->e))
        return false;
    unsigned n = linear_layout(b->options->format, b->options->container, item, layout);
    for (unsigned i = 0; i < n; i++) {
        if (!add_tensor(b->plan, item->module, layout[i].suffix, layout[i].dtype, layout[i].n_dims, layout[i].shape,
                        b->e))
            return false;
    }
    return true;
}

/* t: the tensor, or one of them. Rows in another order are the values of t's own type. */
static bool plan_unpacked(struct building *b, const struct tensor *t, const char *module)
{
    struct weight_info w;
    bool exact = b->plan->exact && checkpoint_gguf(b->src) && t->dtype != DTYPE_OTHER;
    if (!checkpoint_weight(b->src, module, &w, b->e) || !note_dense(b, module))
        return false;
    char *copy = str_dup(module);
    if (!copy)
        return err_nomem(b->e, "the export plan", strlen(module));
    if (!add_entry(b->plan, (struct export_entry){.kind = ENTRY_DENSE, .module = copy, .exact = exact}, b->e)) {
        free(copy);
        return false;
    }
    if (!note_done(b, copy))
        return false;
    return add_tensor(b->plan, module, ".weight", exact ? t->dtype : DTYPE_F16, 2, (uint64_t[]){w.rows, w.cols}, b->e);
}

static bool plan_copy(struct building *b, const struct tensor *t, const char *module, const char *suffix)
{
    /* What is not of the text part is carried over as it is. */
    bool text = config_is_text(checkpoint_config(b->src), t->name);
    bool convert = t->dtype == DTYPE_F32 && !stays_f32(t) && !b->plan->exact && text;
    if (t->dtype == DTYPE_OTHER) {
        err_set(b->e, ERR_USER, "%s in %s is stored as %s, which cannot be carried over", t->name,
                checkpoint_tensor_path(b->src, t), t->stored_dtype);
        return err_hint(b->e, "start from the original model in 16 bits, or remove that tensor from the file");
    }
    if (strcmp(suffix, ".weight") == 0 && t->n_dims == 2 && !note_dense(b, module))
        return false;
    enum entry_kind kind = convert ? ENTRY_CONVERT : ENTRY_COPY;
    return add_entry(b->plan, (struct export_entry){.kind = kind, .tensor = t}, b->e) &&
           add_tensor(b->plan, t->name, "", t->dtype == DTYPE_F32 && convert ? DTYPE_F16 : t->dtype, t->n_dims,
                      t->shape, b->e);
}

/* ---- all experts of a layer in one tensor ---- */

/* What holds tensors of that suffix of a part; NULL: each expert has its own. */
static const struct expert_stack *stack_for(const struct building *b, const struct block_part *part, uint32_t layer,
                                            const char *suffix)
{
    const struct family *f = family_of(checkpoint_config(b->src));
    if (b->options->format == EXPORT_MLX)
        return expert_stack_write(f, STACK_MLX, part, suffix);
    return f->stacked_experts && !b->coded_experts[layer] ? expert_stack_write(f, STACK_HF, part, suffix) : NULL;
}

static bool same_spec(const struct quant_spec *a, const struct quant_spec *b)
{
    return a->type == b->type && a->group == b->group && a->scale == b->scale;
}

/* Which items the parts of a stack are; all are, or none: then x->items stays NULL. */
static bool stack_items(struct building *b, struct export_entry *x, uint32_t experts)
{
    char module[128];
    size_t *items = calloc(experts, sizeof *items);
    bool coded = false, ok = items || err_nomem(b->e, "the export plan", experts * sizeof *items);
    for (uint32_t i = 0; i < experts && ok; i++) {
        uint32_t at = 0;
        expert_stack_part(x->stack, checkpoint_config(b->src), x->layer, i, 0, module, sizeof module);
        bool found = strmap_find(&b->items_by_name, module, strlen(module), &at);
        items[i] = at;
        coded = i ? coded : found;
        if (found == coded && (!coded || same_spec(&b->items[at].spec, &b->items[items[0]].spec)))
            continue;
        ok = err_set(b->e, ERR_USER, "%s: %s has the experts of a layer as one tensor, so they must be stored alike",
                     module, export_format_name(b->options->format));
        err_hint(b->e, "let --tensor and --keep name all experts of a layer, or choose another --format");
    }
    x->items = ok && coded ? items : NULL;
    if (!x->items)
        free(items);
    return ok;
}

/* Adds the tensors of items that are a part of all experts. */
static bool plan_expert_codes(struct building *b, const struct export_entry *x, uint32_t experts)
{
    struct linear_tensor layout[LINEAR_TENSORS];
    unsigned n = linear_layout(b->options->format, b->options->container, &b->items[x->items[0]], layout);
    char module[128];
    bool ok = true;
    for (uint32_t i = 0; i < experts && ok; i++)
        ok = check_item(b, &b->items[x->items[i]]) && note_done(b, b->items[x->items[i]].module);
    expert_stack_name(x->stack, checkpoint_config(b->src), x->layer, module, sizeof module);
    for (unsigned i = 0; i < n && ok; i++)
        ok = add_tensor(b->plan, module, layout[i].suffix, layout[i].dtype, 3,
                        (uint64_t[]){experts, layout[i].shape[0], layout[i].shape[1]}, b->e);
    return ok;
}

/* Adds the tensor of values, or biases, of all experts: in the type that all of theirs have where that stays. */
static bool plan_stack_values(struct building *b, struct export_entry *x, uint32_t experts)
{
    uint32_t of = expert_stack_parts(x->stack), rows = 0, cols = 0;
    enum dtype type = DTYPE_OTHER;
    char module[128];
    for (uint32_t k = 0; k < of * experts; k++) {
        expert_stack_part(x->stack, checkpoint_config(b->src), x->layer, k / of, k % of, module, sizeof module);
        struct weight_info w;
        if (!checkpoint_weight(b->src, module, &w, b->e) || (!x->biases && !note_dense(b, module)))
            return false;
        const struct tensor *t = stack_tensor(b->src, x, k / of, k % of);
        if (k && (w.rows != rows || (!x->biases && w.cols != cols)))
            return err_set(b->e, ERR_USER, "%s is not of the shape that the other experts of its layer have", module);
        if (x->biases && (!t || t->bytes != w.rows * dtype_size(t->dtype)))
            return err_set(b->e, ERR_USER, "%s has no bias of %u numbers, as other experts of its layer have", module,
                           (unsigned)w.rows);
        enum dtype own = t && dtype_is_float(t->dtype) ? t->dtype : DTYPE_OTHER;
        type = k == 0 || own == type ? own : DTYPE_OTHER;
        rows = w.rows;
        cols = x->biases ? 1 : w.cols;
    }
    x->exact = type != DTYPE_OTHER && (b->plan->exact || type != DTYPE_F32);
    uint64_t all = (uint64_t)rows * of,
             shape[] = {experts, x->stack->turned ? cols : all, x->stack->turned ? all : cols};
    return add_tensor(b->plan, x->module, "", x->exact ? type : DTYPE_F16, x->biases ? 2 : 3, shape, b->e);
}

/* A tensor of an expert. Where all of its layer go into one, the first that comes brings them all; *stacked: whether they do. */
static bool plan_expert(struct building *b, const char *module, const char *suffix, bool *stacked)
{
    const struct model_config *c = checkpoint_config(b->src);
    struct export_entry x = {.kind = ENTRY_STACK, .biases = strcmp(suffix, ".bias") == 0};
    uint32_t expert, unused;
    char name[160];
    const struct block_part *part = expert_part_named(c, module, &x.layer, &expert);
    bool known = part && (x.biases || strcmp(suffix, ".weight") == 0);
    x.stack = known ? stack_for(b, part, x.layer, suffix) : NULL;
    *stacked = x.stack != NULL;
    if (!*stacked)
        return true;
    expert_stack_name(x.stack, c, x.layer, name, sizeof name - 8);
    strcat(name, x.stack->suffix ? "" : suffix);
    if (strmap_find(&b->done, name, strlen(name), &unused))
        return true;
    if (b->options->format == EXPORT_MLX && !x.biases && !stack_items(b, &x, c->experts.n))
        return false;
    x.kind = x.items ? ENTRY_EXPERTS : ENTRY_STACK;
    x.module = str_dup(name);
    bool ok = x.module || err_nomem(b->e, "the export plan", sizeof name);
    struct export_entry *entry = ok ? add_entry(b->plan, x, b->e) : NULL;
    if (!entry) {
        free(x.module);
        free(x.items);
        return false;
    }
    return note_done(b, x.module) &&
           (x.items ? plan_expert_codes(b, entry, c->experts.n) : plan_stack_values(b, entry, c->experts.n));
}

/* One tensor of the source: part of an item, of another packed module, or carried over. */
static bool plan_tensor(struct building *b, const struct tensor *t)
{
    const char *dot = strrchr(t->name, '.'), *suffix = dot ? dot : "";
    char *module = str_dup_n(t->name, dot ? (size_t)(dot - t->name) : strlen(t->name));
    if (!module)
        return err_nomem(b->e, "the export plan", strlen(t->name));
    uint32_t index, unused;
    bool item = strmap_find(&b->items_by_name, module, strlen(module), &index), ok;
    bool packed = checkpoint_is_packed(b->src, module, suffix), stacked = false;
    if (!plan_expert(b, module, packed ? ".weight" : suffix, &stacked)) {
        ok = false;
    } else if (stacked) {
        ok = true;
    } else if (item && (packed || strcmp(suffix, ".weight") == 0)) {
        ok = strmap_find(&b->done, module, strlen(module), &unused) || plan_linear(b, index);
    } else if (packed) {
        ok = strmap_find(&b->done, module, strlen(module), &unused) || plan_unpacked(b, t, module);
    } else {
        ok = plan_copy(b, t, module, suffix);
    }
    free(module);
    return ok;
}

static bool plan_tensors(struct building *b)
{
    bool added;
    const struct family *family = family_of(checkpoint_config(b->src));
    for (size_t i = 0; i < b->n_items; i++) {
        const char *name = b->items[i].module;
        char why[512];
        if (!strmap_add(&b->items_by_name, name, strlen(name), (uint32_t)i, &added))
            return err_nomem(b->e, "the export plan", strlen(name));
        if (!added)
            return err_set(b->e, ERR_BUG, "%s is exported twice", name);
        if (export_check(b->options->format, family, &b->items[i], b->options->container, why, sizeof why) ==
            EXPORT_REFUSED)
            return err_set(b->e, ERR_USER, "%s", why);
        if (b->items[i].part && block_part_is_expert(b->items[i].part))
            b->coded_experts[b->items[i].layer] = true;
    }
    for (size_t i = 0; i < checkpoint_tensor_count(b->src); i++) {
        const struct tensor *t = checkpoint_tensor_at(b->src, i);
        /* config.json says it. */
        bool rope = checkpoint_gguf(b->src) &&
                    (strcmp(t->name, "rope_freqs.weight") == 0 || strncmp(t->name, "rope_factors_", 13) == 0);
        if (!rope && !plan_tensor(b, t))
            return false;
    }
    for (size_t i = 0; i < b->n_items; i++) {
        uint32_t unused;
        const char *name = b->items[i].module;
        if (!strmap_find(&b->done, name, strlen(name), &unused))
            return err_set(b->e, ERR_USER, "the tensor %s.weight is missing from %s", name, checkpoint_dir(b->src));
    }
    return true;
}

/* ---- shards ---- */

/* Bytes of a file's header, as the writer prints it. */
static uint64_t header_bytes(const struct hf_plan *p, size_t first, size_t n)
{
    struct strbuf quoted = {0};
    uint64_t at = 0, size;
    for (size_t i = 0; i < p->n_metadata; i++) {
        strbuf_json(&quoted, p->metadata[i][0]);
        strbuf_json(&quoted, p->metadata[i][1]);
    }
    uint64_t bytes = 8 + strlen("{\"__metadata__\":{}}") + quoted.size + 2 * p->n_metadata - 1;
    strbuf_free(&quoted);
    for (size_t i = first; i < first + n; i++) {
        const struct tensor_plan *t = &p->tensors[i];
        char text[256];
        int k = 0;
        size = dtype_size(t->dtype);
        for (uint32_t d = 0; d < t->n_dims; d++) {
            size *= t->shape[d];
            k += snprintf(text, sizeof text, "%llu,", (unsigned long long)t->shape[d]);
        }
        k -= t->n_dims > 0;
        k += snprintf(text, sizeof text, ",\"\":{\"dtype\":\"%s\",\"shape\":[],\"data_offsets\":[%llu,%llu]}",
                      dtype_name(t->dtype), (unsigned long long)at, (unsigned long long)(at + size));
        bytes += strlen(t->name) + (uint64_t)k;
        at += size;
    }
    return round_up(bytes, 8);
}

static bool plan_shards(struct hf_plan *p, uint64_t limit, struct err *e)
{
    limit = limit ? limit : SHARD_BYTES;
    p->shards = calloc(p->n_entries + 1, sizeof *p->shards);
    if (!p->shards)
        return err_nomem(e, "the export plan", p->n_entries * sizeof *p->shards);
    for (size_t i = 0; i < p->n_entries; i++) {
        struct export_shard *s = p->n_shards ? &p->shards[p->n_shards - 1] : NULL;
        if (!s || s->bytes + p->entries[i].bytes > limit) {
            s = &p->shards[p->n_shards++];
            s->first = i;
        }
        s->n++;
        s->bytes += p->entries[i].bytes;
    }
    for (size_t i = 0; i < p->n_shards; i++) {
        struct export_shard *s = &p->shards[i];
        const struct export_entry *last = &p->entries[s->first + s->n - 1];
        size_t first = p->entries[s->first].first;
        s->bytes += header_bytes(p, first, last->first + last->n - first);
        if (p->n_shards == 1)
            snprintf(s->name, sizeof s->name, "model.safetensors");
        else
            snprintf(s->name, sizeof s->name, "model-%05zu-of-%05zu.safetensors", i + 1, p->n_shards);
    }
    return true;
}

static bool index_text(struct hf_plan *p, struct err *e)
{
    struct strbuf *b = &p->index;
    if (p->n_shards < 2)
        return true;
    strbuf_printf(b, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
                  (unsigned long long)p->data_bytes);
    const char *comma = "";
    for (size_t s = 0; s < p->n_shards; s++) {
        for (size_t i = p->shards[s].first; i < p->shards[s].first + p->shards[s].n; i++) {
            for (size_t t = p->entries[i].first; t < p->entries[i].first + p->entries[i].n; t++) {
                strbuf_printf(b, "%s\n    ", comma);
                strbuf_json(b, p->tensors[t].name);
                strbuf_printf(b, ": \"%s\"", p->shards[s].name);
                comma = ",";
            }
        }
    }
    strbuf_puts(b, "\n  }\n}\n");
    return b->failed ? err_nomem(e, "the index of shards", b->size) : true;
}

/* ---- config.json ---- */

/* Numbers keep their spelling ("10000.0" is a float to its reader, "10000" is not): every number of the tree,
 * in document order, takes its own piece of the text. */
static bool keep_numbers(cJSON *item, const char **text)
{
    for (cJSON *child = item->child; child; child = child->next) {
        if (!keep_numbers(child, text))
            return false;
    }
    if (!cJSON_IsNumber(item))
        return true;
    const char *p;
    size_t n = json_next_number(*text, *text + strlen(*text), &p);
    char *copy = cJSON_malloc(n + 1);
    if (!copy)
        return false;
    memcpy(copy, p, n);
    copy[n] = 0;
    item->type = cJSON_Raw;
    item->valuestring = copy;
    *text = p + n;
    return true;
}

/* Replaces a string value in place, so that the order of keys stays. */
static bool set_string(cJSON *o, const char *key, const char *value, bool add)
{
    cJSON *fresh, *old = cJSON_GetObjectItemCaseSensitive(o, key);
    if (!old && !add)
        return true;
    fresh = cJSON_CreateString(value);
    bool ok =
        fresh && (old ? cJSON_ReplaceItemInObjectCaseSensitive(o, key, fresh) : cJSON_AddItemToObject(o, key, fresh));
    if (!ok)
        cJSON_Delete(fresh);
    return ok;
}

static bool put_quantization(struct hf_plan *p, cJSON *root, const struct building *b)
{
    struct quant_config_facts facts = {.config = checkpoint_config(b->src),
                                       .head = config_head_name(checkpoint_config(b->src)),
                                       .options = b->options,
                                       .items = b->items,
                                       .n_items = b->n_items,
                                       .dense = (const char *const *)p->dense,
                                       .n_dense = p->n_dense};
    if (b->n_items == 0)
        return true;
    cJSON *config = quant_config_json(&facts);
    if (!config)
        return false;
    if (b->options->format == EXPORT_GPTQ || b->options->format == EXPORT_GPTQ_V2)
        json_print(&p->quantize_config, config);
    if (b->options->format == EXPORT_MLX) {
        cJSON *copy = cJSON_Duplicate(config, true);
        if (!copy || !cJSON_AddItemToObject(root, "quantization", copy)) {
            cJSON_Delete(copy);
            cJSON_Delete(config);
            return false;
        }
    }
    if (cJSON_AddItemToObject(root, "quantization_config", config))
        return true;
    cJSON_Delete(config);
    return false;
}

static bool config_text(struct hf_plan *p, const struct building *b)
{
    static const char *const old[] = {"quantization_config", "quantization", "compression_config"};
    const char *dtype = p->dtype == DTYPE_BF16 ? "bfloat16" : "float16";
    char *text;
    size_t size;
    if (!checkpoint_config_text(b->src, &text, &size, b->e))
        return false;
    cJSON *root = json_parse_python(text, size, checkpoint_dir(b->src), b->e);
    const char *at = text;
    bool ok = root && keep_numbers(root, &at);
    free(text);
    if (!root)
        return false;
    cJSON *part = cJSON_GetObjectItemCaseSensitive(root, "text_config");
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        cJSON_DeleteItemFromObjectCaseSensitive(root, old[i]);
        cJSON_DeleteItemFromObjectCaseSensitive(part, old[i]);
    }
    bool new_name = cJSON_GetObjectItemCaseSensitive(root, "dtype") != NULL;
    ok = ok &&
         (p->exact || (set_string(root, "dtype", dtype, false) && set_string(root, "torch_dtype", dtype, !new_name)));
    if (ok && !p->exact && cJSON_IsObject(part))
        ok = set_string(part, "dtype", dtype, false) && set_string(part, "torch_dtype", dtype, false);
    ok = ok && put_quantization(p, root, b);
    if (ok)
        json_print(&p->config, root);
    cJSON_Delete(root);
    return ok && !p->config.failed && !p->quantize_config.failed ? true : err_nomem(b->e, "config.json", size);
}

/* "format" is what transformers and MLX look for; what else is known about the run goes beside it, except in
 * gptq, which has a place for it in its config. */
static bool metadata_make(struct hf_plan *p, const struct export_options *o, struct err *e)
{
    bool gptq = o->format == EXPORT_GPTQ || o->format == EXPORT_GPTQ_V2;
    size_t extra = gptq || !o->metadata ? 0 : o->n_metadata;
    p->metadata_own = calloc(extra + 3, sizeof *p->metadata_own);
    if (!p->metadata_own)
        return err_nomem(e, "the export plan", extra * sizeof *p->metadata_own);
    p->metadata_own[0][0] = "format";
    p->metadata_own[0][1] = o->format == EXPORT_MLX ? "mlx" : "pt";
    p->metadata_own[1][0] = "quantizer";
    p->metadata_own[1][1] = "gsq:" GSQ_VERSION;
    p->n_metadata = 2;
    if (o->run) {
        p->metadata_own[p->n_metadata][0] = "run";
        p->metadata_own[p->n_metadata++][1] = o->run;
    }
    for (size_t i = 0; i < extra; i++) {
        p->metadata_own[p->n_metadata][0] = o->metadata[i][0];
        p->metadata_own[p->n_metadata++][1] = o->metadata[i][1];
    }
    p->metadata = (const char *const(*)[2])p->metadata_own;
    return true;
}

/* Of another architecture the order of rows and the meaning of the metadata are not known. */
static bool check_architecture(const struct checkpoint *src, struct err *e)
{
    const struct model_config *c = checkpoint_config(src);
    char known[512];
    if (!checkpoint_gguf(src) || family_of(c))
        return true;
    err_set(e, ERR_USER, "%s: the architecture %s is not supported", checkpoint_dir(src), c->architecture);
    return err_hint(e, "gsq converts GGUFs of %s models to folders", family_names(known, sizeof known));
}

/* ---- what is carried over, and the size of it all ---- */

struct carried {
    const char *dir;
    uint64_t bytes;
};

static bool add_carried(void *ctx, const char *name, struct err *e)
{
    struct carried *c = ctx;
    char path[4096];
    uint64_t size = 0;
    (void)e;
    if (export_carries(name) && side_file(c->dir, name, false, path, &size))
        c->bytes += size;
    return true;
}

static void count_bytes(struct hf_plan *p)
{
    struct carried c = {.dir = checkpoint_dir(p->src)};
    p->bytes = p->config.size + p->quantize_config.size + p->index.size;
    for (size_t i = 0; i < p->n_shards; i++)
        p->bytes += p->shards[i].bytes;
    /* A GGUF's keys are carried as they are, and as JSON about twice their size. */
    const struct gguf *g = checkpoint_gguf(p->src);
    for (size_t i = 0; g && i < gguf_kv_count(g); i++)
        c.bytes += 3 * gguf_kv_at(g, i)->bytes;
    if (!g) {
        os_list(c.dir, add_carried, &c, NULL);
        export_list_templates(c.dir, add_carried, &c, NULL);
    }
    p->bytes += c.bytes;
}

/* ---- the whole ---- */

/* Of a list those that are coded. */
static bool take_items(struct hf_plan *p, const struct matrix *list, size_t n, struct err *e)
{
    p->items = calloc(n + 1, sizeof *p->items);
    for (size_t i = 0; p->items && i < n; i++)
        if (list[i].coded)
            p->items[p->n_items++] = list[i];
    return p->items || err_nomem(e, "the export plan", n * sizeof *p->items);
}

static bool make(struct hf_plan *p, const struct matrix *list, size_t n, struct err *e)
{
    const struct export_options *o = &p->options;
    if (!check_architecture(p->src, e) || !export_check_carried(checkpoint_dir(p->src), e) ||
        !take_items(p, list, n, e))
        return false;
    struct building b = {.plan = p, .src = p->src, .items = p->items, .n_items = p->n_items, .options = o, .e = e};
    if (!export_is_packed(o->format) && (o->format != EXPORT_HF || p->n_items))
        return err_set(e, ERR_BUG, "an export without a format");
    p->exact = o->format == EXPORT_HF;
    const uint32_t layers = checkpoint_config(p->src)->num_layers;
    b.coded_experts = calloc(layers + 1u, sizeof *b.coded_experts);
    bool ok = b.coded_experts || err_nomem(e, "the export plan", layers);
    ok = ok && metadata_make(p, o, e) && plan_tensors(&b);
    free(b.coded_experts);
    strmap_free(&b.items_by_name);
    strmap_free(&b.done);
    if (ok)
        choose_dtype(p);
    ok = ok && plan_shards(p, o->shard_bytes, e) && index_text(p, e) && config_text(p, &b);
    if (ok)
        count_bytes(p);
    return ok;
}

bool hf_plan_make(struct hf_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                  const struct export_options *o, struct err *e)
{
    struct hf_plan *p = *out = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, "the export plan", sizeof *p);
    p->src = src;
    p->options = *o;
    bool ok = make(p, list, n, e);
    if (!ok)
        hf_plan_free(out);
    return ok;
}

uint64_t hf_plan_bytes(const struct hf_plan *p)
{
    return p->bytes;
}

void hf_plan_free(struct hf_plan **out)
{
    struct hf_plan *p = *out;
    *out = NULL;
    if (!p)
        return;
    for (size_t i = 0; i < p->n_tensors; i++)
        free((char *)p->tensors[i].name);
    for (size_t i = 0; i < p->n_entries; i++) {
        free(p->entries[i].module);
        free(p->entries[i].items);
    }
    for (size_t i = 0; i < p->n_dense; i++)
        free(p->dense[i]);
    free(p->tensors);
    free(p->entries);
    free(p->dense);
    free(p->shards);
    free((void *)p->metadata_own);
    strbuf_free(&p->config);
    strbuf_free(&p->quantize_config);
    strbuf_free(&p->index);
    free(p->items);
    free(p);
}
