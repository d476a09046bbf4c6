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
    struct gpu_view r;
    struct gpu_view inv;      /* [blocks, BLOCK, BLOCK] L_ii^-1 */
    struct gpu_view panel;    /* [n, BLOCK] */
    struct gpu_view strip;    /* [min(n, CHUNK), n] */
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

/* rows x cols of a dense matrix. */
static struct gpu_matrix within(struct gpu_matrix x, uint32_t row, uint32_t col, uint32_t rows, uint32_t cols)
{
    uint64_t at = ((uint64_t)row * x.ld + col) * 4;
    return (struct gpu_matrix){gpu_slice(x.view, at, ((uint64_t)(rows - 1) * x.ld + cols) * 4), x.ld};
}

static struct gpu_matrix block_inverse(const struct factor *f, uint32_t j)
{
    uint32_t nb = block_size(f, j);
    return dense(gpu_slice(f->inv, (uint64_t)j * BLOCK * 4, (uint64_t)BLOCK * BLOCK * 4), nb, nb);
}

/* c[m, n] = alpha * a[m, k] b[n, k]^T + beta * c, exact. */
static void product(const struct factor *f, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
                    uint32_t n, uint32_t k, float alpha, float beta)
{
    gpu_gemm(f->cmd,
             &(struct gpu_product){.a = a, .b = b, .c = c, .m = m, .n = n, .k = k, .alpha = alpha, .beta = beta});
}

/* r, symmetric, lower triangle <- L with r = L L^T; left-looking, a block column at a time. */
static void factorize(struct factor *f)
{
    for (uint32_t j = 0; j < f->n; j += BLOCK) {
        uint32_t nb = block_size(f, j), rest = f->n - j - nb;
        if (j > 0) /* A[j:, j] -= L[j:, :j] L[j, :j]^T */
            product(f, part(f, f->r, j, 0, f->n - j, j), part(f, f->r, j, 0, nb, j), part(f, f->r, j, j, f->n - j, nb),
                    f->n - j, nb, j, -1, 1);
        struct gpu_matrix inv = block_inverse(f, j);
        tiled_chol_block(
            f->cmd,
            &(struct chol_block_args){
                .a = part(f, f->r, j, j, nb, nb).view, .inv = inv.view, .status = f->status, .nb = nb, .lda = f->n});
        if (rest == 0)
            continue;
        struct gpu_matrix below = part(f, f->r, j + nb, j, rest, nb), panel = dense(f->panel, rest, nb);
        product(f, below, inv, panel, rest, nb, nb, 1, 0); /* A L_jj^-T */
        gpu_copy_part(f->cmd, panel, below, rest, nb);
    }
}

/* Upper triangle of r <- V = L^-T: V[:i, i] = -V[:i, :i] L[i, :i]^T V_ii, and V_ii^T = L_ii^-1 is at hand. Row c of V starts
 * at column c: rows are taken in chunks, without the columns that are zero in all of them. In the chunk on the diagonal
 * that is in work L still stands where V is zero, so that chunk is made beside it, and takes L's place when L is done. */
static void invert(const struct factor *f)
{
    for (uint32_t c0 = 0; c0 < f->n; c0 += CHUNK) {
        uint32_t size = (uint32_t)min_u64(CHUNK, f->n - c0);
        struct gpu_matrix chunk = dense(f->strip, size, size);
        gpu_fill(f->cmd, chunk.view, 0);
        for (uint32_t i = c0; i < c0 + size; i += BLOCK) {
            uint32_t nb = block_size(f, i), in = i - c0;
            struct gpu_matrix inv = block_inverse(f, i), out = dense(f->panel, i ? i : 1, nb);
            product(f, dense(f->identity, BLOCK, BLOCK), inv, within(chunk, in, in, nb, nb), nb, nb, nb, 1, 0);
            for (uint32_t c = 0; c < i; c += CHUNK) {
                uint32_t rows = (uint32_t)min_u64(CHUNK, i - c), k = i - c;
                struct gpu_matrix v = c == c0 ? within(chunk, 0, 0, rows, k) : part(f, f->r, c, c, rows, k);
                product(f, v, part(f, f->r, i, c, nb, k), within(out, c, 0, rows, nb), rows, nb, k, 1, 0);
            }
            if (c0)
                product(f, out, inv, part(f, f->r, 0, i, c0, nb), c0, nb, nb, -1, 0);
            if (in)
                product(f, within(out, c0, 0, in, nb), inv, within(chunk, 0, in, in, nb), in, nb, nb, -1, 0);
        }
        gpu_copy_part(f->cmd, chunk, part(f, f->r, c0, c0, size, size), size, size);
    }
}

/* r <- flip(r), a strip from either end at a time. */
static void flip_in_place(const struct factor *f)
{
    const uint32_t n = f->n;
    for (uint32_t top = 0, rows; 2 * top < n; top += rows) {
        uint32_t middle = n - 2 * top, bottom;
        rows = (uint32_t)min_u64(CHUNK, max_u64(middle / 2, 1));
        bottom = n - top - rows;
        gpu_copy(f->cmd, f->strip, gpu_slice(f->r, (uint64_t)top * n * 4, (uint64_t)rows * n * 4),
                 (uint64_t)rows * n * 4);
        if (top != bottom)
            tiled_flip_rows(f->cmd,
                            &(struct flip_args){.in = f->r, .out = f->r, .n = n, .rows = rows, .ldi = n, .ldo = n},
                            bottom, top);
        tiled_flip_rows(f->cmd,
                        &(struct flip_args){.in = f->strip, .out = f->r, .n = n, .rows = rows, .ldi = n, .ldo = n}, 0,
                        bottom);
    }
}

static bool run(struct factor *f, struct gpu_arena *scratch, bool *ok, struct err *e)
{
    uint64_t blocks = div_up(f->n, BLOCK), strip = min_u64(CHUNK, f->n);
    if (!gpu_alloc(scratch, blocks * BLOCK * BLOCK * 4, &f->inv, e) ||
        !gpu_alloc(scratch, (uint64_t)f->n * BLOCK * 4, &f->panel, e) ||
        !gpu_alloc(scratch, strip * f->n * 4, &f->strip, e) ||
        !gpu_alloc(scratch, BLOCK * BLOCK * 4, &f->identity, e) || !gpu_alloc(scratch, 4, &f->status, e))
        return false;
    float identity[BLOCK * BLOCK] = {0};
    for (uint32_t i = 0; i < BLOCK; i++)
        identity[i * BLOCK + i] = 1;
    gpu_upload(f->cmd, f->identity, identity, sizeof identity);
    gpu_fill(f->cmd, f->status, 0);

    /* flip(H) = L L^T. With V = L^-T, H^-1 = flip(V V^T) = flip(V) flip(V)^T, and flip(V) is lower: it is R =
     * U^T. */
    factorize(f);
    uint32_t failed = 0;
    if (!gpu_download(f->cmd, f->status, &failed, sizeof failed, e))
        return false;
    *ok = failed == 0;
    if (failed)
        return true;
    invert(f);
    flip_in_place(f);
    return gpu_cmd_finish(f->cmd, e);
}

bool cholesky_inverse_factor(struct gpu_cmd *cmd, struct gpu_arena *scratch, struct gpu_view r, uint32_t n, bool *ok,
                             struct err *e)
{
    struct factor f = {.cmd = cmd, .n = n, .r = r};
    gpu_mark mark = gpu_arena_mark(scratch);
    *ok = false;
    bool done = run(&f, scratch, ok, e);
    gpu_arena_reset(scratch, mark);
    return done || err_context(e, "inverse factor of a Hessian of %u", n);
}
