/* The experts of a layer in a run: each is loaded once, quantized on the tokens that chose it, and gone through by them.
 *
 * An expert's Hessian is pooled with its layer's: a * H_expert + (1 - a) * H_layer, a = n / (n + K / 2) for n tokens and K columns,
 * both being means per token. So one with few tokens leans on the layer's, and one with none has that alone. Of gate and up the
 * layer's is of all tokens; of down it is of this expert's own middle for a sample of them.
 *
 * What few tokens say of pairs of columns is mostly chance, and what is learned from that alone is lost on other tokens: the
 * diagonal is raised by half as many times itself as there are columns for each token behind the pooled Hessian.
 *
 * Where the 16-bit model's hidden states are carried along, its tokens go through each expert while that has 16 bits, and experts make a
 * share of what was lost before them good (drift.h). All drifts are of the tokens that chose an expert in the student, pooled as the
 * Hessians are. Of gate and up it is that of their inputs. Of down, which comes after them, it is what the 16-bit expert makes of the 16-bit
 * model's inputs, less what 16 bits of down make of the student's middle, and what the hidden states have lost, which a token's
 * experts share: it goes to each over the mean sum of a token's weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/stop_point.h"
#include "host/gpu/tiled.h"
#include "host/model/batch.h"
#include "host/quant/run/job_internal.h"

/* Fewer tokens than this part of its columns: an expert is named. */
#define STARVED_PART 4u

bool job_experts_open(struct job *j, struct err *e)
{
    const struct acts_options where = acts_in(j->plan.experts_near ? ACTS_DEVICE : ACTS_HOST, NULL);
    if (!j->m->cfg->experts.n)
        return true;
    return gpu_arena_create(&j->rows, j->m->gpu, "experts", e) &&
           experts_create(&j->experts, j->rows, j->m, j->plan.samples, j->plan.batch_windows, j->plan.experts_near,
                          e) &&
           (!j->targets || !plan_chained(&j->plan) || experts_create_beside(&j->taught, &j->experts, j->rows, e)) &&
           (!plan_trains_experts(&j->plan, j->o) || tune_expert_open(&j->training, j->m, j->plan.samples, &where, e));
}

void job_experts_close(struct job *j)
{
    tune_expert_close(&j->training);
    experts_free(&j->taught);
    experts_free(&j->experts);
    gpu_arena_destroy(&j->rows);
}

/* ---- passes over hidden states ---- */

static bool take(struct job *j, struct experts *x, struct acts *acts, uint32_t layer, const struct block_weights *w,
                 struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct walk k = job_walk(j, acts, j->plan.samples);
    struct batch b;
    experts_begin(x, layer);
    if (batch_create(&b, j->scratch, j->m, k.batch, false, e)) {
        k.staging = b.hidden;
        while (walk_next(&k, e))
            experts_take(x, w, &b.s, k.x, k.n);
    }
    bool ok = walk_end(&k, e) && experts_sort(x, e);
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

bool job_experts_teach(struct job *j, uint32_t layer, const struct block_weights *w, struct err *e)
{
    return !j->taught.m || take(j, &j->taught, j->targets, layer, w, e);
}

bool job_experts_take(struct job *j, uint32_t layer, struct block_weights *w, struct err *e)
{
    return job_student_frame(j, HALF_FFN, w, e) && job_student_frame(j, HALF_EXPERTS, w, e) &&
           take(j, &j->experts, j->acts, layer, w, e);
}

/* What the student's hidden states have lost in front of the experts. */
static bool take_lost(struct job *j, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct walk k = job_walk(j, j->acts, j->plan.samples);
    struct gpu_view teacher;
    struct batch b;
    bool ok = true;
    if (batch_create(&b, j->scratch, j->m, k.batch, true, e)) {
        k.staging = b.hidden;
        while (ok && walk_next(&k, e)) {
            ok = acts_get(j->targets, k.at, k.n, b.teacher, &teacher, e);
            if (!ok)
                break;
            tiled_subtract(j->cmd,
                           &(struct subtract_args){
                               .a = teacher, .b = k.x, .d = b.lost, .n = k.n * j->plan.ctx * j->m->cfg->hidden_size});
            experts_put_lost(&j->taught, b.lost, k.at, k.n);
        }
    }
    ok = walk_end(&k, ok ? e : NULL) && ok;
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

static bool add_outputs(struct job *j, struct experts *x, struct acts *acts, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct walk k = job_walk(j, acts, j->plan.samples);
    struct batch b;
    k.keep = true;
    if (batch_create(&b, j->scratch, j->m, k.batch, false, e)) {
        k.staging = b.hidden;
        while (walk_next(&k, e))
            experts_add(x, &b.s, k.x, k.at, k.n);
    }
    bool ok = walk_end(&k, e);
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

/* ---- Hessians ---- */

struct expert_hessians {
    struct hessian layer, in, middle;
    bool corrects;             /* what was lost before an expert is made good */
    struct expert_drift drift; /* what there is of it */
    float hidden_share;        /* of what hidden states have lost, for each of a token's experts */
    struct gpu_view factor, diag;
    uint32_t teach;                /* tokens that teach; the others judge */
    uint32_t sample, sample_split; /* entries of tokens that stand for all, and where those that judge begin */
};

/* from -= what, of `rows` hidden states. */
static void subtract(struct job *j, struct gpu_view from, struct gpu_view what, uint32_t rows)
{
    tiled_subtract(j->cmd,
                   &(struct subtract_args){.a = from, .b = what, .d = from, .n = rows * j->m->cfg->hidden_size});
}

/* The layer's, of all inputs. */
static void gather_layer(struct job *j, const struct expert_hessians *h)
{
    struct experts *x = &j->experts, *t = &j->taught;
    const uint32_t begins[2] = {0, h->teach}, ends[2] = {h->teach, x->tokens};
    for (int part = 0; part < 2; part++)
        for (uint32_t at = begins[part], n; at < ends[part]; at += n) {
            const float factor = 2.0f / (float)(ends[part] - begins[part]);
            n = experts_inputs(x, at, ends[part], x->in);
            hessian_add(j->cmd, &h->layer, part ? HESSIAN_HELD : HESSIAN_TRAIN, x->in, n, factor);
            if (h->corrects && !part) {
                experts_inputs(t, at, ends[part], t->out);
                subtract(j, t->out, x->in, n);
                drift_add(j->cmd, &h->drift.layer, t->out, x->in, n, factor);
            }
        }
}

static uint32_t float_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* to = share * from, in tiles of rows. */
static void scaled(struct job *j, struct gpu_view from, struct gpu_view to, uint32_t n, uint32_t cols,
                   struct gpu_view factor, float share)
{
    gpu_fill(j->cmd, gpu_slice(factor, 0, HESSIAN_TILE < n ? HESSIAN_TILE * 4ull : n * 4ull), float_bits(share));
    for (uint32_t r = 0; r < n; r += HESSIAN_TILE) {
        uint32_t rows = (uint32_t)min_u64(HESSIAN_TILE, n - r);
        uint64_t at = (uint64_t)r * cols * 4, bytes = (uint64_t)rows * cols * 4;
        tiled_scale_rows(j->cmd, &(struct scale_rows_args){.x = gpu_slice(from, at, bytes),
                                                           .w = factor,
                                                           .y = gpu_slice(to, at, bytes),
                                                           .rows = rows,
                                                           .cols = cols});
    }
}

static float own_share(uint32_t tokens, uint32_t cols)
{
    return (float)((double)tokens / ((double)tokens + cols / 2.0));
}

/* What the diagonal of a pooled Hessian is raised by, as a share of it. A mean over n tokens with weight a and one over m with
 * weight 1 - a scatter as one over 1 / (a^2 / n + (1 - a)^2 / m) tokens does. Half as much and twice as much serve as well
 * (docs/method.md 1). */
static float noise_share(uint32_t own, uint32_t layer, uint32_t cols)
{
    double a = own_share(own, cols), b = 1 - a;
    return (float)(cols / 2.0 * ((own ? a * a / own : 0) + (layer ? b * b / layer : 0)));
}

/* What was lost of the inputs of a tile's tokens, which are in x->in. */
static void drift_of_inputs(struct job *j, const struct expert_drift *d, uint32_t at, uint32_t n, float factor)
{
    struct experts *x = &j->experts, *t = &j->taught;
    experts_gather_from(x, t->x, at, n, t->out);
    subtract(j, t->out, x->in, n);
    drift_add(j->cmd, &d->in, t->out, x->in, n, factor);
}

/* The same of what the expert should give them; x->gate becomes their middle. */
static void drift_of_outputs(struct job *j, const struct expert_hessians *h, uint32_t at, uint32_t n, float factor)
{
    struct experts *x = &j->experts, *t = &j->taught;
    const struct gpu_view w[EXPERT_MATRICES] = {h->drift.gate, h->drift.up, x->w[EXPERT_MATRICES - 1]};
    experts_gather_from(x, t->x, at, n, t->in); /* x->in, too */
    experts_middle(t, w, n, true);
    experts_down(t, w, n, true);
    experts_gather_from(x, x->x, at, n, x->in);
    experts_middle(x, x->w, n, true);
    experts_down(x, x->w, n, true);
    subtract(j, t->out, x->out, n);
    drift_add(j->cmd, &h->drift.out, t->out, x->gate, n, factor);
    if (h->hidden_share > 0) {
        experts_gather_from(x, t->lost, at, n, t->out);
        drift_add(j->cmd, &h->drift.out, t->out, x->gate, n, factor * h->hidden_share);
    }
}

/* What is gathered of an expert: by its inputs, by the middle, or both. */
enum gathered { GATHER_INPUTS = 1, GATHER_MIDDLE = 2, GATHER_BOTH = 3 };

/* Tokens at .. end - 1 of the lists to the sums; a factor of 0: not to that one. lost: to those of drift, too. */
static void gather(struct job *j, const struct expert_hessians *h, enum hessian_sum sum, uint32_t at, uint32_t end,
                   float in, float middle, bool lost)
{
    struct experts *x = &j->experts;
    for (uint32_t n; at < end; at += n) {
        n = experts_gather(x, at, end);
        if (in > 0) {
            hessian_add(j->cmd, &h->in, sum, x->in, n, in);
            if (lost)
                drift_of_inputs(j, &h->drift, at, n, in);
        }
        if (middle > 0) {
            if (lost)
                drift_of_outputs(j, h, at, n, middle);
            else
                experts_middle(x, x->w, n, true);
            hessian_add(j->cmd, &h->middle, sum, x->gate, n, middle);
        }
    }
}

/* What the layer has to give, or nothing. */
static void begin_sums(struct job *j, const struct expert_hessians *h, enum gathered which, uint32_t teach,
                       uint32_t judge)
{
    const uint32_t hidden = j->m->cfg->hidden_size;
    if (which & GATHER_MIDDLE) {
        gpu_fill(j->cmd, h->middle.train, 0);
        if (h->middle.held.size)
            gpu_fill(j->cmd, h->middle.held, 0);
        if (h->corrects)
            gpu_fill(j->cmd, h->drift.out.sum, 0);
    }
    if (which & GATHER_INPUTS) {
        const float share = 1 - own_share(teach, hidden);
        scaled(j, h->layer.train, h->in.train, hidden, hidden, h->factor, share);
        if (h->in.held.size)
            scaled(j, h->layer.held, h->in.held, hidden, (uint32_t)min_u64(hidden, HESSIAN_TILE), h->factor,
                   1 - own_share(judge, hidden));
        if (h->corrects)
            scaled(j, h->drift.layer.sum, h->drift.in.sum, hidden, hidden, h->factor, share);
    }
}

/* Those of one expert, whose weights are as they are in the model; for a middle of its own turn gate and up as they will be. */
static bool gather_expert(struct job *j, const struct expert_hessians *h, uint32_t expert, enum gathered which,
                          struct err *e)
{
    struct experts *x = &j->experts;
    uint32_t at = x->start[expert], end = x->start[expert + 1], split = at;
    const uint32_t hidden = j->m->cfg->hidden_size, width = j->m->cfg->experts.width;
    while (split < end && x->rows[split] < h->teach)
        split++;
    begin_sums(j, h, which, split - at, end - split);
    const uint32_t begins[2] = {at, split}, ends[2] = {split, end};
    const uint32_t samples[2] = {h->sample, h->sample_split}, sample_ends[2] = {h->sample_split, h->sample + x->sample};
    for (int part = 0; part < 2; part++) {
        enum hessian_sum sum = part ? HESSIAN_HELD : HESSIAN_TRAIN;
        uint32_t n = ends[part] - begins[part], sample = sample_ends[part] - samples[part];
        const float in = which & GATHER_INPUTS ? own_share(n, hidden) : 0, middle = own_share(n, width);
        const bool lost = h->corrects && !part;
        if (n)
            gather(j, h, sum, begins[part], ends[part], in * 2 / (float)n,
                   which & GATHER_MIDDLE ? middle * 2 / (float)n : 0, lost);
        if (sample && which & GATHER_MIDDLE)
            gather(j, h, sum, samples[part], sample_ends[part], 0, (1 - middle) * 2 / (float)sample, lost);
    }
    if (which & GATHER_INPUTS)
        hessian_raise_diagonal(j->cmd, &h->in, noise_share(split - at, h->teach, hidden), h->diag, h->factor);
    if (which & GATHER_MIDDLE)
        hessian_raise_diagonal(j->cmd, &h->middle, noise_share(split - at, h->sample_split - h->sample, width), h->diag,
                               h->factor);
    return gpu_cmd_finish(j->cmd, e); /* what comes next waits for the device anyway */
}

/* Where down comes after gate and up, the first or the second half of it, which take about as long. */
static bool gather_turn(struct job *j, const struct expert_hessians *h, const struct matrix *down, enum gathered which,
                        struct err *e)
{
    job_begin(j, WORK_HESSIAN, job_expert_hessian_work(j, down) / (which == GATHER_BOTH ? 1 : 2));
    bool ok = gather_expert(j, h, down->expert, which, e);
    job_end(j);
    return ok;
}

/* ---- one expert, all experts ---- */

static struct block_items expert_items(const struct job *j, uint32_t layer, uint32_t expert)
{
    const struct block_items b = plan_block(&j->plan, layer);
    uint32_t common = b.n - j->m->cfg->experts.n * EXPERT_MATRICES;
    return (struct block_items){b.items + common + (size_t)expert * EXPERT_MATRICES, EXPERT_MATRICES};
}

static bool any_coded(struct block_items b)
{
    bool any = false;
    for (uint32_t i = 0; i < b.n; i++)
        any = any || b.items[i].coded;
    return any;
}

static bool any_hessian(const struct job *j, struct block_items b)
{
    bool any = false;
    for (uint32_t i = 0; i < b.n; i++)
        any = any || plan_needs_hessian(j->o, &b.items[i]);
    return any;
}

static bool is_starved(const struct job *j, uint32_t tokens)
{
    return tokens < j->m->cfg->hidden_size / STARVED_PART;
}

/* On its own output, from what each of its matrices learned alone. */
static bool train_expert(struct job *j, uint32_t expert, struct block_items b, struct block_result *r, struct err *e)
{
    const struct matrix *down = &b.items[b.n - 1];
    struct tune_hooks hooks = {job_on_tune_step, j};
    struct stage_report s;
    char name[24];
    struct tune_expert_task t = {.o = j->o,
                                 .items = b,
                                 .samples = j->plan.samples,
                                 .holdout = j->plan.holdout,
                                 .micro = j->plan.micro_windows,
                                 .arena = j->scratch,
                                 .kept = j->kept,
                                 .hooks = &hooks};
    job_begin(j, WORK_TRAIN, job_expert_work(j, down));
    if (!tune_expert(&j->training, &t, &j->experts, expert, r->q + b.items[0].place, &s, e))
        return e->kind != ERR_STOPPED && err_context(e, "%s", down->module);
    snprintf(name, sizeof name, "expert %u", expert);
    job_tell_retries(j, name, &s);
    r->report[down->place].expert.trained = s.trained;
    job_end(j);
    return true;
}

/* x->w become what the file will hold. */
static bool make_expert(struct job *j, const struct expert_hessians *h, uint32_t expert, struct block_items b,
                        struct block_result *r, struct err *e)
{
    struct experts *x = &j->experts;
    const bool trains = plan_trains(j->o, HALF_EXPERTS, b);
    struct quantize_options alone = *j->o;
    bool ok =
        !trains || tune_expert_take(&j->training, x, expert, (j->plan.samples - j->plan.holdout) * j->plan.ctx, e);
    const struct matrix *down = &b.items[b.n - 1];
    const bool corrects = h && h->corrects;
    if (ok && h)
        ok = gather_turn(j, h, down, corrects ? GATHER_INPUTS : GATHER_BOTH, e);
    if (ok && corrects) {
        gpu_copy(j->cmd, h->drift.gate, x->w[0], h->drift.gate.size);
        gpu_copy(j->cmd, h->drift.up, x->w[1], h->drift.up.size);
    }
    if (ok && j->refined)
        ok = experts_load_biases(x, j->refined, expert, e);
    if (trains)
        alone.gumbel.steps = quantize_lone_steps(j->o);
    for (uint32_t i = 0; ok && i < b.n; i++) {
        const struct matrix *item = &b.items[i];
        const struct hessian *of = item == down ? &h->middle : &h->in;
        const struct drift *lost = item == down ? &h->drift.out : &h->drift.in;
        ok = item != down || !corrects || gather_turn(j, h, down, GATHER_MIDDLE, e);
        if (ok && item->coded)
            ok = job_quantize_linear(j, &alone, item, x->w[i], h && plan_needs_hessian(j->o, item) ? of : NULL,
                                     corrects ? lost : NULL, false, r, e);
        else if (ok && j->refined)
            ok = job_kept_matrix(j, item, x->w[i], e);
        r->report[item->place].expert = (struct expert_report){
            .counted = true, .tokens = experts_tokens(x, expert), .starved = is_starved(j, experts_tokens(x, expert))};
    }
    return ok && (!trains || train_expert(j, expert, b, r, e));
}

static bool load_expert(struct job *j, struct block_items b, uint32_t expert, struct err *e)
{
    double work = 0;
    for (uint32_t i = 0; i < b.n; i++)
        work += job_load_work(j, &b.items[i]);
    job_begin(j, WORK_LOAD, work);
    bool ok =
        experts_load(&j->experts, expert, e) && (!j->taught.m || experts_load_biases(&j->taught, j->m, expert, e));
    job_end(j);
    return ok;
}

/* x->w become the same where an earlier run has made it. */
static bool stored_expert(struct job *j, uint32_t expert, struct block_items b, struct err *e)
{
    bool ok = job_stored(j, true, e) && experts_load_biases(&j->experts, j->refined ? j->refined : j->m, expert, e);
    for (uint32_t i = 0; ok && i < b.n; i++)
        ok = (b.items[i].coded ? job_stored_linear : job_kept_matrix)(j, &b.items[i], j->experts.w[i], e);
    return ok;
}

/* Tells which experts few tokens chose. */
static void tell_starved(const struct job *j, uint32_t layer)
{
    const struct model_config *c = j->m->cfg;
    char list[200] = "";
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->experts.n; i++) {
        uint32_t tokens = experts_tokens(&j->experts, i);
        size_t at = strlen(list);
        if (!is_starved(j, tokens))
            continue;
        if (n++ < 12)
            snprintf(list + at, sizeof list - at, "%s%u (%u)", at ? ", " : "", i, tokens);
    }
    if (n)
        log_warn("block %u: %u of %u experts saw few tokens, and their Hessians lean on the layer's: %s%s", layer + 1,
                 n, c->experts.n, list, n > 12 ? ", ..." : "");
}

static bool hessians_open(struct job *j, struct expert_hessians *h, struct err *e)
{
    h->teach = (j->plan.samples - j->plan.holdout) * j->plan.ctx;
    if (!hessian_create_experts(&h->layer, &h->in, &h->middle, &h->factor, &h->diag, j->cmd, j->hess, j->m->cfg,
                                j->plan.holdout > 0, e))
        return false;
    h->sample = experts_sample(&j->experts, h->teach, &h->sample_split);
    h->corrects = j->taught.m != NULL;
    if (h->corrects) {
        const double weight = experts_mean_weight(&j->experts);
        h->hidden_share = weight > 0 ? (float)(1 / weight) : 0;
        if (!drift_create_expert(&h->drift, j->hess, j->m->cfg, e) || !take_lost(j, e))
            return false;
        gpu_fill(j->cmd, h->drift.layer.sum, 0);
    }
    job_begin(j, WORK_HESSIAN, job_layer_hessian_work(j, j->layer));
    gather_layer(j, h);
    bool ok = gpu_cmd_finish(j->cmd, e);
    job_end(j);
    return ok;
}

/* Whether there is nothing to be done of an expert: no token needs it, and no file. */
static bool is_idle(const struct job *j, uint32_t expert, struct block_items b, bool stored)
{
    return !experts_tokens(&j->experts, expert) && (stored || !any_coded(b));
}

/* x->w become what the file will hold, which another rank has made. */
static bool given_expert(struct job *j, uint32_t expert, struct block_items b, const struct block_result *r,
                         struct err *e)
{
    const enum gpu_part before = gpu_part_begin(j->cmd, GPU_PART_EXCHANGE);
    bool ok = j->refined || j->taught.m ? experts_load_biases(&j->experts, j->refined ? j->refined : j->m, expert, e)
                                        : load_expert(j, b, expert, e);
    for (uint32_t i = 0; ok && i < b.n; i++)
        ok = b.items[i].coded ? job_dequant(j, &b.items[i], &r->q[b.items[i].place], j->experts.w[i], e)
                              : job_kept_matrix(j, &b.items[i], j->experts.w[i], e);
    gpu_part_end(j->cmd, before);
    return ok;
}

/* One to all ranks, x->w with it. */
static bool share_expert(struct job *j, uint32_t expert, unsigned rank, struct block_items b, struct block_result *r,
                         struct err *e)
{
    bool ok = true;
    if (comm_size() == 1)
        return true;
    for (uint32_t i = 0; ok && i < b.n; i++)
        ok = b.items[i].coded ? job_give(j, &b.items[i], rank, r, e)
                              : comm_broadcast(COMM_CODES, &r->report[b.items[i].place], sizeof *r->report, rank, e);
    return ok && given_expert(j, expert, b, r, e);
}

/* The 16-bit model's tokens through the expert that is loaded. */
static void run_taught(struct job *j, uint32_t expert)
{
    job_begin(j, WORK_FORWARD, job_expert_forward_work(j));
    experts_run(&j->taught, expert, j->taught.w, true);
    job_end(j);
}

/* The same of one that is not. made: since it is made in turn by several ranks. */
static bool load_taught(struct job *j, struct block_items b, uint32_t expert, bool made, struct err *e)
{
    const enum gpu_part before = gpu_part_begin(j->cmd, made ? GPU_PART_EXCHANGE : GPU_PART_OWN);
    bool ok = load_expert(j, b, expert, e);
    gpu_part_end(j->cmd, before);
    if (ok)
        run_taught(j, expert);
    return ok;
}

/* An expert's codes to r, x->w to what they give. teaches: while it has 16 bits, the 16-bit model's tokens go through it. */
static bool new_expert(struct job *j, const struct expert_hessians *h, uint32_t expert, struct block_items b,
                       bool teaches, struct block_result *r, struct err *e)
{
    enum gpu_part before = gpu_part_begin(j->cmd, GPU_PART_UNITS);
    bool ok = load_expert(j, b, expert, e);
    gpu_part_end(j->cmd, before);
    if (ok && teaches)
        run_taught(j, expert);
    before = gpu_part_begin(j->cmd, GPU_PART_UNITS);
    ok = ok && make_expert(j, any_hessian(j, b) ? h : NULL, expert, b, r, e);
    gpu_part_end(j->cmd, before);
    return ok;
}

/* Parts of a layer that processes share. */
struct expert_parts {
    struct job *j;
    struct block_items block;
    uint32_t layer, first; /* part */
    const struct expert_hessians *h;
    struct block_result *r;
    bool *own; /* [parts]: made and told of here */
};

static const char *part_unit(void *ctx, uint32_t i, char out[UNIT_NAME_CAP])
{
    const struct expert_parts *x = ctx;
    snprintf(out, UNIT_NAME_CAP, "block-%04u-part-%04u", x->layer, x->first + i);
    return out;
}

static bool look_part(void *ctx, uint32_t i, bool *there, struct err *e)
{
    struct expert_parts *x = ctx;
    const struct block_items items = store_part(x->block, x->first + i);
    const bool known = store_has_part(x->j->store, x->layer, x->first + i);
    (void)e;
    *there = store_look(x->j->store, x->layer, x->first + i, items);
    if (*there && !known)
        job_skip_part(x->j, items);
    return true;
}

static bool make_part(void *ctx, uint32_t i, struct err *e)
{
    struct expert_parts *x = ctx;
    struct job *j = x->j;
    const struct block_items items = store_part(x->block, x->first + i);
    bool ok = true;
    for (uint32_t at = 0; ok && at < items.n; at += EXPERT_MATRICES) {
        const struct block_items b = {items.items + at, EXPERT_MATRICES};
        ok = is_idle(j, b.items[0].expert, b, false) || new_expert(j, x->h, b.items[0].expert, b, false, x->r, e);
    }
    x->r->part = x->first + i;
    x->own[i] = true;
    return ok && job_end_part(j, x->layer, x->r, e) && job_stored(j, true, e);
}

/* All parts from r->part on, so that all experts of the layer are stored. */
static bool share_parts(struct job *j, uint32_t layer, const struct expert_hessians *h, struct block_result *r,
                        struct err *e)
{
    const struct block_items block = plan_block(&j->plan, layer);
    struct expert_parts x = {.j = j, .block = block, .layer = layer, .first = r->part, .h = h, .r = r};
    const struct job_units parts = {.n = store_parts(block) - r->part,
                                    .what = "experts of another process",
                                    .name = part_unit,
                                    .look = look_part,
                                    .make = make_part,
                                    .ctx = &x};
    x.own = calloc(parts.n + 1u, sizeof *x.own);
    bool ok =
        (x.own || err_nomem(e, "a list of parts", parts.n)) && job_stored(j, true, e) && job_each_unit(j, &parts, e);
    for (uint32_t i = 0; ok && i < parts.n; i++)
        ok = x.own[i] || job_report_stored(j, layer, x.first + i, e);
    r->part = x.first + parts.n;
    free(x.own);
    return ok;
}

bool job_experts(struct job *j, uint32_t layer, struct block_result *r, uint64_t *clock, struct err *e)
{
    struct experts *x = &j->experts;
    struct expert_hessians h = {0};
    const uint32_t experts = j->m->cfg->experts.n, ranks = comm_size();
    const bool needs = r && any_hessian(j, plan_block(&j->plan, layer));
    bool ok = !needs || hessians_open(j, &h, e);
    if (r && needs)
        tell_starved(j, layer);
    /* Of as many in a row as there are ranks each makes one; then all go on with all, in their order. */
    for (uint32_t i = 0; ok && i < experts; i++) {
        const struct block_items b = expert_items(j, layer, i);
        const uint32_t part = store_part_of(b.items), mine = i + comm_rank();
        if (r && part != r->part)
            ok = job_end_part(j, layer, r, e);
        if (ok && r && job_shared(j) && (!i || store_part_of(b.items - 1) != part)) {
            ok = share_parts(j, layer, &h, r, e);
            r = NULL;
        }
        const bool stored = !r || store_has_part(j->store, layer, part), made = !stored && !is_idle(j, i, b, false),
                   teaches = j->taught.m && experts_tokens(&j->taught, i);
        if (ok && i % ranks == 0 && r && mine < experts) {
            const struct block_items own = expert_items(j, layer, mine);
            if (!store_has_part(j->store, layer, store_part_of(own.items)) && !is_idle(j, mine, own, false))
                ok = new_expert(j, &h, mine, own, teaches && ranks == 1, r, e);
        }
        if (ok && teaches && !(made && ranks == 1))
            ok = load_taught(j, b, i, made, e);
        if (!ok || is_idle(j, i, b, stored))
            continue;
        ok = stored ? stored_expert(j, i, b, e) : share_expert(j, i, i % ranks, b, r, e);
        if (ok) {
            job_begin(j, WORK_FORWARD, job_expert_forward_work(j));
            experts_run(x, i, x->w, true);
            job_end(j);
        }
    }
    ok = gpu_cmd_finish(j->cmd, ok ? e : NULL) && ok;
    gpu_arena_reset(j->hess, 0);
    gpu_arena_trim(j->hess);
    job_clock(j, PHASE_LINEARS, clock);
    job_detail(j, "outputs");
    return ok && add_outputs(j, x, j->acts, e) && (!j->taught.m || add_outputs(j, &j->taught, j->targets, e));
}
