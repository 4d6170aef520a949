#include "validate/digest.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "base/stop.h"

void nb_sha256_print(const unsigned char digest[NB_SHA256_BYTES], char out[NB_SHA256_CHARS]) {
  for (size_t i = 0; i < NB_SHA256_BYTES; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

bool nb_sha256(const void *bytes, size_t n, char out[NB_SHA256_CHARS]) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  if (!EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL)) return false;
  nb_sha256_print(digest, out);
  return true;
}

/* Piece by piece, so that as many tensors as there are threads need not be in memory at once. */
nibble_status nb_sha256_mapped(const nb_mapped_bytes *bytes, char out[NB_SHA256_CHARS], nibble_error *err) {
  const uint64_t piece = 8 << 20;
  unsigned char digest[EVP_MAX_MD_SIZE];
  EVP_MD_CTX *hash = EVP_MD_CTX_new();
  bool ok = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
  nibble_status status = NIBBLE_OK;
  for (uint64_t at = 0; ok && status == NIBBLE_OK && at < bytes->count; at += piece) {
    uint64_t n = bytes->count - at < piece ? bytes->count - at : piece;
    ok = EVP_DigestUpdate(hash, bytes->map->data + bytes->offset + at, (size_t)n);
    nb_mapfile_release(bytes->map, bytes->offset + at, n);
    status = nb_stop_check(err);
  }
  ok = ok && EVP_DigestFinal_ex(hash, digest, NULL);
  EVP_MD_CTX_free(hash);
  if (!ok) return nb_fail(err, NIBBLE_SYSTEM, "libcrypto has no SHA-256");
  if (status == NIBBLE_OK) nb_sha256_print(digest, out);
  return status;
}

nibble_status nb_sha256_file(const char *path, char out[NB_SHA256_CHARS], nibble_error *err) {
  nb_mapfile map;
  nibble_status status = nb_mapfile_open(path, &map, err);
  if (status != NIBBLE_OK) return status;
  status = nb_sha256_mapped(&(nb_mapped_bytes){&map, 0, map.size}, out, err);
  nb_mapfile_close(&map);
  return status;
}
