#include <stdlib.h>

#include "host/base/comm.h"
#include "host/quant/method/share.h"
#include "host/quant/run/job_internal.h"

bool job_give(struct job *j, const struct matrix *item, unsigned rank, struct block_result *r, struct err *e)
{
    struct qlinear *q = &r->q[item->place];
    (void)j;
    if (comm_size() == 1)
        return true;
    if (rank != comm_rank() && !qlinear_init(q, item->rows, item->cols, item->spec, e))
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

void job_give_expect(struct comm_expected *x, const struct matrix *item, unsigned rank)
{
    comm_expect_broadcast(x, COMM_CODES, item->rows * share_code_bytes(item->cols, &item->spec), rank, 1);
    comm_expect_broadcast(x, COMM_CODES, sizeof(struct linear_report), rank, 1);
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

void job_work_begin(struct job *j)
{
    gpu_cmd_watch(j->cmd, gpu_traffic_watch_parts, j->work.parts);
}

void job_work_end(struct job *j)
{
    gpu_cmd_watch(j->cmd, NULL, NULL);
}

/* counts -= those that there were before. */
static void take_away(struct comm_bytes *counts, const struct comm_bytes *before)
{
    for (int k = 0; k < COMM_KINDS; k++) {
        counts->sent[k] -= before->sent[k];
        counts->received[k] -= before->received[k];
    }
}

bool job_work_gather(struct job *j, struct err *e)
{
    const uint32_t ranks = comm_size();
    struct rank_work mine = j->work, *all = calloc(ranks, sizeof *all);
    mine.bytes = comm_counted();
    take_away(&mine.bytes, &j->work.bytes);
    mine.whole = !j->found;
    mine.expected = job_exchanged(j);
    if (all)
        all[comm_rank()] = mine;
    if ((!all && !err_nomem(e, "what ranks did", ranks * sizeof *all)) ||
        !comm_gather(COMM_SETTINGS, all, ranks, 1, sizeof *all, e)) {
        free(all);
        return false;
    }
    j->out->ranks = all;
    j->out->n_ranks = ranks;
    return true;
}
