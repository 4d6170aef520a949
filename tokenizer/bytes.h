/* The byte-level alphabet: every byte as a printable character, as GPT-2 writes them in its vocabulary. The 188 bytes
 * that are printable in Latin-1 stand for themselves, the others for U+0100 and up, in order: a space is "Ġ". */
#ifndef NB_TOKENIZER_BYTES_H
#define NB_TOKENIZER_BYTES_H

#include <stdint.h>

#include "base/buf.h"

/* The UTF-8 (1 or 2 bytes) of the character that stands for `byte`; returns its length. */
size_t nb_byte_char(unsigned char byte, char out[2]);

/* The byte that a character stands for; -1 if it stands for none. */
int nb_char_byte(uint32_t code);

/* Appends the characters of text[0, n)'s bytes. */
void nb_bytes_to_chars(const char *text, size_t n, nb_buf *out);

#endif
