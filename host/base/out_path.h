/* Where results may go: no input is written over, nothing of somebody else's without being told to, and one
 * process at a time writes there. All that os_out.c refuses when a file is opened is asked here before the work.
 * Errors are ERR_USER with a remedy, where nothing else is said. */
#ifndef BASE_OUT_PATH_H
#define BASE_OUT_PATH_H

#include "host/base/os.h"

/* Takes slashes and "/." off the end, in place: "out/" and "out" are one folder, with one work folder beside it. */
void out_trim(char *path);

/* Whether both are one file, whatever they are called; of files that are not there yet, one name in one
 * folder. */
bool out_same(const char *a, const char *b);

/* Refuses a path that is one of these inputs under any name: by device and number, so that links and other
 * spellings count. A folder stands for the files of a model in it and its chat templates (pages, GGUFs and
 * other folders in it are not its), one part of a split GGUF for all parts. NULLs are skipped. `what` names the path in the sentence: "the
 * output", "--report". */
bool out_not_input(const char *what, const char *path, const char *const *inputs, size_t n, struct err *e);

/* Whether a file, or a folder, can be written there: no link, no device or pipe, the right kind; of a file the
 * folder must exist. Creates nothing. */
bool out_file_check(const char *path, struct err *e);
bool out_folder_check(const char *path, struct err *e);

/* Whether that many bytes still fit where `path` will be (true where that is not known). `what` is it in the sentence:
 * "the output", `option` the one that gives another place: "-o". ERR_ENV. */
bool out_fits(const char *what, const char *path, uint64_t bytes, const char *option, struct err *e);

/* Says, before the work begins, that the result will replace a file or a model's folder; silent where there is none.
 * learned: another run's result, which took long to make, so this is a warning. */
void out_tell_replaced(const char *path, bool learned);

/* "... was not written by gsq", and what to do. Always false. */
bool out_foreign(const char *path, struct err *e);

/* One process writes there at a time. ERR_ENV names the process that does; ERR_USER: nothing can be written
 * there. The lock of a file lies beside it, that of a folder in it (the folder is created, and what processes
 * that are gone have left half-written in it is removed). os_unlock lets go. */
bool out_lock_file(struct os_lock *l, const char *path, struct err *e);
bool out_lock_folder(struct os_lock *l, const char *path, struct err *e);
/* The same with a file of any name as the lock; messages speak of `path`. */
bool out_lock_at(struct os_lock *l, const char *lock_path, const char *path, struct err *e);
/* The lock of a folder, left by a process that was killed: what is in there is gsq's. */
#define OUT_LOCK_NAME ".gsq-lock"

#endif
