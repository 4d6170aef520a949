/* The rows of classes.c, for those who look a class up by its name. */
#ifndef NB_TOKENIZER_READERS_CLASS_ROWS_H
#define NB_TOKENIZER_READERS_CLASS_ROWS_H

#include "tokenizer/readers/classes.h"

/* The row of a class, by its name without "Fast"; NULL: it has none. */
const nb_tokenizer_class *nb_class_named(const char *name, size_t n);

/* Whether a word is one of some, which spaces part. */
bool nb_has_word(const char *words, const char *word, size_t n);

#endif
