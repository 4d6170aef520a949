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
  size_t room = r->bytes.length * 2 + 1;
  for (size_t i = 0; i < count; i++) room += strlen(named[i].text);
  char *out = vocab->texts = malloc(room);
  if (!out) return nb_fail_memory(err, room);
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < r->count && status == NIBBLE_OK; i++) {
    nb_str text = {out, 0};
    for (size_t k = 0; k < r->list[i].length; k++)
      out += nb_byte_char((unsigned char)r->bytes.data[r->list[i].begin + k], out);
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

static int by_parts(const void *a, const void *b) {
  const nb_merge *x = a, *y = b;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

/* Appends the ways to cut token `id` into two ranked tokens, in the order of the parts' ranks, which is transformers'
 * (convert_slow_tokenizer.py, TikTokenConverter). */
static nibble_status cut_token(nb_merges *merges, const nb_vocab *vocab, const bool *ranked, int32_t id,
                               nibble_error *err) {
  nb_str whole = nb_vocab_text(vocab, id);
  size_t first = merges->count;
  nibble_status status = NIBBLE_OK;
  for (size_t at = 1; at < whole.length && status == NIBBLE_OK; at++) {
    if (!nb_utf8_begins(whole.data[at])) continue;
    nb_merge merge = {.left = nb_vocab_id(vocab, whole.data, at), .whole = id};
    if (merge.left < 0 || !ranked[merge.left]) continue;
    merge.right = nb_vocab_id(vocab, whole.data + at, whole.length - at);
    if (merge.right >= 0 && ranked[merge.right]) status = nb_merges_append(merges, merge, err);
  }
  size_t count = merges->count - first;
  if (count > 1) qsort(merges->list + first, count, sizeof *merges->list, by_parts);
  return status;
}

nibble_status nb_ranks_finish(const nb_ranks *r, const char *where, const nb_named_id *named, size_t count,
                              nb_tokenizer_spec *out, nibble_error *err) {
  nibble_status status = spell(r, where, named, count, &out->vocab, err);
  if (status != NIBBLE_OK || r->count == 0) return status;
  bool *ranked = nb_alloc((uint64_t)out->vocab.count, sizeof *ranked);
  if (!ranked) return nb_fail_memory(err, (size_t)out->vocab.count);
  for (size_t i = 0; i < r->count; i++) ranked[r->list[i].id] = true;
  for (int32_t id = 0; id < out->vocab.count && status == NIBBLE_OK; id++) {
    if (ranked[id]) status = cut_token(&out->merges, &out->vocab, ranked, id, err);
  }
  free(ranked);
  return status;
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
