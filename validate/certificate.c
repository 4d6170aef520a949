#include "validate/certificate.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "base/stage.h"
#include "base/stop.h"
#include "model/json.h"

const char *nb_side_name(nb_side side) { return side == NB_ARTIFACT ? "artifact" : "source"; }

/* ---- hashing ---- */

typedef struct hash_job {
  const nb_checkpoint *checkpoint;
  char (*hashes)[NB_SHA256_CHARS]; /* [tensor_count] */
  nb_shared_error failed;
} hash_job;

static void hash_tensors(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  hash_job *job = ctx;
  for (int64_t i = begin; i < end; i++) {
    nibble_error err;
    const nb_checkpoint *c = job->checkpoint;
    const nb_tensor *t = &c->tensors[i];
    nb_mapped_bytes bytes = {&c->files[t->file].map, t->offset, t->bytes};
    nibble_status status = nb_sha256_mapped(&bytes, job->hashes[i], &err);
    if (status != NIBBLE_OK) nb_shared_error_set(&job->failed, status, &err);
  }
}

static cJSON *tensor_entry(const nb_tensor *t, const char *hash) {
  cJSON *entry = cJSON_CreateObject(), *shape = cJSON_AddArrayToObject(entry, "shape");
  bool ok = shape && cJSON_AddStringToObject(entry, "dtype", nb_tensor_type_name(t));
  for (int d = 0; ok && d < t->ndim; d++) ok = cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[d]));
  if (ok && cJSON_AddStringToObject(entry, "sha256", hash)) return entry;
  cJSON_Delete(entry);
  return NULL;
}

/* ---- files ---- */

enum { MAX_FOLDERS_DEEP = 8 };

/* The certificate's own file and the signature's; zeros: it is not there. */
typedef struct own_files {
  struct stat certificate, signature;
} own_files;

/* Collects the hashes of a folder's files. */
typedef struct listing {
  const nb_checkpoint *checkpoint;
  const own_files *own;
  nb_strmap shards; /* the paths of the files with tensors, which are hashed one by one */
  cJSON *files;
} listing;

static bool is_same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_covered(const listing *l, const char *name, int depth, const struct stat *info) {
  static const char *const left_out[] = {"nibble.json", "nibble.json.sig", "README.md"};
  if (name[0] == '.') return false;
  for (size_t i = 0; depth == 0 && S_ISREG(info->st_mode) && i < sizeof left_out / sizeof *left_out; i++) {
    if (strcmp(name, left_out[i]) == 0) return false;
  }
  return !is_same(info, &l->own->certificate) && !is_same(info, &l->own->signature);
}

/* A signature leaves the list only as a file of its own: as a link it would take another file out of the list with it.
 */
static nibble_status find_own(const char *certificate, own_files *out, nibble_error *err) {
  *out = (own_files){0};
  if (!certificate) return NIBBLE_OK; /* nibble.json, which is known by name */
  char *signature = nb_signature_path(certificate);
  if (!signature) return nb_fail_memory(err, strlen(certificate));
  if (stat(certificate, &out->certificate) != 0) out->certificate = (struct stat){0};
  if (lstat(signature, &out->signature) != 0 || out->signature.st_nlink != 1 || !S_ISREG(out->signature.st_mode))
    out->signature = (struct stat){0};
  free(signature);
  return NIBBLE_OK;
}

static nibble_status add_folder(const listing *l, const char *folder, const char *below, int depth, nibble_error *err);

/* `name` in the folder, `below` from the artifact's folder on. */
static nibble_status add_entry(const listing *l, const char *path, const char *name, const char *below, int depth,
                               nibble_error *err) {
  struct stat info;
  char hash[NB_SHA256_CHARS] = "not a file";
  if (stat(path, &info) != 0 || !is_covered(l, name, depth, &info)) return NIBBLE_OK; /* a link to nowhere */
  if (S_ISDIR(info.st_mode) && depth < MAX_FOLDERS_DEEP) return add_folder(l, path, below, depth + 1, err);
  nibble_status status = NIBBLE_OK;
  int64_t shard;
  if (nb_strmap_find(&l->shards, path, strlen(path), &shard))
    snprintf(hash, sizeof hash, "tensors");
  else if (S_ISREG(info.st_mode))
    status = nb_sha256_file(path, hash, err);
  if (status == NIBBLE_OK && !cJSON_AddStringToObject(l->files, below, hash))
    status = nb_fail_memory(err, sizeof(cJSON));
  return status;
}

static nibble_status add_folder(const listing *l, const char *folder, const char *below, int depth, nibble_error *err) {
  struct dirent **entries;
  int count = scandir(folder, &entries, NULL, alphasort);
  if (count < 0) return nb_fail_errno(err, "%s", folder);
  nibble_status status = NIBBLE_OK;
  for (int i = 0; i < count; i++) {
    const char *name = entries[i]->d_name;
    char *path = nb_path_join(folder, name), *inside = *below ? nb_path_join(below, name) : strdup(name);
    if (status == NIBBLE_OK)
      status = path && inside ? add_entry(l, path, name, inside, depth, err) : nb_fail_memory(err, strlen(folder));
    free(path);
    free(inside);
    free(entries[i]);
  }
  free(entries);
  return status;
}

static nibble_status add_meaning_files(const listing *l, nibble_error *err) {
  static const char *const names[] = {"config.json", "tokenizer.json"}; /* what decides how tensors are read */
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof names / sizeof *names; i++) {
    char *path = nb_path_join(l->checkpoint->folder, names[i]);
    status = path ? add_entry(l, path, names[i], names[i], 0, err) : nb_fail_memory(err, sizeof(cJSON));
    free(path);
  }
  return status;
}

static nibble_status add_files(const nb_checkpoint *c, nb_side side, const char *certificate, cJSON *files,
                               nibble_error *err) {
  own_files own;
  listing l = {.checkpoint = c, .own = &own, .files = files};
  if (!c->folder) return NIBBLE_OK;
  nibble_status status = find_own(certificate, &own, err);
  for (int i = 0; status == NIBBLE_OK && i < c->file_count; i++) {
    const char *path = c->files[i].path;
    if (nb_strmap_add(&l.shards, path, strlen(path), i) == NB_STRMAP_NO_MEMORY)
      status = nb_fail_memory(err, sizeof(nb_strmap_slot));
  }
  if (status == NIBBLE_OK)
    status = side == NB_ARTIFACT ? add_folder(&l, c->folder, "", 0, err) : add_meaning_files(&l, err);
  nb_strmap_free(&l.shards);
  return status;
}

nibble_status nb_certificate_hashes(const nb_checkpoint *c, nb_side side, const nibble_verify_options *o,
                                    cJSON **tensors, cJSON **files, nibble_error *err) {
  hash_job job = {.checkpoint = c, .hashes = nb_alloc(c->tensor_count + 1, sizeof *job.hashes)};
  *tensors = cJSON_CreateObject();
  *files = cJSON_CreateObject();
  nibble_status status = NIBBLE_OK;
  if (!job.hashes || !*tensors || !*files) {
    status = nb_fail_memory(err, c->tensor_count * sizeof *job.hashes);
    goto done;
  }
  nb_step(&o->progress, "hashing", 0, c->tensor_count, "tensors");
  status = nb_parallel_stoppable((int64_t)c->tensor_count, 1, hash_tensors, &job, err);
  if (status == NIBBLE_OK) status = nb_shared_error_get(&job.failed, err);
  if (status != NIBBLE_OK) goto done;
  for (size_t i = 0; i < c->tensor_count && status == NIBBLE_OK; i++) {
    cJSON *entry = tensor_entry(&c->tensors[i], job.hashes[i]);
    if (entry && cJSON_AddItemToObject(*tensors, c->tensors[i].name, entry)) continue;
    cJSON_Delete(entry);
    status = nb_fail_memory(err, sizeof(cJSON));
  }
  if (status == NIBBLE_OK) status = add_files(c, side, o->certificate, *files, err);
done:
  free(job.hashes);
  if (status != NIBBLE_OK) {
    cJSON_Delete(*tensors);
    cJSON_Delete(*files);
    *tensors = *files = NULL;
  }
  return status;
}

/* ---- the file ---- */

nibble_status nb_certificate_path(const nb_checkpoint *artifact, const char *path, char **out, nibble_error *err) {
  *out = NULL;
  if (!path && !artifact->folder)
    return nb_fail(err, NIBBLE_USAGE, "%s: no folder that could hold a certificate; --certificate FILE says where",
                   artifact->path);
  *out = path ? strdup(path) : nb_path_join(artifact->folder, "nibble.json");
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(artifact->path));
}

/* What nibble writes into nibble.json, and into a certificate's own file. */
static bool is_ours(const cJSON *json) {
  return cJSON_HasObjectItem(json, "nibble") || cJSON_HasObjectItem(json, "command") ||
         cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(json, "certificate"));
}

/* What stands at `where` and stays beside the certificate; an empty object where nothing does, or where it is not ours
 * and may be replaced. */
static nibble_status load_rest(const char *where, bool force, cJSON **json, nibble_error *err) {
  nibble_status status = nb_stage_check_file(where, &(nb_replace){.force = true}, err);
  *json = NULL;
  if (status == NIBBLE_OK && access(where, F_OK) == 0) {
    status = nb_json_load(where, json, err);
    bool is_object = status == NIBBLE_OK && cJSON_IsObject(*json);
    if (is_object && is_ours(*json)) return NIBBLE_OK;
    if (!force && is_object)
      return nb_fail(err, NIBBLE_USAGE, "%s exists already, and nibble did not write it; --force replaces it", where);
    if (!force && status == NIBBLE_OK) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a JSON object", where);
    if (status == NIBBLE_BAD_INPUT && force) status = NIBBLE_OK;
    cJSON_Delete(*json);
    *json = NULL;
  }
  if (status == NIBBLE_OK && !(*json = cJSON_CreateObject())) status = nb_fail_memory(err, sizeof(cJSON));
  return status;
}

nibble_status nb_certificate_check_place(const nb_checkpoint *artifact, const nibble_verify_options *o,
                                         nibble_error *err) {
  char *where, *signature = NULL;
  cJSON *json = NULL;
  nibble_status status = nb_certificate_path(artifact, o->certificate, &where, err);
  if (status == NIBBLE_OK) status = load_rest(where, o->force, &json, err);
  if (status == NIBBLE_OK && o->sign) {
    signature = nb_signature_path(where);
    status = signature ? nb_signature_check_place(signature, o->force, err) : nb_fail_memory(err, strlen(where));
  }
  cJSON_Delete(json);
  free(signature);
  free(where);
  return status;
}

nibble_status nb_certificate_save(const nb_checkpoint *artifact, const nibble_verify_options *o,
                                  const nb_signing_key *key, const cJSON *certificate, nibble_error *err) {
  char *where, *signature = NULL;
  cJSON *json = NULL, *copy = NULL;
  nb_buf text = {0};
  nibble_status status = nb_certificate_path(artifact, o->certificate, &where, err);
  if (status == NIBBLE_OK) status = load_rest(where, o->force, &json, err);
  if (status != NIBBLE_OK) goto done;
  cJSON_DeleteItemFromObjectCaseSensitive(json, "certificate");
  copy = cJSON_Duplicate(certificate, true);
  if (!copy || !cJSON_AddItemToObject(json, "certificate", copy)) {
    cJSON_Delete(copy);
    status = nb_fail_memory(err, sizeof(cJSON));
    goto done;
  }
  if (!(signature = nb_signature_path(where))) {
    status = nb_fail_memory(err, strlen(where));
    goto done;
  }
  nb_json_put(&text, json, &nb_json_indented);
  nb_buf_puts(&text, "\n");
  if ((status = nb_stop_check(err)) != NIBBLE_OK) goto done;
  nb_stop_hook *stop = nb_stop_use(NULL); /* no certificate stands beside the signature of another */
  status = nb_stage_write_file(where, &(nb_replace){.force = true}, &text, true, err);
  if (status == NIBBLE_OK && key) status = nb_signature_save(signature, o->force, key, &text, err);
  if (status == NIBBLE_OK && !key) nb_signature_drop(signature, &o->progress);
  nb_stop_use(stop);
done:
  nb_buf_free(&text);
  cJSON_Delete(json);
  free(signature);
  free(where);
  return status;
}

nibble_status nb_certificate_read(const nb_checkpoint *artifact, const char *path, nb_certificate_file *out,
                                  nibble_error *err) {
  *out = (nb_certificate_file){0};
  nibble_status status = nb_certificate_path(artifact, path, &out->path, err);
  if (status == NIBBLE_OK && !(out->signature = nb_signature_path(out->path)))
    status = nb_fail_memory(err, strlen(out->path));
  if (status == NIBBLE_OK) status = nb_read_file(out->path, NB_JSON_MAX_BYTES, &out->text, &out->length, err);
  if (status != NIBBLE_OK) nb_certificate_file_free(out);
  return status;
}

void nb_certificate_file_free(nb_certificate_file *file) {
  free(file->path);
  free(file->signature);
  free(file->text);
  *file = (nb_certificate_file){0};
}

nibble_status nb_certificate_parse(const nb_certificate_file *file, cJSON **out, nibble_error *err) {
  cJSON *json;
  *out = NULL;
  nibble_status status = nb_json_parse(file->path, file->text, file->length, &json, err);
  if (status != NIBBLE_OK) return status;
  *out = cJSON_IsObject(json) ? cJSON_DetachItemFromObjectCaseSensitive(json, "certificate") : NULL;
  if (!cJSON_IsObject(*out)) {
    cJSON_Delete(*out);
    *out = NULL;
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no certificate in it", file->path);
  }
  cJSON_Delete(json);
  return status;
}

/* ---- confirming ---- */

static nibble_status compare_entries(const cJSON *now, const cJSON *then, nb_findings *findings, nibble_error *err) {
  static const char check[] = "certificate";
  nb_strmap now_by_name, then_by_name;
  nibble_status status = NIBBLE_OK;
  bool indexed = nb_json_index(now, &now_by_name);
  if (!nb_json_index(then, &then_by_name) || !indexed) {
    status = nb_fail_memory(err, sizeof(nb_strmap_slot));
    goto done;
  }
  for (const cJSON *was = then->child; was; was = was->next) {
    const cJSON *is = nb_json_indexed(&now_by_name, was->string);
    if (!is) {
      nb_find(findings, NIBBLE_FAULT, check, "certified-part-missing", nb_place_tensor(was->string),
              "it was certified and is not there");
    } else if (!cJSON_Compare(is, was, true)) {
      nb_find(findings, NIBBLE_FAULT, check, "certified-part-changed", nb_place_tensor(was->string),
              "it is not what was certified");
    }
  }
  for (const cJSON *is = now->child; is; is = is->next) {
    if (!nb_json_indexed(&then_by_name, is->string))
      nb_find(findings, NIBBLE_FAULT, check, "certified-part-new", nb_place_tensor(is->string),
              "it was not there when the artifact was certified");
  }
done:
  nb_strmap_free(&now_by_name);
  nb_strmap_free(&then_by_name);
  return status;
}

nibble_status nb_certificate_compare(const cJSON *now, const cJSON *then, nb_side side, nb_findings *findings,
                                     nibble_error *err) {
  static const char *const parts[] = {"tensors", "files"};
  const cJSON *is = nb_json_object(now, nb_side_name(side)), *was = nb_json_object(then, nb_side_name(side));
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof parts / sizeof *parts; i++) {
    const cJSON *part = nb_json_object(is, parts[i]), *before = nb_json_object(was, parts[i]);
    if (part && before)
      status = compare_entries(part, before, findings, err);
    else
      nb_find(findings, NIBBLE_FAULT, "certificate", "", nb_place_tensor(""), "it has no \"%s\"", parts[i]);
  }
  return status;
}

nibble_status nb_certificate_check(const nb_checkpoint *c, const cJSON *certificate, nb_side side,
                                   const nibble_verify_options *o, nb_findings *findings, nibble_error *err) {
  const cJSON *then = nb_json_object(certificate, nb_side_name(side));
  const cJSON *tensors_then = nb_json_object(then, "tensors"), *files_then = nb_json_object(then, "files");
  if (!tensors_then || !files_then)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: its certificate names no hashes of the %s", c->path, nb_side_name(side));
  cJSON *tensors, *files;
  nibble_status status = nb_certificate_hashes(c, side, o, &tensors, &files, err);
  if (status != NIBBLE_OK) return status;
  status = compare_entries(tensors, tensors_then, findings, err);
  if (status == NIBBLE_OK) status = compare_entries(files, files_then, findings, err);
  cJSON_Delete(tensors);
  cJSON_Delete(files);
  return status;
}
