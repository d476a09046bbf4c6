#include "host/base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

char *str_dup_n(const char *s, size_t n)
{
    char *copy = malloc(n + 1);
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *str_dup(const char *s)
{
    return str_dup_n(s, strlen(s));
}

unsigned str_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > STR_DISTANCE_MAX || m > STR_DISTANCE_MAX)
        return STR_DISTANCE_MAX;
    unsigned d[3][STR_DISTANCE_MAX + 1]; /* rows i-2, i-1, i, in turn */
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *row = d[i % 3], *before = d[(i + 2) % 3], *before2 = d[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = before[j - 1] + (a[i - 1] != b[j - 1]);
            if (before[j] + 1 < best)
                best = before[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before2[j - 2] + 1 < best)
                best = before2[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[n % 3][m];
}

unsigned utf8_length(const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    uint8_t c = s[0];
    if (c < 0x80)
        return 1;
    unsigned len = c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    for (unsigned i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    /* Overlong forms, surrogates, beyond U+10FFFF: all decided by the second byte. */
    if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] >= 0xA0) || (c == 0xF0 && s[1] < 0x90) ||
        (c == 0xF4 && s[1] >= 0x90))
        return 0;
    return len;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool str_ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

bool str_ends_nocase(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    if (n <= m)
        return false;
    for (size_t i = 0; i < m; i++)
        if (lower(s[n - m + i]) != lower(end[i]))
            return false;
    return true;
}

bool utf8_valid(const char *s, size_t n, size_t *bad)
{
    for (size_t i = 0; i < n;) {
        unsigned len = utf8_length(s + i, n - i);
        if (len == 0) {
            *bad = i;
            return false;
        }
        i += len;
    }
    return true;
}

unsigned utf8_decode(const char *s, uint32_t *c)
{
    const uint8_t *b = (const uint8_t *)s;
    if (b[0] < 0x80) {
        *c = b[0];
        return 1;
    }
    if (b[0] < 0xE0) {
        *c = (uint32_t)(b[0] & 0x1F) << 6 | (b[1] & 0x3F);
        return 2;
    }
    if (b[0] < 0xF0) {
        *c = (uint32_t)(b[0] & 0x0F) << 12 | (uint32_t)(b[1] & 0x3F) << 6 | (b[2] & 0x3F);
        return 3;
    }
    *c = (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3F) << 12 | (uint32_t)(b[2] & 0x3F) << 6 | (b[3] & 0x3F);
    return 4;
}

unsigned utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    unsigned len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (unsigned i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (char)(lead[len] | c);
    return len;
}

void strbuf_add(struct strbuf *b, const char *s, size_t n)
{
    if (b->failed)
        return;
    if (b->cap - b->size <= n) { /* one byte stays free for the NUL */
        size_t cap = b->cap ? b->cap : 256;
        while (cap - b->size <= n)
            cap *= 2;
        char *grown = realloc(b->data, cap);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->cap = cap;
    }
    if (n)
        memcpy(b->data + b->size, s, n);
    b->size += n;
    b->data[b->size] = 0;
}

void strbuf_puts(struct strbuf *b, const char *s)
{
    strbuf_add(b, s, strlen(s));
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text)
        b->failed = true;
    else
        strbuf_add(b, text, (size_t)n);
}

void strbuf_json(struct strbuf *b, const char *s)
{
    strbuf_add(b, "\"", 1);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            strbuf_printf(b, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            strbuf_printf(b, "\\u%04x", (unsigned)(unsigned char)*s);
        else
            strbuf_add(b, s, 1);
    }
    strbuf_add(b, "\"", 1);
}

void strbuf_free(struct strbuf *b)
{
    free(b->data);
    *b = (struct strbuf){0};
}

/* The slot that holds the key, or the empty one where it belongs. */
static size_t strmap_slot(const struct strmap *m, const char *key, size_t len)
{
    size_t i = (size_t)hash_bytes(key, len, (struct hash128){0}).lo & (m->cap - 1);
    while (m->slots[i].key && (m->slots[i].len != len || memcmp(m->slots[i].key, key, len) != 0))
        i = (i + 1) & (m->cap - 1);
    return i;
}

bool strmap_reserve(struct strmap *m, size_t n)
{
    size_t cap = m->cap ? m->cap : 16;
    while (cap - cap / 4 < n) /* at most three quarters full */
        cap *= 2;
    if (cap == m->cap)
        return true;
    struct strmap grown = {.slots = calloc(cap, sizeof *grown.slots), .n = m->n, .cap = cap};
    if (!grown.slots)
        return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            grown.slots[strmap_slot(&grown, m->slots[i].key, m->slots[i].len)] = m->slots[i];
    free(m->slots);
    *m = grown;
    return true;
}

bool strmap_add(struct strmap *m, const char *key, size_t len, uint32_t value, bool *added)
{
    if (len > UINT32_MAX || !strmap_reserve(m, m->n + 1))
        return false;
    struct strmap_slot *slot = &m->slots[strmap_slot(m, key, len)];
    *added = slot->key == NULL;
    if (*added) {
        *slot = (struct strmap_slot){key, (uint32_t)len, value};
        m->n++;
    }
    return true;
}

bool strmap_find(const struct strmap *m, const char *key, size_t len, uint32_t *value)
{
    if (m->cap == 0)
        return false;
    const struct strmap_slot *slot = &m->slots[strmap_slot(m, key, len)];
    if (!slot->key)
        return false;
    *value = slot->value;
    return true;
}

void strmap_free(struct strmap *m)
{
    free(m->slots);
    *m = (struct strmap){0};
}
