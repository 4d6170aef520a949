#include "quant/boundary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/stage.h"

nibble_status nb_boundary_create(nb_boundary *out, int64_t samples, uint64_t sample_bytes, uint64_t max_memory,
                                 const char *folder, nibble_error *err) {
  uint64_t bytes = 0;
  *out = (nb_boundary){.samples = samples, .sample_bytes = sample_bytes, .fd = -1, .folder = folder};
  if (!nb_mul_u64((uint64_t)samples, sample_bytes, &bytes)) return nb_fail_memory(err, SIZE_MAX);
  if (bytes <= max_memory) {
    out->memory = nb_alloc_aligned(bytes, 1);
    return out->memory ? NIBBLE_OK : nb_fail_memory(err, bytes);
  }
  char *path = nb_path_join(folder, "activations-XXXXXX");
  if (!path) return nb_fail_memory(err, strlen(folder));
  out->fd = mkostemp(path, O_CLOEXEC);
  nibble_status status = out->fd < 0 ? nb_fail_errno(err, "%s", path) : NIBBLE_OK;
  if (out->fd >= 0) unlink(path);
  free(path);
  return status;
}

void nb_boundary_free(nb_boundary *boundary) {
  free(boundary->memory);
  if (!boundary->memory && boundary->sample_bytes && boundary->fd >= 0) close(boundary->fd);
  *boundary = (nb_boundary){.fd = -1};
}

void *nb_boundary_view(const nb_boundary *b, int64_t sample) {
  return b->memory ? b->memory + (uint64_t)sample * b->sample_bytes : NULL;
}

nibble_status nb_boundary_put(nb_boundary *b, int64_t sample, const void *bytes, uint64_t count, nibble_error *err) {
  uint64_t at = (uint64_t)sample * b->sample_bytes;
  for (uint64_t done = 0; done < count;) {
    ssize_t n = pwrite(b->fd, (const char *)bytes + done, count - done, (off_t)(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return nb_fail_errno(err, "%s: writing activations", b->folder);
    done += (uint64_t)n;
  }
  return NIBBLE_OK;
}

nibble_status nb_boundary_get(const nb_boundary *b, int64_t sample, void *bytes, uint64_t count, nibble_error *err) {
  uint64_t at = (uint64_t)sample * b->sample_bytes;
  for (uint64_t done = 0; done < count;) {
    ssize_t n = pread(b->fd, (char *)bytes + done, count - done, (off_t)(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return nb_fail_errno(err, "%s: reading activations", b->folder);
    done += (uint64_t)n;
  }
  return NIBBLE_OK;
}
