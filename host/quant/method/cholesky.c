#include "host/quant/method/cholesky.h"

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/tiled.h"

enum { BLOCK = CHOL_BLOCK };
_Static_assert(BLOCK * 4 % GPU_ALLOC_ALIGN == 0, "every submatrix below starts aligned");
/* Rows of V whose leading zeros are skipped together. */
enum { CHUNK = 512 };

struct factor {
    struct gpu_cmd *cmd;
    uint32_t n;
    struct gpu_view h, r;
    struct gpu_view inv;      /* [blocks, BLOCK, BLOCK] L_ii^-1 */
    struct gpu_view panel;    /* [n, BLOCK] */
    struct gpu_view identity; /* [BLOCK, BLOCK] */
    struct gpu_view status;
};

/* Rows from `row`, columns from `col` of an [n, n] matrix: `rows` x `cols` of them. */
static struct gpu_matrix part(const struct factor *f, struct gpu_view m, uint32_t row, uint32_t col, uint32_t rows,
                              uint32_t cols)
{
    uint64_t first = (uint64_t)row * f->n + col;
    uint64_t size = (uint64_t)(rows - 1) * f->n + cols;
    return (struct gpu_matrix){gpu_slice(m, first * 4, size * 4), f->n};
}

static uint32_t block_size(const struct factor *f, uint32_t j)
{
    return (uint32_t)min_u64(BLOCK, f->n - j);
}

/* A dense [rows, cols] matrix at the start of v. */
static struct gpu_matrix dense(struct gpu_view v, uint32_t rows, uint32_t cols)
{
    return (struct gpu_matrix){gpu_slice(v, 0, (uint64_t)rows * cols * 4), cols};
}

static struct gpu_matrix block_inverse(const struct factor *f, uint32_t j)
{
    uint32_t nb = block_size(f, j);
    return dense(gpu_slice(f->inv, (uint64_t)j * BLOCK * 4, (uint64_t)BLOCK * BLOCK * 4), nb, nb);
}

/* r, symmetric, lower triangle <- L with r = L L^T; left-looking, a block column at a time. */
static void factorize(struct factor *f)
{
    for (uint32_t j = 0; j < f->n; j += BLOCK) {
        uint32_t nb = block_size(f, j), rest = f->n - j - nb;
        if (j > 0) /* A[j:, j] -= L[j:, :j] L[j, :j]^T */
            gpu_gemm(f->cmd, part(f, f->r, j, 0, f->n - j, j), part(f, f->r, j, 0, nb, j),
                     part(f, f->r, j, j, f->n - j, nb), f->n - j, nb, j, -1, 1);
        struct gpu_matrix inv = block_inverse(f, j);
        tiled_chol_block(
            f->cmd,
            &(struct chol_block_args){
                .a = part(f, f->r, j, j, nb, nb).view, .inv = inv.view, .status = f->status, .nb = nb, .lda = f->n});
        if (rest == 0)
            continue;
        struct gpu_matrix below = part(f, f->r, j + nb, j, rest, nb), panel = dense(f->panel, rest, nb);
        gpu_gemm(f->cmd, below, inv, panel, rest, nb, nb, 1, 0); /* A L_jj^-T */
        tiled_copy_rect(f->cmd,
                        &(struct copy_rect_args){
                            .src = panel.view, .dst = below.view, .rows = rest, .cols = nb, .lds = nb, .ldd = f->n});
    }
}

/* h <- V = L^-T, upper: V[:i, i] = -V[:i, :i] L[i, :i]^T V_ii, and V_ii^T = L_ii^-1 is at hand. */
static void invert(struct factor *f)
{
    gpu_fill(f->cmd, gpu_slice(f->h, 0, (uint64_t)f->n * f->n * 4), 0);
    for (uint32_t i = 0; i < f->n; i += BLOCK) {
        uint32_t nb = block_size(f, i);
        struct gpu_matrix inv = block_inverse(f, i);
        gpu_gemm(f->cmd, dense(f->identity, BLOCK, BLOCK), inv, part(f, f->h, i, i, nb, nb), nb, nb, nb, 1, 0);
        if (i == 0)
            continue;
        struct gpu_matrix product = dense(f->panel, i, nb);
        /* Row c of V starts at column c: rows are taken in chunks, without the columns that are zero in all
         * of them. */
        for (uint32_t c = 0; c < i; c += CHUNK) {
            uint32_t rows = (uint32_t)min_u64(CHUNK, i - c), k = i - c;
            uint64_t offset = (uint64_t)c * nb * 4;
            struct gpu_matrix out = dense(gpu_slice(product.view, offset, product.view.size - offset), rows, nb);
            gpu_gemm(f->cmd, part(f, f->h, c, c, rows, k), part(f, f->r, i, c, nb, k), out, rows, nb, k, 1, 0);
        }
        gpu_gemm(f->cmd, product, inv, part(f, f->h, 0, i, i, nb), i, nb, nb, -1, 0);
    }
}

static bool run(struct factor *f, struct gpu_arena *scratch, bool *ok, struct err *e)
{
    uint64_t blocks = div_up(f->n, BLOCK);
    if (!gpu_alloc(scratch, blocks * BLOCK * BLOCK * 4, &f->inv, e) ||
        !gpu_alloc(scratch, (uint64_t)f->n * BLOCK * 4, &f->panel, e) ||
        !gpu_alloc(scratch, BLOCK * BLOCK * 4, &f->identity, e) || !gpu_alloc(scratch, 4, &f->status, e))
        return false;
    float identity[BLOCK * BLOCK] = {0};
    for (uint32_t i = 0; i < BLOCK; i++)
        identity[i * BLOCK + i] = 1;
    gpu_upload(f->cmd, f->identity, identity, sizeof identity);
    gpu_fill(f->cmd, f->status, 0);

    /* flip(H) = L L^T. With V = L^-T, H^-1 = flip(V V^T) = flip(V) flip(V)^T, and flip(V) is lower: it is R =
     * U^T. */
    struct flip_args flip = {.in = f->h, .out = f->r, .n = f->n, .ldi = f->n, .ldo = f->n};
    tiled_flip(f->cmd, &flip);
    factorize(f);
    uint32_t failed = 0;
    if (!gpu_download(f->cmd, f->status, &failed, sizeof failed, e))
        return false;
    *ok = failed == 0;
    if (failed)
        return true;
    invert(f);
    tiled_flip(f->cmd, &flip);
    return gpu_cmd_finish(f->cmd, e);
}

bool cholesky_inverse_factor(struct gpu_cmd *cmd, struct gpu_arena *scratch, struct gpu_view h, struct gpu_view r,
                             uint32_t n, bool *ok, struct err *e)
{
    struct factor f = {.cmd = cmd, .n = n, .h = h, .r = r};
    gpu_mark mark = gpu_arena_mark(scratch);
    *ok = false;
    bool done = run(&f, scratch, ok, e);
    gpu_arena_reset(scratch, mark);
    return done || err_context(e, "inverse factor of a Hessian of %u", n);
}
