#include "formats/text_file.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "formats/chat.h"
#include "formats/json.h"
#include "formats/shipped_text.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"

/* Bytes read at once; a line of JSON lines may be longer. */
enum { BLOCK = 64 << 10 };
#define LINE_MAX_BYTES (256u << 20)

enum packing { UNPACKED, GZIP, ZSTD };

/* Texts that came before: a hash table with open addresses, at most half full. */
struct text_seen {
    struct hash128 *table;
    size_t n, cap;
};

struct text_file {
    char *path;
    FILE *file;
    uint64_t size, read;
    /* What was read and not taken yet. */
    uint8_t raw[BLOCK];
    size_t raw_at, raw_n;
    enum packing packing;
    z_stream gzip;
    ZSTD_DStream *zstd;
    bool open_ended; /* within a packed stream: the data must not end here */
    bool sniffed;    /* the text itself was looked at */
    /* JSON lines. */
    bool lines, lines_end;
    struct strbuf line, text; /* text: of a line; text_at of it is taken */
    size_t text_at, line_taken;
    uint64_t n_line, n_texts;
    const struct chat_format *chat;
    uint64_t chats;
    struct text_seen *seen; /* where repeated texts are left out; else NULL */
    uint64_t repeats;
};

/* ---- kinds of files ---- */

static const struct kind {
    const char *magic;
    size_t size, offset;
    bool binary; /* only with a control character near the beginning: a text might begin so too */
    const char *name, *hint;
} kinds[] = {
    {"PAR1", 4, 0, true, "a Parquet file",
     "write its text as JSON lines first: one object with the field \"text\" per line"},
    {"ARROW1\0\0", 8, 0, false, "an Arrow file",
     "write its text as JSON lines first: one object with the field \"text\" per line"},
    {"PK\3\4", 4, 0, false, "a ZIP archive (or a document packed as one)",
     "unpack it, and give the text file that is in it"},
    {"7z\xBC\xAF\x27\x1C", 6, 0, false, "a 7-Zip archive", "unpack it, and give the text file that is in it"},
    {"ustar", 5, 257, false, "a tar archive", "unpack it, and give the text file that is in it"},
    {"\xFD"
     "7zXZ",
     6, 0, false, "packed by xz", "decompress it first (xz -d), or compress it with gzip or zstd"},
    {"\x31\x41\x59\x26\x53\x59", 6, 4, false, "packed by bzip2",
     "decompress it first (bzip2 -d), or compress it with gzip or zstd"},
    {"\x04\x22\x4D\x18", 4, 0, false, "packed by lz4",
     "decompress it first (lz4 -d), or compress it with gzip or zstd"},
    {"%PDF-", 5, 0, false, "a PDF", "convert it to text first, for example with pdftotext"},
    {"\xFF\xFE\0\0", 4, 0, false, "UTF-32 text", "convert it to UTF-8, for example with iconv -f UTF-32 -t UTF-8"},
    {"\0\0\xFE\xFF", 4, 0, false, "UTF-32 text", "convert it to UTF-8, for example with iconv -f UTF-32 -t UTF-8"},
    {"\xFF\xFE", 2, 0, false, "UTF-16 text", "convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8"},
    {"\xFE\xFF", 2, 0, false, "UTF-16 text", "convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8"},
    {"GGUF", 4, 0, true, "a GGUF file", "give a text file, not a model"},
    {"SQLite format 3\0", 16, 0, false, "an SQLite database",
     "write its text as JSON lines first: one object with the field \"text\" per line"},
    {"version https://git-lfs", 23, 0, false, "a Git LFS pointer, not the file itself",
     "run `git lfs pull` in its repository"},
};

static bool has_control(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n && i < 64; i++)
        if (s[i] < 9)
            return true;
    return false;
}

static bool refuse_kinds(const struct text_file *f, const uint8_t *s, size_t n, struct err *e)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct kind *k = &kinds[i];
        if (n < k->offset + k->size || memcmp(s + k->offset, k->magic, k->size) != 0 ||
            (k->binary && !has_control(s, n)))
            continue;
        err_set(e, ERR_USER, "%s is %s%s", f->path, f->packing == UNPACKED ? "" : "compressed, and holds ", k->name);
        return err_hint(e, "%s", k->hint);
    }
    return true;
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t m = strlen(end);
    if (n < m)
        return false;
    for (size_t i = 0; i < m; i++) {
        char c = s[n - m + i];
        if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != end[i])
            return false;
    }
    return true;
}

/* Without what says that it is packed. */
static bool named(const char *path, const char *end)
{
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz"))
        n -= 3;
    else if (ends_with(path, n, ".zst"))
        n -= 4;
    return ends_with(path, n, end);
}

/* One document of JSON is neither lines of it nor a text. */
static bool refuse_json(const struct text_file *f, const uint8_t *s, size_t n, struct err *e)
{
    size_t at = n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < n && strchr(" \t\r\n", s[at]) && s[at])
        at++;
    if (f->lines || at == n || (s[at] != '[' && s[at] != '{') || !named(f->path, ".json"))
        return true;
    err_set(e, ERR_USER, "%s is JSON, not text: its brackets and field names would be read as text", f->path);
    return err_hint(e, "if every line is an object with the field \"text\", name it .jsonl (jq -c '.[]' makes such "
                       "lines from an array); to read it as it is, name it .txt");
}

/* ---- bytes ---- */

/* Fills raw if it is empty. raw_n is 0 at the end. */
static bool refill(struct text_file *f, struct err *e)
{
    if (f->raw_at < f->raw_n)
        return true;
    f->raw_at = 0;
    f->raw_n = fread(f->raw, 1, sizeof f->raw, f->file);
    f->read += f->raw_n;
    if (f->raw_n || !ferror(f->file))
        return true;
    return err_set(e, ERR_ENV, "cannot read %s: %s", f->path, strerror(errno));
}

static bool damaged(const struct text_file *f, const char *why, struct err *e)
{
    err_set(e, ERR_USER, "%s: the compressed data are damaged or cut off (%s)", f->path, why);
    return err_hint(e, "download or compress it again");
}

/* One step of unpacking; may give nothing. */
static bool unpack(struct text_file *f, char *buf, size_t cap, size_t *got, struct err *e)
{
    if (f->packing == ZSTD) {
        ZSTD_inBuffer in = {f->raw, f->raw_n, f->raw_at};
        ZSTD_outBuffer out = {buf, cap, 0};
        size_t rc = ZSTD_decompressStream(f->zstd, &out, &in);
        if (ZSTD_isError(rc))
            return damaged(f, ZSTD_getErrorName(rc), e);
        f->open_ended = rc != 0;
        f->raw_at = in.pos;
        *got = out.pos;
        return true;
    }
    f->gzip.next_in = f->raw + f->raw_at;
    f->gzip.avail_in = (uInt)(f->raw_n - f->raw_at);
    f->gzip.next_out = (Bytef *)buf;
    f->gzip.avail_out = (uInt)cap;
    int rc = inflate(&f->gzip, Z_NO_FLUSH);
    f->raw_at = f->raw_n - f->gzip.avail_in;
    *got = cap - f->gzip.avail_out;
    f->open_ended = rc != Z_STREAM_END;
    if (rc == Z_STREAM_END) /* another member may follow */
        rc = inflateReset(&f->gzip);
    if (rc == Z_OK || rc == Z_BUF_ERROR)
        return true;
    return rc == Z_MEM_ERROR ? err_nomem(e, "unpacking", BLOCK) : damaged(f, f->gzip.msg ? f->gzip.msg : zError(rc), e);
}

static bool read_bytes(struct text_file *f, char *buf, size_t cap, size_t *got, struct err *e)
{
    *got = 0;
    cap = cap < BLOCK ? cap : BLOCK;
    while (*got == 0) {
        if (!refill(f, e))
            return false;
        if (f->packing == UNPACKED) {
            *got = (size_t)min_u64(cap, f->raw_n - f->raw_at);
            memcpy(buf, f->raw + f->raw_at, *got);
            f->raw_at += *got;
            break;
        }
        bool ends = f->raw_n == 0;
        if (ends && !f->open_ended)
            break;
        if (!unpack(f, buf, cap, got, e))
            return false;
        if (ends && *got == 0)
            return damaged(f, "the end is missing", e);
    }
    bool first = !f->sniffed;
    f->sniffed = true;
    const uint8_t *begin = (const uint8_t *)buf;
    return !first || (refuse_kinds(f, begin, *got, e) && refuse_json(f, begin, *got, e));
}

/* ---- JSON lines ---- */

static bool bad_line(const struct text_file *f, const cJSON *o, struct err *e)
{
    char names[256] = "";
    size_t n = 0;
    const cJSON *text = json_get(o, "text");
    if (!cJSON_IsObject(o)) {
        err_set(e, ERR_USER, "%s, line %llu is %s, not an object", f->path, (unsigned long long)f->n_line,
                json_type_name(o));
        return err_hint(e, "a line should look like {\"text\": \"...\"}");
    }
    if (text)
        err_set(e, ERR_USER, "%s, line %llu: the field \"text\" is %s, not a string", f->path,
                (unsigned long long)f->n_line, json_type_name(text));
    else
        err_set(e, ERR_USER, "%s, line %llu: there is no field \"text\", nor \"messages\"", f->path,
                (unsigned long long)f->n_line);
    for (const cJSON *item = o->child; item && n < sizeof names; item = item->next)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%.40s", n ? ", " : "", item->string);
    return err_hint(e, "gsq reads the field \"text\", or \"messages\"; the fields here: %s", names[0] ? names : "none");
}

/* The place of a hash in a table, or where it would go: both words 0. */
static struct hash128 *place_of(struct hash128 *table, size_t cap, struct hash128 hash)
{
    size_t i = (size_t)hash.lo & (cap - 1);
    while ((table[i].lo || table[i].hi) && (table[i].lo != hash.lo || table[i].hi != hash.hi))
        i = (i + 1) & (cap - 1);
    return &table[i];
}

static bool grow_seen(struct text_seen *s, struct err *e)
{
    size_t cap = s->cap ? 2 * s->cap : 1024;
    struct hash128 *table = calloc(cap, sizeof *table);
    if (!table)
        return err_nomem(e, "the hashes of texts", cap * sizeof *table);
    for (size_t i = 0; i < s->cap; i++)
        if (s->table[i].lo || s->table[i].hi)
            *place_of(table, cap, s->table[i]) = s->table[i];
    free(s->table);
    s->table = table;
    s->cap = cap;
    return true;
}

/* *repeated: whether that text came before; it is known from now on. */
static bool was_seen(struct text_file *f, const char *text, size_t size, bool *repeated, struct err *e)
{
    struct text_seen *s = f->seen;
    struct hash128 hash = hash_bytes(text, size, (struct hash128){0});
    *repeated = false;
    if (!s)
        return true;
    if (2 * s->n >= s->cap && !grow_seen(s, e))
        return false;
    struct hash128 *place = place_of(s->table, s->cap, hash);
    *repeated = place->lo || place->hi;
    s->n += !*repeated;
    f->repeats += *repeated;
    *place = hash;
    return true;
}

/* A line's text, or conversation, behind what f->text holds. */
static bool add_document(struct text_file *f, const cJSON *o, struct err *e)
{
    const cJSON *text = json_get(o, "text"), *messages = json_get(o, "messages");
    if (cJSON_IsString(text)) {
        strbuf_puts(&f->text, text->valuestring);
        return true;
    }
    if (text || !messages)
        return bad_line(f, o, e);
    f->chats++;
    if (chat_render(f->chat, messages, &f->text))
        return true;
    err_set(e, ERR_USER, "%s, line %llu: the field \"messages\" is no conversation", f->path,
            (unsigned long long)f->n_line);
    return err_hint(e, "a line should look like {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...]}");
}

/* A line becomes f->text. */
static bool take_line(struct text_file *f, const char *s, size_t n, struct err *e)
{
    size_t space = 0;
    while (space < n && strchr(" \t\r", s[space]))
        space++;
    if (space == n)
        return true;
    cJSON *o = json_parse(s, n, f->path, e);
    if (!o)
        return err_context(e, "line %llu of the text", (unsigned long long)f->n_line);
    const size_t began = f->text.size;
    if (f->n_texts && !(f->chat && json_get(o, "messages")))
        strbuf_puts(&f->text, "\n\n");
    const size_t at = f->text.size;
    bool repeated = false, ok = add_document(f, o, e) && (!f->text.failed || err_nomem(e, "a line of the text", n)) &&
                                was_seen(f, f->text.data ? f->text.data + at : "", f->text.size - at, &repeated, e);
    if (!ok || repeated)
        f->text.size = began;
    else
        f->n_texts++;
    cJSON_Delete(o);
    return ok;
}

/* The next line without its end, in f->line until the next call; *line NULL: there is none. */
static bool next_line(struct text_file *f, const char **line, size_t *n, struct err *e)
{
    char *end = NULL;
    if (f->line_taken) {
        f->line.size -= f->line_taken;
        memmove(f->line.data, f->line.data + f->line_taken, f->line.size);
    }
    f->line_taken = 0;
    for (size_t scanned = 0;;) {
        if (f->line.size > scanned)
            end = memchr(f->line.data + scanned, '\n', f->line.size - scanned);
        if (end || f->lines_end)
            break;
        char block[4096];
        size_t got;
        scanned = f->line.size;
        if (f->line.size > LINE_MAX_BYTES) {
            err_set(e, ERR_USER, "%s, line %llu has more than %u bytes", f->path, (unsigned long long)f->n_line + 1,
                    LINE_MAX_BYTES);
            return err_hint(e, "JSON lines hold one document per line");
        }
        if (!read_bytes(f, block, sizeof block, &got, e))
            return false;
        f->lines_end = got == 0;
        strbuf_add(&f->line, block, got);
        if (f->line.failed)
            return err_nomem(e, "a line of the text", f->line.size);
    }
    *n = end ? (size_t)(end - f->line.data) : f->line.size;
    *line = end || *n ? f->line.data : NULL;
    f->line_taken = *n + (end != NULL);
    f->n_line += *line != NULL;
    return true;
}

/* Reads until there is text, or the end. */
static bool next_text(struct text_file *f, struct err *e)
{
    const char *line;
    size_t n;
    f->text.size = f->text_at = 0;
    while (f->text.size == 0) {
        if (!next_line(f, &line, &n, e))
            return false;
        if (!line)
            break;
        if (!take_line(f, line, n, e))
            return false;
    }
    return true;
}

/* ---- the file ---- */

static bool open_file(struct text_file *f, const char *path, struct err *e)
{
    enum os_kind kind = os_stat(path, &f->size);
    if (kind == OS_DIR || kind == OS_OTHER) {
        err_set(e, ERR_USER, "%s is not a regular file", path);
        return err_hint(e, "give the path of a text file");
    }
    f->path = str_dup(path);
    if (!f->path)
        return err_nomem(e, "a path", strlen(path));
    f->file = os_fopen(path, "rb");
    if (!f->file) {
        err_set(e, ERR_USER, "cannot open %s: %s", path, strerror(errno));
        if (kind == OS_ABSENT && shipped_text_meant(path))
            return err_hint(e, "\"" SHIPPED_TEXT
                               "\" is for --calib alone: give a text that the model was not calibrated on");
        return err_hint(e, kind == OS_ABSENT ? "check the spelling of the path" : "check the permissions of that path");
    }
    if (!refill(f, e))
        return false;
    const uint8_t *s = f->raw;
    if (f->raw_n >= 3 && s[0] == 0x1F && s[1] == 0x8B && s[2] == 8)
        f->packing = GZIP;
    else if (f->raw_n >= 4 && s[0] == 0x28 && s[1] == 0xB5 && s[2] == 0x2F && s[3] == 0xFD)
        f->packing = ZSTD;
    if (f->packing == UNPACKED && !refuse_kinds(f, s, f->raw_n, e))
        return false;
    f->lines = named(path, ".jsonl") || named(path, ".ndjson");
    f->open_ended = true;
    if (f->packing == GZIP && inflateInit2(&f->gzip, 15 + 16) != Z_OK)
        return err_nomem(e, "unpacking", BLOCK);
    if (f->packing == ZSTD && !(f->zstd = ZSTD_createDStream()))
        return err_nomem(e, "unpacking", BLOCK);
    return true;
}

bool text_file_open(struct text_file **out, const char *path, struct err *e)
{
    struct text_file *f = *out = calloc(1, sizeof *f);
    if (!f)
        return err_nomem(e, "a text file", sizeof *f);
    if (open_file(f, path, e))
        return true;
    text_file_close(out);
    return false;
}

void text_file_close(struct text_file **f)
{
    if (!*f)
        return;
    if ((*f)->file)
        fclose((*f)->file);
    if ((*f)->packing == GZIP)
        inflateEnd(&(*f)->gzip);
    ZSTD_freeDStream((*f)->zstd);
    strbuf_free(&(*f)->line);
    strbuf_free(&(*f)->text);
    free((*f)->path);
    free(*f);
    *f = NULL;
}

bool text_file_read(void *file, char *buf, size_t cap, size_t *got, struct err *e)
{
    struct text_file *f = file;
    if (!f->lines)
        return read_bytes(f, buf, cap, got, e);
    if (f->text_at == f->text.size && !next_text(f, e))
        return false;
    *got = (size_t)min_u64(cap, f->text.size - f->text_at);
    memcpy(buf, f->text.data ? f->text.data + f->text_at : "", *got);
    f->text_at += *got;
    return true;
}

void text_file_set_chat(struct text_file *f, const struct chat_format *chat)
{
    f->chat = chat;
}

uint64_t text_file_chats(const struct text_file *f)
{
    return f->chats;
}

struct text_seen *text_seen_create(void)
{
    return calloc(1, sizeof(struct text_seen));
}

void text_seen_destroy(struct text_seen **s)
{
    if (*s)
        free((*s)->table);
    free(*s);
    *s = NULL;
}

void text_file_skip_repeats(struct text_file *f, struct text_seen *seen)
{
    f->seen = seen;
}

uint64_t text_file_repeats(const struct text_file *f)
{
    return f->repeats;
}

bool text_file_line(struct text_file *f, const char **line, size_t *n, uint64_t *number, struct err *e)
{
    f->lines = true;
    if (!next_line(f, line, n, e))
        return false;
    *number = f->n_line;
    return true;
}

double text_file_share(const struct text_file *f)
{
    return f->size ? (double)min_u64(f->read, f->size) / (double)f->size : 1;
}
