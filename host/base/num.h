/* Small number formats and integer helpers shared by every layer. */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* IEEE binary16 and bfloat16, as their bit patterns. To-16 conversions round to nearest even; values beyond
 * the range become infinity, NaN stays NaN (quiet). */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);
/* The 8-bit and 4-bit floats of the OCP formats: E4M3 (no infinity, 0x7F and 0xFF are NaN), E8M0 (a power of two; 0xFF is
 * NaN), E2M1 (the lower four bits of v). Exact. */
float e4m3_to_f32(uint8_t v);
float e8m0_to_f32(uint8_t v);
float e2m1_to_f32(uint8_t v);

/* ceil(a / b), b > 0. */
static inline uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* a rounded up to a multiple of b, b > 0. */
static inline uint64_t round_up(uint64_t a, uint64_t b)
{
    return div_up(a, b) * b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* a*b and a+b into *out; false on overflow (sizes read from a file are never trusted). */
bool mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool add_u64(uint64_t a, uint64_t b, uint64_t *out);

/* Little-endian loads and stores at any alignment. */
uint16_t load_u16le(const void *p);
uint32_t load_u32le(const void *p);
uint64_t load_u64le(const void *p);
void store_u16le(void *p, uint16_t v);
void store_u32le(void *p, uint32_t v);
void store_u64le(void *p, uint64_t v);

/* 128-bit content hash (XXH3) as 32 hex digits and a NUL. For identity, not for security. */
struct hash128 {
    uint64_t lo, hi;
};
struct hash128 hash_bytes(const void *data, size_t size, struct hash128 seed);
void hash_hex(struct hash128 h, char out[33]);
/* The same number for bytes that come in pieces, however they are cut; no seed. NULL: out of memory. */
struct hash_stream;
struct hash_stream *hash_stream_create(void);
void hash_stream_add(struct hash_stream *s, const void *data, size_t size);
struct hash128 hash_stream_end(const struct hash_stream *s);
void hash_stream_destroy(struct hash_stream **s);

/* "1.23 GiB", "340 KiB" ... into out (at least 24 bytes); returns out. */
const char *format_bytes(uint64_t bytes, char *out, size_t cap);

/* The most of 1 .. most that fits, where all below what fits fit too; 0: not even 1. */
uint32_t most_that_fits(uint32_t most, bool (*fits)(void *ctx, uint32_t n), void *ctx);
/* "1:02:03" or "4:05" or "12 s" into out (at least 24 bytes); returns out. */
const char *format_seconds(double s, char *out, size_t cap);

#endif
