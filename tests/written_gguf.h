/* A model in the folder BASE, written as the GGUF at OUT, both in DIR_, and what its header says. The test program defines
 * all three before it includes this. */
#ifndef TESTS_WRITTEN_GGUF_H
#define TESTS_WRITTEN_GGUF_H

#include "formats/gguf/gguf.h"
#include "formats/write/export.h"
#include "tests/check.h"
#include "tests/write_out.h"

/* Every file has its final name. */
static inline bool is_whole(void *ctx, const char *name, struct err *e)
{
    (void)ctx;
    return !strstr(name, ".gsq-tmp") || err_set(e, ERR_BUG, "%s was left behind", name);
}

/* Every weight of a checkpoint in one type. */
struct all {
    struct matrix *items;
    size_t n;
};

static inline void all_items(struct all *a, const struct checkpoint *c, int type)
{
    struct err e = {0};
    OK(checkpoint_matrices(c, &a->items, &a->n, &e), e);
    for (size_t i = 0; i < a->n; i++) {
        assert_true(a->items[i].rows && a->items[i].cols);
        a->items[i].type = gguf_type_of((uint32_t)type);
        a->items[i].coded = false;
    }
}

/* BASE as a GGUF of one type. */
static inline bool write_all(int type, struct err *e)
{
    struct checkpoint *c;
    struct all a;
    if (!checkpoint_open(&c, BASE, e))
        return false;
    all_items(&a, c, type);
    struct export_options o = {.format = EXPORT_GGUF, .file_type = -1};
    bool ok = write_out(OUT, c, a.items, a.n, &o, &(struct export_source){0}, e);
    uint64_t size = 0;
    if (ok) {
        assert_int_equal(os_stat(OUT, &size), OS_FILE);
        assert_int_equal(size_out(c, a.items, a.n, &o, e), size);
    } else {
        assert_true(os_list(DIR_, is_whole, NULL, NULL));
    }
    free(a.items);
    checkpoint_close(&c);
    return ok;
}

static inline struct gguf *written(int type)
{
    struct err e = {0};
    struct gguf *g;
    OK(write_all(type, &e), e);
    OK(gguf_open(&g, OUT, &e), e);
    return g;
}

static inline uint64_t number(const struct gguf *g, const char *key)
{
    struct err e = {0};
    uint64_t v;
    if (gguf_get_u64(g, key, &v, &e) != GGUF_OK)
        fail_msg("no number %s: %s", key, e.msg);
    return v;
}

static inline double real(const struct gguf *g, const char *key)
{
    struct err e = {0};
    double v;
    if (gguf_get_f64(g, key, &v, &e) != GGUF_OK)
        fail_msg("no number %s: %s", key, e.msg);
    return v;
}

static inline void assert_text(const struct gguf *g, const char *key, const char *want)
{
    struct err e = {0};
    struct gguf_string s;
    if (gguf_get_string(g, key, &s, &e) != GGUF_OK)
        fail_msg("no text %s: %s", key, e.msg);
    assert_int_equal(s.size, strlen(want));
    assert_memory_equal(s.text, want, s.size);
}

#endif
