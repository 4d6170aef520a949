/* JSON from files that nobody vouches for: cJSON does the parsing (nesting is limited to 1000 levels there), these
 * functions turn what is missing or of the wrong type into one clear line that names the file and the key.
 * A getter leaves *out alone and succeeds where the key is absent or null, so a caller sets its default first;
 * the `need_` ones fail instead. `where` is the file's path, for messages. */
#ifndef NB_MODEL_JSON_H
#define NB_MODEL_JSON_H

#include <cjson/cJSON.h>

#include "base/buf.h"
#include "base/status.h"

/* Parses n bytes, all of them (white space may follow the value). Free *out with cJSON_Delete. */
nibble_status nb_json_parse(const char *where, const char *text, size_t n, cJSON **out, nibble_error *err);

/* Reads and parses a file of at most 256 MiB. */
nibble_status nb_json_load(const char *path, cJSON **out, nibble_error *err);

/* Writes `json` to a file, indented as Python's json.dump(indent=2) does, with a newline at the end. */
nibble_status nb_json_save(const char *path, const cJSON *json, nibble_error *err);

/* Appends a string in quotes, escaped. */
void nb_json_put_string(nb_buf *buf, const char *text);

nibble_status nb_json_int(const char *where, const cJSON *object, const char *key, int64_t min, int64_t max,
                          int64_t *out, nibble_error *err);
nibble_status nb_json_need_int(const char *where, const cJSON *object, const char *key, int64_t min, int64_t max,
                               int64_t *out, nibble_error *err);
nibble_status nb_json_double(const char *where, const cJSON *object, const char *key, double *out, nibble_error *err);
nibble_status nb_json_bool(const char *where, const cJSON *object, const char *key, bool *out, nibble_error *err);

/* *out points into `object`. */
nibble_status nb_json_string(const char *where, const cJSON *object, const char *key, const char **out,
                             nibble_error *err);

/* The member `key` if it is an object, else NULL. */
const cJSON *nb_json_object(const cJSON *object, const char *key);

#endif
