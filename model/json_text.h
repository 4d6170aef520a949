/* Changes to the text of a JSON object. config.json is read by programs that tell 30.0 from 30 and hold integers that
 * no double does, so it is not parsed and printed again: its text goes in, the members that change are put in, every
 * other byte comes out as it was, white space and unknown members included. */
#ifndef NB_MODEL_JSON_TEXT_H
#define NB_MODEL_JSON_TEXT_H

#include "model/json.h"

/* Appends to `out` the text of an object, n bytes, with the members of the object `changes` in it: in place of those of
 * the same key, or new; a change that is null removes its member. `where` is the file's path, for messages.
 *
 * New members stand where transformers would write them: in their place if the members are sorted by key, else at the
 * end. They are indented as the others are, on one line if the others are. Of members with one key the last is the one
 * that counts, as in Python: it is replaced, and all are removed. On failure `out` may hold a part. */
nibble_status nb_json_text_change(const char *where, const char *text, size_t n, const cJSON *changes, nb_buf *out,
                                  nibble_error *err);

#endif
