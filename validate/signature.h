/* A certificate's signature: Ed25519 (RFC 8032), by libcrypto, over every byte of the file that the certificate stands
 * in. It stands beside that file, as FILE.sig: the 64 bytes as they are, so that there is nothing to parse and OpenSSL
 * alone makes and checks it, too:
 *
 *   openssl pkeyutl -verify -rawin -pubin -inkey key.pub.pem -in nibble.json -sigfile nibble.json.sig
 *
 * A key is one PEM file that `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write. Its fingerprint is
 * the SHA-256 of the public key's DER form (SubjectPublicKeyInfo). Keys are read before anything is measured. */
#ifndef NB_VALIDATE_SIGNATURE_H
#define NB_VALIDATE_SIGNATURE_H

#include "base/buf.h"
#include "base/str.h"
#include "validate/digest.h"
#include "validate/findings.h"

enum { NB_SIGNATURE_BYTES = 64 };

typedef struct nb_signing_key {
  struct evp_pkey_st *handle; /* libcrypto's */
  char fingerprint[NB_SHA256_CHARS];
} nb_signing_key;

/* NIBBLE_BAD_INPUT if the file holds no Ed25519 key of that kind. A key that a passphrase protects is refused: nobody
 * is asked for one. Others being able to read a private key is a warning. Free with nb_key_free, zeroed is fine. */
nibble_status nb_key_read_private(const char *path, const nibble_progress *progress, nb_signing_key *out,
                                  nibble_error *err);
nibble_status nb_key_read_public(const char *path, nb_signing_key *out, nibble_error *err);
void nb_key_free(nb_signing_key *key);

/* FILE.sig, malloc'd; NULL without memory. */
char *nb_signature_path(const char *file);

/* NIBBLE_USAGE where nb_signature_save would refuse what stands at `path`. force: another file may go, too. */
nibble_status nb_signature_check_place(const char *path, bool force, nibble_error *err);

/* Signs n bytes; the signature replaces an older one in one step. */
nibble_status nb_signature_save(const char *path, bool force, const nb_signing_key *key, const nb_buf *bytes,
                                nibble_error *err);

/* Removes the signature of what has been replaced, with a warning; what cannot be one (other than 64 bytes in a file)
 * stays. */
void nb_signature_drop(const char *path, const nibble_progress *progress);

/* The signature at `path` of n bytes, held against a key: a fault if it is of others, or not there, and with key NULL
 * none of these. NIBBLE_BAD_INPUT if what stands there is no signature and there is a key; else that is a warning. */
nibble_status nb_signature_check(const char *path, const nb_signing_key *key, nb_str bytes, nb_findings *findings,
                                 nibble_signature *out, nibble_error *err);

#endif
