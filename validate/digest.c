#include "validate/digest.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "base/mapfile.h"

void nb_sha256_print(const unsigned char digest[NB_SHA256_BYTES], char out[NB_SHA256_CHARS]) {
  for (size_t i = 0; i < NB_SHA256_BYTES; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

bool nb_sha256(const void *bytes, size_t n, char out[NB_SHA256_CHARS]) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  if (!EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL)) return false;
  nb_sha256_print(digest, out);
  return true;
}

nibble_status nb_sha256_file(const char *path, char out[NB_SHA256_CHARS], nibble_error *err) {
  nb_mapfile map;
  nibble_status status = nb_mapfile_open(path, &map, err);
  if (status != NIBBLE_OK) return status;
  if (!nb_sha256(map.size ? (const void *)map.data : "", (size_t)map.size, out))
    status = nb_fail(err, NIBBLE_SYSTEM, "%s: libcrypto has no SHA-256", path);
  nb_mapfile_close(&map);
  return status;
}
