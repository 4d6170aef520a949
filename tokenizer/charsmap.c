#include "tokenizer/charsmap.h"

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/utf8.h"

struct nb_charsmap {
  uint32_t *units; /* [count] */
  size_t count;
  nb_str texts; /* the replacements */
  char *bytes;  /* the whole map */
  bool keeps[128];
};

/* --- a unit of the trie --- */

static bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
static uint32_t label(uint32_t unit) { return unit & (1u << 31 | 255); } /* a leaf's is no byte */
static uint32_t value(uint32_t leaf) { return leaf & ~(1u << 31); }
static uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }

/* --- reading --- */

static nibble_status take_apart(const char *where, nb_charsmap *map, size_t n, nibble_error *err) {
  uint32_t size = 0;
  if (n >= sizeof size) memcpy(&size, map->bytes, sizeof size);
  size = le32toh(size);
  if (n < sizeof size || size < sizeof *map->units || size % sizeof *map->units || size > n - sizeof size)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the trie of the charsmap has no valid size (%u of %zu bytes)", where,
                   size, n);
  map->count = size / sizeof *map->units;
  map->units = malloc(size);
  if (!map->units) return nb_fail_memory(err, size);
  memcpy(map->units, map->bytes + sizeof size, size);
  for (size_t i = 0; i < map->count; i++) map->units[i] = le32toh(map->units[i]);
  map->texts = (nb_str){map->bytes + sizeof size + size, n - sizeof size - size};
  if (nb_utf8_valid(map->texts.data, map->texts.length) < map->texts.length)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the replacements of the charsmap are not UTF-8", where);
  for (unsigned byte = 0; byte < 128; byte++) {
    uint32_t at = offset(map->units[0]) ^ byte;
    map->keeps[byte] = byte == 0 || (at < map->count && label(map->units[at]) != byte);
  }
  return NIBBLE_OK;
}

nibble_status nb_charsmap_read(const char *where, const char *base64, nb_charsmap **out, nibble_error *err) {
  size_t n = strlen(base64), room = nb_base64_room(n) + 1;
  nb_charsmap *map = *out = calloc(1, sizeof *map);
  if (!map) return nb_fail_memory(err, sizeof *map);
  map->bytes = malloc(room);
  nibble_status status = map->bytes ? NIBBLE_OK : nb_fail_memory(err, room);
  if (status == NIBBLE_OK && !nb_base64_decode(base64, n, map->bytes, &n))
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the charsmap is not base64", where);
  if (status == NIBBLE_OK) status = take_apart(where, map, n, err);
  if (status == NIBBLE_OK) return NIBBLE_OK;
  nb_charsmap_free(map);
  *out = NULL;
  return status;
}

void nb_charsmap_free(nb_charsmap *map) {
  if (!map) return;
  free(map->units);
  free(map->bytes);
  free(map);
}

/* --- looking up --- */

bool nb_charsmap_keeps(const nb_charsmap *map, unsigned char byte) { return map->keeps[byte]; }

static nibble_status refuse(nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's charsmap points outside itself");
}

static nibble_status replacement(const nb_charsmap *map, uint32_t at, nb_str *by, nibble_error *err) {
  if (at > map->texts.length || (at < map->texts.length && !nb_utf8_begins(map->texts.data[at]))) return refuse(err);
  by->data = map->texts.data + at;
  by->length = strnlen(by->data, map->texts.length - at);
  return NIBBLE_OK;
}

/* Walks along text[0, n) to where the first, or the longest text of the map ends. */
static nibble_status walk(const nb_charsmap *map, nb_str text, bool longest, size_t *used, nb_str *by,
                          nibble_error *err) {
  enum { DEEPEST = 256 }; /* keeps the longest search linear in a text; texts of maps have a few characters */
  uint32_t at = offset(map->units[0]);
  *used = 0;
  for (size_t i = 0; i < text.length && i < (longest ? DEEPEST : text.length) && text.data[i]; i++) {
    unsigned char byte = (unsigned char)text.data[i];
    at ^= byte;
    if (at >= map->count) return refuse(err);
    uint32_t unit = map->units[at];
    if (label(unit) != byte) return NIBBLE_OK;
    at ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (at >= map->count) return refuse(err);
    *used = i + 1;
    nibble_status status = replacement(map, value(map->units[at]), by, err);
    if (status != NIBBLE_OK || !longest) return status;
  }
  return NIBBLE_OK;
}

nibble_status nb_charsmap_find(const nb_charsmap *map, nb_str text, bool *found, nb_str *by, nibble_error *err) {
  size_t used;
  nibble_status status = walk(map, text, false, &used, by, err);
  *found = used > 0;
  return status;
}

nibble_status nb_charsmap_longest(const nb_charsmap *map, nb_str text, size_t *used, nb_str *by, nibble_error *err) {
  return walk(map, text, true, used, by, err);
}
