#include "formats/foreign.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "host/base/os.h"

static bool starts(const void *bytes, size_t n, const char *text)
{
    size_t m = strlen(text);
    return n >= m && memcmp(bytes, text, m) == 0;
}

/* The same without regard to case, after white space. */
static bool starts_page(const char *s, size_t n, const char *text)
{
    while (n && isspace((unsigned char)*s)) {
        s++;
        n--;
    }
    size_t i = 0;
    while (i < n && text[i] && tolower((unsigned char)s[i]) == text[i])
        i++;
    return !text[i];
}

/* A header's length below 4 GiB and its brace. The length may look like any magic of two or four bytes. */
static bool is_safetensors(const void *bytes, size_t n)
{
    return n > 8 && memcmp((const char *)bytes + 4, "\0\0\0\0{", 5) == 0;
}

bool foreign_file(const char *path, const void *bytes, size_t n, struct err *e)
{
    const char *what = NULL, *hint = NULL;
    if (is_safetensors(bytes, n))
        return false;
    if (starts(bytes, n, "version https://git-lfs.github.com/spec/")) {
        what = "a Git LFS pointer, not the file itself";
        hint = "run `git lfs pull` in its folder, or download the file";
    } else if (starts_page(bytes, n, "<!doctype html") || starts_page(bytes, n, "<html")) {
        what = "a web page, not the file itself";
        hint = "the download was refused or led elsewhere: download the file again, logged in if the model asks for it";
    } else if (starts(bytes, n, "PK\3\4")) {
        what = "a zip archive: PyTorch's format, or a packed folder";
        hint = "unpack it, or save the model as safetensors: in transformers, model.save_pretrained(FOLDER)";
    } else if (starts(bytes, n, "\x80\2") || starts(bytes, n, "\x80\4")) {
        what = "a Python pickle: PyTorch's older format";
        hint = "save the model as safetensors: in transformers, model.save_pretrained(FOLDER)";
    } else if (starts(bytes, n, "\x1f\x8b") || starts(bytes, n, "\x28\xB5\x2F\xFD")) {
        what = "compressed";
        hint = "unpack it first";
    } else if (starts(bytes, n, "GGUF")) {
        what = "a GGUF file";
        hint = "name the file itself as the model";
    } else {
        return false;
    }
    err_set(e, ERR_USER, "%s is %s", path, what);
    err_hint(e, "%s", hint);
    return true;
}

/* What one meets in folders of models, in the order in which it is worth naming. */
enum kind { ADAPTER, GGUF_FILE, MAKERS, PYTORCH, OTHER_FRAMEWORK, SAFETENSORS, N_KINDS };

struct seen {
    char name[N_KINDS][160]; /* the first of each kind by name; "": none */
    unsigned count[N_KINDS];
};

static bool ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static int kind_of(const char *name)
{
    if (strcmp(name, "adapter_config.json") == 0 || strncmp(name, "adapter_model.", 14) == 0)
        return ADAPTER;
    if (ends(name, ".gguf") || ends(name, ".GGUF"))
        return GGUF_FILE;
    if (strcmp(name, "params.json") == 0 || (strncmp(name, "consolidated", 12) == 0 && strchr(name, '.')))
        return MAKERS;
    if (ends(name, ".bin") || ends(name, ".pth") || ends(name, ".pt") || ends(name, ".ckpt"))
        return PYTORCH;
    if (ends(name, ".h5") || ends(name, ".msgpack") || ends(name, ".onnx") || ends(name, ".npz"))
        return OTHER_FRAMEWORK;
    return ends(name, ".safetensors") ? SAFETENSORS : N_KINDS;
}

static bool look(void *ctx, const char *name, struct err *e)
{
    struct seen *s = ctx;
    int k = kind_of(name);
    (void)e;
    if (k == N_KINDS)
        return true;
    s->count[k]++;
    if (!s->name[k][0] || strcmp(name, s->name[k]) < 0)
        snprintf(s->name[k], sizeof s->name[k], "%.150s", name);
    return true;
}

bool foreign_folder(const char *dir, const char *wanted, struct err *e)
{
    static const char *const what[N_KINDS] = {
        [ADAPTER] = "holds an adapter (LoRA), not a model",
        [GGUF_FILE] = "holds a GGUF file",
        [MAKERS] = "holds a model in its maker's own layout",
        [PYTORCH] = "holds PyTorch files",
        [OTHER_FRAMEWORK] = "holds the model for another framework",
        [SAFETENSORS] = "holds safetensors under other names",
    };
    static const char *const hints[N_KINDS] = {
        [ADAPTER] = "merge it into its base model first: in peft, model.merge_and_unload().save_pretrained(FOLDER)",
        [GGUF_FILE] = "name the file itself as the model",
        [MAKERS] =
            "gsq reads Hugging Face's layout (config.json, model.safetensors): download that, or convert it with "
            "the scripts of transformers",
        [PYTORCH] = "save it as safetensors first: in transformers, AutoModelForCausalLM.from_pretrained(FOLDER)"
                    ".save_pretrained(OTHER)",
        [OTHER_FRAMEWORK] = "gsq reads safetensors: download the model's safetensors",
        [SAFETENSORS] = "gsq reads model.safetensors, or model-00001-of-0000N.safetensors with or without their index",
    };
    struct seen s = {0};
    os_list(dir, look, &s, NULL);
    for (int k = 0; k < N_KINDS; k++) {
        if (!s.count[k] || (k == SAFETENSORS && strcmp(wanted, "config.json") == 0))
            continue;
        if (s.count[k] > 1)
            err_set(e, ERR_USER, "%s has no %s; it %s: %s and %u more", dir, wanted, what[k], s.name[k],
                    s.count[k] - 1);
        else
            err_set(e, ERR_USER, "%s has no %s; it %s: %s", dir, wanted, what[k], s.name[k]);
        return err_hint(e, "%s", hints[k]);
    }
    err_set(e, ERR_USER, "%s has no %s", dir, wanted);
    return err_hint(e, "MODEL is a Hugging Face folder: config.json, model.safetensors, tokenizer.json");
}
