/* JSON from files that nobody vouches for: model/json_scan.h checks the text, cJSON parses it (nesting is limited to
 * 1000 levels), and the getters turn what is missing or of the wrong type into one clear line that names the file and
 * the key. A getter leaves *out alone and succeeds where the key is absent or null, so a caller sets its default first;
 * the `need_` ones fail instead. `where` is the file's path, for messages.
 * A number that is parsed and printed again keeps its spelling: readers tell 30.0 from 30, and no double holds every
 * int64. To change a file's members and keep the rest of its bytes, see model/json_text.h. */
#ifndef NB_MODEL_JSON_H
#define NB_MODEL_JSON_H

#include <cjson/cJSON.h>

#include "base/folder.h"
#include "base/strmap.h"

enum { NB_JSON_MAX_BYTES = 256 << 20 }; /* of a file */

/* Parses n bytes of UTF-8, all of them (white space may follow the value). NaN, Infinity and -Infinity are numbers, as
 * they are for Python; the getters refuse them. Free *out with cJSON_Delete. */
nibble_status nb_json_parse(const char *where, const char *text, size_t n, cJSON **out, nibble_error *err);

/* Reads and parses a file of at most NB_JSON_MAX_BYTES. */
nibble_status nb_json_load(const char *path, cJSON **out, nibble_error *err);

/* Leaves out of every object all but the last of the members with one key, which is the one that Python takes. */
nibble_status nb_json_last_wins(cJSON *json, nibble_error *err);

/* The members of an object by name: of those with one name the first. False without memory; nb_strmap_free either way.
 * The lookup gives NULL for a name that is not there. */
bool nb_json_index(const cJSON *object, nb_strmap *out);
const cJSON *nb_json_indexed(const nb_strmap *members, const char *name);

/* Whether two values say the same, whatever the order of members; NULL is a value that is not there. In time that grows
 * with their length. False for *same and as the result without memory. */
bool nb_json_same(const cJSON *a, const cJSON *b, bool *same);

/* How nb_json_put lays out what it prints. */
typedef struct nb_json_layout {
  const char *newline; /* "\n", "\r\n", or "" for all on one line */
  const char *outer;   /* what every line begins with */
  const char *indent;  /* and after that, one for each level */
  const char *comma;   /* between items: ",", or ", " on one line */
  const char *colon;   /* ": " */
} nb_json_layout;

/* As Python's json.dump(indent=2) does. */
extern const nb_json_layout nb_json_indented;

/* Appends a value, without a newline at its end. */
void nb_json_put(nb_buf *buf, const cJSON *value, const nb_json_layout *layout);

/* Appends a string in quotes, escaped; each byte that is no UTF-8 (names of files may have such) becomes U+FFFD. */
void nb_json_put_string(nb_buf *buf, const char *text);

/* The same for text[0, n), which may hold NULs. */
void nb_json_put_text(nb_buf *buf, const char *text, size_t n);

/* Writes `json` to the file `name` of a folder (nb_folder_write), indented, with a newline at the end. */
nibble_status nb_json_save_in(const nb_folder *folder, const char *name, const cJSON *json, nibble_error *err);

/* Adds a number that is printed as Python prints a float: 10000.0, where cJSON_AddNumberToObject gives 10000. It is for
 * printing only. False without memory. */
bool nb_json_add_float(cJSON *object, const char *key, double value);

/* Appends a number in that form. */
void nb_json_put_float(nb_buf *buf, double value);

/* Makes an object. `members` lists its keys, each with a letter that says what its argument is:
 *   s const char *    b bool    i int    z none: null    o cJSON *, which the object takes over
 *   nb_json_make("type:s pattern:o invert:b", "Split", nb_json_make("Regex:s", regex), false)
 * NULL, with every `o` deleted, if there is no memory or an `o` or `s` is NULL. */
cJSON *nb_json_make(const char *members, ...);

/* Take `item` over into a list, or into an object under `key`, which is returned. NULL, with both deleted, if there is
 * no memory or one of them is NULL: only the last of a chain needs a look. */
cJSON *nb_json_push(cJSON *list, cJSON *item);
cJSON *nb_json_put_in(cJSON *object, const char *key, cJSON *item);

/* What an integer may be. */
typedef struct nb_range {
  int64_t least, most;
} nb_range;

nibble_status nb_json_int(const char *where, const cJSON *object, const char *key, nb_range range, int64_t *out,
                          nibble_error *err);
nibble_status nb_json_need_int(const char *where, const cJSON *object, const char *key, nb_range range, int64_t *out,
                               nibble_error *err);
nibble_status nb_json_double(const char *where, const cJSON *object, const char *key, double *out, nibble_error *err);
nibble_status nb_json_bool(const char *where, const cJSON *object, const char *key, bool *out, nibble_error *err);

/* *out points into `object`. */
nibble_status nb_json_string(const char *where, const cJSON *object, const char *key, const char **out,
                             nibble_error *err);

/* The member `key` if it is an object, else NULL. */
const cJSON *nb_json_object(const cJSON *object, const char *key);

#endif
