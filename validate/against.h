/* Is it the same model? An artifact beside the original that it was made from, in all but its weights: what their
 * config.json make the model compute, where its text ends, how it cuts text into tokens, and what else loaders take
 * from a folder. Compared is what is understood, not how it is written: files of other tools name and order things in
 * other ways. What changes what the model computes, reads or says is a fault, another difference a warning. */
#ifndef NB_VALIDATE_AGAINST_H
#define NB_VALIDATE_AGAINST_H

#include "convert/checkpoint.h"
#include "validate/findings.h"

/* An artifact and its original. */
typedef struct nb_pair {
  const nb_checkpoint *artifact, *original;
  nb_findings *findings;
} nb_pair;

/* All three looks. They fail only for want of memory, or where the system refuses a file. */
nibble_status nb_against_check(const nb_pair *pair, nibble_error *err);

/* config.json, or what a .gguf says in its place. */
nibble_status nb_against_config(const nb_pair *pair, nibble_error *err);

/* Whether config.json names the same tokens at which text ends. */
bool nb_against_same_eos(const nb_pair *pair);

/* The tokenizers: every token and merge, and the ids of some difficult text. */
nibble_status nb_against_tokenizer(const nb_pair *pair, nibble_error *err);

/* The other files of a folder: adapters, stop tokens, the chat template. */
nibble_status nb_against_files(const nb_pair *pair, nibble_error *err);

#endif
