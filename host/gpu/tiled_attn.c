/* Attention in pieces of what a submission holds. */
#include "host/gpu/tiled.h"

#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_pipeline_internal.h"

/* The pieces of one call: whole heads, and where one is too much, tiles of it. Workgroups are numbered by window, head and
 * tile; a piece is a range of them. */
struct pieces {
    struct gpu_cmd *cmd;
    unsigned kernel;
    const void *args;      /* the call's, with its variant */
    bool of_keys;          /* tiles are of keys, else of queries */
    uint32_t ctx, sliding; /* positions of a window, and how many a query sees (0: all before) */
    uint64_t heads;        /* of all windows */
    double per_pair;       /* floating-point operations of a query and a key that it sees */
    uint32_t tile, tiles;  /* of a head */
    uint64_t at, count;    /* the current piece: workgroups */
    double work;
};

/* Pairs of the queries before position n and the keys that they see. */
static double pairs_before(double n, double sees)
{
    return n <= sees ? n * (n + 1) / 2 : sees * (sees + 1) / 2 + (n - sees) * sees;
}

/* Floating-point operations of tiles [first, end) of a head. */
static double work_of(const struct pieces *p, uint64_t first, uint64_t end)
{
    uint64_t from = first * p->tile, to = min_u64(end * p->tile, p->ctx);
    double sees = p->sliding && p->sliding < p->ctx ? p->sliding : p->ctx;
    double pairs = p->of_keys /* as many queries see key i as query ctx - 1 - i sees keys */
                       ? pairs_before((double)(p->ctx - from), sees) - pairs_before((double)(p->ctx - to), sees)
                       : pairs_before((double)to, sees) - pairs_before((double)from, sees);
    return pairs * p->per_pair;
}

static bool next_piece(struct pieces *p)
{
    if (!p->tile) {
        p->tile = gpu_kernel_constant(gpu_cmd_gpu(p->cmd), p->kernel, p->args, SPEC_TILE, 1);
        p->tiles = (uint32_t)div_up(p->ctx, p->tile);
    }
    p->at += p->count;
    uint64_t all = p->heads * p->tiles, tile = p->at % p->tiles;
    if (p->at >= all || gpu_cmd_failed(p->cmd))
        return false;
    /* Asked anew each time: the first piece is measured before the second is cut. */
    double limit = gpu_cmd_work_limit(p->cmd, p->kernel, p->args), head = work_of(p, 0, p->tiles);
    uint64_t left = (all - p->at) / p->tiles;
    if (tile == 0 && left > 0 && head <= limit) {
        double fit = limit / head;
        uint64_t whole = fit < (double)left ? (uint64_t)fit : left;
        p->count = whole * p->tiles;
        p->work = (double)whole * head;
        return true;
    }
    uint64_t end = tile + 1;
    while (end < p->tiles && work_of(p, tile, end + 1) <= limit)
        end++;
    p->count = end - tile;
    p->work = work_of(p, tile, end);
    return true;
}

static struct gpu_grid piece_grid(const struct pieces *p)
{
    struct gpu_grid grid = gpu_rows(p->count);
    grid.work = p->work;
    return grid;
}

/* A workgroup has a tile of queries of one of `heads`, or of keys of one of kv_heads; products: of what attn_fwd has two. */
#define ATTENTION(name, keys, a_head, products)                                                                        \
    void tiled_##name(struct gpu_cmd *cmd, const struct name##_args *args)                                             \
    {                                                                                                                  \
        struct name##_args a = *args;                                                                                  \
        struct pieces p = {.cmd = cmd,                                                                                 \
                           .kernel = KERNEL_ID_##name,                                                                 \
                           .args = args,                                                                               \
                           .of_keys = keys,                                                                            \
                           .ctx = a.ctx,                                                                               \
                           .sliding = a.sliding,                                                                       \
                           .heads = (uint64_t)a.windows * a.a_head,                                                    \
                           .per_pair = 2.0 * (products)*a.dim * a.heads / a.a_head};                                   \
        while (next_piece(&p)) {                                                                                       \
            a.start = (uint32_t)p.at;                                                                                  \
            run_##name(cmd, piece_grid(&p), &a);                                                                       \
        }                                                                                                              \
    }

ATTENTION(attn_fwd, false, heads, 2)
ATTENTION(attn_fwd_half, false, heads, 2)
ATTENTION(attn_bwd_q, false, heads, 3)
ATTENTION(attn_bwd_kv, true, kv_heads, 4)
ATTENTION(attn_bwd_v, true, kv_heads, 2)

ATTENTION(attn_cap_fwd, false, heads, 2)
ATTENTION(attn_cap_fwd_half, false, heads, 2)
ATTENTION(attn_cap_bwd_q, false, heads, 3)
ATTENTION(attn_cap_bwd_kv, true, kv_heads, 4)
ATTENTION(attn_cap_bwd_v, true, kv_heads, 2)

/* The same arguments, and a cap behind them; 0: none. */
#define CAPPED(name, capped)                                                                                           \
    _Static_assert(offsetof(struct capped##_args, cap) == sizeof(struct name##_args), "the first ones are the same");  \
    void tiled_##name##_capped(struct gpu_cmd *cmd, const struct name##_args *args, float cap)                         \
    {                                                                                                                  \
        struct capped##_args a = {.cap = cap};                                                                         \
        memcpy(&a, args, sizeof *args);                                                                                \
        if (cap > 0)                                                                                                   \
            tiled_##capped(cmd, &a);                                                                                   \
        else                                                                                                           \
            tiled_##name(cmd, args);                                                                                   \
    }
CAPPED(attn_fwd, attn_cap_fwd)
CAPPED(attn_bwd_q, attn_cap_bwd_q)
CAPPED(attn_bwd_kv, attn_cap_bwd_kv)
CAPPED(attn_bwd_v, attn_cap_bwd_v)

_Static_assert(sizeof(struct attn_fwd_half_args) == sizeof(struct attn_fwd_args) &&
                   sizeof(struct attn_cap_fwd_half_args) == sizeof(struct attn_cap_fwd_args),
               "the kernels take the same");

/* Whether these arguments go to matrix cores. */
static bool by_matrix_cores(struct gpu_cmd *cmd, unsigned kernel, const void *args)
{
    const struct gpu_kernel *k = gpu_kernel_chosen(gpu_cmd_gpu(cmd), kernel, gpu_kernel_push(kernel, args));
    return k && (k->variant->needs & GPU_CAP_COOPMAT);
}

void tiled_attn_fwd_steering(struct gpu_cmd *cmd, const struct attn_fwd_args *args, float cap)
{
    struct attn_fwd_half_args same;
    struct attn_cap_fwd_half_args capped = {.cap = cap};
    memcpy(&same, args, sizeof same);
    memcpy(&capped, args, sizeof *args);
    if (cap > 0 && by_matrix_cores(cmd, KERNEL_ID_attn_cap_fwd_half, &capped))
        tiled_attn_cap_fwd_half(cmd, &capped);
    else if (!(cap > 0) && by_matrix_cores(cmd, KERNEL_ID_attn_fwd_half, &same))
        tiled_attn_fwd_half(cmd, &same);
    else
        tiled_attn_fwd_capped(cmd, args, cap);
}
