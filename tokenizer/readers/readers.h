/* The files that a tokenizer is stored in. Each kind is a row of the table in readers.c: the names that such files
 * bear, and a function that makes the specification (tokenizer/spec.h) which transformers converts the file into, so
 * that ids are the same.
 *
 *   name ──► nb_tokenizer_file_kind ──► the row's read ──► nb_tokenizer_spec
 *
 * Sizes are bounded: a file has at most 256 MiB, its tokens NB_MAX_ID ids, each token NB_TOKEN_MAX bytes. */
#ifndef NB_TOKENIZER_READERS_READERS_H
#define NB_TOKENIZER_READERS_READERS_H

#include "tokenizer/spec.h"

enum { NB_TOKEN_MAX = 1024 }; /* bytes of a token whose merges are searched; keeps the search linear in the file */

/* A file, and the one beside it that some kinds need. */
typedef struct nb_tokenizer_file {
  const char *path, *name; /* for messages; its last part, which some kinds go by */
  nb_str text;
  const char *beside_path; /* NULL: the kind needs none */
  nb_str beside;
} nb_tokenizer_file;

typedef struct nb_tokenizer_kind {
  const char *names;  /* patterns of names, parted by spaces */
  const char *beside; /* the name of the file beside it that the kind needs; NULL: none */
  nibble_status (*read)(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);
} nb_tokenizer_kind;

/* The kind of a file with this name, whatever folder stands before it; NULL if no kind has such names. */
const nb_tokenizer_kind *nb_tokenizer_kind_of(const char *path);

/* Reads the file at `path`, whose name must be some kind's. *out needs nb_tokenizer_spec_free, also after a failure. */
nibble_status nb_tokenizer_spec_load(const char *path, nb_tokenizer_spec *out, nibble_error *err);

/* True if the last part of a path matches one of some patterns (fnmatch's), which spaces part. */
bool nb_tokenizer_name_is(const char *name, const char *patterns);

/* Reads the tokenizer in a folder of Hugging Face's: of its files the one that transformers takes, with what stands
 * beside it (tokenizer_config.json and others) applied as it does; folder.c. */
nibble_status nb_tokenizer_spec_folder(const char *folder, nb_tokenizer_spec *out, nibble_error *err);

/* Adds the special tokens that such a folder names to an object, {"bos_token": "<s>", ...}: by its settings, its class
 * or its file, as a chat template of transformers sees them. No tokenizer needs to be there. */
nibble_status nb_tokenizer_folder_tokens(const char *folder, cJSON *out, nibble_error *err);

/* Takes the first line of *text, without the end that it has (LF, or CR and LF). */
nb_str nb_take_line(nb_str *text);

/* --- the kinds; each fills *out, which is zero --- */

/* vocab.json and merges.txt: GPT-2's. */
nibble_status nb_read_vocab_json(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);

/* vocab.txt: BERT's, a token on each line, whose number is its id. */
nibble_status nb_read_vocab_txt(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);

/* The object of tokens and ids alone. */
nibble_status nb_vocab_read_json(const char *where, nb_str text, nb_vocab *vocab, nibble_error *err);

/* tokenizer.json. */
nibble_status nb_read_tokenizer_json(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);

/* OpenAI's tiktoken: lines of a token in base64 and its rank. The file's name says which pattern cuts the text. */
nibble_status nb_read_tiktoken(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);
bool nb_tiktoken_is(nb_str text); /* whether a file begins as one of them */

/* SentencePiece's, or Llama 3's, which has the same name and is tiktoken's. */
nibble_status nb_read_sentencepiece(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);

/* Mistral's tekken.json: the same in JSON, with the pattern. */
nibble_status nb_read_tekken(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err);

#endif
