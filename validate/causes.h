/* Why a weight is worse than its format makes it: every known mistake is undone, one at a time, and the one that makes
 * the error vanish is the cause. A mistake is a way of reading the artifact (other map, scales moved by a block, rows
 * in another order); nothing is written. Only flagged weights come here, and of those some rows are looked at. */
#ifndef NB_VALIDATE_CAUSES_H
#define NB_VALIDATE_CAUSES_H

#include "validate/values.h"

typedef struct nb_suspect {
  const nb_checkpoint *artifact, *original;
  const nb_values *copy, *values; /* the artifact's and the original's */
  nibble_weight_error *row;       /* measured; cause and cause_error are filled in */
} nb_suspect;

/* Sets row->cause (a literal; "" if nothing explains the error), row->cause_error, and a text to follow a finding's
 * (": what was tried ...") or "". */
void nb_cause_find(const nb_suspect *suspect, char *text, size_t room);

#endif
