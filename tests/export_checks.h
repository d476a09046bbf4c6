/* What the tests of exports share: a mixed plan, and checks of the folders that write_hf wrote. */
#ifndef TESTS_EXPORT_CHECKS_H
#define TESTS_EXPORT_CHECKS_H

#include "formats/read/tensor_values.h"
#include "tests/tiny_model.h"

static inline char *read_text(const char *dir, const char *name)
{
    struct err e = {0};
    char path[512], *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(os_read_file(path, 1u << 26, &text, &size, &e), e);
    return text;
}

/* The text of a member of quantization_config, without the blanks. */
static inline void assert_config_has(const char *dir, const char *part)
{
    char *text = read_text(dir, "config.json"), *to = text;
    for (const char *from = text; *from; from++)
        if (*from != ' ' && *from != '\n')
            *to++ = *from;
    *to = 0;
    if (!strstr(text, part))
        fail_msg("no %s in %s", part, text);
    free(text);
}

/* down_proj in 4 bits, group 64; k_proj of block 1 in 3 bits; q_proj of block 0 and both gates and ups in 16
 * bits. */
static inline void mixed(struct items *x)
{
    struct items all;
    items_all(&all, "2", 32, SCALE_F16);
    x->n = 0;
    for (size_t i = 0; i < all.n; i++) {
        struct matrix item = all.items[i];
        if (i == 0 || i % 7 == 4 || i % 7 == 5)
            continue;
        if (i % 7 == 6)
            item.spec = (struct quant_spec){quant_type_find("4"), 64, SCALE_F16};
        if (i == 8)
            item.spec.type = quant_type_find("3");
        x->items[x->n++] = item;
    }
}

static inline void check_codes(const char *dir, const struct items *x)
{
    struct checkpoint *c = open_ok(dir);
    struct err e = {0};
    for (size_t i = 0; i < x->n; i++) {
        struct qlinear want, got;
        OK(random_linear(NULL, &x->items[i], &want, &e), e);
        OK(checkpoint_read_codes(c, x->items[i].module, &got, &e), e);
        assert_same_codes(&got, &want, x->items[i].module);
        qlinear_free(&want);
        qlinear_free(&got);
    }
    checkpoint_close(&c);
}

/* Every tensor that is not quantized is there, with its bytes (or converted). */
static inline void check_rest(const char *src, const char *dir, const struct items *x, enum dtype dtype)
{
    struct err e = {0};
    struct safetensors *a, *b;
    OK(safetensors_open_dir(&a, src, &e), e);
    OK(safetensors_open_dir(&b, dir, &e), e);
    size_t kept = 0;
    for (size_t i = 0; i < safetensors_count(a); i++) {
        const struct tensor *t = safetensors_at(a, i), *u = safetensors_find(b, t->name);
        bool quantized = false;
        for (size_t k = 0; k < x->n; k++) {
            size_t n = strlen(x->items[k].module);
            quantized |= strncmp(t->name, x->items[k].module, n) == 0 && strcmp(t->name + n, ".weight") == 0;
        }
        if (quantized)
            continue;
        kept++;
        if (!u)
            fail_msg("%s is gone", t->name);
        assert_int_equal(u->dtype, dtype);
        assert_int_equal(u->n_dims, t->n_dims);
        assert_memory_equal(u->shape, t->shape, t->n_dims * sizeof t->shape[0]);
        if (t->dtype == dtype)
            assert_memory_equal(u->data, t->data, t->bytes);
        for (uint64_t k = 0; k < t->bytes / dtype_size(t->dtype); k++) {
            float v, w;
            OK(tensor_read_f32(t, k, 1, &v, &e), e);
            OK(tensor_read_f32(u, k, 1, &w, &e), e);
            assert_float_equal(w, scale_round(dtype == DTYPE_F16 ? SCALE_F16 : SCALE_BF16, v), 0);
        }
    }
    assert_true(kept >= 2 * LAYERS + 2);
    safetensors_close(&a);
    safetensors_close(&b);
}

#endif
