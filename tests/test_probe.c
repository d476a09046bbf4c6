/* gpu_probe_choose: which of several devices a process takes, by its number among those of the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "host/gpu/gpu_probe.h"

static struct gpu_probe devices[6];

/* A machine as its loader lists it: a card far back on the bus first, the processor's graphics, one without what kernels want. */
static int machine(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        VkPhysicalDeviceType type;
        uint32_t bus; /* ~0: not told */
        bool usable;
    } all[] = {
        {"Radeon RX 9070", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 0x41, true},
        {"AMD Radeon Graphics", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 0x02, true},
        {"Arc B580", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 0x03, true},
        {"GeForce GTX 680", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 0x01, false},
        {"Radeon RX 9070", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 0x21, true},
        {"llvmpipe", VK_PHYSICAL_DEVICE_TYPE_CPU, UINT32_MAX, true},
    };
    memset(devices, 0, sizeof devices);
    for (uint32_t i = 0; i < 6; i++) {
        struct gpu_probe *p = &devices[i];
        snprintf(p->info.name, sizeof p->info.name, "%s", all[i].name);
        p->info.index = i;
        p->type = all[i].type;
        p->usable = all[i].usable;
        snprintf(p->why, sizeof p->why, "no Vulkan 1.3");
        for (int k = 0; k < 4; k++)
            p->pci[k] = all[i].bus == UINT32_MAX ? UINT32_MAX : k == 1 ? all[i].bus : 0;
    }
    return 0;
}

/* What process `process` of `processes` takes of the first n; -1: an error, which is in *e. */
static int taken(uint32_t n, const char *want, unsigned process, unsigned processes, struct err *e)
{
    const struct gpu_probe *p = gpu_probe_choose(devices, n, want, process, processes, e);
    return p ? (int)(p - devices) : -1;
}

static int of(const char *want, unsigned process, unsigned processes)
{
    struct err e = {0};
    return taken(6, want, process, processes, &e);
}

static void test_alone(void **state)
{
    (void)state;
    assert_int_equal(of(NULL, 0, 1), 0); /* the best kind, first of the loader's order */
    assert_int_equal(of("", 0, 1), 0);
    assert_int_equal(of("5", 0, 1), 5);
    assert_int_equal(of("arc", 0, 1), 2);
    assert_int_equal(of("radeon", 0, 1), 0); /* a card before the processor's graphics */
    assert_int_equal(of("4,2", 0, 1), 4);
}

/* Nothing named: cards in the order of the bus, and round again; not what is slower, or cannot be used. */
static void test_by_bus(void **state)
{
    (void)state;
    static const int order[] = {2, 4, 0, 2, 4, 0, 2};
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(of(NULL, i, 7), order[i]);
    devices[0].pci[0] = 1; /* a domain of its own is behind all of domain 0, whatever its bus */
    devices[0].pci[1] = 0;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(of(NULL, i, 3), order[i]);
    for (int i = 0; i < 6; i++) /* no driver tells the bus: the loader's order */
        memset(devices[i].pci, 0xff, sizeof devices[i].pci);
    static const int loaders[] = {0, 2, 4, 0};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(of(NULL, i, 4), loaders[i]);
}

/* A list is taken as it stands, whatever bus or kind. */
static void test_list(void **state)
{
    (void)state;
    assert_int_equal(of("4,5,1", 0, 3), 4);
    assert_int_equal(of("4,5,1", 1, 3), 5);
    assert_int_equal(of("4,5,1", 2, 3), 1);
    assert_int_equal(of("4,5,1", 3, 5), 4); /* more processes than it has */
    assert_int_equal(of("0,0", 1, 2), 0);
    assert_int_equal(of("2", 3, 4), 2); /* one for all */
    assert_int_equal(of("arc", 3, 4), 2);
}

static void test_refused(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(taken(6, "0,9", 1, 2, &e), -1);
    assert_int_equal(e.kind, ERR_USER);
    assert_string_equal(e.msg, "no device has the number or name '9'");
    assert_non_null(strstr(e.hint, "2: Arc B580"));
    assert_int_equal(taken(6, "0,3", 1, 2, &e), -1);
    assert_int_equal(e.kind, ERR_ENV);
    assert_string_equal(e.msg, "device 3, GeForce GTX 680, cannot be used: no Vulkan 1.3");
    assert_int_equal(taken(6, "voodoo", 0, 1, &e), -1);
    assert_int_equal(e.kind, ERR_USER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_alone, machine),
        cmocka_unit_test_setup(test_by_bus, machine),
        cmocka_unit_test_setup(test_list, machine),
        cmocka_unit_test_setup(test_refused, machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
