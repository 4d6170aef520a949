/* What the checks of `verify` have to say, collected: a check adds one finding a kind of fault and tensor, never stops
 * at the first, and leaves the verdict to others. Every string is copied. Memory that runs out sticks in `failed`. */
#ifndef NB_VALIDATE_FINDINGS_H
#define NB_VALIDATE_FINDINGS_H

#include "base/status.h"

typedef struct nb_findings {
  nibble_finding *items;
  size_t count, capacity;
  bool failed;
} nb_findings;

/* Where the first fault of a kind lies, and how many there are. */
typedef struct nb_place {
  const char *tensor;   /* "": the artifact as a whole */
  int64_t block, index; /* -1: none */
  int64_t count;
} nb_place;

/* The whole tensor. */
static inline nb_place nb_place_tensor(const char *tensor) {
  return (nb_place){.tensor = tensor, .block = -1, .index = -1, .count = 1};
}

/* Adds a finding. `check` and `cause` are names as in nibble_finding; "" where no cause is known. */
void nb_find(nb_findings *findings, nibble_severity severity, const char *check, const char *cause, nb_place place,
             const char *format, ...) __attribute__((format(printf, 6, 7)));

size_t nb_findings_count(const nb_findings *findings, nibble_severity severity);
void nb_findings_free(nb_findings *findings);

#endif
