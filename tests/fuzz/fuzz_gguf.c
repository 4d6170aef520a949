/* A GGUF file of any bytes: opened, every tensor read and loaded as a weight, its tokenizer made. */
#include "convert/gguf.h"
#include "tests/fuzz/fuzz.h"

static void look(const nb_checkpoint *c) {
  if (!c->gguf) return;
  nb_buf text = {0};
  nibble_error err;
  nb_fuzz_read_tensors(c);
  nb_gguf_tokenizer_json(c, &text, &err);
  nb_buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nb_fuzz_open(data, size, look);
  return 0;
}
