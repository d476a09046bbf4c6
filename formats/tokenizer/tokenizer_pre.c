/* Pre-tokenizers that tokenizer.ggml.pre has names for: one table, for both directions. */
#include "formats/tokenizer/tokenizer_pre.h"

#include <string.h>

/* Regular expressions, as C spells their JSON. */
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS       "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)"
#define SPACES      "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SIGNS       "| ?[^\\\\s\\\\p{L}\\\\p{N}]+"
#define NO_WORD     "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define DIGITS      "\\\\p{N}{1,3}"
/* Llama 3's and those like it; GPT-4o's, where a capital begins a word. */
#define LATER(digits) CONTRACTION "|" NO_WORD "\\\\p{L}+|" digits SIGNS "[\\\\r\\\\n]*" SPACES
#define UPPER         "\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}"
#define LOWER         "\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}"
#define CASED(not_han, end)                                                                                            \
    NO_WORD "[" UPPER not_han "]*[" LOWER not_han "]+" end "|" NO_WORD "[" UPPER not_han "]+[" LOWER not_han "]*" end  \
            "|"
#define NOT_HAN "&&[^\\\\p{Han}]"
#define DEEPSEEK_LETTERS                                                                                               \
    "\\\\s?[A-Za-z\\u00B5\\u00C0-\\u00D6\\u00D8-\\u00F6\\u00F8-\\u01BA\\u01BC-\\u01BF\\u01C4-\\u0293"                  \
    "\\u0295-\\u02AF\\u0370-\\u0373\\u0376\\u0377\\u037B-\\u037D\\u037F\\u0386\\u0388-\\u038A\\u038C"                  \
    "\\u038E-\\u03A1\\u03A3-\\u03F5\\u03F7-\\u0481\\u048A-\\u052F\\u0531-\\u0556\\u10A0-\\u10C5"                       \
    "\\u13A0-\\u13F5\\u13F8-\\u13FD\\u1C90-\\u1CBA\\u1CBD-\\u1CBF\\u1D00-\\u1D2B\\u1D6B-\\u1D77"                       \
    "\\u1D79-\\u1D9A\\u1E00-\\u1F15\\u1F18-\\u1F1D\\u1F20-\\u1F45\\u1F48-\\u1F4D\\u1F50-\\u1F57"                       \
    "\\u1F59\\u1F5B\\u1F5D\\u1F5F-\\u1F7D\\u1F80-\\u1FB4\\u1FB6-\\u1FBC\\u1FBE\\u1FC2-\\u1FC4\\u1FC6-"                 \
    "\\u1FCC\\u1FD0-\\u1FD3\\u1FD6-\\u1FDB\\u1FE0-\\u1FEC\\u1FF2-\\u1FF4\\u1FF6-\\u1FFC\\u2102\\u2107"                 \
    "\\u210A-\\u2113\\u2115\\u2119-\\u211D\\u2124\\u2126\\u2128\\u212A-\\u212D\\u212F-\\u2134\\u2139"                  \
    "\\u213C-\\u213F\\u2145-\\u2149\\u214E\\u2183\\u2184\\u2C00-\\u2C7B\\u2C7E-\\u2CE4\\u2CEB-\\u2CEE"                 \
    "\\u2CF2\\u2CF3\\uA640-\\uA66D\\uA680-\\uA69B\\uA722-\\uA76F\\uA771-\\uA787\\uA78B-\\uA78E\\uAB70"                 \
    "-\\uABBF\\uFB00-\\uFB06\\uFB13-\\uFB17\\uFF21-\\uFF3A\\uFF41-\\uFF5A\\uD801\\uDC00-"                              \
    "\\uD801\\uDC4F\\uD801\\uDCB0-\\uD801\\uDCD3\\uD801\\uDCD8-\\uD801\\uDCFB\\uD803\\uDC80-"                          \
    "\\uD803\\uDCB2\\uD803\\uDCC0-\\uD803\\uDCF2\\uD806\\uDCA0-\\uD806\\uDCDF\\uD83A\\uDD00-"                          \
    "\\uD83A\\uDD43]+"
#define DEEPSEEK_SIGNS "\\\\s?[!-/:-~\\uFF01-\\uFF0F\\uFF1A-\\uFF5E\\u2018-\\u201F\\u3000-\\u3002]+"
#define DEEPSEEK_HAN   "[\\u4E00-\\u9FA5\\u0800-\\u4E00\\uAC00-\\uD7FF]+"
#define HAN_AND_KANA   "[\\u4E00-\\u9FA5\\u3040-\\u309F\\u30A0-\\u30FF]+"
#define DEEPSEEK_V3                                                                                                    \
    "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{"                 \
    "S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define BLOOM " ?[^(\\\\s|[.,!?\\u2026\\u3002\\uFF0C\\u3001\\u0964\\u06D4\\u060C])]+"
#define YOUTU                                                                                                          \
    "[\\uAC00-\\uD7A3\\u3131-\\u318E]+|[\\uFF01\\u2026\\u201C\\u201D\\u2018\\u2019\\u2014\\uFF1A"                      \
    "\\uFF1B\\uFF0C\\u3001-\\u303F\\uFE30-\\uFE4F]+|[\\u3105-\\u312F]+|[\\u4E00-\\u9FA5\\u3040-"                       \
    "\\u309F\\u30A0-\\u30FF]+"

/* Steps. */
#define SPLIT_LAST(regex)                                                                                              \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define SPLIT(regex) SPLIT_LAST(regex) ","
#define EACH_DIGIT   "{\"type\":\"Digits\",\"individual_digits\":true},"
#define BYTES        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define BYTE_WORDS   "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
#define STEPS(list)  "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define NFC          "{\"type\":\"NFC\"}"

/* As tokenizer.json of the models that a name stands for has it. Where llama.cpp simplified an expression,
 * its words differ in rare cases; it leaves out the normal form, which few texts are not in already. Of names
 * that cut alike, the first fitting one is written. */
static const struct tokenizer_pre pres[] = {
    {"gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 trillion granite-docling jais", NULL, BYTE_WORDS, false, false},
    {"olmo mpt", NFC, BYTE_WORDS, false, false},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", NULL, STEPS(SPLIT(LATER(DIGITS)) BYTES), true,
     true},
    {"dbrx smaug-bpe glm4 chatglm-bpe", NULL, STEPS(SPLIT(LATER(DIGITS)) BYTES), false, false},
    {"qwen2 megrez kormo f2llmv2", NFC, STEPS(SPLIT(LATER("\\\\p{N}")) BYTES), false, false},
    {"deepseek-r1-qwen stablelm2 grok-2 hunyuan solar-open", NULL, STEPS(SPLIT(LATER("\\\\p{N}")) BYTES), false, false},
    {"qwen35", NFC,
     STEPS(SPLIT(CONTRACTION "|" NO_WORD
                             "[\\\\p{L}\\\\p{M}]+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*" SPACES)
               BYTES),
     false, false},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", NULL,
     STEPS(SPLIT(CASED("", CONTRACTION "?") DIGITS SIGNS "[\\\\r\\\\n/]*" SPACES) BYTES), false, false},
    {"tekken", NULL, STEPS(SPLIT(CASED("", "") "\\\\p{N}" SIGNS "[\\\\r\\\\n/]*" SPACES) BYTES), true, true},
    {"kimi-k2", NULL,
     STEPS(SPLIT("[\\\\p{Han}]+|" CASED(NOT_HAN, CONTRACTION "?") DIGITS SIGNS "[\\\\r\\\\n]*" SPACES) BYTES), false,
     false},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", NULL,
     STEPS(SPLIT(DIGITS) SPLIT(HAN_AND_KANA) SPLIT(DEEPSEEK_V3) BYTES), false, false},
    {"deepseek-llm", NULL,
     STEPS(SPLIT("[\\r\\n]") SPLIT(DEEPSEEK_LETTERS) SPLIT(DEEPSEEK_SIGNS) SPLIT("\\\\s+$") SPLIT(DEEPSEEK_HAN)
               EACH_DIGIT BYTES),
     false, false},
    {"deepseek-coder", NULL,
     STEPS(SPLIT("[\\r\\n]") SPLIT("\\\\s?\\\\p{L}+") SPLIT("\\\\s?\\\\p{P}+") SPLIT(DEEPSEEK_HAN) EACH_DIGIT BYTES),
     false, false},
    {"falcon", NULL,
     STEPS("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}," BYTE_WORDS
           ",{\"type\":\"Digits\",\"individual_digits\":false}," SPLIT_LAST("[0-9][0-9][0-9]")),
     false, false},
    {"smollm starcoder refact codeshell exaone minerva-7b mellum2", NULL, STEPS(EACH_DIGIT BYTE_WORDS), false, false},
    {"command-r", NFC, STEPS(EACH_DIGIT BYTE_WORDS), false, false},
    {"bloom poro-chat gpt3-finnish", NULL, STEPS(SPLIT(BLOOM) BYTES), false, false},
    {"viking", NULL, STEPS(SPLIT(BLOOM) EACH_DIGIT BYTES), false, false},
    {"youtu", NULL,
     STEPS(SPLIT(YOUTU) SPLIT(CASED("", CONTRACTION "?") "\\\\p{N}" SIGNS "[\\\\r\\\\n/]*" SPACES) BYTES), true, false},
    {"seed-coder", NULL,
     STEPS(SPLIT(CONTRACTION "|" NO_WORD "\\\\p{L}+|\\\\p{N}{1}| ?[^\\\\s\\\\p{L}\\\\p{N}\\\\r\\\\n]+" SPACES) BYTES),
     false, false},
    {"bailingmoe bailingmoe2 llada-moe", NULL,
     STEPS(SPLIT("'(?i:[sdmt]|ll|ve|re)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?+\\\\p{L}+|\\\\p{N}| "
                 "?[^\\\\s\\\\p{L}\\\\p{N}]++[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]|\\\\s+(?!\\\\S)|\\\\s+") BYTES),
     false, false},
    {"exaone-moe", NULL,
     STEPS(SPLIT(CONTRACTION "|" NO_WORD "(?:\\\\p{L}\\\\p{M}*(?: \\\\p{L}\\\\p{M}*)*)+|\\\\p{N}" SIGNS
                             "[\\\\r\\\\n/]?|\\\\s*[\\\\r\\\\n]|\\\\s+(?!\\\\S)|\\\\s+") BYTES),
     false, false},
    {"minicpm5", NULL, STEPS(SPLIT(DIGITS) SPLIT(LATER("\\\\p{N}+")) BYTES), true, false},
    {"ufakzeka", NULL, STEPS(SPLIT(NO_WORD "\\\\p{L}+|\\\\p{N}" SIGNS "[\\\\r\\\\n]*" SPACES) BYTES), false, false},
    /* No model's own: what llama.cpp falls back to. */
    {"default", NULL,
     STEPS(SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+") SPLIT(WORDS) SPLIT("\\\\p{N}+") SPLIT("[0-9][0-9][0-9]") BYTES),
     false, false},
};
enum { N_PRES = sizeof pres / sizeof pres[0] };

static bool has_name(const struct tokenizer_pre *p, const char *name, size_t n)
{
    for (const char *at = p->names; *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        if (len == n && memcmp(at, name, n) == 0)
            return true;
        at += len;
    }
    return false;
}

const struct tokenizer_pre *tokenizer_pre_named(const char *name, size_t n)
{
    for (size_t i = 0; i < N_PRES; i++)
        if (has_name(&pres[i], name, n))
            return &pres[i];
    return NULL;
}

void tokenizer_pre_name(const struct tokenizer_pre *p, char out[TOKENIZER_PRE_NAME])
{
    size_t n = strcspn(p->names, " ");
    n = n < TOKENIZER_PRE_NAME ? n : TOKENIZER_PRE_NAME - 1;
    memcpy(out, p->names, n);
    out[n] = 0;
}

const struct tokenizer_pre *tokenizer_pre_at(size_t i)
{
    return i < N_PRES ? &pres[i] : NULL;
}

static bool cuts_alike(const struct step_list *steps, const struct tokenizer_pre *p, const char *path, bool *alike,
                       struct err *e)
{
    struct step_list own = {0};
    cJSON *json = json_parse(p->pretokenizer, strlen(p->pretokenizer), path, e);
    bool ok = json && pretokenizers_shape(&own, json, path, e);
    *alike = ok && steps_equal(steps, &own);
    steps_free(&own);
    cJSON_Delete(json);
    return ok;
}

const char *tokenizer_lost_step(const cJSON *normalizer)
{
    const cJSON *type = json_get(normalizer, "type"), *list = json_get(normalizer, "normalizers");
    const char *lost = NULL;
    if (cJSON_IsString(type) && strcmp(type->valuestring, "Sequence") != 0)
        return strcmp(type->valuestring, "NFC") == 0 ? NULL : type->valuestring;
    for (const cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item && !lost; item = item->next)
        lost = tokenizer_lost_step(item);
    return lost;
}

/* Whether the normal form C is all that a normalizer does, or part of it. */
static bool has_nfc(const cJSON *o)
{
    const cJSON *type = json_get(o, "type"), *list = json_get(o, "normalizers");
    if (cJSON_IsString(type) && strcmp(type->valuestring, "NFC") == 0)
        return true;
    for (const cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item; item = item->next)
        if (has_nfc(item))
            return true;
    return false;
}

bool tokenizer_pre_of(const struct tokenizer_pre **out, const cJSON *tokenizer, const char *path, struct err *e)
{
    struct step_list steps = {0};
    bool ignore = cJSON_IsTrue(json_get(json_get(tokenizer, "model"), "ignore_merges"));
    bool nfc = has_nfc(json_get(tokenizer, "normalizer")), alike;
    int best = 0;
    *out = NULL;
    bool ok = pretokenizers_shape(&steps, json_get(tokenizer, "pre_tokenizer"), path, e);
    for (size_t i = 0; ok && i < N_PRES; i++) {
        ok = cuts_alike(&steps, &pres[i], path, &alike, e);
        int fits = 1 + 2 * (pres[i].ignore_merges == ignore) + ((pres[i].normalizer != NULL) == nfc);
        if (ok && alike && fits > best) {
            *out = &pres[i];
            best = fits;
        }
    }
    steps_free(&steps);
    return ok;
}
