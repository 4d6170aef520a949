/* A model folder of any bytes through `verify`: its structure, and every weight against itself. The input is
 * config.json up to the first NUL, tokenizer.json up to the second, and model.safetensors. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nibble.h"
#include "tests/fuzz/fuzz.h"

enum { FILES = 3 };

static const char *const names[FILES] = {"config.json", "tokenizer.json", "model.safetensors"};
static char folder[] = "/tmp/nibble-fuzz-XXXXXX";

static void path_of(int file, char path[PATH_MAX]) { snprintf(path, PATH_MAX, "%s/%s", folder, names[file]); }

static void remove_folder(void) {
  char path[PATH_MAX];
  for (int i = 0; i < FILES; i++) {
    path_of(i, path);
    unlink(path);
  }
  rmdir(folder);
}

static void write_part(int file, const uint8_t *data, size_t size) {
  char path[PATH_MAX];
  path_of(file, path);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

static void verify(const char *against) {
  nibble_verify_options options = {
      .size = sizeof options, .artifact = folder, .against = against, .no_certificate = true};
  nibble_verification *verification;
  nibble_error err;
  nibble_status status = nibble_verify(&options, &verification, &err);
  if (status == NIBBLE_OK && verification->fault_count) abort();
  if (status == NIBBLE_CHECK_FAILED && !verification->fault_count) abort();
  nibble_verification_free(verification);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (strstr(folder, "XXXXXX")) {
    if (!mkdtemp(folder) || atexit(remove_folder) != 0) abort();
  }
  for (int i = 0; i < FILES; i++) {
    const uint8_t *nul = i < FILES - 1 ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size, used = nul ? n + 1 : n;
    write_part(i, data, n);
    data += used;
    size -= used;
  }
  verify(NULL);
  verify(folder);
  return 0;
}
