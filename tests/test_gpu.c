/* The Vulkan layer end to end: devices, memory, transfers, barriers, dispatches, errors. Needs any Vulkan 1.3
 * device. */
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_create.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernel_table.h"
#include "host/gpu/kernels.h"
#include "tests/device.h"

static int device_teardown(void **state)
{
    (void)state;
    return device_close();
}

static struct gpu_view alloc(uint64_t bytes)
{
    struct gpu_view v;
    struct err e = {0};
    OK(gpu_alloc(arena, bytes, &v, &e), e);
    return v;
}

static struct gpu_view floats(const float *x, uint32_t n)
{
    struct gpu_view v = alloc(4ull * n);
    gpu_upload(cmd, v, x, 4ull * n);
    return v;
}

static void finish(void)
{
    struct err e = {0};
    OK(gpu_cmd_finish(cmd, &e), e);
}

static void download(struct gpu_view v, void *out, uint64_t bytes)
{
    struct err e = {0};
    OK(gpu_download(cmd, v, out, bytes, &e), e);
}

static void add(struct gpu_view y, struct gpu_view x, uint32_t n)
{
    run_add(cmd, gpu_items(cmd, KERNEL_ID_add, n), &(struct add_args){.y = y, .x = x, .n = n});
}

/* ---- devices ---- */

static bool count_device(void *ctx, const struct gpu_info *info, bool usable, const char *why)
{
    unsigned *n = ctx;
    assert_int_equal(info->index, *n);
    assert_true(info->name[0]);
    assert_true(usable ? why[0] == 0 : why[0] != 0);
    if (usable) {
        assert_true(info->max_range >= 1u << 27);
        assert_true(info->mem_limit > 0 && info->mem_limit <= info->heap_bytes);
        assert_true(info->subgroup_size >= 1 && info->max_invocations >= 128);
        assert_int_equal(strlen(info->driver_uuid_hex), 32);
    }
    ++*n;
    return true;
}

static void test_list(void **state)
{
    (void)state;
    unsigned n = 0;
    struct err e = {0};
    OK(gpu_list(count_device, &n, &e), e);
    assert_true(n > 0);
}

static void test_choice(void **state)
{
    (void)state;
    struct gpu *g = NULL;
    struct err e = {0};
    assert_false(gpu_create(&g, &(struct gpu_options){.device = "no such device"}, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, "no such device"));
    assert_non_null(strstr(e.hint, "0: "));
    assert_null(g);
    assert_false(gpu_create(&g, &(struct gpu_options){.device = "777"}, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_false(gpu_create(&g, &(struct gpu_options){.variant = "nonsense"}, &e));
    assert_int_equal(e.kind, ERR_USER);

    /* Part of the name, in other case, finds the device. */
    device_open((struct gpu_options){0});
    char part[64], number[16];
    snprintf(part, sizeof part, "%.6s", gpu_info(gpu)->name);
    snprintf(number, sizeof number, "%u", gpu_info(gpu)->index);
    for (char *p = part; *p; p++)
        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
    assert_int_equal(device_close(), 0);
    device_open((struct gpu_options){.device = part});
    assert_int_equal(device_close(), 0);
    device_open((struct gpu_options){.device = number, .threads = 2, .variant = "base"});
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        const char *name;
        if (gpu_kernel_variant_at(gpu, k, 0, &name, NULL))
            assert_string_equal(gpu_kernel_variant(gpu, k, NULL, &e), "base");
    }
    assert_int_equal(device_close(), 0);
}

/* ---- kernels ---- */

static void test_kernels(void **state)
{
    (void)state;
    struct err e = {0};
    unsigned missing = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        const char *name, *first = NULL;
        bool usable, base = false;
        for (unsigned i = 0; gpu_kernel_variant_at(gpu, k, i, &name, &usable); i++) {
            base = base || strcmp(name, "base") == 0;
            if (usable && !first)
                first = name;
            if (!usable) {
                assert_false(gpu_kernel_force(gpu, k, name, &e));
                continue;
            }
            OK(gpu_kernel_force(gpu, k, name, &e), e);
            OK(gpu_kernel_variant(gpu, k, NULL, &e) != NULL, e);
            assert_true(gpu_kernel_local_size(gpu, k) > 0);
        }
        if (!first) { /* declared, its shader is still to come */
            assert_null(gpu_kernel_variant(gpu, k, NULL, &e));
            assert_int_equal(e.kind, ERR_BUG);
            missing++;
            continue;
        }
        assert_true(base);
        OK(gpu_kernel_force(gpu, k, first, &e), e);
    }
    if (missing)
        print_message("%u kernels have no shader yet\n", missing);
    uint64_t id = gpu_kernels_identity(gpu);
    assert_true(id == gpu_kernels_identity(gpu));
    assert_false(gpu_kernel_force(gpu, KERNEL_ID_add, "nonsense", &e));
}

/* The variant's place among the kernel's. */
static unsigned place_of(unsigned kernel, const char *variant)
{
    const char *name;
    unsigned i = 0;
    while (gpu_kernel_variant_at(gpu, kernel, i, &name, NULL) && strcmp(name, variant) != 0)
        i++;
    return i;
}

/* Shared memory is what the shader's arrays take with the variant's constants; base is content with what Vulkan promises; a
 * variant that takes more than there is, is passed over for the next. */
static void test_shared(void **state)
{
    (void)state;
    struct err e = {0};
    device_open((struct gpu_options){.without = GPU_CAP_CPU});
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        if (gpu_kernel_shared_bytes(gpu, k, place_of(k, "base")) > 16384)
            fail_msg("%s.base takes %u bytes of shared memory", kernel_decls[k].name,
                     gpu_kernel_shared_bytes(gpu, k, place_of(k, "base")));
    /* 128 errors of 32 rows; none. */
    assert_int_equal(gpu_kernel_shared_bytes(gpu, KERNEL_ID_gptq_segment, place_of(KERNEL_ID_gptq_segment, "base")),
                     16384);
    assert_int_equal(gpu_kernel_shared_bytes(gpu, KERNEL_ID_add, 0), 0);
    /* Chunks of 32 + 64 rows, weights of 64 x 32, both padded by one; four numbers of 16 x 8 invocations. */
    const struct attn_fwd_args call = {.dim = 128};
    unsigned d128 = place_of(KERNEL_ID_attn_fwd, "d128"), wants = (96 + 64) * 9 * 16 + 16 * 8 * 16;
    assert_int_equal(gpu_kernel_shared_bytes(gpu, KERNEL_ID_attn_fwd, d128), wants);
    if (gpu_info(gpu)->shared_bytes >= wants)
        assert_string_equal(gpu_kernel_variant(gpu, KERNEL_ID_attn_fwd, &call, &e), "d128");
    assert_int_equal(device_close(), 0);

    device_open((struct gpu_options){.without = GPU_CAP_CPU, .max_shared = wants - 1});
    bool usable = true;
    assert_true(gpu_kernel_variant_at(gpu, KERNEL_ID_attn_fwd, d128, NULL, &usable));
    assert_false(usable);
    assert_string_equal(gpu_kernel_variant(gpu, KERNEL_ID_attn_fwd, &call, &e), "base");
    assert_false(gpu_kernel_force(gpu, KERNEL_ID_attn_fwd, "d128", &e));
    assert_int_equal(device_close(), 0);
}

/* ---- memory ---- */

static void test_memory(void **state)
{
    (void)state;
    struct err e = {0};
    struct gpu_view v, big, again;
    v = alloc(1);
    assert_int_equal(v.size, 4);
    uint64_t held = gpu_memory_used(gpu);
    gpu_mark mark = gpu_arena_mark(arena);
    struct gpu_view next = alloc(1000);
    assert_true(next.buffer == v.buffer && next.offset == 256);
    big = alloc(40 << 20);
    uint64_t with_big = gpu_memory_used(gpu);
    assert_true(with_big >= held + (40 << 20));
    gpu_arena_reset(arena, mark);
    again = alloc(36 << 20); /* snug: takes the free one */
    assert_true(again.buffer == big.buffer);
    assert_int_equal(gpu_memory_used(gpu), with_big);
    gpu_arena_reset(arena, mark);
    gpu_arena_trim(arena);
    assert_int_equal(gpu_memory_used(gpu), held);
    assert_int_equal(gpu_memory_peak(gpu), with_big);

    /* Many small ones: all apart, aligned, and the same again after a reset. */
    struct gpu_view first[100], second[100];
    for (unsigned i = 0; i < 100; i++)
        first[i] = alloc(1 << 20);
    gpu_arena_reset(arena, mark);
    for (unsigned i = 0; i < 100; i++) {
        second[i] = alloc(1 << 20);
        assert_true(second[i].buffer == first[i].buffer && second[i].offset == first[i].offset);
        assert_int_equal(second[i].offset % 256, 0);
        for (unsigned j = 0; j < i; j++)
            assert_true(second[i].buffer != second[j].buffer || second[i].offset >= second[j].offset + (1 << 20));
    }
    assert_false(gpu_alloc(arena, gpu_info(gpu)->max_alloc + 1, &v, &e));
    assert_int_equal(e.kind, ERR_ENV);
    assert_non_null(strstr(e.msg, "not enough device memory for "));
    assert_false(gpu_alloc(arena, UINT64_MAX, &v, &e));
    assert_int_equal(v.size, 0);
    assert_int_equal(gpu_tile_rows(gpu, 4096, 100), 100);
    uint32_t rows = gpu_tile_rows(gpu, 4096 * 4, UINT32_MAX);
    assert_true(rows % 64 == 0 && rows * UINT64_C(16384) <= gpu_info(gpu)->max_range);
}

static void test_limit(void **state)
{
    (void)state;
    struct err e = {0};
    struct gpu_view v, w;
    device_open((struct gpu_options){.mem_limit = 64 << 20});
    assert_int_equal(gpu_info(gpu)->mem_limit, 64 << 20);
    v = alloc(48 << 20);
    assert_false(gpu_alloc(arena, 32 << 20, &w, &e));
    assert_int_equal(e.kind, ERR_ENV);
    assert_non_null(strstr(e.msg, "48.0"));
    assert_non_null(strstr(e.hint, "--mem-limit"));
    /* A free buffer of any size serves in need; and what is free makes room. */
    gpu_arena_reset(arena, 0);
    w = alloc(20 << 20);
    assert_true(w.buffer == v.buffer);
    gpu_arena_reset(arena, 0);
    alloc(60 << 20);
    assert_true(gpu_memory_peak(gpu) <= 64 << 20);
    assert_int_equal(device_close(), 0);
}

/* An arena that counts takes and refuses what a real one does, whatever is done with it. */
static void test_counting_arena(void **state)
{
    (void)state;
    enum { MARKS = 8 };
    device_open((struct gpu_options){.mem_limit = 64 << 20});
    struct gpu_count count = {.limit = 64 << 20}, other;
    struct gpu_arena *like = NULL;
    gpu_mark marks[2][MARKS] = {{0}};
    struct err e = {0};
    uint32_t random = 7, refused = 0;
    unsigned n = 0;
    OK(gpu_arena_create_counting(&like, gpu, &count, &e), e);
    for (unsigned i = 0; i < 600; i++) {
        struct gpu_view real, counted;
        uint32_t what = (random = random * 1664525 + 1013904223) >> 28;
        if (what < 3 && n < MARKS) {
            marks[0][n] = gpu_arena_mark(arena);
            marks[1][n++] = gpu_arena_mark(like);
        } else if (what < 6 && n > 0) {
            gpu_arena_reset(arena, marks[0][--n]);
            gpu_arena_reset(like, marks[1][n]);
        } else if (what == 6) {
            gpu_arena_trim(arena);
            gpu_arena_trim(like);
        } else {
            uint64_t bytes = (random >> 8 & 0xffff) << (what > 10 ? 8 : 2);
            bool ok = gpu_alloc(arena, bytes, &real, &e);
            assert_int_equal(gpu_alloc(like, bytes, &counted, &e), ok);
            assert_true(real.size == counted.size && real.offset == counted.offset);
            refused += !ok;
        }
        assert_int_equal(count.used, gpu_memory_used(gpu));
        assert_int_equal(count.peak, gpu_memory_peak(gpu));
        assert_int_equal(gpu_arena_bytes(like), gpu_arena_bytes(arena));
    }
    assert_true(refused > 0 && count.peak > 60 << 20);
    gpu_arena_destroy(&like);
    assert_int_equal(count.used, 0);

    /* Several that share a count are limited together; without a limit there is none of one buffer either. */
    struct gpu_arena *second = NULL;
    struct gpu_view v;
    count = (struct gpu_count){.limit = 32 << 20};
    other = (struct gpu_count){.limit = UINT64_MAX};
    OK(gpu_arena_create_counting(&like, gpu, &count, &e) && gpu_arena_create_counting(&second, gpu, &count, &e), e);
    OK(gpu_alloc(like, 20 << 20, &v, &e), e);
    assert_false(gpu_alloc(second, 20 << 20, &v, &e));
    assert_non_null(strstr(e.msg, "20.0 MiB of 32.0 MiB"));
    gpu_arena_destroy(&like);
    OK(gpu_alloc(second, 20 << 20, &v, &e), e);
    gpu_arena_destroy(&second);
    OK(gpu_arena_create_counting(&like, gpu, &other, &e) && gpu_alloc(like, UINT64_C(1) << 44, &v, &e), e);
    assert_int_equal(other.peak, UINT64_C(1) << 44);

    /* Nothing is recorded on what is not there. */
    gpu_fill(cmd, gpu_slice(v, 0, 4), 0);
    assert_false(gpu_cmd_finish(cmd, &e));
    assert_int_equal(e.kind, ERR_BUG);
    gpu_arena_destroy(&like);
    gpu_arena_reset(arena, 0);
    assert_int_equal(device_close(), 0);
}

/* ---- transfers ---- */

static void round_trip(uint64_t bytes)
{
    struct gpu_view v = alloc(bytes + 300);
    unsigned char *a = malloc(bytes), *b = calloc(1, bytes);
    assert_non_null(a);
    assert_non_null(b);
    uint32_t random = (uint32_t)bytes;
    for (uint64_t i = 0; i < bytes; i++)
        a[i] = (unsigned char)((random = random * 1664525 + 1013904223) >> 24);
    struct gpu_view part = gpu_slice(v, 40, bytes);
    gpu_upload(cmd, part, a, bytes);
    download(part, b, bytes);
    assert_memory_equal(a, b, bytes);
    free(a);
    free(b);
    gpu_arena_reset(arena, 0);
}

static void test_transfers(void **state)
{
    (void)state;
    const uint64_t sizes[] = {1, 2, 3, 4, 5, 255, 4097, 1000003, (8 << 20) - 1, (8 << 20) + 1, 70000001};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        round_trip(sizes[i]);
    /* Many small uploads wrap the ring while earlier ones are in flight. */
    enum { N = 300, BYTES = 300000 };
    struct gpu_view v = alloc((uint64_t)N * BYTES);
    unsigned char *a = malloc(BYTES), *b = malloc((size_t)N * BYTES);
    for (unsigned i = 0; i < N; i++) {
        memset(a, (int)(i & 255), BYTES);
        gpu_upload(cmd, gpu_slice(v, (uint64_t)i * BYTES, BYTES), a, BYTES);
    }
    download(v, b, (uint64_t)N * BYTES);
    for (unsigned i = 0; i < N; i++)
        for (unsigned j = 0; j < BYTES; j += 997)
            assert_int_equal(b[(size_t)i * BYTES + j], i & 255);
    free(a);
    free(b);
}

/* Host memory that the device reads and writes: by copies and by kernels, and what the host finds there. Uploads keep their
 * place in the order of what is recorded, also where they could be written at once. */
static void test_host_memory(void **state)
{
    (void)state;
    enum { N = 1 << 18, ROUNDS = 20 };
    struct err e = {0};
    struct gpu_arena *host = NULL;
    struct gpu_view h = {0}, h2 = {0}, d = alloc(4 * N), sum = alloc(4 * N);
    uint64_t held = gpu_memory_used(gpu);
    OK(gpu_arena_create_host(&host, gpu, "host", &e) && gpu_alloc(host, 4 * N, &h, &e) && gpu_alloc(host, 999, &h2, &e),
       e);
    assert_int_equal(gpu_memory_used(gpu), held);
    float *x = gpu_host(h);
    assert_non_null(x);
    assert_non_null(gpu_host(h2));
    assert_true(gpu_unified(gpu) == (gpu_host(d) != NULL));
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    gpu_copy(cmd, d, h, 4 * N); /* d = i */
    add(d, h, N);               /* d = 2 i: a kernel reads it */
    add(h, d, N);               /* h = 3 i: and writes it */
    finish();
    for (int i = 0; i < N; i++)
        assert_true(x[i] == 3 * (float)i);
    gpu_copy(cmd, h, d, 4 * N);
    finish();
    for (int i = 0; i < N; i++)
        assert_true(x[i] == 2 * (float)i);

    float *y = malloc(4 * N);
    assert_non_null(y);
    gpu_fill(cmd, sum, 0);
    for (int r = 1; r <= ROUNDS; r++) {
        for (int i = 0; i < N; i++)
            y[i] = (float)(r * (i % 7));
        gpu_upload(cmd, d, y, 4 * N); /* behind the sum of the round before */
        add(sum, d, N);
        if (r % 3 == 0)
            gpu_cmd_flush(cmd);
        if (r % 8 == 0)
            finish();
    }
    download(sum, y, 4 * N);
    for (int i = 0; i < N; i++)
        assert_true(y[i] == (float)(ROUNDS * (ROUNDS + 1) / 2 * (i % 7)));
    free(y);
    assert_false(gpu_alloc(host, gpu_info(gpu)->max_alloc + 4096, &h, &e));
    assert_int_equal(e.kind, ERR_ENV);
    assert_non_null(strstr(e.msg, "host memory"));
    gpu_arena_destroy(&host);
    gpu_arena_reset(arena, 0);
}

static void test_fill_copy(void **state)
{
    (void)state;
    uint32_t out[64];
    struct gpu_view v = alloc(256), w = alloc(256);
    gpu_fill(cmd, v, 1);
    gpu_fill(cmd, gpu_slice(v, 64, 128), 2);
    gpu_fill(cmd, gpu_slice(v, 128, 32), 3);
    gpu_copy(cmd, w, v, 256);
    gpu_fill(cmd, v, 9); /* write after read */
    download(w, out, 256);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(out[i], i < 16 || i >= 48 ? 1 : i >= 32 && i < 40 ? 3 : 2);
    download(v, out, 256);
    assert_int_equal(out[63], 9);
    gpu_copy(cmd, gpu_slice(v, 0, 128), gpu_slice(v, 64, 128), 128);
    struct err e = {0};
    assert_false(gpu_cmd_finish(cmd, &e));
    assert_int_equal(e.kind, ERR_BUG);
}

/* ---- dispatches ---- */

static void test_arithmetic(void **state)
{
    (void)state;
    enum { N = 1001 };
    float a[N], b[N], out[N];
    for (int i = 0; i < N; i++) {
        a[i] = (float)i;
        b[i] = (float)(i % 7);
    }
    struct gpu_view va = floats(a, N), vb = floats(b, N), vd = alloc(sizeof out);
    run_subtract(cmd, gpu_items(cmd, KERNEL_ID_subtract, N),
                 &(struct subtract_args){.a = va, .b = vb, .d = vd, .n = N});
    add(vd, va, N);
    download(vd, out, sizeof out);
    for (int i = 0; i < N; i++)
        assert_true(out[i] == a[i] - b[i] + a[i]);
}

/* 16-bit numbers of every pattern, also subnormals; an odd count. */
static void test_unpack16(void **state)
{
    (void)state;
    enum { N = 65535 };
    uint16_t *in = malloc((N + 1) * sizeof *in);
    float *out = malloc(N * sizeof *out);
    for (unsigned i = 0; i <= N; i++)
        in[i] = (uint16_t)i;
    struct gpu_view src = alloc(N * 2), dst = alloc(N * 4);
    gpu_upload(cmd, src, in, (N + 1) * 2);
    for (uint32_t kind = 0; kind < 2; kind++) {
        run_unpack16(cmd, gpu_items(cmd, KERNEL_ID_unpack16, (N + 1) / 2),
                     &(struct unpack16_args){.src = src, .dst = dst, .n = N, .kind = kind});
        download(dst, out, N * 4);
        for (unsigned i = 0; i < N; i++) {
            float want = kind ? bf16_to_f32(in[i]) : f16_to_f32(in[i]);
            if (want != want)
                assert_true(out[i] != out[i]);
            else if (memcmp(&want, &out[i], 4) != 0)
                fail_msg("kind %u, pattern %04x: %g instead of %g", kind, i, (double)out[i], (double)want);
        }
    }
    free(in);
    free(out);
}

/* Dependent steps over slices that touch and overlap: wrong as soon as one barrier is missing. */
static void test_barriers(void **state)
{
    (void)state;
    enum { N = 4096, Q = N / 4, STEPS = 400 };
    float ref[N], out[N];
    for (int i = 0; i < N; i++)
        ref[i] = (float)(i % 5);
    struct gpu_view v = floats(ref, N), t = alloc(Q * 4);
    uint32_t random = 7;
    for (int step = 0; step < STEPS; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t from = (random >> 8) % 4, to = (random >> 16) % 4;
        if (random >> 31) { /* through a copy */
            gpu_copy(cmd, t, gpu_slice(v, from * Q * 4, Q * 4), Q * 4);
            add(gpu_slice(v, to * Q * 4, Q * 4), t, Q);
            for (int i = 0; i < Q; i++) {
                float x = ref[from * Q + i] + ref[to * Q + i];
                ref[to * Q + i] = x;
            }
        } else { /* an overlap of halves, by a slice in the middle */
            gpu_fill(cmd, gpu_slice(v, to * Q * 4 + 512, 512), 0x3f800000u);
            add(gpu_slice(v, to * Q * 4 + 256, 1024), gpu_slice(v, ((to + 1) % 4) * Q * 4, 1024), 256);
            for (int i = 0; i < 128; i++)
                ref[to * Q + 128 + i] = 1;
            for (int i = 0; i < 256; i++)
                ref[to * Q + 64 + i] += ref[((to + 1) % 4) * Q + i];
        }
        for (int i = 0; i < N; i += Q) /* keep it exact */
            if (ref[i + 1] > 1e6f) {
                gpu_fill(cmd, gpu_slice(v, (uint64_t)i * 4, Q * 4), 0);
                memset(ref + i, 0, Q * 4);
            }
        if (step % 97 == 0)
            gpu_cmd_flush(cmd);
    }
    download(v, out, sizeof out);
    assert_memory_equal(out, ref, sizeof out);
}

/* More dispatches than one submission holds, and more submissions than slots. */
static void test_many(void **state)
{
    (void)state;
    enum { N = 64, STEPS = 5000 };
    float one[N], out[N];
    for (int i = 0; i < N; i++)
        one[i] = 1;
    struct gpu_view x = floats(one, N), y = alloc(sizeof out);
    gpu_fill(cmd, y, 0);
    for (int i = 0; i < STEPS; i++)
        add(y, x, N);
    download(y, out, sizeof out);
    for (int i = 0; i < N; i++)
        assert_true(out[i] == STEPS);
}

/* More workgroups than one grid dimension holds. */
static void test_fold(void **state)
{
    (void)state;
    uint32_t n = 65535 * gpu_kernel_local_size(gpu, KERNEL_ID_softcap) + 4321;
    struct gpu_view y = alloc(4ull * n);
    gpu_fill(cmd, y, 0x7149f2cau); /* 1e30 */
    struct gpu_grid grid = gpu_items(cmd, KERNEL_ID_softcap, n);
    assert_true(grid.y == 2 && grid.x <= 65535);
    run_softcap(cmd, grid, &(struct softcap_args){.x = y, .n = n, .cap = 3});
    float *out = malloc(4ull * n);
    download(y, out, 4ull * n);
    for (uint32_t i = 0; i < n; i++)
        if (out[i] != 3.0f)
            fail_msg("element %u is %g", i, (double)out[i]);
    free(out);
    grid = gpu_rows(1);
    assert_true(grid.x == 1 && grid.y == 1);
    grid = gpu_rows(65535 * 3ull + 1);
    assert_true(grid.y == 4 && (uint64_t)grid.x * 4 >= 65535 * 3ull + 1);
}

static void expect_bug(const char *part)
{
    struct err e = {0};
    assert_true(gpu_cmd_failed(cmd));
    assert_false(gpu_cmd_finish(cmd, &e));
    assert_int_equal(e.kind, ERR_BUG);
    if (!strstr(e.msg, part))
        fail_msg("'%s' does not say '%s'", e.msg, part);
    assert_false(gpu_cmd_failed(cmd));
}

static void test_misuse(void **state)
{
    (void)state;
    struct gpu_view v = alloc(1 << 20), huge = alloc(gpu_info(gpu)->max_range + 256), none = {0};
    struct gpu_view odd = gpu_slice(v, 4, 1024);
    float out;
    add(v, huge, 16);
    expect_bug("buffer x is larger");
    add(none, v, 16);
    expect_bug("buffer y is empty");
    if (gpu_info(gpu)->min_align > 4) {
        add(v, odd, 16);
        expect_bug("buffer x does not start");
    }
    run_add(cmd, (struct gpu_grid){0}, &(struct add_args){.y = v, .x = v, .n = 1});
    expect_bug("grid");
    gpu_upload(cmd, gpu_slice(v, 0, 4), "12345678", 8);
    expect_bug("upload of 8 bytes");
    gpu_dispatch(cmd, KERNEL_ID_add, gpu_rows(1), &v, 1, NULL, 0);
    expect_bug("wants 2 and 4");
    /* The download reports an error of before; then all is well again. */
    struct err e = {0};
    add(none, v, 16);
    gpu_fill(cmd, v, 0x3f800000u); /* dropped */
    assert_false(gpu_download(cmd, v, &out, 4, &e));
    assert_int_equal(e.kind, ERR_BUG);
    gpu_fill(cmd, v, 0x40000000u);
    download(v, &out, 4);
    assert_true(out == 2);
}

static bool stop_at_once(void *ctx)
{
    ++*(int *)ctx;
    return false;
}

static void test_stop(void **state)
{
    (void)state;
    int polled = 0;
    struct err e = {0};
    struct gpu_view v = alloc(1024);
    gpu_cmd_set_poll(cmd, stop_at_once, &polled);
    gpu_fill(cmd, v, 0);
    add(v, v, 256);
    assert_false(gpu_cmd_finish(cmd, &e));
    assert_int_equal(e.kind, ERR_STOPPED);
    assert_true(polled > 0);
    gpu_cmd_set_poll(cmd, NULL, NULL);
    add(v, v, 256);
    finish();
}

/* Work that 100 ms take: by single dispatches, and by what was learnt from whole submissions, several in flight. */
static void measure_rates(struct gpu_view x, struct gpu_view y, uint32_t n, double *single, double *learnt)
{
    gpu_cmd_profile_clear(cmd);
    gpu_cmd_profile_enable(cmd, true);
    for (int i = 0; i < 10; i++)
        add(y, x, n);
    finish();
    gpu_cmd_profile_enable(cmd, false);
    struct gpu_profile p = gpu_cmd_profile(cmd, KERNEL_ID_add);
    *single = 0.1 * p.work / p.seconds;
    for (int i = 0; i < 200; i++) {
        add(y, x, i % 3 ? n : n / 64);
        if (i % 2)
            gpu_cmd_flush(cmd);
    }
    finish();
    *learnt = gpu_cmd_work_limit(cmd, KERNEL_ID_add, NULL);
}

/* The two agree. Another program that takes the processor in one of them spoils that measurement, hence several. */
static void test_rate(void **state)
{
    (void)state;
    enum { N = 1 << 20, TRIES = 8 };
    struct gpu_view x = alloc(4 * N), y = alloc(4 * N);
    double single = 0, learnt = 0;
    gpu_fill(cmd, x, 0);
    gpu_fill(cmd, y, 0);
    if (!(gpu_info(gpu)->timestamp_ns > 0))
        skip();
    for (int i = 0; i < TRIES; i++) {
        measure_rates(x, y, N, &single, &learnt);
        if (learnt > single / 2 && learnt < single * 2)
            return;
    }
    fail_msg("%g of work in 100 ms, where single dispatches say %g", learnt, single);
}

/* Without timestamps a kernel's first dispatch is timed by the host, and what follows is cut by that. */
static void test_no_clock(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct err e = {0};
    struct gpu *g = NULL;
    struct gpu_cmd *c = NULL;
    struct gpu_arena *a = NULL;
    struct gpu_view x = {0}, y = {0};
    float *out = malloc(4 * N);
    assert_non_null(out);
    OK(gpu_create(&g, &(struct gpu_options){.validate = true}, &e), e);
    ((struct gpu_info *)gpu_info(g))->timestamp_ns = 0;
    OK(gpu_cmd_create(&c, g, &e) && gpu_arena_create(&a, g, "test", &e) && gpu_alloc(a, 4 * N, &x, &e) &&
           gpu_alloc(a, 4 * N, &y, &e),
       e);
    double guess = gpu_cmd_work_limit(c, KERNEL_ID_add, NULL);
    gpu_fill(c, x, 0x3f800000u);
    gpu_fill(c, y, 0);
    for (int i = 0; i < 3; i++)
        run_add(c, gpu_items(c, KERNEL_ID_add, N), &(struct add_args){.y = y, .x = x, .n = N});
    OK(gpu_download(c, y, out, 4 * N, &e), e);
    for (int i = 0; i < N; i++)
        assert_true(out[i] == 3);
    double learnt = gpu_cmd_work_limit(c, KERNEL_ID_add, NULL);
    if (!(learnt != guess && learnt > 1e6 && learnt < 1e12))
        fail_msg("%g of work in 100 ms, guessed %g", learnt, guess);
    assert_true(gpu_cmd_busy(c) == 0);
    assert_int_equal(gpu_validation_messages(g), 0);
    gpu_arena_destroy(&a);
    gpu_cmd_destroy(&c);
    gpu_destroy(&g);
    free(out);
}

/* The device's time is within what passes here, and is most of it while there is only work to wait for. */
static void test_busy(void **state)
{
    (void)state;
    enum { N = 1 << 20, TRIES = 8 };
    struct gpu_view x = alloc(4 * N), y = alloc(4 * N);
    if (!(gpu_info(gpu)->timestamp_ns > 0))
        skip();
    gpu_fill(cmd, x, 0);
    gpu_fill(cmd, y, 0);
    add(y, x, N);
    finish();
    double share = 0;
    for (int i = 0; i < TRIES && share < 0.5; i++) {
        double before = gpu_cmd_busy(cmd);
        uint64_t begin = os_now_ns();
        for (int k = 0; k < 200; k++) {
            add(y, x, N);
            if (k % 10 == 0)
                gpu_cmd_flush(cmd);
        }
        finish();
        share = (gpu_cmd_busy(cmd) - before) / ((double)(os_now_ns() - begin) * 1e-9);
        assert_true(share > 0 && share < 1.02);
        os_sleep_ms(20); /* counts nowhere */
    }
    assert_true(share >= 0.5);
}

static void test_profile(void **state)
{
    (void)state;
    struct gpu_view x = alloc(1 << 20), y = alloc(1 << 20);
    gpu_fill(cmd, x, 0);
    gpu_fill(cmd, y, 0);
    double guess = gpu_cmd_work_limit(cmd, KERNEL_ID_add, NULL);
    assert_true(guess > 0);
    gpu_cmd_profile_enable(cmd, true);
    for (int i = 0; i < 10; i++)
        add(y, x, 1 << 18);
    finish();
    struct gpu_profile p = gpu_cmd_profile(cmd, KERNEL_ID_add);
    if (gpu_info(gpu)->timestamp_ns > 0) {
        assert_int_equal(p.dispatches, 10);
        assert_true(p.seconds > 0 && p.work == 10.0 * (1 << 18));
        assert_true(gpu_cmd_work_limit(cmd, KERNEL_ID_add, NULL) != guess);
    }
    gpu_cmd_profile_clear(cmd);
    assert_int_equal(gpu_cmd_profile(cmd, KERNEL_ID_add).dispatches, 0);
    gpu_cmd_profile_enable(cmd, false);
    add(y, x, 1 << 18);
    finish();
    assert_int_equal(gpu_cmd_profile(cmd, KERNEL_ID_add).dispatches, 0);
}

/* Small whole numbers: every sum is exact. */
static float element(uint32_t row, uint32_t col, uint32_t salt)
{
    return (float)((row * 7 + col * 13 + row * col % 5 + salt) % 9) - 4;
}

static struct gpu_matrix matrix(uint32_t rows, uint32_t cols, uint32_t ld, uint32_t salt)
{
    struct gpu_view v = alloc(4ull * rows * ld);
    float *x = calloc((size_t)rows * ld, 4);
    assert_non_null(x);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < cols; c++)
            x[(size_t)r * ld + c] = element(r, c, salt);
    gpu_upload(cmd, v, x, v.size);
    free(x);
    return (struct gpu_matrix){v, ld};
}

/* How A and B lie. */
enum form { NT, NN, TN };

/* apart: what beta is a factor of is no part of C. */
static void gemm(enum form form, uint32_t m, uint32_t n, uint32_t k, uint32_t pad, float beta, bool apart)
{
    struct gpu_matrix a = form == TN ? matrix(k, m, m + pad, 1) : matrix(m, k, k + pad, 1);
    struct gpu_matrix b = form == NT ? matrix(n, k, k + pad, 2) : matrix(k, n, n + pad, 2);
    struct gpu_matrix c = matrix(m, n, n + pad, 3);
    struct gpu_view old = {0};
    if (apart)
        old = matrix(m, n, n + pad, 3).view;
    if (beta == 0 || apart) /* must not be read */
        gpu_fill(cmd, c.view, 0x7fc00000u);
    gpu_gemm(cmd, &(struct gpu_product){.a = a,
                                        .b = b,
                                        .c = c,
                                        .old = old,
                                        .m = m,
                                        .n = n,
                                        .k = k,
                                        .alpha = 2,
                                        .beta = beta,
                                        .a_transposed = form == TN,
                                        .b_transposed = form != NT});
    float *out = malloc(c.view.size);
    assert_non_null(out);
    download(c.view, out, c.view.size);
    /* All of a small product, a sample of a large one that meets every row and column. */
    uint32_t step_r = m > 300 ? 61 : 1, step_c = n > 300 ? 59 : 1;
    for (uint32_t r = 0; r < m; r += step_r)
        for (uint32_t j = r % step_c; j < n; j += step_c) {
            double want = beta * element(r, j, 3);
            for (uint32_t i = 0; i < k; i++)
                want += 2.0 * (form == TN ? element(i, r, 1) : element(r, i, 1)) *
                        (form == NT ? element(j, i, 2) : element(i, j, 2));
            float have = out[(size_t)r * c.ld + j];
            if (have != (float)want)
                fail_msg("form %d, %u x %u x %u: element %u, %u is %g instead of %g", (int)form, m, n, k, r, j,
                         (double)have, want);
        }
    free(out);
    gpu_arena_reset(arena, 0);
}

static void test_gemm(void **state)
{
    (void)state;
    const char *name;
    if (!gpu_kernel_variant_at(gpu, KERNEL_ID_gemm, 0, &name, NULL))
        skip();
    for (enum form form = NT; form <= TN; form++) {
        gemm(form, 1, 1, 1, 0, 0, false);
        gemm(form, 3, 5, 7, 0, 1, true);
        gemm(form, 65, 63, 130, 4, 0.5f, false);
        gemm(form, 65, 63, 130, 4, 0.5f, true);
        gemm(form, 200, 129, 64, 0, 0, false);
    }
    /* Larger than one view: each operand in turn. */
    uint64_t range = gpu_info(gpu)->max_range;
    if (range > UINT64_C(1) << 28)
        return; /* too large to be a test */
    uint32_t rows = (uint32_t)(range / 4 / 512 + 3000), side = 4 + (uint32_t)(range / 4 / 6000);
    gemm(NT, rows, 3, 16, 496, 0, false);
    gpu_arena_trim(arena);
    gemm(NT, 3, rows, 16, 496, 1, false);
    gpu_arena_trim(arena);
    gemm(NT, side, 6001, 4, 0, 1, true);
    gpu_arena_trim(arena);
    gemm(TN, 16, 3, rows, 496, 1, true); /* both are cut along k */
}

/* ---- the cache file ---- */

static char cache_file[512];

static bool note_file(void *ctx, const char *name, struct err *e)
{
    (void)e;
    snprintf(cache_file, sizeof cache_file, "%s/%s", (const char *)ctx, name);
    return true;
}

static void use_cache(const char *dir)
{
    device_open((struct gpu_options){.cache_dir = dir});
    struct gpu_view v = alloc(1024);
    gpu_fill(cmd, v, 0);
    add(v, v, 256);
    finish();
    assert_int_equal(device_close(), 0);
}

static void test_cache(void **state)
{
    (void)state;
    char dir[64];
    struct err e = {0};
    snprintf(dir, sizeof dir, "test_gpu_cache.tmp");
    os_remove_tree(dir);
    use_cache(dir);
    cache_file[0] = 0;
    OK(os_list(dir, note_file, dir, &e), e);
    assert_non_null(strstr(cache_file, "pipelines-"));
    use_cache(dir);
    char *data;
    size_t size;
    OK(os_read_file(cache_file, 1 << 28, &data, &size, &e), e);
    data[size - 1] ^= 1;
    OK(os_write_file(cache_file, data, size, &e), e);
    use_cache(dir);
    OK(os_write_file(cache_file, data, size / 2, &e), e);
    use_cache(dir);
    OK(os_write_file(cache_file, "", 0, &e), e);
    use_cache(dir);
    free(data);
    /* A folder that cannot be: a warning, not an error. */
    snprintf(dir, sizeof dir, "%.50s/below", cache_file);
    use_cache(dir);
    os_remove_tree("test_gpu_cache.tmp");
}

#define ON(f) cmocka_unit_test_setup_teardown(f, device_setup, device_teardown)
#define NO_PUSH(f)                                                                                                     \
    {                                                                                                                  \
#f " without push descriptors", f, device_setup_no_push, device_teardown, NULL                                 \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_shared),
        ON(test_kernels),
        ON(test_memory),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_counting_arena),
        ON(test_transfers),
        ON(test_host_memory),
        ON(test_fill_copy),
        ON(test_arithmetic),
        ON(test_unpack16),
        ON(test_barriers),
        ON(test_many),
        ON(test_fold),
        ON(test_misuse),
        ON(test_stop),
        ON(test_profile),
        cmocka_unit_test(test_cache),
        NO_PUSH(test_arithmetic),
        NO_PUSH(test_barriers),
        NO_PUSH(test_many),
        ON(test_gemm),
        ON(test_rate),
        ON(test_no_clock),
        ON(test_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
