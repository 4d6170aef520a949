/* A verification's result as a certificate (certificate.h). */
#ifndef NB_VALIDATE_CERTIFY_H
#define NB_VALIDATE_CERTIFY_H

#include "convert/checkpoint.h"
#include "validate/findings.h"

/* Hashes the artifact and the original (NULL: none), and writes the certificate where options->certificate says, or to
 * the artifact's folder; without such a path it is a warning that the folder cannot be written to, or that nibble.json
 * is not nibble's. A sound certificate of the same files that went deeper is kept, with a warning. */
nibble_status nb_certify(const nibble_verification *v, const nb_checkpoint *artifact, const nb_checkpoint *original,
                         const nibble_verify_options *options, nibble_error *err);

#endif
