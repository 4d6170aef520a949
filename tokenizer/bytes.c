#include "tokenizer/bytes.h"

#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

static bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

size_t nb_byte_char(unsigned char byte, char out[2]) {
  uint32_t code = byte;
  if (!stands_for_itself(byte)) code = 0x100u + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7fu + 0x21u : 0x43u);
  char four[4];
  size_t length = nb_utf8_encode(code, four);
  memcpy(out, four, 2);
  return length;
}

int nb_char_byte(uint32_t code) {
  if (code < 0x100) return stands_for_itself(code) ? (int)code : -1;
  uint32_t k = code - 0x100;
  return k <= 0x20 ? (int)k : k <= 0x42 ? (int)(k - 0x21 + 0x7f) : k == 0x43 ? 0xad : -1;
}

void nb_bytes_to_chars(const char *text, size_t n, nb_buf *out) {
  for (size_t i = 0; i < n; i++) {
    char two[2];
    nb_buf_append(out, two, nb_byte_char((unsigned char)text[i], two));
  }
}
