/* The second depth of `verify`: every weight of an artifact against the original's, and against the error that its
 * format must make. What is worse than that is looked into (causes.h). Both files are read once, band by band. */
#ifndef NB_VALIDATE_WEIGHTS_H
#define NB_VALIDATE_WEIGHTS_H

#include "convert/checkpoint.h"
#include "validate/findings.h"

typedef struct nb_weights {
  nibble_weight_error *rows; /* in the order of the original's file */
  size_t count;
} nb_weights;

/* Free with nb_weights_free, on failure too. */
nibble_status nb_weights_compare(const nb_checkpoint *artifact, const nb_checkpoint *original,
                                 const nibble_progress *progress, nb_findings *findings, nb_weights *out,
                                 nibble_error *err);
void nb_weights_free(nb_weights *weights);

#endif
