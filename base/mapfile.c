#include "base/mapfile.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/mapguard.h"
#include "base/stage.h"

nibble_status nb_mapfile_open_fd(int fd, const char *path, nb_mapfile *out, nibble_error *err) {
  struct stat info;
  *out = (nb_mapfile){0};
  if (fstat(fd, &info) != 0) return nb_fail_errno(err, "%s", path);
  if (!S_ISREG(info.st_mode)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a regular file", path);
  if (info.st_size == 0) return NIBBLE_OK;
  void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return nb_fail_errno(err, "%s: cannot map it", path);
  *out = (nb_mapfile){.data = data, .size = (uint64_t)info.st_size};
  nb_mapguard_add(data, out->size, path, &info);
  return NIBBLE_OK;
}

nibble_status nb_mapfile_open(const char *path, nb_mapfile *out, nibble_error *err) {
  int fd;
  *out = (nb_mapfile){0};
  nibble_status status = nb_open_input(path, &fd, err);
  if (status != NIBBLE_OK) return status;
  status = nb_mapfile_open_fd(fd, path, out, err);
  close(fd);
  return status;
}

void nb_mapfile_close(nb_mapfile *map) {
  if (map->data) nb_mapguard_remove(map->data);
  if (map->data) munmap((void *)(uintptr_t)map->data, (size_t)map->size);
  *map = (nb_mapfile){0};
}

/* A touch maps the pages around it too where they are cached (fault_around_bytes, 64 KiB), so giving back only what was
 * read would leave a few pages behind at each end, and over a large file they add up. */
void nb_mapfile_release(const nb_mapfile *map, uint64_t offset, uint64_t length) {
  const uint64_t around = 65536;
  if (length == 0 || !nb_range_inside(offset, length, map->size)) return;
  uint64_t begin = offset / around * around, end = (offset + length + around - 1) / around * around;
  if (end > map->size) end = map->size;
  madvise((void *)(uintptr_t)(map->data + begin), (size_t)(end - begin), MADV_DONTNEED);
}
