/* Added tokens: texts that become one id wherever they stand, before anything else looks at the text. Which id, which
 * of two candidates, and what white space goes with them follows the reference to the letter (tokenizers 0.23,
 * added_vocabulary.rs), where the longest token at the leftmost place wins. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/parts.h"
#include "tokenizer/unicode.h"

static int by_bytes(const void *a, const void *b) {
  const nb_added *x = a, *y = b;
  size_t n = x->length < y->length ? x->length : y->length;
  int order = memcmp(x->text, y->text, n);
  return order ? order : (x->length > y->length) - (x->length < y->length);
}

static nibble_status sort_set(const char *where, nb_added_set *set, nibble_error *err) {
  if (set->count > 0) qsort(set->tokens, set->count, sizeof *set->tokens, by_bytes);
  size_t k = 0;
  for (unsigned byte = 0; byte < 256; byte++) {
    set->first[byte] = k;
    while (k < set->count && (unsigned char)set->tokens[k].text[0] == byte) k++;
  }
  set->first[256] = k;
  for (size_t i = 1; i < set->count; i++) {
    const nb_added *token = &set->tokens[i];
    if (by_bytes(token - 1, token) == 0)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: two added tokens are both written '%.*s'", where,
                     (int)(token->length < 60 ? token->length : 60), token->text);
  }
  return NIBBLE_OK;
}

/* What one entry of the list says; its text is owned by the tokenizer from then on. */
static nibble_status read_entry(const char *where, const cJSON *json, nb_tokenizer *t, nb_added *out,
                                nibble_error *err) {
  *out = (nb_added){0};
  char *text;
  nibble_status status = nb_part_string(where, "an added token", json, "content", NB_MAX_ADDED, &text, err);
  if (status != NIBBLE_OK) return status;
  t->owned[t->owned_count++] = text;
  out->text = text;
  out->length = strlen(text);
  status = nb_json_bool(where, json, "special", &out->special, err);
  out->normalized = !out->special;
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "normalized", &out->normalized, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "single_word", &out->single_word, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "lstrip", &out->lstrip, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "rstrip", &out->rstrip, err);
  return status;
}

/* The text that a normalized token is matched by, which is also the one it decodes to. */
static nibble_status normalize_entry(const char *where, nb_tokenizer *t, nb_added *token, nibble_error *err) {
  if (!token->normalized || t->normalizer.count == 0) return NIBBLE_OK;
  bool at_start = true;
  t->normal.length = 0;
  nb_buf_append(&t->normal, token->text, token->length);
  nibble_status status = nb_normalize(&t->normalizer, &t->normal, &t->scratch, &at_start, err);
  if (status != NIBBLE_OK) return status;
  if (t->normal.length == 0 || t->normal.length > NB_MAX_ADDED)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the added token '%.60s' has %zu bytes when normalized", where,
                   token->text, t->normal.length);
  char *copy = malloc(t->normal.length);
  if (!copy) return nb_fail_memory(err, t->normal.length);
  memcpy(copy, t->normal.data, t->normal.length);
  t->owned[t->owned_count++] = copy;
  token->text = copy;
  token->length = t->normal.length;
  return NIBBLE_OK;
}

/* Gives the entry its id: the vocabulary's, else the next free one. The file's own "id" does not count, in the
 * reference neither. */
static nibble_status place_entry(const char *where, nb_tokenizer *t, nb_added *list, size_t *count, nb_added token,
                                 int32_t *next_id, nibble_error *err) {
  nb_bpe *bpe = &t->bpe;
  int64_t id = -1;
  bool fresh = !nb_strmap_find(&bpe->ids, token.text, token.length, &id);
  if (fresh) {
    id = (*next_id)++;
    if (id >= NB_MAX_ID) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: too many added tokens", where);
    if (nb_strmap_add(&bpe->ids, token.text, token.length, id) == NB_STRMAP_NO_MEMORY)
      return nb_fail_memory(err, token.length);
  }
  bool known = id < bpe->token_count && bpe->tokens[id].text;
  int32_t index = known ? bpe->tokens[id].added : 0;
  const char *content = token.text;
  size_t length = token.length;
  if (index > 0 && !fresh) token.special |= list[index - 1].special; /* once special, always */
  nibble_status status = normalize_entry(where, t, &token, err);
  if (status != NIBBLE_OK) return status;
  if (!nb_bpe_set_token(bpe, (int32_t)id, token.text, token.length)) return nb_fail_memory(err, sizeof(nb_token));
  if (index == 0) index = (int32_t)++ * count;
  token.id = (int32_t)id;
  list[index - 1] = token;
  bpe->tokens[id].added = index;
  /* The reference looks a decoded text up among the special ones as they were written. */
  bpe->tokens[id].special = token.special && token.length == length && memcmp(token.text, content, length) == 0;
  return NIBBLE_OK;
}

static nibble_status split_list(const char *where, nb_tokenizer *t, const nb_added *list, size_t count,
                                nibble_error *err) {
  t->verbatim.tokens = nb_alloc(count + 1, sizeof *list);
  t->normalized.tokens = nb_alloc(count + 1, sizeof *list);
  if (!t->verbatim.tokens || !t->normalized.tokens) return nb_fail_memory(err, count * sizeof *list);
  bool single_word = false;
  for (size_t i = 0; i < count; i++) {
    nb_added_set *set = list[i].normalized ? &t->normalized : &t->verbatim;
    set->tokens[set->count++] = list[i];
    single_word |= list[i].single_word;
  }
  nibble_status status = sort_set(where, &t->verbatim, err);
  if (status == NIBBLE_OK) status = sort_set(where, &t->normalized, err);
  /* \w of Rust's regex */
  const char *word = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]";
  return status == NIBBLE_OK && single_word ? nb_regex_compile(where, word, false, &t->word, err) : status;
}

nibble_status nb_added_parse(const char *where, const cJSON *list, nb_tokenizer *t, nibble_error *err) {
  bool present = list && !cJSON_IsNull(list);
  if (present && !cJSON_IsArray(list)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: added_tokens is not a list", where);
  size_t n = 0, count = 0;
  for (const cJSON *item = present ? list->child : NULL; item; item = item->next) n++;
  nb_added *entries = nb_alloc(n + 1, sizeof *entries);
  t->owned = nb_alloc(n + 1, 2 * sizeof *t->owned);
  nibble_status status = entries && t->owned ? NIBBLE_OK : nb_fail_memory(err, n * sizeof *entries);
  int32_t next_id = (int32_t)t->bpe.model_count;
  for (const cJSON *item = present ? list->child : NULL; item && status == NIBBLE_OK; item = item->next) {
    nb_added token;
    status = read_entry(where, item, t, &token, err);
    if (status == NIBBLE_OK && token.length > 0) status = place_entry(where, t, entries, &count, token, &next_id, err);
  }
  if (status == NIBBLE_OK) status = split_list(where, t, entries, count, err);
  free(entries);
  return status;
}

void nb_added_free(nb_tokenizer *t) {
  for (size_t i = 0; i < t->owned_count; i++) free(t->owned[i]);
  free(t->owned);
  free(t->verbatim.tokens);
  free(t->normalized.tokens);
  nb_regex_free(t->word);
}

/* --- matching --- */

/* The first of tokens[low, high) whose byte at `depth` is not less than `byte`. */
static size_t bound(const nb_added_set *set, size_t low, size_t high, size_t depth, unsigned byte) {
  while (low < high) {
    size_t middle = (low + high) / 2;
    if ((unsigned char)set->tokens[middle].text[depth] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The longest token that text[0, n) begins with; NULL if there is none. */
static const nb_added *match(const nb_added_set *set, const char *text, size_t n) {
  unsigned byte = (unsigned char)text[0];
  size_t low = set->first[byte], high = set->first[byte + 1];
  const nb_added *best = NULL;
  for (size_t depth = 1; low < high; depth++) {
    if (set->tokens[low].length == depth) best = &set->tokens[low++];
    if (depth == n || low == high) break;
    byte = (unsigned char)text[depth];
    low = bound(set, low, high, depth, byte);
    high = bound(set, low, high, depth, byte + 1);
  }
  return best;
}

static bool is_word(const nb_tokenizer *t, const char *text) {
  size_t length, begin, end;
  nb_utf8_decode(text, &length);
  nb_buf shadow = {0};
  bool found = false;
  nb_make_shadow(text, length, &shadow);
  if (!shadow.failed) nb_regex_next(t->word, shadow.data, length, &(nb_regex_cursor){0}, &found, &begin, &end, NULL);
  nb_buf_free(&shadow);
  return found;
}

/* Where the character that ends before text[at] begins. */
static size_t back(const char *text, size_t at) {
  do at--;
  while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
  return at;
}

static bool stands_alone(const nb_tokenizer *t, const char *text, size_t n, size_t begin, size_t end) {
  return (begin == 0 || !is_word(t, text + back(text, begin))) && (end == n || !is_word(t, text + end));
}

/* White space to the left of `at`, but not beyond `from`. */
static size_t strip_left(const char *text, size_t from, size_t at) {
  size_t length;
  while (at > from) {
    size_t previous = back(text, at);
    if (!nb_is_space(nb_utf8_decode(text + previous, &length))) break;
    at = previous;
  }
  return at;
}

nibble_status nb_added_cut(const nb_tokenizer *t, const nb_added_set *set, const char *text, size_t n, nb_part_fn part,
                           void *ctx, nibble_error *err) {
  size_t done = 0, space = 0; /* `space`: where the white space that was last looked for ends */
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; set->count > 0 && i < n && status == NIBBLE_OK;) {
    const nb_added *token = match(set, text + i, n - i);
    if (!token) {
      i++;
      continue;
    }
    size_t begin = i, end = i += token->length, length;
    if (token->single_word && !stands_alone(t, text, n, begin, end)) continue;
    if (token->lstrip) begin = strip_left(text, done < begin ? done : begin, begin);
    if (token->lstrip && begin < done) begin = done;
    if (token->rstrip) {
      if (space < end) space = end;
      while (space < n && nb_is_space(nb_utf8_decode(text + space, &length))) space += length;
      end = space;
    }
    if (done < begin) status = part(ctx, done, begin, -1, err);
    if (status == NIBBLE_OK) status = part(ctx, begin, end, token->id, err);
    done = end;
  }
  return status == NIBBLE_OK && done != n ? part(ctx, done, n, -1, err) : status;
}
