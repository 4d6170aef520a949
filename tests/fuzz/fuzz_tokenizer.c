/* A tokenizer.json of any bytes; if it opens, text of any bytes through encode and decode. The input is a
 * tokenizer.json up to the last NUL, and the text behind it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stream(const nb_tokenizer *t, const nb_ids *ids) {
  nb_token_stream stream = {.tokenizer = t};
  nb_buf text = {0};
  for (size_t i = 0; i < ids->length && i < 64; i++) nb_token_stream_push(&stream, ids->data[i], &text, NULL);
  nb_token_stream_end(&stream, &text, NULL);
  nb_buf_free(&text);
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
  nb_ids_free(&ids);
  nb_buf_free(&back);
  nb_tokenizer_close(t);
  return 0;
}
