#include "validate/signature.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stage.h"

/* ---- keys ---- */

enum { MAX_KEY_FILE = 64 << 10 }; /* an Ed25519 key has some 120 bytes, and text may stand around it */

/* libcrypto asks here for a passphrase; without this function it would ask the terminal, and wait. */
static int refuse_passphrase(char *buffer, int size, int is_writing, void *asked) {
  (void)buffer, (void)size, (void)is_writing;
  *(bool *)asked = true;
  return -1;
}

/* What kind of key is read, and how. */
typedef struct key_kind {
  const char *name, *made_by;
  EVP_PKEY *(*read)(BIO *bio, EVP_PKEY **out, pem_password_cb *passphrase, void *ctx);
} key_kind;

static const key_kind private_key = {"private", "openssl genpkey -algorithm ed25519", PEM_read_bio_PrivateKey};
static const key_kind public_key = {"public", "openssl pkey -pubout", PEM_read_bio_PUBKEY};

static bool fingerprint(const EVP_PKEY *key, char out[NB_SHA256_CHARS]) {
  unsigned char *der = NULL;
  int n = i2d_PUBKEY(key, &der);
  bool ok = n > 0 && nb_sha256(der, (size_t)n, out);
  OPENSSL_free(der);
  return ok;
}

static nibble_status parse_key(const char *path, const key_kind *kind, nb_str text, nb_signing_key *out,
                               nibble_error *err) {
  bool is_locked = false;
  BIO *bio = BIO_new_mem_buf(text.data, (int)text.length);
  EVP_PKEY *key = bio ? kind->read(bio, NULL, refuse_passphrase, &is_locked) : NULL;
  nibble_status status = NIBBLE_OK;
  if (!bio)
    status = nb_fail_memory(err, text.length);
  else if (is_locked)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the key has a passphrase; one without is required", path);
  else if (!key)
    status =
        nb_fail(err, NIBBLE_BAD_INPUT, "%s: no %s key in PEM form, as `%s` writes it", path, kind->name, kind->made_by);
  else if (EVP_PKEY_base_id(key) != EVP_PKEY_ED25519)
    status =
        nb_fail(err, NIBBLE_BAD_INPUT, "%s: an %s key; Ed25519 is required", path, OBJ_nid2sn(EVP_PKEY_base_id(key)));
  else if (!fingerprint(key, out->fingerprint))
    status = nb_fail(err, NIBBLE_SYSTEM, "%s: libcrypto cannot take the key's fingerprint", path);
  if (status == NIBBLE_OK)
    out->handle = key;
  else
    EVP_PKEY_free(key);
  BIO_free(bio);
  ERR_clear_error(); /* the message above is ours; a later call must not find libcrypto's */
  return status;
}

static nibble_status read_key(const char *path, const key_kind *kind, nb_signing_key *out, nibble_error *err) {
  char *text;
  size_t length;
  *out = (nb_signing_key){0};
  nibble_status status = nb_read_file(path, MAX_KEY_FILE, &text, &length, err);
  if (status != NIBBLE_OK) return status;
  status = parse_key(path, kind, (nb_str){text, length}, out, err);
  OPENSSL_cleanse(text, length);
  free(text);
  return status;
}

nibble_status nb_key_read_private(const char *path, const nibble_progress *progress, nb_signing_key *out,
                                  nibble_error *err) {
  struct stat info;
  nibble_status status = read_key(path, &private_key, out, err);
  if (status == NIBBLE_OK && stat(path, &info) == 0 && info.st_mode & (S_IROTH | S_IWOTH))
    nb_warn(progress, "%s: every user can read or change this private key", path);
  return status;
}

nibble_status nb_key_read_public(const char *path, nb_signing_key *out, nibble_error *err) {
  return read_key(path, &public_key, out, err);
}

void nb_key_free(nb_signing_key *key) {
  EVP_PKEY_free(key->handle);
  *key = (nb_signing_key){0};
}

/* ---- signatures ---- */

static bool sign(const nb_signing_key *key, const void *bytes, size_t n, unsigned char out[NB_SIGNATURE_BYTES]) {
  size_t length = NB_SIGNATURE_BYTES;
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  bool ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->handle) == 1 &&
            EVP_DigestSign(ctx, out, &length, bytes, n) == 1 && length == NB_SIGNATURE_BYTES;
  EVP_MD_CTX_free(ctx);
  ERR_clear_error();
  return ok;
}

/* 1: it is that key's signature of the bytes; 0: it is not; else libcrypto refuses. */
static int verify(const nb_signing_key *key, nb_str bytes, const char signature[NB_SIGNATURE_BYTES]) {
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  int result = -1;
  if (ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key->handle) == 1)
    result = EVP_DigestVerify(ctx, (const unsigned char *)signature, NB_SIGNATURE_BYTES,
                              (const unsigned char *)bytes.data, bytes.length);
  EVP_MD_CTX_free(ctx);
  ERR_clear_error();
  return result;
}

char *nb_signature_path(const char *file) {
  nb_buf path = {0};
  nb_buf_printf(&path, "%s.sig", file);
  if (!path.failed) return path.data;
  nb_buf_free(&path);
  return NULL;
}

/* Whether it can be one; its bytes do not tell. */
static bool looks_signed(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == NB_SIGNATURE_BYTES;
}

nibble_status nb_signature_check_place(const char *path, bool force, nibble_error *err) {
  return nb_stage_check_file(path, &(nb_replace){.force = force || looks_signed(path)}, err);
}

nibble_status nb_signature_save(const char *path, bool force, const nb_signing_key *key, const nb_buf *bytes,
                                nibble_error *err) {
  unsigned char signature[NB_SIGNATURE_BYTES];
  nb_buf text = {0};
  if (!sign(key, bytes->data, bytes->length, signature))
    return nb_fail(err, NIBBLE_SYSTEM, "%s: libcrypto cannot sign", path);
  nb_buf_append(&text, signature, sizeof signature);
  nibble_status status =
      nb_stage_write_file(path, &(nb_replace){.force = force || looks_signed(path)}, &text, true, err);
  nb_buf_free(&text);
  return status;
}

void nb_signature_drop(const char *path, const nibble_progress *progress) {
  if (!looks_signed(path)) return;
  if (unlink(path) == 0)
    nb_warn(progress, "%s was of the certificate before, and is removed: this one is not signed", path);
  else
    nb_warn(progress, "%s is of the certificate before, and cannot be removed: this one is not signed", path);
}

/* The bytes of the signature at `path`; the caller's. */
static nibble_status read_signature(const char *path, char **out, nibble_error *err) {
  size_t length;
  nibble_status status = nb_read_file(path, NB_SIGNATURE_BYTES, out, &length, err);
  if (status != NIBBLE_OK || length == NB_SIGNATURE_BYTES) return status;
  free(*out);
  *out = NULL;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %zu bytes; an Ed25519 signature has %d", path, length, NB_SIGNATURE_BYTES);
}

nibble_status nb_signature_check(const char *path, const nb_signing_key *key, nb_str bytes, nb_findings *findings,
                                 nibble_signature *out, nibble_error *err) {
  static const char check[] = "signature";
  nb_place whole = nb_place_tensor("");
  nibble_error why;
  char *signature;
  *out = NIBBLE_SIGNATURE_NONE;
  if (access(path, F_OK) != 0) {
    if (key) nb_find(findings, NIBBLE_FAULT, check, "signature-missing", whole, "there is no signature, %s", path);
    return NIBBLE_OK;
  }
  nibble_status status = read_signature(path, &signature, &why);
  if (status == NIBBLE_BAD_INPUT && !key) {
    nb_find(findings, NIBBLE_WARNING, check, "signature-malformed", whole, "%s", why.message);
    return NIBBLE_OK;
  }
  if (status != NIBBLE_OK) {
    if (err) *err = why;
    return status;
  }
  int valid = key ? verify(key, bytes, signature) : 0;
  free(signature);
  if (!key) {
    *out = NIBBLE_SIGNATURE_UNCHECKED;
  } else if (valid == 1) {
    *out = NIBBLE_SIGNATURE_GOOD;
  } else if (valid == 0) {
    *out = NIBBLE_SIGNATURE_BAD;
    nb_find(findings, NIBBLE_FAULT, check, "signature-bad", whole,
            "%s is no signature of the certificate by key %s: one of the two was changed, or another key signed", path,
            key->fingerprint);
  } else {
    status = nb_fail(err, NIBBLE_SYSTEM, "%s: libcrypto has no Ed25519", path);
  }
  return status;
}
