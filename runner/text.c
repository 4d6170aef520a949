#include "runner/text.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/stage.h"
#include "base/stop.h"
#include "tokenizer/tokenizer.h"

static nibble_status open_text(const char *path, int *fd, nibble_error *err) {
  bool is_stdin = strcmp(path, "-") == 0;
  nibble_status status = is_stdin ? NIBBLE_OK : nb_open_input(path, fd, err);
  if (is_stdin && (*fd = dup(STDIN_FILENO)) < 0) status = nb_fail_errno(err, "%s", path);
  if (status != NIBBLE_OK) return status;
  struct stat info;
  /* A FIFO may have nobody at its other end; a shell's <(command) is a pipe that is open already. */
  bool is_pipe = is_stdin || strncmp(path, "/dev/fd/", 8) == 0;
  if (fstat(*fd, &info) != 0) {
    status = nb_fail_errno(err, "%s", path);
  } else if (S_ISDIR(info.st_mode)) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: a folder, not a text", path);
  } else if (S_ISFIFO(info.st_mode) && !is_pipe) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: a FIFO, not a text; - reads standard input", path);
  } else if (!is_stdin && fcntl(*fd, F_SETFL, O_RDONLY) != 0) {
    status = nb_fail_errno(err, "%s", path);
  }
  if (status != NIBBLE_OK) close(*fd);
  return status;
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
    if ((status = nb_stop_check(err)) != NIBBLE_OK) goto done;
    if (out->length - start > NB_TEXT_MAX) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: more than the %d bytes that a text may have", path, NB_TEXT_MAX);
      goto done;
    }
  }
  if ((status = nb_stop_check(err)) != NIBBLE_OK) goto done; /* its signal may have interrupted the reading */
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
