/* One attempt at explaining a flagged weight: the artifact read in another way, on a sample of rows, against the
 * original. For causes*.c only. */
#ifndef NB_VALIDATE_TRIAL_H
#define NB_VALIDATE_TRIAL_H

#include "validate/causes.h"

enum { NB_TRIAL_ROWS = 48 };

/* How the artifact is read. Zeroed but for the descriptor: as it is. */
typedef struct nb_reading {
  const nb_packed *packed; /* descriptor to read through; NULL: suspect->copy as it stands */
  int64_t (*row)(int64_t row, int64_t rows, int64_t heads); /* row that holds row `row`; NULL: itself */
  int64_t heads;
  int64_t shift; /* elements that everything has moved by */
  bool transposed;
  float offset; /* added to every value */
} nb_reading;

typedef struct nb_trials {
  const nb_suspect *suspect;
  int64_t rows, cols;
  int64_t sample[NB_TRIAL_ROWS];
  int sample_count;
  bool is_local; /* few blocks are damaged, and the sample is of them */
  float *want;   /* [sample_count, cols], the original's */
  float *have;   /* [cols] */
  double now;    /* relative error of the sample as it is */
  double limit;  /* below which an attempt explains it */
  double best;   /* error of the best attempt so far that does */
  char *text;
  size_t room;
} nb_trials;

/* Sums of the sample under a reading: what errors with and without a factor follow from. */
typedef struct nb_fit {
  double error;  /* relative */
  double factor; /* that fits best */
  double error_with_factor;
} nb_fit;

/* False if the reading leads outside the tensor, or to no numbers. */
bool nb_trial_read(const nb_trials *trials, const nb_reading *reading, nb_fit *out);

/* Keeps the attempt if it explains the error better than those before; `cause` is a literal. True if kept. */
bool nb_trial_keep(nb_trials *trials, double error, const char *cause, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Reads and keeps. */
void nb_trial(nb_trials *trials, const nb_reading *reading, const char *cause, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The attempts that a format has of its own. */
void nb_trials_bnb(nb_trials *trials);
void nb_trials_gptq(nb_trials *trials);
void nb_trials_gguf(nb_trials *trials);
void nb_trials_plain(nb_trials *trials);

#endif
