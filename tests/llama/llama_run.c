/* The verbs that run a model: token ids, perplexity, KL divergence. Protocol of llama-perplexity: the text is
 * tokenized whole, cut into windows of n tokens, the first token of each replaced by the BOS where the model
 * adds one, and the predictions of positions n/2 .. n-2 are scored. */
#include "tests/llama/llama_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"

bool parse_count(const char *text, uint32_t *out, struct err *e)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < 0 || v > 1 << 24)
        return err_set(e, ERR_USER, "%s is not a count", text);
    *out = (uint32_t)v;
    return true;
}

/* ---- a model ---- */

bool session_open(struct session *s, const char *path, uint32_t window, ggml_backend_sched_eval_callback seen,
                  void *user, struct err *e)
{
    struct llama_model_params mp = llama_model_default_params();
    struct llama_context_params cp = llama_context_default_params();
    *s = (struct session){.window = window};
    mp.n_gpu_layers = 0;
    mp.use_extra_bufts = false; /* the plain kernels of every type, whatever the processor */
    mp.vocab_only = window == 0;
    s->model = llama_model_load_from_file(path, mp);
    if (!s->model)
        return err_set(e, ERR_USER, "llama.cpp does not load %s", path);
    s->vocab = llama_model_get_vocab(s->model);
    s->n_vocab = llama_vocab_n_tokens(s->vocab);
    if (!window)
        return true;
    cp.n_ctx = cp.n_batch = cp.n_ubatch = window;
    cp.n_threads = cp.n_threads_batch = THREADS;
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    cp.type_k = cp.type_v = GGML_TYPE_F32;
    cp.no_perf = true;
    cp.cb_eval = seen;
    cp.cb_eval_user_data = user;
    s->ctx = llama_init_from_model(s->model, cp);
    s->batch = llama_batch_init((int32_t)window, 0, 1);
    return s->ctx || err_set(e, ERR_ENV, "llama.cpp makes no context for %s", path);
}

void session_close(struct session *s)
{
    if (s->batch.token)
        llama_batch_free(s->batch);
    if (s->ctx)
        llama_free(s->ctx);
    if (s->model)
        llama_model_free(s->model);
    *s = (struct session){0};
}

bool session_decode(struct session *s, const llama_token *ids, uint32_t first, struct err *e)
{
    llama_memory_clear(llama_get_memory(s->ctx), true);
    for (uint32_t i = 0; i < s->window; i++) {
        s->batch.token[i] = ids[i];
        s->batch.pos[i] = (llama_pos)i;
        s->batch.n_seq_id[i] = 1;
        s->batch.seq_id[i][0] = 0;
        s->batch.logits[i] = i >= first;
    }
    if (llama_vocab_get_add_bos(s->vocab))
        s->batch.token[0] = llama_vocab_bos(s->vocab);
    s->batch.n_tokens = (int32_t)s->window;
    return llama_decode(s->ctx, s->batch) == 0 || err_set(e, ERR_BUG, "llama_decode failed");
}

bool ids_load(struct ids *out, const struct session *s, const char *text, struct err *e)
{
    char *data;
    size_t size;
    if (!os_read_file(text, 1u << 30, &data, &size, e))
        return false;
    int32_t n = -llama_tokenize(s->vocab, data, (int32_t)size, NULL, 0, true, false);
    out->id = malloc((size_t)(n > 0 ? n : 1) * sizeof *out->id);
    bool ok = n > 0 && out->id && llama_tokenize(s->vocab, data, (int32_t)size, out->id, n, true, false) == n;
    out->n = ok ? (uint32_t)n : 0;
    free(data);
    return ok || err_set(e, ERR_USER, "llama.cpp does not tokenize %s", text);
}

bool ids_windows(const struct ids *t, uint32_t window, uint32_t at_most, uint32_t *out, struct err *e)
{
    *out = t->n / window;
    if (at_most && *out > at_most)
        *out = at_most;
    return *out || err_set(e, ERR_USER, "the text has %u tokens, less than a window of %u", t->n, window);
}

/* ---- verbs ---- */

/* tokens MODEL TEXT [OUT]: how many, their hash as gsq eval --json has it, and the ids as u32le in OUT. */
static bool run_tokens(char **args, int n, struct err *e)
{
    struct session s;
    struct ids t = {0};
    char hex[33];
    bool ok = session_open(&s, args[0], 0, NULL, NULL, e) && ids_load(&t, &s, args[1], e);
    if (ok) {
        uint8_t *bytes = malloc(4 * (size_t)t.n);
        ok = bytes || err_nomem(e, "token ids", 4ull * t.n);
        for (uint32_t i = 0; ok && i < t.n; i++)
            store_u32le(bytes + 4 * (size_t)i, (uint32_t)t.id[i]);
        if (ok) {
            hash_hex(hash_bytes(bytes, 4 * (size_t)t.n, (struct hash128){0}), hex);
            printf("{\"tokens\": %u, \"token_hash\": \"%s\"}\n", t.n, hex);
        }
        ok = ok && (n < 3 || os_write_file(args[2], bytes, 4 * (size_t)t.n, e));
        free(bytes);
    }
    free(t.id);
    session_close(&s);
    return ok;
}

/* texts MODEL TEXT...: {"ids":[...]} for each, special tokens read where they stand in a text. */
static bool run_texts(char **args, int n, struct err *e)
{
    struct session s;
    bool ok = session_open(&s, args[0], 0, NULL, NULL, e);
    for (int i = 1; i < n && ok; i++) {
        char *data = NULL;
        size_t size;
        int32_t *ids = NULL, count = 0;
        ok = os_read_file(args[i], 1u << 30, &data, &size, e);
        if (ok) {
            count = -llama_tokenize(s.vocab, data, (int32_t)size, NULL, 0, true, true);
            ids = malloc((size_t)(count > 0 ? count : 1) * sizeof *ids);
            ok = (ids && llama_tokenize(s.vocab, data, (int32_t)size, ids, count, true, true) == count) ||
                 err_set(e, ERR_USER, "llama.cpp does not tokenize %s", args[i]);
        }
        printf(ok ? "{\"ids\":[" : "");
        for (int32_t k = 0; ok && k < count; k++)
            printf("%s%d", k ? "," : "", (int)ids[k]);
        printf(ok ? "]}\n" : "");
        free(ids);
        free(data);
    }
    session_close(&s);
    return ok;
}

/* log p of the whole vocabulary from logits; returns the likeliest token. */
static int32_t log_softmax(const float *logits, int32_t n, double *out)
{
    int32_t top = 0;
    double sum = 0;
    for (int32_t v = 1; v < n; v++)
        top = logits[v] > logits[top] ? v : top;
    for (int32_t v = 0; v < n; v++)
        sum += exp((double)logits[v] - logits[top]);
    for (int32_t v = 0; v < n; v++)
        out[v] = (double)logits[v] - logits[top] - log(sum);
    return top;
}

struct score {
    double nll[2], kl;
    uint64_t agree, n;
};

/* Scores one window: side 0 is the model, side 1 (if any) the reference. */
static bool score_window(struct session *side, int sides, const llama_token *ids, double *log_p[2], struct score *sum,
                         struct err *e)
{
    uint32_t first = side[0].window / 2;
    for (int k = 0; k < sides; k++)
        if (!session_decode(&side[k], ids, first, e))
            return false;
    for (uint32_t i = first; i + 1 < side[0].window; i++) {
        int32_t top[2], n = side[0].n_vocab;
        for (int k = 0; k < sides; k++) {
            const float *logits = llama_get_logits_ith(side[k].ctx, (int32_t)i);
            if (!logits)
                return err_set(e, ERR_BUG, "no logits at position %u", i);
            top[k] = log_softmax(logits, n, log_p[k]);
            sum->nll[k] -= log_p[k][ids[i + 1]];
        }
        sum->n++;
        if (sides == 1)
            continue;
        for (int32_t v = 0; v < n; v++)
            sum->kl += exp(log_p[1][v]) * (log_p[1][v] - log_p[0][v]);
        sum->agree += top[0] == top[1];
    }
    return true;
}

/* ppl MODEL TEXT CTX WINDOWS, kl MODEL REFERENCE TEXT CTX WINDOWS; 0 windows: all. */
static bool run_scores(char **args, int sides, struct err *e)
{
    struct session side[2] = {{0}};
    struct ids t = {0};
    double *log_p[2] = {0};
    struct score sum = {0};
    uint32_t ctx, at_most, windows = 0;
    bool ok = parse_count(args[sides + 1], &ctx, e) && parse_count(args[sides + 2], &at_most, e) &&
              (ctx >= 4 || err_set(e, ERR_USER, "a window needs 4 tokens"));
    for (int k = 0; ok && k < sides; k++)
        ok = session_open(&side[k], args[k], ctx, NULL, NULL, e);
    for (int k = 0; ok && k < sides; k++) {
        log_p[k] = malloc((size_t)side[k].n_vocab * sizeof *log_p[k]);
        ok = log_p[k] || err_nomem(e, "a row of logits", (unsigned)side[k].n_vocab * 8ull);
    }
    if (ok && sides == 2 && side[0].n_vocab != side[1].n_vocab)
        ok = err_set(e, ERR_USER, "the vocabularies have %d and %d tokens", side[0].n_vocab, side[1].n_vocab);
    ok = ok && ids_load(&t, &side[0], args[sides], e) && ids_windows(&t, ctx, at_most, &windows, e);
    for (uint32_t w = 0; ok && w < windows; w++)
        ok = score_window(side, sides, t.id + (size_t)w * ctx, log_p, &sum, e);
    if (ok) {
        double n = (double)sum.n;
        printf("{");
        if (sides == 2)
            printf("\"mean_kl\": %.9g, \"top1_agreement\": %.9g, \"reference_perplexity\": %.9g, ", sum.kl / n,
                   (double)sum.agree / n, exp(sum.nll[1] / n));
        printf("\"perplexity\": %.9g, \"mean_nll\": %.9g, \"tokens\": %u, \"windows\": %u, \"scored\": %llu}\n",
               exp(sum.nll[0] / n), sum.nll[0] / n, t.n, windows, (unsigned long long)sum.n);
    }
    for (int k = 0; k < 2; k++) {
        free(log_p[k]);
        session_close(&side[k]);
    }
    free(t.id);
    return ok;
}

static bool run_ppl(char **args, int n, struct err *e)
{
    (void)n;
    return run_scores(args, 1, e);
}

static bool run_kl(char **args, int n, struct err *e)
{
    (void)n;
    return run_scores(args, 2, e);
}

static bool run_version(char **args, int n, struct err *e)
{
    (void)args, (void)n, (void)e;
    printf("llama.cpp %s\n", llama_version());
    return true;
}

static const struct verb {
    const char *name, *args;
    int least, most; /* arguments */
    bool (*run)(char **args, int n, struct err *e);
} verbs[] = {
    {"tokens", "MODEL TEXT [OUT]", 2, 3, run_tokens},
    {"texts", "MODEL TEXT...", 2, 1000, run_texts},
    {"ppl", "MODEL TEXT CTX WINDOWS", 4, 4, run_ppl},
    {"kl", "MODEL REFERENCE TEXT CTX WINDOWS", 5, 5, run_kl},
    {"types", "MODEL", 1, 1, run_types},
    {"validate", "MODEL", 1, 1, run_validate},
    {"codes", "MODEL", 1, 1, run_codes},
    {"same", "A B", 2, 2, run_same},
    {"dequant", "IN OUT", 2, 2, run_dequant},
    {"quantize", "IN OUT TYPE [IMATRIX|- [OPTION...]]", 3, 12, run_quantize},
    {"imatrix", "MODEL TEXT CTX WINDOWS OUT", 5, 5, run_imatrix},
    {"version", "", 0, 0, run_version},
};

static void tell(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR || (level == GGML_LOG_LEVEL_WARN && os_getenv("LLAMA_RUN_VERBOSE")))
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    llama_log_set(tell, NULL);
    ggml_backend_load_all_from_path(LLAMA_LIBS);
    llama_backend_init();
    for (size_t i = 0; argc >= 2 && i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(argv[1], verbs[i].name))
            continue;
        if (argc - 2 < verbs[i].least || argc - 2 > verbs[i].most)
            break;
        if (!verbs[i].run(argv + 2, argc - 2, &e))
            fprintf(stderr, "error: %s\n", e.msg);
        llama_backend_free();
        return os_exit_code(&e);
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        fprintf(stderr, "%s llama_run %s %s\n", i ? "      " : "usage:", verbs[i].name, verbs[i].args);
    return 2;
}
