/* Text to token ids and back, as Hugging Face's `tokenizers` does it from the same tokenizer.json:
 *
 *   text ──► added tokens cut out ──► normalizer ──► pre-tokenizer ──► model ──► post-processor ──► ids
 *            (added.h)                (what lies     (words)           (ids)     (special tokens
 *                                      between)                                   around them)
 *   ids ──► vocabulary ──► decoder ──► text
 *
 * A reader makes a specification of a file (spec.h), and a tokenizer is made of that. The steps (steps.h) and the
 * models (model.h) are tables of types; what has no row is refused by name at opening, so that ids never differ from
 * the reference.
 *
 *   nb_tokenizer *tokenizer;
 *   nb_tokenizer_load("model-folder/tokenizer.json", &tokenizer, err);
 *   nb_tokenizer_encode(tokenizer, text, n, NB_ADD_SPECIAL, &ids, err);
 *
 * A tokenizer keeps a cache of words, so one thread at a time may use it. Text may hold any bytes: what is not UTF-8
 * is read as base/utf8.h says. Time and memory grow with the text's length, whatever it holds. */
#ifndef NB_TOKENIZER_TOKENIZER_H
#define NB_TOKENIZER_TOKENIZER_H

#include "base/buf.h"
#include "base/status.h"

enum { NB_TEXT_MAX = 1 << 30 }; /* bytes a text may have: token offsets are 31-bit */

typedef struct nb_tokenizer nb_tokenizer;

/* Token ids, growing as nb_buf does: `failed` sticks when memory runs out. Zero it first, free with nb_ids_free. */
typedef struct nb_ids {
  int32_t *data;
  size_t length, capacity; /* in ids */
  bool failed;
} nb_ids;

void nb_ids_append(nb_ids *ids, const int32_t *more, size_t n);
void nb_ids_free(nb_ids *ids);

/* Opens the text of a tokenizer.json; `where` names it in messages. NIBBLE_BAD_INPUT if it is damaged or asks for
 * something unknown. Close with nb_tokenizer_close. A MODEL's is opened by convert/tokenizer_open.h. */
nibble_status nb_tokenizer_parse(const char *where, const char *text, size_t n, nb_tokenizer **out, nibble_error *err);

/* Opens a tokenizer.json of at most 256 MiB. */
nibble_status nb_tokenizer_load(const char *path, nb_tokenizer **out, nibble_error *err);

void nb_tokenizer_close(nb_tokenizer *tokenizer);

enum {
  NB_ADD_SPECIAL = 1,  /* encode: put the template's special tokens (such as BOS) around the ids */
  NB_SKIP_SPECIAL = 2, /* decode: leave special tokens out of the text */
};

/* Appends the ids of text[0, n), at most NB_TEXT_MAX bytes. Special tokens that are spelled out in the text become
 * their ids with or without NB_ADD_SPECIAL. NIBBLE_BAD_INPUT if a pattern of the tokenizer costs too much on this text
 * or a character has no id and the vocabulary has no token for unknown ones. */
nibble_status nb_tokenizer_encode(nb_tokenizer *tokenizer, const char *text, size_t n, int flags, nb_ids *ids,
                                  nibble_error *err);

/* Appends the text of ids[0, n); bytes that are not UTF-8 together become U+FFFD. Ids that name no token are passed
 * over (a model's vocabulary is often padded). */
nibble_status nb_tokenizer_decode(const nb_tokenizer *tokenizer, const int32_t *ids, size_t n, int flags, nb_buf *text,
                                  nibble_error *err);

/* One more than the largest id. */
int32_t nb_tokenizer_vocab_size(const nb_tokenizer *tokenizer);

/* The id of a token spelled as in tokenizer.json ("Ġthe", "<|im_end|>"); -1 if there is none. */
int32_t nb_tokenizer_id(const nb_tokenizer *tokenizer, const char *token, size_t n);

/* The token's spelling, *n bytes owned by the tokenizer (not NUL-terminated); NULL if the id names none. */
const char *nb_tokenizer_token(const nb_tokenizer *tokenizer, int32_t id, size_t *n);

/* True if the id is an added token marked special. */
bool nb_tokenizer_is_special(const nb_tokenizer *tokenizer, int32_t id);

/* Decodes ids that come one by one, handing out text in whole characters only: a character split over two tokens
 * comes with the second. Zero it and set `tokenizer` and `flags`. */
typedef struct nb_token_stream {
  const nb_tokenizer *tokenizer;
  int flags;
  nb_ids window;           /* ids whose text is needed to decode the next ones, */
  size_t context, emitted; /* so many of them, and bytes of their text, were handed out */
  nb_buf raw;              /* text that is not cleaned up yet, because what comes may count for it */
} nb_token_stream;

nibble_status nb_token_stream_push(nb_token_stream *stream, int32_t id, nb_buf *text, nibble_error *err);

/* Hands out what is still held back (an unfinished character becomes U+FFFD) and frees the stream's memory. */
nibble_status nb_token_stream_end(nb_token_stream *stream, nb_buf *text, nibble_error *err);

#endif
