/* Several processes that work through the units of one folder: on other cards of this machine, on other machines that share the folder.
 *
 * Each has a file process-NAME in the folder with a number that grows twice a second while there are others. They watch it by their own
 * clocks, so clocks of machines need not agree: a process whose number has stood still for QUEUE_SECONDS is gone, and one of this machine
 * whose lock is free is gone at once. A unit is taken by creating lease-UNIT, which one process alone can do; it holds that process's
 * NAME, and giving the unit back removes it. The lease of a process that is gone is anybody's.
 *
 * A process may be thought gone that was only halted, or two may take over the same lease at once: then a unit is made twice. So making
 * it again must give the same, its result must be renamed into place, and who has taken a unit looks whether it is made. */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stdbool.h>

#include "host/base/err.h"

/* What the names of its files begin with. */
#define QUEUE_PROCESS "process-"
#define QUEUE_LEASE   "lease-"
/* GSQ_QUEUE_SECONDS, for tests, is another number. */
#define QUEUE_SECONDS 30
/* Time between two looks at what is waited for. */
#define QUEUE_WAIT_MS 50

struct queue;
/* This process is one of those in the folder, which is there. ERR_ENV where nothing can be written in it. */
bool queue_open(struct queue **out, const char *dir, struct err *e);
/* Gives back all that it has, and removes what processes that are gone have left. */
void queue_close(struct queue **q);
/* The latter alone, by one that is not of those in the folder. */
void queue_sweep(const char *dir);
/* Processes at work, this one too. q NULL: 1. */
unsigned queue_processes(const struct queue *q);
/* Seconds until a process that no longer says anything is gone. */
unsigned queue_patience(const struct queue *q);

enum queue_turn {
    QUEUE_MINE,  /* also where this process had it before */
    QUEUE_BUSY,  /* another process has it */
    QUEUE_FAILED /* the folder cannot be written, or is gone (*e, ERR_ENV) */
};
/* Any thread's. unit: a file name's characters. q NULL: QUEUE_MINE. */
enum queue_turn queue_take(struct queue *q, const char *unit, struct err *e);
void queue_give_back(struct queue *q, const char *unit);

#endif
