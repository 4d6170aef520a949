/* The text of a JSON object and, after a zero byte, an object of changes: the result must be JSON that holds the
 * changes, and every other member as it was spelled. */
#include <stdlib.h>
#include <string.h>

#include "model/json_text.h"
#include "tests/fuzz/fuzz.h"

/* The object's last member of that name. */
static const cJSON *member(const cJSON *object, const char *key) {
  const cJSON *found = NULL;
  for (const cJSON *item = object->child; item; item = item->next) {
    if (strcmp(item->string, key) == 0) found = item;
  }
  return found;
}

static void check_same(const cJSON *a, const cJSON *b) {
  nb_buf texts[2] = {{0}, {0}};
  if (!a != !b) abort();
  if (!a) return;
  nb_json_put(&texts[0], a, &nb_json_indented);
  nb_json_put(&texts[1], b, &nb_json_indented);
  if (texts[0].failed || texts[1].failed || strcmp(texts[0].data, texts[1].data) != 0) abort();
  nb_buf_free(&texts[0]);
  nb_buf_free(&texts[1]);
}

static void check(const cJSON *before, const cJSON *changes, const char *text, size_t n) {
  cJSON *after;
  if (nb_json_parse("fuzz", text, n, &after, NULL) != NIBBLE_OK) abort();
  for (const cJSON *item = changes->child; item; item = item->next)
    check_same(cJSON_IsNull(item) ? NULL : item, member(after, item->string));
  for (const cJSON *item = before->child; item; item = item->next) {
    if (!member(changes, item->string)) check_same(member(before, item->string), member(after, item->string));
  }
  cJSON_Delete(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  enum { MAX_INPUT = 4096 }; /* `check` is quadratic */
  const char *text = (const char *)data, *end = size ? memchr(text, 0, size) : NULL;
  if (!end || size > MAX_INPUT) return 0;
  size_t n = (size_t)(end - text);
  cJSON *before = NULL, *changes = NULL;
  nb_buf out = {0};
  nibble_error err;
  nibble_status parsed = nb_json_parse("fuzz", text, n, &before, &err);
  if (nb_json_parse("fuzz", end + 1, size - n - 1, &changes, &err) == NIBBLE_OK && cJSON_IsObject(changes) &&
      nb_json_last_wins(changes, &err) == NIBBLE_OK) {
    nibble_status status = nb_json_text_change("fuzz", text, n, changes, &out, &err);
    bool object = parsed == NIBBLE_OK && cJSON_IsObject(before);
    if (object && status != NIBBLE_OK) abort();
    if (object) check(before, changes, out.data, out.length);
  }
  nb_buf_free(&out);
  cJSON_Delete(before);
  cJSON_Delete(changes);
  return 0;
}
