/* Strings: copies, a growing buffer, UTF-8 validity, and a hashed map from strings to numbers. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/printf_like.h"

/* malloc'ed copies; NULL when out of memory. */
char *str_dup(const char *s);
char *str_dup_n(const char *s, size_t n); /* n bytes and a NUL */

/* Edits (insert, delete, replace a byte, swap neighbours) that make b of a; STR_DISTANCE_MAX, too, where either is
 * longer than that. */
enum { STR_DISTANCE_MAX = 40 };
unsigned str_distance(const char *a, const char *b);
/* Whether s ends so, and is longer; nocase: letters of ASCII in either case. */
bool str_ends(const char *s, const char *end);
bool str_ends_nocase(const char *s, const char *end);
/* White space of ASCII, as JSON has it: space, tab, newline, carriage return. */
static inline bool str_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* False if these bytes are not UTF-8 (RFC 3629: no surrogates, no overlong forms); *bad is then the offset.
 */
bool utf8_valid(const char *s, size_t n, size_t *bad);
/* Length of the character at s, of which n > 0 bytes are left; 0: not UTF-8. */
unsigned utf8_length(const char *s, size_t n);
/* Decodes one character of valid UTF-8 at s; returns its length in bytes, 1 to 4. */
unsigned utf8_decode(const char *s, uint32_t *c);
/* Encodes; returns the length, 1 to 4. */
unsigned utf8_encode(uint32_t c, char out[4]);

/* Growing text. Zero-initialise. After a failed allocation everything further is dropped and `failed` is set:
 * check once, at the end. data is NUL-terminated once anything was added. */
struct strbuf {
    char *data;
    size_t size, cap;
    bool failed;
};
void strbuf_add(struct strbuf *b, const char *s, size_t n);
void strbuf_puts(struct strbuf *b, const char *s);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) PRINTF_LIKE(2, 3); /* at most 511 bytes per call */
/* "..." with JSON escapes, quotes included. */
void strbuf_json(struct strbuf *b, const char *s);
void strbuf_free(struct strbuf *b);

/* String -> u32, open addressing. Keys are not copied: they must outlive the map. Zero-initialise. */
struct strmap_slot {
    const char *key; /* NULL: empty slot */
    uint32_t len, value;
};
struct strmap {
    struct strmap_slot *slots;
    size_t n, cap; /* cap: 0 or a power of two */
};
/* Makes room for n keys in all. False when out of memory. */
bool strmap_reserve(struct strmap *m, size_t n);
/* Adds the key unless it is there: *added says which. False when out of memory. */
bool strmap_add(struct strmap *m, const char *key, size_t len, uint32_t value, bool *added);
bool strmap_find(const struct strmap *m, const char *key, size_t len, uint32_t *value);
void strmap_free(struct strmap *m);

#endif
