#include "base/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mapguard.h"

enum { MAX_DEPTH = 8 }; /* of folders below an output: ours have one level, so deeper ones are not ours to remove */

char *nb_path_join(const char *folder, const char *name) {
  size_t n = strlen(folder) + strlen(name) + 2;
  char *path = malloc(n);
  if (path) snprintf(path, n, "%s/%s", folder, name);
  return path;
}

char *nb_path_name(const char *path) {
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  return strndup(path + begin, end - begin);
}

/* What is done with a file or folder `name` in the folder `parent`, once with all that is in it. */
typedef int (*visit_fn)(int parent, const char *name, bool is_folder);

static int walk(int parent, const char *name, int depth, visit_fn visit);

/* Allocates nothing, as opendir does: an output must go when memory has run out, too. */
static int walk_inside(int folder, int depth, visit_fn visit) {
  _Alignas(struct dirent64) char buffer[4096];
  for (ssize_t n; (n = getdents64(folder, buffer, sizeof buffer)) != 0;) {
    if (n < 0) return -1;
    for (ssize_t at = 0; at < n;) {
      const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);
      at += entry->d_reclen;
      if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
      if (walk(folder, entry->d_name, depth, visit) != 0) return -1;
    }
  }
  return 0;
}

/* Visits everything below `name`, folders after what is in them; the first failure ends it. */
static int walk(int parent, const char *name, int depth, visit_fn visit) {
  struct stat info;
  if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? 0 : -1;
  if (!S_ISDIR(info.st_mode)) return visit(parent, name, false);
  if (depth == MAX_DEPTH) return -1;
  int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return -1;
  int result = walk_inside(folder, depth + 1, visit);
  close(folder);
  return result == 0 ? visit(parent, name, true) : result;
}

static int remove_one(int parent, const char *name, bool is_folder) {
  return unlinkat(parent, name, is_folder ? AT_REMOVEDIR : 0);
}

static int sync_one(int parent, const char *name, bool is_folder) {
  int fd = openat(parent, name, O_RDONLY | O_CLOEXEC | (is_folder ? O_DIRECTORY : 0));
  if (fd < 0) return -1;
  int result = fsync(fd);
  close(fd);
  return result;
}

static void stage_free(nb_stage *stage) {
  if (stage->lock > 0) close(stage->lock);
  free(stage->final_path);
  free(stage->path);
  *stage = (nb_stage){0};
}

/* Takes the lock on stage->path, which was just made or found. A process that commits or aborts renames or removes
 * the path under its lock, so what we locked may no longer be what the path names: then start over. */
static nibble_status take_lock(nb_stage *stage, bool *again, nibble_error *err) {
  *again = false;
  int flags = stage->is_file ? O_RDWR | O_CREAT : O_RDONLY | O_DIRECTORY;
  stage->lock = open(stage->path, flags | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (stage->lock < 0) {
    if (errno == ENOENT && !stage->is_file) { /* a file would be made: it is its folder that is missing */
      *again = true;
      return NIBBLE_OK;
    }
    return nb_fail_errno(err, "%s", stage->path);
  }
  if (flock(stage->lock, LOCK_EX | LOCK_NB) != 0)
    return nb_fail(err, NIBBLE_SYSTEM, "%s: another run is writing it", stage->path);
  struct stat ours, named;
  if (fstat(stage->lock, &ours) != 0) return nb_fail_errno(err, "%s", stage->path);
  if (lstat(stage->path, &named) != 0 || named.st_ino != ours.st_ino || named.st_dev != ours.st_dev) {
    close(stage->lock);
    stage->lock = -1;
    *again = true;
  }
  return NIBBLE_OK;
}

static nibble_status begin(nb_stage *stage, const char *dst, bool force, bool is_file, nibble_error *err) {
  *stage = (nb_stage){.lock = -1, .is_file = is_file, .force = force};
  size_t n = strlen(dst);
  while (n > 1 && dst[n - 1] == '/') n--;
  if (n == 0) return nb_fail(err, NIBBLE_USAGE, "the output's name is empty");
  size_t room = n + sizeof ".partial";
  stage->final_path = strndup(dst, n);
  stage->path = malloc(room);
  nibble_status status = NIBBLE_OK;
  if (!stage->final_path || !stage->path) {
    status = nb_fail_memory(err, room);
    goto done;
  }
  snprintf(stage->path, room, "%.*s.partial", (int)n, dst);
  struct stat info;
  if (!force && lstat(stage->final_path, &info) == 0) {
    status = nb_fail(err, NIBBLE_USAGE, "%s exists already; --force replaces it", stage->final_path);
    goto done;
  }
  for (bool again = true; again;) {
    if (!is_file && mkdir(stage->path, 0777) != 0 && errno != EEXIST) {
      status = nb_fail_errno(err, "%s: cannot create it", stage->path);
      goto done;
    }
    if ((status = take_lock(stage, &again, err)) != NIBBLE_OK) goto done;
  }
  if (is_file ? ftruncate(stage->lock, 0) != 0 : false) {
    status = nb_fail_errno(err, "%s", stage->path);
  } else if (!is_file && walk_inside(stage->lock, 1, remove_one) != 0) { /* what a killed run left */
    status = nb_fail_errno(err, "%s: cannot empty it", stage->path);
  }
done:
  if (status != NIBBLE_OK) stage_free(stage);
  return status;
}

nibble_status nb_stage_begin(nb_stage *stage, const char *dst, bool force, nibble_error *err) {
  return begin(stage, dst, force, false, err);
}

nibble_status nb_stage_begin_file(nb_stage *stage, const char *dst, bool force, nibble_error *err) {
  return begin(stage, dst, force, true, err);
}

static nibble_status sync_parent(const char *path, nibble_error *err) {
  const char *slash = strrchr(path, '/');
  char *parent = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
  if (!parent) return nb_fail_memory(err, strlen(path));
  int result = sync_one(AT_FDCWD, parent, true);
  nibble_status status = result == 0 ? NIBBLE_OK : nb_fail_errno(err, "%s: cannot sync it", parent);
  free(parent);
  return status;
}

nibble_status nb_stage_commit(nb_stage *stage, bool sync, nibble_error *err) {
  nibble_status status = nb_mapguard_check(err);
  if (status != NIBBLE_OK) goto done;
  nb_mapguard_settle();
  if (sync && walk(AT_FDCWD, stage->path, 0, sync_one) != 0) {
    status = nb_fail_errno(err, "%s: cannot sync it", stage->path);
    goto done;
  }
  if (renameat2(AT_FDCWD, stage->path, AT_FDCWD, stage->final_path, RENAME_NOREPLACE) != 0) {
    bool exchange = stage->force && errno == EEXIST;
    if (!exchange || renameat2(AT_FDCWD, stage->path, AT_FDCWD, stage->final_path, RENAME_EXCHANGE) != 0) {
      status = nb_fail_errno(err, "%s: cannot put the output there", stage->final_path);
      goto done;
    }
    walk(AT_FDCWD, stage->path, 0, remove_one); /* now the older output */
  }
  if (sync) status = sync_parent(stage->final_path, err);
  stage_free(stage);
done:
  if (status != NIBBLE_OK) nb_stage_abort(stage);
  return status;
}

void nb_stage_abort(nb_stage *stage) {
  if (stage->path) walk(AT_FDCWD, stage->path, 0, remove_one);
  stage_free(stage);
}

nibble_status nb_open_input(const char *path, int *fd, nibble_error *err) {
  *fd = open(path, O_RDONLY | O_CLOEXEC);
  if (*fd >= 0) return NIBBLE_OK;
  if (errno == ENOENT || errno == ENOTDIR) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no such file", path);
  return nb_fail_errno(err, "%s", path);
}

nibble_status nb_read_file(const char *path, uint64_t limit, char **out, size_t *length, nibble_error *err) {
  *out = NULL;
  int fd;
  nibble_status status = nb_open_input(path, &fd, err);
  if (status != NIBBLE_OK) return status;
  char *data = NULL;
  struct stat info;
  if (fstat(fd, &info) != 0) {
    status = nb_fail_errno(err, "%s", path);
    goto done;
  }
  if (!S_ISREG(info.st_mode)) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a regular file", path);
    goto done;
  }
  if ((uint64_t)info.st_size > limit) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: %lld bytes, more than the %llu that such a file may have", path,
                     (long long)info.st_size, (unsigned long long)limit);
    goto done;
  }
  size_t size = (size_t)info.st_size, have = 0;
  if (!(data = malloc(size + 1))) {
    status = nb_fail_memory(err, size + 1);
    goto done;
  }
  while (have < size) {
    ssize_t n = read(fd, data + have, size - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      status =
          n < 0 ? nb_fail_errno(err, "%s", path) : nb_fail(err, NIBBLE_BAD_INPUT, "%s: it shrank while read", path);
      goto done;
    }
    have += (size_t)n;
  }
  data[size] = 0;
  if (length) *length = size;
  *out = data;
  data = NULL;
done:
  free(data);
  close(fd);
  return status;
}

/* Of a write that has just set errno. EFAULT: the bytes came straight from a mapped input whose file was cut short. */
static nibble_status fail_write(const char *path, nibble_error *err) {
  int error = errno;
  if (error == EFAULT && nb_mapguard_check(err) != NIBBLE_OK) return NIBBLE_BAD_INPUT;
  errno = error;
  return nb_fail_errno(err, "%s: cannot write", path);
}

nibble_status nb_pwrite_all(int fd, const char *path, const void *bytes, uint64_t n, uint64_t offset,
                            nibble_error *err) {
  const char *at = bytes;
  while (n > 0) {
    ssize_t wrote = pwrite(fd, at, n < (1u << 30) ? (size_t)n : (1u << 30), (off_t)offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return fail_write(path, err);
    at += wrote;
    offset += (uint64_t)wrote;
    n -= (uint64_t)wrote;
  }
  return NIBBLE_OK;
}

nibble_status nb_write_file(const char *path, const void *bytes, size_t n, nibble_error *err) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return nb_fail_errno(err, "%s: cannot create it", path);
  nibble_status status = nb_pwrite_all(fd, path, bytes, n, 0, err);
  if (close(fd) != 0 && status == NIBBLE_OK) status = nb_fail_errno(err, "%s: cannot write", path);
  return status;
}

nibble_status nb_write_file_in(const char *folder, const char *name, const nb_buf *text, nibble_error *err) {
  char *path = text->failed ? NULL : nb_path_join(folder, name);
  nibble_status status = path ? nb_write_file(path, text->data, text->length, err) : nb_fail_memory(err, text->length);
  free(path);
  return status;
}
