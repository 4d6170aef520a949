#include "quant/workdir.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/stage.h"
#include "base/str.h"
#include "quant/grid.h"

static const char settings_name[] = "settings.json", layer_suffix[] = ".layer", fresh_suffix[] = ".layer.new",
                  marker[] = ".nibble-work";
static const char magic[8] = "NBLAYER2";

/* The start of a layer's file; the arrays of nb_rounded follow in its order. In the byte order of the machine: the
 * folder does not travel. */
typedef struct layer_header {
  char magic[8];
  uint64_t hash; /* XXH3-64 of everything after this member */
  int64_t rows, cols, groups, mended;
  double error, rtn_error, weight_error, weight_squares, damp;
  int64_t is_fallback, scale_dtype;
} layer_header;

enum { HASHED_FROM = sizeof(char[8]) + sizeof(uint64_t) };

/* True for a name that this file gives. */
static bool is_ours(const char *name) {
  return nb_ends_with(name, layer_suffix) || nb_ends_with(name, fresh_suffix) || strcmp(name, settings_name) == 0 ||
         strcmp(name, marker) == 0 || strncmp(name, "activations-", 12) == 0;
}

typedef struct entries {
  const char *path;
  bool empty; /* whether to remove them, but for the marker */
  nibble_status status;
  nibble_error *err;
} entries;

/* A link, or a file that has another name elsewhere, was put there by somebody else: writing into it would destroy what
 * it is. */
static int look_at(void *ctx, int folder, const char *name) {
  entries *e = ctx;
  struct stat info;
  bool ours = is_ours(name) && fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode) &&
              info.st_nlink == 1;
  if (!ours) {
    e->status = nb_fail(e->err, NIBBLE_USAGE,
                        "%s: '%s' in it is not a calibration's; --work-dir wants a folder of its own", e->path, name);
  } else if (e->empty && strcmp(name, marker) != 0 && unlinkat(folder, name, 0) != 0) {
    e->status = nb_fail_errno(e->err, "%s: %s", e->path, name);
  }
  return e->status != NIBBLE_OK;
}

static nibble_status check_or_empty(const nb_workdir *w, bool empty, nibble_error *err) {
  entries e = {.path = w->path, .empty = empty, .err = err};
  if (nb_folder_list(w->lock, look_at, &e) < 0) return nb_fail_errno(err, "%s", w->path);
  return e.status;
}

/* The message for a setting that one of the two files has otherwise; NULL where it is absent. */
static nibble_status refuse_setting(const char *where, const cJSON *now, const cJSON *then, nibble_error *err) {
  char *shown_now = now ? cJSON_PrintUnformatted(now) : NULL, *shown_then = then ? cJSON_PrintUnformatted(then) : NULL;
  nibble_status status =
      nb_fail(err, NIBBLE_BAD_INPUT, "%s: --resume with another %s: %s now, %s then", where,
              now ? now->string : then->string, shown_now ? shown_now : "none", shown_then ? shown_then : "none");
  cJSON_free(shown_now);
  cJSON_free(shown_then);
  return status;
}

static nibble_status compare_settings(const char *where, const cJSON *then, const cJSON *now, nibble_error *err) {
  const cJSON *item;
  if (!cJSON_IsObject(then)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a JSON object", where);
  cJSON_ArrayForEach(item, now) {
    const cJSON *other = cJSON_GetObjectItemCaseSensitive(then, item->string);
    if (!other || !cJSON_Compare(item, other, true)) return refuse_setting(where, item, other, err);
  }
  cJSON_ArrayForEach(item, then) {
    if (!cJSON_GetObjectItemCaseSensitive(now, item->string)) return refuse_setting(where, NULL, item, err);
  }
  return NIBBLE_OK;
}

/* Whether there is anything that a later run could go on with. */
static bool has_settings(const nb_workdir *w) { return faccessat(w->lock, settings_name, F_OK, 0) == 0; }

static int count_layer(void *ctx, int folder, const char *name) {
  (void)folder;
  *(int64_t *)ctx += nb_ends_with(name, layer_suffix);
  return 0;
}

int64_t nb_workdir_count(const nb_workdir *w) {
  int64_t count = 0;
  if (w->lock >= 0) nb_folder_list(w->lock, count_layer, &count);
  return count;
}

/* Hours of work are not thrown away because an option was forgotten. */
static nibble_status check_loss(const nb_workdir *w, nibble_error *err) {
  long long count = (long long)nb_workdir_count(w);
  bool goes_on = w->rule.resume && has_settings(w);
  if (count == 0 || goes_on) return NIBBLE_OK;
  if (w->rule.force) {
    nb_warn(w->rule.progress, "%s: %lld finished layers of an earlier run are thrown away", w->path, count);
    return NIBBLE_OK;
  }
  if (w->rule.resume)
    return nb_fail(err, NIBBLE_USAGE, "%s: it has %lld finished layers, but no %s; --force throws them away", w->path,
                   count, settings_name);
  return nb_fail(err, NIBBLE_USAGE,
                 "%s: an earlier run has finished %lld layers; --resume goes on from them, --force throws them away",
                 w->path, count);
}

nibble_status nb_workdir_open(const char *path, const nb_workdir_rule *rule, nb_workdir *out, nibble_error *err) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') n--; /* with a slash behind it a link would be followed */
  *out = (nb_workdir){.path = strndup(path, n), .lock = -1, .rule = *rule};
  if (!out->path) return nb_fail_memory(err, n);
  nibble_status status = nb_folder_claim(AT_FDCWD, out->path, out->path, marker, &out->lock, err);
  if (status == NIBBLE_OK) status = check_or_empty(out, false, err);
  if (status == NIBBLE_OK) status = check_loss(out, err);
  if (status != NIBBLE_OK) nb_workdir_close(out, false);
  return status;
}

nibble_status nb_workdir_begin(const nb_workdir *w, const cJSON *settings, nibble_error *err) {
  char *path = nb_path_join(w->path, settings_name);
  if (!path) return nb_fail_memory(err, strlen(w->path));
  nb_folder folder = {w->lock, w->path};
  nibble_status status = NIBBLE_OK;
  if (w->rule.resume && has_settings(w)) {
    cJSON *have;
    status = nb_json_load(path, &have, err);
    if (status == NIBBLE_OK) status = compare_settings(path, have, settings, err);
    cJSON_Delete(have);
  } else {
    status = check_or_empty(w, true, err);
    if (status == NIBBLE_OK) status = nb_json_save_in(&folder, settings_name, settings, err);
  }
  free(path);
  return status;
}

void nb_workdir_close(nb_workdir *w, bool remove) {
  if (!w->path) return;
  if (w->lock >= 0 && (remove || nb_workdir_count(w) == 0) && check_or_empty(w, true, NULL) == NIBBLE_OK) {
    unlinkat(w->lock, marker, 0);
    rmdir(w->path);
  }
  if (w->lock >= 0) close(w->lock);
  free(w->path);
  *w = (nb_workdir){.lock = -1};
}

static char *layer_path(const nb_workdir *w, const char *layer, const char *suffix) {
  nb_buf name = {0};
  nb_buf_printf(&name, "%s/%s%s%s", w->path, layer, layer_suffix, suffix);
  if (!name.failed) return name.data;
  nb_buf_free(&name);
  return NULL;
}

/* The arrays and their bytes, in the order of the file; shapes that nb_alloc has room for. */
static void list_arrays(const nb_rounded *r, void *data[4], size_t bytes[4]) {
  size_t params = (size_t)(r->groups * r->rows);
  data[0] = r->codes, bytes[0] = (size_t)(r->rows * r->cols);
  data[1] = r->scales, bytes[1] = params * sizeof *r->scales;
  data[2] = r->zeros, bytes[2] = params;
  data[3] = r->g_idx, bytes[3] = (size_t)r->cols * sizeof *r->g_idx;
}

static nibble_status write_layer(int fd, const char *path, const nb_rounded *r, nibble_error *err) {
  layer_header header = {.rows = r->rows, .cols = r->cols, .groups = r->groups, .mended = r->mended};
  header.error = r->error;
  header.rtn_error = r->rtn_error;
  header.weight_error = r->weight_error;
  header.weight_squares = r->weight_squares;
  header.damp = r->damp;
  header.is_fallback = r->is_fallback;
  header.scale_dtype = r->scale_dtype;
  memcpy(header.magic, magic, sizeof magic);
  void *data[4];
  size_t bytes[4];
  list_arrays(r, data, bytes);
  XXH3_state_t *hash = XXH3_createState();
  if (!hash) return nb_fail_memory(err, sizeof header);
  XXH3_64bits_reset(hash);
  XXH3_64bits_update(hash, (const char *)&header + HASHED_FROM, sizeof header - HASHED_FROM);
  for (int i = 0; i < 4; i++) XXH3_64bits_update(hash, data[i], bytes[i]);
  header.hash = XXH3_64bits_digest(hash);
  XXH3_freeState(hash);
  uint64_t at = sizeof header;
  nibble_status status = nb_pwrite_all(fd, path, &header, sizeof header, 0, err);
  for (int i = 0; status == NIBBLE_OK && i < 4; i++) {
    status = nb_pwrite_all(fd, path, data[i], bytes[i], at, err);
    at += bytes[i];
  }
  return status;
}

nibble_status nb_workdir_save(const nb_workdir *w, const char *layer, const nb_rounded *rounded, nibble_error *err) {
  nb_folder folder = {w->lock, w->path};
  char *fresh = layer_path(w, layer, ".new"), *path = layer_path(w, layer, "");
  const char *fresh_name = fresh ? fresh + strlen(w->path) + 1 : NULL;
  int fd = -1;
  nibble_status status = fresh && path ? NIBBLE_OK : nb_fail_memory(err, strlen(w->path));
  if (status == NIBBLE_OK) {
    unlinkat(w->lock, fresh_name, 0); /* of a killed run */
    status = nb_folder_create(&folder, fresh_name, &fd, err);
  }
  if (status == NIBBLE_OK) status = write_layer(fd, fresh, rounded, err);
  if (fd >= 0 && close(fd) != 0 && status == NIBBLE_OK) status = nb_fail_errno(err, "%s: cannot write", fresh);
  if (status == NIBBLE_OK && renameat(w->lock, fresh_name, w->lock, path + strlen(w->path) + 1) != 0)
    status = nb_fail_errno(err, "%s", path);
  free(fresh);
  free(path);
  return status;
}

/* ---- reading ------------------------------------------------------------------------------------------------------
 *
 * A layer's file is input as any other: it may have been made by a run of another version, or by somebody else. */

/* True if the header is whole and its file as long as the layer's shape makes it. */
static bool check_header(const layer_header *header, const char *text, size_t length, const nb_layer_shape *shape) {
  if (shape->rows <= 0 || shape->cols <= 0) return false;
  int64_t size = shape->grid->group_size, groups = nb_ceil_div(shape->cols, size > 0 ? size : shape->cols);
  uint64_t codes, params, bytes = sizeof *header;
  if (memcmp(header->magic, magic, sizeof magic) != 0) return false;
  if (header->hash != XXH3_64bits(text + HASHED_FROM, length - HASHED_FROM)) return false;
  if (header->rows != shape->rows || header->cols != shape->cols || header->groups != groups) return false;
  if (header->scale_dtype != (shape->grid->bf16_scales ? NB_BF16 : NB_F16)) return false;
  if (!nb_mul_u64((uint64_t)shape->rows, (uint64_t)shape->cols, &codes) ||
      !nb_mul_u64((uint64_t)shape->rows, (uint64_t)groups, &params) || codes > length || params > length)
    return false;
  bytes += codes + params * (sizeof(uint16_t) + sizeof(uint8_t)) + (uint64_t)shape->cols * sizeof(int32_t);
  return bytes == length;
}

/* True if the figures can be a layer's. Where the Hessian overflows, a layer that was rounded to the nearest has no
 * finite error on the calibration text. */
static bool check_figures(const layer_header *h) {
  bool measured = h->is_fallback || (isfinite(h->error) && isfinite(h->rtn_error));
  return measured && !(h->error < 0) && !(h->rtn_error < 0) && isfinite(h->weight_error) && h->weight_error >= 0 &&
         isfinite(h->weight_squares) && h->weight_squares >= 0 && isfinite(h->damp) && h->damp >= 0 && h->mended >= 0 &&
         h->mended <= h->rows * h->groups && (h->is_fallback == 0 || h->is_fallback == 1);
}

/* True if every scale, code and zero is one of the grid's, and every column in a group. */
static bool check_arrays(const nb_rounded *r, const nb_grid *grid) {
  const int most = (1 << grid->bits) - 1;
  bool ok = true;
  for (int64_t i = 0; i < r->rows * r->cols; i++) ok &= r->codes[i] <= most;
  for (int64_t i = 0; i < r->groups * r->rows; i++) ok &= r->zeros[i] <= most;
  for (int64_t i = 0; i < r->groups * r->rows; i++) ok &= nb_grid_has_scale(grid, r->scales[i]);
  for (int64_t i = 0; i < r->cols; i++) ok &= r->g_idx[i] >= 0 && r->g_idx[i] < r->groups;
  return ok;
}

static nibble_status copy_arrays(const char *text, nb_rounded *out, nibble_error *err) {
  void *data[4];
  size_t bytes[4];
  list_arrays(out, data, bytes);
  out->codes = nb_alloc(bytes[0], 1);
  out->scales = nb_alloc(bytes[1], 1);
  out->zeros = nb_alloc(bytes[2], 1);
  out->g_idx = nb_alloc(bytes[3], 1);
  if (!out->codes || !out->scales || !out->zeros || !out->g_idx) return nb_fail_memory(err, bytes[0]);
  list_arrays(out, data, bytes);
  for (int i = 0; i < 4; text += bytes[i++]) memcpy(data[i], text, bytes[i]);
  return NIBBLE_OK;
}

nibble_status nb_layer_parse(const char *text, size_t length, const nb_layer_shape *shape, nb_rounded *out, bool *found,
                             nibble_error *err) {
  layer_header header;
  *found = false;
  *out = (nb_rounded){0};
  if (length < sizeof header) return NIBBLE_OK;
  memcpy(&header, text, sizeof header);
  if (!check_header(&header, text, length, shape) || !check_figures(&header)) return NIBBLE_OK;
  *out = (nb_rounded){.rows = header.rows,
                      .cols = header.cols,
                      .groups = header.groups,
                      .mended = header.mended,
                      .error = header.error,
                      .rtn_error = header.rtn_error,
                      .weight_error = header.weight_error,
                      .weight_squares = header.weight_squares,
                      .damp = header.damp,
                      .is_fallback = header.is_fallback != 0,
                      .scale_dtype = (nb_dtype)header.scale_dtype};
  nibble_status status = copy_arrays(text + sizeof header, out, err);
  *found = status == NIBBLE_OK && check_arrays(out, shape->grid);
  if (!*found) nb_rounded_free(out);
  return status;
}

nibble_status nb_workdir_load(const nb_workdir *w, const char *layer, const nb_layer_shape *shape, nb_rounded *out,
                              bool *found, nibble_error *err) {
  *found = false;
  *out = (nb_rounded){0};
  char *path = layer_path(w, layer, ""), *text = NULL;
  size_t length = 0;
  if (!path) return nb_fail_memory(err, strlen(w->path));
  nibble_status status = NIBBLE_OK;
  if (access(path, F_OK) == 0) status = nb_read_file(path, UINT64_MAX / 2, &text, &length, err);
  if (status == NIBBLE_OK && text) status = nb_layer_parse(text, length, shape, out, found, err);
  free(text);
  free(path);
  return status;
}
