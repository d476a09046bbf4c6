/* What os_*.c share among themselves; nobody else includes it. */
#ifndef BASE_OS_PARTS_H
#define BASE_OS_PARTS_H

#include "host/base/os.h"

/* Memory that is a file's. A range in use has `start` set; ranges are reused and never freed, so that a
 * fault handler may walk the list at any moment. */
struct os_range {
    struct os_range *next;
    volatile uintptr_t start;
    volatile uint64_t size;
    struct os_file_id id;
    char *path;
    char *json; /* the path as a JSON string, quotes included: a handler cannot make one */
};
/* A range that cannot be remembered (out of memory) is only missing from messages. */
void os_range_add(const void *start, uint64_t size, const struct os_file_id *id, const char *path);
void os_range_remove(const void *start);
const struct os_range *os_range_at(uintptr_t address);

/* Each system's own: one thread at a time in the list. */
void os_ranges_lock(void);
void os_ranges_unlock(void);

/* What a container may use (Linux control groups, version 1 and 2): the tightest limit of this process' group and those
 * above it, UINT64_MAX where there is none; and what is used below that limit, without files that the system can drop.
 * self: /proc/self/cgroup; root: where the groups are mounted (/sys/fs/cgroup). */
void os_cgroup_memory(const char *self, const char *root, uint64_t *limit, uint64_t *used);

/* The sentences of a process that ends in a handler, in pieces around the path. */
#define OS_FAULT_BEFORE "error: "
#define OS_FAULT_AFTER  " was cut short or cannot be read any more, while it was in use"
#define OS_FAULT_HINT                                                                                                  \
    "another program changed it, or its disk or network share failed; finished blocks are kept, so restore "           \
    "the file and repeat the command"
#define OS_FAULT_EXIT 3

/* What os_last_words was told. */
extern const char *volatile os_words_stopped;
extern volatile bool os_words_json;

#endif
