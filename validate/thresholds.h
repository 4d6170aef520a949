/* What a measured artifact has to keep to: three figures of its behaviour, named by a profile or one by one. */
#ifndef NB_VALIDATE_THRESHOLDS_H
#define NB_VALIDATE_THRESHOLDS_H

#include "validate/findings.h"

/* True if the options name a threshold or a profile of them. */
bool nb_thresholds_asked(const nibble_verify_options *options);

/* The profile's figures, with those that *options sets (not zero) in their place; with check_only and no profile those
 * alone. NIBBLE_USAGE for an unknown profile. */
nibble_status nb_thresholds_choose(const nibble_verify_options *options, nibble_thresholds *out, nibble_error *err);

/* A fault for each figure that is missed. */
void nb_thresholds_check(const nibble_thresholds *thresholds, const nibble_behaviour *behaviour, nb_findings *findings);

#endif
