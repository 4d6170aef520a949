/* Calibration text as windows of token ids. The text is plain or gzip, or JSON lines that each have a "text"; what is
 * not UTF-8 is refused, because a calibration on damaged text would go unnoticed. */
#ifndef NB_QUANT_WINDOWS_H
#define NB_QUANT_WINDOWS_H

#include "convert/checkpoint.h"

typedef struct nb_windows_options {
  const char *path;                /* the text */
  const nb_checkpoint *checkpoint; /* whose tokenizer cuts it */
  int64_t samples, seqlen;
  bool random;   /* windows begin anywhere, drawn by `seed`; else they follow each other from the start */
  uint64_t seed; /* if random */
} nb_windows_options;

typedef struct nb_windows {
  int64_t samples, seqlen;
  int64_t tokens; /* in the whole text */
  int32_t *ids;   /* [samples, seqlen] */
} nb_windows;

/* NIBBLE_BAD_INPUT if the text is empty, not UTF-8, or too short: then the message says how many tokens it has and how
 * many are needed. Free with nb_windows_free. */
nibble_status nb_windows_load(const nb_windows_options *options, nb_windows *out, nibble_error *err);
void nb_windows_free(nb_windows *windows);

#endif
