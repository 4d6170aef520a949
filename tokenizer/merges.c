#include "tokenizer/merges.h"

#include <math.h>
#include <stdlib.h>

#include "base/grow.h"
#include "base/utf8.h"

/* SentencePiece's longest piece by default is 16 characters; the limit keeps the search for merges linear. */
enum { MAX_PIECE = 1024 };

nibble_status nb_merges_append(nb_merges *m, nb_merge merge, nibble_error *err) {
  nb_merge *grown = nb_grow(m->list, &m->capacity, m->count + 1, sizeof *grown);
  if (!grown) return nb_fail_memory(err, m->count * sizeof *grown);
  m->list = grown;
  m->list[m->count++] = merge;
  return NIBBLE_OK;
}

nibble_status nb_merges_add(nb_merges *m, const nb_vocab *vocab, nb_str left, nb_str right, bool *known,
                            nibble_error *err) {
  nb_merge merge = {.left = nb_vocab_id(vocab, left.data, left.length),
                    .right = nb_vocab_id(vocab, right.data, right.length)};
  *known = merge.left >= 0 && merge.right >= 0 && right.length >= m->skip;
  if (!*known) return NIBBLE_OK;
  m->whole.length = 0;
  nb_buf_append(&m->whole, left.data, left.length);
  nb_buf_append(&m->whole, right.data + m->skip, right.length - m->skip);
  if (m->whole.failed) return nb_fail_memory(err, left.length + right.length);
  merge.whole = nb_vocab_id(vocab, m->whole.data, m->whole.length);
  *known = merge.whole >= 0;
  return *known ? nb_merges_append(m, merge, err) : NIBBLE_OK;
}

/* --- merges from scores --- */

typedef struct cut {
  nb_merge merge;
  int32_t left_chars, right_chars;
  double score; /* of the whole */
} cut;

/* SentencePiece joins the neighbours that make the best-scored piece. As a list of merges: every way to cut a piece in
 * two pieces, best score first; the further keys only make the order a definite one, which is transformers'
 * (tokenization_utils_base.py, generate_merges). */
static int compare(const void *a, const void *b) {
  const cut *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  if (x->left_chars != y->left_chars) return x->left_chars > y->left_chars ? -1 : 1;
  if (x->right_chars != y->right_chars) return x->right_chars > y->right_chars ? -1 : 1;
  if (x->merge.whole != y->merge.whole) return x->merge.whole < y->merge.whole ? -1 : 1;
  if (x->merge.left != y->merge.left) return x->merge.left < y->merge.left ? -1 : 1;
  return (x->merge.right > y->merge.right) - (x->merge.right < y->merge.right);
}

static int32_t normal_id(const nb_vocab *vocab, const char *text, size_t n) {
  int32_t id = nb_vocab_id(vocab, text, n);
  return id >= 0 && nb_vocab_type(vocab, id) == NB_TOKEN_NORMAL ? id : -1;
}

/* Appends the cuts of a piece. */
static void cut_piece(const nb_vocab *vocab, int32_t id, nb_buf *out) {
  nb_str piece = nb_vocab_text(vocab, id);
  int32_t chars = 0, left_chars = 0;
  for (size_t i = 0; i < piece.length; i++) chars += nb_utf8_begins(piece.data[i]);
  for (size_t at = 1; at < piece.length; at++) {
    left_chars += nb_utf8_begins(piece.data[at - 1]);
    if (!nb_utf8_begins(piece.data[at])) continue;
    nb_merge merge = {.left = normal_id(vocab, piece.data, at), .whole = id};
    if (merge.left < 0) continue;
    merge.right = normal_id(vocab, piece.data + at, piece.length - at);
    if (merge.right < 0) continue;
    cut found = {merge, left_chars, chars - left_chars, vocab->scores[id]};
    nb_buf_append(out, &found, sizeof found);
  }
}

nibble_status nb_merges_from_scores(nb_merges *m, const nb_vocab *vocab, const char *where, nibble_error *err) {
  nb_buf cuts = {0};
  nibble_status status = NIBBLE_OK;
  for (int32_t i = 0; i < vocab->count && status == NIBBLE_OK; i++) {
    if (nb_vocab_text(vocab, i).length > MAX_PIECE)
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: token %d is too long", where, i);
    else if (nb_vocab_type(vocab, i) != NB_TOKEN_NORMAL)
      continue;
    else if (!isfinite(vocab->scores[i]))
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the score of token %d is no number", where, i);
    else
      cut_piece(vocab, i, &cuts);
  }
  if (status == NIBBLE_OK && cuts.failed) status = nb_fail_memory(err, cuts.length);
  cut *list = (cut *)cuts.data;
  size_t count = cuts.length / sizeof *list;
  if (count > 0) qsort(list, count, sizeof *list, compare);
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) status = nb_merges_append(m, list[i].merge, err);
  nb_buf_free(&cuts);
  return status;
}

void nb_merges_free(nb_merges *m) {
  free(m->list);
  free(m->order);
  nb_buf_free(&m->whole);
  *m = (nb_merges){0};
}
