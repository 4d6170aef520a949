#include "convert/tokenizer_open.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stage.h"
#include "base/str.h"
#include "tokenizer/readers/readers.h"

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static nibble_status load_from(const char *folder, nb_tokenizer **out, nibble_error *err) {
  nb_tokenizer_spec spec;
  nibble_status status = nb_tokenizer_spec_folder(folder, &spec, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make(folder, &spec, out, err);
  nb_tokenizer_spec_free(&spec);
  return status;
}

nibble_status nb_tokenizer_of(const nb_checkpoint *checkpoint, nb_tokenizer **out, nibble_error *err) {
  *out = NULL;
  if (!checkpoint->gguf) return load_from(checkpoint->folder, out, err);
  nb_tokenizer_spec spec;
  nibble_status status = nb_gguf_tokenizer(checkpoint->gguf, &spec, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make(checkpoint->path, &spec, out, err);
  nb_tokenizer_spec_free(&spec);
  return status;
}

nibble_status nb_tokenizer_open(const char *path, nb_tokenizer **out, nibble_error *err) {
  *out = NULL;
  nibble_status status;
  if (!is_folder(path) && nb_tokenizer_kind_of(path)) {
    nb_tokenizer_spec spec;
    status = nb_tokenizer_spec_load(path, &spec, err);
    if (status == NIBBLE_OK) status = nb_tokenizer_make(path, &spec, out, err);
    nb_tokenizer_spec_free(&spec);
    return status;
  }
  if (nb_ends_with(path, ".gguf")) {
    nb_checkpoint checkpoint;
    status = nb_checkpoint_open(path, &checkpoint, err);
    if (status != NIBBLE_OK) return status;
    status = nb_tokenizer_of(&checkpoint, out, err);
    nb_checkpoint_close(&checkpoint);
    return status;
  }
  if (is_folder(path) || access(path, F_OK) != 0) return load_from(path, out, err);
  const char *slash = strrchr(path, '/');
  char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
  if (!folder) return nb_fail_memory(err, strlen(path));
  status = load_from(folder, out, err);
  free(folder);
  return status;
}
