/* Several processes at one run ("ranks"): by MPI where gsq is built with it (-DGSQ_MPI=ON, comm_mpi.c), else this one alone (comm_one.c).
 *
 * What is shared out are outputs, never the terms of a sum, so that a result has the same bits whatever the number of ranks: windows of a
 * forward pass, rows of a linear, experts. Each rank makes some and has those of all afterwards (comm_gather).
 *
 * All ranks make the same calls in the same order, and each call is an agreement first: what failed on one rank fails on all, with that
 * rank's message, before anybody waits for something that will not come. So a rank that cannot go on calls comm_agree(false, e), at the
 * latest when it ends, and none is left waiting; better there than in depth, where its message does not name yet what it was about. After
 * the first failure nothing is said between ranks any more.
 *
 * Data is in host memory: no collective engine takes buffers of all vendors' devices. */
#ifndef BASE_COMM_H
#define BASE_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "host/base/err.h"

/* Once, before anything else reads the command line (an engine may take arguments of its own from it). */
bool comm_start(int *argc, char ***argv, struct err *e);
/* For the implementations: whether a launcher has started as many processes as there are ranks; if not, `built` says what this one is. */
bool comm_check_launch(const char *built, struct err *e);
/* Once, last; after comm_agree. */
void comm_end(void);

unsigned comm_rank(void);
unsigned comm_size(void);
/* The same among the ranks of this machine. */
unsigned comm_local_rank(void);
unsigned comm_local_size(void);
/* Rank 0 talks, and writes the results. */
static inline bool comm_leads(void)
{
    return comm_rank() == 0;
}

/* What goes between ranks, by what it is. */
enum comm_kind {
    COMM_SETTINGS,  /* what all take over from rank 0 */
    COMM_SCORES,    /* of evaluated windows */
    COMM_STATES,    /* hidden states */
    COMM_HESSIANS,  /* rows of tiles */
    COMM_GRADIENTS, /* of a chunk, to the ranks that have the rows */
    COMM_WEIGHTS,   /* soft and hard ones, of those rows */
    COMM_LOSSES,    /* of chunks; of a linear's rows */
    COMM_CODES,     /* codes and scales, and what is reported of them */
    COMM_KINDS
};
/* "hidden states" ... */
extern const char *const comm_kind_names[COMM_KINDS];
/* Bytes of data that a rank has sent and received since it started, whatever way the engine takes: what goes to three others is sent
 * three times. Agreements, a few bytes each, are not in it. */
struct comm_bytes {
    uint64_t sent[COMM_KINDS], received[COMM_KINDS];
};
struct comm_bytes comm_counted(void);
/* For the implementations: that much was exchanged. */
void comm_count(enum comm_kind kind, uint64_t sent, uint64_t received);

/* Whether all ranks come with true. False: e has the message and the kind of the lowest rank that failed. */
bool comm_agree(bool ok, struct err *e);
/* data of rank `root` to all. */
bool comm_broadcast(enum comm_kind kind, void *data, uint64_t bytes, unsigned root, struct err *e);
/* The part of n things that a rank makes: first .. end - 1, in the order of ranks; whole units of so many things, but the last. */
struct comm_part {
    uint32_t first, end;
};
struct comm_part comm_part(uint32_t n, uint32_t unit, unsigned rank);
/* The same if there were so many ranks. */
struct comm_part comm_part_of(uint32_t n, uint32_t unit, unsigned rank, unsigned ranks);
/* data is n things of `bytes` each, of which each rank has filled in its part. Then all have all. */
bool comm_gather(enum comm_kind kind, void *data, uint32_t n, uint32_t unit, uint64_t bytes, struct err *e);
/* Each of the ranks 0 .. have - 1 has data of that shape: mine is this rank's part of each, one behind the other. */
bool comm_scatter(enum comm_kind kind, const void *data, uint32_t n, uint32_t unit, uint64_t bytes, unsigned have,
                  void *mine, struct err *e);
/* What one of so many ranks will have counted of calls that are to come, told one after the other; times: as often. Pure arithmetic, so
 * that a plan can tell it for ranks that are not there. */
struct comm_expected {
    unsigned rank, ranks;
    struct comm_bytes bytes;
    uint64_t waits
        [COMM_KINDS]; /* bytes one after the other until all ranks have theirs: what the link's speed is waited for */
};
void comm_expect_broadcast(struct comm_expected *x, enum comm_kind kind, uint64_t bytes, unsigned root, uint64_t times);
void comm_expect_gather(struct comm_expected *x, enum comm_kind kind, uint32_t n, uint32_t unit, uint64_t bytes,
                        uint64_t times);
void comm_expect_scatter(struct comm_expected *x, enum comm_kind kind, uint32_t n, uint32_t unit, uint64_t bytes,
                         unsigned have, uint64_t times);
/* os_memory_available, this rank's share of it. */
uint64_t comm_memory_available(void);

#endif
