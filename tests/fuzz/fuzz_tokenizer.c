/* A tokenizer.json of any bytes; if it opens, text of any bytes through encode, decode and whole encodings, whose ids
 * must be the same. The input is a
 * tokenizer.json up to the last NUL, and the text behind it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/encoding.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stream(const nb_tokenizer *t, const nb_ids *ids) {
  nb_token_stream stream = {.tokenizer = t};
  nb_buf text = {0};
  for (size_t i = 0; i < ids->length && i < 64; i++) nb_token_stream_push(&stream, ids->data[i], &text, NULL);
  nb_token_stream_end(&stream, &text, NULL);
  nb_buf_free(&text);
}

static void whole(nb_tokenizer *t, const char *text, size_t n) {
  const nibble_text_pair one = {text, n, NULL, 0}, two = {text, n, text, n};
  nibble_encode_options o = {.size = sizeof o, .no_special = true, .offsets = NIBBLE_OFFSETS_BYTES};
  nibble_encodings encodings;
  nb_ids ids = {0};
  if (nb_tokenizer_encode_batch(t, &one, 1, &o, &encodings, NULL) == NIBBLE_OK &&
      nb_tokenizer_encode(t, text, n, 0, &ids, NULL) == NIBBLE_OK) {
    if (encodings.list[0].count != ids.length) abort();
    for (size_t i = 0; i < ids.length; i++) {
      const nibble_token *token = &encodings.list[0].tokens[i];
      if (token->id != ids.data[i] || token->end > n) abort();
    }
  }
  nibble_encodings_free(&encodings);
  nb_ids_free(&ids);
  o = (nibble_encode_options){.size = sizeof o, .overflow = true, .truncation = NIBBLE_TRUNCATE_LONGEST_FIRST};
  o.max_length = 9;
  o.stride = 2;
  o.padding = NIBBLE_PAD_LONGEST;
  if (n <= 64) nb_tokenizer_encode_batch(t, &two, 1, &o, &encodings, NULL);
  nibble_encodings_free(&encodings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *nul = memrchr(data, 0, size);
  size_t json = nul ? (size_t)(nul - data) : size;
  static const char some[] =
      "Hello, wor\xc3\xa9ld's  123 \xf0\x9f\x98\x80\xff <s>\r\n\t the a\xcc\x81\xcc\xa3 <0x41> \xe2\x96\x81x ";
  const char *text = nul ? (const char *)nul + 1 : some;
  size_t n = nul ? size - json - 1 : sizeof some - 1;
  nb_tokenizer *t;
  nibble_error err;
  if (nb_tokenizer_parse("fuzz", (const char *)data, json, &t, &err) != NIBBLE_OK) return 0;
  nb_ids ids = {0};
  nb_buf back = {0};
  for (int flags = 0; flags < 4; flags++) {
    ids.length = back.length = 0;
    if (nb_tokenizer_encode(t, text, n, flags, &ids, &err) != NIBBLE_OK) continue;
    nb_tokenizer_decode(t, ids.data, ids.length, flags, &back, &err);
  }
  stream(t, &ids);
  whole(t, text, n);
  nb_ids_free(&ids);
  nb_buf_free(&back);
  nb_tokenizer_close(t);
  return 0;
}
