#include "formats/pack.h"

/* One bit stream being written or read: at most 31 + 32 bits are in flight. */
struct bits {
    uint64_t acc;
    unsigned n;
};

static inline void put_bits(struct bits *s, uint32_t value, unsigned bits, uint32_t **words)
{
    s->acc |= (uint64_t)value << s->n;
    s->n += bits;
    if (s->n >= 32) {
        *(*words)++ = (uint32_t)s->acc;
        s->acc >>= 32;
        s->n -= 32;
    }
}

static inline uint32_t take_bits(struct bits *s, unsigned bits, uint32_t mask, const uint32_t **words)
{
    if (s->n < bits) {
        s->acc |= (uint64_t) * (*words)++ << s->n;
        s->n += 32;
    }
    uint32_t value = (uint32_t)s->acc & mask;
    s->acc >>= bits;
    s->n -= bits;
    return value;
}

static inline uint32_t mask_of(unsigned bits)
{
    return bits >= 32 ? 0xFFFFFFFFu : (UINT32_C(1) << bits) - 1;
}

void pack_codes(const int8_t *codes, size_t n, size_t stride, unsigned bits, uint32_t *words)
{
    const uint32_t mask = mask_of(bits), zero = UINT32_C(1) << (bits - 1);
    struct bits s = {0, 0};
    for (size_t i = 0; i < n; i++)
        put_bits(&s, ((uint32_t)(int32_t)codes[i * stride] + zero) & mask, bits, &words);
    if (s.n)
        *words = (uint32_t)s.acc;
}

void unpack_codes(const uint32_t *words, size_t n, unsigned bits, int8_t *codes, size_t stride)
{
    const uint32_t mask = mask_of(bits);
    const int32_t zero = (int32_t)(UINT32_C(1) << (bits - 1));
    struct bits s = {0, 0};
    for (size_t i = 0; i < n; i++)
        codes[i * stride] = (int8_t)((int32_t)take_bits(&s, bits, mask, &words) - zero);
}

void pack_unsigned(const uint32_t *values, size_t n, unsigned bits, uint32_t *words)
{
    const uint32_t mask = mask_of(bits);
    struct bits s = {0, 0};
    for (size_t i = 0; i < n; i++)
        put_bits(&s, values[i] & mask, bits, &words);
    if (s.n)
        *words = (uint32_t)s.acc;
}

void unpack_unsigned(const uint32_t *words, size_t n, unsigned bits, uint32_t *values)
{
    const uint32_t mask = mask_of(bits);
    struct bits s = {0, 0};
    for (size_t i = 0; i < n; i++)
        values[i] = take_bits(&s, bits, mask, &words);
}
