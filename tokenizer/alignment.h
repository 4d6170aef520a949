/* Where a text comes from after it was changed: for each of its bytes the characters of the text as given that it
 * stands for, as the reference keeps them (tokenizers 0.23, normalizer.rs). A step that rewrites a text makes the
 * alignment of what it writes from the alignment of what it reads.
 *
 *   text as given   ﬁ t              two characters
 *   normalized      f i t            [0, 1) [0, 1) [1, 2)
 *
 * Nobody pays for it who does not ask: an nb_aligner without `to` is a pointer that is NULL. */
#ifndef NB_TOKENIZER_ALIGNMENT_H
#define NB_TOKENIZER_ALIGNMENT_H

#include <stdint.h>

#include "base/str.h"

typedef struct nb_place {
  uint32_t begin, end; /* of characters; of bytes where it says so */
} nb_place;

/* Growing as nb_buf does: `failed` sticks when memory runs out. Zero it first. */
typedef struct nb_places {
  nb_place *data;
  size_t length, capacity;
  bool failed;
} nb_places;

void nb_places_fill(nb_places *spans, nb_place span, size_t n); /* appends it n times */
void nb_places_free(nb_places *spans);

/* Appends the alignment of a text that nothing has changed yet and that begins with character `begin` of the one as
 * given. */
void nb_places_begin(nb_places *spans, nb_str text, size_t begin);

/* One step's work: the alignments of the text that it reads, [n], and of what it has written. */
typedef struct nb_aligner {
  const nb_place *from;
  size_t n;
  uint32_t origin; /* the character of the text as given that the part begins with which is being changed */
  nb_places *to;   /* NULL: nobody asks, and the functions below do nothing */
} nb_aligner;

void nb_align_copies(const nb_aligner *a, size_t begin, size_t end); /* bytes [begin, end) were written unchanged */

/* `n` bytes were written for the byte at `at`; where the text has none, as at its start, for nothing. */
void nb_align_writes(const nb_aligner *a, size_t at, size_t n);

/* `n` bytes were written for all of [begin, end). */
void nb_align_replace(const nb_aligner *a, size_t begin, size_t end, size_t n);

static inline void nb_align_copy(const nb_aligner *a, size_t begin, size_t end) {
  if (a->to) nb_align_copies(a, begin, end);
}

static inline void nb_align_write(const nb_aligner *a, size_t at, size_t n) {
  if (a->to) nb_align_writes(a, at, n);
}

/* `n` bytes were written in front of `rest`, all of whose characters stay: they stand for its first one. */
void nb_align_prepend(const nb_aligner *a, size_t n, nb_str rest);

/* Each byte of `text` was written as its character of the byte-level alphabet (tokenizer/bytes.h). */
void nb_align_bytes(const nb_aligner *a, nb_str text);

/* The steps whose characters are not told one by one what they were made of. Each character that is written comes with
 * a change: 0 where it takes the place of the next one that was read, -k where k more go with it, 1 where it takes
 * nothing's place. Where the changes do not add up, all that follows is shifted, as in the reference. */
typedef struct nb_changes {
  const nb_aligner *a;
  nb_str text;   /* that was read */
  size_t at;     /* how far it is used up */
  size_t length; /* of the character that was written last, whose change may still become another; 0: none */
  int64_t change;
} nb_changes;

void nb_changes_put(nb_changes *c, size_t length, int64_t change);
void nb_changes_flush(nb_changes *c); /* call it behind the last */

#endif
