#include "host/base/comm.h"
#include "host/quant/run/job_internal.h"

bool job_give(struct job *j, const struct matrix *item, unsigned rank, struct block_result *r, struct err *e)
{
    struct qlinear *q = &r->q[item->place];
    (void)j;
    if (comm_size() == 1)
        return true;
    bool ok = rank == comm_rank() || qlinear_init(q, item->rows, item->cols, item->spec, e);
    if (!comm_agree(ok, e))
        return false;
    const uint64_t rows = q->rows;
    return comm_broadcast(COMM_CODES, q->codes, rows * q->cols * sizeof *q->codes, rank, e) &&
           comm_broadcast(COMM_CODES, q->scales, rows * quant_row_scales(&q->spec, q->cols) * sizeof *q->scales, rank,
                          e) &&
           (!q->integers ||
            comm_broadcast(COMM_CODES, q->integers, rows * quant_row_groups(&q->spec, q->cols) * sizeof *q->integers,
                           rank, e)) &&
           comm_broadcast(COMM_CODES, &r->report[item->place], sizeof *r->report, rank, e);
}

bool job_dequant(struct job *j, const struct matrix *item, const struct qlinear *q, struct gpu_view w, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct qmatrix dq;
    bool ok =
        qmatrix_create(&dq, j->scratch, item->rows, item->cols, item->spec, e) && qmatrix_upload(j->cmd, &dq, q, e);
    if (ok) {
        qmatrix_dequant(j->cmd, &dq, w);
        ok = gpu_cmd_finish(j->cmd, e);
    }
    gpu_arena_reset(j->scratch, mark);
    return ok;
}
