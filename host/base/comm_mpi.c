#if defined(GSQ_MPI)
/* By MPI, on host memory. MPI 3.1 is enough: counts are ints there, so what is large goes in pieces. */
#include <limits.h>
#include <mpi.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/num.h"

/* Bytes of one message at most. */
#define MESSAGE_BYTES (UINT64_C(1) << 28)

static struct {
    int rank, size, local_rank, local_size;
    bool started, over; /* over: one rank has failed, or the engine */
} self = {.size = 1, .local_size = 1};

unsigned comm_rank(void)
{
    return (unsigned)self.rank;
}

unsigned comm_size(void)
{
    return (unsigned)self.size;
}

unsigned comm_local_rank(void)
{
    return (unsigned)self.local_rank;
}

unsigned comm_local_size(void)
{
    return (unsigned)self.local_size;
}

static bool failed(const char *what, int code, struct err *e)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    self.over = true;
    MPI_Error_string(code, text, &n);
    err_set(e, ERR_ENV, "MPI failed at %s: %s", what, text);
    return err_hint(e, "a rank or its machine is gone: repeat the command, which goes on from the work folder");
}

bool comm_start(int *argc, char ***argv, struct err *e)
{
    int given, code = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &given);
    if (code != MPI_SUCCESS)
        return err_set(e, ERR_ENV, "MPI does not start");
    self.started = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &self.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &self.size);
    MPI_Comm local;
    code = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, self.rank, MPI_INFO_NULL, &local);
    if (code != MPI_SUCCESS)
        return failed("the ranks of a machine", code, e);
    MPI_Comm_rank(local, &self.local_rank);
    MPI_Comm_size(local, &self.local_size);
    MPI_Comm_free(&local);
    return comm_check_launch("this gsq is built with another MPI", e);
}

void comm_end(void)
{
    if (self.started)
        MPI_Finalize();
    self.started = false;
}

bool comm_agree(bool ok, struct err *e)
{
    if (self.size == 1 || self.over)
        return ok;
    struct err none = {0}, *of = e ? e : &none;
    int mine = ok ? INT_MAX : self.rank, lowest = INT_MAX;
    int code = MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (code == MPI_SUCCESS && lowest == INT_MAX)
        return true;
    self.over = true;
    if (code == MPI_SUCCESS) {
        struct err told = *of;
        code = MPI_Bcast(&told, (int)sizeof told, MPI_BYTE, lowest, MPI_COMM_WORLD);
        if (code == MPI_SUCCESS) {
            *of = told;
            of->told = lowest != self.rank;
        }
    }
    if (code != MPI_SUCCESS && ok)
        return failed("an agreement", code, e);
    return false;
}

/* Without an agreement. */
static bool spread(enum comm_kind kind, uint8_t *data, uint64_t bytes, unsigned root, struct err *e)
{
    for (uint64_t at = 0, n; at < bytes; at += n) {
        n = min_u64(bytes - at, MESSAGE_BYTES);
        int code = MPI_Bcast(data + at, (int)n, MPI_BYTE, (int)root, MPI_COMM_WORLD);
        if (code != MPI_SUCCESS)
            return failed("a broadcast", code, e);
        const bool mine = root == comm_rank();
        comm_count(kind, mine ? n * (comm_size() - 1) : 0, mine ? 0 : n);
    }
    return true;
}

/* Nothing is sent after a failure, which all have heard of. */
static bool ready(struct err *e)
{
    if (self.over)
        return err_set(e, ERR_BUG, "ranks are to exchange data after one of them has failed");
    return comm_agree(true, e);
}

bool comm_broadcast(enum comm_kind kind, void *data, uint64_t bytes, unsigned root, struct err *e)
{
    return self.size == 1 || (ready(e) && spread(kind, data, bytes, root, e));
}

bool comm_gather(enum comm_kind kind, void *data, uint32_t n, uint32_t unit, uint64_t bytes, struct err *e)
{
    if (self.size > 1 && !ready(e))
        return false;
    for (unsigned r = 0; self.size > 1 && r < comm_size(); r++) {
        const struct comm_part part = comm_part(n, unit, r);
        if (!spread(kind, (uint8_t *)data + part.first * bytes, (part.end - part.first) * bytes, r, e))
            return false;
    }
    return true;
}

/* To one rank, and from another, at once. */
static bool swap(enum comm_kind kind, const uint8_t *to_send, uint64_t sends, unsigned to, uint8_t *to_fill,
                 uint64_t fills, unsigned from, struct err *e)
{
    for (uint64_t at = 0; at < sends || at < fills; at += MESSAGE_BYTES) {
        const uint64_t out = at < sends ? min_u64(sends - at, MESSAGE_BYTES) : 0,
                       in = at < fills ? min_u64(fills - at, MESSAGE_BYTES) : 0;
        int code = MPI_Sendrecv(to_send + (out ? at : 0), (int)out, MPI_BYTE, out ? (int)to : MPI_PROC_NULL, 0,
                                to_fill + (in ? at : 0), (int)in, MPI_BYTE, in ? (int)from : MPI_PROC_NULL, 0,
                                MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS)
            return failed("an exchange", code, e);
        comm_count(kind, out, in);
    }
    return true;
}

bool comm_scatter(enum comm_kind kind, const void *data, uint32_t n, uint32_t unit, uint64_t bytes, unsigned have,
                  void *mine, struct err *e)
{
    const unsigned ranks = comm_size(), me = comm_rank();
    const struct comm_part own = comm_part(n, unit, me);
    const uint64_t fills = (own.end - own.first) * bytes;
    if (ranks > 1 && !ready(e))
        return false;
    if (me < have)
        memcpy((uint8_t *)mine + me * fills, (const uint8_t *)data + own.first * bytes, (size_t)fills);
    for (unsigned step = 1; step < ranks; step++) {
        const unsigned to = (me + step) % ranks, from = (me + ranks - step) % ranks;
        const struct comm_part theirs = comm_part(n, unit, to);
        if (!swap(kind, (const uint8_t *)data + theirs.first * bytes,
                  me < have ? (theirs.end - theirs.first) * bytes : 0, to, (uint8_t *)mine + from * fills,
                  from < have ? fills : 0, from, e))
            return false;
    }
    return true;
}
#endif
