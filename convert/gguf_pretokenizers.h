/* How text is cut into words before byte-level BPE, by the name that a GGUF file gives in tokenizer.ggml.pre.
 * The file only names it; what the name means is llama.cpp's table (llama-vocab.cpp), and the regular expressions here
 * are those of the tokenizer.json files that the names stand for. */
#ifndef NB_CONVERT_GGUF_PRETOKENIZERS_H
#define NB_CONVERT_GGUF_PRETOKENIZERS_H

#include "convert/gguf.h"

enum { NB_MAX_SPLITS = 6 };

typedef struct nb_pretokenizer {
  const char *names;                 /* separated by spaces */
  const char *splits[NB_MAX_SPLITS]; /* each applied to the pieces that the one before left; NULL ends the list */
  bool digits;                       /* first of all, every digit by itself */
  bool gpt2;                         /* last, GPT-2's expression, which the ByteLevel step has built in */
  bool ignore_merges;                /* a whole word that is in the vocabulary is one token */
  bool nfc;                          /* text is brought to normalization form C */
  bool add_bos;                      /* where tokenizer.ggml.add_bos_token does not say */
  const char *raw;                   /* the kind of tokenizer that it is in truth, not one of bytes; NULL: of bytes */
} nb_pretokenizer;

/* NULL if the name is not known. An absent name is "default". */
const nb_pretokenizer *nb_pretokenizer_find(nb_str name);

#endif
