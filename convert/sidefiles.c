#include "convert/sidefiles.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stage.h"
#include "base/stop.h"
#include "convert/gguf.h"
#include "model/json_text.h"

static const char *const wanted[] = {"*.json", "*.jsonl",  "*.txt",   "*.model",  "*.jinja",    "*.md",
                                     "*.py",   "LICENSE*", "NOTICE*", "LICENCE*", "*.tiktoken", NULL};
static const char *const unwanted[] = {"config.json", "nibble.json", "*.index.json", ".*", NULL};

/* The parts of a sentence-transformers model (1_Pooling), and where transformers keeps further chat templates. */
static const char *const wanted_folders[] = {"[0-9]_*", "[0-9][0-9]_*", "additional_chat_templates", NULL};
static const char *const wanted_below[] = {"*.json", "*.txt", "*.jinja", NULL};

/* Of one side file; the largest tokenizers have 50 MB. Something larger is no side file, whatever its name. */
enum { MAX_SIDE_FILE = 256 << 20, COPY_BYTES = 1 << 20 };

static bool matches(const char *name, const char *const *patterns) {
  for (; *patterns; patterns++) {
    if (fnmatch(*patterns, name, 0) == 0) return true;
  }
  return false;
}

bool nb_sidefiles_have(const char *name) {
  return (matches(name, wanted) && strcmp(name, "nibble.json") != 0) || matches(name, wanted_folders);
}

/* A model's folder, the one in the output that its side files go to, and how far links are followed. */
typedef struct copying {
  char *roots[2]; /* where a link may lead: real paths with a slash at the end; NULL: there is no such place */
  const nibble_progress *progress;
} copying;

/* One folder on both sides. */
typedef struct level {
  nb_folder from, to;
  bool is_top;
} level;

typedef struct entry_copy {
  copying *copying;
  const level *level;
  nibble_status status;
  nibble_error *err;
} entry_copy;

/* A hub's cache has snapshots/REVISION/file -> ../../blobs/HASH. */
static nibble_status find_roots(const char *folder, copying *out, nibble_error *err) {
  static const char snapshots[] = "/snapshots/";
  char *real = realpath(folder, NULL);
  if (!real) return nb_fail_errno(err, "%s", folder);
  nb_buf inside = {0}, blobs = {0};
  nb_buf_printf(&inside, "%s/", real);
  char *slash = strrchr(real, '/');
  char *at = slash && slash > real ? memrchr(real, '/', (size_t)(slash - real)) : NULL;
  if (at && strncmp(at, snapshots, sizeof snapshots - 1) == 0)
    nb_buf_printf(&blobs, "%.*s/blobs/", (int)(at - real), real);
  out->roots[0] = inside.data;
  out->roots[1] = blobs.data;
  free(real);
  return inside.failed || blobs.failed ? nb_fail_memory(err, strlen(folder)) : NIBBLE_OK;
}

/* Whether what is open lies where links may lead. It is the open file that is asked, so no name can change meanwhile.
 */
static bool is_inside(const copying *c, int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return false;
  path[n] = 0;
  for (int i = 0; i < 2; i++) {
    if (c->roots[i] && strncmp(path, c->roots[i], strlen(c->roots[i])) == 0) return true;
  }
  return false;
}

static nibble_status copy_file(const level *l, int from, const char *name, nibble_error *err) {
  nb_mapfile map = {0};
  int fd = -1;
  char *in = nb_path_join(l->from.path, name), *out = nb_path_join(l->to.path, name);
  nibble_status status = in && out ? nb_mapfile_open_fd(from, in, &map, err) : nb_fail_memory(err, strlen(name));
  if (status == NIBBLE_OK) status = nb_folder_create(&l->to, name, &fd, err);
  for (uint64_t at = 0, n; status == NIBBLE_OK && at < map.size; at += n) {
    n = map.size - at < COPY_BYTES ? map.size - at : COPY_BYTES;
    status = nb_pwrite_all(fd, out, map.data + at, n, at, err);
    nb_mapfile_release(&map, at, n);
    if (status == NIBBLE_OK) status = nb_stop_check(err);
  }
  if (fd >= 0 && close(fd) != 0 && status == NIBBLE_OK) status = nb_fail_errno(err, "%s: cannot write", out);
  nb_mapfile_close(&map);
  free(in);
  free(out);
  return status;
}

static nibble_status copy_folder(copying *c, const level *l, nibble_error *err);

static nibble_status copy_below(const entry_copy *e, int from, const char *name) {
  const level *l = e->level;
  level below = {.from.fd = from, .to.fd = -1};
  char *in = nb_path_join(l->from.path, name), *out = nb_path_join(l->to.path, name);
  below.from.path = in, below.to.path = out;
  nibble_status status = in && out ? nb_folder_make(&l->to, name, &below.to.fd, e->err) : nb_fail_memory(e->err, 1);
  if (status == NIBBLE_OK) status = copy_folder(e->copying, &below, e->err);
  if (below.to.fd >= 0) close(below.to.fd);
  free(in);
  free(out);
  return status;
}

static bool is_wanted(const level *l, const char *name, const struct stat *info) {
  if (S_ISDIR(info->st_mode)) return l->is_top && matches(name, wanted_folders);
  if (!S_ISREG(info->st_mode) || info->st_size > MAX_SIDE_FILE) return false;
  return l->is_top ? matches(name, wanted) && !matches(name, unwanted) : matches(name, wanted_below);
}

/* `name` is a name in a folder, so it has no slash. Links are followed as far as they stay inside. */
static int copy_entry(void *ctx, int folder, const char *name) {
  entry_copy *e = ctx;
  const level *l = e->level;
  struct stat info, named;
  if (name[0] == '.' || fstatat(folder, name, &info, 0) != 0 || !is_wanted(l, name, &info)) return 0;
  int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  bool looked = fd >= 0 && fstat(fd, &info) == 0 && fstatat(folder, name, &named, AT_SYMLINK_NOFOLLOW) == 0;
  bool is_link = looked && (named.st_ino != info.st_ino || named.st_dev != info.st_dev);
  if (!looked) {
    e->status = nb_fail_errno(e->err, "%s/%s", l->from.path, name);
  } else if (is_link && !is_inside(e->copying, fd)) {
    nb_warn(e->copying->progress, "%s/%s: a link to outside of the model: it is left out", l->from.path, name);
  } else if (is_wanted(l, name, &info)) {
    e->status = S_ISDIR(info.st_mode) ? copy_below(e, fd, name) : copy_file(l, fd, name, e->err);
  }
  if (fd >= 0) close(fd);
  return e->status != NIBBLE_OK;
}

static nibble_status copy_folder(copying *c, const level *l, nibble_error *err) {
  entry_copy e = {.copying = c, .level = l, .err = err};
  if (nb_folder_list(l->from.fd, copy_entry, &e) < 0) return nb_fail_errno(err, "%s", l->from.path);
  return e.status;
}

nibble_status nb_sidefiles_copy(const nb_checkpoint *source, const nb_folder *dst, const nibble_progress *progress,
                                nibble_error *err) {
  if (source->gguf) return nb_gguf_write_sidefiles(source, dst, progress, err);
  if (!source->folder || !source->config.json || !source->config.json->child) return NIBBLE_OK;
  level top = {.from = {.path = source->folder}, .to = *dst, .is_top = true};
  top.from.fd = open(source->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (top.from.fd < 0) return nb_fail_errno(err, "%s", source->folder);
  copying c = {.progress = progress};
  nibble_status status = find_roots(source->folder, &c, err);
  if (status == NIBBLE_OK) status = copy_folder(&c, &top, err);
  free(c.roots[0]);
  free(c.roots[1]);
  close(top.from.fd);
  return status;
}

/* The changes with the dtype under each of the keys that the config has for it. NULL without memory. */
static cJSON *spell_dtype(const nb_config *config, const cJSON *changes) {
  static const char now[] = "dtype", before[] = "torch_dtype";
  cJSON *spelled = changes ? cJSON_Duplicate(changes, true) : cJSON_CreateObject();
  const cJSON *dtype = spelled ? cJSON_GetObjectItemCaseSensitive(spelled, now) : NULL;
  if (!dtype || !cJSON_GetObjectItemCaseSensitive(config->json, before)) return spelled;
  cJSON *copy = cJSON_Duplicate(dtype, true);
  if (!copy || !cJSON_AddItemToObject(spelled, before, copy)) {
    cJSON_Delete(copy);
    cJSON_Delete(spelled);
    return NULL;
  }
  if (!cJSON_GetObjectItemCaseSensitive(config->json, now)) cJSON_DeleteItemFromObjectCaseSensitive(spelled, now);
  return spelled;
}

nibble_status nb_config_save(const nb_config *config, const cJSON *changes, const nb_folder *dst, nibble_error *err) {
  if (!config->text || !config->json->child) return NIBBLE_OK;
  nb_buf text = {0};
  cJSON *spelled = spell_dtype(config, changes);
  nibble_status status = spelled ? NIBBLE_OK : nb_fail_memory(err, sizeof *spelled);
  if (status == NIBBLE_OK)
    status = nb_json_text_change("config.json", config->text, strlen(config->text), spelled, &text, err);
  if (status == NIBBLE_OK) status = nb_write_file_in(dst, "config.json", &text, err);
  nb_buf_free(&text);
  cJSON_Delete(spelled);
  return status;
}
