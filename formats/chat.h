/* Conversations as the texts that models were trained on: what a chat template of the common kinds makes of them. Templates are Jinja, which
 * gsq does not run: their kind is known by the tokens that they put around a message. Tools, thoughts, dates and what else a template
 * adds of its own are left out. */
#ifndef FORMATS_CHAT_H
#define FORMATS_CHAT_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "host/base/err.h"
#include "host/base/str.h"

struct chat_format;
/* Of a template's text: ChatML, Llama 3, Llama 4, Gemma, Phi-3, GLM-4, DeepSeek, Mistral; NULL: of none of these. */
const struct chat_format *chat_format_of(const char *template_text);
const char *chat_format_name(const struct chat_format *f);
/* Appends a conversation: [{"role": ..., "content": ...}], a content being a string or a list of parts, of which those with a "text" count.
 * Messages without content are passed over. f NULL: contents alone, an empty line between two. False: it is no such list. */
bool chat_render(const struct chat_format *f, const cJSON *messages, struct strbuf *out);

#endif
