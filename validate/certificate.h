/* The certificate: what `verify` measured, on which files, against which thresholds, with which verdict. It stands in
 * the artifact's nibble.json under "certificate", or in a file of its own, and names the SHA-256 of every tensor, so
 * that anybody can tell later whether the files are still those that were measured. */
#ifndef NB_VALIDATE_CERTIFICATE_H
#define NB_VALIDATE_CERTIFICATE_H

#include "convert/checkpoint.h"
#include "validate/findings.h"

enum { NB_SHA256_BYTES = 32, NB_SHA256_CHARS = 65 /* hexadecimal digits and a NUL */ };

/* SHA-256 of a file's bytes as they lie. */
nibble_status nb_sha256_file(const char *path, char out[NB_SHA256_CHARS], nibble_error *err);

/* {NAME: {"dtype", "shape", "sha256"}} of every tensor, and of the files that change what the tensors mean
 * {"config.json": sha256, ...}. Both objects are the caller's. Reads all bytes. */
nibble_status nb_certificate_tensors(const nb_checkpoint *checkpoint, const nibble_progress *progress, cJSON **tensors,
                                     cJSON **files, nibble_error *err);

/* Puts `certificate` (a copy) into `path` if that is not NULL, else into nibble.json of the artifact's folder, beside
 * what nibble wrote there before; the file is replaced in one step. NIBBLE_SYSTEM if it cannot be written, NIBBLE_USAGE
 * if there is no folder and no path, or what stands there is not nibble's and `force` does not say that it may go. */
nibble_status nb_certificate_save(const nb_checkpoint *artifact, const char *path, bool force, const cJSON *certificate,
                                  nibble_error *err);

/* What nb_certificate_save would say to what stands there now: asked before hours of work. */
nibble_status nb_certificate_check_place(const nb_checkpoint *artifact, const char *path, bool force,
                                         nibble_error *err);

/* Loads the certificate that nb_certificate_save wrote. NIBBLE_BAD_INPUT if there is none. The caller's. */
nibble_status nb_certificate_load(const nb_checkpoint *artifact, const char *path, cJSON **out, nibble_error *err);

/* Compares a checkpoint with one side ("artifact" or "source") of a certificate: a fault for every tensor that is
 * missing, new, or of other bytes, dtype or shape, and for a file that changed. */
nibble_status nb_certificate_check(const nb_checkpoint *checkpoint, const cJSON *certificate, const char *side,
                                   const nibble_progress *progress, nb_findings *findings, nibble_error *err);

#endif
