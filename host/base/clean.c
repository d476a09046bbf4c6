#include "host/base/clean.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/str.h"

/* Characters that nobody sees, or that change how others are seen. */
static bool is_odd(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || c == 0x200B || c == 0x200E || c == 0x200F ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
           (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

/* Whether s begins with the first bytes of a character that would need more than n. */
static bool is_cut(const char *s, size_t n)
{
    uint8_t c = (uint8_t)s[0];
    size_t len = c >= 0xF0 && c < 0xF5 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 1;
    if (c < 0xC2 || c >= 0xF5 || n >= len)
        return false;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return false;
    return true;
}

size_t clean_text(char *out, size_t cap, const char *s, size_t n, bool lines)
{
    size_t at = 0;
    if (!cap)
        return 0;
    for (size_t i = 0; i < n;) {
        char piece[12];
        uint32_t c = 0;
        unsigned len = utf8_length(s + i, n - i), size;
        if (len == 0 && is_cut(s + i, n - i))
            break;
        if (len)
            utf8_decode(s + i, &c);
        if (len && (!is_odd(c) || (lines && (c == '\n' || c == '\t')))) {
            memcpy(piece, s + i, len);
            size = len;
        } else {
            uint32_t shown = len ? c : (uint8_t)s[i];
            size = (unsigned)snprintf(piece, sizeof piece, shown < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)shown);
        }
        if (at + size >= cap)
            break;
        memcpy(out + at, piece, size);
        at += size;
        i += len ? len : 1;
    }
    out[at] = 0;
    return at;
}

char *clean_json(const char *text)
{
    size_t n = strlen(text);
    struct strbuf b = {0};
    strbuf_add(&b, "", 0);
    for (size_t i = 0; i < n;) {
        uint32_t c = 0xFFFD;
        unsigned len = utf8_length(text + i, n - i);
        if (len)
            utf8_decode(text + i, &c);
        if (len && !(is_odd(c) && c >= 0x7F))
            strbuf_add(&b, text + i, len);
        else if (!len)
            strbuf_puts(&b, "\xEF\xBF\xBD");
        else if (c < 0x10000)
            strbuf_printf(&b, "\\u%04x", (unsigned)c);
        else
            strbuf_printf(&b, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((c - 0x10000) >> 10)),
                          (unsigned)(0xDC00 + ((c - 0x10000) & 0x3FF)));
        i += len ? len : 1;
    }
    if (!b.failed)
        return b.data;
    strbuf_free(&b);
    return NULL;
}

void say_text(FILE *f, const char *text)
{
    size_t n = strlen(text), cap = n * CLEAN_GROWTH + 1;
    char few[1024], *clean = cap <= sizeof few ? few : malloc(cap);
    if (!clean) { /* less of it, but nothing raw */
        clean = few;
        cap = sizeof few;
    }
    fwrite(clean, 1, clean_text(clean, cap, text, n, true), f); /* cppcheck-suppress uninitvar ; the call fills it */
    if (clean != few)
        free(clean);
}

void say(FILE *f, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    char few[1024], *text = few;
    int n = vsnprintf(few, sizeof few, fmt, ap);
    if (n >= (int)sizeof few && (text = malloc((size_t)n + 1)))
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    if (n >= 0)
        say_text(f, text ? text : few);
    if (text != few)
        free(text);
}
