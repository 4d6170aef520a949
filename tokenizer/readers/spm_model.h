/* SentencePiece's model, a message of protocol buffers: pieces with scores, and the switches of training and of
 * normalization that say how a text is read. Parsed by protobuf-c (sentencepiece.proto) within a bound of memory. */
#ifndef NB_TOKENIZER_READERS_SPM_MODEL_H
#define NB_TOKENIZER_READERS_SPM_MODEL_H

#include "tokenizer/readers/readers.h"

typedef enum nb_spm_kind { NB_SPM_UNIGRAM = 1, NB_SPM_BPE, NB_SPM_WORD, NB_SPM_CHAR } nb_spm_kind;

typedef struct nb_spm_model {
  nb_spm_kind kind;
  nb_vocab vocab;        /* with scores and types */
  int32_t unk_id;        /* -1: none */
  char *unk, *bos, *eos; /* spellings; NULL: none */
  bool byte_fallback, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
  bool space_as_suffix; /* the dummy space stands behind the text, not before it */
  bool longest_match;   /* of the charsmap, as SentencePiece looks; else as transformers does */
  char *charsmap;       /* base64 of the precompiled normalizer; NULL: none */
} nb_spm_model;

/* *out needs nb_spm_free, also after a failure. NIBBLE_BAD_INPUT if the message is damaged, a piece is empty, no UTF-8
 * or there twice, or a score is no number. */
nibble_status nb_spm_parse(const char *where, nb_str text, nb_spm_model *out, nibble_error *err);
void nb_spm_free(nb_spm_model *model);

/* The tokenizer that transformers makes of a model where no class of its own says otherwise; sentencepiece.c. `legacy`:
 * every text between added tokens gets the dummy prefix, not only the first. Takes the vocabulary and `post_processor`
 * (tokenizer/readers/parts.h) over. */
nibble_status nb_spm_spec(const char *where, nb_spm_model *model, bool legacy, cJSON *post_processor,
                          nb_tokenizer_spec *out, nibble_error *err);

/* Replaces the merges by those that transformers' classes make: of all pieces, in the order of their ids. */
nibble_status nb_spm_merges_by_id(const nb_vocab *vocab, nb_merges *merges, nibble_error *err);

#endif
