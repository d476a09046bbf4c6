#include "lib/plan_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/table.h"

/* Items with the same shape and fate make one line of the table. */
struct group {
    const struct matrix *first;
    unsigned count;
};

static bool same_fate(const struct matrix *a, const struct matrix *b)
{
    return a->part == b->part && a->rows == b->rows && a->cols == b->cols && a->coded == b->coded &&
           (!a->coded || (a->spec.type == b->spec.type && a->spec.group == b->spec.group));
}

static size_t group_items(const struct plan *p, struct group **out)
{
    size_t n = 0;
    struct group *groups = calloc(p->n_items ? p->n_items : 1, sizeof *groups);
    *out = groups;
    for (size_t i = 0; groups && i < p->n_items; i++) {
        size_t g = 0;
        while (g < n && !same_fate(groups[g].first, &p->items[i]))
            g++;
        if (g == n)
            groups[n++].first = &p->items[i];
        groups[g].count++;
    }
    return n;
}

static const char *fate_text(const struct matrix *item, char *out, size_t cap)
{
    if (!item->coded)
        snprintf(out, cap, "16 bits");
    else
        snprintf(out, cap, "%s%s, group %u, %s scales", item->spec.type->name,
                 item->spec.type->name[0] >= '0' && item->spec.type->name[0] <= '9' ? " bits" : "",
                 (unsigned)item->spec.group, scale_type_name(item->spec.scale));
    return out;
}

static void print_linears(struct strbuf *f, const struct plan *p)
{
    struct group *groups;
    size_t n = group_items(p, &groups);
    struct table *t = table_create("lrrl");
    for (size_t i = 0; i < n; i++) {
        char fate[96];
        table_cell(t, "%s", block_part_short_name(groups[i].first->part));
        table_cell(t, "%u x %u", (unsigned)groups[i].first->rows, (unsigned)groups[i].first->cols);
        table_cell(t, "%u %s", groups[i].count, groups[i].count == 1 ? "matrix" : "matrices");
        table_cell(t, "%s", fate_text(groups[i].first, fate, sizeof fate));
    }
    free(groups);
    strbuf_printf(f, "linears\n");
    table_add(&t, f, 2);
}

/* Of a GGUF: one line for each kind of tensor and type. Kinds are the last parts of names. */
struct tensor_group {
    const struct matrix *first;
    unsigned count;
};

static bool same_tensor(const struct matrix *a, const struct matrix *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->type == b->type && a->wanted == b->wanted &&
           a->coded == b->coded && a->copied == b->copied && (!a->coded || a->spec.group == b->spec.group) &&
           strcmp(matrix_kind(a), matrix_kind(b)) == 0;
}

static size_t group_tensors(const struct plan *p, struct tensor_group **out)
{
    size_t n = 0;
    struct tensor_group *groups = calloc(p->n_matrices ? p->n_matrices : 1, sizeof *groups);
    *out = groups;
    for (size_t i = 0; groups && i < p->n_matrices; i++) {
        size_t g = 0;
        while (g < n && !same_tensor(groups[g].first, &p->matrices[i]))
            g++;
        if (g == n)
            groups[n++].first = &p->matrices[i];
        groups[g].count++;
    }
    return n;
}

static void print_tensors(struct strbuf *f, const struct plan *p)
{
    struct tensor_group *groups;
    size_t n = group_tensors(p, &groups);
    struct table *t = table_create("lrrlrl");
    for (size_t i = 0; i < n; i++) {
        const struct matrix *x = groups[i].first;
        table_cell(t, "%s", matrix_kind(x));
        table_cell(t, "%u x %u", (unsigned)x->rows, (unsigned)x->cols);
        table_cell(t, "%u %s", groups[i].count, groups[i].count == 1 ? "matrix" : "matrices");
        table_cell(t, "%s", x->type->name);
        table_cell(t, "%.4g bits", 8.0 * x->type->bytes / x->type->block);
        if (p->refines)
            table_cell(t, "%s", x->coded ? "codes learned anew" : "as it is");
        else if (x->type != x->wanted)
            table_cell(t, "instead of %s", x->wanted->name);
        else if (x->coded && x->spec.group != x->type->codes->group)
            table_cell(t, "%s in groups of %u", x->spec.type->name, (unsigned)x->spec.group);
        else
            table_cell(t, "%s", x->copied ? "as it is" : x->coded || x->type->block == 1 ? "" : "rounded");
    }
    free(groups);
    strbuf_printf(f, "tensors\n");
    table_add(&t, f, 2);
}

static const char *updates_text(const struct plan *p, char *out, size_t cap)
{
    if (p->updates > 0)
        snprintf(out, cap, " (%.3g steps/s)", p->updates);
    else
        out[0] = 0;
    return out;
}

static const char *epochs_text(const struct plan_effort *x, char *out, size_t cap)
{
    out[0] = 0;
    if (x->epochs || x->scale_epochs)
        snprintf(out, cap, ", epochs: %u of blocks, %u of scales", (unsigned)x->epochs, (unsigned)x->scale_epochs);
    return out;
}

/* What the run would take at each effort. */
static void print_efforts(struct strbuf *f, const struct plan *p)
{
    struct table *t = table_create("lrl");
    char a[40];
    for (unsigned i = 0; i < p->n_efforts; i++) {
        const struct plan_effort *x = &p->efforts[i];
        table_cell(t, "%s%s", x->chosen ? "> " : "  ", effort_name((enum effort)i));
        if (x->seconds > 0) {
            table_cell(t, "%s", format_seconds(fmax(1, x->seconds), a, sizeof a));
            table_cell(t, "%u windows, %u steps%s", (unsigned)x->samples, (unsigned)x->steps,
                       epochs_text(x, a, sizeof a));
        } else {
            table_cell(t, "-");
            table_cell(t, "%s", x->why);
        }
    }
    table_add(&t, f, 0);
}

static void print_weights(struct strbuf *f, const struct plan *p)
{
    double share = p->weights ? 100.0 * (double)p->weights_quantized / (double)p->weights : 0;
    if (plan_typed(p))
        print_tensors(f, p);
    else
        print_linears(f, p);
    strbuf_printf(f, "weights           %.4g million, %.1f %% of them quantized, at %.3f bits each with their scales\n",
                  1e-6 * (double)p->weights, share, p->bpw);
    if (p->file_bpw > 0)
        strbuf_printf(f, "all tensors       %.3f bits per weight, embeddings and head included\n", p->file_bpw);
}

void plan_fates_text(struct strbuf *f, const struct plan *p)
{
    char size[24];
    print_weights(f, p);
    strbuf_printf(f, "size              %s\n", format_bytes(p->out_bytes, size, sizeof size));
}

/* Nothing where no device was there to ask. */
static const char *at_a_time(uint32_t windows, char *out, size_t cap)
{
    out[0] = 0;
    if (windows)
        snprintf(out, cap, ", %u windows at a time", (unsigned)windows);
    return out;
}

static const char *kept_where(const char *acts_tier)
{
    if (acts_tier && strcmp(acts_tier, "host") == 0)
        return "in host memory";
    return acts_tier && strcmp(acts_tier, "file") == 0 ? "in a file of the work folder" : "on the device";
}

static void print_device(struct strbuf *f, const struct plan *p)
{
    char a[24], b[24];
    if (!p->device_limit) {
        strbuf_puts(f, "device memory     not planned: there is no Vulkan device here\n");
        return;
    }
    strbuf_printf(f, "device memory     %s of %s\n", format_bytes(p->device_bytes, a, sizeof a),
                  format_bytes(p->device_limit, b, sizeof b));
    struct table *t = table_create("lr");
    for (size_t i = 0; i < p->n_lines; i++) {
        table_cell(t, "%s", p->lines[i].name);
        table_cell(t, "%s", format_bytes(p->lines[i].bytes, a, sizeof a));
    }
    table_add(&t, f, 2);
}

/* Whether codes of latent attention are learned, or rounded by a Hessian. */
static bool learns_latent(const struct plan *p)
{
    for (size_t i = 0; i < p->n_items; i++)
        if (p->items[i].coded && p->items[i].part->of & PARTS_MLA)
            return true;
    return false;
}

/* What writing the text takes, and where its keys and values are kept. */
static const char *sampling_time(const struct plan *p, char *out, size_t cap)
{
    char time[24];
    out[0] = 0;
    if (p->sample_seconds > 0)
        snprintf(out, cap, ", %s%s", p->sample_seconds < 1 ? "under " : "",
                 format_seconds(fmax(1, p->sample_seconds), time, sizeof time));
    return out;
}

void plan_choice_options(struct strbuf *f, const struct plan *p, const char *between)
{
    strbuf_printf(f, "%s %s", plan_typed(p) ? "--type" : "--bits", p->choice.main);
    for (const char *line = p->choice.rules; *line;) {
        size_t n = strcspn(line, "\n");
        strbuf_printf(f, "%s--tensor '%.*s'", between, (int)n, line);
        line += n + (line[n] == '\n');
    }
}

static void print_choice(struct strbuf *f, const struct plan *p)
{
    char a[24], b[24];
    if (!p->choice.rules)
        return;
    if (!p->choice.measured) {
        strbuf_puts(f, "types             chosen when what each costs is measured; this plan is of a first guess, by "
                       "the bits alone\n");
    } else {
        strbuf_printf(f,
                      "types             chosen by what each costs the model, together %.3g nats per token; the same "
                      "by hand:\n  ",
                      p->choice.cost);
        plan_choice_options(f, p, "\n  ");
        strbuf_puts(f, "\n");
    }
    strbuf_printf(f, "sizes possible    %s to %s\n", format_bytes(p->choice.small, a, sizeof a),
                  format_bytes(p->choice.large, b, sizeof b));
}

/* What several ranks share: what each holds, sends and waits for. */
static void print_ranks(struct strbuf *f, const struct plan *p)
{
    const struct plan_ranks *r = &p->ranks;
    char a[24], b[24];
    if (!r->n)
        return;
    strbuf_printf(f, "ranks             %u", (unsigned)r->n);
    if (r->link > 0)
        strbuf_printf(f, ", %.3g GB/s between them%s", r->link * 1e-9, r->measured ? " (measured)" : "");
    strbuf_printf(f, "; each holds up to %s on its device and %s of host memory\n",
                  format_bytes(r->device_bytes, a, sizeof a), format_bytes(r->host_bytes, b, sizeof b));
    struct table *t = table_create("lrr");
    table_cell(t, "exchange");
    table_cell(t, "most sent");
    table_cell(t, "most received");
    for (int k = 0; k < COMM_KINDS; k++) {
        uint64_t sent = 0, received = 0;
        for (unsigned i = 0; i < r->n; i++) {
            sent = max_u64(sent, r->bytes[i].sent[k]);
            received = max_u64(received, r->bytes[i].received[k]);
        }
        if (!sent)
            continue;
        table_cell(t, "%s", comm_kind_names[k]);
        table_cell(t, "%s", format_bytes(sent, a, sizeof a));
        table_cell(t, "%s", format_bytes(received, a, sizeof a));
    }
    table_add(&t, f, 2);
    for (unsigned i = 0; i < r->n_layouts && r->layouts[i].seconds > 0; i++) {
        const struct plan_layout *x = &r->layouts[i];
        strbuf_printf(f, "  %u %s %s", (unsigned)x->ranks,
                      x->ranks == 1 ? "rank: " : "ranks:", format_seconds(fmax(1, x->seconds), a, sizeof a));
        if (x->exchange > 0)
            strbuf_printf(f, ", of which %s for the exchange", format_seconds(fmax(1, x->exchange), a, sizeof a));
        strbuf_puts(f, "\n");
    }
}

void plan_text(struct strbuf *f, const struct plan *p, const struct quantize_options *o)
{
    char a[40], b[24], c[24];
    strbuf_puts(f, "plan: ");
    strbuf_puts(f, o->model_dir);
    strbuf_puts(f, " -> ");
    strbuf_puts(f, o->out_dir);
    strbuf_printf(f, ", method %s, format %s%s%s\n", method_name(o->method), export_format_name(o->format),
                  o->mixture ? " " : "", o->mixture ? o->mixture : "");
    print_weights(f, p);
    print_choice(f, p);
    strbuf_printf(f, "disk              %s for the result, %s for the work folder; %s free\n",
                  format_bytes(p->out_bytes, a, sizeof a), format_bytes(p->work_bytes, b, sizeof b),
                  p->disk_free ? format_bytes(p->disk_free, c, sizeof c) : "unknown");
    if (o->method != METHOD_RTN && !p->device_limit)
        strbuf_printf(f, "calibration       %u windows of %u tokens\n", (unsigned)p->samples, (unsigned)p->ctx);
    else if (o->method != METHOD_RTN)
        strbuf_printf(f, "calibration       %u windows of %u tokens, %u at a time; activations %s\n",
                      (unsigned)p->samples, (unsigned)p->ctx, (unsigned)p->batch_windows, kept_where(p->acts_tier));
    if (p->sampling.length)
        strbuf_printf(f, "                  written by the model, in segments of %u tokens, %u of %u at a time%s\n",
                      (unsigned)p->sampling.length, (unsigned)p->sampling.lanes, (unsigned)p->sampling.segments,
                      sampling_time(p, a, sizeof a));
    if (o->method == METHOD_GSQ)
        strbuf_printf(f, "single linears    %u optimiser steps each (reach %.4g: how far logits can move)\n",
                      (unsigned)o->gumbel.steps, p->reach);
    if (p->output_windows)
        strbuf_printf(f, "                  on Hessians of their outputs, too, from %u windows forward and back%s\n",
                      (unsigned)p->output_windows, at_a_time(p->output_micro, a, sizeof a));
    if (p->block_steps)
        strbuf_printf(f, "%-17s %u epochs, %u optimiser steps each (reach %.4g)%s\n",
                      p->experts_alone ? "experts"
                      : p->attn_alone  ? "feed-forward"
                                       : "halves of blocks",
                      (unsigned)o->block.epochs, (unsigned)p->block_steps, p->block_reach,
                      at_a_time(p->micro_windows, a, sizeof a));
    if (p->block_steps && p->experts)
        strbuf_puts(f, "                  each expert on its own output, with fewer steps where few tokens chose it\n");
    if (p->block_steps && p->attn_alone)
        strbuf_puts(f, "                  linears of attention learn alone: nothing goes back through it\n");
    if (p->block_steps && (p->experts || p->attn_alone))
        strbuf_printf(f, "all scales        not trained end to end: %s\n",
                      p->experts ? "each step would load every expert twice" : "nothing goes back through attention");
    if (quantize_diagonal(o) && learns_latent(p))
        strbuf_puts(f, "latent attention  kv_b is rounded to nearest: importance matrices have no sums for it\n");
    if (p->scale_steps)
        strbuf_printf(f, "all scales        %u epochs, %u optimiser steps at a rate of %g%s\n",
                      (unsigned)o->scales.epochs, (unsigned)p->scale_steps, (double)o->scales.lr,
                      at_a_time(p->scale_micro, a, sizeof a));
    if (p->predicted_seconds > 0)
        strbuf_printf(f, "predicted time    %s%s, from a short measurement%s\n",
                      p->predicted_seconds < 1 ? "under " : "",
                      format_seconds(fmax(1, p->predicted_seconds), a, sizeof a), updates_text(p, b, sizeof b));
    else if (p->device_limit)
        strbuf_puts(f, "predicted time    not measured\n");
    print_efforts(f, p);
    print_ranks(f, p);
    if (p->device_limit)
        strbuf_printf(f, "host memory       %s beyond mapped files\n", format_bytes(p->host_bytes, a, sizeof a));
    print_device(f, p);
}

static cJSON *tensors_json(const struct plan *p)
{
    struct tensor_group *groups;
    size_t n = group_tensors(p, &groups);
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < n; i++) {
        const struct matrix *t = groups[i].first;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "tensor", matrix_kind(t));
        cJSON_AddNumberToObject(o, "rows", t->rows);
        cJSON_AddNumberToObject(o, "cols", t->cols);
        cJSON_AddNumberToObject(o, "count", groups[i].count);
        cJSON_AddStringToObject(o, "type", t->type->name);
        cJSON_AddBoolToObject(o, "coded", t->coded);
        if (t->type != t->wanted)
            cJSON_AddStringToObject(o, "instead_of", t->wanted->name);
        cJSON_AddItemToArray(list, o);
    }
    free(groups);
    return list;
}

static cJSON *efforts_json(const struct plan *p)
{
    cJSON *list = cJSON_CreateArray();
    for (unsigned i = 0; i < p->n_efforts; i++) {
        const struct plan_effort *x = &p->efforts[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "effort", effort_name((enum effort)i));
        cJSON_AddNumberToObject(o, "samples", x->samples);
        cJSON_AddNumberToObject(o, "steps", x->steps);
        cJSON_AddNumberToObject(o, "epochs", x->epochs);
        cJSON_AddNumberToObject(o, "scale_epochs", x->scale_epochs);
        if (x->seconds > 0)
            cJSON_AddNumberToObject(o, "seconds", x->seconds);
        else
            cJSON_AddStringToObject(o, "refused", x->why);
        cJSON_AddBoolToObject(o, "chosen", x->chosen);
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

static cJSON *choice_json(const struct plan *p)
{
    cJSON *o = cJSON_CreateObject(), *rules = cJSON_AddArrayToObject(o, "tensor");
    cJSON_AddBoolToObject(o, "measured", p->choice.measured);
    cJSON_AddStringToObject(o, plan_typed(p) ? "type" : "bits", p->choice.main);
    for (const char *line = p->choice.rules; *line;) {
        size_t n = strcspn(line, "\n");
        char *rule = str_dup_n(line, n);
        cJSON_AddItemToArray(rules, cJSON_CreateString(rule ? rule : ""));
        free(rule);
        line += n + (line[n] == '\n');
    }
    if (p->choice.measured)
        cJSON_AddNumberToObject(o, "predicted_kl", p->choice.cost);
    cJSON_AddNumberToObject(o, "smallest_bytes", (double)p->choice.small);
    cJSON_AddNumberToObject(o, "largest_bytes", (double)p->choice.large);
    return o;
}

static void bytes_json(cJSON *j, const char *name, const uint64_t kinds[COMM_KINDS])
{
    cJSON *o = cJSON_AddObjectToObject(j, name);
    for (int k = 0; k < COMM_KINDS; k++)
        if (kinds[k])
            cJSON_AddNumberToObject(o, comm_kind_names[k], (double)kinds[k]);
}

static cJSON *ranks_json(const struct plan_ranks *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "n", r->n);
    if (r->link > 0) {
        cJSON_AddNumberToObject(o, "link_bytes_per_second", r->link);
        cJSON_AddBoolToObject(o, "measured", r->measured);
    }
    cJSON_AddNumberToObject(o, "device_bytes", (double)r->device_bytes);
    cJSON_AddNumberToObject(o, "host_bytes", (double)r->host_bytes);
    bytes_json(o, "waits", r->waits);
    cJSON *list = cJSON_AddArrayToObject(o, "rank");
    for (unsigned i = 0; i < r->n; i++) {
        cJSON *x = cJSON_CreateObject();
        bytes_json(x, "sent", r->bytes[i].sent);
        bytes_json(x, "received", r->bytes[i].received);
        cJSON_AddItemToArray(list, x);
    }
    cJSON *layouts = cJSON_AddArrayToObject(o, "layouts");
    for (unsigned i = 0; i < r->n_layouts; i++) {
        const struct plan_layout *l = &r->layouts[i];
        cJSON *x = cJSON_CreateObject();
        cJSON_AddNumberToObject(x, "ranks", l->ranks);
        cJSON *shares = cJSON_AddObjectToObject(x, "shares");
        for (uint32_t k = 0; k < l->n_kinds; k++)
            if (l->shares[k] > 0)
                cJSON_AddNumberToObject(shares, l->kinds[k], l->shares[k]);
        if (l->seconds > 0) {
            cJSON_AddNumberToObject(x, "seconds", l->seconds);
            cJSON_AddNumberToObject(x, "exchange_seconds", l->exchange);
        }
        cJSON_AddItemToArray(layouts, x);
    }
    return o;
}

void plan_json(cJSON *j, const struct plan *p)
{
    struct group *groups;
    size_t n = group_items(p, &groups);
    cJSON *linears = cJSON_AddArrayToObject(j, "linears");
    for (size_t i = 0; i < n; i++) {
        const struct matrix *item = groups[i].first;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "linear", block_part_short_name(item->part));
        cJSON_AddNumberToObject(o, "rows", item->rows);
        cJSON_AddNumberToObject(o, "cols", item->cols);
        cJSON_AddNumberToObject(o, "count", groups[i].count);
        cJSON_AddBoolToObject(o, "keep", !item->coded);
        if (item->coded) {
            cJSON_AddStringToObject(o, "type", item->spec.type->name);
            cJSON_AddNumberToObject(o, "group", item->spec.group);
            cJSON_AddStringToObject(o, "scales", scale_type_name(item->spec.scale));
        }
        cJSON_AddItemToArray(linears, o);
    }
    free(groups);
    if (plan_typed(p)) {
        cJSON_AddItemToObject(j, "tensors", tensors_json(p));
        cJSON_AddNumberToObject(j, "file_bits_per_weight", p->file_bpw);
    }
    if (p->choice.rules)
        cJSON_AddItemToObject(j, "choice", choice_json(p));
    cJSON_AddNumberToObject(j, "bits_per_weight", p->bpw);
    cJSON_AddNumberToObject(j, "weights", (double)p->weights);
    cJSON_AddNumberToObject(j, "weights_quantized", (double)p->weights_quantized);
    cJSON_AddNumberToObject(j, "out_bytes", (double)p->out_bytes);
    cJSON_AddNumberToObject(j, "work_bytes", (double)p->work_bytes);
    cJSON_AddNumberToObject(j, "disk_free", (double)p->disk_free);
    cJSON_AddNumberToObject(j, "device_bytes", (double)p->device_bytes);
    cJSON_AddNumberToObject(j, "device_limit", (double)p->device_limit);
    cJSON_AddNumberToObject(j, "host_bytes", (double)p->host_bytes);
    cJSON *memory = cJSON_AddObjectToObject(j, "device_memory");
    for (size_t i = 0; i < p->n_lines; i++)
        cJSON_AddNumberToObject(memory, p->lines[i].name, (double)p->lines[i].bytes);
    cJSON_AddStringToObject(j, "activations", p->acts_tier ? p->acts_tier : "none");
    cJSON_AddNumberToObject(j, "batch_windows", p->batch_windows);
    cJSON_AddNumberToObject(j, "samples", p->samples);
    cJSON_AddNumberToObject(j, "ctx", p->ctx);
    cJSON_AddNumberToObject(j, "reach", p->reach);
    cJSON_AddNumberToObject(j, "block_reach", p->block_reach);
    cJSON_AddNumberToObject(j, "block_steps", p->block_steps);
    cJSON_AddNumberToObject(j, "scale_steps", p->scale_steps);
    cJSON_AddNumberToObject(j, "output_windows", p->output_windows);
    cJSON_AddNumberToObject(j, "micro_windows", p->micro_windows);
    cJSON_AddNumberToObject(j, "predicted_seconds", p->predicted_seconds);
    cJSON_AddNumberToObject(j, "updates_per_second", p->updates);
    if (p->ranks.n)
        cJSON_AddItemToObject(j, "ranks", ranks_json(&p->ranks));
    if (p->n_efforts)
        cJSON_AddItemToObject(j, "efforts", efforts_json(p));
}
