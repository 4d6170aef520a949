/* A verification's result as a certificate (certificate.h). */
#ifndef NB_VALIDATE_CERTIFY_H
#define NB_VALIDATE_CERTIFY_H

#include "convert/checkpoint.h"
#include "validate/signature.h"

/* What is certified, and how. */
typedef struct nb_certify_job {
  const nb_checkpoint *artifact, *original; /* original: NULL, there is none */
  const nibble_verify_options *options;
  const nb_signing_key *key; /* signs the certificate; NULL: nobody does */
} nb_certify_job;

/* Hashes the artifact and the original, and writes the certificate where options->certificate says, or to the
 * artifact's folder; without such a path, and without a key, it is a warning that the folder cannot be written to, or
 * that nibble.json is not nibble's. A sound certificate of the same files that went deeper is kept, with a warning;
 * with a key that is NIBBLE_USAGE. */
nibble_status nb_certify(const nibble_verification *v, const nb_certify_job *job, nibble_error *err);

#endif
