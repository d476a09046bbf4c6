/* The safetensors writer against golden bytes, the reader against every way a file can be wrong. */
#include "formats/hf/hf_config.h"
#include "formats/hf/safetensors.h"
#include "host/base/num.h"

#define DIR_ "tmp_safetensors"
#include "tests/scratch_dir.h"

static void write_file(const char *name, const void *data, size_t size)
{
    char path[256];
    struct err e = {0};
    assert_true(os_path_join(path, sizeof path, DIR_, name, &e));
    assert_true(os_write_file(path, data, size, &e));
}

/* Length, header and n_data bytes 0, 1, 2 ... as a file. */
static void write_tensors(const char *name, const char *header, size_t n_data)
{
    size_t len = strlen(header);
    uint8_t *file = malloc(8 + len + n_data);
    assert_non_null(file);
    store_u64le(file, len);
    memcpy(file + 8, header, len);
    for (size_t i = 0; i < n_data; i++)
        file[8 + len + i] = (uint8_t)i;
    write_file(name, file, 8 + len + n_data);
    free(file);
}

static void writer_golden(void **state)
{
    (void)state;
    static const char expected[] = "\xA0\0\0\0\0\0\0\0"
                                   "{\"__metadata__\":{\"format\":\"pt\",\"q\":\"\\\"\\u0001\"},"
                                   "\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                                   "\"b.c\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[3,5]}}       "
                                   "\1\2\3\4\5";
    static const char *const metadata[][2] = {{"format", "pt"}, {"q", "\"\1"}};
    static const struct tensor_plan plan[] = {{"a", DTYPE_U8, 1, {3}}, {"b.c", DTYPE_F16, 0, {0}}};
    struct err e = {0};
    struct safetensors_writer *w;
    assert_true(safetensors_writer_open(&w, DIR_ "/golden.safetensors", plan, 2, metadata, 2, &e));
    assert_true(safetensors_writer_put(w, "\1\2\3\4", 4, &e));
    assert_int_equal(os_stat(DIR_ "/golden.safetensors", NULL), OS_ABSENT); /* not before it is whole */
    assert_true(safetensors_writer_put(w, "\5", 1, &e));
    assert_true(safetensors_writer_close(&w, &e));
    assert_null(w);
    assert_true(only_whole_files());

    char *bytes;
    size_t size;
    assert_true(os_read_file(DIR_ "/golden.safetensors", 1000, &bytes, &size, &e));
    assert_int_equal(size, sizeof expected - 1);
    assert_memory_equal(bytes, expected, size);
    free(bytes);

    struct safetensors *s;
    assert_true(safetensors_open_file(&s, DIR_ "/golden.safetensors", &e));
    assert_int_equal(safetensors_count(s), 2);
    assert_string_equal(safetensors_metadata(s, "format"), "pt");
    assert_string_equal(safetensors_metadata(s, "q"), "\"\1");
    assert_null(safetensors_metadata(s, "Format"));
    const struct tensor *t = safetensors_find(s, "b.c");
    assert_non_null(t);
    assert_int_equal(t->dtype, DTYPE_F16);
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->bytes, 2);
    assert_memory_equal(t->data, "\4\5", 2);
    assert_ptr_equal(safetensors_at(s, 1), t);
    assert_null(safetensors_at(s, 2));
    assert_null(safetensors_find(s, "b"));
    assert_string_equal(safetensors_path(s, t), DIR_ "/golden.safetensors");
    safetensors_drop(s, t);
    safetensors_close(&s);
    assert_null(s);
}

/* Bytes that are left for later come in any order, beside those that come in turn; parts of tensors are found by their names. */
static void writer_places(void **state)
{
    (void)state;
    static const struct tensor_plan plan[] = {
        {"a", DTYPE_U8, 1, {2}}, {"b", DTYPE_U8, 2, {2, 3}}, {"c", DTYPE_U8, 1, {1}}};
    struct err e = {0};
    struct safetensors_writer *w;
    struct safetensors *s;
    uint64_t at = 0;
    OK(safetensors_writer_open(&w, DIR_ "/placed", plan, 3, NULL, 0, &e), e);
    OK(safetensors_writer_put(w, "\1\2", 2, &e), e);
    FAILS(safetensors_writer_leave(w, 8, &at, &e), e, ERR_BUG, "cannot be left");
    OK(safetensors_writer_leave(w, 6, &at, &e), e);
    assert_int_equal(at, 2);
    OK(safetensors_writer_put_at(w, at + 3, "\6\7\10", 3, &e), e);
    OK(safetensors_writer_put(w, "\11", 1, &e), e);
    OK(safetensors_writer_put_at(w, at, "\3\4\5", 3, &e), e);
    FAILS(safetensors_writer_put_at(w, 9, "\1", 1, &e), e, ERR_BUG, "were not left");
    OK(safetensors_writer_close(&w, &e), e);
    OK(safetensors_open_file(&s, DIR_ "/placed", &e), e);
    assert_memory_equal(safetensors_find(s, "a")->data, "\1\2\3\4\5\6\7\10\11", 9);
    const struct tensor *b = safetensors_find(s, "b");
    const struct tensor view = {
        .name = "b.1", .dtype = DTYPE_U8, .n_dims = 1, .shape = {3}, .data = b->data + 3, .bytes = 3};
    assert_null(safetensors_find(s, "b.1"));
    OK(safetensors_add_view(s, &view, &e), e);
    assert_ptr_equal(safetensors_find(s, "b.1"), &view);
    assert_ptr_equal(safetensors_find(s, "b"), b);
    assert_int_equal(safetensors_count(s), 3);
    FAILS(safetensors_add_view(s, &view, &e), e, ERR_BUG, "there already");
    safetensors_close(&s);

    static const char *const summed[][2] = {{SAFETENSORS_CHECKSUM, SAFETENSORS_NO_SUM_YET}};
    OK(safetensors_writer_open(&w, DIR_ "/summed", plan, 1, summed, 1, &e), e);
    FAILS(safetensors_writer_leave(w, 1, &at, &e), e, ERR_BUG, "cannot be left");
    safetensors_writer_abort(&w);
    /* A byte that never came. */
    OK(safetensors_writer_open(&w, DIR_ "/hole", plan, 1, NULL, 0, &e), e);
    OK(safetensors_writer_leave(w, 2, &at, &e), e);
    OK(safetensors_writer_put_at(w, 1, "\2", 1, &e), e);
    FAILS(safetensors_writer_close(&w, &e), e, ERR_BUG, "1 bytes of 2");
    assert_true(only_whole_files());
}

static void writer_refuses(void **state)
{
    (void)state;
    static const struct tensor_plan plan[] = {{"a", DTYPE_U8, 1, {3}}};
    static const struct tensor_plan twice[] = {{"a", DTYPE_U8, 1, {3}}, {"a", DTYPE_U8, 1, {3}}};
    static const struct tensor_plan other[] = {{"a", DTYPE_OTHER, 1, {3}}};
    static const struct tensor_plan huge[] = {{"a", DTYPE_F32, 2, {UINT64_MAX, 2}}};
    struct err e = {0};
    struct safetensors_writer *w;
    assert_true(safetensors_writer_open(&w, DIR_ "/w", plan, 1, NULL, 0, &e));
    assert_true(safetensors_writer_put(w, "12", 2, &e));
    assert_false(safetensors_writer_put(w, "34", 2, &e)); /* too much */
    assert_int_equal(e.kind, ERR_BUG);
    assert_false(safetensors_writer_close(&w, &e)); /* too little */
    assert_int_equal(e.kind, ERR_BUG);
    assert_null(w);
    assert_int_equal(os_stat(DIR_ "/w", NULL), OS_ABSENT);
    assert_true(only_whole_files());

    assert_true(safetensors_writer_open(&w, DIR_ "/w", plan, 1, NULL, 0, &e));
    safetensors_writer_abort(&w);
    assert_true(only_whole_files());

    assert_false(safetensors_writer_open(&w, DIR_ "/w", twice, 2, NULL, 0, &e));
    assert_non_null(strstr(e.msg, "planned twice"));
    assert_false(safetensors_writer_open(&w, DIR_ "/w", other, 1, NULL, 0, &e));
    assert_false(safetensors_writer_open(&w, DIR_ "/w", huge, 1, NULL, 0, &e));
    assert_false(safetensors_writer_open(&w, DIR_ "/absent/w", plan, 1, NULL, 0, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, DIR_ "/absent/w"));

    /* A model without tensors is still a file. */
    assert_true(safetensors_writer_open(&w, DIR_ "/w", NULL, 0, NULL, 0, &e));
    assert_true(safetensors_writer_close(&w, &e));
    struct safetensors *s;
    assert_true(safetensors_open_file(&s, DIR_ "/w", &e));
    assert_int_equal(safetensors_count(s), 0);
    safetensors_close(&s);
}

/* Headers that are wrong: with n_data bytes behind them, the message must hold `says`. */
static const struct {
    const char *header;
    uint64_t n_data;
    const char *says;
} malformed[] = {
    {"", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"{", 0, "not valid JSON"},
    {"{} x", 0, "not valid JSON"},
    {"{\"a\":\xFF}", 0, "not UTF-8"},
    {"{\"a\\u0000\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "NUL"},
    {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "name is empty"},
    {"{\"a\\n\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "control characters"},
    {"{\"a\":[]}", 0, "not described by an object"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\"dtype\" is missing"},
    {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\"dtype\" is missing or not"},
    {"{\"a\":{\"DTYPE\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\"dtype\" is missing"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "\"shape\" is missing"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "not a whole number"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0.5],\"data_offsets\":[0,1]}}", 1, "not a whole number"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}", 1, "not a whole number"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "8 dimensions"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,1]}}", 1, "impossibly large"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,1]}}", 1, "impossibly large"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9007199254740992],\"data_offsets\":[0,1]}}", 1, "not a whole number"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,3]}}", 3, "ask for 4 bytes, data_offsets give 3"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1e300]}}", 1, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "ends before it begins"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1, "the file holds only 1"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "twice"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     2, "occurs twice in the file"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     3, "\"a\" and \"b\" overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
     3, "hole of 1 bytes before tensor \"b\""},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "hole of 1 bytes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 3, "2 bytes at the end"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ that is not an object"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ value"},
    {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, "same __metadata__ key twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ twice"},
};

static void reader_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        struct tensor_table *t;
        struct err e = {0};
        assert_true(tensor_table_create(&t, &e));
        bool ok = safetensors_parse_header(t, malformed[i].header, strlen(malformed[i].header), NULL,
                                           malformed[i].n_data, 0, "x.safetensors", &e);
        if (ok || !strstr(e.msg, malformed[i].says) || !strstr(e.msg, "x.safetensors") || !e.hint[0])
            fail_msg("%s: expected \"%s\", got \"%s\" (%s)", malformed[i].header, malformed[i].says, e.msg, e.hint);
        assert_int_equal(e.kind, ERR_USER);
        tensor_table_destroy(&t);
    }
}

static void reader_accepts(void **state)
{
    (void)state;
    /* Any order in the header, empty tensors, unknown dtypes and keys, spaces at the end. */
    static const char header[] = "{\"b\":{\"dtype\":\"I32\",\"shape\":[1,1],\"data_offsets\":[3,7]},"
                                 "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[3,3]},"
                                 "\"a\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[0,3],\"x\":null}}  ";
    static const uint8_t data[7] = {0};
    struct tensor_table *t;
    struct err e = {0};
    assert_true(tensor_table_create(&t, &e));
    assert_true(safetensors_parse_header(t, header, sizeof header - 1, data, 7, 0, "x", &e));
    assert_int_equal(tensor_table_count(t), 3);
    assert_string_equal(tensor_table_at(t, 0)->name, "a");
    assert_int_equal(tensor_table_at(t, 0)->dtype, DTYPE_OTHER);
    assert_string_equal(tensor_table_at(t, 0)->stored_dtype, "F4");
    assert_string_equal(tensor_table_at(t, 1)->name, "empty");
    assert_int_equal(tensor_table_at(t, 1)->bytes, 0);
    const struct tensor *b = tensor_table_find(t, "b");
    assert_ptr_equal(b, tensor_table_at(t, 2));
    assert_ptr_equal(b->data, data + 3);
    assert_int_equal(b->n_dims, 2);
    /* The same name in a second file is an error. */
    static const char again[] = "{\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
    assert_false(safetensors_parse_header(t, again, sizeof again - 1, NULL, 0, 1, "y", &e));
    assert_non_null(strstr(e.msg, "another file"));
    tensor_table_destroy(&t);
}

static void expect_file_error(const char *name, const char *says)
{
    char path[256];
    struct err e = {0};
    struct safetensors *s;
    assert_true(os_path_join(path, sizeof path, DIR_, name, &e));
    assert_false(safetensors_open_file(&s, path, &e));
    assert_null(s);
    if (!strstr(e.msg, says) || !strstr(e.msg, name) || !e.hint[0])
        fail_msg("expected \"%s\", got \"%s\" (%s)", says, e.msg, e.hint);
}

static void file_lengths(void **state)
{
    (void)state;
    write_file("short", "1234567", 7);
    expect_file_error("short", "7 bytes: too short");
    write_file("empty", "", 0);
    expect_file_error("empty", "0 bytes: too short");
    write_file("huge", "\0\0\0\0\0\0\0\x80{}", 10); /* 2^63 */
    expect_file_error("huge", "header of 9223372036854775808 bytes (at most 100 MB");
    write_file("long", "\3\0\0\0\0\0\0\0{}", 10);
    expect_file_error("long", "header of 3 bytes (more than the file holds)");
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    write_file("pointer", lfs, sizeof lfs - 1);
    expect_file_error("pointer", "Git LFS pointer");
    write_file("pickle", "\x80\2}q\1.", 7);
    expect_file_error("pickle", "Python pickle");
    /* Header lengths whose first two bytes are the magic of a pickle or of gzip. */
    static const size_t like_magic[] = {0x280, 0x480, 0x8b1f};
    for (size_t i = 0; i < 3; i++) {
        char *header = malloc(like_magic[i] + 1);
        assert_non_null(header);
        memset(header, ' ', like_magic[i]);
        memcpy(header, "{}", 2);
        header[like_magic[i]] = 0;
        write_tensors("magic", header, 0);
        free(header);
        struct err e = {0};
        struct safetensors *file;
        assert_true(safetensors_open_file(&file, DIR_ "/magic", &e));
        safetensors_close(&file);
    }
    expect_file_error("absent", "cannot open");
    /* A download that stopped: the header is whole, the data is not. */
    write_tensors("cut", "{\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]}}", 8);
    expect_file_error("cut", "ends at byte 9 of the data, but the file holds only 8");
}

static void write_index(const char *text)
{
    write_file("model.safetensors.index.json", text, strlen(text));
}

static void expect_dir_error(const char *says)
{
    struct err e = {0};
    struct safetensors *s;
    assert_false(safetensors_open_dir(&s, DIR_, &e));
    assert_null(s);
    if (!strstr(e.msg, says) || !e.hint[0])
        fail_msg("expected \"%s\", got \"%s\" (%s)", says, e.msg, e.hint);
}

static void folders(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors *s;
    assert_false(safetensors_open_dir(&s, DIR_ "/none", &e));
    assert_non_null(strstr(e.msg, "not a folder"));
    expect_dir_error("has no model.safetensors");

    write_tensors("model.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    assert_true(safetensors_open_dir(&s, DIR_, &e));
    assert_int_equal(safetensors_count(s), 1);
    safetensors_close(&s);

    write_tensors("s-2.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    write_tensors("s-1.safetensors",
                  "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                  "\"c\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
                  3);
    write_index("{\"metadata\":{\"total_size\":5},\"weight_map\":{\"a\":\"s-2.safetensors\","
                "\"c\":\"s-1.safetensors\",\"b\":\"s-1.safetensors\"}}");
    assert_true(safetensors_open_dir(&s, DIR_, &e));
    assert_int_equal(safetensors_count(s), 3);
    assert_string_equal(safetensors_at(s, 0)->name, "b"); /* by file, then by offset */
    assert_string_equal(safetensors_at(s, 2)->name, "a");
    const struct tensor *c = safetensors_find(s, "c");
    assert_string_equal(safetensors_path(s, c), DIR_ "/s-1.safetensors");
    assert_memory_equal(c->data, "\1\2", 2);
    safetensors_close(&s);

    write_index("{\"weight_map\":{\"a\":\"s-1.safetensors\",\"b\":\"s-2.safetensors\"}}");
    expect_dir_error("tensor \"a\" should be in s-1.safetensors, but it is in s-2.safetensors");
    write_index("{\"weight_map\":{\"d\":\"s-1.safetensors\"}}");
    expect_dir_error("tensor \"d\" should be in s-1.safetensors, but it is in none");
    write_index("{\"weight_map\":{\"a\":\"s-3.safetensors\"}}");
    expect_dir_error("the shard " DIR_ "/s-3.safetensors is missing");
}

static void index_refuses(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "not valid JSON"},
        {"{\"weight_map\":", "not valid JSON"},
        {"[]", "missing or not an object"},
        {"{}", "missing or not an object"},
        {"{\"weight_map\":[]}", "missing or not an object"},
        {"{\"weight_map\":{}}", "is empty"},
        {"{\"weight_map\":{\"a\":1}}", "not mapped to a file name"},
        {"{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}", "twice"},
        {"{\"weight_map\":{\"a\":\"../x\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"d/x\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"d\\\\x\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"c:x\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"x\\u0007\"}}", "control characters"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct safetensors_index x;
        struct err e = {0};
        bool ok = safetensors_index_parse(&x, bad[i][0], strlen(bad[i][0]), "index.json", &e);
        if (ok || !strstr(e.msg, bad[i][1]) || !strstr(e.msg, "index.json") || !e.hint[0])
            fail_msg("%s: expected \"%s\", got \"%s\"", bad[i][0], bad[i][1], e.msg);
    }
}

/* Real folders: the tensors that every llama has, with the shapes that config.json announces. */
static void real_models(void **state)
{
    (void)state;
    static const char *const models[] = {"stories260K", "TinyStories-656K", "oak-2.9M", "TinyStories-656K-moe-8x"};
    const char *source = os_getenv("GSQ_SOURCE");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char dir[2048], path[4096], *text;
        size_t size;
        struct err e = {0};
        struct model_config c;
        struct safetensors *s;
        snprintf(dir, sizeof dir, "%s/../shared/models/%s", source ? source : ".", models[i]);
        if (os_stat(dir, NULL) != OS_DIR) {
            print_message("skipped: ../shared is absent\n");
            skip();
        }
        assert_true(os_path_join(path, sizeof path, dir, "config.json", &e));
        assert_true(os_read_file(path, 1u << 20, &text, &size, &e));
        if (!hf_config_parse(&c, text, size, path, &e) || !safetensors_open_dir(&s, dir, &e))
            fail_msg("%s", e.msg);
        free(text);
        const struct tensor *t = safetensors_find(s, "model.embed_tokens.weight");
        if (!t && c.tie_word_embeddings) /* either name may stand for both */
            t = safetensors_find(s, "lm_head.weight");
        assert_non_null(t);
        assert_int_equal(t->n_dims, 2);
        assert_int_equal(t->shape[0], c.vocab_size);
        assert_int_equal(t->shape[1], c.hidden_size);
        t = safetensors_find(s, "model.layers.0.self_attn.k_proj.weight");
        assert_non_null(t);
        assert_int_equal(t->shape[0], c.num_kv_heads * c.head_dim);
        assert_int_equal(t->bytes, t->shape[0] * t->shape[1] * dtype_size(t->dtype));
        config_free(&c);
        safetensors_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writer_golden, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(writer_places, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(writer_refuses, make_dir, remove_dir),
        cmocka_unit_test(reader_refuses),
        cmocka_unit_test(reader_accepts),
        cmocka_unit_test_setup_teardown(file_lengths, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(folders, make_dir, remove_dir),
        cmocka_unit_test(index_refuses),
        cmocka_unit_test(real_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
