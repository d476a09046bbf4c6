/* host/base/eta.h on clocks of the test's own: what is told as left against what then passes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/base/eta.h"

enum { LOAD, WORK, EXPORT, KINDS };

/* An operation: kinds one after the other, each in equal pieces, told in equal parts. */
struct script {
    double predicted[KINDS], truth[KINDS];
    unsigned pieces, parts;
};

static uint64_t at(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static double truth_of(const struct script *s)
{
    return s->truth[LOAD] + s->truth[WORK] + s->truth[EXPORT];
}

/* Runs it up to `until`. */
static struct eta run(const struct script *s, double trust, double until)
{
    struct eta t;
    double now = 0;
    eta_start(&t, at(0), trust);
    for (unsigned k = 0; k < KINDS; k++)
        eta_expect(&t, k, s->predicted[k]);
    for (unsigned k = 0; k < KINDS; k++)
        for (unsigned i = 0; i < s->pieces; i++) {
            eta_begin(&t, k, s->predicted[k] / s->pieces, at(now));
            for (unsigned p = 1; p <= s->parts; p++) {
                if (now + s->truth[k] / s->pieces / s->parts > until)
                    return t;
                now += s->truth[k] / s->pieces / s->parts;
                eta_part(&t, (double)p / s->parts, at(now));
            }
            eta_end(&t, at(now));
        }
    return t;
}

/* left / truth at that time. */
static double off(const struct script *s, double trust, double now)
{
    struct eta t = run(s, trust, now);
    return eta_left(&t, at(now)) / (truth_of(s) - now);
}

static void assert_within(double ratio, double factor)
{
    if (!(ratio < factor && ratio > 1 / factor))
        fail_msg("off by %g, %g allowed", ratio, factor);
}

static void test_true_predictions(void **state)
{
    const struct script s = {{10, 100, 20}, {10, 100, 20}, 7, 3};
    (void)state;
    for (double now = 0; now < 129; now += 0.7)
        assert_within(off(&s, 0.7, now), 1.02);
}

/* A prediction that is off by ten in the long kind, and in the first one. */
static void test_wrong_predictions(void **state)
{
    (void)state;
    for (int up = 0; up < 2; up++) {
        double f = up ? 10 : 0.1;
        const struct script work = {{10, 100, 20}, {10, 100 * f, 20}, 7, 10};
        double tenth = 10 + 10 * f, half = 10 + 50 * f;
        assert_within(off(&work, 0.7, tenth), 2);
        assert_within(off(&work, 0.7, half), 1.3);
        const struct script load = {{10, 100, 20}, {10 * f, 100, 20}, 7, 10};
        /* The load says little of the rest. */
        assert_within(off(&load, 1, 10 * f), 1.05);
        assert_within(off(&load, 0.7, 10 * f), 2.1);
        assert_within(off(&load, 0.7, 10 * f + 20), 1.3);
    }
}

/* All predictions are a hundredth of the truth: where only ratios count, the first piece tells all. */
static void test_unknown_speed(void **state)
{
    const struct script s = {{0.1, 1, 0.2}, {10, 100, 20}, 7, 3};
    (void)state;
    assert_within(off(&s, 0, 2), 1.3);
    assert_within(off(&s, 0, 60), 1.05);
    assert_true(off(&s, 1, 2) < 0.1); /* elsewhere it does not */
}

/* An earlier run has done the first half: its time is not counted on. */
static void test_resumed(void **state)
{
    struct eta t;
    (void)state;
    eta_start(&t, at(5), 0.5);
    eta_expect(&t, WORK, 100);
    eta_expect(&t, EXPORT, 10);
    eta_skip(&t, WORK, 50);
    assert_within(eta_left(&t, at(5)) / 60, 1.001);
    assert_within(eta_share(&t, at(5)) / (50 / 110.0), 1.001);
    eta_begin(&t, WORK, 50, at(5));
    eta_part(&t, 0.5, at(5 + 75)); /* three times as slow as predicted */
    assert_within(eta_left(&t, at(80)) / (75 + 10 * sqrt(3)), 1.1);
    eta_end(&t, at(155));
    eta_begin(&t, EXPORT, 10, at(155));
    eta_end(&t, at(165));
    assert_true(eta_left(&t, at(165)) == 0);
    assert_true(eta_share(&t, at(165)) == 1);
}

/* A kind that turns out not to be needed, at once and in the middle. */
static void test_skipped_kind(void **state)
{
    struct eta t;
    (void)state;
    eta_start(&t, at(0), 0.5);
    eta_expect(&t, LOAD, 40);
    eta_expect(&t, WORK, 100);
    eta_expect(&t, EXPORT, 10);
    eta_close(&t, LOAD);
    assert_within(eta_left(&t, at(0)) / 110, 1.001);
    eta_begin(&t, WORK, 100, at(0));
    eta_part(&t, 0.25, at(25));
    eta_close(&t, WORK);
    assert_within(eta_left(&t, at(25)) / 10, 1.001);
}

/* Between two reports time passes, and is taken off; a piece that takes longer than it should raises what is
 * left again, and is never told as done. */
static void test_silence(void **state)
{
    struct eta t;
    (void)state;
    eta_start(&t, at(0), 0.5);
    eta_expect(&t, WORK, 100);
    eta_begin(&t, WORK, 50, at(0));
    for (int s = 0; s < 47; s++)
        assert_within((100 - s) / eta_left(&t, at(s)), 1.001);
    double before = eta_left(&t, at(47));
    for (int s = 60; s < 500; s += 10) {
        double left = eta_left(&t, at(s));
        assert_true(left > before);
        before = left;
    }
    /* 500 s for what should have been 50. */
    eta_end(&t, at(500));
    assert_within(eta_left(&t, at(500)) / 500, 1.5);
}

/* A piece that tells again and again that it has not come further is silent. */
static void test_told_again(void **state)
{
    struct eta t;
    (void)state;
    eta_start(&t, at(0), 0.5);
    eta_expect(&t, EXPORT, 100);
    eta_begin(&t, EXPORT, 100, at(0));
    for (int s = 0; s < 20; s++) {
        eta_part(&t, 0, at(s));
        assert_within((100 - s) / eta_left(&t, at(s)), 1.001);
    }
    eta_part(&t, 0.1, at(20));
    assert_within(eta_left(&t, at(20)) / 180, 1.2);
}

/* A part that is done again; the share told never falls. */
static void test_again(void **state)
{
    struct eta t;
    (void)state;
    eta_start(&t, at(0), 0.5);
    eta_expect(&t, WORK, 100);
    eta_begin(&t, WORK, 100, at(0));
    eta_part(&t, 0.8, at(80));
    double share = eta_share(&t, at(80));
    assert_within(share / 0.8, 1.001);
    eta_part(&t, 0.1, at(81));
    assert_true(eta_left(&t, at(81)) > 90);
    assert_true(eta_share(&t, at(81)) == share);
}

static void test_nothing(void **state)
{
    struct eta t;
    (void)state;
    eta_start(&t, at(3), 1);
    assert_true(isnan(eta_left(&t, at(4))));
    assert_true(eta_share(&t, at(4)) == 0);
    assert_true(eta_elapsed(&t, at(4)) == 1);
    eta_part(&t, 1, at(4));
    eta_end(&t, at(4));
    eta_begin(&t, WORK, 0, at(4)); /* not predicted at all */
    eta_end(&t, at(9));
    assert_true(isnan(eta_left(&t, at(9))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_true_predictions), cmocka_unit_test(test_wrong_predictions),
        cmocka_unit_test(test_unknown_speed),    cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_skipped_kind),     cmocka_unit_test(test_silence),
        cmocka_unit_test(test_told_again),       cmocka_unit_test(test_again),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
