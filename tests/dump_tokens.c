/* Tokenizers on the command line, for comparing them with other programs' (tests/tokenizers_hf.sh):
 *
 * - dump_tokens TOKENIZER TEXT...: of a tokenizer.json, a folder or a GGUF {"ids":[...]} for each text, a
 * line each. A folder and a GGUF say what BOS stands in front.
 * - dump_tokens --pieces TOKENIZER.json TEXT: [...], characters of the words that the pre-tokenizer cuts.
 * - dump_tokens --folder GGUF DIR: writes the tokenizer of a GGUF as a folder.
 * - dump_tokens --gguf DIR ROWS GGUF: writes the tokenizer of a folder as a GGUF, for an embedding of ROWS
 * rows.
 * - dump_tokens --names: the pre-tokenizers that a GGUF can name.
 *
 * Exit 2, with a message: refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/gguf_export.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/tokenizer_parts.h"
#include "formats/tokenizer/tokenizer_pre.h"
#include "host/base/os.h"

enum { FILE_MAX = 512 << 20 };

static bool read_tokenizer(struct tokenizer **t, const char *path, struct err *e)
{
    char *text;
    size_t size, n = strlen(path);
    if (n < 5 || strcmp(path + n - 5, ".json") != 0)
        return tokenizer_load(t, path, e);
    if (!os_read_file(path, FILE_MAX, &text, &size, e))
        return false;
    bool ok = tokenizer_parse(t, text, size, path, e);
    free(text);
    return ok;
}

static bool dump(char **args, int n, struct err *e)
{
    struct tokenizer *t = NULL;
    bool ok = read_tokenizer(&t, args[0], e);
    for (int i = 1; i < n && ok; i++) {
        char *text = NULL;
        size_t size, count;
        uint32_t *ids = NULL;
        ok = os_read_file(args[i], FILE_MAX, &text, &size, e) && tokenizer_encode(t, text, size, &ids, &count, e);
        printf(ok ? "{\"ids\":[" : "");
        for (size_t k = 0; ok && k < count; k++)
            printf("%s%u", k ? "," : "", (unsigned)ids[k]);
        printf(ok ? "]}\n" : "");
        free(ids);
        free(text);
    }
    if (t)
        tokenizer_destroy(&t);
    return ok;
}

static bool dump_pieces(char **args, struct err *e)
{
    char *json = NULL, *text = NULL;
    size_t size, bad;
    struct step_list steps = {0};
    struct match_work w = {0};
    struct pieces p = {0};
    cJSON *root = NULL;
    bool ok = os_read_file(args[0], FILE_MAX, &json, &size, e) && (root = json_parse(json, size, args[0], e)) != NULL &&
              pretokenizers_parse(&steps, json_get(root, "pre_tokenizer"), args[0], e) &&
              os_read_file(args[1], FILE_MAX, &text, &size, e) && match_work_create(&w, e);
    ok = ok && (utf8_valid(text, size, &bad) || err_set(e, ERR_USER, "%s is not UTF-8", args[1]));
    if (ok)
        strbuf_add(&p.text, text, size);
    ok = ok && pretokenize(&steps, &w, &p, AT_FIRST, e);
    printf(ok ? "[" : "");
    for (size_t i = 0; ok && i < p.n; i++) {
        size_t n = 0;
        for (size_t k = p.list[i].begin; k < p.list[i].end; k++)
            n += ((uint8_t)p.text.data[k] & 0xC0) != 0x80;
        printf("%s%zu", i ? "," : "", n);
    }
    printf(ok ? "]\n" : "");
    pieces_free(&p);
    match_work_free(&w);
    steps_free(&steps);
    cJSON_Delete(root);
    free(json);
    free(text);
    return ok;
}

static bool write_in(const char *dir, const char *name, const struct strbuf *b, struct err *e)
{
    char path[4096];
    return os_path_join(path, sizeof path, dir, name, e) && os_write_file(path, b->data, b->size, e);
}

static bool write_folder(char **args, struct err *e)
{
    struct gguf *g = NULL;
    struct strbuf json = {0}, config = {0};
    bool ok = gguf_open(&g, args[0], e) && tokenizer_json_from_gguf(&json, &config, g, args[0], e) &&
              os_mkdirs(args[1], e) && write_in(args[1], "tokenizer.json", &json, e) &&
              write_in(args[1], "tokenizer_config.json", &config, e);
    if (g)
        gguf_close(&g);
    strbuf_free(&json);
    strbuf_free(&config);
    return ok;
}

static bool write_gguf(char **args, struct err *e)
{
    struct key_list k = {.keys = gguf_keys_create()};
    struct gguf_writer *w;
    if (!k.keys)
        return err_nomem(e, "keys", 1);
    gguf_add_string(k.keys, "general.architecture", "llama", 5);
    bool ok = gguf_export_tokenizer(&k, args[0], (uint32_t)strtoul(args[1], NULL, 10), e) &&
              gguf_writer_open(&w, args[2], k.keys, NULL, 0, e) && gguf_writer_close(&w, e);
    gguf_keys_destroy(&k.keys);
    return ok;
}

static void print_names(void)
{
    char name[TOKENIZER_PRE_NAME];
    for (size_t i = 0; tokenizer_pre_at(i); i++) {
        tokenizer_pre_name(tokenizer_pre_at(i), name);
        puts(name);
    }
}

int main(int argc, char **argv)
{
    struct err e = {0};
    bool ok = true;
    if (argc == 2 && strcmp(argv[1], "--names") == 0)
        print_names();
    else if (argc == 4 && strcmp(argv[1], "--pieces") == 0)
        ok = dump_pieces(argv + 2, &e);
    else if (argc == 4 && strcmp(argv[1], "--folder") == 0)
        ok = write_folder(argv + 2, &e);
    else if (argc == 5 && strcmp(argv[1], "--gguf") == 0)
        ok = write_gguf(argv + 2, &e);
    else if (argc >= 3 && argv[1][0] != '-')
        ok = dump(argv + 1, argc - 1, &e);
    else
        ok = err_set(&e, ERR_USER, "see the beginning of tests/dump_tokens.c");
    if (!ok)
        fprintf(stderr, "dump_tokens: %s\n", e.msg);
    return ok ? 0 : e.kind == ERR_USER ? 2 : e.kind == ERR_ENV ? 3 : 4;
}
