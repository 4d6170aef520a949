/* SHA-256, by libcrypto, as certificates and signatures name bytes by it. */
#ifndef NB_VALIDATE_DIGEST_H
#define NB_VALIDATE_DIGEST_H

#include "base/mapfile.h"

enum { NB_SHA256_BYTES = 32, NB_SHA256_CHARS = 65 /* hexadecimal digits and a NUL */ };

void nb_sha256_print(const unsigned char digest[NB_SHA256_BYTES], char out[NB_SHA256_CHARS]);

/* Of n bytes. False if libcrypto refuses. */
bool nb_sha256(const void *bytes, size_t n, char out[NB_SHA256_CHARS]);

/* Bytes [offset, offset + count) of a mapped file. */
typedef struct nb_mapped_bytes {
  const nb_mapfile *map;
  uint64_t offset, count;
} nb_mapped_bytes;

/* Of these, piece by piece, whose pages are given back. NIBBLE_STOPPED if the caller wants to stop (base/stop.h). */
nibble_status nb_sha256_mapped(const nb_mapped_bytes *bytes, char out[NB_SHA256_CHARS], nibble_error *err);

/* Of a file's bytes as they lie. NIBBLE_STOPPED likewise. */
nibble_status nb_sha256_file(const char *path, char out[NB_SHA256_CHARS], nibble_error *err);

#endif
