/* A model in the folder BASE, written as the GGUF at OUT, both in DIR_, and what its header says. The test program defines
 * all three before it includes this. */
#ifndef TESTS_WRITTEN_GGUF_H
#define TESTS_WRITTEN_GGUF_H

#include "formats/write/write_gguf.h"
#include "tests/check.h"

/* Every file has its final name. */
static inline bool is_whole(void *ctx, const char *name, struct err *e)
{
    (void)ctx;
    return !strstr(name, ".gsq-tmp") || err_set(e, ERR_BUG, "%s was left behind", name);
}

/* Every weight of a checkpoint in one type. */
struct all {
    struct gguf_item items[64];
    char names[64][96];
    size_t n;
    const struct gguf_type *type;
};

static inline bool add_weight(void *ctx, const char *module, uint32_t rows, uint32_t cols)
{
    struct all *a = ctx;
    assert_true(a->n < 64 && rows && cols);
    snprintf(a->names[a->n], sizeof a->names[0], "%s", module);
    a->items[a->n] = (struct gguf_item){.module = a->names[a->n], .type = a->type};
    a->n++;
    return true;
}

static inline void all_items(struct all *a, const struct checkpoint *c, int type)
{
    *a = (struct all){.type = gguf_type_of((uint32_t)type)};
    assert_true(gguf_weights_each(c, add_weight, a));
}

/* BASE as a GGUF of one type. */
static inline bool write_all(int type, struct err *e)
{
    struct checkpoint *c;
    struct all a;
    if (!checkpoint_open(&c, BASE, e))
        return false;
    all_items(&a, c, type);
    struct gguf_options o = {.file_type = -1};
    bool ok = write_gguf(OUT, c, a.items, a.n, &o, &(struct gguf_source){0}, e);
    uint64_t size = 0;
    if (ok) {
        assert_int_equal(os_stat(OUT, &size), OS_FILE);
        assert_int_equal(write_gguf_size(c, a.items, a.n, &o, e), size);
    } else {
        assert_true(os_list(DIR_, is_whole, NULL, NULL));
    }
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
