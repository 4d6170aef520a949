#include "tokenizer/readers/readers.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/stage.h"

/* The first row that matches counts. */
static const nb_tokenizer_kind kinds[] = {
    {.names = "tokenizer.json", .read = nb_read_tokenizer_json},
    {.names = "*tekken*.json", .read = nb_read_tekken},
    {.names = "vocab.json", .beside = "merges.txt", .read = nb_read_vocab_json},
    {.names = "*.json", .read = nb_read_tokenizer_json},
    {.names = "*.tiktoken tiktoken.model", .read = nb_read_tiktoken},
    {.names = "vocab.txt", .read = nb_read_vocab_txt},
    {.names = "*.model *.model.v*", .read = nb_read_sentencepiece},
};

enum { MAX_FILE = 256 << 20 };

static const char *last_part(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

bool nb_tokenizer_name_is(const char *name, const char *patterns) {
  char pattern[64];
  for (const char *at = patterns; *at;) {
    size_t n = strcspn(at, " ");
    if (n < sizeof pattern) {
      memcpy(pattern, at, n);
      pattern[n] = 0;
      if (fnmatch(pattern, name, 0) == 0) return true;
    }
    at += n + (at[n] == ' ');
  }
  return false;
}

const nb_tokenizer_kind *nb_tokenizer_kind_of(const char *path) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (nb_tokenizer_name_is(last_part(path), kinds[i].names)) return &kinds[i];
  }
  return NULL;
}

nb_str nb_take_line(nb_str *text) {
  const char *end = memchr(text->data, '\n', text->length);
  nb_str line = {text->data, end ? (size_t)(end - text->data) : text->length};
  size_t used = line.length + (end != NULL);
  text->data += used;
  text->length -= used;
  if (line.length > 0 && line.data[line.length - 1] == '\r') line.length--;
  return line;
}

/* The file `name` in the folder of `path`. */
static nibble_status read_beside(const char *path, const char *name, char **text, nb_tokenizer_file *file,
                                 nibble_error *err) {
  nb_buf beside = {0};
  nb_buf_append(&beside, path, (size_t)(last_part(path) - path));
  nb_buf_puts(&beside, name);
  if (beside.failed) {
    nb_buf_free(&beside);
    return nb_fail_memory(err, strlen(path));
  }
  file->beside_path = beside.data;
  nibble_status status = nb_read_file(beside.data, MAX_FILE, text, &file->beside.length, err);
  file->beside.data = *text;
  return status;
}

nibble_status nb_tokenizer_spec_load(const char *path, nb_tokenizer_spec *out, nibble_error *err) {
  *out = (nb_tokenizer_spec){0};
  const nb_tokenizer_kind *kind = nb_tokenizer_kind_of(path);
  if (!kind) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no kind of tokenizer has files with this name", path);
  nb_tokenizer_file file = {.path = path, .name = last_part(path)};
  char *text = NULL, *beside = NULL;
  nibble_status status = nb_read_file(path, MAX_FILE, &text, &file.text.length, err);
  file.text.data = text;
  if (status == NIBBLE_OK && kind->beside) status = read_beside(path, kind->beside, &beside, &file, err);
  if (status == NIBBLE_OK) status = kind->read(&file, out, err);
  free(text);
  free(beside);
  free((char *)file.beside_path);
  return status;
}

nibble_status nb_read_tokenizer_json(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  return nb_tokenizer_spec_read(file->path, file->text.data, file->text.length, out, err);
}
