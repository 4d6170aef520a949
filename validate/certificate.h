/* The certificate: what `verify` measured, on which files, against which thresholds, with which verdict. It stands in
 * the artifact's nibble.json under "certificate", or in a file of its own, and names the SHA-256 of every tensor, so
 * that anybody can tell later whether the files are still those that were measured. */
#ifndef NB_VALIDATE_CERTIFICATE_H
#define NB_VALIDATE_CERTIFICATE_H

#include "convert/checkpoint.h"
#include "validate/signature.h"

/* The two models that a certificate is about. */
typedef enum nb_side { NB_ARTIFACT, NB_SOURCE } nb_side;

/* "artifact", "source": the object of the certificate that has its hashes. */
const char *nb_side_name(nb_side side);

/* *tensors: {NAME: {"dtype", "shape", "sha256"}} of every tensor. *files: {PATH: sha256}, of an artifact's folder every
 * file, of a source config.json and tokenizer.json. Left out are nibble.json, the file of the certificate itself, the
 * signatures of both, README.md (where the model card goes) and names with a dot in front; a file of weights has
 * "tensors" in the hash's place. Both objects are the caller's. Reads all bytes. */
nibble_status nb_certificate_hashes(const nb_checkpoint *checkpoint, nb_side side, const nibble_verify_options *options,
                                    cJSON **tensors, cJSON **files, nibble_error *err);

/* Where it stands: `path`, or with NULL nibble.json in the folder; malloc'd. NIBBLE_USAGE if there is neither. */
nibble_status nb_certificate_path(const nb_checkpoint *artifact, const char *path, char **out, nibble_error *err);

/* Puts `certificate` (a copy) into options->certificate if that is not NULL, else into nibble.json of the artifact's
 * folder, beside what nibble wrote there before, and signs the file (key NULL: a signature of what was there before is
 * removed); each of the two is replaced in one step. NIBBLE_SYSTEM if it cannot be written, NIBBLE_USAGE if there is no
 * folder and no path, or what stands there is not nibble's and options->force does not say that it may go. */
nibble_status nb_certificate_save(const nb_checkpoint *artifact, const nibble_verify_options *options,
                                  const nb_signing_key *key, const cJSON *certificate, nibble_error *err);

/* What nb_certificate_save would say to what stands there now: asked before hours of work. */
nibble_status nb_certificate_check_place(const nb_checkpoint *artifact, const nibble_verify_options *options,
                                         nibble_error *err);

/* The file that nb_certificate_save wrote: what is parsed are the bytes that the signature was held against. */
typedef struct nb_certificate_file {
  char *path, *signature; /* malloc'd, as is the text */
  char *text;
  size_t length;
} nb_certificate_file;

/* path: NULL, the folder's. On failure there is nothing to free. */
nibble_status nb_certificate_read(const nb_checkpoint *artifact, const char *path, nb_certificate_file *out,
                                  nibble_error *err);
void nb_certificate_file_free(nb_certificate_file *file);

/* The certificate in it, the caller's. NIBBLE_BAD_INPUT if there is none. */
nibble_status nb_certificate_parse(const nb_certificate_file *file, cJSON **out, nibble_error *err);

/* A fault for every tensor and file that one certificate names for that side and the other does not, or differently. */
nibble_status nb_certificate_compare(const cJSON *now, const cJSON *then, nb_side side, nb_findings *findings,
                                     nibble_error *err);

/* The same for a checkpoint as it is now. NIBBLE_BAD_INPUT if the certificate has no hashes of that side. */
nibble_status nb_certificate_check(const nb_checkpoint *checkpoint, const cJSON *certificate, nb_side side,
                                   const nibble_verify_options *options, nb_findings *findings, nibble_error *err);

#endif
