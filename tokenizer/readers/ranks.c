#include "tokenizer/readers/ranks.h"

#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/checked.h"
#include "base/grow.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/bytes.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/readers.h"

nibble_status nb_ranks_add(nb_ranks *r, const char *where, size_t line, nb_str base64, int32_t id, nibble_error *err) {
  enum { ROOM = (NB_TOKEN_MAX / 3 + 2) * 3 };
  char token[ROOM];
  size_t n = 0;
  if (nb_base64_room(base64.length) > ROOM)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: token %zu has more than %d bytes", where, line, NB_TOKEN_MAX);
  bool is_empty = nb_str_is(base64, "="); /* as Whisper's file has it */
  if (!is_empty && !nb_base64_decode(base64.data, base64.length, token, &n))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: token %zu, '%.*s', is not base64", where, line,
                   (int)nb_min_i64((int64_t)base64.length, 60), base64.data);
  if (n > NB_TOKEN_MAX)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: token %zu has more than %d bytes", where, line, NB_TOKEN_MAX);
  nb_rank *grown = nb_grow(r->list, &r->capacity, r->count + 1, sizeof *grown);
  if (!grown) return nb_fail_memory(err, r->count * sizeof *grown);
  r->list = grown;
  r->list[r->count++] = (nb_rank){.begin = r->bytes.length, .length = n, .id = id};
  nb_buf_append(&r->bytes, token, n);
  return r->bytes.failed ? nb_fail_memory(err, r->bytes.length) : NIBBLE_OK;
}

/* Each byte becomes a character of one or two bytes. */
static nibble_status spell(const nb_ranks *r, const char *where, const nb_named_id *named, size_t count,
                           nb_vocab *vocab, nibble_error *err) {
  size_t room = r->bytes.length * 2 + 2; /* two bytes are written where one is the character */
  for (size_t i = 0; i < count; i++) room += strlen(named[i].text);
  char *out = vocab->texts = malloc(room);
  if (!out) return nb_fail_memory(err, room);
  nibble_status status = NIBBLE_OK;
  struct {
    char bytes[2];
    uint8_t length;
  } chars[256];
  for (unsigned byte = 0; byte < 256; byte++)
    chars[byte].length = (uint8_t)nb_byte_char((unsigned char)byte, chars[byte].bytes);
  for (size_t i = 0; i < r->count && status == NIBBLE_OK; i++) {
    nb_str text = {out, 0};
    for (size_t k = 0; k < r->list[i].length; k++) {
      unsigned char byte = (unsigned char)r->bytes.data[r->list[i].begin + k];
      memcpy(out, chars[byte].bytes, 2);
      out += chars[byte].length;
    }
    text.length = (size_t)(out - text.data);
    status = nb_vocab_add(vocab, where, r->list[i].id, text, err);
  }
  int32_t ranked = vocab->count;
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) {
    nb_str text = {out, strlen(named[i].text)};
    memcpy(out, named[i].text, text.length);
    out += text.length;
    status = nb_vocab_add(vocab, where, named[i].id, text, err);
  }
  for (int32_t id = 0; id < ranked && status == NIBBLE_OK; id++) {
    if (!vocab->tokens[id].text) status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no token has the rank %d", where, id);
  }
  return status;
}

/* Two ranked tokens merge if they make a third. Of those that make the same one, transformers lists the one of the
 * least left rank first (convert_slow_tokenizer.py, TikTokenConverter). */
nibble_status nb_ranks_finish(const nb_ranks *r, const char *where, const nb_named_id *named, size_t count,
                              nb_tokenizer_spec *out, nibble_error *err) {
  nibble_status status = spell(r, where, named, count, &out->vocab, err);
  if (status == NIBBLE_OK) status = nb_vocab_make_index(&out->vocab, where, err);
  if (status != NIBBLE_OK || r->count == 0) return status;
  int32_t *order = out->merges.order = nb_alloc((uint64_t)out->vocab.count, sizeof *order);
  if (!order) return nb_fail_memory(err, (size_t)out->vocab.count * sizeof *order);
  out->merges.by_left_id = true;
  for (int32_t id = 0; id < out->vocab.count; id++) order[id] = -1;
  for (size_t i = 0; i < r->count; i++) order[r->list[i].id] = r->list[i].id;
  return NIBBLE_OK;
}

nibble_status nb_ranks_parts(const char *pattern, bool nfc, cJSON *added, nb_tokenizer_spec *out, nibble_error *err) {
  cJSON *words = nb_json_push(cJSON_CreateArray(), nb_part_split(pattern));
  words = nb_json_push(words, nb_part_byte_level(false, true, false));
  nb_parts parts = {
      .added = added,
      .normalizer = nfc ? nb_json_make("type:s", "NFC") : cJSON_CreateNull(),
      .pre_tokenizer = nb_part_sequence("pretokenizers", words),
      .post_processor = nb_part_byte_level(true, false, true),
      .decoder = nb_part_byte_level(true, true, true),
      .model = nb_part_bpe_model(&(nb_part_bpe){.ignore_merges = true}),
  };
  return nb_parts_finish(parts, out, err);
}

void nb_ranks_free(nb_ranks *r) {
  free(r->list);
  nb_buf_free(&r->bytes);
  *r = (nb_ranks){0};
}
