/* What the files of a tokenizer say of truncation and padding: the members "truncation" and "padding" of its
 * specification, which are tokenizer.json's. In a folder tokenizer_config.json has the last word on them, as in
 * transformers (readers/folder_limits.c). Nothing is cut or filled up unless a caller asks for it. */
#ifndef NB_TOKENIZER_LIMITS_H
#define NB_TOKENIZER_LIMITS_H

#include <cjson/cJSON.h>

#include "base/status.h"

/* Fills *out with them: a maximum length of 0 and a pad_id of -1 where the files say nothing. NIBBLE_BAD_INPUT if they
 * are no truncation or padding; `where` names the file. */
nibble_status nb_limits_read(const char *where, const cJSON *parts, nibble_encode_options *out, nibble_error *err);

#endif
