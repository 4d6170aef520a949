#include "tokenizer/encoding.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/grow.h"
#include "base/utf8.h"

enum {
  TEXTS = 2,                  /* of a pair */
  MAX_TEXT_PIECES = 4,        /* texts in a template (postprocessors.c) */
  MAX_BATCH_TOKENS = 1 << 27, /* what overflows may be a product of two lengths */
};

void nb_sequence_add(nb_sequence *s, nibble_token token, const nb_edges *edges) {
  nibble_token *tokens = s->failed ? NULL : nb_grow(s->tokens, &s->token_capacity, s->length + 1, sizeof *tokens);
  if (tokens) s->tokens = tokens;
  nb_edges *more = tokens && edges ? nb_grow(s->edges, &s->edge_capacity, s->length + 1, sizeof *more) : NULL;
  if (more) s->edges = more;
  if (!tokens || (edges && !more)) {
    s->failed = true;
    return;
  }
  if (edges) s->edges[s->length] = *edges;
  s->tokens[s->length++] = token;
}

void nb_sequence_free(nb_sequence *s) {
  free(s->tokens);
  free(s->edges);
  *s = (nb_sequence){0};
}

/* A part of a sequence that makes an encoding: tokens [begin, end). */
typedef struct window {
  size_t begin, end;
} window;

/* The parts that a sequence was cut into: the one that counts, then those that overflow. */
typedef struct windows {
  window *list;
  size_t count;
} windows;

/* Where the characters of a text begin, and behind them its end. */
typedef struct byte_offsets {
  size_t *at, count;
} byte_offsets;

/* One text or pair on its way. */
typedef struct job {
  const nibble_encode_options *o;
  const nb_post *post;
  const nb_post_piece *template; /* [pieces], for as many texts as there are */
  size_t pieces;
  int texts;
  nb_sequence sequences[TEXTS];
  windows windows[TEXTS];
  byte_offsets bytes[TEXTS]; /* where offsets are asked for in bytes */
  size_t index;              /* in the batch */
  nibble_encodings *out;
  size_t *capacity; /* of out->list */
  size_t *tokens;   /* in *out */
  nibble_error *err;
} job;

/* --- truncation --- */

static void add_window(windows *w, size_t begin, size_t end) { w->list[w->count++] = (window){begin, end}; }

/* Cuts a sequence of n tokens into parts of `most`. Where nothing may stay, all of it overflows. */
static nibble_status cut(const job *j, size_t n, size_t most, windows *w) {
  size_t stride = j->o->stride;
  if (most >= n || most == 0) {
    w->list = nb_alloc(2, sizeof *w->list);
    if (!w->list) return nb_fail_memory(j->err, 2 * sizeof *w->list);
    add_window(w, 0, n < most ? n : most);
    if (most < n && j->o->overflow) add_window(w, 0, n);
    return NIBBLE_OK;
  }
  if (stride >= most)
    return nb_fail(j->err, NIBBLE_BAD_INPUT,
                   "a text is cut to %zu tokens beside the special ones, which must be more than the stride of %zu",
                   most, stride);
  size_t step = most - stride, count = j->o->overflow ? (n - most + step - 1) / step + 1 : 1;
  w->list = nb_alloc(count, sizeof *w->list);
  if (!w->list) return nb_fail_memory(j->err, count * sizeof *w->list);
  for (size_t i = 0; i < count; i++) {
    size_t from = i * step, to = from + most < n ? from + most : n;
    if (j->o->truncate_left)
      add_window(w, n - to, n - from);
    else
      add_window(w, from, to);
  }
  return NIBBLE_OK;
}

static size_t special_count(const job *j) {
  size_t count = 0;
  for (size_t i = 0; i < j->pieces && !j->o->no_special; i++) count += j->template[i].id >= 0;
  return count;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Shortens the longer of two texts, then both to halves, of which the text that is longer has the larger one. */
static void shorten_longest(size_t length[TEXTS], size_t most) {
  int longer = length[0] > length[1] ? 0 : 1;
  size_t a = length[!longer], b = a > most ? a : most - a;
  if (b < a) b = a;
  if (a + b > most) {
    a = most / 2;
    b = a + most % 2;
  }
  length[!longer] = a;
  length[longer] = b;
}

/* How many tokens of each text stay. */
static nibble_status plan(const job *j, size_t length[TEXTS]) {
  const nibble_encode_options *o = j->o;
  size_t special = special_count(j), total = length[0] + length[1];
  if (o->truncation == NIBBLE_TRUNCATE_NONE) return NIBBLE_OK;
  if (o->max_length < special)
    return nb_fail(j->err, NIBBLE_BAD_INPUT, "the special tokens around a text are %zu, more than the %zu allowed",
                   special, o->max_length);
  size_t most = o->max_length - special;
  if (most == 0) length[0] = length[1] = 0;
  if (most == 0 || total <= most) return NIBBLE_OK;
  if (o->truncation == NIBBLE_TRUNCATE_LONGEST_FIRST) {
    if (j->texts == 1)
      length[0] = most;
    else
      shorten_longest(length, most);
    return NIBBLE_OK;
  }
  int which = o->truncation == NIBBLE_TRUNCATE_ONLY_SECOND;
  if (which >= j->texts)
    return nb_fail(j->err, NIBBLE_BAD_INPUT, "text %zu has no second one, which alone is to be cut", j->index);
  if (length[which] <= total - most)
    return nb_fail(j->err, NIBBLE_BAD_INPUT, "text %zu has %zu tokens, too few to cut %zu off", j->index, length[which],
                   total - most);
  length[which] -= total - most;
  return NIBBLE_OK;
}

static nibble_status truncate(job *j) {
  size_t length[TEXTS] = {j->sequences[0].length, j->sequences[1].length};
  nibble_status status = plan(j, length);
  for (int i = 0; i < j->texts && status == NIBBLE_OK; i++)
    status = cut(j, j->sequences[i].length, length[i], &j->windows[i]);
  return status;
}

/* --- offsets --- */

static void trim(const nb_post_trim *t, nb_edges edges, bool first, nibble_token *token) {
  if (edges.left > 0) {
    bool own = t->prefix_space && edges.left == 1 && (first || token->begin == 0);
    if (!own) token->begin = least(token->begin + edges.left, token->end);
  }
  if (edges.right > 0 && token->end >= edges.right) {
    size_t end = token->end - edges.right;
    token->end = end > token->begin ? end : token->begin;
  }
}

/* `at`: the token's place in its window of text `text`. */
static void trim_all(const job *j, int text, size_t at, nb_edges edges, nibble_token *token) {
  for (int i = 0; i < j->post->trim_count; i++) {
    const nb_post_trim *t = &j->post->trims[i];
    trim(t, edges, at == 0 && (j->o->no_special || !t->behind[text]), token);
  }
}

/* --- putting together --- */

/* Which window each text of the template is, in its order. */
typedef struct combination {
  size_t of[MAX_TEXT_PIECES];
} combination;

static int text_of(const nb_post_piece *piece) { return piece->id == NB_SECOND_TEXT; }

static size_t count_tokens(const job *j, const combination *c) {
  size_t count = 0, k = 0;
  for (size_t i = 0; i < j->pieces; i++) {
    const nb_post_piece *piece = &j->template[i];
    if (piece->id >= 0) {
      count += !j->o->no_special;
      continue;
    }
    window w = j->windows[text_of(piece)].list[c->of[k++]];
    count += w.end - w.begin;
  }
  return count;
}

/* What overflows keeps the types that its text had before the template. */
static void put_text(const job *j, const nb_post_piece *piece, size_t which, nibble_encoding *out) {
  int text = text_of(piece);
  const nb_sequence *s = &j->sequences[text];
  window w = j->windows[text].list[which];
  bool by_template = which == 0 || (j->post->zero_types && !j->o->no_special);
  for (size_t i = w.begin; i < w.end; i++) {
    nibble_token *token = &out->tokens[out->count++];
    *token = s->tokens[i];
    token->type_id = by_template ? piece->type_id : text;
    if (s->edges) trim_all(j, text, i - w.begin, s->edges[i], token);
    if (!j->bytes[text].at) continue;
    token->begin = j->bytes[text].at[least(token->begin, j->bytes[text].count)];
    token->end = j->bytes[text].at[least(token->end, j->bytes[text].count)];
  }
}

static nibble_status put(job *j, const combination *c, bool overflowing) {
  size_t count = count_tokens(j, c);
  if (count > MAX_BATCH_TOKENS - *j->tokens)
    return nb_fail(j->err, NIBBLE_BAD_INPUT, "the texts and what overflows are more than %d tokens together",
                   MAX_BATCH_TOKENS);
  nibble_encoding *list = nb_grow(j->out->list, j->capacity, j->out->count + 1, sizeof *list);
  if (!list) return nb_fail_memory(j->err, (j->out->count + 1) * sizeof *list);
  j->out->list = list;
  nibble_encoding *out = &list[j->out->count++];
  *out = (nibble_encoding){
      .tokens = count > 0 ? nb_alloc(count, sizeof *out->tokens) : NULL, .text = j->index, .overflowing = overflowing};
  if (count > 0 && !out->tokens) return nb_fail_memory(j->err, count * sizeof *out->tokens);
  *j->tokens += count;
  size_t k = 0;
  for (size_t i = 0; i < j->pieces; i++) {
    const nb_post_piece *piece = &j->template[i];
    if (piece->id < 0)
      put_text(j, piece, c->of[k++], out);
    else if (!j->o->no_special)
      out->tokens[out->count++] =
          (nibble_token){.id = piece->id, .type_id = piece->type_id, .word = -1, .special = true};
  }
  return NIBBLE_OK;
}

/* All combinations of windows: the one that counts, then in the reference's order, which joins one text after the other
 * to all that there are: to those that overflow each of the next text's windows, to the one that counts those that
 * overflow. */
static nibble_status combine(job *j) {
  size_t total = 1, places = 0, sizes[MAX_TEXT_PIECES];
  for (size_t i = 0; i < j->pieces; i++) {
    if (j->template[i].id >= 0) continue;
    sizes[places] = j->windows[text_of(&j->template[i])].count;
    uint64_t product;
    if (!nb_mul_u64(total, sizes[places++], &product) || product > MAX_BATCH_TOKENS)
      return nb_fail(j->err, NIBBLE_BAD_INPUT, "text %zu overflows into more than %d pieces", j->index,
                     MAX_BATCH_TOKENS);
    total = product;
  }
  combination *all = nb_alloc(2 * total, sizeof *all), *next = all ? all + total : NULL;
  if (!all) return nb_fail_memory(j->err, 2 * total * sizeof *all);
  size_t count = 1;
  for (size_t p = 0; p < places && total > 1; p++) {
    size_t joined = 1;
    next[0] = all[0];
    for (size_t i = 1; i <= count; i++) { /* the first last */
      for (size_t k = i == count; k < sizes[p]; k++) {
        next[joined] = all[i % count];
        next[joined++].of[p] = k;
      }
    }
    memcpy(all, next, joined * sizeof *all);
    count = joined;
  }
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) status = put(j, &all[i], i > 0);
  free(all);
  return status;
}

/* --- padding --- */

static nibble_status pad(const nibble_encode_options *o, size_t length, nibble_encoding *e, nibble_error *err) {
  if (e->count >= length) return NIBBLE_OK;
  size_t missing = length - e->count, capacity = e->count;
  nibble_token *tokens = nb_grow(e->tokens, &capacity, length, sizeof *tokens);
  if (!tokens) return nb_fail_memory(err, length * sizeof *tokens);
  e->tokens = tokens;
  nibble_token *from = tokens + e->count;
  if (o->pad_left) {
    if (e->count > 0) memmove(tokens + missing, tokens, e->count * sizeof *tokens);
    from = tokens;
  }
  for (size_t i = 0; i < missing; i++)
    from[i] = (nibble_token){.id = o->pad_id, .type_id = o->pad_type_id, .word = -1, .special = true, .padding = true};
  e->count = length;
  return NIBBLE_OK;
}

static nibble_status pad_all(const nibble_encode_options *o, nibble_encodings *out, nibble_error *err) {
  size_t length = o->padding == NIBBLE_PAD_FIXED ? o->pad_length : 0;
  for (size_t i = 0; i < out->count && o->padding == NIBBLE_PAD_LONGEST; i++) {
    if (!out->list[i].overflowing && out->list[i].count > length) length = out->list[i].count;
  }
  size_t over = o->pad_multiple_of > 0 ? length % o->pad_multiple_of : 0;
  if (over > 0 && __builtin_add_overflow(length, o->pad_multiple_of - over, &length)) length = SIZE_MAX;
  if (out->count > 0 && length > MAX_BATCH_TOKENS / out->count)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%zu texts padded to %zu tokens are more than %d together", out->count,
                   length, MAX_BATCH_TOKENS);
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < out->count && status == NIBBLE_OK; i++) status = pad(o, length, &out->list[i], err);
  return status;
}

/* --- the batch --- */

/* Where each character of a text as given begins, and its end: of damaged bytes as they are read. NULL without
 * memory. */
static size_t *find_bytes(nb_str text, size_t *count) {
  size_t *at = nb_alloc(text.length + 1, sizeof *at);
  *count = 0;
  for (size_t i = 0; at && i < text.length; i += nb_utf8_step(text.data + i, text.length - i)) at[(*count)++] = i;
  if (at) at[*count] = text.length;
  return at;
}

/* The tokens of one of the texts. */
static nibble_status locate(nb_tokenizer *t, nb_str text, int i, job *j) {
  if (text.length == 0) text.data = "";
  nibble_status status = nb_tokenizer_locate(t, text, &j->sequences[i], j->err);
  if (status != NIBBLE_OK || j->o->offsets != NIBBLE_OFFSETS_BYTES) return status;
  j->bytes[i].at = find_bytes(text, &j->bytes[i].count);
  return j->bytes[i].at ? NIBBLE_OK : nb_fail_memory(j->err, text.length * sizeof(size_t));
}

static nibble_status encode_one(nb_tokenizer *t, const nibble_text_pair *pair, job *j) {
  static const nb_post_piece plain[TEXTS] = {{NB_FIRST_TEXT, 0}, {NB_SECOND_TEXT, 1}};
  nb_str texts[TEXTS] = {{pair->text, pair->text_length}, {pair->pair, pair->pair_length}};
  nibble_status status = NIBBLE_OK;
  j->texts = pair->pair ? 2 : 1;
  const nb_post_template *template = pair->pair ? &j->post->pair : &j->post->single;
  j->template = j->post->single.count > 0 ? template->pieces : plain;
  j->pieces = j->post->single.count > 0 ? template->count : (size_t)j->texts;
  if (j->pieces == 0)
    return nb_fail(j->err, NIBBLE_BAD_INPUT, "the tokenizer has a template for one text, but none for a pair");
  for (int i = 0; i < j->texts && status == NIBBLE_OK; i++) status = locate(t, texts[i], i, j);
  if (status == NIBBLE_OK) status = truncate(j);
  if (status == NIBBLE_OK) status = combine(j);
  for (int i = 0; i < TEXTS; i++) {
    nb_sequence_free(&j->sequences[i]);
    free(j->windows[i].list);
    free(j->bytes[i].at);
    j->windows[i] = (windows){0};
    j->bytes[i] = (byte_offsets){0};
  }
  return status;
}

nibble_status nb_tokenizer_encode_batch(nb_tokenizer *t, const nibble_text_pair *texts, size_t count,
                                        const nibble_encode_options *options, nibble_encodings *out,
                                        nibble_error *err) {
  size_t capacity = 0, tokens = 0;
  *out = (nibble_encodings){0};
  job j = {
      .o = options, .post = nb_tokenizer_post(t), .out = out, .capacity = &capacity, .tokens = &tokens, .err = err};
  nibble_status status = NIBBLE_OK;
  for (j.index = 0; j.index < count && status == NIBBLE_OK; j.index++) status = encode_one(t, &texts[j.index], &j);
  if (status == NIBBLE_OK && options->padding != NIBBLE_PAD_NONE) status = pad_all(options, out, err);
  if (status != NIBBLE_OK) nibble_encodings_free(out);
  return status;
}

void nibble_encodings_free(nibble_encodings *encodings) {
  if (!encodings) return;
  for (size_t i = 0; i < encodings->count; i++) free(encodings->list[i].tokens);
  free(encodings->list);
  *encodings = (nibble_encodings){0};
}
