/* Dense little-endian bit streams: code i occupies bits [i*b, i*b + b), least significant first; 32 codes make b words. */
#ifndef FORMATS_PACK_H
#define FORMATS_PACK_H

#include <stddef.h>
#include <stdint.h>

/* n signed codes (stride apart, in elements) -> ceil(n*bits/32) words; stored = code + 2^(bits-1); tail bits zero. */
void pack_codes(const int8_t *codes, size_t n, size_t stride, unsigned bits, uint32_t *words);
/* The reverse. */
void unpack_codes(const uint32_t *words, size_t n, unsigned bits, int8_t *codes, size_t stride);
/* The same for unsigned values (zero points). */
void pack_unsigned(const uint32_t *values, size_t n, unsigned bits, uint32_t *words);
void unpack_unsigned(const uint32_t *words, size_t n, unsigned bits, uint32_t *values);

#endif
