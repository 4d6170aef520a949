/* The chat template of a MODEL, found where transformers finds it:
 *
 *   chat_template.jinja, and additional_chat_templates/NAME.jinja beside it; if there is neither,
 *   chat_template in tokenizer_config.json: a text, or named ones; for a .gguf its tokenizer.chat_template.
 *
 * Of several, "tool_use" is taken where tools are given, else "default". Beside the conversation a template sees the
 * special tokens that the tokenizer's configuration names. */
#ifndef NB_CONVERT_CHAT_TEMPLATE_H
#define NB_CONVERT_CHAT_TEMPLATE_H

#include "convert/checkpoint.h"
#include "template/template.h"

typedef struct nb_chat_template {
  nb_template *text;    /* NULL: the model has none */
  cJSON *tokens;        /* {"bos_token": "<s>", ...} */
  const struct tm *now; /* what the template takes for the time; NULL: the local time */
} nb_chat_template;

/* Whether the model has a chat template, which may be a damaged one. */
nibble_status nb_chat_template_exists(const nb_checkpoint *checkpoint, bool *out, nibble_error *err);

/* Reads and parses the one for conversations with or without tools. NIBBLE_BAD_INPUT if it is damaged, or if there are
 * only others. Free with nb_chat_template_free, also after a failure. */
nibble_status nb_chat_template_open(const nb_checkpoint *checkpoint, bool with_tools, nb_chat_template *out,
                                    nibble_error *err);
void nb_chat_template_free(nb_chat_template *chat);

/* Appends the text of a conversation. `variables` is an object: messages, tools, documents, add_generation_prompt, and
 * whatever else this template asks for; of special tokens, too, it has the last word. */
nibble_status nb_chat_template_render(const nb_chat_template *chat, const cJSON *variables, nb_buf *out,
                                      nibble_error *err);

#endif
