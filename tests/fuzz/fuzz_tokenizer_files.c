/* The files of the table in tokenizer/readers/readers.c: the input begins with the file's name and a NUL, then comes
 * its text, and behind a last NUL, where the kind has one, that of the file beside it. If it opens, some text is
 * encoded. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tokenizer/readers/readers.h"

static void encode(nb_tokenizer *t) {
  static const char text[] =
      "Hello, wor\xc3\xa9ld's  123 \xf0\x9f\x98\x80\xff <s>\r\n\t the a\xcc\x81 <0x41> \xe2\x96\x81x ";
  nb_ids ids = {0};
  nb_buf back = {0};
  nibble_error err;
  if (nb_tokenizer_encode(t, text, sizeof text - 1, NB_ADD_SPECIAL, &ids, &err) == NIBBLE_OK)
    nb_tokenizer_decode(t, ids.data, ids.length, 0, &back, &err);
  nb_ids_free(&ids);
  nb_buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *name = (const char *)data, *nul = memchr(data, 0, size);
  const nb_tokenizer_kind *kind = nul ? nb_tokenizer_kind_of(name) : NULL;
  if (!kind) return 0;
  size_t n = size - (size_t)(nul + 1 - name);
  nb_tokenizer_file file = {.path = name, .name = name, .text = {nul + 1, n}, .beside_path = kind->beside};
  const char *last = kind->beside && n > 0 ? memrchr(nul + 1, 0, n) : NULL;
  if (last) {
    file.text.length = (size_t)(last - nul - 1);
    file.beside = (nb_str){last + 1, n - file.text.length - 1};
  }
  nb_tokenizer_spec spec = {0};
  nb_tokenizer *t = NULL;
  nibble_error err;
  nibble_status status = kind->read(&file, &spec, &err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make(name, &spec, &t, &err);
  if (status == NIBBLE_OK) encode(t);
  nb_tokenizer_close(t);
  nb_tokenizer_spec_free(&spec);
  return 0;
}
