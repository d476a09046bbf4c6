/* host/base/pool.h: every piece once, whatever the number of threads; the error of the first that fails;
 * progress and stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/base/os.h"
#include "host/base/pool.h"
#include "host/base/task.h"

enum { PIECES = 500, MOST_THREADS = 64 };

struct list {
    unsigned done[PIECES];            /* by piece: how often; a piece is one thread's alone */
    uint64_t by_thread[MOST_THREADS]; /* by thread: how many */
    uint64_t seen;                    /* by progress */
    unsigned calls;
    uint64_t fail_from, stop_at; /* UINT64_MAX: never */
    bool slow;
};

static bool piece(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    struct list *l = ctx;
    l->done[i]++;
    l->by_thread[thread]++;
    if (l->slow)
        os_sleep_ms(1);
    return i < l->fail_from || err_set(e, ERR_USER, "piece %u", (unsigned)i);
}

static bool progress(void *ctx, uint64_t done)
{
    struct list *l = ctx;
    assert_true(done >= l->seen && done <= PIECES);
    l->seen = done;
    l->calls++;
    return done < l->stop_at;
}

static bool run(struct list *l, unsigned threads, struct err *e)
{
    const struct pool_work w = {.n = PIECES, .piece = piece, .progress = progress, .ctx = l};
    memset(e, 0, sizeof *e);
    pool_set_threads(threads);
    bool ok = pool_run(&w, e);
    pool_set_threads(0);
    return ok;
}

static const unsigned thread_counts[] = {1, 2, 5, MOST_THREADS};
enum { COUNTS = sizeof thread_counts / sizeof thread_counts[0] };

static void test_all_once(void **state)
{
    (void)state;
    struct err e = {0};
    for (int k = 0; k < COUNTS; k++) {
        struct list l = {.fail_from = UINT64_MAX, .stop_at = UINT64_MAX};
        uint64_t sum = 0;
        assert_true(run(&l, thread_counts[k], &e));
        for (int i = 0; i < PIECES; i++)
            assert_int_equal(l.done[i], 1);
        for (unsigned t = 0; t < MOST_THREADS; t++) {
            assert_true(t < thread_counts[k] || l.by_thread[t] == 0);
            sum += l.by_thread[t];
        }
        assert_int_equal(sum, PIECES);
        assert_true(l.calls > 0);
    }
    /* Others take their share where pieces take their time. */
    struct list l = {.fail_from = UINT64_MAX, .stop_at = UINT64_MAX, .slow = true};
    assert_true(run(&l, 5, &e));
    for (unsigned t = 0; t < 5; t++)
        assert_true(l.by_thread[t] > 0);
}

static void test_default(void **state)
{
    (void)state;
    assert_int_equal(pool_threads(), os_cpu_count());
    pool_set_threads(3);
    assert_int_equal(pool_threads(), 3);
    pool_set_threads(0);
    assert_true(pool_run(&(struct pool_work){.piece = piece}, NULL)); /* nothing to do */
}

static void test_first_failure(void **state)
{
    (void)state;
    struct err e;
    for (int round = 0; round < 20; round++)
        for (int k = 0; k < COUNTS; k++) {
            struct list l = {.fail_from = 137, .stop_at = UINT64_MAX};
            assert_false(run(&l, thread_counts[k], &e));
            assert_string_equal(e.msg, "piece 137");
            unsigned begun = 0;
            for (int i = 0; i < PIECES; i++) {
                assert_true(l.done[i] == 1 || (i > 137 && l.done[i] == 0));
                begun += l.done[i];
            }
            assert_true(begun < 137u + 2 * thread_counts[k]); /* no more is begun */
        }
}

static void test_stop(void **state)
{
    (void)state;
    struct err e;
    for (int k = 0; k < COUNTS; k++) {
        struct list l = {.fail_from = UINT64_MAX, .stop_at = 40, .slow = true};
        assert_false(run(&l, thread_counts[k], &e));
        assert_int_equal(e.kind, ERR_STOPPED);
        if (thread_counts[k] <= 2) /* many do them all before the calling thread is asked */
            assert_true(l.done[PIECES - 1] == 0);
    }
}

/* ---- one piece beside the calling thread ---- */

struct beside {
    atomic_bool go;
    unsigned times;
    bool fails;
};

static bool wait_for_go(void *ctx, struct err *e)
{
    struct beside *b = ctx;
    while (!atomic_load(&b->go))
        os_sleep_ms(1);
    b->times++;
    return !b->fails || err_set(e, ERR_ENV, "the disk is full");
}

static void test_task(void **state)
{
    (void)state;
    struct task t = {0};
    struct err e = {0};
    assert_false(task_begun(&t) || task_ended(&t));
    assert_true(task_wait(&t, &e));
    for (unsigned i = 0; i < 4; i++) {
        struct beside b = {.fails = i % 2};
        task_begin(&t, wait_for_go, &b);
        assert_true(task_begun(&t));
        assert_false(task_ended(&t)); /* the calling thread came this far: it goes on meanwhile */
        atomic_store(&b.go, true);
        while (!task_ended(&t))
            os_sleep_ms(1);
        assert_true(task_begun(&t));
        assert_int_equal(task_wait(&t, &e), !b.fails);
        assert_int_equal(b.times, 1);
        assert_false(task_begun(&t) || task_ended(&t));
        assert_true(!b.fails || (e.kind == ERR_ENV && strstr(e.msg, "the disk is full")));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_once),      cmocka_unit_test(test_task), cmocka_unit_test(test_default),
        cmocka_unit_test(test_first_failure), cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
