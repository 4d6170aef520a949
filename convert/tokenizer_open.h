/* The tokenizer of a MODEL, wherever it is: a tokenizer.json or the metadata of a .gguf. */
#ifndef NB_CONVERT_TOKENIZER_OPEN_H
#define NB_CONVERT_TOKENIZER_OPEN_H

#include "convert/checkpoint.h"
#include "convert/gguf.h"
#include "tokenizer/spec.h"

/* Opens the tokenizer of the MODEL at `path`: the tokenizer.json in a folder or beside a file, or `path` itself if its
 * name ends in .json; for a .gguf the one that its metadata describes. No weights need to be there. NIBBLE_BAD_INPUT if
 * it is missing, damaged, or asks for something unknown. Close with nb_tokenizer_close. */
nibble_status nb_tokenizer_open(const char *path, nb_tokenizer **out, nibble_error *err);

/* The same for a checkpoint that is open, which the tokenizer does not need afterwards. */
nibble_status nb_tokenizer_of(const nb_checkpoint *checkpoint, nb_tokenizer **out, nibble_error *err);

/* What a GGUF file's metadata say of its tokenizer; *out needs nb_tokenizer_spec_free, also after a failure.
 * NIBBLE_BAD_INPUT if the file holds none, or one of a kind that is not known; the message says which. */
nibble_status nb_gguf_tokenizer(const nb_gguf *gguf, nb_tokenizer_spec *out, nibble_error *err);

#endif
