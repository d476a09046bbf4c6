/* What the operating system gives: mapped files, durable writes, directories, clock, terminal.
 * Paths are UTF-8 on every system; '/' separates (Windows takes it too). os_posix.c, os_win32.c. */
#ifndef BASE_OS_H
#define BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "host/base/err.h"

/* Which file it is, whatever it is called: device and number. */
struct os_file_id {
    uint64_t device, number;
};
/* Of what the path leads to, through links. False: there is nothing. */
bool os_file_id(const char *path, struct os_file_id *out);
/* Whether this process has that file mapped (os_map_file). */
bool os_is_mapped(const struct os_file_id *id);

/* A file mapped read-only. data is NULL for an empty file. */
struct os_map {
    const uint8_t *data;
    uint64_t size;
    void *handle;
};
/* Only regular files: a pipe or device under a file's name is refused, not waited for. */
bool os_map_file(struct os_map *out, const char *path, struct err *e);
/* The same for a file from a model hub: a Git LFS pointer in its place is refused. */
bool os_map_model(struct os_map *out, const char *path, struct err *e);
void os_unmap(struct os_map *m);
/* Tells the system that this range will not be read again soon, so that a walk over a file larger than
 * memory does not keep it resident. A hint; never fails. */
void os_map_drop(const struct os_map *m, uint64_t offset, uint64_t size);
/* Has the system read a range that will be wanted, without waiting for it. */
void os_map_fetch(const struct os_map *m, uint64_t offset, uint64_t size);

/* A scratch file of `size` bytes mapped read-write, gone when unmapped or when the process dies. */
bool os_map_scratch(struct os_map *out, const char *dir, uint64_t size, struct err *e);

/* fopen() with a UTF-8 path. NULL on failure, errno set. */
FILE *os_fopen(const char *path, const char *mode);
/* A file in which everything written is gone. NULL on failure, errno set. */
FILE *os_open_null(void);
/* Flushes to the disk (fsync). */
bool os_sync_file(FILE *f, const char *path, struct err *e);
/* Renames over `to`, atomically, and makes the rename durable where the system can. */
bool os_rename(const char *from, const char *to, struct err *e);
/* A file held so that no other process takes it for one that was left behind. Zero-initialise. */
struct os_guard {
    intptr_t held;
};
/* A new file for writing. Anything there already, a link too, is EEXIST (NULL, errno set). The guard lasts
 * until os_unguard, over renames, or the end of the process. */
FILE *os_create_new(const char *path, struct os_guard *g);
void os_unguard(struct os_guard *g);
/* The position of an open file, of any size; false: errno says why. */
bool os_seek(FILE *f, uint64_t at);
/* Removes a regular file that os_create_new made in a process that is gone; one that is in use stays. */
void os_remove_stale(const char *path);

/* A file that appears whole or not at all: written under another name in the same folder, flushed and renamed
 * by os_out_close, which removes it when that fails. os_out_open leaves nothing behind when it fails, and
 * removes what processes that are gone have left of the same file; os_out_abort takes a zero-initialised or
 * closed one too. */
struct os_out {
    FILE *file;
    char *path, *tmp; /* tmp NULL: of a rank that does not write (comm.h) */
    struct os_guard guard;
};
bool os_out_open(struct os_out *o, const char *path, struct err *e);
bool os_out_put(struct os_out *o, const void *data, size_t size, struct err *e);
/* Where the next bytes go, counted from the file's beginning; past its end too. */
bool os_out_seek(struct os_out *o, uint64_t at, struct err *e);
bool os_out_close(struct os_out *o, struct err *e);
void os_out_abort(struct os_out *o);
/* What os_out_open refuses (ERR_USER): links, folders, devices, pipes, and files that this process reads now.
 * For those who must know before hours of work; out_path.h has more of these. */
bool os_out_check(const char *path, struct err *e);
/* False, e saying that the file could not be written, by errno, and what to do. */
bool os_write_failed(const char *path, struct err *e);
/* Removes what processes that are gone have left of files in that folder. */
void os_out_clean(const char *dir);
/* The same at once. */
bool os_write_file(const char *path, const void *data, size_t size, struct err *e);

/* A lock between processes on a file, which is created if need be and holds the number of the process and
 * the name of its machine; gone with the process, however that ends. Zero-initialise. */
struct os_lock {
    intptr_t held;
    char *path;
};
enum os_locked { OS_LOCKED, OS_LOCK_BUSY, OS_LOCK_FAILED };
/* OS_LOCK_BUSY: another process has it, `holder` is what it wrote ("1234 HOST"), perhaps nothing.
 * OS_LOCK_FAILED: the file cannot be created or is no regular file (*e says so). Where the file system knows
 * no locks, OS_LOCKED. */
enum os_locked os_lock(struct os_lock *l, const char *path, char holder[128], struct err *e);
/* Removes the file. Nothing is done to one that is not locked. */
void os_unlock(struct os_lock *l);
uint64_t os_process_id(void);
/* What this machine is called; "" where the system does not tell. */
void os_host_name(char *out, size_t cap);

/* Whole file into malloc'ed memory, NUL-terminated beyond *size. Refuses more than max bytes. */
bool os_read_file(const char *path, uint64_t max, char **data, size_t *size, struct err *e);

enum os_kind { OS_ABSENT, OS_FILE, OS_DIR, OS_OTHER };
enum os_kind os_stat(const char *path, uint64_t *size_or_null);
/* Whether the path itself is a symbolic link (or a junction). */
bool os_is_link(const char *path);
/* Where the path leads to, absolute, without links. False: nowhere, or it does not fit. */
bool os_real_path(const char *path, char *out, size_t cap);
/* mkdir -p. */
bool os_mkdirs(const char *path, struct err *e);
/* Removes a file; true if it is gone afterwards. */
bool os_remove(const char *path);
/* Removes a folder if it is empty. */
bool os_remove_dir(const char *path);
/* Removes a folder and everything in it. */
bool os_remove_tree(const char *path);
/* Calls fn for each name in a folder (no "." and ".."), in sorted order, so that runs repeat. */
bool os_list(const char *path, bool (*fn)(void *ctx, const char *name, struct err *e), void *ctx, struct err *e);
/* Bytes a normal user may still write below this folder (or its nearest existing parent). False: unknown, and *bytes is
 * 0. Which file system that is into *device, as os_file_id has it; 0 if unknown. */
bool os_disk_free(const char *path, uint64_t *bytes, uint64_t *device_or_null);

/* Monotonic nanoseconds. */
uint64_t os_now_ns(void);
void os_sleep_ms(unsigned ms);
/* Peak resident memory of this process, in bytes: all of it, and (0 where the system cannot tell) its part
 * that is not backed by mapped files. */
uint64_t os_peak_rss(void);
uint64_t os_peak_anon(void);
/* Total and available physical memory, in bytes; 0 if unknown. Of several ranks on a machine each may take an equal share:
 * comm_memory_available (comm.h). */
uint64_t os_memory_total(void);
uint64_t os_memory_available(void);
unsigned os_cpu_count(void);
/* Windows puts a machine nobody types at to sleep, whatever it computes: not while this process lives. Nothing elsewhere. */
void os_keep_awake(void);

/* A thread, a lock, and a condition to wait for under a lock. Work on a list of pieces: pool.h. */
struct os_thread;
struct os_mutex;
struct os_cond;
/* ERR_ENV where the system has no thread left to give. */
bool os_thread_start(struct os_thread **out, void (*fn)(void *ctx), void *ctx, struct err *e);
/* Waits for its end, and frees it. */
void os_thread_join(struct os_thread **t);
bool os_mutex_create(struct os_mutex **out, struct err *e);
void os_mutex_destroy(struct os_mutex **m);
void os_mutex_lock(struct os_mutex *m);
void os_mutex_unlock(struct os_mutex *m);
bool os_cond_create(struct os_cond **out, struct err *e);
void os_cond_destroy(struct os_cond **c);
/* Wakes all who wait. */
void os_cond_signal(struct os_cond *c);
/* m is locked, let go while waiting, and locked again. Returns after a signal, after ms milliseconds, or
 * without a reason: look again at what is waited for. */
void os_cond_wait(struct os_cond *c, struct os_mutex *m, unsigned ms);

bool os_is_terminal(FILE *f);
/* Columns of the terminal on stderr, or 80. */
unsigned os_terminal_columns(void);

/* Environment; setenv only fills a gap unless overwrite. */
const char *os_getenv(const char *name);
void os_setenv(const char *name, const char *value, bool overwrite);

/* Folder for caches of this user ("~/.cache/gsq", "%LOCALAPPDATA%\\gsq"); false if there is none. */
bool os_cache_dir(char *out, size_t cap);

/* Opens the null device on those of the standard streams that were closed when the program began. Without,
 * the next file that is opened takes a closed stream's place, and what is printed goes into it. First of all
 * in main. */
void os_open_std(void);
/* What is printed from now on, results and messages, goes nowhere. */
void os_silence(void);

/* The first Ctrl-C, SIGTERM or SIGHUP (unless nohup took it away; on Windows also the closing of the console)
 * sets a flag that os_stop_requested reads. The program then has OS_STOP_MS to come to an end by itself;
 * after that it ends where it is, which loses no more than a kill does. The second signal kills.
 * Also: memory of a mapped file that is no longer there ends the program with a sentence that names the file
 * (exit 3), and a file grown past a limit is a failed write. A closed pipe keeps the meaning that it had. */
#define OS_STOP_MS 800
void os_catch_stop(void);
bool os_stop_requested(void);
/* Its number, as shells count it (2, 15, 1); 0: none came. */
int os_stop_signal(void);
/* What the program exits with: 0, 2, 3, 4, or 128 and the number of the signal that stopped it. */
int os_exit_code(const struct err *e);
/* Raises the flag from inside the program, as Ctrl-C does, without the deadline. */
void os_request_stop(void);
/* Ends the process here, as kill -9 does from outside. */
void os_kill_self(void);
/* Lowers it, for a process that goes on after a stop. */
void os_clear_stop(void);
/* The deadline is off: the program is about to end by itself. */
void os_stop_heard(void);
/* What is said when the program ends at the deadline: a line for people, which stays the caller's, and with
 * json the error event on stdout too. */
void os_last_words(const char *stopped, bool json);

/* The file that this code was loaded from, absolute: the program, or the shared library that gsq is in. False where the
 * system does not tell, or the path does not fit. */
bool os_self_path(char *out, size_t cap);

/* argv in UTF-8 (on Windows from the wide command line). May return the argv given. */
char **os_utf8_argv(int *argc, char **argv);

/* "a/b.gguf": "a" into dir, and "b.gguf"; of a bare name the folder is ".". */
const char *os_path_split(const char *path, char *dir, size_t cap);
/* The part of a path after its last separator. */
const char *os_base_name(const char *path);
/* dir + "/" + name into out; false (ERR_USER) if it does not fit. */
bool os_path_join(char *out, size_t cap, const char *dir, const char *name, struct err *e);

#endif
