#include "tokenizer/readers/json_tables.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/grow.h"
#include "base/parallel.h"
#include "tokenizer/readers/json_walk.h"

typedef struct reader {
  const char *where;
  nb_walk s;
  nibble_error *err;
} reader;

static reader open_table(const nb_json_table *table, nibble_error *err) {
  return (reader){table->where, {table->text, table->begin, table->end}, err};
}

static nibble_status bad(reader *r, const char *what) {
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s at byte %zu", r->where, what, r->s.at);
}

/* --- the vocabulary --- */

static nibble_status read_id(reader *r, int32_t *id) {
  int64_t value = 0;
  size_t begin = r->s.at;
  while (r->s.at < r->s.n && r->s.text[r->s.at] >= '0' && r->s.text[r->s.at] <= '9' && value < NB_MAX_ID)
    value = value * 10 + (r->s.text[r->s.at++] - '0');
  if (r->s.at == begin) return bad(r, "a token's id is not a whole number");
  if (value >= NB_MAX_ID) return bad(r, "a token's id is larger than any vocabulary");
  *id = (int32_t)value;
  return NIBBLE_OK;
}

/* value times ten to the power of `exponent`. */
static double scale(uint64_t digits, int64_t exponent) {
  enum { LARGEST = 308 }; /* a double's exponent */
  static const double exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  double value = (double)digits;
  for (; exponent < -LARGEST && value != 0; exponent += LARGEST) value /= 1e308;
  if (value == 0) return value;
  if (exponent > LARGEST) return INFINITY;
  uint64_t size = (uint64_t)(exponent < 0 ? -exponent : exponent);
  char text[16];
  snprintf(text, sizeof text, "1e%d", (int)size);
  double power = size < sizeof exact / sizeof *exact ? exact[size] : strtod(text, NULL);
  return exponent < 0 ? value / power : value * power;
}

/* A score, to the bit as the reference reads it: the first digits that fit into 64 bits, as a double, times or divided
 * by a power of ten. That is not always the double nearest to the number, and where two paths through a word are equal
 * but for rounding, the last bit decides. */
static bool read_score(reader *r, double *out) {
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool full = false, fraction = false, negative = r->s.at < r->s.n && r->s.text[r->s.at] == '-';
  size_t begin = r->s.at += negative;
  for (; r->s.at < r->s.n; r->s.at++) {
    char c = r->s.text[r->s.at];
    if (c == '.' && !fraction && r->s.at > begin) {
      fraction = true;
    } else if (c >= '0' && c <= '9') {
      unsigned digit = (unsigned)(c - '0');
      full |= digits > (UINT64_MAX - digit) / 10;
      if (!full) digits = digits * 10 + digit;
      exponent += (full && !fraction) - (!full && fraction);
    } else {
      break;
    }
  }
  if (r->s.at == begin || r->s.text[r->s.at - 1] == '.') return false;
  if (r->s.text[begin] == '0' && r->s.at > begin + 1 && r->s.text[begin + 1] != '.') return false;
  if (r->s.at < r->s.n && (r->s.text[r->s.at] | 32) == 'e') {
    char *end;
    const char *text = r->s.text + r->s.at + 1; /* a brace follows the table, so the number ends */
    if (!strchr("+-0123456789", *text)) return false;
    long value = strtol(text, &end, 10);
    if (end == text || value < -100000 || value > 100000) return false;
    exponent += value;
    r->s.at = (size_t)(end - r->s.text);
  }
  *out = scale(digits, exponent);
  if (negative) *out = -*out;
  return isfinite(*out);
}

nibble_status nb_json_read_scored(const nb_json_table *table, nb_vocab *vocab, nibble_error *err) {
  reader opened = open_table(table, err), *r = &opened;
  size_t capacity = 0;
  char *out = vocab->texts = malloc(table->end - table->begin + 1);
  if (!out) return nb_fail_memory(err, table->end - table->begin);
  if (!nb_walk_take(&r->s, '[')) return bad(r, "model.vocab is not a list");
  if (nb_walk_take(&r->s, ']')) return NIBBLE_OK;
  do {
    nb_str text;
    int32_t id = vocab->count;
    double *scores = nb_grow(vocab->scores, &capacity, (size_t)id + 1, sizeof *scores);
    if (!scores) return nb_fail_memory(r->err, capacity * sizeof *scores);
    vocab->scores = scores;
    if (!nb_walk_take(&r->s, '[') || !nb_walk_string(&r->s, &text) || !nb_walk_take(&r->s, ','))
      return bad(r, "model.vocab is not a list of pairs");
    long length = nb_walk_unescape(text, out);
    if (length < 0) return bad(r, "model.vocab has a damaged string");
    if (!read_score(r, &scores[id])) return bad(r, "the score of a token is no number");
    if (!nb_walk_take(&r->s, ']')) return bad(r, "model.vocab is not a list of pairs");
    if (id == NB_MAX_ID - 1) return bad(r, "a token's id is larger than any vocabulary");
    nibble_status status = nb_vocab_append(vocab, (nb_str){out, (size_t)length}, r->err);
    if (status != NIBBLE_OK) return status;
    out += length;
  } while (nb_walk_take(&r->s, ','));
  return nb_walk_take(&r->s, ']') && r->s.at == r->s.n ? nb_vocab_make_index(vocab, NULL, r->err)
                                                       : bad(r, "model.vocab is not valid JSON");
}

nibble_status nb_json_read_vocab(const nb_json_table *table, nb_vocab *vocab, nibble_error *err) {
  reader opened = open_table(table, err), *r = &opened;
  char *out = vocab->texts = malloc(table->end - table->begin + 1);
  if (!out) return nb_fail_memory(err, table->end - table->begin);
  if (!nb_walk_take(&r->s, '{')) return bad(r, "model.vocab is not an object");
  if (nb_walk_take(&r->s, '}')) return NIBBLE_OK;
  do {
    nb_str key;
    int32_t id = 0;
    if (!nb_walk_string(&r->s, &key) || !nb_walk_take(&r->s, ':')) return bad(r, "model.vocab is not valid JSON");
    long length = nb_walk_unescape(key, out);
    if (length < 0) return bad(r, "model.vocab has a damaged string");
    nibble_status status = read_id(r, &id);
    if (status == NIBBLE_OK) status = nb_vocab_add(vocab, r->where, id, (nb_str){out, (size_t)length}, r->err);
    if (status != NIBBLE_OK) return status;
    out += length;
  } while (nb_walk_take(&r->s, ','));
  return nb_walk_take(&r->s, '}') && r->s.at == r->s.n ? nb_vocab_make_index(vocab, r->where, r->err)
                                                       : bad(r, "model.vocab is not valid JSON");
}

/* --- merges, one by one --- */

static nibble_status add_merge(reader *r, nb_tokenizer_spec *spec, nb_str left, nb_str right) {
  bool known;
  nibble_status status = nb_merges_add(&spec->merges, &spec->vocab, left, right, &known, r->err);
  if (status != NIBBLE_OK || known) return status;
  return nb_fail(r->err, NIBBLE_BAD_INPUT,
                 "%s: merge %zu of '%.*s' and '%.*s' names a token that is not in model.vocab", r->where,
                 spec->merges.count, (int)nb_min_i64((int64_t)left.length, 60), left.data,
                 (int)nb_min_i64((int64_t)right.length, 60), right.data);
}

/* One merge, ["a", "b"] or "a b", which has room in `text`. */
static nibble_status read_merge(reader *r, nb_tokenizer_spec *spec, char *text) {
  nb_str first, second;
  bool pair = nb_walk_take(&r->s, '[');
  if (!nb_walk_string(&r->s, &first)) return bad(r, "model.merges is not valid JSON");
  long a = nb_walk_unescape(first, text);
  if (pair && (!nb_walk_take(&r->s, ',') || !nb_walk_string(&r->s, &second) || !nb_walk_take(&r->s, ']')))
    return bad(r, "a merge is not a pair of strings");
  long b = pair && a >= 0 ? nb_walk_unescape(second, text + a) : 0;
  if (a < 0 || b < 0) return bad(r, "model.merges has a damaged string");
  if (pair) return add_merge(r, spec, (nb_str){text, (size_t)a}, (nb_str){text + a, (size_t)b});
  if (a >= 8 && memcmp(text, "#version", 8) == 0) return NIBBLE_OK; /* left from merges.txt */
  const char *space = memchr(text, ' ', (size_t)a), *end = text + a;
  if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1))) return bad(r, "a merge is not two tokens");
  return add_merge(r, spec, (nb_str){text, (size_t)(space - text)}, (nb_str){space + 1, (size_t)(end - space - 1)});
}

/* --- merges, many at a time ---
 *
 * What takes time is to find three tokens of each merge in a vocabulary that is larger than a processor's caches. So a
 * batch of merges is read and memory asked for all of it before the first is looked for, and the list is cut into parts
 * for the cores. Nobody knows where in a list one may cut before it has been read from the front: a cut is a guess,
 * and the part before it tells whether it was right, by ending there. Where it was wrong, or anything is wrong with a
 * part, or just not as it usually is, the list is read from the front, merge by merge, which finds what to say of it.
 */

enum { BATCH = NB_VOCAB_MANY / 2, PART = 1 << 17 /* bytes of a list that are worth a part */, PARTS = 8 };

typedef struct part {
  const nb_vocab *vocab;
  nb_walk s;    /* where it begins; where the list ends */
  size_t limit; /* where the next part begins */
  size_t end;   /* where it has ended: at the limit, or at the bracket that closes the list */
  nb_merges out;
  bool failed;
} part;

typedef struct batch {
  nb_str texts[2 * BATCH]; /* left and right ones by turns */
  size_t count;            /* of merges */
  char written[1 << 12];   /* texts that had escapes */
  size_t used;             /* bytes of that */
} batch;

/* One of a merge's strings; false also if there is no room for it. */
static bool scan_text(nb_walk *s, batch *b, nb_str *text) {
  if (nb_walk_plain(s, text)) return true;
  if (!nb_walk_string(s, text) || text->length > sizeof b->written - b->used) return false;
  long length = nb_walk_unescape(*text, b->written + b->used);
  if (length < 0) return false;
  *text = (nb_str){b->written + b->used, (size_t)length};
  b->used += (size_t)length;
  return true;
}

static bool scan_merge(nb_walk *s, batch *b) {
  nb_str *left = &b->texts[2 * b->count], *right = left + 1;
  if (nb_walk_take(s, '['))
    return scan_text(s, b, left) && nb_walk_take(s, ',') && scan_text(s, b, right) && nb_walk_take(s, ']');
  if (!scan_text(s, b, left)) return false;
  const char *space = memchr(left->data, ' ', left->length), *end = left->data + left->length;
  if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1))) return false;
  if (left->length >= 8 && memcmp(left->data, "#version", 8) == 0) return false; /* left from merges.txt */
  *right = (nb_str){space + 1, (size_t)(end - space - 1)};
  left->length = (size_t)(space - left->data);
  return true;
}

/* True if the token is spelled as the two texts together. */
static bool is_whole(const nb_vocab *vocab, int32_t id, nb_str left, nb_str right) {
  if (id >= vocab->count || !vocab->tokens[id].text) return false;
  nb_str whole = nb_vocab_text(vocab, id);
  return whole.length == left.length + right.length && memcmp(whole.data, left.data, left.length) == 0 &&
         memcmp(whole.data + left.length, right.data, right.length) == 0;
}

/* The id of the joined token. Vocabularies are mostly in the order of their merges, so it is likely the last merge's or
 * the next one. */
static int32_t find_whole(part *p, nb_str left, nb_str right) {
  nb_merges *m = &p->out;
  if (m->count > 0 && m->skip == 0) {
    int32_t last = m->list[m->count - 1].whole;
    if (is_whole(p->vocab, last + 1, left, right)) return last + 1;
    if (is_whole(p->vocab, last, left, right)) return last;
  }
  if (right.length < m->skip) return -1;
  m->whole.length = 0;
  nb_buf_append(&m->whole, left.data, left.length);
  nb_buf_append(&m->whole, right.data + m->skip, right.length - m->skip);
  return m->whole.failed ? -1 : nb_vocab_id(p->vocab, m->whole.data, m->whole.length);
}

static bool resolve(part *p, const batch *b) {
  int32_t ids[2 * BATCH];
  nb_vocab_ids(p->vocab, b->texts, 2 * b->count, ids);
  for (size_t i = 0; i < b->count; i++) {
    nb_merge merge = {ids[2 * i], ids[2 * i + 1], find_whole(p, b->texts[2 * i], b->texts[2 * i + 1])};
    if (merge.left < 0 || merge.right < 0 || merge.whole < 0) return false;
    if (nb_merges_append(&p->out, merge, NULL) != NIBBLE_OK) return false;
  }
  return true;
}

/* Reads the merges that begin before the limit. */
static bool read_part(part *p) {
  batch b;
  for (bool more = true; more;) {
    for (b.count = b.used = 0; more && b.count < BATCH; b.count++) {
      if (!scan_merge(&p->s, &b)) return false;
      more = nb_walk_take(&p->s, ',') && p->s.at < p->limit;
    }
    if (!resolve(p, &b)) return false;
  }
  p->end = p->s.at;
  return true;
}

static void read_parts(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  for (part *p = (part *)ctx + begin; p < (part *)ctx + end; p++) p->failed = !read_part(p);
}

/* A place at or after `at` where a merge may begin, as the first one does; s->n if none is found. */
static size_t guess(const nb_walk *s, size_t at) {
  enum { LOOK = 1 << 12 }; /* bytes; merges are shorter */
  size_t end = s->n - at < LOOK ? s->n : at + LOOK;
  char begins = s->text[s->at], ends = begins == '[' ? ']' : begins;
  for (; at + 1 < end; at++) {
    if (s->text[at] != ends || s->text[at + 1] != ',') continue;
    nb_walk next = {s->text, at + 2, s->n};
    nb_walk_space(&next);
    if (next.at < s->n && s->text[next.at] == begins) return next.at;
  }
  return s->n;
}

/* Reads the merges from where r stands, behind the first bracket; false if that did not work, with nothing read. */
static bool read_by_parts(const reader *r, nb_tokenizer_spec *spec) {
  size_t bytes = r->s.n - r->s.at, count = bytes / PART + 1;
  part parts[PARTS] = {0};
  if (count > PARTS) count = PARTS;
  for (size_t i = 0; i < count; i++) {
    parts[i].vocab = &spec->vocab;
    parts[i].out.skip = spec->merges.skip;
    parts[i].s = r->s;
    if (i > 0) parts[i].s.at = parts[i - 1].limit = guess(&r->s, r->s.at + bytes / count * i);
  }
  parts[count - 1].limit = r->s.n;
  nb_parallel((int64_t)count, 1, read_parts, parts);
  bool ok = true;
  size_t total = 0;
  for (size_t i = 0; i < count; i++) {
    ok = ok && !parts[i].failed && (i + 1 == count || parts[i].end == parts[i].limit);
    total += parts[i].out.count;
  }
  nb_walk last = {r->s.text, parts[count - 1].end, r->s.n};
  ok = ok && nb_walk_take(&last, ']') && last.at == last.n;
  nb_merge *list = ok ? nb_alloc_table(total, sizeof *list) : NULL;
  for (size_t i = 0, at = 0; i < count; i++) {
    if (list) memcpy(list + at, parts[i].out.list, parts[i].out.count * sizeof *list);
    at += parts[i].out.count;
    nb_merges_free(&parts[i].out);
  }
  if (!list) return false;
  spec->merges.list = list;
  spec->merges.count = spec->merges.capacity = total;
  return true;
}

nibble_status nb_json_read_merges(const nb_json_table *table, nb_tokenizer_spec *spec, nibble_error *err) {
  reader opened = open_table(table, err), *r = &opened;
  if (!nb_walk_take(&r->s, '[')) return bad(r, "model.merges is not a list");
  if (nb_walk_take(&r->s, ']') || read_by_parts(r, spec)) return NIBBLE_OK;
  char *text = malloc(table->end - table->begin);
  nibble_status status = text ? NIBBLE_OK : nb_fail_memory(err, table->end - table->begin);
  do {
    if (status == NIBBLE_OK) status = read_merge(r, spec, text);
  } while (status == NIBBLE_OK && nb_walk_take(&r->s, ','));
  if (status == NIBBLE_OK && (!nb_walk_take(&r->s, ']') || r->s.at != r->s.n))
    status = bad(r, "model.merges is not valid JSON");
  free(text);
  return status;
}
