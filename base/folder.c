#include "base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stage.h"
#include "base/stop.h"

enum { MAX_DEPTH = 64 }; /* of folders in each other; each costs a descriptor and a buffer while it is walked */

/* ---- making ----------------------------------------------------------------------------------------------------- */

nibble_status nb_folder_create(const nb_folder *folder, const char *name, int *fd, nibble_error *err) {
  *fd = openat(folder->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  return *fd >= 0 ? NIBBLE_OK : nb_fail_errno(err, "%s/%s: cannot create it", folder->path, name);
}

nibble_status nb_folder_write(const nb_folder *folder, const char *name, const void *bytes, size_t n,
                              nibble_error *err) {
  int fd = -1;
  if (unlinkat(folder->fd, name, 0) != 0 && errno != ENOENT)
    return nb_fail_errno(err, "%s/%s: cannot replace it", folder->path, name);
  char *path = nb_path_join(folder->path, name);
  nibble_status status = path ? nb_folder_create(folder, name, &fd, err) : nb_fail_memory(err, strlen(name));
  if (status == NIBBLE_OK) {
    status = nb_pwrite_all(fd, path, bytes, n, 0, err);
    if (close(fd) != 0 && status == NIBBLE_OK) status = nb_fail_errno(err, "%s: cannot write", path);
  }
  free(path);
  return status;
}

nibble_status nb_write_file_in(const nb_folder *folder, const char *name, const nb_buf *text, nibble_error *err) {
  if (text->failed) return nb_fail_memory(err, text->length);
  return nb_folder_write(folder, name, text->data, text->length, err);
}

nibble_status nb_folder_make(const nb_folder *folder, const char *name, int *fd, nibble_error *err) {
  *fd = -1;
  if (mkdirat(folder->fd, name, 0777) == 0)
    *fd = openat(folder->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return *fd >= 0 ? NIBBLE_OK : nb_fail_errno(err, "%s/%s: cannot create it", folder->path, name);
}

/* ---- claiming --------------------------------------------------------------------------------------------------- */

static int first_name(void *ctx, int folder, const char *name) {
  (void)folder;
  snprintf(ctx, NAME_MAX + 1, "%s", name);
  return 1;
}

static bool bears(int fd, const char *marker) {
  struct stat info;
  return fstatat(fd, marker, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid();
}

/* Whether an open folder may be used as our own, and the marker put into it. `made`: by us, just now. */
static nibble_status mark(int fd, const char *path, const char *marker, bool made, nibble_error *err) {
  struct stat info;
  if (fstat(fd, &info) != 0) return nb_fail_errno(err, "%s", path);
  if (info.st_uid != geteuid())
    return nb_fail(err, NIBBLE_USAGE, "%s: it is in the way and belongs to another user", path);
  bool is_open = !made && (info.st_mode & (S_IWGRP | S_IWOTH));
  if (bears(fd, marker))
    return is_open ? nb_fail(err, NIBBLE_USAGE, "%s: it is in the way, and others may write in it", path) : NIBBLE_OK;
  /* Nobody else can put anything in it once its mode says so: only then is it known to stay empty. */
  for (int look = 0; look < 2; look++) {
    char name[NAME_MAX + 1];
    int found = nb_folder_list(fd, first_name, name);
    if (found < 0) return nb_fail_errno(err, "%s", path);
    if (found > 0)
      return nb_fail(err, NIBBLE_USAGE, "%s: it is in the way: nibble did not make it, and '%s' is in it", path, name);
    if (!is_open) break;
    if (fchmod(fd, info.st_mode & 0755) != 0) return nb_fail_errno(err, "%s", path);
  }
  int file = openat(fd, marker, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) return nb_fail_errno(err, "%s: cannot write in it", path);
  close(file);
  return NIBBLE_OK;
}

/* A process that is done removes its folder under its lock, so what we locked may no longer be what the name means:
 * then *again. */
static nibble_status lock(int fd, int parent, const char *name, const char *path, bool *again, nibble_error *err) {
  struct stat ours, named;
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) return nb_fail(err, NIBBLE_SYSTEM, "%s: another run is writing it", path);
  if (fstat(fd, &ours) != 0) return nb_fail_errno(err, "%s", path);
  *again = fstatat(parent, name, &named, AT_SYMLINK_NOFOLLOW) != 0 || named.st_ino != ours.st_ino ||
           named.st_dev != ours.st_dev;
  return NIBBLE_OK;
}

nibble_status nb_folder_claim(int parent, const char *name, const char *path, const char *marker, int *fd,
                              nibble_error *err) {
  for (;;) {
    bool made = mkdirat(parent, name, 0700) == 0, again = false;
    if (!made && errno != EEXIST) return nb_fail_errno(err, "%s", path);
    *fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT) continue;
    if (*fd < 0 && (errno == ENOTDIR || errno == ELOOP))
      return nb_fail(err, NIBBLE_USAGE, "%s: it is in the way, and no folder; move or remove it", path);
    if (*fd < 0) return nb_fail_errno(err, "%s", path);
    nibble_status status = lock(*fd, parent, name, path, &again, err);
    if (status == NIBBLE_OK && !again) {
      status = mark(*fd, path, marker, made, err);
      if (status == NIBBLE_OK) return NIBBLE_OK;
      if (made) unlinkat(parent, name, AT_REMOVEDIR); /* a full disk has no room for the marker */
    }
    close(*fd);
    *fd = -1;
    if (status != NIBBLE_OK) return status;
  }
}

/* ---- walking ---------------------------------------------------------------------------------------------------- */

int nb_folder_list(int fd, int (*visit)(void *ctx, int folder, const char *name), void *ctx) {
  _Alignas(struct dirent64) char buffer[4096];
  if (lseek(fd, 0, SEEK_SET) < 0) return -1;
  for (ssize_t n; (n = getdents64(fd, buffer, sizeof buffer)) != 0;) {
    if (n < 0) return -1;
    for (ssize_t at = 0; at < n;) {
      const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);
      at += entry->d_reclen;
      if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
      int result = visit(ctx, fd, entry->d_name);
      if (result != 0) return result;
    }
  }
  return 0;
}

/* What is done with a file or folder `name` in the folder `parent`, once with all that is in it. */
typedef int (*visit_fn)(int parent, const char *name, bool is_folder);

typedef struct walk {
  visit_fn visit;
  int depth;
} walk;

/* Visits everything below `name`, folders after what is in them; the first failure ends it. */
static int walk_one(void *ctx, int parent, const char *name) {
  walk *w = ctx;
  struct stat info;
  if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? 0 : -1;
  if (!S_ISDIR(info.st_mode)) return w->visit(parent, name, false);
  if (w->depth == MAX_DEPTH) {
    errno = ELOOP;
    return -1;
  }
  int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return -1;
  w->depth++;
  int result = nb_folder_list(folder, walk_one, w), error = errno;
  w->depth--;
  close(folder);
  errno = error;
  return result == 0 ? w->visit(parent, name, true) : result;
}

static int remove_one(int parent, const char *name, bool is_folder) {
  return unlinkat(parent, name, is_folder ? AT_REMOVEDIR : 0);
}

/* Nothing interrupts fsync, which takes minutes for a large file: the disk gets its bytes piece by piece before. Where
 * a file system cannot do that, fsync does it all. */
static int sync_pieces(int fd) {
  enum { PIECE = 64 << 20 };
  const unsigned how = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  struct stat info;
  if (fstat(fd, &info) != 0) return -1;
  for (off_t at = 0; at < info.st_size; at += PIECE) {
    if (nb_stop_asked()) {
      errno = ECANCELED;
      return -1;
    }
    if (sync_file_range(fd, at, PIECE, how) == 0) continue;
    return errno == ENOSYS || errno == EINVAL || errno == ESPIPE ? 0 : -1;
  }
  return 0;
}

static int sync_one(int parent, const char *name, bool is_folder) {
  int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (is_folder ? O_DIRECTORY : 0));
  if (fd < 0) return -1;
  int result = is_folder ? 0 : sync_pieces(fd);
  if (result == 0) result = fsync(fd);
  int error = errno;
  close(fd);
  errno = error;
  return result;
}

int nb_folder_remove(int parent, const char *name) {
  walk w = {.visit = remove_one};
  return walk_one(&w, parent, name);
}

int nb_folder_sync(int parent, const char *name) {
  walk w = {.visit = sync_one};
  return walk_one(&w, parent, name);
}
