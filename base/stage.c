#include "base/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/mapguard.h"
#include "base/stop.h"
#include "base/str.h"

static const char marker[] = ".nibble-stage", output[] = "output";

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

/* ---- what stands at DST ----------------------------------------------------------------------------------------- */

typedef struct contents {
  bool any, config, weights;
} contents;

static int look_at_name(void *ctx, int folder, const char *name) {
  static const char *const weights[] = {".safetensors", ".bin", ".gguf"};
  contents *c = ctx;
  struct stat info;
  c->any = true;
  if (fstatat(folder, name, &info, 0) != 0 || !S_ISREG(info.st_mode)) return 0;
  c->config = c->config || strcmp(name, "config.json") == 0 || strcmp(name, "nibble.json") == 0;
  for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
    c->weights = c->weights || nb_ends_with(name, weights[i]);
  return 0;
}

static nibble_status check_older_folder(const nb_stage *s, int fd, nibble_error *err) {
  contents c = {0};
  if (nb_folder_list(fd, look_at_name, &c) != 0) return nb_fail_errno(err, "%s", s->final_path);
  if (!c.any) return NIBBLE_OK;
  if (!s->replace.force) return nb_fail(err, NIBBLE_USAGE, "%s exists already; --force replaces it", s->final_path);
  if (!c.config || !c.weights)
    return nb_fail(err, NIBBLE_USAGE, "%s holds no model (config.json or nibble.json, and weights): it is not replaced",
                   s->final_path);
  /* Taking it out of its folder changes its "..", for which it must be writable; better said now than at the end. */
  if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
    return nb_fail_errno(err, "%s: cannot replace it", s->final_path);
  return NIBBLE_OK;
}

static nibble_status check_older_file(const nb_stage *s, int fd, nibble_error *err) {
  enum { LOOK = 1 << 16 };
  if (s->replace.force) return NIBBLE_OK;
  char *text = s->replace.is_ours ? calloc(1, LOOK + 1) : NULL;
  if (s->replace.is_ours && !text) return nb_fail_memory(err, LOOK + 1);
  bool ours = text && pread(fd, text, LOOK, 0) >= 0 && s->replace.is_ours(text);
  free(text);
  if (ours) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_USAGE, "%s exists already%s; --force replaces it", s->final_path,
                 s->replace.is_ours ? ", and nibble did not write it" : "");
}

/* Fills s->older, and refuses what is not to be replaced. */
static nibble_status look_at_older(nb_stage *s, nibble_error *err) {
  const char *what = s->is_file ? "file" : "folder";
  struct stat info;
  s->older = (nb_older){0};
  if (fstatat(s->parent, s->name, &info, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT ? NIBBLE_OK : nb_fail_errno(err, "%s", s->final_path);
  bool fits = s->is_file ? S_ISREG(info.st_mode) : S_ISDIR(info.st_mode);
  if (!fits)
    return nb_fail(err, NIBBLE_USAGE, "%s is there and is not a %s: no %s replaces it", s->final_path, what, what);
  bool read = !s->is_file || (s->replace.is_ours && !s->replace.force);
  int fd = read ? openat(s->parent, s->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
  if (read && (fd < 0 || fstat(fd, &info) != 0)) {
    nibble_status status = nb_fail_errno(err, "%s: cannot look at what is there", s->final_path);
    if (fd >= 0) close(fd);
    return status;
  }
  s->older = (nb_older){true, info.st_dev, info.st_ino, info.st_mode};
  nibble_status status = s->is_file ? check_older_file(s, fd, err) : check_older_folder(s, fd, err);
  if (fd >= 0) close(fd);
  return status;
}

/* ---- beginning -------------------------------------------------------------------------------------------------- */

static void stage_free(nb_stage *s) {
  if (!s->final_path) return;
  if (s->fd >= 0) close(s->fd);
  if (s->parent >= 0) close(s->parent);
  if (s->partial >= 0) close(s->partial);
  free(s->final_path);
  free(s->path);
  *s = (nb_stage){0};
}

static nibble_status open_parent(nb_stage *s, const char *dst, const nb_replace *replace, nibble_error *err) {
  size_t n = strlen(dst);
  *s = (nb_stage){.fd = -1, .parent = -1, .partial = -1, .is_file = s->is_file, .replace = *replace};
  while (n > 1 && dst[n - 1] == '/') n--;
  if (n == 0) return nb_fail(err, NIBBLE_USAGE, "the output's name is empty");
  s->final_path = strndup(dst, n);
  s->path = s->final_path ? malloc(n + sizeof ".partial/output") : NULL;
  if (!s->path) return nb_fail_memory(err, n);
  sprintf(s->path, "%s.partial/%s", s->final_path, output);
  char *slash = strrchr(s->final_path, '/');
  s->name = slash ? slash + 1 : s->final_path;
  if (!*s->name || strcmp(s->name, ".") == 0 || strcmp(s->name, "..") == 0)
    return nb_fail(err, NIBBLE_USAGE, "%s: an output needs a name of its own", s->final_path);
  char first = *s->name; /* for a moment the path ends before the name */
  if (slash) s->final_path[s->name - s->final_path] = 0;
  s->parent = open(slash ? s->final_path : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  s->final_path[s->name - s->final_path] = first;
  return s->parent >= 0 ? NIBBLE_OK : nb_fail_errno(err, "%s.partial", s->final_path);
}

/* Of an output that cannot be removed: out of the way of this run and of all later ones. */
static bool move_aside(const nb_stage *s) {
  char name[NAME_MAX + 1];
  for (int i = 1; i < 100; i++) {
    int n = i == 1 ? snprintf(name, sizeof name, "%s.older", s->name)
                   : snprintf(name, sizeof name, "%s.older-%d", s->name, i);
    if (n >= (int)sizeof name) return false;
    if (renameat2(s->partial, output, s->parent, name, RENAME_NOREPLACE) == 0) {
      nb_warn(s->replace.progress, "%s: an older output cannot be removed; what is left of it is '%s' now, beside it",
              s->final_path, name);
      return true;
    }
    if (errno != EEXIST) return false;
  }
  return false;
}

/* True for what is not a stage's, marker or not. */
static int is_foreign(void *ctx, int folder, const char *name) {
  (void)ctx, (void)folder;
  return strcmp(name, marker) != 0 && strcmp(name, output) != 0;
}

/* Removes what a killed run left in DST.partial, and nothing else. */
static nibble_status empty(nb_stage *s, const char *path, nibble_error *err) {
  if (nb_folder_list(s->partial, is_foreign, NULL) != 0) {
    close(s->partial);
    s->partial = -1; /* nb_stage_abort is to leave it alone */
    return nb_fail(err, NIBBLE_USAGE, "%s: it is in the way, and not all in it is nibble's; move or remove it", path);
  }
  if (nb_folder_remove(s->partial, output) == 0) return NIBBLE_OK;
  int error = errno;
  if (move_aside(s)) return NIBBLE_OK;
  errno = error;
  return nb_fail_errno(err, "%s: cannot empty it", path);
}

static nibble_status claim(nb_stage *s, nibble_error *err) {
  char name[NAME_MAX + 1];
  if (snprintf(name, sizeof name, "%s.partial", s->name) >= (int)sizeof name)
    return nb_fail(err, NIBBLE_USAGE, "%s: its name is too long for '.partial' to be put after it", s->final_path);
  char *slash = strrchr(s->path, '/');
  *slash = 0; /* for a moment the path of the folder */
  nibble_status status = nb_folder_claim(s->parent, name, s->path, marker, &s->partial, err);
  if (status == NIBBLE_OK) status = empty(s, s->path, err);
  nb_folder partial = {s->partial, s->path};
  if (status == NIBBLE_OK)
    status =
        s->is_file ? nb_folder_create(&partial, output, &s->fd, err) : nb_folder_make(&partial, output, &s->fd, err);
  *slash = '/';
  return status;
}

static nibble_status begin(nb_stage *s, const char *dst, const nb_replace *replace, nibble_error *err) {
  nibble_status status = open_parent(s, dst, replace, err);
  if (status == NIBBLE_OK) status = look_at_older(s, err);
  if (status == NIBBLE_OK) status = claim(s, err);
  if (status == NIBBLE_OK) {
    s->folder = (nb_folder){s->fd, s->path};
  } else {
    nb_stage_abort(s, status, err);
  }
  return status;
}

nibble_status nb_stage_begin(nb_stage *s, const char *dst, const nb_replace *replace, nibble_error *err) {
  s->is_file = false;
  return begin(s, dst, replace, err);
}

nibble_status nb_stage_begin_file(nb_stage *s, const char *dst, const nb_replace *replace, nibble_error *err) {
  s->is_file = true;
  return begin(s, dst, replace, err);
}

nibble_status nb_stage_check_file(const char *dst, const nb_replace *replace, nibble_error *err) {
  nb_stage s = {.is_file = true};
  nibble_status status = open_parent(&s, dst, replace, err);
  if (status == NIBBLE_OK) status = look_at_older(&s, err);
  stage_free(&s);
  return status;
}

/* ---- ending ----------------------------------------------------------------------------------------------------- */

static bool exchange(const nb_stage *s) {
  return renameat2(s->partial, output, s->parent, s->name, RENAME_EXCHANGE) == 0;
}

/* What came out of the exchange must be what was looked at; an empty folder that needed no --force must be empty yet.
 */
static bool is_what_was_seen(const nb_stage *s) {
  struct stat info;
  if (fstatat(s->partial, output, &info, AT_SYMLINK_NOFOLLOW) != 0) return false;
  if (info.st_dev != s->older.device || info.st_ino != s->older.inode) return false;
  return s->is_file || s->replace.force || unlinkat(s->partial, output, AT_REMOVEDIR) == 0;
}

static nibble_status put_in_place(nb_stage *s, nibble_error *err) {
  nibble_status status = look_at_older(s, err); /* again: it may have taken hours */
  if (status != NIBBLE_OK) return status;
  if (!s->older.is_there) {
    if (renameat2(s->partial, output, s->parent, s->name, RENAME_NOREPLACE) == 0) return NIBBLE_OK;
    return nb_fail_errno(err, "%s: cannot put the output there", s->final_path);
  }
  mode_t kept = s->is_file ? 0777 : S_ISGID | S_ISVTX | 0777;
  if (fchmod(s->fd, s->older.mode & kept) != 0) return nb_fail_errno(err, "%s: cannot set its mode", s->path);
  if (!exchange(s)) return nb_fail_errno(err, "%s: cannot put the output there", s->final_path);
  if (is_what_was_seen(s)) return NIBBLE_OK;
  exchange(s);
  return nb_fail(err, NIBBLE_USAGE, "%s: it changed while the output was made", s->final_path);
}

static nibble_status sync_parent(const nb_stage *s, nibble_error *err) {
  int fd = openat(s->parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool ok = fd >= 0 && fsync(fd) == 0;
  nibble_status status = ok ? NIBBLE_OK : nb_fail_errno(err, "%s: cannot sync its folder", s->final_path);
  if (fd >= 0) close(fd);
  return status;
}

/* Removes DST.partial with the output, or the older one, in it. The marker stays while anything does, so that the next
 * run knows what it finds. */
static void discard(nb_stage *s) {
  char name[NAME_MAX + 1];
  if (s->partial < 0) return;
  if (nb_folder_remove(s->partial, output) != 0 && !move_aside(s)) return;
  snprintf(name, sizeof name, "%s.partial", s->name);
  unlinkat(s->partial, marker, 0);
  unlinkat(s->parent, name, AT_REMOVEDIR);
}

nibble_status nb_stage_commit(nb_stage *s, bool sync, nibble_error *err) {
  nibble_status status = nb_mapguard_check(err);
  if (status != NIBBLE_OK) goto done;
  nb_mapguard_settle();
  if (sync && nb_folder_sync(s->partial, output) != 0 && !nb_stop_asked()) {
    status = nb_fail_errno(err, "%s: cannot sync it", s->path);
    goto done;
  }
  if ((status = nb_stop_check(err)) != NIBBLE_OK) goto done;
  status = put_in_place(s, err);
  if (status == NIBBLE_OK && sync) status = sync_parent(s, err);
done:
  nb_stage_abort(s, status, err);
  return status;
}

nibble_status nb_stage_write_file(const char *dst, const nb_replace *replace, const nb_buf *text, bool sync,
                                  nibble_error *err) {
  if (text->failed) return nb_fail_memory(err, text->length);
  nb_stage stage;
  nibble_status status = nb_stage_begin_file(&stage, dst, replace, err);
  if (status != NIBBLE_OK) return status;
  status = nb_pwrite_all(stage.fd, stage.path, text->data, text->length, 0, err);
  if (status == NIBBLE_OK) return nb_stage_commit(&stage, sync, err);
  nb_stage_abort(&stage, status, err);
  return status;
}

void nb_stage_abort(nb_stage *s, nibble_status status, nibble_error *err) {
  if (!s->final_path) return;
  discard(s);
  if (status == NIBBLE_STOPPED)
    nb_fail(err, status,
            s->older.is_there ? "%s: stopped; what was there stays as it was" : "%s: stopped; nothing of it is left",
            s->final_path);
  stage_free(s);
}

/* ---- inputs ----------------------------------------------------------------------------------------------------- */

/* True if the file `info` is that of `path`, or a folder that it lies in. Cuts the path, an absolute one, up. */
static bool is_above(const struct stat *info, char *path) {
  struct stat above;
  for (char *slash = path + strlen(path); slash; slash = strrchr(path, '/')) {
    *slash = 0; /* the path itself, then each folder that it is in; "" is "/" */
    if (stat(*path ? path : "/", &above) == 0 && above.st_dev == info->st_dev && above.st_ino == info->st_ino)
      return true;
  }
  return false;
}

nibble_status nb_stage_spare(const char *dst, const char *input, nibble_error *err) {
  struct stat info;
  if (stat(dst, &info) != 0) return NIBBLE_OK; /* there is nothing to replace */
  const char *slash = strrchr(input, '/');
  char *folder = slash ? strndup(input, (size_t)(slash - input) + 1) : strdup(".");
  const char *names[] = {input, folder}; /* where it is, and where the link is that leads there */
  nibble_status status = folder ? NIBBLE_OK : nb_fail_memory(err, strlen(input));
  for (int i = 0; status == NIBBLE_OK && i < 2; i++) {
    char *path = realpath(names[i], NULL);
    if (!path && errno == ENOMEM) {
      status = nb_fail_memory(err, PATH_MAX);
    } else if (path && is_above(&info, path)) {
      status = nb_fail(err, NIBBLE_USAGE, "%s: the output would replace the source, %s", dst, input);
    }
    free(path);
  }
  free(folder);
  return status;
}

nibble_status nb_fail_input(const char *path, nibble_error *err) {
  switch (errno) {
    case ENOENT:
    case ENOTDIR: return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no such file or folder", path);
    case ENXIO: return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a regular file", path); /* a socket */
    case ELOOP: return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a link that leads to itself", path);
    case ENAMETOOLONG: return nb_fail(err, NIBBLE_BAD_INPUT, "%.64s…: a name too long for a file", path);
    default: return nb_fail_errno(err, "%s", path);
  }
}

nibble_status nb_open_input(const char *path, int *fd, nibble_error *err) {
  *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* nobody waits for the other end of a FIFO */
  if (*fd >= 0) return NIBBLE_OK;
  return nb_fail_input(path, err);
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
  if (!(data = nb_alloc_table(size + 1, 1))) {
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
