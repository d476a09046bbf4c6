#include "host/base/num.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u, mantissa = h & 1023u;
    if (exponent == 31)
        return bits_f32(sign | 0x7F800000u | mantissa << 13);
    if (exponent == 0) {
        float f = (float)mantissa * (1.0f / 16777216.0f); /* subnormal: mantissa * 2^-24, exact */
        return sign ? -f : f;
    }
    return bits_f32(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u)
        return sign | 0x7E00u;
    if (u >= 0x477FF000u) /* 65520 and above round to infinity */
        return sign | 0x7C00u;
    if (u < 0x38800000u) { /* below 2^-14: the addition rounds to the subnormal grid, half to even */
        float sum = bits_f32(u) + 0.5f;
        return sign | (uint16_t)(f32_bits(sum) - 0x3F000000u);
    }
    u += 0xFFFu + (u >> 13 & 1u);
    return sign | (uint16_t)((u - 0x38000000u) >> 13);
}

float bf16_to_f32(uint16_t h)
{
    return bits_f32((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

float e4m3_to_f32(uint8_t v)
{
    uint32_t sign = (uint32_t)(v & 0x80u) << 24, magnitude = v & 0x7Fu;
    if (magnitude == 0x7Fu)
        return bits_f32(sign | 0x7FC00000u);
    if (magnitude < 8) /* subnormal: multiples of 2^-9 */
        return bits_f32(sign | f32_bits((float)magnitude * 0x1p-9f));
    return bits_f32(sign | ((magnitude << 20) + (UINT32_C(120) << 23)));
}

float e8m0_to_f32(uint8_t v)
{
    if (v == 0xFF)
        return bits_f32(0x7FC00000u);
    return bits_f32(v ? (uint32_t)v << 23 : UINT32_C(1) << 22); /* 2^-127 is subnormal */
}

float e2m1_to_f32(uint8_t v)
{
    static const float magnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return v & 8 ? -magnitudes[v & 7] : magnitudes[v & 7];
}

bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b && a > UINT64_MAX / b)
        return false;
    *out = a * b;
    return true;
}

bool add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a > UINT64_MAX - b)
        return false;
    *out = a + b;
    return true;
}

uint16_t load_u16le(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t load_u32le(const void *p)
{
    const uint8_t *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t load_u64le(const void *p)
{
    return (uint64_t)load_u32le(p) | (uint64_t)load_u32le((const uint8_t *)p + 4) << 32;
}

void store_u16le(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

void store_u32le(void *p, uint32_t v)
{
    store_u16le(p, (uint16_t)v);
    store_u16le((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

void store_u64le(void *p, uint64_t v)
{
    store_u32le(p, (uint32_t)v);
    store_u32le((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

struct hash128 hash_bytes(const void *data, size_t size, struct hash128 seed)
{
    /* The seed's second half goes in by mixing, so that hashes chain over several pieces. */
    XXH128_hash_t h = XXH3_128bits_withSeed(data, size, seed.lo ^ (seed.hi << 1 | seed.hi >> 63));
    return (struct hash128){h.low64, h.high64};
}

struct hash_stream *hash_stream_create(void)
{
    XXH3_state_t *s = XXH3_createState();
    if (s)
        XXH3_128bits_reset(s);
    return (struct hash_stream *)s;
}

void hash_stream_add(struct hash_stream *s, const void *data, size_t size)
{
    XXH3_128bits_update((XXH3_state_t *)s, data, size);
}

struct hash128 hash_stream_end(const struct hash_stream *s)
{
    XXH128_hash_t h = XXH3_128bits_digest((const XXH3_state_t *)s);
    return (struct hash128){h.low64, h.high64};
}

void hash_stream_destroy(struct hash_stream **s)
{
    XXH3_freeState((XXH3_state_t *)*s);
    *s = NULL;
}

void hash_hex(struct hash128 h, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
}

const char *format_bytes(uint64_t bytes, char *out, size_t cap)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 6) {
        v /= 1024;
        u++;
    }
    snprintf(out, cap, u == 0 || v >= 100 ? "%.0f %s" : v >= 10 ? "%.1f %s" : "%.2f %s", v, unit[u]);
    return out;
}

const char *format_seconds(double s, char *out, size_t cap)
{
    if (!(s >= 0) || s > 1e9) {
        snprintf(out, cap, "?");
        return out;
    }
    unsigned long t = (unsigned long)(s + 0.5);
    if (t < 60)
        snprintf(out, cap, "%lu s", t);
    else if (t < 3600)
        snprintf(out, cap, "%lu:%02lu", t / 60, t % 60);
    else
        snprintf(out, cap, "%lu:%02lu:%02lu", t / 3600, t / 60 % 60, t % 60);
    return out;
}

uint32_t most_that_fits(uint32_t most, bool (*fits)(void *ctx, uint32_t n), void *ctx)
{
    uint32_t fit = 0;
    if (most && fits(ctx, most))
        return most;
    while (most > fit + 1) { /* most does not */
        uint32_t n = fit + (most - fit) / 2;
        if (fits(ctx, n))
            fit = n;
        else
            most = n;
    }
    return fit;
}
