/* A GGUF file of any bytes: opened, every tensor read and loaded as a weight, its tokenizer written
 * as JSON, opened and used. */
#include "convert/gguf.h"
#include "convert/tokenizer_open.h"
#include "tests/fuzz/fuzz.h"

static void look(const nb_checkpoint *c) {
  if (!c->gguf) return;
  nb_buf text = {0};
  nibble_error err;
  nb_fuzz_read_tensors(c);
  nb_gguf_tokenizer_json(c, &text, &err);
  nb_buf_free(&text);
  nb_tokenizer *tokenizer;
  if (nb_tokenizer_of(c, &tokenizer, &err) != NIBBLE_OK) return;
  static const char some[] = "Hello, wor\xc3\xa9ld's  123 <s> the";
  nb_ids ids = {0};
  nb_tokenizer_encode(tokenizer, some, sizeof some - 1, NB_ADD_SPECIAL, &ids, &err);
  nb_ids_free(&ids);
  nb_tokenizer_close(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nb_fuzz_open(data, size, look);
  return 0;
}
