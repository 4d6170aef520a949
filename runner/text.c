#include "runner/text.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/stage.h"
#include "tokenizer/tokenizer.h"

static nibble_status open_text(const char *path, int *fd, nibble_error *err) {
  if (strcmp(path, "-") == 0) {
    *fd = dup(STDIN_FILENO);
    if (*fd < 0) return nb_fail_errno(err, "%s", path);
  } else {
    nibble_status status = nb_open_input(path, fd, err);
    if (status != NIBBLE_OK) return status;
  }
  struct stat info;
  if (fstat(*fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    close(*fd);
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a folder, not a text", path);
  }
  return NIBBLE_OK;
}

nibble_status nb_text_read(const char *path, nb_buf *out, nibble_error *err) {
  int fd;
  nibble_status status = open_text(path, &fd, err);
  if (status != NIBBLE_OK) return status;
  gzFile file = gzdopen(fd, "rb"); /* passes what is not gzip through unchanged */
  if (!file) {
    close(fd);
    return nb_fail_memory(err, 1 << 16);
  }
  enum { CHUNK = 1 << 16 };
  char chunk[CHUNK];
  gzbuffer(file, CHUNK);
  size_t start = out->length;
  int got;
  while ((got = gzread(file, chunk, CHUNK)) > 0) {
    nb_buf_append(out, chunk, (size_t)got);
    if (out->length - start > NB_TEXT_MAX) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: more than the %d bytes that a text may have", path, NB_TEXT_MAX);
      goto done;
    }
  }
  int code;
  const char *message = gzerror(file, &code); /* a truncated file shows only here */
  if (code == Z_ERRNO)
    status = nb_fail_errno(err, "%s", path);
  else if (code == Z_MEM_ERROR || out->failed)
    status = nb_fail_memory(err, out->length);
  else if (code != Z_OK)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: damaged gzip file: %s", path, message);
done:
  gzclose(file);
  return status;
}
