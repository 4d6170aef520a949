#include "tokenizer/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "tokenizer/unicode.h"

enum {
  MAX_LENGTH = 1 << 10, /* bytes of an added token */
  BYTE_WORK = 6,        /* what it costs to look a byte of a text up among the tokens, in units of the budget, */
  PROBE_WORK = 3,       /* and for each halving of those that are left */
};

typedef struct token {
  nb_str text; /* as matched: normalized if it asks for that */
  int32_t id;
  bool single_word, lstrip, rstrip, normalized, special;
} token;

/* Sorted by their bytes, searched for the longest that a place in a text begins with. */
typedef struct set {
  const token *tokens;
  size_t count;
  size_t first[257]; /* those that begin with byte b lie in [first[b], first[b + 1]) */
} set;

struct nb_added {
  token *tokens; /* [count], by set, then by bytes */
  size_t count;
  set sets[2];  /* matched in the text as given, and in the normalized one */
  char **texts; /* of the tokens, as written and as normalized */
  size_t text_count;
  nb_regex *word; /* matches one character of a word; NULL if no token asks */
};

/* --- reading --- */

typedef struct reader {
  nb_step_reader step;
  nb_added *added;
  const nb_normalizer *normalizer;
  nb_vocab *vocab;
  nb_budget budget; /* to normalize them */
  int32_t next_id;
} reader;

/* What one entry of the list says. */
static void read_entry(reader *r, const cJSON *json, token *out) {
  char *text = NULL;
  *out = (token){0};
  r->step.json = json;
  nb_step_string(&r->step, "content", MAX_LENGTH, &text);
  nb_step_bool(&r->step, "special", &out->special);
  out->normalized = !out->special;
  nb_step_bool(&r->step, "normalized", &out->normalized);
  nb_step_bool(&r->step, "single_word", &out->single_word);
  nb_step_bool(&r->step, "lstrip", &out->lstrip);
  nb_step_bool(&r->step, "rstrip", &out->rstrip);
  if (!text) return;
  r->added->texts[r->added->text_count++] = text;
  out->text = (nb_str){text, strlen(text)};
}

/* Replaces the text of a normalized token by the one that it is matched by and decodes to. */
static nibble_status normalize_entry(reader *r, token *t) {
  if (!t->normalized || !r->normalizer) return NIBBLE_OK;
  nb_normal normal = {.at_start = true};
  nb_buf_append(&normal.text, t->text.data, t->text.length);
  nb_budget_add(&r->budget, normal.text.length);
  nibble_status status = nb_normalize(r->normalizer, &normal, &r->budget, r->step.err);
  nb_str text = {normal.text.data, normal.text.length};
  if (text.data) r->added->texts[r->added->text_count++] = normal.text.data;
  normal.text = (nb_buf){0};
  nb_normal_free(&normal);
  if (status == NIBBLE_OK && (text.length == 0 || text.length > MAX_LENGTH))
    return nb_fail(r->step.err, NIBBLE_BAD_INPUT, "%s: the added token '%.60s' has %zu bytes when normalized",
                   r->step.where, t->text.data, text.length);
  t->text = text;
  return status;
}

/* The entry's id: the vocabulary's, else the next free one. The file's own "id" does not count, in the reference
 * neither. */
static nibble_status find_id(reader *r, token *t, bool *fresh) {
  t->id = nb_vocab_any_id(r->vocab, t->text.data, t->text.length);
  *fresh = t->id < 0;
  if (!*fresh) return NIBBLE_OK;
  t->id = r->next_id++;
  if (t->id >= NB_MAX_ID) return nb_fail(r->step.err, NIBBLE_BAD_INPUT, "%s: too many added tokens", r->step.where);
  bool ok = nb_strmap_add(&r->vocab->added, t->text.data, t->text.length, t->id) != NB_STRMAP_NO_MEMORY;
  return ok ? NIBBLE_OK : nb_fail_memory(r->step.err, t->text.length);
}

static nibble_status place_entry(reader *r, token t) {
  nb_vocab *v = r->vocab;
  nb_str written = t.text;
  bool fresh;
  nibble_status status = find_id(r, &t, &fresh);
  if (status != NIBBLE_OK) return status;
  int32_t index = t.id < v->count && v->tokens[t.id].text ? v->tokens[t.id].added : 0;
  if (index > 0 && !fresh) t.special |= r->added->tokens[index - 1].special; /* once special, always */
  status = normalize_entry(r, &t);
  if (status != NIBBLE_OK) return status;
  if (!nb_vocab_spell(v, t.id, t.text)) return nb_fail_memory(r->step.err, sizeof(nb_token));
  if (index == 0) index = (int32_t)++r->added->count;
  r->added->tokens[index - 1] = t;
  v->tokens[t.id].added = index;
  /* The reference looks a decoded text up among the special ones as they were written. */
  bool same = t.text.length == written.length && memcmp(t.text.data, written.data, written.length) == 0;
  v->tokens[t.id].special = t.special && same;
  return NIBBLE_OK;
}

static int by_set_and_bytes(const void *a, const void *b) {
  const token *x = a, *y = b;
  if (x->normalized != y->normalized) return x->normalized ? 1 : -1;
  size_t n = x->text.length < y->text.length ? x->text.length : y->text.length;
  int order = memcmp(x->text.data, y->text.data, n);
  return order ? order : (x->text.length > y->text.length) - (x->text.length < y->text.length);
}

/* Sorts the list and parts it into the two sets. */
static nibble_status fill_sets(reader *r) {
  token *list = r->added->tokens;
  if (r->added->count > 0) qsort(list, r->added->count, sizeof *list, by_set_and_bytes);
  size_t k = 0;
  for (int i = 0; i < 2; i++) {
    set *s = &r->added->sets[i];
    s->tokens = list + k;
    for (unsigned byte = 0; byte < 256; byte++) {
      s->first[byte] = s->count;
      for (; k < r->added->count && list[k].normalized == i && (unsigned char)list[k].text.data[0] == byte; k++)
        s->count++;
    }
    s->first[256] = s->count;
  }
  bool single_word = false;
  for (size_t i = 0; i < r->added->count; i++) {
    single_word |= list[i].single_word;
    if (i > 0 && by_set_and_bytes(&list[i - 1], &list[i]) == 0)
      return nb_fail(r->step.err, NIBBLE_BAD_INPUT, "%s: two added tokens are both written '%.*s'", r->step.where,
                     (int)nb_min_i64((int64_t)list[i].text.length, 60), list[i].text.data);
  }
  /* \w of Rust's regex */
  const char *word = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]";
  return single_word ? nb_regex_compile(r->step.where, word, false, &r->added->word, r->step.err) : NIBBLE_OK;
}

nibble_status nb_added_read(const char *where, const cJSON *json, const nb_normalizer *normalizer, nb_vocab *vocab,
                            nb_added **out, nibble_error *err) {
  if (json && !cJSON_IsNull(json) && !cJSON_IsArray(json))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: added_tokens is not a list", where);
  size_t n = (size_t)cJSON_GetArraySize(json) + 1;
  nb_added *added = *out = calloc(1, sizeof *added);
  if (!added) return nb_fail_memory(err, sizeof *added);
  reader r = {.step = {.where = where, .group = "added", .type = "token", .err = err},
              .added = added,
              .normalizer = normalizer,
              .vocab = vocab,
              .budget = nb_budget_of(0),
              .next_id = vocab->own};
  added->texts = nb_alloc(n, 2 * sizeof *added->texts);
  added->tokens = nb_alloc(n, sizeof *added->tokens);
  nibble_status status = added->texts && added->tokens ? NIBBLE_OK : nb_fail_memory(err, n * sizeof *added->tokens);
  for (const cJSON *item = json ? json->child : NULL; item && status == NIBBLE_OK; item = item->next) {
    token t;
    read_entry(&r, item, &t);
    status = r.step.status;
    if (status == NIBBLE_OK && t.text.length > 0) status = place_entry(&r, t);
  }
  return status == NIBBLE_OK ? fill_sets(&r) : status;
}

void nb_added_free(nb_added *added) {
  if (!added) return;
  for (size_t i = 0; i < added->text_count; i++) free(added->texts[i]);
  free(added->texts);
  free(added->tokens);
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

/* Bits of n. */
static unsigned width(size_t n) { return n > 0 ? 64 - (unsigned)__builtin_clzll(n) : 0; }

/* The longest token that text[0, n) begins with; NULL if there is none. Adds what it took to *work: a text may go along
 * a long token at every place and never match it. */
static const token *match(const set *s, const char *text, size_t n, uint64_t *work) {
  unsigned byte = (unsigned char)text[0];
  size_t low = s->first[byte], high = s->first[byte + 1];
  const token *best = NULL;
  for (size_t depth = 1; low < high; depth++) {
    if (s->tokens[low].text.length == depth) best = &s->tokens[low++];
    if (depth == n || low == high) break;
    byte = (unsigned char)text[depth];
    *work += BYTE_WORK + PROBE_WORK * width(high - low);
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
  nb_budget budget = nb_budget_of(length);
  nb_search search = {.text = shadow.data, .n = length, .budget = &budget};
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

nibble_status nb_added_cut(const nb_added *added, bool normalized, nb_str text, nb_cut_sink sink, nb_budget *budget,
                           nibble_error *err) {
  const set *s = &added->sets[normalized];
  size_t n = text.length, done = 0, space = 0; /* `space`: where the white space that was last looked for ends */
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; s->count > 0 && i < n && status == NIBBLE_OK;) {
    uint64_t work = 0;
    const token *t = match(s, text.data + i, n - i, &work);
    if (!nb_budget_pay(budget, work))
      return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's added tokens cost too much on this text");
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
