#include "host/quant/method/share.h"

#include <string.h>

struct comm_part share_rows(uint32_t rows)
{
    return comm_part(rows, SHARE_ROWS, comm_rank());
}

uint64_t share_room(uint32_t rows, uint32_t cols)
{
    const struct comm_part own = share_rows(rows);
    return ((uint64_t)rows + (uint64_t)(own.end - own.first) * comm_size()) * cols;
}

bool share_sum(enum comm_kind kind, struct gpu_cmd *cmd, struct gpu_view x, uint32_t rows, uint32_t cols, unsigned have,
               bool first, float *room, float *sum, struct err *e)
{
    const struct comm_part own = share_rows(rows);
    const uint64_t n = (uint64_t)(own.end - own.first) * cols;
    float *all = room + (uint64_t)rows * cols; /* [have, own rows, cols] */
    if ((comm_rank() < have && !gpu_download(cmd, x, room, (uint64_t)rows * cols * sizeof *room, e)) ||
        !comm_scatter(kind, room, rows, SHARE_ROWS, cols * sizeof *room, have, all, e))
        return false;
    for (unsigned r = 0; r < have; r++) {
        const float *from = all + r * n;
        if (first && r == 0)
            memcpy(sum, from, n * sizeof *sum);
        else
            for (uint64_t i = 0; i < n; i++)
                sum[i] += from[i];
    }
    return true;
}

bool share_weights(struct gpu_cmd *cmd, struct gpu_view w, uint32_t rows, uint32_t cols, float *room, struct err *e)
{
    const uint64_t row = cols * sizeof *room;
    bool ok = true;
    for (unsigned r = 0; ok && r < comm_size(); r++) {
        const struct comm_part part = comm_part(rows, SHARE_ROWS, r);
        if (part.first < part.end)
            ok =
                gpu_share(COMM_WEIGHTS, cmd, gpu_slice(w, part.first * row, (part.end - part.first) * row), r, room, e);
    }
    return ok;
}

bool share_codes(struct qlinear *q, uint32_t unit, struct err *e)
{
    return comm_gather(COMM_CODES, q->codes, q->rows, unit, q->cols * sizeof *q->codes, e) &&
           comm_gather(COMM_CODES, q->scales, q->rows, unit, quant_row_scales(&q->spec, q->cols) * sizeof *q->scales,
                       e) &&
           (!q->integers || comm_gather(COMM_CODES, q->integers, q->rows, unit,
                                        quant_row_groups(&q->spec, q->cols) * sizeof *q->integers, e));
}

void share_sum_expect(struct comm_expected *x, enum comm_kind kind, uint32_t rows, uint32_t cols, unsigned have,
                      uint64_t times)
{
    comm_expect_scatter(x, kind, rows, SHARE_ROWS, cols * sizeof(float), have, times);
}

void share_weights_expect(struct comm_expected *x, uint32_t rows, uint32_t cols, uint64_t times)
{
    comm_expect_gather(x, COMM_WEIGHTS, rows, SHARE_ROWS, cols * sizeof(float), times);
}

uint64_t share_code_bytes(uint32_t cols, const struct quant_spec *spec)
{
    return cols * sizeof(int8_t) + quant_row_scales(spec, cols) * sizeof(float) +
           (spec->type->super ? quant_row_groups(spec, cols) * sizeof(int8_t) : 0);
}

void share_codes_expect(struct comm_expected *x, uint32_t rows, uint32_t unit, uint32_t cols,
                        const struct quant_spec *spec)
{
    comm_expect_gather(x, COMM_CODES, rows, unit, share_code_bytes(cols, spec), 1);
}

double share_busiest(uint32_t rows, uint32_t unit, unsigned ranks)
{
    uint32_t most = 0;
    for (unsigned r = 0; r < ranks; r++) {
        const struct comm_part part = comm_part_of(rows, unit, r, ranks);
        most = part.end - part.first > most ? part.end - part.first : most;
    }
    return rows ? (double)most / rows : 0;
}
