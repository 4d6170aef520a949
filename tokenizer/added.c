#include "tokenizer/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/unicode.h"

enum { MAX_LENGTH = 1 << 10 }; /* bytes of an added token: bounds the work at each place in a text */

typedef struct token {
  nb_str text; /* as matched: normalized if it asks for that */
  int32_t id;
  bool single_word, lstrip, rstrip, normalized, special;
} token;

/* Sorted by their bytes, searched for the longest that a place in a text begins with. */
typedef struct set {
  token *tokens;
  size_t count;
  size_t first[257]; /* those that begin with byte b lie in [first[b], first[b + 1]) */
} set;

struct nb_added {
  set sets[2];  /* matched in the text as given, and in the normalized one */
  char **texts; /* of the tokens, as written and as normalized */
  size_t text_count;
  nb_regex *word; /* matches one character of a word; NULL if no token asks */
};

/* --- reading --- */

typedef struct reader {
  nb_step_reader part;
  nb_added *added;
  const nb_normalizer *normalizer;
  nb_vocab *vocab;
  token *list; /* [count] */
  size_t count;
  int32_t next_id;
} reader;

/* What one entry of the list says. */
static nibble_status read_entry(reader *r, const cJSON *json, token *out) {
  const char *where = r->part.where;
  nibble_error *err = r->part.err;
  char *text;
  nibble_status status = nb_step_string(&r->part, json, "content", MAX_LENGTH, &text);
  if (status != NIBBLE_OK) return status;
  r->added->texts[r->added->text_count++] = text;
  *out = (token){.text = {text, strlen(text)}};
  status = nb_json_bool(where, json, "special", &out->special, err);
  out->normalized = !out->special;
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "normalized", &out->normalized, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "single_word", &out->single_word, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "lstrip", &out->lstrip, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "rstrip", &out->rstrip, err);
  return status;
}

/* Replaces the text of a normalized token by the one that it is matched by and decodes to. */
static nibble_status normalize_entry(reader *r, token *t) {
  if (!t->normalized || !r->normalizer) return NIBBLE_OK;
  nibble_error *err = r->part.err;
  nb_buf text = {0}, scratch = {0};
  bool at_start = true;
  nb_buf_append(&text, t->text.data, t->text.length);
  nibble_status status = nb_normalize(r->normalizer, &text, &scratch, &at_start, err);
  nb_buf_free(&scratch);
  if (status == NIBBLE_OK && (text.length == 0 || text.length > MAX_LENGTH))
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the added token '%.60s' has %zu bytes when normalized", r->part.where,
                     t->text.data, text.length);
  if (status != NIBBLE_OK) {
    nb_buf_free(&text);
    return status;
  }
  r->added->texts[r->added->text_count++] = text.data;
  t->text = (nb_str){text.data, text.length};
  return NIBBLE_OK;
}

/* Finds or makes the entry's id. The file's own "id" does not count, in the reference neither. */
static nibble_status find_id(reader *r, token *t, bool *fresh) {
  nb_str text = t->text;
  t->id = nb_vocab_id(r->vocab, text.data, text.length);
  *fresh = t->id < 0;
  if (!*fresh) return NIBBLE_OK;
  t->id = r->next_id++;
  if (t->id >= NB_MAX_ID) return nb_fail(r->part.err, NIBBLE_BAD_INPUT, "%s: too many added tokens", r->part.where);
  bool ok = nb_strmap_add(&r->vocab->ids, text.data, text.length, t->id) != NB_STRMAP_NO_MEMORY;
  return ok ? NIBBLE_OK : nb_fail_memory(r->part.err, text.length);
}

static nibble_status place_entry(reader *r, token t) {
  nb_vocab *v = r->vocab;
  nb_str written = t.text;
  bool fresh;
  nibble_status status = find_id(r, &t, &fresh);
  if (status != NIBBLE_OK) return status;
  int32_t index = t.id < v->count && v->tokens[t.id].text ? v->tokens[t.id].added : 0;
  if (index > 0 && !fresh) t.special |= r->list[index - 1].special; /* once special, always */
  status = normalize_entry(r, &t);
  if (status != NIBBLE_OK) return status;
  if (!nb_vocab_spell(v, t.id, t.text)) return nb_fail_memory(r->part.err, sizeof(nb_token));
  if (index == 0) index = (int32_t)++r->count;
  r->list[index - 1] = t;
  v->tokens[t.id].added = index;
  /* The reference looks a decoded text up among the special ones as they were written. */
  bool same = t.text.length == written.length && memcmp(t.text.data, written.data, written.length) == 0;
  v->tokens[t.id].special = t.special && same;
  return NIBBLE_OK;
}

static int by_bytes(const void *a, const void *b) {
  nb_str x = ((const token *)a)->text, y = ((const token *)b)->text;
  int order = memcmp(x.data, y.data, x.length < y.length ? x.length : y.length);
  return order ? order : (x.length > y.length) - (x.length < y.length);
}

static nibble_status sort_set(const nb_step_reader *part, set *s) {
  if (s->count > 0) qsort(s->tokens, s->count, sizeof *s->tokens, by_bytes);
  size_t k = 0;
  for (unsigned byte = 0; byte < 256; byte++) {
    s->first[byte] = k;
    while (k < s->count && (unsigned char)s->tokens[k].text.data[0] == byte) k++;
  }
  s->first[256] = k;
  for (size_t i = 1; i < s->count; i++) {
    nb_str text = s->tokens[i].text;
    if (by_bytes(&s->tokens[i - 1], &s->tokens[i]) == 0)
      return nb_fail(part->err, NIBBLE_BAD_INPUT, "%s: two added tokens are both written '%.*s'", part->where,
                     (int)nb_min_i64((int64_t)text.length, 60), text.data);
  }
  return NIBBLE_OK;
}

static nibble_status fill_sets(reader *r) {
  nb_added *added = r->added;
  bool single_word = false;
  for (int i = 0; i < 2; i++) {
    added->sets[i].tokens = nb_alloc(r->count + 1, sizeof *r->list);
    if (!added->sets[i].tokens) return nb_fail_memory(r->part.err, r->count * sizeof *r->list);
  }
  for (size_t i = 0; i < r->count; i++) {
    set *s = &added->sets[r->list[i].normalized];
    s->tokens[s->count++] = r->list[i];
    single_word |= r->list[i].single_word;
  }
  nibble_status status = sort_set(&r->part, &added->sets[0]);
  if (status == NIBBLE_OK) status = sort_set(&r->part, &added->sets[1]);
  if (status != NIBBLE_OK || !single_word) return status;
  /* \w of Rust's regex */
  const char *word = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]";
  return nb_regex_compile(r->part.where, word, false, &added->word, r->part.err);
}

nibble_status nb_added_read(const char *where, const cJSON *list, const nb_normalizer *normalizer, nb_vocab *vocab,
                            nb_added **out, nibble_error *err) {
  *out = NULL;
  if (list && !cJSON_IsNull(list) && !cJSON_IsArray(list))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: added_tokens is not a list", where);
  const cJSON *first = list ? list->child : NULL;
  size_t n = 0;
  for (const cJSON *item = first; item; item = item->next) n++;
  reader r = {.part = {.where = where, .name = "added", .type = "token", .err = err},
              .added = calloc(1, sizeof *r.added),
              .normalizer = normalizer,
              .vocab = vocab,
              .list = nb_alloc(n + 1, sizeof *r.list),
              .next_id = vocab->own};
  if (r.added) r.added->texts = nb_alloc(n + 1, 2 * sizeof *r.added->texts);
  bool ok = r.added && r.added->texts && r.list;
  nibble_status status = ok ? NIBBLE_OK : nb_fail_memory(err, n * sizeof *r.list);
  for (const cJSON *item = first; item && status == NIBBLE_OK; item = item->next) {
    token t;
    status = read_entry(&r, item, &t);
    if (status == NIBBLE_OK && t.text.length > 0) status = place_entry(&r, t);
  }
  if (status == NIBBLE_OK) status = fill_sets(&r);
  free(r.list);
  if (status == NIBBLE_OK)
    *out = r.added;
  else
    nb_added_free(r.added);
  return status;
}

void nb_added_free(nb_added *added) {
  if (!added) return;
  for (size_t i = 0; i < added->text_count; i++) free(added->texts[i]);
  free(added->texts);
  free(added->sets[0].tokens);
  free(added->sets[1].tokens);
  nb_regex_free(added->word);
  free(added);
}

/* --- matching --- */

/* The first of tokens[low, high) whose byte at `depth` is not less than `byte`. */
static size_t bound(const set *s, size_t low, size_t high, size_t depth, unsigned byte) {
  while (low < high) {
    size_t middle = (low + high) / 2;
    if ((unsigned char)s->tokens[middle].text.data[depth] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The longest token that text[0, n) begins with; NULL if there is none. */
static const token *match(const set *s, const char *text, size_t n) {
  unsigned byte = (unsigned char)text[0];
  size_t low = s->first[byte], high = s->first[byte + 1];
  const token *best = NULL;
  for (size_t depth = 1; low < high; depth++) {
    if (s->tokens[low].text.length == depth) best = &s->tokens[low++];
    if (depth == n || low == high) break;
    byte = (unsigned char)text[depth];
    low = bound(s, low, high, depth, byte);
    high = bound(s, low, high, depth, byte + 1);
  }
  return best;
}

static bool is_word(const nb_added *added, const char *text) {
  size_t length;
  nb_utf8_decode(text, &length);
  nb_buf shadow = {0};
  nb_make_shadow(text, length, &shadow);
  nb_search search = {.text = shadow.data, .n = length};
  if (!shadow.failed) nb_regex_next(added->word, &search, NULL);
  nb_buf_free(&shadow);
  return search.found;
}

/* Where the character that ends before text[at] begins. */
static size_t back(const char *text, size_t at) {
  do at--;
  while (at > 0 && !nb_utf8_begins(text[at]));
  return at;
}

static bool stands_alone(const nb_added *added, nb_str text, size_t begin, size_t end) {
  return (begin == 0 || !is_word(added, text.data + back(text.data, begin))) &&
         (end == text.length || !is_word(added, text.data + end));
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

nibble_status nb_added_cut(const nb_added *added, bool normalized, nb_str text, nb_cut_sink sink, nibble_error *err) {
  const set *s = &added->sets[normalized];
  size_t n = text.length, done = 0, space = 0; /* `space`: where the white space that was last looked for ends */
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; s->count > 0 && i < n && status == NIBBLE_OK;) {
    const token *t = match(s, text.data + i, n - i);
    if (!t) {
      i++;
      continue;
    }
    size_t begin = i, end = i += t->text.length, length;
    if (t->single_word && !stands_alone(added, text, begin, end)) continue;
    if (t->lstrip) begin = strip_left(text.data, done < begin ? done : begin, begin);
    if (t->lstrip && begin < done) begin = done;
    if (t->rstrip) {
      if (space < end) space = end;
      while (space < n && nb_is_space(nb_utf8_decode(text.data + space, &length))) space += length;
      end = space;
    }
    if (done < begin) status = sink.take(sink.ctx, done, begin, -1, err);
    if (status == NIBBLE_OK) status = sink.take(sink.ctx, begin, end, t->id, err);
    done = end;
  }
  return status == NIBBLE_OK && done != n ? sink.take(sink.ctx, done, n, -1, err) : status;
}
