#include "host/quant/method/share.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

#define UNIT 64u

struct comm_part share_rows(uint32_t rows, unsigned rank)
{
    const struct comm_part units = comm_part((uint32_t)div_up(rows, UNIT), rank);
    return (struct comm_part){(uint32_t)min_u64((uint64_t)units.first * UNIT, rows),
                              (uint32_t)min_u64((uint64_t)units.end * UNIT, rows)};
}

static struct comm_part own_rows(uint32_t rows)
{
    return share_rows(rows, comm_rank());
}

/* Where the rows of each rank begin, in bytes; the caller frees it. */
static uint64_t *starts_of(uint32_t rows, uint64_t row_bytes, struct err *e)
{
    const unsigned ranks = comm_size();
    uint64_t *starts = malloc((ranks + 1) * sizeof *starts);
    if (!starts)
        err_nomem(e, "the rows of ranks", (ranks + 1) * sizeof *starts);
    for (unsigned r = 0; starts && r <= ranks; r++)
        starts[r] = (r < ranks ? share_rows(rows, r).first : rows) * row_bytes;
    return starts;
}

uint64_t share_room(uint32_t rows, uint32_t cols)
{
    const struct comm_part own = own_rows(rows);
    return ((uint64_t)rows + (uint64_t)(own.end - own.first) * comm_size()) * cols;
}

bool share_sum(struct gpu_cmd *cmd, struct gpu_view x, uint32_t rows, uint32_t cols, unsigned have, bool first,
               float *room, float *sum, struct err *e)
{
    const struct comm_part own = own_rows(rows);
    const uint64_t n = (uint64_t)(own.end - own.first) * cols;
    const bool mine = comm_rank() < have;
    float *all = room + (uint64_t)rows * cols; /* [have, own rows, cols] */
    uint64_t *starts = starts_of(rows, cols * sizeof *sum, e);
    bool ok = starts && (!mine || gpu_download(cmd, x, room, (uint64_t)rows * cols * sizeof *room, e)) &&
              comm_scatter(room, starts, have, all, n * sizeof *all, e);
    for (unsigned r = 0; ok && r < have; r++) {
        const float *from = all + r * n;
        if (first && r == 0)
            memcpy(sum, from, n * sizeof *sum);
        else
            for (uint64_t i = 0; i < n; i++)
                sum[i] += from[i];
    }
    free(starts);
    return ok;
}

bool share_weights(struct gpu_cmd *cmd, struct gpu_view w, uint32_t rows, uint32_t cols, float *room, struct err *e)
{
    const struct comm_part own = own_rows(rows);
    const uint64_t row = cols * sizeof *room;
    uint64_t *starts = starts_of(rows, row, e);
    bool ok =
        starts &&
        (own.first == own.end || gpu_download(cmd, gpu_slice(w, own.first * row, (own.end - own.first) * row),
                                              room + (uint64_t)own.first * cols, (own.end - own.first) * row, e)) &&
        comm_gather(room, starts, e);
    if (ok && own.first)
        gpu_upload(cmd, gpu_slice(w, 0, own.first * row), room, own.first * row);
    if (ok && own.end < rows)
        gpu_upload(cmd, gpu_slice(w, own.end * row, (rows - own.end) * row), room + (uint64_t)own.end * cols,
                   (rows - own.end) * row);
    free(starts);
    return ok;
}

static bool gather_rows(void *data, uint32_t rows, uint64_t row_bytes, struct err *e)
{
    uint64_t *starts = starts_of(rows, row_bytes, e);
    bool ok = starts && comm_gather(data, starts, e);
    free(starts);
    return ok;
}

bool share_codes(struct qlinear *q, struct err *e)
{
    return gather_rows(q->codes, q->rows, q->cols * sizeof *q->codes, e) &&
           gather_rows(q->scales, q->rows, quant_row_scales(&q->spec, q->cols) * sizeof *q->scales, e) &&
           (!q->integers ||
            gather_rows(q->integers, q->rows, quant_row_groups(&q->spec, q->cols) * sizeof *q->integers, e));
}

bool share_doubles(double *x, uint32_t rows, struct err *e)
{
    return gather_rows(x, rows, sizeof *x, e);
}
