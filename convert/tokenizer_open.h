/* The tokenizer of a MODEL, wherever it is: in a folder's files or in the metadata of a .gguf. */
#ifndef NB_CONVERT_TOKENIZER_OPEN_H
#define NB_CONVERT_TOKENIZER_OPEN_H

#include "convert/checkpoint.h"
#include "convert/gguf.h"
#include "tokenizer/spec.h"

/* Opens the tokenizer of the MODEL at `path`: the one of a folder, or of the folder that a file is in, with its
 * settings (tokenizer/readers/folder.c); `path` alone if its name is that of a tokenizer's file
 * (tokenizer/readers/readers.h); for a .gguf the one that its metadata describes. No weights need to be there.
 * NIBBLE_BAD_INPUT if it is missing, damaged, or asks for something unknown. Close with nb_tokenizer_close. */
nibble_status nb_tokenizer_open(const char *path, nb_tokenizer **out, nibble_error *err);

/* The same for a checkpoint that is open, which the tokenizer does not need afterwards. */
nibble_status nb_tokenizer_of(const nb_checkpoint *checkpoint, nb_tokenizer **out, nibble_error *err);

/* What a GGUF file's metadata say of its tokenizer; *out needs nb_tokenizer_spec_free, also after a failure.
 * NIBBLE_BAD_INPUT if the file holds none, or one of a kind that is not known; the message says which. */
nibble_status nb_gguf_tokenizer(const nb_gguf *gguf, nb_tokenizer_spec *out, nibble_error *err);

#endif
