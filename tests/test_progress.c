/* Progress: the text of the bar, what is counted in place of work, and the last event told again while
 * nothing new comes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "app/progress_term.h"
#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/kernels.h"
#include "host/gpu/progress.h"
#include "tests/device.h"

/* ---- the bar ---- */

static const struct gsq_progress training = {.phase = "train",
                                             .detail = "block 3/32 attention",
                                             .loss = 0.01234,
                                             .unit = "steps",
                                             .done = 0.4321,
                                             .eta_seconds = 245,
                                             .elapsed_seconds = 80};

static void assert_bar(const struct gsq_progress *ev, double speed, unsigned columns, const char *want)
{
    char text[256];
    progress_bar_text(text, sizeof text, ev, speed, columns);
    assert_string_equal(text, want);
    assert_true(strlen(text) < columns);
}

static void test_bar(void **state)
{
    (void)state;
    assert_bar(&training, 3.14159, 100,
               "train block 3/32 attention  [========>          ]  43%  loss 0.01234  3.14 steps/s  1:20, "
               "4:05 left");
    /* What is told shrinks before the bar does. */
    assert_bar(&training, 3.14159, 80,
               "train block 3/32 attention  [=====>       ]  43%  loss 0.01234  1:20, 4:05 left");
    assert_bar(&training, NAN, 66, "train block 3/32 attention  [=====>       ]  43%  1:20, 4:05 left");
    assert_bar(&training, 1, 56, "train block 3/32 attention  43%  1:20, 4:05 left");
    assert_bar(&training, 1, 30, "train block 3/32 attention  4");
}

static void test_bar_of_little(void **state)
{
    (void)state;
    struct gsq_progress ev = {.phase = "measure", .loss = NAN, .eta_seconds = NAN, .elapsed_seconds = 2.4};
    assert_bar(&ev, NAN, 40, "measure  [>                 ]   0%  2 s");
    ev.elapsed_seconds = NAN;
    assert_bar(&ev, NAN, 36, "measure  [>                  ]   0%");
    /* Not done before it is. */
    ev = training;
    ev.done = 0.9999;
    ev.eta_seconds = 0.2;
    assert_bar(&ev, 1, 66, "train block 3/32 attention  [=============>]  99%  1:20, 1 s left");
}

/* ---- between events ---- */

struct heard {
    int n;
    struct progress_event last;
    char phase[32], detail[64];
    bool stop;
};

static bool on_progress(void *ctx, const struct progress_event *ev)
{
    struct heard *h = ctx;
    h->n++;
    h->last = *ev;
    snprintf(h->phase, sizeof h->phase, "%s", ev->phase);
    snprintf(h->detail, sizeof h->detail, "%s", ev->detail ? ev->detail : "");
    return !h->stop;
}

static bool own_poll(void *ctx)
{
    ++*(int *)ctx;
    return true;
}

/* What a run would record, as counted without recording it, is what it records. */
static void test_counting(void **state)
{
    (void)state;
    if (!(gpu_info(gpu)->timestamp_ns > 0))
        skip();
    struct gpu_profile real = {0}, counted = {0};
    struct gpu_arena *nowhere = NULL;
    struct gpu_count count_all = {.limit = UINT64_MAX};
    struct err e = {0};
    OK(gpu_arena_create_counting(&nowhere, gpu, &count_all, &e), e);
    uint64_t held = gpu_memory_used(gpu);
    double products = gpu_cmd_products(cmd);
    for (int count = 0; count < 2; count++) {
        struct gpu_arena *from = count ? nowhere : arena;
        struct gpu_view a, b, c;
        gpu_cmd_profile_clear(cmd);
        if (count)
            gpu_cmd_count(cmd, GPU_COUNT_WORK);
        else
            gpu_cmd_profile_enable(cmd, true);
        OK(gpu_alloc(from, 300 * 64 * 4, &a, &e), e);
        OK(gpu_alloc(from, 200 * 64 * 4, &b, &e), e);
        OK(gpu_alloc(from, 300 * 200 * 4, &c, &e), e);
        gpu_fill(cmd, a, 0);
        gpu_fill(cmd, b, 0);
        gpu_gemm(cmd, &(struct gpu_product){
                          .a = {a, 64}, .b = {b, 64}, .c = {c, 200}, .m = 300, .n = 200, .k = 64, .alpha = 1});
        float x = 1;
        OK(gpu_download(cmd, c, &x, sizeof x, &e), e);
        assert_true(x == 0);
        *(count ? &counted : &real) = gpu_cmd_profile(cmd, KERNEL_ID_gemm);
        gpu_cmd_count(cmd, GPU_COUNT_NOTHING);
        gpu_cmd_profile_enable(cmd, false);
        gpu_arena_reset(from, 0);
    }
    assert_true(real.work == 2.0 * 300 * 200 * 64 && real.seconds > 0);
    assert_true(counted.work == real.work && counted.seconds == 0);
    assert_true(gpu_cmd_products(cmd) - products == real.work); /* the device did it once */
    /* Far more than the device has. */
    struct gpu_view v;
    OK(gpu_alloc(nowhere, UINT64_C(1) << 38, &v, &e), e);
    assert_true(v.size == UINT64_C(1) << 38 && held <= gpu_memory_used(gpu));
    gpu_arena_destroy(&nowhere);
    gpu_arena_trim(arena);
}

static void test_ticks(void **state)
{
    (void)state;
    struct heard h = {0};
    struct progress to = {on_progress, &h};
    struct eta eta;
    struct progress_watch w;
    int polls = 0;
    bool (*poll)(void *);
    void *ctx;
    gpu_cmd_set_poll(cmd, own_poll, &polls);
    eta_start(&eta, os_now_ns(), 0);
    eta_expect(&eta, 0, 100);
    eta_begin(&eta, 0, 100, os_now_ns());
    progress_watch_begin(&w, &to, &eta, cmd);
    gpu_cmd_get_poll(cmd, &poll, &ctx);
    assert_true(poll(ctx)); /* nothing to tell yet */
    assert_int_equal(h.n, 0);
    {
        char detail[] = "block 1/2";
        const struct progress_event ev = {.phase = "train", .detail = detail, .loss = NAN, .unit = "steps", .count = 3};
        struct err e = {0};
        OK(progress_report(&w, &ev, &e), e);
        memset(detail, 'x', sizeof detail - 1);
    }
    double left = h.last.eta_seconds;
    assert_true(left > 99 && left <= 100);
    assert_true(poll(ctx)); /* too soon */
    assert_int_equal(h.n, 1);
    os_sleep_ms(1050);
    assert_true(poll(ctx));
    assert_int_equal(h.n, 2);
    assert_string_equal(h.phase, "train");
    assert_string_equal(h.detail, "block 1/2"); /* a copy */
    assert_true(h.last.count == 3 && left - h.last.eta_seconds > 1 && left - h.last.eta_seconds < 50);
    assert_true(h.last.elapsed_seconds > 1);
    h.stop = true;
    assert_true(poll(ctx));
    os_sleep_ms(1050);
    assert_false(poll(ctx));
    assert_int_equal(polls, 4); /* the device's own is asked, too, unless it stops here */
    progress_watch_end(&w);
    gpu_cmd_get_poll(cmd, &poll, &ctx);
    assert_true(poll == own_poll && ctx == &polls);
    gpu_cmd_set_poll(cmd, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar),
        cmocka_unit_test(test_bar_of_little),
        cmocka_unit_test(test_counting),
        cmocka_unit_test(test_ticks),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
