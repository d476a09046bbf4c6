/* Multi-head latent attention: what each of its matrices reads, against a plain reference in double, with kv_b as one matrix and as
 * the two of a GGUF, in odd shapes; and a matrix whose rows are pieces with a Hessian each. */
#include "tests/device.h"
#include "tests/tiny_model.h"

#include <math.h>

#include "host/model/block_fwd.h"
#include "host/quant/method/quant_linear.h"
#include "tests/ref/ref_forward.h"

#define DIR_ "tmp_latent"
#include "tests/scratch_dir.h"

enum { HEADS = 3, Q_RANK = 12, KV_RANK = 20, NOPE = 18, TURNED = 6, VALUES = 10, DIM = NOPE + TURNED };
enum { CTX = 13, WINDOWS = 2, T = CTX * WINDOWS };
#define LAYER "model.layers.0."
#define ATTN  LAYER "self_attn."

static uint32_t seed = 3;
static struct err e;

static float uniform(void)
{
    return (float)(tiny_random(&seed) % 20001) / 10000.0f - 1.0f;
}

/* q_rank 0: q is one matrix. */
static void write_model(uint32_t q_rank)
{
    struct raw_model m = {0};
    char text[1024], rank[16] = "null";
    if (q_rank)
        snprintf(rank, sizeof rank, "%u", (unsigned)q_rank);
    snprintf(text, sizeof text,
             "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"deepseek_v3\",\"hidden_size\":%d,"
             "\"intermediate_size\":32,\"moe_intermediate_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":%d,"
             "\"num_key_value_heads\":%d,\"q_lora_rank\":%s,\"kv_lora_rank\":%d,\"qk_nope_head_dim\":%d,"
             "\"qk_rope_head_dim\":%d,\"v_head_dim\":%d,\"n_routed_experts\":4,\"num_experts_per_tok\":2,\"n_group\":1,"
             "\"topk_group\":1,\"n_shared_experts\":1,\"first_k_dense_replace\":1,\"rms_norm_eps\":1e-6,"
             "\"rope_theta\":10000.0,\"vocab_size\":%d,\"max_position_embeddings\":64,\"tie_word_embeddings\":true,"
             "\"hidden_act\":\"silu\",\"torch_dtype\":\"float32\"}",
             HIDDEN, HEADS, HEADS, rank, KV_RANK, NOPE, TURNED, VALUES, VOCAB);
    write_text_file(DIR_, "config.json", text);
    raw_weight(&m, "model.embed_tokens.weight", DTYPE_F32, VOCAB, HIDDEN, &seed);
    raw_weight(&m, "model.norm.weight", DTYPE_F32, 0, HIDDEN, &seed);
    raw_weight(&m, LAYER "input_layernorm.weight", DTYPE_F32, 0, HIDDEN, &seed);
    raw_weight(&m, LAYER "post_attention_layernorm.weight", DTYPE_F32, 0, HIDDEN, &seed);
    raw_weight(&m, LAYER "mlp.gate_proj.weight", DTYPE_F32, 32, HIDDEN, &seed);
    raw_weight(&m, LAYER "mlp.up_proj.weight", DTYPE_F32, 32, HIDDEN, &seed);
    raw_weight(&m, LAYER "mlp.down_proj.weight", DTYPE_F32, HIDDEN, 32, &seed);
    if (q_rank) {
        raw_weight(&m, ATTN "q_a_proj.weight", DTYPE_F32, q_rank, HIDDEN, &seed);
        raw_weight(&m, ATTN "q_a_layernorm.weight", DTYPE_F32, 0, q_rank, &seed);
        raw_weight(&m, ATTN "q_b_proj.weight", DTYPE_F32, HEADS * DIM, q_rank, &seed);
    } else {
        raw_weight(&m, ATTN "q_proj.weight", DTYPE_F32, HEADS * DIM, HIDDEN, &seed);
    }
    raw_weight(&m, ATTN "kv_a_proj_with_mqa.weight", DTYPE_F32, KV_RANK + TURNED, HIDDEN, &seed);
    raw_weight(&m, ATTN "kv_a_layernorm.weight", DTYPE_F32, 0, KV_RANK, &seed);
    raw_weight(&m, ATTN "kv_b_proj.weight", DTYPE_F32, HEADS * (NOPE + VALUES), KV_RANK, &seed);
    raw_weight(&m, ATTN "o_proj.weight", DTYPE_F32, HIDDEN, HEADS * VALUES, &seed);
    raw_write(&m, DIR_, false);
    raw_free(&m);
}

/* ---- the reference ---- */

struct reference {
    double norm[T * HIDDEN], q_a[T * Q_RANK], kv_a[T * KV_RANK], q[T * HEADS * DIM], heads[T * HEADS * VALUES],
        out[T * HIDDEN];
};

/* A module's weights; the caller frees them. */
static float *weights(const struct checkpoint *c, const char *module, uint32_t rows, uint32_t cols)
{
    float *w = malloc((size_t)rows * cols * sizeof *w);
    assert_non_null(w);
    OK(checkpoint_read_f32(c, module, 0, rows, w, &e), e);
    return w;
}

/* y[T, n] = x[T, k] W^T, of rows [row0, row0 + n). */
static void product(const double *x, const float *w, uint32_t row0, uint32_t n, uint32_t k, double *y)
{
    for (uint32_t t = 0; t < T; t++)
        for (uint32_t r = 0; r < n; r++) {
            double sum = 0;
            for (uint32_t i = 0; i < k; i++)
                sum += x[t * k + i] * w[(row0 + r) * k + i];
            y[t * n + r] = sum;
        }
}

static void norm(const struct checkpoint *c, const char *module, double *x, uint32_t n)
{
    float *w = weights(c, module, 1, n);
    for (uint32_t t = 0; t < T; t++) {
        double sum = 0;
        for (uint32_t i = 0; i < n; i++)
            sum += x[t * n + i] * x[t * n + i];
        for (uint32_t i = 0; i < n; i++)
            x[t * n + i] *= w[i] / sqrt(sum / n + 1e-6);
    }
    free(w);
}

static void turn(double *x, uint32_t position, const struct model_config *c)
{
    for (uint32_t p = 0; p < TURNED / 2; p++) {
        double f = position * rope_frequency(c, p), lo = x[2 * p], hi = x[2 * p + 1];
        x[2 * p] = lo * cos(f) - hi * sin(f);
        x[2 * p + 1] = hi * cos(f) + lo * sin(f);
    }
}

static void reference(struct reference *r, const struct checkpoint *c, uint32_t q_rank, const float *x)
{
    static double latent[T * (KV_RANK + TURNED)], kv[T * HEADS * (NOPE + VALUES)];
    const struct model_config *cfg = checkpoint_config(c);
    for (uint32_t i = 0; i < T * HIDDEN; i++)
        r->norm[i] = (double)x[i];
    norm(c, LAYER "input_layernorm", r->norm, HIDDEN);
    if (q_rank) {
        float *a = weights(c, ATTN "q_a_proj", Q_RANK, HIDDEN), *b = weights(c, ATTN "q_b_proj", HEADS * DIM, Q_RANK);
        product(r->norm, a, 0, Q_RANK, HIDDEN, r->q_a);
        norm(c, ATTN "q_a_layernorm", r->q_a, Q_RANK);
        product(r->q_a, b, 0, HEADS * DIM, Q_RANK, r->q);
        free(a);
        free(b);
    } else {
        float *a = weights(c, ATTN "q_proj", HEADS * DIM, HIDDEN);
        product(r->norm, a, 0, HEADS * DIM, HIDDEN, r->q);
        free(a);
    }
    float *kv_a = weights(c, ATTN "kv_a_proj_with_mqa", KV_RANK + TURNED, HIDDEN),
          *kv_b = weights(c, ATTN "kv_b_proj", HEADS * (NOPE + VALUES), KV_RANK),
          *o = weights(c, ATTN "o_proj", HIDDEN, HEADS * VALUES);
    product(r->norm, kv_a, 0, KV_RANK, HIDDEN, r->kv_a);
    product(r->norm, kv_a, KV_RANK, TURNED, HIDDEN, latent);
    norm(c, ATTN "kv_a_layernorm", r->kv_a, KV_RANK);
    product(r->kv_a, kv_b, 0, HEADS * (NOPE + VALUES), KV_RANK, kv);
    for (uint32_t t = 0; t < T; t++) {
        turn(latent + t * TURNED, t % CTX, cfg);
        for (uint32_t h = 0; h < HEADS; h++)
            turn(r->q + (t * HEADS + h) * DIM + NOPE, t % CTX, cfg);
    }
    for (uint32_t t = 0; t < T; t++)
        for (uint32_t h = 0; h < HEADS; h++) {
            const double *q = r->q + (t * HEADS + h) * DIM;
            double score[CTX], most = -INFINITY, sum = 0, *to = r->heads + (t * HEADS + h) * VALUES;
            const uint32_t first = t / CTX * CTX, n = t - first + 1;
            for (uint32_t s = 0; s < n; s++) {
                const double *k = kv + ((first + s) * HEADS + h) * (NOPE + VALUES);
                score[s] = 0;
                for (uint32_t i = 0; i < DIM; i++)
                    score[s] += q[i] * (i < NOPE ? k[i] : latent[(first + s) * TURNED + i - NOPE]);
                score[s] /= sqrt(DIM);
                most = fmax(most, score[s]);
            }
            for (uint32_t s = 0; s < n; s++)
                sum += score[s] = exp(score[s] - most);
            for (uint32_t i = 0; i < VALUES; i++) {
                to[i] = 0;
                for (uint32_t s = 0; s < n; s++)
                    to[i] += score[s] / sum * kv[((first + s) * HEADS + h) * (NOPE + VALUES) + NOPE + i];
            }
        }
    product(r->heads, o, 0, HIDDEN, HEADS * VALUES, r->out);
    for (uint32_t i = 0; i < T * HIDDEN; i++)
        r->out[i] += (double)x[i];
    free(kv_a);
    free(kv_b);
    free(o);
}

/* ---- on the device ---- */

static void same(const char *what, struct gpu_view v, const double *want, size_t n)
{
    float *got = malloc(n * sizeof *got);
    double size = 0;
    assert_non_null(got);
    OK(gpu_download(cmd, gpu_slice(v, 0, n * 4), got, n * 4, &e), e);
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= 1e-5 * size))
            fail_msg("%s, number %zu: %.9g, expected %.9g", what, i, (double)got[i], want[i]);
    free(got);
}

static void same_queries(struct model *m, const struct block_scratch *s, const double *q)
{
    static double want[T * NOPE];
    block_queries(m, s, WINDOWS);
    for (uint32_t h = 0; h < HEADS; h++) {
        for (uint32_t t = 0; t < T; t++)
            memcpy(want + t * NOPE, q + (t * HEADS + h) * DIM, NOPE * sizeof *want);
        assert_int_equal(block_queries_bytes(m, WINDOWS) % 256, 0);
        same("queries", gpu_slice(block_input(s, INPUT_QUERIES), h * block_queries_bytes(m, WINDOWS), T * NOPE * 4ull),
             want, T * NOPE);
    }
}

/* One pass; out[T, hidden] is what attention gives. */
static void pass(uint32_t q_rank, bool split, const float *x, float *out)
{
    static struct reference want;
    struct checkpoint *c = open_ok(DIR_);
    struct model *m;
    struct block_weights w = {0};
    struct block_scratch s = {0};
    struct gpu_view dx = {0}, dy = {0};
    uint64_t bytes = (uint64_t)T * HIDDEN * 4;
    reference(&want, c, q_rank, x);
    if (split)
        checkpoint_split_latent(c);
    OK(model_open(&m, cmd, c, CTX, &e), e);
    struct block_shape b = model_block(m, 0);
    OK(gpu_alloc(arena, bytes, &dx, &e) && gpu_alloc(arena, bytes, &dy, &e) &&
           block_scratch_create(&s, arena, m, WINDOWS, SCRATCH_FORWARD, &e) && model_load_block(m, 0, arena, &w, &e),
       e);
    gpu_upload(cmd, dx, x, bytes);
    block_attn_inputs(m, &w, &s, dx, WINDOWS);
    same("normed x", block_input(&s, INPUT_ATTN), want.norm, T * HIDDEN);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_Q_LATENT), q_rank);
    if (q_rank)
        same("q's latent", block_input(&s, INPUT_Q_LATENT), want.q_a, T * Q_RANK);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_KV_LATENT), KV_RANK);
    same("k's and v's latent", block_input(&s, INPUT_KV_LATENT), want.kv_a, T * KV_RANK);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_HEADS), HEADS * VALUES);
    same("what heads give", block_input(&s, INPUT_HEADS), want.heads, T * HEADS * VALUES);
    assert_int_equal(block_input_pieces(b, HALF_ATTN, INPUT_QUERIES), split ? HEADS : 0);
    if (split)
        same_queries(m, &s, want.q);
    block_attn_fwd(m, &w, &s, dx, dy, WINDOWS);
    same("attention", dy, want.out, T * HIDDEN);
    OK(gpu_download(cmd, dy, out, bytes, &e), e);
    block_weights_free(&w);
    gpu_arena_reset(arena, 0);
    model_close(&m);
    checkpoint_close(&c);
}

static void test_inputs(void **state)
{
    (void)state;
    static float x[T * HIDDEN], one[T * HIDDEN], two[T * HIDDEN];
    for (int q_rank = 0; q_rank <= Q_RANK; q_rank += Q_RANK) {
        write_model((uint32_t)q_rank);
        for (uint32_t i = 0; i < T * HIDDEN; i++)
            x[i] = uniform();
        pass((uint32_t)q_rank, false, x, one);
        pass((uint32_t)q_rank, true, x, two);
        assert_memory_equal(one, two, sizeof one);
    }
}

/* kv_b's two matrices, from any row on: the same numbers. */
static void test_split(void **state)
{
    (void)state;
    static float whole[HEADS * (NOPE + VALUES) * KV_RANK], k[HEADS * KV_RANK * NOPE], v[HEADS * VALUES * KV_RANK];
    struct weight_info w;
    write_model(Q_RANK);
    struct checkpoint *c = open_ok(DIR_);
    OK(checkpoint_read_f32(c, ATTN "kv_b_proj", 0, HEADS * (NOPE + VALUES), whole, &e), e);
    assert_false(checkpoint_has_module(c, ATTN "kv_b_proj_k"));
    checkpoint_split_latent(c);
    assert_false(checkpoint_has_module(c, ATTN "kv_b_proj"));
    assert_true(checkpoint_has_module(c, ATTN "kv_b_proj_k") && checkpoint_has_module(c, ATTN "kv_b_proj_v"));
    OK(checkpoint_weight(c, ATTN "kv_b_proj_k", &w, &e), e);
    assert_true(w.rows == HEADS * KV_RANK && w.cols == NOPE && w.bytes == sizeof k);
    OK(checkpoint_weight(c, ATTN "kv_b_proj_v", &w, &e), e);
    assert_true(w.rows == HEADS * VALUES && w.cols == KV_RANK && w.bytes == sizeof v);
    for (uint32_t first = 0; first < HEADS * KV_RANK; first += 7)
        for (uint32_t n = 1; first + n <= HEADS * KV_RANK; n += 11) {
            OK(checkpoint_read_f32(c, ATTN "kv_b_proj_k", first, n, k, &e), e);
            for (uint32_t i = 0; i < n * NOPE; i++) {
                uint32_t r = first + i / NOPE, head = r / KV_RANK;
                assert_true(k[i] == whole[(head * (NOPE + VALUES) + i % NOPE) * KV_RANK + r % KV_RANK]);
            }
        }
    for (uint32_t first = 0; first < HEADS * VALUES; first += 3)
        for (uint32_t n = 1; first + n <= HEADS * VALUES; n += 8) {
            OK(checkpoint_read_f32(c, ATTN "kv_b_proj_v", first, n, v, &e), e);
            for (uint32_t i = 0; i < n * KV_RANK; i++) {
                uint32_t r = first + i / KV_RANK, head = r / VALUES;
                assert_true(v[i] == whole[(head * (NOPE + VALUES) + NOPE + r % VALUES) * KV_RANK + i % KV_RANK]);
            }
        }
    OK(checkpoint_check_finite(c, ATTN "kv_b_proj_v", &e), e);
    checkpoint_close(&c);
}

/* ---- pieces ---- */

enum { PIECE_ROWS = 20, TOKENS = 150 };

/* Each head's own sum, with strong directions of its own. */
static void make_pieces(struct hessian *h, const struct block_shape b, double *sums)
{
    struct hessian all[INPUT_COUNT];
    struct gpu_view dx;
    static float x[TOKENS * NOPE];
    OK(hessian_create_half(all, cmd, arena, b, HALF_ATTN, true, &e) && gpu_alloc(arena, sizeof x, &dx, &e), e);
    *h = all[INPUT_QUERIES];
    assert_int_equal(h->n, NOPE);
    assert_int_equal(h->pieces, HEADS);
    for (uint32_t p = 0; p < HEADS; p++) {
        struct hessian piece = hessian_piece(h, p);
        for (int held = 0; held < 2; held++) {
            for (uint32_t t = 0; t < TOKENS; t++) {
                float a = 3 * uniform();
                for (uint32_t i = 0; i < NOPE; i++)
                    x[t * NOPE + i] = uniform() + a * (float)cos((p + 1) * 0.9 * i);
            }
            for (uint32_t i = 0; !held && i < NOPE * NOPE; i++)
                for (uint32_t t = 0; t < TOKENS; t++)
                    sums[p * NOPE * NOPE + i] += (double)x[t * NOPE + i / NOPE] * x[t * NOPE + i % NOPE] * 2 / TOKENS;
            gpu_upload(cmd, dx, x, sizeof x);
            hessian_add(cmd, &piece, held ? HESSIAN_HELD : HESSIAN_TRAIN, dx, TOKENS, 2.0f / TOKENS);
            OK(gpu_cmd_finish(cmd, &e), e);
        }
        same("a head's Hessian", piece.train, sums + p * NOPE * NOPE, NOPE * NOPE);
    }
}

static double loss_of(const float *d, const double *h)
{
    double sum = 0;
    for (uint32_t r = 0; r < PIECE_ROWS; r++)
        for (uint32_t i = 0; i < NOPE; i++)
            for (uint32_t j = 0; j < NOPE; j++)
                sum += (double)d[r * NOPE + i] * h[i * NOPE + j] * d[r * NOPE + j];
    return sum;
}

/* The whole is what each piece alone is with its own Hessian: codes, scales, what is left in w, losses; and better than with the
 * Hessian of another head. */
static void pieces_by(enum method method)
{
    enum { ROWS = HEADS * PIECE_ROWS, N = ROWS * NOPE, PIECE = PIECE_ROWS * NOPE };
    static float w[N], left[N], want[N], d[N];
    static double sums[HEADS * NOPE * NOPE];
    const struct block_part part = *block_part_of(ROLE_K_B);
    const struct block_matrix of = {.part = &part, .rows = ROWS, .cols = NOPE, .pieces = HEADS};
    struct quantize_options o;
    struct hessian h;
    struct gpu_view dw;
    struct qlinear q;
    struct linear_report report;
    double loss = 0, size = 0, other = 0;
    quantize_defaults(&o);
    o.method = method;
    o.gumbel.steps = 40;
    memset(sums, 0, sizeof sums);
    make_pieces(&h, (struct block_shape){&of, 1}, sums);
    for (uint32_t i = 0; i < N; i++)
        w[i] = uniform();
    struct matrix item = {.part = &part,
                          .module = "k",
                          .rows = ROWS,
                          .cols = NOPE,
                          .pieces = HEADS,
                          .number = 9,
                          .coded = true,
                          .spec = {o.code_type, 16, SCALE_F16}};
    struct linear_task t = {
        .cmd = cmd, .options = &o, .item = &item, .hessian = &h, .scratch = arena, .tune_bytes = 1 << 20};
    OK(gpu_alloc(arena, sizeof w, &t.w, &e) && gpu_alloc(arena, PIECE * 4, &dw, &e), e);
    gpu_upload(cmd, t.w, w, sizeof w);
    OK(quantize_linear(&t, &q, &report, &e), e);
    OK(gpu_download(cmd, t.w, left, sizeof left, &e), e);
    assert_int_equal(q.rows, ROWS);
    qlinear_dequant(&q, 0, ROWS, want);
    for (uint32_t i = 0; i < N; i++) {
        assert_float_equal(left[i], want[i], 1e-6f);
        d[i] = left[i] - w[i];
    }
    for (uint32_t p = 0; p < HEADS; p++) {
        struct hessian own = hessian_piece(&h, p), another = hessian_piece(&h, (p + 1) % HEADS);
        struct matrix one = item;
        struct linear_task alone = t;
        struct linear_report of_one;
        struct qlinear qp;
        one.rows = PIECE_ROWS;
        one.pieces = 1;
        one.number ^= p * 0x9e3779b9u;
        alone.item = &one;
        alone.w = dw;
        loss += loss_of(d + p * PIECE, sums + p * NOPE * NOPE);
        size += loss_of(w + p * PIECE, sums + p * NOPE * NOPE);
        for (int wrong = 0; wrong < 2; wrong++) {
            alone.hessian = wrong ? &another : &own;
            gpu_upload(cmd, dw, w + p * PIECE, PIECE * 4);
            OK(quantize_linear(&alone, &qp, &of_one, &e), e);
            if (!wrong)
                assert_memory_equal(qp.codes, q.codes + p * PIECE, PIECE);
            qlinear_dequant(&qp, 0, PIECE_ROWS, want);
            for (uint32_t i = 0; i < PIECE; i++) {
                want[i] -= w[p * PIECE + i];
                assert_true(wrong || want[i] == d[p * PIECE + i]);
            }
            if (wrong)
                other += loss_of(want, sums + p * NOPE * NOPE);
            qlinear_free(&qp);
        }
    }
    assert_float_equal(report.loss_final, loss / size, 1e-4 * loss / size);
    assert_true(report.loss_final <= report.loss_gptq && report.loss_gptq < report.loss_rtn);
    assert_true(loss < 0.8 * other);
    qlinear_free(&q);
    gpu_arena_reset(arena, 0);
}

static void test_pieces(void **state)
{
    (void)state;
    pieces_by(METHOD_GPTQ);
    pieces_by(METHOD_GSQ);
}

static int set_up(void **state)
{
    return make_dir(state) || device_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_pieces),
    };
    return device_done(cmocka_run_group_tests_name("latent attention", tests, set_up, remove_dir));
}
