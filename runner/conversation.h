/* A conversation as JSON, as transformers takes it, and the ids that a model's chat template makes of it.
 *
 *   {"messages": [{"role": "user", "content": "Hi"}, ...], "tools": [...], "documents": [...], ...} */
#ifndef NB_RUNNER_CONVERSATION_H
#define NB_RUNNER_CONVERSATION_H

#include "convert/chat_template.h"
#include "tokenizer/tokenizer.h"

/* A conversation from files: `messages` is a list, or the whole object; `tools` a list. NULL: none. `system`, if it is
 * not NULL, becomes its first message. NIBBLE_BAD_INPUT names what is neither. Free *out with cJSON_Delete. */
nibble_status nb_conversation_read(const char *messages, const char *tools, const char *system, cJSON **out,
                                   nibble_error *err);

/* Appends a message. */
nibble_status nb_conversation_add(cJSON *conversation, const char *role, const char *content, nibble_error *err);

/* Takes the last message away. */
void nb_conversation_drop(cJSON *conversation);

bool nb_conversation_has_tools(const cJSON *conversation);

/* Appends the conversation's text, with the beginning of an answer if add_prompt. */
nibble_status nb_conversation_render(const cJSON *conversation, const nb_chat_template *chat, bool add_prompt,
                                     nb_buf *out, nibble_error *err);

/* The ids of the conversation, ready for an answer. */
nibble_status nb_conversation_encode(const cJSON *conversation, const nb_chat_template *chat, nb_tokenizer *tokenizer,
                                     nb_ids *out, nibble_error *err);

/* The token that ends a turn: the special one that the template puts behind an answer, or -1 if there is none. */
nibble_status nb_conversation_turn_end(const nb_chat_template *chat, nb_tokenizer *tokenizer, int32_t *out,
                                       nibble_error *err);

#endif
