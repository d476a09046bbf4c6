#include "formats/read/tensor_values.h"

#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/pool.h"

/* Elements tested at a time for NaN, and by one thread at once. */
#define FINITE_BLOCK 2048
#define FINITE_PART  (1u << 20)

bool dtype_is_float(enum dtype t)
{
    return t == DTYPE_F32 || dtype_is_half(t);
}

bool dtype_is_half(enum dtype t)
{
    return t == DTYPE_F16 || t == DTYPE_BF16;
}

/* 16-bit floats in blocks of one length, padded at the end: such loops vectorize. The same results as
 * base/num.h. */
static void halves_to_f32(const uint8_t *from, uint64_t n, bool bf16, float *dst)
{
    enum { BLOCK = 1024 };
    uint16_t half[BLOCK] = {0};
    uint32_t bits[BLOCK];
    float value[BLOCK];
    for (uint64_t at = 0; at < n; at += BLOCK) {
        size_t count = (size_t)min_u64(n - at, BLOCK);
        memcpy(half, from + at * 2, count * 2);
        if (bf16) {
            for (size_t i = 0; i < BLOCK; i++)
                bits[i] = (uint32_t)half[i] << 16;
            memcpy(dst + at, bits, count * 4);
            continue;
        }
        /* The exponent's bias differs by 112: subnormals come right out of the multiplication, infinities
         * after it. */
        for (size_t i = 0; i < BLOCK; i++)
            bits[i] = (half[i] & 0x7FFFu) << 13;
        memcpy(value, bits, sizeof value);
        for (size_t i = 0; i < BLOCK; i++)
            value[i] *= 0x1p112f;
        memcpy(bits, value, sizeof bits);
        for (size_t i = 0; i < BLOCK; i++) {
            uint32_t all_ones = ((half[i] & 0x7C00u) + 0x0400u) >> 15;
            bits[i] |= (half[i] & 0x8000u) << 16 | (all_ones * 0x7F800000u);
        }
        memcpy(dst + at, bits, count * 4);
    }
}

bool tensor_read_f32(const struct tensor *t, uint64_t first, uint64_t n, float *dst, struct err *e)
{
    uint64_t end, size = dtype_size(t->dtype);
    if (!dtype_is_float(t->dtype))
        return err_set(e, ERR_USER, "%s is %s, expected F32, F16 or BF16", t->name, dtype_name(t->dtype));
    if (!add_u64(first, n, &end) || end > t->bytes / size)
        return err_set(e, ERR_BUG, "elements %llu to %llu of %s, which has %llu", (unsigned long long)first,
                       (unsigned long long)(first + n), t->name, (unsigned long long)(t->bytes / size));
    const uint8_t *from = t->data + first * size;
    if (n == 0)
        return true;
    if (t->dtype == DTYPE_F32)
        memcpy(dst, from, (size_t)n * 4);
    else
        halves_to_f32(from, n, t->dtype == DTYPE_BF16, dst);
    return true;
}

/* ---- finite ---- */

/* An exponent of all ones carries into the sign's place when its lowest bit is added. */
#define CARRY16(h, ones) ((uint16_t)(((h) & (ones)) + (0x8000u - (ones))))
#define CARRY32(u)       (((u)&0x7F800000u) + 0x00800000u)

/* Whether a block, padded with zeros, holds such an element. */
static bool block_not_finite(const struct tensor *t, uint64_t at, uint32_t count)
{
    uint32_t ones = t->dtype == DTYPE_F16 ? 0x7C00 : 0x7F80, bad = 0;
    if (t->dtype == DTYPE_F32) {
        uint32_t full[FINITE_BLOCK] = {0};
        memcpy(full, t->data + at * 4, (size_t)count * 4);
        for (uint32_t i = 0; i < FINITE_BLOCK; i++)
            bad |= CARRY32(full[i]);
        return bad >> 31;
    }
    uint16_t half[FINITE_BLOCK] = {0}, bad16 = 0;
    memcpy(half, t->data + at * 2, (size_t)count * 2);
    for (uint32_t i = 0; i < FINITE_BLOCK; i++)
        bad16 |= CARRY16(half[i], ones);
    return bad16 >> 15;
}

/* Index of the first NaN or infinity of elements [first, n), or n. */
static uint64_t first_not_finite(const struct tensor *t, uint64_t first, uint64_t n)
{
    uint32_t ones = t->dtype == DTYPE_F16 ? 0x7C00 : 0x7F80;
    for (uint64_t at = first; at < n; at += FINITE_BLOCK) {
        uint32_t count = (uint32_t)min_u64(n - at, FINITE_BLOCK);
        if (!block_not_finite(t, at, count))
            continue;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t carry = t->dtype == DTYPE_F32 ? CARRY32(load_u32le(t->data + (at + i) * 4)) >> 31
                                                   : CARRY16(load_u16le(t->data + (at + i) * 2), ones) >> 15;
            if (carry)
                return at + i;
        }
    }
    return n;
}

struct finite_scan {
    const struct tensor *t;
    const char *path;
    uint64_t n;
};

static bool scan_part(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    const struct finite_scan *s = ctx;
    uint64_t end = min_u64(s->n, (i + 1) * FINITE_PART), at = first_not_finite(s->t, i * FINITE_PART, end);
    float v;
    (void)thread;
    if (at == end || !tensor_read_f32(s->t, at, 1, &v, e))
        return at == end;
    err_set(e, ERR_USER, "%s in %s holds %s at element %llu", s->t->name, s->path, v != v ? "NaN" : "an infinity",
            (unsigned long long)at);
    return err_hint(e, "the file is damaged or its training diverged: download it again, or take another model");
}

static bool not_stopped(void *ctx, uint64_t parts)
{
    (void)ctx, (void)parts;
    return !os_stop_requested();
}

bool tensor_check_finite(const struct tensor *t, const char *path, struct err *e)
{
    if (!t || !dtype_is_float(t->dtype))
        return true;
    struct finite_scan s = {t, path, t->bytes / dtype_size(t->dtype)};
    const struct pool_work work = {
        .n = div_up(s.n, FINITE_PART), .piece = scan_part, .progress = not_stopped, .ctx = &s};
    return pool_run(&work, e);
}
