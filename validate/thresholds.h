/* What a measured artifact has to keep to: three figures of its behaviour, named by a profile or one by one. The
 * profile "normal" asks what an artifact's own formats do to a small model (nb_limits of kernels/formats.h): int8 is
 * held to far less than four bits are. "strict" and "loose" ask the same of everything. */
#ifndef NB_VALIDATE_THRESHOLDS_H
#define NB_VALIDATE_THRESHOLDS_H

#include "validate/weights.h"

/* True if the options name a threshold or a profile of them. */
bool nb_thresholds_asked(const nibble_verify_options *options);

/* NIBBLE_USAGE for an unknown profile. */
nibble_status nb_thresholds_check_profile(const nibble_verify_options *options, nibble_error *err);

/* The profile's figures for an artifact and its weights as compared with the original's, with those that *options sets
 * (not zero) in their place; with check_only and no profile those alone. *limits_of: the format whose limits they are;
 * of several the one with the widest. "" where no format has a say. */
void nb_thresholds_choose(const nibble_verify_options *options, const nb_checkpoint *artifact,
                          const nb_weights *weights, nibble_thresholds *out, const char **limits_of);

/* Each figure beside its threshold. */
void nb_thresholds_compare(const nibble_thresholds *thresholds, const nibble_behaviour *behaviour,
                           nibble_limit out[NIBBLE_LIMITS]);

/* A fault for each figure that is missed. */
void nb_thresholds_check(const nibble_thresholds *thresholds, const nibble_behaviour *behaviour, nb_findings *findings);

#endif
