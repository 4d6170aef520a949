#include "convert/sidefiles.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stage.h"
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

static nibble_status copy_file(const char *from, const char *to, nibble_error *err) {
  nb_mapfile map;
  nibble_status status = nb_mapfile_open(from, &map, err);
  if (status != NIBBLE_OK) return status;
  int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) status = nb_fail_errno(err, "%s: cannot create it", to);
  for (uint64_t at = 0, n; status == NIBBLE_OK && at < map.size; at += n) {
    n = map.size - at < COPY_BYTES ? map.size - at : COPY_BYTES;
    status = nb_pwrite_all(fd, to, map.data + at, n, at, err);
    nb_mapfile_release(&map, at, n);
  }
  if (fd >= 0 && close(fd) != 0 && status == NIBBLE_OK) status = nb_fail_errno(err, "%s: cannot write", to);
  nb_mapfile_close(&map);
  return status;
}

static nibble_status copy_folder(const char *from, const char *to, int depth, nibble_error *err);

/* `name` is a name in a folder, so it has no slash. Links are followed: a hub's cache is made of them. */
static nibble_status copy_entry(const char *folder, const char *name, const char *dst, int depth, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  struct stat info;
  char *from = nb_path_join(folder, name), *to = nb_path_join(dst, name);
  if (!from || !to) {
    status = nb_fail_memory(err, strlen(folder));
  } else if (stat(from, &info) != 0) {
    status = NIBBLE_OK; /* a link to nowhere */
  } else if (S_ISDIR(info.st_mode) && depth == 0 && matches(name, wanted_folders)) {
    if (mkdir(to, 0777) != 0)
      status = nb_fail_errno(err, "%s: cannot create it", to);
    else
      status = copy_folder(from, to, depth + 1, err);
  } else if (S_ISREG(info.st_mode) && info.st_size <= MAX_SIDE_FILE) {
    bool copy = depth ? matches(name, wanted_below) : matches(name, wanted) && !matches(name, unwanted);
    if (copy) status = copy_file(from, to, err);
  }
  free(from);
  free(to);
  return status;
}

static nibble_status copy_folder(const char *from, const char *to, int depth, nibble_error *err) {
  DIR *folder = opendir(from);
  if (!folder) return nb_fail_errno(err, "%s", from);
  nibble_status status = NIBBLE_OK;
  for (struct dirent *entry; status == NIBBLE_OK && (entry = readdir(folder));) {
    if (entry->d_name[0] != '.') status = copy_entry(from, entry->d_name, to, depth, err);
  }
  closedir(folder);
  return status;
}

nibble_status nb_sidefiles_copy(const nb_checkpoint *source, const char *dst, const nibble_progress *progress,
                                nibble_error *err) {
  if (source->gguf) return nb_gguf_write_sidefiles(source, dst, progress, err);
  bool has_config = source->config.json && source->config.json->child;
  return source->folder && has_config ? copy_folder(source->folder, dst, 0, err) : NIBBLE_OK;
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

nibble_status nb_config_save(const nb_config *config, const cJSON *changes, const char *dst, nibble_error *err) {
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
