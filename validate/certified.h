/* What a certificate says, read back. A certificate comes with its artifact, so it is input: what it claims is held
 * against its own figures and thresholds. */
#ifndef NB_VALIDATE_CERTIFIED_H
#define NB_VALIDATE_CERTIFIED_H

#include "convert/checkpoint.h"
#include "validate/findings.h"
#include "validate/weights.h"

typedef enum nb_depth { NB_DEPTH_STRUCTURE, NB_DEPTH_WEIGHTS, NB_DEPTH_BEHAVIOUR, NB_DEPTHS } nb_depth;

/* How far checks went: "structure", "weights", "behaviour". */
const char *nb_depth_name(nb_depth depth);

/* How far the checks of `v` went. */
nb_depth nb_depth_reached(const nibble_verification *v);

/* Strings belong to the certificate, arrays to the caller: nb_weights_free. */
typedef struct nb_certified {
  bool sound;
  nb_depth depth;
  const char *original, *text, *text_sha256; /* "": none */
  int64_t tensors, packed_weights;
  nb_weights weights;           /* of each the name, format and errors */
  nibble_behaviour behaviour;   /* with depth BEHAVIOUR: its figures and counts */
  nibble_thresholds thresholds; /* the same */
  const char *limits_of;        /* the format that they are of; "": of none */
} nb_certified;

/* NIBBLE_BAD_INPUT, with `where` at the message's start, for what no certificate of ours says. */
nibble_status nb_certified_read(const char *where, const cJSON *certificate, nb_certified *out, nibble_error *err);

/* A fault if the certificate says that the artifact failed, if it contradicts itself (sound, with reasons against it),
 * if its figures miss its thresholds, or those in `asked`; and if `asked` wants a behaviour that was not measured.
 * asked: NULL, none. */
void nb_certified_judge(const cJSON *certificate, const nb_certified *certified, const nibble_thresholds *asked,
                        nb_findings *findings);

#endif
