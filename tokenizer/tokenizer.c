#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/grow.h"
#include "base/stage.h"
#include "base/stop.h"
#include "base/utf8.h"
#include "tokenizer/added.h"
#include "tokenizer/encoding.h"
#include "tokenizer/limits.h"
#include "tokenizer/model.h"
#include "tokenizer/spec.h"
#include "tokenizer/steps.h"
#include "tokenizer/unicode.h"

struct nb_tokenizer {
  nb_vocab vocab;
  nb_token_model *model;
  nb_added *added;
  nb_normalizer *normalizer; /* NULL: none */
  nb_pre_tokenizer *pre;
  nb_decoder *decoder; /* NULL: none */
  bool clean_up;       /* the text of ids loses the spaces before punctuation */
  nb_post post;
  nibble_encode_options limits; /* what the files say of truncation and padding */
  nb_buf repaired;              /* of encode, as what follows */
  nb_normal normal;
  unsigned words; /* encoded so far */
};

void nb_ids_append(nb_ids *ids, const int32_t *more, size_t n) {
  if (ids->failed || n == 0) return;
  if (n > ids->capacity - ids->length) {
    int32_t *data = nb_grow(ids->data, &ids->capacity, ids->length + n, sizeof *data);
    if (!data) {
      ids->failed = true;
      return;
    }
    ids->data = data;
  }
  memcpy(ids->data + ids->length, more, n * sizeof *more);
  ids->length += n;
}

void nb_ids_free(nb_ids *ids) {
  free(ids->data);
  *ids = (nb_ids){0};
}

/* --- opening --- */

nibble_status nb_tokenizer_make(const char *where, nb_tokenizer_spec *spec, nb_tokenizer **out, nibble_error *err) {
  *out = NULL;
  nb_tokenizer *t = calloc(1, sizeof *t);
  if (!t) return nb_fail_memory(err, sizeof *t);
  t->vocab = spec->vocab;
  t->clean_up = spec->clean_up;
  spec->vocab = (nb_vocab){0};
  const cJSON *parts = spec->parts, *added = cJSON_GetObjectItemCaseSensitive(parts, "added_tokens");
  nibble_status status = nb_token_model_open(where, spec, &t->vocab, &t->model, err);
  if (status == NIBBLE_OK) status = nb_normalizer_read(where, parts, &t->normalizer, err);
  if (status == NIBBLE_OK) status = nb_pre_tokenizer_read(where, parts, &t->pre, err);
  if (status == NIBBLE_OK) status = nb_post_read(where, parts, &t->post, err);
  if (status == NIBBLE_OK) status = nb_limits_read(where, parts, &t->limits, err);
  if (status == NIBBLE_OK) status = nb_decoder_read(where, parts, &t->decoder, err);
  if (status == NIBBLE_OK) status = nb_added_read(where, added, t->normalizer, &t->vocab, &t->added, err);
  if (status == NIBBLE_OK)
    *out = t;
  else
    nb_tokenizer_close(t);
  return status;
}

nibble_status nb_tokenizer_parse(const char *where, const char *text, size_t n, nb_tokenizer **out, nibble_error *err) {
  *out = NULL;
  nb_tokenizer_spec spec;
  nibble_status status = nb_tokenizer_spec_read(where, text, n, &spec, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make(where, &spec, out, err);
  nb_tokenizer_spec_free(&spec);
  return status;
}

nibble_status nb_tokenizer_load(const char *path, nb_tokenizer **out, nibble_error *err) {
  enum { MAX_FILE = 256 << 20 };
  char *text;
  size_t n;
  *out = NULL;
  nibble_status status = nb_read_file(path, MAX_FILE, &text, &n, err);
  if (status != NIBBLE_OK) return status;
  status = nb_tokenizer_parse(path, text, n, out, err);
  free(text);
  return status;
}

void nb_tokenizer_spec_free(nb_tokenizer_spec *spec) {
  nb_vocab_free(&spec->vocab);
  nb_merges_free(&spec->merges);
  cJSON_Delete(spec->parts);
  cJSON_Delete(spec->named);
  *spec = (nb_tokenizer_spec){0};
}

void nb_tokenizer_close(nb_tokenizer *t) {
  if (!t) return;
  nb_token_model_close(t->model);
  nb_added_free(t->added);
  nb_vocab_free(&t->vocab);
  nb_normalizer_free(t->normalizer);
  nb_pre_tokenizer_free(t->pre);
  nb_decoder_free(t->decoder);
  nb_post_free(&t->post);
  nb_buf_free(&t->repaired);
  nb_normal_free(&t->normal);
  free(t);
}

/* --- encode --- */

/* What locating a text takes beside encoding it. */
typedef struct locator {
  nb_sequence *out;
  nb_str text;       /* the whole, valid UTF-8 */
  nb_places align;   /* of the part that is being encoded */
  size_t at, chars;  /* bytes and characters of the text in front of that part */
  int32_t words;     /* so far */
  int32_t spelled;   /* nb_token_model_spelled */
  nb_ids ids;        /* of one word, */
  nb_places pieces;  /* and the bytes of it that they stand for */
  uint32_t *char_of; /* the character of each byte of the text; NULL until someone asks */
} locator;

typedef struct encoder {
  nb_tokenizer *t;
  nb_ids *ids;
  locator *locator; /* NULL: the ids are all that is asked for; else they go to ->out */
  nb_budget *budget;
  const char *text; /* of the parts that are being cut */
  bool at_start;    /* text[0] is the input's first character */
} encoder;

static uint32_t count_chars(nb_str text) {
  uint32_t count = 0;
  for (size_t i = 0; i < text.length; i++) count += nb_utf8_begins(text.data[i]);
  return count;
}

static bool is_edge(const char *text) {
  size_t length;
  uint32_t code = nb_utf8_decode(text, &length);
  return code == 0x120 || nb_is_space(code); /* the first is a space in the byte-level alphabet */
}

static nb_edges find_edges(nb_str text) {
  nb_edges edges = {0, 0};
  size_t i = 0, length;
  for (; i < text.length && is_edge(text.data + i); i += length, edges.left++) nb_utf8_decode(text.data + i, &length);
  for (size_t end = text.length; end > 0; edges.right++) {
    do end--;
    while (end > 0 && !nb_utf8_begins(text.data[end]));
    if (!is_edge(text.data + end)) break;
  }
  return edges;
}

/* A token that is spelled `text` and stands for `span`, of the word that comes next. */
static void add_located(encoder *e, int32_t id, nb_place span, nb_str text) {
  nibble_token token = {.id = id, .word = e->locator->words, .begin = span.begin, .end = span.end};
  nb_edges edges;
  bool asked = e->t->post.trim_count > 0;
  if (asked) edges = find_edges(text);
  nb_sequence_add(e->locator->out, token, asked ? &edges : NULL);
}

/* Characters of the text for bytes that a model gives where it has lost its place, as the reference takes them: for
 * bytes of the whole text. */
static nibble_status misplace(locator *l, nb_place bytes, nb_place *out, nibble_error *err) {
  size_t n = l->text.length;
  *out = bytes;
  if (!l->char_of) {
    l->char_of = nb_alloc(n, sizeof *l->char_of);
    if (!l->char_of) return nb_fail_memory(err, n * sizeof *l->char_of);
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) l->char_of[i] = (count += nb_utf8_begins(l->text.data[i])) - 1;
  }
  if (bytes.begin >= n) return NIBBLE_OK;
  out->begin = l->char_of[bytes.begin];
  if (bytes.end < n)
    out->end = l->char_of[bytes.end];
  else
    out->end = (bytes.end == n ? l->char_of[n - 1] : out->begin + 1) + 1;
  return NIBBLE_OK;
}

static nibble_status locate_word(encoder *e, const nb_word *word, nibble_error *err) {
  locator *l = e->locator;
  l->ids.length = 0;
  nibble_status status = nb_token_model_locate(e->t->model, word, &l->ids, &l->pieces, e->budget, err);
  if (status == NIBBLE_OK && l->ids.failed) status = nb_fail_memory(err, word->n * sizeof *l->ids.data);
  for (size_t i = 0; i < l->ids.length && status == NIBBLE_OK; i++) {
    nb_place piece = l->pieces.data[i], span = piece;
    int32_t id = l->ids.data[i];
    bool inside = piece.begin < piece.end && piece.end <= word->n;
    if (inside)
      span = (nb_place){word->align[piece.begin].begin, word->align[piece.end - 1].end};
    else
      status = misplace(l, piece, &span, err);
    nb_str text = nb_vocab_text(&e->t->vocab, id);
    if (id == l->spelled && inside) text = (nb_str){word->text + piece.begin, piece.end - piece.begin};
    add_located(e, id, span, text);
  }
  l->words++;
  return status;
}

static nibble_status encode_word(void *ctx, const nb_word *word, nibble_error *err) {
  enum { WORDS = 1024 }; /* between two looks at whether to stop */
  encoder *e = ctx;
  nibble_status status = ++e->t->words % WORDS ? NIBBLE_OK : nb_stop_check(err);
  if (status == NIBBLE_OK && e->locator) return locate_word(e, word, err);
  return status == NIBBLE_OK ? nb_token_model_encode(e->t->model, word, e->ids, e->budget, err) : status;
}

/* Tokens that swallow white space may overlap, so the length of all of them is not the text's. */
static nibble_status pay(encoder *e, size_t bytes, nibble_error *err) {
  if (nb_budget_pay(e->budget, bytes)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's added tokens cost too much on this text");
}

/* An added token that is `text` and stands for `span`. */
static nibble_status put_added(encoder *e, int32_t id, nb_str text, nb_place span, nibble_error *err) {
  if (!e->locator) {
    nb_ids_append(e->ids, &id, 1);
    return NIBBLE_OK;
  }
  add_located(e, id, span, text);
  e->locator->words++;
  return pay(e, text.length, err);
}

/* A part of the normalized text. */
static nibble_status encode_normalized(void *ctx, size_t begin, size_t end, int32_t id, nibble_error *err) {
  encoder *e = ctx;
  nb_str text = {e->text + begin, end - begin};
  const nb_place *align = e->locator ? e->locator->align.data + begin : NULL;
  if (id < 0)
    return nb_pre_tokenize(e->t->pre, (nb_normal_part){text, e->at_start && begin == 0, align},
                           (nb_word_sink){encode_word, e}, e->budget, err);
  nb_place span = {0};
  if (align) span = (nb_place){align[0].begin, align[end - begin - 1].end};
  return put_added(e, id, text, span, err);
}

/* A part of the text as given that has no added token. */
static nibble_status encode_part(encoder *e, nb_str part, bool at_start, nibble_error *err) {
  nb_tokenizer *t = e->t;
  encoder inner = *e;
  inner.text = part.data;
  inner.at_start = at_start;
  if (e->locator) {
    e->locator->align.length = 0;
    nb_places_begin(&e->locator->align, part, e->locator->chars);
    if (e->locator->align.failed) return nb_fail_memory(err, part.length * sizeof(nb_place));
  }
  if (t->normalizer) {
    nb_normal *normal = &t->normal;
    normal->text.length = 0;
    nb_buf_append(&normal->text, part.data, part.length);
    normal->at_start = at_start;
    normal->align = e->locator ? &e->locator->align : NULL;
    nibble_status status = nb_normalize(t->normalizer, normal, e->budget, err);
    if (status != NIBBLE_OK) return status;
    inner.at_start = normal->at_start;
    part = (nb_str){normal->text.data, normal->text.length};
    inner.text = part.data;
  }
  return nb_added_cut(t->added, true, part, (nb_cut_sink){encode_normalized, &inner}, e->budget, err);
}

/* Moves to byte `to` of the text. */
static nibble_status move(encoder *e, size_t to, nibble_error *err) {
  locator *l = e->locator;
  bool back = to < l->at;
  size_t begin = back ? to : l->at, end = back ? l->at : to;
  uint32_t chars = count_chars((nb_str){l->text.data + begin, end - begin});
  l->chars = back ? l->chars - chars : l->chars + chars;
  l->at = to;
  return pay(e, end - begin, err);
}

/* A part of the text as given. */
static nibble_status encode_verbatim(void *ctx, size_t begin, size_t end, int32_t id, nibble_error *err) {
  encoder *e = ctx;
  nb_str part = {e->text + begin, end - begin};
  if (!e->locator) return id < 0 ? encode_part(e, part, begin == 0, err) : put_added(e, id, part, (nb_place){0}, err);
  nibble_status status = move(e, begin, err);
  if (status != NIBBLE_OK) return status;
  if (id < 0) return encode_part(e, part, begin == 0, err);
  uint32_t first = (uint32_t)e->locator->chars;
  status = move(e, end, err);
  nb_place span = {first, (uint32_t)e->locator->chars};
  return status == NIBBLE_OK ? put_added(e, id, part, span, err) : status;
}

/* The ids go to `ids`, or the tokens to `locator`; the other is NULL. */
static nibble_status encode_text(nb_tokenizer *t, nb_str text, nb_ids *ids, locator *locator, nb_budget *budget,
                                 nibble_error *err) {
  if (nb_utf8_valid(text.data, text.length) < text.length) {
    t->repaired.length = 0;
    nb_utf8_repair(text.data, text.length, &t->repaired);
    if (t->repaired.failed) return nb_fail_memory(err, text.length);
    text = (nb_str){t->repaired.data, t->repaired.length};
  }
  if (locator) locator->text = text;
  encoder e = {.t = t, .ids = ids, .locator = locator, .budget = budget, .text = text.data, .at_start = true};
  return nb_added_cut(t->added, false, text, (nb_cut_sink){encode_verbatim, &e}, budget, err);
}

static nibble_status check_length(size_t n, nibble_error *err) {
  if (n <= NB_TEXT_MAX) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "a text of %zu bytes is longer than the %d allowed", n, NB_TEXT_MAX);
}

nibble_status nb_tokenizer_encode(nb_tokenizer *t, const char *text, size_t n, int flags, nb_ids *ids,
                                  nibble_error *err) {
  nibble_status status = check_length(n, err);
  if (status != NIBBLE_OK) return status;
  size_t before = ids->length, pieces = t->post.single.count;
  nb_budget budget = nb_budget_of(n);
  if (pieces == 0) status = encode_text(t, (nb_str){text, n}, ids, NULL, &budget, err);
  for (size_t i = 0; i < pieces && status == NIBBLE_OK; i++) {
    int32_t id = t->post.single.pieces[i].id;
    if (id < 0)
      status = encode_text(t, (nb_str){text, n}, ids, NULL, &budget, err);
    else if (flags & NB_ADD_SPECIAL)
      nb_ids_append(ids, &id, 1);
  }
  if (status == NIBBLE_OK && ids->failed) status = nb_fail_memory(err, ids->length * sizeof *ids->data);
  if (status != NIBBLE_OK) ids->length = before;
  return status;
}

nibble_status nb_tokenizer_locate(nb_tokenizer *t, nb_str text, nb_sequence *out, nibble_error *err) {
  nibble_status status = check_length(text.length, err);
  if (status != NIBBLE_OK) return status;
  nb_budget budget = nb_budget_of(text.length);
  locator l = {.out = out, .spelled = nb_token_model_spelled(t->model)};
  status = encode_text(t, text, NULL, &l, &budget, err);
  nb_places_free(&l.align);
  nb_places_free(&l.pieces);
  nb_ids_free(&l.ids);
  free(l.char_of);
  if (status == NIBBLE_OK && out->failed) status = nb_fail_memory(err, out->length * sizeof *out->tokens);
  return status;
}

const nibble_encode_options *nb_tokenizer_limits(const nb_tokenizer *t) { return &t->limits; }

const nb_post *nb_tokenizer_post(const nb_tokenizer *t) { return &t->post; }

/* --- decode --- */

static nibble_status decode(const nb_tokenizer *t, const int32_t *ids, size_t n, int flags, nb_buf *text,
                            nibble_error *err) {
  nb_token *tokens = calloc(n ? n : 1, sizeof *tokens);
  if (!tokens) return nb_fail_memory(err, n * sizeof *tokens);
  size_t count = 0;
  for (size_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= t->vocab.count) continue;
    const nb_token *token = &t->vocab.tokens[ids[i]];
    if (token->text && !(token->special && flags & NB_SKIP_SPECIAL)) tokens[count++] = *token;
  }
  nibble_status status = nb_decode_tokens(t->decoder, tokens, count, text, err);
  free(tokens);
  return status;
}

nibble_status nb_tokenizer_decode(const nb_tokenizer *t, const int32_t *ids, size_t n, int flags, nb_buf *text,
                                  nibble_error *err) {
  size_t begin = text->length;
  nibble_status status = decode(t, ids, n, flags, text, err);
  if (status != NIBBLE_OK || !t->clean_up) return status;
  nb_clean_up(text, begin);
  return text->failed ? nb_fail_memory(err, text->length) : NIBBLE_OK;
}

int32_t nb_tokenizer_vocab_size(const nb_tokenizer *t) { return t->vocab.count; }

int32_t nb_tokenizer_id(const nb_tokenizer *t, const char *token, size_t n) {
  return nb_vocab_any_id(&t->vocab, token, n);
}

const char *nb_tokenizer_token(const nb_tokenizer *t, int32_t id, size_t *n) {
  if (id < 0 || id >= t->vocab.count || !t->vocab.tokens[id].text) return NULL;
  *n = t->vocab.tokens[id].length;
  return t->vocab.tokens[id].text;
}

bool nb_tokenizer_is_special(const nb_tokenizer *t, int32_t id) {
  return id >= 0 && id < t->vocab.count && t->vocab.tokens[id].special;
}

/* --- one id after the other --- */

static bool ends_unfinished(const nb_buf *text) {
  return text->length >= 3 && memcmp(text->data + text->length - 3, "\xef\xbf\xbd", 3) == 0;
}

/* The window begins with ids whose text was handed out, since decoders treat a text's first token specially; once the
 * text grows by whole characters, those that came last begin the next window. */
static nibble_status step(nb_token_stream *stream, bool last, nb_buf *text, nibble_error *err) {
  enum { HELD_BACK = 16 }; /* ids without a whole character among them: it will not come any more */
  nb_buf whole = {0};
  nb_ids *window = &stream->window;
  if (window->length - stream->context > HELD_BACK) last = true;
  nibble_status status = decode(stream->tokenizer, window->data, window->length, stream->flags, &whole, err);
  if (status != NIBBLE_OK || (!last && ends_unfinished(&whole))) goto done;
  if (whole.length <= stream->emitted) {
    if (last) window->length = stream->context; /* ids without text: more of them must not make the window longer */
    goto done;
  }
  nb_buf_append(text, whole.data + stream->emitted, whole.length - stream->emitted);
  size_t old = stream->context;
  window->length -= old;
  if (window->length > 0) memmove(window->data, window->data + old, window->length * sizeof *window->data);
  stream->context = window->length;
  whole.length = 0;
  status = decode(stream->tokenizer, window->data, window->length, stream->flags, &whole, err);
  stream->emitted = whole.length;
  if (status == NIBBLE_OK && text->failed) status = nb_fail_memory(err, text->length);
done:
  nb_buf_free(&whole);
  return status;
}

/* What cleaning up may change together with text to come: all that its rules are made of. */
static bool may_change(char c) { return c && strchr(" .?!,'ntmsver", c); }

/* Cleans up what no later text changes any more and hands it out; text[old, ...) of the raw text is new. */
static nibble_status hand_out(nb_token_stream *stream, size_t old, bool last, nb_buf *text, nibble_error *err) {
  nb_buf *raw = &stream->raw;
  size_t cut = raw->length, begin = text->length;
  while (!last && cut > old && may_change(raw->data[cut - 1])) cut--;
  if (!last && cut == old) return NIBBLE_OK;
  if (cut > 0) nb_buf_append(text, raw->data, cut);
  nb_clean_up(text, begin);
  if (raw->failed || text->failed) return nb_fail_memory(err, raw->length);
  if (cut > 0) memmove(raw->data, raw->data + cut, raw->length - cut);
  raw->length -= cut;
  return NIBBLE_OK;
}

static nibble_status advance(nb_token_stream *stream, bool last, nb_buf *text, nibble_error *err) {
  if (!stream->tokenizer->clean_up) return step(stream, last, text, err);
  size_t old = stream->raw.length;
  nibble_status status = step(stream, last, &stream->raw, err);
  return status == NIBBLE_OK ? hand_out(stream, old, last, text, err) : status;
}

nibble_status nb_token_stream_push(nb_token_stream *stream, int32_t id, nb_buf *text, nibble_error *err) {
  nb_ids_append(&stream->window, &id, 1);
  return stream->window.failed ? nb_fail_memory(err, sizeof id) : advance(stream, false, text, err);
}

nibble_status nb_token_stream_end(nb_token_stream *stream, nb_buf *text, nibble_error *err) {
  nibble_status status = advance(stream, true, text, err);
  nb_buf_free(&stream->raw);
  nb_ids_free(&stream->window);
  stream->context = stream->emitted = 0;
  return status;
}
