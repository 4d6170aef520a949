/* What the steps of a tokenizer may spend on one text. Limits an item (a pattern's work at one place, a step's output)
 * do not add up to a limit, since a text has many places and a tokenizer many steps; so one budget, which grows with
 * the text, goes through all of them, and who has spent it ends with an error. A tokenizer that people use spends a
 * few parts in a hundred of it. */
#ifndef NB_TOKENIZER_BUDGET_H
#define NB_TOKENIZER_BUDGET_H

#include "base/status.h"

typedef struct nb_budget {
  uint64_t work; /* of searches, in units of about half a nanosecond */
  size_t bytes;  /* that steps may still write */
} nb_budget;

enum {
  NB_BUDGET_WORK = 160000000, /* whatever the text, */
  NB_BUDGET_WORK_BYTE = 512,  /* and for each of its bytes */
  NB_BUDGET_BYTES = 1 << 20,
  NB_BUDGET_BYTES_BYTE = 64,
};

/* Adds what a text of n bytes may cost; n is at most NB_TEXT_MAX for each of at most 2^20 texts. */
static inline void nb_budget_add(nb_budget *budget, size_t n) {
  budget->work += (uint64_t)n * NB_BUDGET_WORK_BYTE;
  budget->bytes += n * NB_BUDGET_BYTES_BYTE;
}

static inline nb_budget nb_budget_of(size_t n) {
  nb_budget budget = {.work = NB_BUDGET_WORK, .bytes = NB_BUDGET_BYTES};
  nb_budget_add(&budget, n);
  return budget;
}

/* Takes `work` from the budget; false, with nothing taken, if it has less. */
static inline bool nb_budget_pay(nb_budget *budget, uint64_t work) {
  if (work > budget->work) return false;
  budget->work -= work;
  return true;
}

/* The error of the part of a tokenizer that has spent all bytes. */
static inline nibble_status nb_budget_refuse(const char *part, nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's %s makes more than %d bytes of each byte of this text", part,
                 NB_BUDGET_BYTES_BYTE);
}

#endif
