/* SHA-256, by libcrypto, as certificates and signatures name bytes by it. */
#ifndef NB_VALIDATE_DIGEST_H
#define NB_VALIDATE_DIGEST_H

#include "base/status.h"

enum { NB_SHA256_BYTES = 32, NB_SHA256_CHARS = 65 /* hexadecimal digits and a NUL */ };

void nb_sha256_print(const unsigned char digest[NB_SHA256_BYTES], char out[NB_SHA256_CHARS]);

/* Of n bytes. False if libcrypto refuses. */
bool nb_sha256(const void *bytes, size_t n, char out[NB_SHA256_CHARS]);

/* Of a file's bytes as they lie. */
nibble_status nb_sha256_file(const char *path, char out[NB_SHA256_CHARS], nibble_error *err);

#endif
