#include "validate/against.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stage.h"
#include "base/str.h"
#include "runner/stop_tokens.h"

static const char check[] = "against";

/* ---- other files ---- */

/* What a file beside the weights decides. */
typedef enum beside_kind {
  BESIDE_ADAPTER,    /* changes the weights: loaders apply it unasked */
  BESIDE_VOCABULARY, /* is the tokenizer where there is no tokenizer.json */
  BESIDE_TEXT,       /* how text is put to the model, and where it ends */
} beside_kind;

static const struct {
  const char *name;
  beside_kind kind;
} beside[] = {
    {"adapter_config.json", BESIDE_ADAPTER}, {"adapter_model.safetensors", BESIDE_ADAPTER},
    {"adapter_model.bin", BESIDE_ADAPTER},   {"vocab.json", BESIDE_VOCABULARY},
    {"merges.txt", BESIDE_VOCABULARY},       {"vocab.txt", BESIDE_VOCABULARY},
    {"tokenizer.model", BESIDE_VOCABULARY},  {"spiece.model", BESIDE_VOCABULARY},
    {"tokenizer_config.json", BESIDE_TEXT},  {"special_tokens_map.json", BESIDE_TEXT},
    {"added_tokens.json", BESIDE_TEXT},      {"chat_template.jinja", BESIDE_TEXT},
    {"chat_template.json", BESIDE_TEXT},     {"generation_config.json", BESIDE_TEXT},
};

/* The same file in both folders. */
typedef struct file_pair {
  char *now, *then; /* malloc'd paths */
  bool is_now, is_then;
} file_pair;

static nibble_status find_files(const nb_pair *p, const char *name, file_pair *out, nibble_error *err) {
  *out = (file_pair){.now = nb_path_join(p->artifact->folder, name), .then = nb_path_join(p->original->folder, name)};
  if (!out->now || !out->then) return nb_fail_memory(err, strlen(name));
  out->is_now = access(out->now, F_OK) == 0;
  out->is_then = access(out->then, F_OK) == 0;
  return NIBBLE_OK;
}

static nibble_status same_bytes(const file_pair *files, bool *same, nibble_error *err) {
  nb_mapfile a = {0}, b = {0};
  nibble_status status = nb_mapfile_open(files->now, &a, err);
  if (status == NIBBLE_OK) status = nb_mapfile_open(files->then, &b, err);
  *same = status == NIBBLE_OK && a.size == b.size && (!a.size || memcmp(a.data, b.data, a.size) == 0);
  nb_mapfile_close(&a);
  nb_mapfile_close(&b);
  return status;
}

/* As JSON if they are, so that it does not matter how they are laid out. */
static nibble_status same_json(const file_pair *files, bool *same, nibble_error *err) {
  cJSON *a = NULL, *b = NULL;
  nibble_status status = nb_json_load(files->now, &a, err);
  if (status == NIBBLE_OK) status = nb_json_load(files->then, &b, err);
  if (status == NIBBLE_OK) status = nb_json_last_wins(a, err);
  if (status == NIBBLE_OK) status = nb_json_last_wins(b, err);
  if (status == NIBBLE_OK && cJSON_IsObject(a)) cJSON_DeleteItemFromObjectCaseSensitive(a, "transformers_version");
  if (status == NIBBLE_OK && cJSON_IsObject(b)) cJSON_DeleteItemFromObjectCaseSensitive(b, "transformers_version");
  if (status == NIBBLE_OK && !nb_json_same(a, b, same)) status = nb_fail_memory(err, sizeof *a);
  cJSON_Delete(a);
  cJSON_Delete(b);
  return status;
}

static nibble_status compare_file(const nb_pair *p, const char *name, bool decides, nibble_error *err) {
  file_pair files;
  bool same = false;
  nibble_error why = {0};
  nibble_status status = find_files(p, name, &files, err);
  if (status != NIBBLE_OK || (!files.is_now && !files.is_then)) goto done;
  nibble_status looked = NIBBLE_OK;
  if (files.is_now && files.is_then) {
    looked = same_bytes(&files, &same, &why);
    if (looked == NIBBLE_OK && !same && nb_ends_with(name, ".json")) looked = same_json(&files, &same, &why);
  }
  if (looked == NIBBLE_SYSTEM) {
    status = looked;
    if (err) *err = why;
  } else if (!same) {
    nb_find(p->findings, decides ? NIBBLE_FAULT : NIBBLE_WARNING, check, "file-differs", nb_place_tensor(""), "%s %s",
            name,
            !files.is_then  ? "is not in the original"
            : !files.is_now ? "is in the original only"
                            : "does not say what the original's does");
  }
done:
  free(files.now);
  free(files.then);
  return status;
}

/* Those of config.json are compared with the rest of it (against_config.c). */
static nibble_status compare_stops(const nb_pair *p, nibble_error *err) {
  nb_stop_tokens now, then = {0};
  nibble_error why;
  nibble_status status = nb_stop_tokens_read(p->artifact, &now, &why);
  if (status == NIBBLE_OK) status = nb_stop_tokens_read(p->original, &then, &why);
  int64_t odd = -1; /* a token that ends the text of one of them only */
  for (int i = 0; i < now.count && odd < 0; i++) odd = nb_stop_tokens_have(&then, now.ids[i]) ? -1 : now.ids[i];
  bool ends_now = odd >= 0;
  for (int i = 0; i < then.count && odd < 0; i++) odd = nb_stop_tokens_have(&now, then.ids[i]) ? -1 : then.ids[i];
  nb_stop_tokens_free(&now);
  nb_stop_tokens_free(&then);
  if (status == NIBBLE_OK && odd >= 0)
    nb_find(p->findings, NIBBLE_FAULT, check, "stop-tokens-differ", nb_place_tensor(""),
            "token %lld ends a text of the %s: generation_config.json or config.json say other eos_token_id",
            (long long)odd, ends_now ? "artifact, and not of the original" : "original, and not of the artifact");
  if (status != NIBBLE_BAD_INPUT) {
    if (status != NIBBLE_OK && err) *err = why;
    return status;
  }
  nb_find(p->findings, NIBBLE_WARNING, check, "file-differs", nb_place_tensor(""), "%s", why.message);
  return NIBBLE_OK;
}

nibble_status nb_against_files(const nb_pair *p, nibble_error *err) {
  file_pair tokenizer;
  if (!p->artifact->folder || !p->original->folder) return NIBBLE_OK; /* a .gguf has all in itself */
  nibble_status status = find_files(p, "tokenizer.json", &tokenizer, err);
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof beside / sizeof *beside; i++) {
    bool decides = beside[i].kind == BESIDE_ADAPTER ||
                   (beside[i].kind == BESIDE_VOCABULARY && !tokenizer.is_now && !tokenizer.is_then);
    status = compare_file(p, beside[i].name, decides, err);
  }
  free(tokenizer.now);
  free(tokenizer.then);
  return status == NIBBLE_OK && nb_against_same_eos(p) ? compare_stops(p, err) : status;
}

nibble_status nb_against_check(const nb_pair *pair, nibble_error *err) {
  nibble_status status = nb_against_config(pair, err);
  if (status == NIBBLE_OK) status = nb_against_tokenizer(pair, err);
  return status == NIBBLE_OK ? nb_against_files(pair, err) : status;
}
