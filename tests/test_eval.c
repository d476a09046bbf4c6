/* Perplexity and KL divergence: tiny models against the reference in double, every way of storing and
 * batching against the others, and the real models against the published figures. */
#include "tests/device.h"
#include "tests/family_model.h"

#include <math.h>

#include <cjson/cJSON.h>

#include "formats/question_file.h"
#include "host/eval/tasks.h"
#include "tests/byte_tokenizer.h"

#define DIR_ "tmp_eval"
#include "tests/scratch_dir.h"

#define MODEL DIR_ "/model"
#define OTHER DIR_ "/other"
#define TEXT  DIR_ "/text.txt"

enum { CTX = 21, TEXT_BYTES = 5 * CTX + 4 };

static void write_model(const char *dir, const struct shape *s, struct raw_model *raw)
{
    family_write(dir, s, raw);
    byte_tokenizer_write(dir);
}

static struct eval_result eval_ok(const char *dir, const struct eval_options *o)
{
    struct err e = {0};
    struct eval_result r;
    struct checkpoint *c = open_ok(dir);
    OK(eval_perplexity(cmd, c, o, &r, &e), e);
    checkpoint_close(&c);
    return r;
}

/* log p[windows * ctx, vocab] of every position, by the reference; the caller frees. */
static double *reference_log_probs(const struct shape *s, const struct raw_model *raw, const uint32_t *ids,
                                   uint32_t windows)
{
    struct ref_config c = s->c;
    struct family_numbers f;
    size_t tokens = (size_t)windows * CTX;
    double *x = malloc(tokens * c.hidden * sizeof *x), *out = malloc(tokens * c.vocab * sizeof *out);
    assert_true(x && out);
    c.ctx = CTX;
    family_numbers(&f, raw, s);
    family_embed(&f, s, ids, tokens, x);
    for (uint32_t l = 0; l < s->layers; l++)
        assert_true(ref_block_forward(&c, &f.blocks[l], windows, x, NULL, x));
    for (size_t t = 0; t < tokens; t++)
        ref_log_probs(&c, f.final_norm, f.head, x + t * c.hidden, out + t * c.vocab);
    family_numbers_free(&f);
    free(x);
    return out;
}

static double mean_nll(const double *log_probs, const uint32_t *ids, uint32_t windows, uint32_t vocab)
{
    double sum = 0;
    for (uint32_t t = 0; t < windows * CTX; t++)
        if (t % CTX != CTX - 1)
            sum -= log_probs[(size_t)t * vocab + ids[t + 1]];
    return sum / (windows * (CTX - 1.0));
}

/* Standard error of that mean. */
static double nll_error(const double *log_probs, const uint32_t *ids, uint32_t windows, uint32_t vocab)
{
    double mean = mean_nll(log_probs, ids, windows, vocab), sum = 0, n = windows * (CTX - 1.0);
    for (uint32_t t = 0; t < windows * CTX; t++)
        if (t % CTX != CTX - 1)
            sum += pow(-log_probs[(size_t)t * vocab + ids[t + 1]] - mean, 2);
    return sqrt(sum / (n - 1) / n);
}

/* ---- tiny models ---- */

static void test_reference(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1];
    for (int i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct raw_model raw;
        os_remove_tree(DIR_);
        write_model(MODEL, s, &raw);
        byte_text_write(DIR_, TEXT_BYTES, ids);
        double *lp = reference_log_probs(s, &raw, ids, 5);
        double want = mean_nll(lp, ids, 5, s->c.vocab);
        struct eval_result r = eval_ok(MODEL, &(struct eval_options){.text = TEXT, .ctx = CTX});
        if (!(fabs(r.mean_nll - want) <= 1e-6 * want))
            fail_msg("%s: mean NLL %.9g, the reference has %.9g", s->name, r.mean_nll, want);
        assert_true(fabs(r.perplexity - exp(want)) < 1e-5 * exp(want));
        double off = nll_error(lp, ids, 5, s->c.vocab);
        assert_true(fabs(r.nll_error - off) <= 1e-4 * off);
        assert_true(fabs(r.perplexity_error - off * exp(want)) <= 1e-4 * off * exp(want));
        assert_int_equal(r.tokens, TEXT_BYTES + 1);
        assert_int_equal(r.windows, 5);
        assert_int_equal(r.scored, 5 * (CTX - 1));
        uint8_t bytes[4 * (TEXT_BYTES + 1)];
        char hex[33];
        for (int t = 0; t <= TEXT_BYTES; t++)
            store_u32le(bytes + 4 * t, ids[t]);
        hash_hex(hash_bytes(bytes, sizeof bytes, (struct hash128){0}), hex);
        assert_string_equal(r.token_hash, hex);
        /* Fewer windows: the first ones. */
        r = eval_ok(MODEL, &(struct eval_options){.text = TEXT, .ctx = CTX, .windows = 2});
        assert_int_equal(r.windows, 2);
        assert_true(fabs(r.mean_nll - mean_nll(lp, ids, 2, s->c.vocab)) <= 1e-6 * want);
        free(lp);
        raw_free(&raw);
    }
}

static void test_spread(void **state)
{
    (void)state;
    float x[101], one = 7, broken[3] = {2, NAN, 1};
    for (int i = 0; i < 101; i++)
        x[i] = (float)(i * 40 % 101 + 1); /* 1 to 101, in no order */
    spread_sort(x, 101);
    /* 1.96 sqrt(101 / 4) = 9.85 ranks to either side of rank 50, 1.96 sqrt(101 .99 .01) = 1.96 of rank 99. */
    struct quantile q = spread_quantile(x, 101, .5), top = spread_quantile(x, 101, .99);
    assert_true(q.share == .5 && q.value == 51 && q.low == 41 && q.high == 61);
    assert_true(top.value == 100 && top.low == 98 && top.high == 101);
    assert_true(fabs(spread_quantile(x, 100, .5).value - 50.5) < 1e-12);
    assert_true(fabs(spread_quantile(x, 100, .9).value - 90.1) < 1e-12);
    q = spread_quantile(&one, 1, .5);
    assert_true(q.value == 7 && q.low == 7 && q.high == 7);
    spread_sort(broken, 3);
    assert_true(broken[0] == 1 && broken[1] == 2 && isnan(broken[2]));
}

/* What pairs of positions say, of -ln p on both sides, each number by its definition. */
static void check_pairs(const struct compare_result *r, const double (*nll)[2], const double *kl, int n)
{
    double mean[2] = {0}, ratio = 0, change = 0, square = 0, var[2] = {0}, cov = 0, off[3] = {0};
    float sorted[5 * CTX];
    for (int i = 0; i < n; i++) {
        double d = exp(-nll[i][0]) - exp(-nll[i][1]);
        sorted[i] = (float)kl[i];
        mean[0] += nll[i][0] / n;
        mean[1] += nll[i][1] / n;
        ratio += (nll[i][0] - nll[i][1]) / n;
        change += d / n;
        square += d * d / n;
    }
    for (int i = 0; i < n; i++) {
        double d = exp(-nll[i][0]) - exp(-nll[i][1]), a = nll[i][0] - mean[0], b = nll[i][1] - mean[1];
        var[0] += a * a;
        var[1] += b * b;
        cov += a * b;
        off[0] += pow(a - b, 2);
        off[1] += pow(d - change, 2);
        off[2] += pow(d * d - square, 2);
    }
    double each = (double)n * (n - 1), rms = sqrt(square);
    assert_true(fabs(r->log_ratio - ratio) < 1e-6);
    assert_true(fabs(r->log_ratio_error / sqrt(off[0] / each) - 1) < 1e-4);
    assert_true(fabs(r->correlation - cov / sqrt(var[0] * var[1])) < 1e-5);
    assert_true(fabs(r->p_change - change) < 1e-8 && fabs(r->p_change_rms / rms - 1) < 1e-4);
    assert_true(fabs(r->p_change_error / sqrt(off[1] / each) - 1) < 1e-4);
    assert_true(fabs(r->p_change_rms_error / (sqrt(off[2] / each) / (2 * rms)) - 1) < 1e-4);
    static const double shares[] = {.01, .1, .5, .9, .99, .999};
    spread_sort(sorted, (uint64_t)n);
    for (int i = 0; i < EVAL_QUANTILES; i++) {
        assert_true(r->kl[i].share == shares[i]);
        assert_true(fabs(r->kl[i].value / spread_quantile(sorted, (uint64_t)n, shares[i]).value - 1) < 1e-4);
        assert_true(r->kl[i].low <= r->kl[i].value && r->kl[i].value <= r->kl[i].high);
    }
    assert_true(fabs(r->kl_most / sorted[n - 1] - 1) < 1e-4);
}

static void test_compare(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1], agree = 0;
    struct shape a = *shape_named("mistral"), b = *shape_named("qwen3");
    struct raw_model ra, rb;
    struct compare_result r;
    struct err e = {0};
    a.c.vocab = b.c.vocab = 270;
    os_remove_tree(DIR_);
    write_model(MODEL, &a, &ra);
    write_model(OTHER, &b, &rb);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    double *la = reference_log_probs(&a, &ra, ids, 5), *lb = reference_log_probs(&b, &rb, ids, 5), kl = 0;
    double each[5 * CTX], spread = 0, n = 5 * (CTX - 1), nll[5 * CTX][2], dense[5 * CTX];
    int pairs = 0;
    for (uint32_t t = 0; t < 5 * CTX; t++) {
        const double *p = lb + (size_t)t * 270, *q = la + (size_t)t * 270;
        uint32_t top_p = 0, top_q = 0;
        if (t % CTX == CTX - 1)
            continue;
        each[t] = 0;
        for (uint32_t v = 0; v < 270; v++) {
            kl += exp(p[v]) * (p[v] - q[v]);
            each[t] += exp(p[v]) * (p[v] - q[v]);
            top_p = p[v] > p[top_p] ? v : top_p;
            top_q = q[v] > q[top_q] ? v : top_q;
        }
        agree += top_p == top_q;
        nll[pairs][0] = -q[ids[t + 1]];
        nll[pairs][1] = -p[ids[t + 1]];
        dense[pairs++] = each[t];
    }
    kl /= 5 * (CTX - 1);
    for (uint32_t t = 0; t < 5 * CTX; t++)
        spread += t % CTX == CTX - 1 ? 0 : pow(each[t] - kl, 2);
    struct checkpoint *ca = open_ok(MODEL), *cb = open_ok(OTHER);
    const struct eval_options o = {.text = TEXT, .ctx = CTX};
    OK(eval_compare(cmd, ca, cb, &o, &r, &e), e);
    assert_true(fabs(r.mean_kl - kl) <= 1e-5 * kl);
    assert_true(r.top1 == (double)agree / (5 * (CTX - 1)));
    assert_true(fabs(r.kl_error / sqrt(spread / (n - 1) / n) - 1) < 1e-4);
    assert_true(fabs(r.top1_error - sqrt(r.top1 * (1 - r.top1) / (n - 1))) < 1e-9);
    check_pairs(&r, nll, dense, pairs);
    /* The same numbers as eval, to the bit. */
    assert_true(r.model.mean_nll == eval_ok(MODEL, &o).mean_nll);
    assert_true(r.reference.mean_nll == eval_ok(OTHER, &o).mean_nll);
    OK(eval_compare(cmd, ca, ca, &o, &r, &e), e);
    assert_true(fabs(r.mean_kl) < 1e-7);
    assert_true(r.top1 == 1 && r.top1_error == 0);
    assert_true(r.log_ratio == 0 && r.log_ratio_error == 0 && r.p_change_rms == 0 && r.p_change_rms_error == 0);
    assert_true(fabs(r.correlation - 1) < 1e-12);
    checkpoint_close(&ca);
    checkpoint_close(&cb);
    free(la);
    free(lb);
    raw_free(&ra);
    raw_free(&rb);
}

/* ---- calibration texts ---- */

/* Windows of 4 tokens: a text's bytes behind the BOS, "<abc" being the first of "abcdefg". */
static void expect_windows(const struct windows *w, const char *want)
{
    assert_int_equal(w->n * 4, strlen(want));
    for (size_t i = 0; i < strlen(want); i++)
        assert_int_equal(w->ids[i], want[i] == '<' ? BYTE_BOS : (uint8_t)want[i]);
}

static void test_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {DIR_ "/a.txt", DIR_ "/b.jsonl", DIR_ "/c.txt", DIR_ "/a2.txt"};
    struct shape s = *shape_named("qwen3");
    struct raw_model raw;
    struct windows w, one;
    struct err e = {0};
    s.c.vocab = 270;
    os_remove_tree(DIR_);
    write_model(MODEL, &s, &raw);
    write_text_file(DIR_, "a.txt", "abcdefghijkl");
    write_text_file(DIR_, "a2.txt", "abcdefghijklm"); /* the same windows */
    write_text_file(DIR_, "b.jsonl",
                    "{\"text\": \"123\"}\n{\"text\": \"123\"}\n{\"text\": \"45\"}\n{\"text\": \"123\"}\n");
    write_text_file(DIR_, "c.txt", "ABC");
    struct checkpoint *c = open_ok(MODEL);
    OK(windows_load_texts(&w, c, texts, 3, 4, 0, NULL, &e), e);
    expect_windows(&w, "<abc<123<ABCdefg\n\n45hijk");
    windows_free(&w);
    /* Those asked for, evenly; a text that was there. */
    OK(windows_load_texts(&w, c, texts, 3, 4, 4, NULL, &e), e);
    expect_windows(&w, "<abc<123<ABCdefg");
    windows_free(&w);
    OK(windows_load_texts(&w, c, (const char *const[]){texts[0], texts[3], texts[2]}, 3, 4, 0, NULL, &e), e);
    expect_windows(&w, "<abc<ABCdefghijk");
    windows_free(&w);
    /* Documents of one that another has, too. */
    write_text_file(DIR_, "d.jsonl", "{\"text\": \"45\"}\n{\"text\": \"678\"}\n{\"text\": \"123\"}\n");
    write_text_file(DIR_, "e.jsonl", "{\"text\": \"678\"}\n{\"text\": \"45\"}\n");
    OK(windows_load_texts(&w, c, (const char *const[]){texts[1], DIR_ "/d.jsonl", DIR_ "/e.jsonl"}, 3, 4, 0, NULL, &e),
       e);
    expect_windows(&w, "<123<678\n\n45");
    windows_free(&w);
    /* One text, as ever; repeated documents are left out where it is for calibration. */
    OK(windows_load_texts(&w, c, texts, 1, 4, 0, NULL, &e), e);
    OK(windows_load(&one, c, texts[0], 4, 0, NULL, &e), e);
    assert_true(w.n == one.n && w.hash.lo == one.hash.lo && w.hash.hi == one.hash.hi && w.tokens == one.tokens);
    windows_free(&w);
    windows_free(&one);
    OK(windows_load(&one, c, texts[1], 4, 0, NULL, &e), e);
    expect_windows(&one, "<123\n\n123\n\n45\n\n1");
    windows_free(&one);
    write_text_file(DIR_, "c.txt", "AB");
    FAILS(windows_load_texts(&w, c, texts, 3, 4, 0, NULL, &e), e, ERR_USER, "c.txt has 3 tokens");
    checkpoint_close(&c);
    raw_free(&raw);
}

/* ---- questions ---- */

#define QUESTIONS DIR_ "/questions.jsonl"

/* -ln p of what `whole` has behind its first `from` bytes, by the reference; fewer than CTX bytes. */
static double choice_nll(const struct shape *s, const struct raw_model *raw, const char *whole, size_t from)
{
    uint32_t ids[CTX] = {BYTE_BOS};
    size_t n = strlen(whole);
    double sum = 0;
    assert_true(n < CTX);
    for (size_t i = 0; i < n; i++)
        ids[i + 1] = (uint8_t)whole[i];
    double *lp = reference_log_probs(s, raw, ids, 1);
    for (size_t i = from; i < n; i++)
        sum -= lp[i * s->c.vocab + ids[i + 1]];
    free(lp);
    return sum;
}

/* What the model reads of each question with each choice, and how many bytes of it are the choice's, with the space before it. */
static const struct {
    const char *whole[3];
    size_t tokens[3], bytes[3]; /* bytes: without that space */
} asked[4] = {
    {{"the sky is", "the sky seems gree"}, {3, 11}, {2, 10}},
    {{"a b", "a cde", "a fghij k"}, {1, 3, 7}, {1, 3, 7}},
    {{"up", "down there"}, {2, 10}, {2, 10}},
    {{"ijklmnopqrstuvwx z", "klmnopqrstuvwx pqr"}, {2, 4}, {1, 3}}, /* its beginning does not fit */
};

/* The questions as files have them, in each of the ways. right: the answers. */
static char *questions_text(const uint32_t right[4])
{
    struct strbuf b = {0};
    strbuf_printf(&b, "{\"ctx\": \"the sky\", \"endings\": [\"is\", \"seems gree\"], \"label\": \"%u\"}\n \n",
                  right[0]);
    strbuf_printf(
        &b,
        "{\"question\": \"a \", \"choices\": {\"text\": [\"b\", \"cde\", \"fghij k\"], \"label\": [\"1\", \"2\", "
        "\"3\"]}, \"answerKey\": \"%u\"}\n",
        right[1] + 1);
    strbuf_printf(&b, "{\"goal\": \"\", \"sol1\": \"up\", \"sol2\": \"down there\", \"label\": %u}\n", right[2]);
    strbuf_printf(&b, "{\"question\": \"abcdefghijklmnopqrstuvwx\", \"choices\": [\"z\", \"pqr\"], \"answer\": \"%c\"}",
                  (char)('A' + right[3]));
    assert_false(b.failed);
    return b.data;
}

static void test_tasks(void **state)
{
    (void)state;
    struct shape s = *shape_named("qwen3");
    struct raw_model raw;
    struct err e = {0};
    uint32_t right[4], plain = 0, by_length = 0;
    double nll = 0, tokens = 0;
    s.c.vocab = 270;
    os_remove_tree(DIR_);
    write_model(MODEL, &s, &raw);
    for (int q = 0; q < 4; q++) {
        double scores[3];
        uint32_t best[2] = {0, 0};
        for (uint32_t c = 0; c < 3 && asked[q].whole[c]; c++) {
            size_t from = strlen(asked[q].whole[c]) - asked[q].tokens[c];
            scores[c] = choice_nll(&s, &raw, asked[q].whole[c], from);
            best[0] = scores[c] < scores[best[0]] ? c : best[0];
            best[1] =
                scores[c] / (double)asked[q].bytes[c] < scores[best[1]] / (double)asked[q].bytes[best[1]] ? c : best[1];
        }
        right[q] = q == 0 ? best[0] : q == 2 ? 1 - best[0] : best[1];
        plain += right[q] == best[0];
        by_length += right[q] == best[1];
        nll += scores[right[q]];
        tokens += (double)asked[q].tokens[right[q]];
    }
    assert_true(plain > 0 && plain < 4 && by_length > 1);
    char *text = questions_text(right);
    write_text_file(DIR_, "questions.jsonl", text);
    free(text);
    struct checkpoint *c = open_ok(MODEL);
    struct tasks_result r, again;
    struct tasks_options o = {.path = QUESTIONS, .ctx = 19};
    OK(tasks_run(cmd, c, &o, &r, &e), e);
    assert_int_equal(r.questions, 4);
    assert_int_equal(r.cut, 1);
    assert_int_equal(r.ctx, 19);
    assert_true(r.accuracy == plain / 4.0 && r.by_length == by_length / 4.0);
    assert_true(fabs(r.accuracy_error - sqrt(r.accuracy * (1 - r.accuracy) / 3)) < 1e-12);
    assert_true(fabs(r.chance - (0.5 + 1.0 / 3 + 0.5 + 0.5) / 4) < 1e-12);
    assert_true(fabs(r.mean_nll / (nll / tokens) - 1) < 1e-5);
    /* In passes of a few, the same; fewer questions: the first. */
    o.at_once = 40;
    OK(tasks_run(cmd, c, &o, &again, &e), e);
    assert_true(fabs(again.mean_nll / r.mean_nll - 1) < 1e-6);
    assert_true(again.accuracy == r.accuracy && again.by_length == r.by_length && again.tokens == r.tokens);
    o.at_most = 1;
    OK(tasks_run(cmd, c, &o, &again, &e), e);
    assert_true(again.questions == 1 && again.cut == 0);
    checkpoint_close(&c);
    raw_free(&raw);
}

static void test_tasks_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"\n", "holds no question"},
        {"\nwhat", "line 2: this is not JSON"},
        {"[1]", "no text \"question\""},
        {"{\"question\": 3}", "no text \"question\""},
        {"{\"question\": \"x\", \"choices\": [\"a\"], \"answer\": 0}", "two choices"},
        {"{\"question\": \"x\", \"choices\": [\"a\", \"\"], \"answer\": 0}", "no text, or empty"},
        {"{\"question\": \"x\", \"choices\": [\"a\", \"b\"]}", "no field \"answer\""},
        {"{\"question\": \"x\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", "none of the choices"},
        {"{\"question\": \"x\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", "none of the choices"},
        {"{\"question\": \"x\", \"choices\": [\"a\", \"b\"], \"answer\": \"c\"}", "none of the choices"},
        {"{\"question\": \"x\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\"]}, \"answer\": \"A\"}",
         "a label for each"},
        {"{\"question\": \"x\", \"choices\": [\"a\", \"bcdefghijklmnopqrstu\"], \"answer\": 0}",
         "choice 2 has 21 tokens"},
    };
    struct raw_model raw;
    struct err e = {0};
    struct tasks_result r;
    os_remove_tree(DIR_);
    write_model(MODEL, shape_named("qwen3"), &raw);
    struct checkpoint *c = open_ok(MODEL);
    struct tasks_options o = {.path = QUESTIONS, .ctx = 19};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text_file(DIR_, "questions.jsonl", bad[i].line);
        FAILS(tasks_run(cmd, c, &o, &r, &e), e, ERR_USER, bad[i].says);
    }
    o.path = DIR_ "/absent";
    FAILS(tasks_run(cmd, c, &o, &r, &e), e, ERR_USER, "cannot open");
    checkpoint_close(&c);
    raw_free(&raw);
}

/* llama-perplexity's windows: the BOS in place of the first token of each, predictions of ctx/2 .. ctx-2. */
static void test_llama_protocol(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1], read[5 * CTX], vocab = 270, agree = 0, n = 0;
    struct shape a = *shape_named("llama2"), b = *shape_named("qwen2");
    struct raw_model ra, rb;
    struct compare_result r;
    struct err e = {0};
    a.c.vocab = b.c.vocab = vocab;
    os_remove_tree(DIR_);
    write_model(MODEL, &a, &ra);
    write_model(OTHER, &b, &rb);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    for (uint32_t t = 0; t < 5 * CTX; t++)
        read[t] = t % CTX == 0 ? BYTE_BOS : ids[t];
    double *la = reference_log_probs(&a, &ra, read, 5), *lb = reference_log_probs(&b, &rb, read, 5);
    double kl = 0, nll[2] = {0};
    for (uint32_t w = 0; w < 5; w++) {
        for (uint32_t i = CTX / 2; i + 1 < CTX; i++, n++) {
            uint32_t t = w * CTX + i, top_p = 0, top_q = 0;
            const double *p = lb + (size_t)t * vocab, *q = la + (size_t)t * vocab;
            nll[0] -= q[ids[t + 1]];
            nll[1] -= p[ids[t + 1]];
            for (uint32_t v = 0; v < vocab; v++) {
                kl += exp(p[v]) * (p[v] - q[v]);
                top_p = p[v] > p[top_p] ? v : top_p;
                top_q = q[v] > q[top_q] ? v : top_q;
            }
            agree += top_p == top_q;
        }
    }
    struct checkpoint *ca = open_ok(MODEL), *cb = open_ok(OTHER);
    struct eval_options o = {.text = TEXT, .ctx = CTX, .protocol = EVAL_LLAMA};
    OK(eval_compare(cmd, ca, cb, &o, &r, &e), e);
    assert_int_equal(r.model.scored, n);
    assert_true(fabs(r.model.mean_nll - nll[0] / n) <= 1e-6 * nll[0] / n);
    assert_true(fabs(r.reference.mean_nll - nll[1] / n) <= 1e-6 * nll[1] / n);
    assert_true(fabs(r.mean_kl - kl / n) <= 1e-5 * kl / n);
    assert_true(r.top1 == (double)agree / n);
    struct eval_result alone = eval_ok(MODEL, &o);
    assert_true(alone.mean_nll == r.model.mean_nll && alone.scored == n);
    /* The hash is of the text, not of what was put into it. */
    struct eval_options usual = {.text = TEXT, .ctx = CTX};
    assert_string_equal(alone.token_hash, eval_ok(MODEL, &usual).token_hash);
    o.ctx = 3;
    assert_int_equal(eval_ok(MODEL, &o).scored, (TEXT_BYTES + 1) / 3);
    o.ctx = 2;
    FAILS(eval_perplexity(cmd, ca, &o, &alone, &e), e, ERR_USER, "2 tokens");
    checkpoint_close(&ca);
    checkpoint_close(&cb);
    free(la);
    free(lb);
    raw_free(&ra);
    raw_free(&rb);
}

/* A device with little memory streams the head in tiles and keeps hidden states on the host; the result is
 * the same to the bit. */
static void test_little_memory(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1];
    struct shape s = *shape_named("llama-bias");
    struct raw_model raw;
    s.c.vocab = 200003; /* x 37 x 4 bytes: more than a quarter of the limit, no multiple of a tile */
    os_remove_tree(DIR_);
    write_model(MODEL, &s, &raw);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    const struct eval_options o = {.text = TEXT, .ctx = CTX, .spill_dir = DIR_};
    struct eval_result large = eval_ok(MODEL, &o), again = eval_ok(MODEL, &o);
    assert_true(large.mean_nll == again.mean_nll);
    assert_int_equal(device_close(), 0);
    device_open((struct gpu_options){.mem_limit = 112u << 20});
    struct eval_result r = eval_ok(MODEL, &o);
    assert_true(gpu_memory_peak(gpu) <= 112u << 20);
    assert_int_equal(device_close(), 0);
    device_open((struct gpu_options){0});
    assert_true(r.mean_nll == large.mean_nll);
    raw_free(&raw);
}

/* One set of codes in three formats, and as dense numbers: one perplexity. */
static void test_quantized(void **state)
{
    (void)state;
    static const enum export_format formats[] = {EXPORT_GPTQ, EXPORT_GPTQ_V2, EXPORT_COMPRESSED_TENSORS, EXPORT_MLX};
    struct shape s = *shape_named("llama2");
    s.c.hidden = 64, s.c.intermediate = 96, s.c.heads = 4, s.c.head_dim = 32, s.dtype = DTYPE_F16;
    uint32_t ids[TEXT_BYTES + 1], rows[REF_LINEARS], cols[REF_LINEARS];
    struct raw_model raw;
    struct items x = {0};
    struct err e = {0};
    os_remove_tree(DIR_);
    write_model(MODEL, &s, &raw);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    shape_sizes(&s, rows, cols);
    for (uint32_t l = 0; l < s.layers; l++) {
        for (int i = 0; i < REF_LINEARS; i++, x.n++) {
            x.items[x.n] = (struct matrix){
                .coded = true, .rows = rows[i], .cols = cols[i], .spec = {quant_type_find("2"), 32, SCALE_F16}};
            family_linear_name(l, i, x.items[x.n].module, sizeof x.items[x.n].module);
        }
    }
    const struct eval_options o = {.text = TEXT, .ctx = CTX};
    double first = 0;
    for (int f = 0; f < 4; f++) {
        OK(write_random(OTHER, MODEL, &x, &(struct export_options){.format = formats[f]}, &e), e);
        byte_tokenizer_write(OTHER);
        struct eval_result r = eval_ok(OTHER, &o);
        if (f == 0)
            first = r.mean_nll;
        else if (r.mean_nll != first)
            fail_msg("%s: mean NLL %.9g, not %.9g", export_format_name(formats[f]), r.mean_nll, first);
        if (f == 0) {
            struct checkpoint *q = open_ok(OTHER);
            for (size_t i = 0; i < x.n; i++) {
                char name[96];
                snprintf(name, sizeof name, "%s.weight", x.items[i].module);
                struct raw_tensor *t = raw_find(&raw, name);
                t->dtype = DTYPE_F32;
                t->bytes *= 2;
                t->data = realloc(t->data, (size_t)t->bytes);
                assert_non_null(t->data);
                OK(checkpoint_read_f32(q, x.items[i].module, 0, x.items[i].rows, (float *)(void *)t->data, &e), e);
            }
            checkpoint_close(&q);
            os_remove_tree(MODEL "-dense");
            family_config(MODEL "-dense", &s);
            raw_write(&raw, MODEL "-dense", false);
            byte_tokenizer_write(MODEL "-dense");
            assert_true(eval_ok(MODEL "-dense", &o).mean_nll == first);
        }
        os_remove_tree(OTHER);
    }
    raw_free(&raw);
}

/* ---- progress and refusals ---- */

struct watch {
    int calls, stop_at, evals;
    double last;
};

static bool watch(void *ctx, const struct progress_event *ev)
{
    struct watch *w = ctx;
    bool tokenizing = strcmp(ev->phase, "tokenize") == 0; /* first, and counted on its own */
    assert_true(tokenizing ? w->evals == 0 : strcmp(ev->phase, "eval") == 0);
    if (!tokenizing && w->evals++ == 0)
        w->last = 0;
    assert_true(ev->done >= w->last && ev->done <= 1 + 1e-9);
    assert_true(isnan(ev->loss) && !(ev->eta_seconds < 0));
    w->last = ev->done;
    return ++w->calls != w->stop_at;
}

static void test_progress(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1];
    struct raw_model raw;
    struct err e = {0};
    struct eval_result r;
    os_remove_tree(DIR_);
    write_model(MODEL, shape_named("llama3.1"), &raw);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    struct checkpoint *c = open_ok(MODEL);
    struct watch w = {0};
    struct eval_options o = {.text = TEXT, .ctx = CTX, .progress = {watch, &w}};
    OK(eval_perplexity(cmd, c, &o, &r, &e), e);
    /* Once per block and at the end; more where it takes long. */
    assert_true(w.calls >= 4 && w.last > 0.999);
    for (int at = 1; at <= 4; at++) {
        w = (struct watch){.stop_at = at};
        FAILS(eval_perplexity(cmd, c, &o, &r, &e), e, ERR_STOPPED, "stopped");
        assert_int_equal(w.calls, at);
    }
    checkpoint_close(&c);
    raw_free(&raw);
}

static void test_refusals(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1];
    struct shape s = *shape_named("llama2");
    struct raw_model raw, other;
    struct err e = {0};
    struct eval_result r;
    struct compare_result cr;
    os_remove_tree(DIR_);
    write_model(MODEL, &s, &raw);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    struct checkpoint *c = open_ok(MODEL);
    FAILS(eval_perplexity(cmd, c, &(struct eval_options){.text = DIR_ "/none", .ctx = CTX}, &r, &e), e, ERR_USER,
          "none");
    FAILS(eval_perplexity(cmd, c, &(struct eval_options){.text = TEXT, .ctx = TEXT_BYTES + 2}, &r, &e), e, ERR_USER,
          "tokens");
    FAILS(eval_perplexity(cmd, c, &(struct eval_options){.text = TEXT, .ctx = 0}, &r, &e), e, ERR_USER, "window");
    FAILS(eval_perplexity(cmd, c, &(struct eval_options){.text = TEXT, .ctx = 1}, &r, &e), e, ERR_USER, "window");
    OK(eval_perplexity(cmd, c, &(struct eval_options){.text = TEXT, .ctx = TEXT_BYTES + 1}, &r, &e), e);
    assert_int_equal(r.windows, 1);
    /* A smaller vocabulary: for comparison, and for this text (its BOS is 256). */
    s.c.vocab = 256;
    write_model(OTHER, &s, &other);
    struct checkpoint *d = open_ok(OTHER);
    const struct eval_options o = {.text = TEXT, .ctx = CTX};
    FAILS(eval_compare(cmd, c, d, &o, &cr, &e), e, ERR_USER, "vocabular");
    FAILS(eval_perplexity(cmd, d, &o, &r, &e), e, ERR_USER, "256");
    assert_true(os_remove(OTHER "/tokenizer.json"));
    FAILS(eval_perplexity(cmd, d, &o, &r, &e), e, ERR_USER, "tokenizer.json");
    checkpoint_close(&c);
    checkpoint_close(&d);
    raw_free(&raw);
    raw_free(&other);
}

/* ---- real models ---- */

/* ../shared beside the source; false if this checkout has none. */
static bool shared_path(char *out, size_t cap, const char *name)
{
    const char *source = os_getenv("GSQ_SOURCE");
    snprintf(out, cap, "%s/../shared/%s", source ? source : ".", name);
    return os_stat(out, NULL) != OS_ABSENT;
}

static double expected(const char *model, const char *key)
{
    char path[1024], *text;
    size_t size;
    struct err e = {0};
    shared_path(path, sizeof path, "oracle/expected.json");
    OK(os_read_file(path, 1u << 20, &text, &size, &e), e);
    cJSON *j = cJSON_ParseWithLength(text, size);
    const cJSON *v = cJSON_GetObjectItem(cJSON_GetObjectItem(cJSON_GetObjectItem(j, "models"), model), key);
    assert_true(cJSON_IsNumber(v));
    double number = v->valuedouble;
    cJSON_Delete(j);
    free(text);
    return number;
}

static void check_real(const char *model, const char *text)
{
    char dir[1024], text_path[1024], name[128];
#ifdef GSQ_SANITIZE
    print_message("skipped: minutes under a sanitizer\n");
    skip();
#endif
    snprintf(name, sizeof name, "models/%s", model);
    bool there = shared_path(dir, sizeof dir, name);
    snprintf(name, sizeof name, "text/%s", text);
    if (!there || !shared_path(text_path, sizeof text_path, name)) {
        print_message("skipped: there is no %s\n", there ? text_path : dir);
        skip();
    }
    struct eval_result r = eval_ok(dir, &(struct eval_options){.text = text_path, .ctx = 256});
    double want = expected(model, "ppl_ctx256");
    print_message("%s: perplexity %.5f, expected %.5f; %.1f s on %s\n", model, r.perplexity, want, r.seconds,
                  gpu_info(gpu)->name);
    assert_int_equal(r.tokens, (uint64_t)expected(model, "eval_tokens"));
    assert_int_equal(r.windows, (uint32_t)expected(model, "windows"));
    assert_true(fabs(r.perplexity - want) <= 2e-4 * want);
}

/* The others are evaluated by tests/quality.sh, without validation. */
static void test_tinystories_656k(void **state)
{
    (void)state;
    check_real("TinyStories-656K", "tinystories-eval.txt");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),      cmocka_unit_test(test_compare),
        cmocka_unit_test(test_spread),         cmocka_unit_test(test_texts),
        cmocka_unit_test(test_tasks),          cmocka_unit_test(test_tasks_refused),
        cmocka_unit_test(test_llama_protocol), cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_quantized),      cmocka_unit_test(test_progress),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_tinystories_656k),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, remove_dir));
}
