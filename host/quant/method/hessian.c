#include "host/quant/method/hessian.h"

#include <math.h>
#include <stdlib.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_share.h"
#include "host/gpu/tiled.h"

_Static_assert(HESSIAN_TILE * 4 % GPU_ALLOC_ALIGN == 0, "tiles start aligned");

/* Columns of `held`. */
static uint32_t held_cols(uint32_t n)
{
    return (uint32_t)min_u64(n, HESSIAN_TILE);
}

bool hessian_create(struct hessian *h, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n, bool with_held,
                    struct err *e)
{
    *h = (struct hessian){.n = n};
    if (!gpu_alloc_rows(arena, n, n * sizeof(float), HESSIAN_TILE, &h->train, e))
        return false;
    gpu_fill(cmd, h->train, 0);
    if (with_held) {
        if (!gpu_alloc(arena, (uint64_t)n * held_cols(n) * sizeof(float), &h->held, e))
            return false;
        gpu_fill(cmd, h->held, 0);
    }
    return true;
}

/* Pieces begin where any device can bind them. */
#define PIECE_STEP 256u

static uint64_t piece_bytes(uint32_t n, uint32_t cols)
{
    return round_up((uint64_t)n * cols * sizeof(float), PIECE_STEP);
}

static struct gpu_view piece_of(struct gpu_view v, uint32_t i, uint32_t n, uint32_t cols)
{
    return v.size ? gpu_slice(v, i * piece_bytes(n, cols), (uint64_t)n * cols * sizeof(float)) : v;
}

struct hessian hessian_piece(const struct hessian *h, uint32_t i)
{
    return (struct hessian){
        .train = piece_of(h->train, i, h->n, h->n), .held = piece_of(h->held, i, h->n, held_cols(h->n)), .n = h->n};
}

/* Those of pieces: heads, which are narrow. */
static bool create_pieces(struct hessian *h, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n, uint32_t pieces,
                          bool with_held, struct err *e)
{
    *h = (struct hessian){.n = n, .pieces = pieces};
    if (!gpu_alloc(arena, pieces * piece_bytes(n, n), &h->train, e) ||
        (with_held && !gpu_alloc(arena, pieces * piece_bytes(n, held_cols(n)), &h->held, e)))
        return false;
    gpu_fill(cmd, h->train, 0);
    if (with_held)
        gpu_fill(cmd, h->held, 0);
    return true;
}

bool hessian_create_half(struct hessian h[INPUT_COUNT], struct gpu_cmd *cmd, struct gpu_arena *arena,
                         struct block_shape block, enum block_half half, bool with_held, struct err *e)
{
    bool ok = true;
    for (int in = 0; in < INPUT_COUNT; in++) {
        uint32_t cols = block_input_cols(block, half, (enum input)in),
                 pieces = block_input_pieces(block, half, (enum input)in);
        h[in] = (struct hessian){0};
        ok = ok && (!cols || (pieces > 1 ? create_pieces(&h[in], cmd, arena, cols, pieces, with_held, e)
                                         : hessian_create(&h[in], cmd, arena, cols, with_held, e)));
    }
    return ok;
}

bool hessian_create_diagonal(struct hessian *h, struct gpu_view *diag, struct gpu_cmd *cmd, struct gpu_arena *arena,
                             uint32_t n, struct err *e)
{
    return hessian_create(h, cmd, arena, n, false, e) && gpu_alloc(arena, n * 4ull, diag, e);
}

bool hessian_create_experts(struct hessian *layer, struct hessian *in, struct hessian *middle, struct gpu_view *factor,
                            struct gpu_view *diag, struct gpu_cmd *cmd, struct gpu_arena *arena,
                            const struct model_config *c, bool with_held, struct err *e)
{
    return hessian_create(layer, cmd, arena, c->hidden_size, with_held, e) &&
           hessian_create(in, cmd, arena, c->hidden_size, with_held, e) &&
           hessian_create(middle, cmd, arena, c->experts.width, with_held, e) &&
           gpu_alloc(arena, HESSIAN_TILE * 4ull, factor, e) &&
           gpu_alloc(arena, max_u64(c->hidden_size, c->experts.width) * 4, diag, e);
}

/* ---- sums ---- */

/* Which rank sums the rows of tiles from i on: back and forth over the ranks, since the first are the longest. Square ones of one tile
 * go to different ranks by their width. */
static unsigned owner(uint32_t n, uint32_t i, unsigned ranks)
{
    const uint32_t at = (i + n) / HESSIAN_TILE % (2 * ranks);
    return at < ranks ? at : 2 * ranks - 1 - at;
}

/* The rows of tiles from i on. */
static void add_tiles(struct gpu_cmd *cmd, const struct hessian *h, enum hessian_sum sum, struct gpu_view x, uint32_t i,
                      uint32_t tokens, float factor)
{
    const uint32_t n = h->n, rows = hessian_tile_rows(n, i);
    /* What is learned from is of rounded inputs, then: still a sum of squares. What judges is exact. */
    const enum gemm_use use = sum == HESSIAN_TRAIN ? GEMM_STEERING : GEMM_EXACT;
    const struct gpu_matrix a = gpu_matrix_from(x, n, 0, i);
    if (sum == HESSIAN_TRAIN) {
        gpu_gemm_add(cmd, a, a, gpu_matrix_from(h->train, n, i, i), rows, n - i, tokens, factor, use);
        return;
    }
    gpu_gemm_add(cmd, a, a, gpu_matrix_from(h->held, held_cols(n), i, 0), rows, rows, tokens, factor, use);
    if (i)
        gpu_gemm_add(cmd, a, gpu_matrix_from(x, n, 0, 0), gpu_matrix_from(h->train, n, i, 0), rows, i, tokens, factor,
                     use);
}

void hessian_add(struct gpu_cmd *cmd, const struct hessian *h, enum hessian_sum sum, struct gpu_view x, uint32_t tokens,
                 float factor)
{
    const uint32_t n = h->n;
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE) {
        if (h->shared && owner(n, i, comm_size()) != comm_rank())
            continue;
        const enum gpu_part before = gpu_part_begin(cmd, h->shared ? GPU_PART_UNITS : GPU_PART_OWN);
        add_tiles(cmd, h, sum, x, i, tokens, factor);
        gpu_part_end(cmd, before);
    }
}

bool hessian_exchange(struct gpu_cmd *cmd, struct hessian *h, struct err *e)
{
    const uint64_t row = h->n * 4ull, held_row = held_cols(h->n) * 4ull;
    if (comm_size() == 1)
        return true;
    void *room = malloc(HESSIAN_TILE * row);
    bool ok = room || err_nomem(e, "rows of a Hessian between ranks", HESSIAN_TILE * row);
    for (uint32_t i = 0; ok && i < h->n; i += HESSIAN_TILE) {
        const uint32_t rows = hessian_tile_rows(h->n, i);
        const unsigned from_rank = owner(h->n, i, comm_size());
        ok = gpu_share(COMM_HESSIANS, cmd, gpu_slice(h->train, i * row, rows * row), from_rank, room, e) &&
             (!h->held.size ||
              gpu_share(COMM_HESSIANS, cmd, gpu_slice(h->held, i * held_row, rows * held_row), from_rank, room, e));
    }
    ok = gpu_cmd_finish(cmd, ok ? e : NULL) && ok;
    free(room);
    h->shared = false;
    return ok;
}

void hessian_expect(struct comm_expected *x, uint32_t n, bool held)
{
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE)
        comm_expect_broadcast(x, COMM_HESSIANS, hessian_tile_rows(n, i) * 4ull * (n + (held ? held_cols(n) : 0)),
                              owner(n, i, x->ranks), 1);
}

void hessian_raise_diagonal(struct gpu_cmd *cmd, const struct hessian *h, float share, struct gpu_view diag,
                            struct gpu_view factor)
{
    const uint32_t n = h->n;
    const float by = 1 + share;
    struct gpu_view d = gpu_slice(diag, 0, n * 4ull);
    gpu_upload(cmd, gpu_slice(factor, 0, sizeof by), &by, sizeof by);
    tiled_diagonal(cmd, &(struct diagonal_args){.h = h->train, .diag = d, .n = n, .ldh = n});
    tiled_scale_rows(cmd, &(struct scale_rows_args){.x = d, .w = factor, .y = d, .rows = 1, .cols = n});
    /* Row i's element of the diagonal lies n + 1 behind the last row's. */
    tiled_copy_rect(cmd,
                    &(struct copy_rect_args){.src = d, .dst = h->train, .rows = n, .cols = 1, .lds = 1, .ldd = n + 1});
}

double hessian_products(uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE)
        sum += (double)hessian_tile_rows(n, i) * (n - i);
    return sum;
}

double hessian_busiest(uint32_t n, unsigned ranks)
{
    double most = 0;
    for (unsigned r = 0; r < ranks; r++) {
        double sum = 0;
        for (uint32_t i = 0; i < n; i += HESSIAN_TILE)
            sum += owner(n, i, ranks) == r ? (double)hessian_tile_rows(n, i) * (n - i) : 0;
        most = fmax(most, sum);
    }
    return most;
}

/* ---- of outputs ---- */

uint32_t output_hessian_cols(uint32_t n)
{
    return held_cols(n);
}

bool output_hessian_create(struct gpu_view *tiles, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n,
                           struct err *e)
{
    if (!gpu_alloc_rows(arena, n, output_hessian_cols(n) * sizeof(float), HESSIAN_TILE, tiles, e))
        return false;
    gpu_fill(cmd, *tiles, 0);
    return true;
}

void output_hessian_add(struct gpu_cmd *cmd, struct gpu_view tiles, uint32_t n, uint32_t row0, uint32_t rows,
                        struct gpu_view g, uint32_t tokens, float factor)
{
    const uint32_t ld = held_cols(n), end = row0 + rows;
    for (uint32_t i = row0, next; i < end; i = next) {
        next = (uint32_t)min_u64(end, (i / HESSIAN_TILE + 1ull) * HESSIAN_TILE);
        struct gpu_matrix a = gpu_matrix_from(g, rows, 0, i - row0);
        gpu_gemm_add(cmd, a, a, gpu_matrix_from(tiles, ld, i, i % HESSIAN_TILE), next - i, next - i, tokens, factor,
                     GEMM_STEERING);
    }
}

void output_hessian_after(struct gpu_cmd *cmd, struct gpu_view tiles, struct gpu_view x, struct gpu_view y,
                          uint32_t rows, uint32_t n, enum gemm_use use)
{
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE) {
        const uint32_t tile = hessian_tile_rows(n, i);
        /* A tile is its own transpose. */
        gpu_gemm(cmd, &(struct gpu_product){.a = gpu_matrix_from(x, n, 0, i),
                                            .b = gpu_matrix_from(tiles, held_cols(n), i, 0),
                                            .c = gpu_matrix_from(y, n, 0, i),
                                            .m = rows,
                                            .n = tile,
                                            .k = tile,
                                            .alpha = 1,
                                            .use = use});
    }
}

struct gpu_matrix output_hessian_rows(struct gpu_view tiles, uint32_t n, uint32_t row0, uint32_t rows)
{
    const uint64_t ld = held_cols(n);
    if (!tiles.size || !rows)
        return (struct gpu_matrix){0};
    return (struct gpu_matrix){gpu_slice(tiles, row0 * ld * sizeof(float), rows * ld * sizeof(float)), (uint32_t)ld};
}

void output_hessian_times(struct gpu_cmd *cmd, struct gpu_matrix tiles, uint32_t row0, uint32_t rows, struct gpu_view x,
                          struct gpu_view y, uint32_t cols, enum gemm_use use)
{
    for (uint32_t i = 0; i < rows; i += HESSIAN_TILE) {
        uint32_t tile = hessian_tile_rows(rows, i);
        gpu_gemm(cmd, &(struct gpu_product){.a = gpu_matrix_from(tiles.view, tiles.ld, row0 + i, 0),
                                            .b = gpu_matrix_from(x, cols, i, 0),
                                            .c = gpu_matrix_from(y, cols, i, 0),
                                            .m = tile,
                                            .n = cols,
                                            .k = tile,
                                            .alpha = 1,
                                            .b_transposed = true,
                                            .use = use});
    }
}

/* ---- the whole of one ---- */

static uint32_t divisor(uint32_t a, uint32_t b)
{
    return b ? divisor(b, a % b) : a;
}

bool hessian_square_create(struct gpu_view *square, struct gpu_arena *arena, uint32_t n, uint32_t group, struct err *e)
{
    uint64_t unit = group < n ? (uint64_t)HESSIAN_TILE / divisor(HESSIAN_TILE, group) * group : HESSIAN_TILE;
    return gpu_alloc_rows(arena, n, n * sizeof(float), (uint32_t)min_u64(unit, round_up(n, HESSIAN_TILE)), square, e);
}

void hessian_square(struct gpu_cmd *cmd, const struct hessian *h, enum hessian_sum sum, struct gpu_view square)
{
    const uint32_t n = h->n;
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE) {
        uint32_t rows = hessian_tile_rows(n, i);
        if (sum == HESSIAN_TRAIN) {
            gpu_copy_part(cmd, gpu_matrix_from(h->train, n, i, i), gpu_matrix_from(square, n, i, i), rows, n - i);
        } else {
            gpu_copy_part(cmd, gpu_matrix_from(h->held, held_cols(n), i, 0), gpu_matrix_from(square, n, i, i), rows,
                          rows);
            if (i)
                gpu_copy_part(cmd, gpu_matrix_from(h->train, n, i, 0), gpu_matrix_from(square, n, i, 0), rows, i);
        }
        for (uint32_t j = 0; j < i; j += HESSIAN_TILE) {
            struct gpu_matrix below = gpu_matrix_from(square, n, i, j), above = gpu_matrix_from(square, n, j, i);
            uint32_t cols = hessian_tile_rows(n, j);
            if (sum == HESSIAN_TRAIN) /* it is above */
                gpu_transpose_part(cmd, above, below, cols, rows);
            else
                gpu_transpose_part(cmd, below, above, rows, cols);
        }
    }
}
