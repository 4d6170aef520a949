#include "quant/boundary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/stage.h"

static nibble_status create_file(nb_boundary *b, nibble_error *err) {
  char *path = nb_path_join(b->folder, "activations-XXXXXX");
  b->host = nb_alloc_aligned(b->sample_bytes, 1);
  if (!path || !b->host) {
    free(path);
    return nb_fail_memory(err, b->sample_bytes);
  }
  b->fd = mkostemp(path, O_CLOEXEC);
  nibble_status status = b->fd < 0 ? nb_fail_errno(err, "%s", path) : NIBBLE_OK;
  if (b->fd >= 0) unlink(path);
  free(path);
  return status;
}

nibble_status nb_boundary_create(nb_boundary *b, uint64_t max_memory, nibble_error *err) {
  uint64_t bytes = 0;
  b->fd = -1;
  if (!nb_mul_u64((uint64_t)b->samples, b->sample_bytes, &bytes)) return nb_fail_memory(err, SIZE_MAX);
  b->is_spilled = bytes > max_memory;
  if (!(b->buffers = nb_alloc((uint64_t)b->samples, sizeof *b->buffers))) return nb_fail_memory(err, bytes);
  nibble_status status = b->is_spilled ? create_file(b, err) : NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < (b->is_spilled ? 1 : b->samples); i++)
    status = b->backend->buffer_create(b->backend, b->sample_bytes, &b->buffers[i], err);
  return status;
}

void nb_boundary_free(nb_boundary *b) {
  for (int64_t i = 0; b->buffers && i < b->samples; i++) b->backend->buffer_free(b->backend, b->buffers[i]);
  if (b->is_spilled && b->fd >= 0) close(b->fd);
  free(b->buffers);
  free(b->host);
  *b = (nb_boundary){.fd = -1};
}

nb_buffer *nb_boundary_buffer(const nb_boundary *b, int64_t sample) { return b->buffers[b->is_spilled ? 0 : sample]; }

nibble_status nb_boundary_save(const nb_boundary *b, int64_t sample, uint64_t count, nibble_error *err) {
  if (!b->is_spilled) return NIBBLE_OK;
  uint64_t at = (uint64_t)sample * b->sample_bytes;
  nibble_status status = b->backend->download(b->backend, nb_boundary_buffer(b, sample), 0, b->host, count, err);
  for (uint64_t done = 0; status == NIBBLE_OK && done < count;) {
    ssize_t n = pwrite(b->fd, b->host + done, count - done, (off_t)(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return nb_fail_errno(err, "%s: writing activations", b->folder);
    done += (uint64_t)n;
  }
  return status;
}

nibble_status nb_boundary_load(const nb_boundary *b, int64_t sample, uint64_t count, nibble_error *err) {
  if (!b->is_spilled) return NIBBLE_OK;
  uint64_t at = (uint64_t)sample * b->sample_bytes;
  for (uint64_t done = 0; done < count;) {
    ssize_t n = pread(b->fd, b->host + done, count - done, (off_t)(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return nb_fail_errno(err, "%s: reading activations", b->folder);
    done += (uint64_t)n;
  }
  return b->backend->upload(b->backend, nb_boundary_buffer(b, sample), 0, b->host, count, err);
}
