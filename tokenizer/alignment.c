#include "tokenizer/alignment.h"

#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "base/utf8.h"
#include "tokenizer/bytes.h"

/* Room for n more; NULL without memory. */
static nb_place *reserve(nb_places *spans, size_t n) {
  if (spans->failed) return NULL;
  nb_place *data = nb_grow(spans->data, &spans->capacity, spans->length + n, sizeof *data);
  if (!data) {
    spans->failed = true;
    return NULL;
  }
  spans->data = data;
  spans->length += n;
  return data + spans->length - n;
}

void nb_places_fill(nb_places *spans, nb_place span, size_t n) {
  nb_place *out = n > 0 ? reserve(spans, n) : NULL;
  for (size_t i = 0; out && i < n; i++) out[i] = span;
}

void nb_places_free(nb_places *spans) {
  free(spans->data);
  *spans = (nb_places){0};
}

void nb_places_begin(nb_places *spans, nb_str text, size_t begin) {
  nb_place *out = text.length > 0 ? reserve(spans, text.length) : NULL;
  size_t at = begin - 1; /* the text begins with a character */
  for (size_t i = 0; out && i < text.length; i++) {
    at += nb_utf8_begins(text.data[i]);
    out[i] = (nb_place){(uint32_t)at, (uint32_t)at + 1};
  }
}

void nb_align_copies(const nb_aligner *a, size_t begin, size_t end) {
  nb_place *out = begin < end ? reserve(a->to, end - begin) : NULL;
  if (out) memcpy(out, a->from + begin, (end - begin) * sizeof *out);
}

void nb_align_writes(const nb_aligner *a, size_t at, size_t n) {
  nb_places_fill(a->to, at < a->n ? a->from[at] : (nb_place){a->origin, a->origin}, n);
}

void nb_align_replace(const nb_aligner *a, size_t begin, size_t end, size_t n) {
  if (a->to) nb_places_fill(a->to, (nb_place){a->from[begin].begin, a->from[end - 1].end}, n);
}

void nb_align_prepend(const nb_aligner *a, size_t n, nb_str rest) {
  nb_align_write(a, 0, n);
  nb_align_copy(a, 0, rest.length);
}

void nb_align_bytes(const nb_aligner *a, nb_str text) {
  char two[2];
  for (size_t i = 0; a->to && i < text.length; i++)
    nb_align_writes(a, i, nb_byte_char((unsigned char)text.data[i], two));
}

/* The length of the character of the text that is next; 0 at its end. */
static size_t next_length(const nb_changes *c) {
  size_t length = 0;
  if (c->at < c->text.length) nb_utf8_decode(c->text.data + c->at, &length);
  return length;
}

void nb_changes_flush(nb_changes *c) {
  if (c->length == 0) return;
  size_t of = c->change > 0 ? c->at - 1 : c->at; /* at the start SIZE_MAX, where there is nothing */
  if (c->change <= 0 && c->at >= c->text.length) of = c->text.length - 1;
  nb_align_writes(c->a, of, c->length);
  c->length = 0;
  if (c->change > 0) return;
  for (int64_t k = c->change; k <= 0 && c->at < c->text.length; k++) c->at += next_length(c);
}

void nb_changes_put(nb_changes *c, size_t length, int64_t change) {
  if (!c->a->to) return;
  nb_changes_flush(c);
  c->length = length;
  c->change = change;
}
