/* The tokenizer of a folder, as transformers 5.24 puts it together (tokenization_utils_base.py, _from_pretrained;
 * tokenization_utils_tokenizers.py): a file with the vocabulary; the class that tokenizer_config.json or the model type
 * names, with steps of its own; added and special tokens from the settings, where the file has not got them yet; and
 * for files other than tokenizer.json, whether a BOS and an EOS stand around a text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stage.h"
#include "base/strmap.h"
#include "model/json.h"
#include "tokenizer/readers/classes.h"
#include "tokenizer/readers/folder_limits.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/readers.h"
#include "tokenizer/readers/spm_model.h"

/* The first that is there counts. transformers takes the one that its class asks for, which is the same in every folder
 * that holds one kind. */
static const char *const names[] = {"tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model",
                                    "spiece.model",   "vocab.json",  "vocab.txt",       "qwen.tiktoken"};

static const char *const named[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
enum { NAMED = sizeof named / sizeof *named };

typedef struct folder {
  const char *path;
  cJSON *settings, *tokens_map, *added_map, *config; /* of the files beside it; NULL: not there */
  char *settings_path;                               /* tokenizer_config.json's */
  bool from_json;                                    /* the vocabulary is tokenizer.json's */
  nb_tokenizer_spec *spec;
  const nb_tokenizer_class *class;
  nibble_error *err;
} folder;

/* ---- files ---- */

static nibble_status load_beside(folder *f, const char *name, cJSON **out) {
  char *path = nb_path_join(f->path, name);
  if (!path) return nb_fail_memory(f->err, strlen(f->path));
  nibble_status status = access(path, F_OK) == 0 ? nb_json_load(path, out, f->err) : NIBBLE_OK;
  if (status == NIBBLE_OK && *out && !cJSON_IsObject(*out))
    status = nb_fail(f->err, NIBBLE_BAD_INPUT, "%s: it is no JSON object", path);
  free(path);
  return status;
}

static nibble_status load_settings(folder *f) {
  f->settings_path = nb_path_join(f->path, "tokenizer_config.json");
  nibble_status status = f->settings_path ? NIBBLE_OK : nb_fail_memory(f->err, strlen(f->path));
  if (status == NIBBLE_OK) status = load_beside(f, "tokenizer_config.json", &f->settings);
  if (status == NIBBLE_OK) status = load_beside(f, "config.json", &f->config);
  bool listed = cJSON_HasObjectItem(f->settings, "added_tokens_decoder"); /* then the older files are not read */
  if (status == NIBBLE_OK && !listed) status = load_beside(f, "special_tokens_map.json", &f->tokens_map);
  if (status == NIBBLE_OK && !listed) status = load_beside(f, "added_tokens.json", &f->added_map);
  return status;
}

/* The first of the files that is there, or NULL for *out; free it. */
static nibble_status find_vocabulary(folder *f, char **out) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    *out = nb_path_join(f->path, names[i]);
    if (!*out) return nb_fail_memory(f->err, strlen(f->path));
    f->from_json = i == 0;
    if (access(*out, F_OK) == 0) return NIBBLE_OK;
    free(*out);
  }
  *out = NULL;
  f->from_json = false;
  return NIBBLE_OK;
}

static nibble_status load_vocabulary(folder *f) {
  char *path;
  nibble_status status = find_vocabulary(f, &path);
  if (status != NIBBLE_OK) return status;
  status = path ? nb_tokenizer_spec_load(path, f->spec, f->err)
                : nb_fail(f->err, NIBBLE_BAD_INPUT, "%s: no tokenizer.json, nor another file of a tokenizer, is there",
                          f->path);
  free(path);
  return status;
}

/* ---- the class ---- */

static const char *text_of(const cJSON *object, const char *key) {
  return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static bool is_byte_level(const cJSON *pre) {
  const char *type = text_of(pre, "type");
  if (type && strcmp(type, "ByteLevel") == 0) return true;
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(pre, "pretokenizers")) {
    if (is_byte_level(item)) return true;
  }
  return false;
}

static bool is_sentencepiece(const folder *f) { return !f->from_json && f->spec->vocab.types; }

static nb_class_names class_names(const folder *f) {
  return (nb_class_names){text_of(f->settings, "tokenizer_class"), text_of(f->config, "tokenizer_class"),
                          text_of(f->config, "model_type")};
}

static nibble_status apply_class(folder *f) {
  bool bytes = is_byte_level(cJSON_GetObjectItemCaseSensitive(f->spec->parts, "pre_tokenizer"));
  nibble_status status = nb_class_of(f->settings_path, class_names(f), bytes, &f->class, f->err);
  if (status != NIBBLE_OK || !f->class) return status;
  if (is_sentencepiece(f) && !f->class->from_model)
    return nb_fail(f->err, NIBBLE_BAD_INPUT,
                   "%s: tokenizer_class '%.*s' gives the pieces of a SentencePiece file ids of its own, which is not "
                   "supported; a tokenizer.json has them",
                   f->path, (int)strcspn(f->class->names, " "), f->class->names);
  status = nb_class_apply(f->settings_path, f->class, f->settings, f->spec, f->err);
  if (status == NIBBLE_OK && is_sentencepiece(f) && f->spec->merges.order)
    status = nb_spm_merges_by_id(&f->spec->vocab, &f->spec->merges, f->err);
  return status;
}

/* ---- added tokens ---- */

typedef struct adder {
  folder *folder;
  cJSON *list;
  nb_strmap known; /* texts; the values are their items in the list, as pointers */
  int32_t next;    /* id */
  bool plain;      /* what is added now is matched as it is spelled, also if it is there already */
} adder;

static nibble_status make_plain(adder *a, cJSON *item) {
  static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
    cJSON *plain = cJSON_CreateFalse();
    if (plain && cJSON_ReplaceItemInObjectCaseSensitive(item, flags[i], plain)) continue;
    cJSON_Delete(plain);
    return nb_fail_memory(a->folder->err, sizeof *plain);
  }
  return NIBBLE_OK;
}

/* `flags`: an object that says how the token is matched; NULL: as special ones are. A text that is there stays. */
static nibble_status add_token(adder *a, const char *text, const cJSON *flags, bool special) {
  nibble_error *err = a->folder->err;
  int64_t known;
  if (!*text) return NIBBLE_OK;
  if (nb_strmap_find(&a->known, text, strlen(text), &known))
    return a->plain ? make_plain(a, (cJSON *)(intptr_t)known) : NIBBLE_OK;
  if (a->plain) flags = NULL;
  bool normalized = false, single_word = false, lstrip = false, rstrip = false;
  const struct {
    const char *key;
    bool *out;
  } keys[] = {{"normalized", &normalized}, {"single_word", &single_word}, {"lstrip", &lstrip}, {"rstrip", &rstrip}};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < sizeof keys / sizeof *keys && status == NIBBLE_OK; i++)
    status = nb_json_bool(a->folder->settings_path, flags, keys[i].key, keys[i].out, err);
  if (status == NIBBLE_OK && !special) status = nb_json_bool(a->folder->settings_path, flags, "special", &special, err);
  if (status != NIBBLE_OK) return status;
  int32_t id = nb_vocab_id(&a->folder->spec->vocab, text, strlen(text));
  cJSON *item = nb_json_make("id:i content:s single_word:b lstrip:b rstrip:b normalized:b special:b",
                             id < 0 ? a->next++ : id, text, single_word, lstrip, rstrip, normalized, special);
  const char *kept = text_of(item, "content");
  if (!item || !cJSON_AddItemToArray(a->list, item) ||
      nb_strmap_add(&a->known, kept, strlen(kept), (int64_t)(intptr_t)item) == NB_STRMAP_NO_MEMORY)
    return nb_fail_memory(err, strlen(text));
  return NIBBLE_OK;
}

/* A token that is a text, or an object with its "content". */
static nibble_status add_value(adder *a, const cJSON *value, bool special) {
  const char *text = cJSON_IsObject(value) ? text_of(value, "content") : cJSON_GetStringValue(value);
  if (!text) return NIBBLE_OK;
  return add_token(a, text, cJSON_IsObject(value) ? value : NULL, special);
}

static int by_number(const void *a, const void *b) {
  const cJSON *const *x = a, *const *y = b;
  long m = strtol((*x)->string, NULL, 10), n = strtol((*y)->string, NULL, 10);
  return (m > n) - (m < n);
}

/* "added_tokens_decoder": {"id": token, ...}, in the order of the ids. */
static nibble_status add_listed(adder *a, const cJSON *listed) {
  size_t count = 0;
  const cJSON *item, **order = malloc(((size_t)cJSON_GetArraySize(listed) + 1) * sizeof *order);
  if (!order) return nb_fail_memory(a->folder->err, sizeof *order);
  cJSON_ArrayForEach(item, listed) order[count++] = item;
  if (count > 0) qsort(order, count, sizeof *order, by_number);
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) status = add_value(a, order[i], false);
  free(order);
  return status;
}

/* What a key says, in special_tokens_map.json first, then in tokenizer_config.json, then by the class. */
static const cJSON *setting(const folder *f, const char *key) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(f->tokens_map, key);
  return value ? value : cJSON_GetObjectItemCaseSensitive(f->settings, key);
}

static nibble_status numbered_end(const folder *f, int64_t *end) {
  enum { MOST = 10000 };
  const nb_class_numbered *numbered = &f->class->numbered;
  *end = numbered->end;
  if (!numbered->key) return NIBBLE_OK;
  return nb_json_int(f->settings_path, f->settings, numbered->key, (nb_range){0, MOST}, end, f->err);
}

static nibble_status add_numbered(adder *a, int64_t number) {
  char text[64];
  snprintf(text, sizeof text, "%s%lld>", a->folder->class->numbered.prefix, (long long)number);
  return add_token(a, text, NULL, true);
}

/* Tokens that a class lists, and those that are numbered; where the settings list some, they stand for them. */
static nibble_status add_extra(adder *a) {
  folder *f = a->folder;
  int64_t end;
  if (cJSON_IsArray(setting(f, "extra_special_tokens")) || cJSON_IsArray(setting(f, "additional_special_tokens")))
    return NIBBLE_OK;
  nibble_status status = numbered_end(f, &end);
  for (const char *at = f->class->extra; at && *at && status == NIBBLE_OK;) {
    char text[64];
    size_t n = strcspn(at, " ");
    snprintf(text, sizeof text, "%.*s", (int)n, at);
    status = add_token(a, text, NULL, true);
    at += n + (at[n] == ' ');
  }
  for (int64_t i = f->class->numbered.first; f->class->numbered.prefix && i < end && status == NIBBLE_OK; i++)
    status = add_numbered(a, i);
  return status;
}

/* Behind the pieces of a SentencePiece file the numbered ones come first, the last of them before the others. */
static nibble_status add_behind_pieces(adder *a) {
  int64_t end;
  nibble_status status = numbered_end(a->folder, &end);
  for (int64_t i = end; i > a->folder->class->numbered.first && status == NIBBLE_OK; i--)
    status = add_numbered(a, i - 1);
  return status;
}

/* The special token under a key: what the settings say of it, or the class. */
static nibble_status add_keyed(adder *a, const char *key) {
  const folder *f = a->folder;
  const cJSON *value = setting(f, key);
  const nb_class_token *usual = nb_class_token_of(f->class, key);
  if (!usual || cJSON_IsObject(value) || cJSON_IsNull(value)) return value ? add_value(a, value, true) : NIBBLE_OK;
  const char *text = cJSON_IsString(value) ? value->valuestring : usual->text;
  cJSON *flags = nb_json_make("lstrip:b normalized:b", usual->lstrip, usual->normalized);
  if (!flags) return nb_fail_memory(f->err, sizeof *flags);
  nibble_status status = add_token(a, text, flags, true);
  cJSON_Delete(flags);
  return status;
}

static nibble_status add_special(adder *a) {
  folder *f = a->folder;
  nibble_status status = NIBBLE_OK;
  a->plain = f->class && f->class->plain_tokens;
  for (size_t i = 0; i < NAMED && status == NIBBLE_OK; i++) status = add_keyed(a, named[i]);
  for (int i = 0; f->class && i < NB_CLASS_TOKENS && f->class->tokens[i].key && status == NIBBLE_OK; i++)
    status = add_keyed(a, f->class->tokens[i].key); /* those with keys of its own: the others are known by now */
  const cJSON *own;
  cJSON_ArrayForEach(own, f->settings) { /* such as "image_token" */
    bool named = nb_ends_with(own->string, "_token") && cJSON_IsString(own);
    if (status == NIBBLE_OK && named) status = add_value(a, own, true);
  }
  if (status == NIBBLE_OK && f->class) status = add_extra(a);
  static const char *const lists[] = {"extra_special_tokens", "additional_special_tokens"};
  for (size_t i = 0; i < sizeof lists / sizeof *lists && status == NIBBLE_OK; i++) {
    const cJSON *item;
    cJSON_ArrayForEach(item, setting(f, lists[i])) {
      if (status == NIBBLE_OK) status = add_value(a, item, true);
    }
  }
  return status;
}

/* User-defined pieces of SentencePiece, which the steps of a class do not know. */
static nibble_status add_user_pieces(adder *a) {
  const nb_vocab *vocab = &a->folder->spec->vocab;
  nibble_status status = NIBBLE_OK;
  for (int32_t id = 0; id < vocab->own && status == NIBBLE_OK; id++) {
    if (nb_vocab_type(vocab, id) == NB_TOKEN_USER) status = add_token(a, nb_vocab_text(vocab, id).data, NULL, false);
  }
  return status;
}

/* The file's own list, unless a class makes everything new and the settings have one. */
static nibble_status begin_list(adder *a) {
  folder *f = a->folder;
  const cJSON *listed = cJSON_GetObjectItemCaseSensitive(f->settings, "added_tokens_decoder");
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(f->spec->parts, "added_tokens"), *item;
  a->list = cJSON_CreateArray();
  if (!a->list) return nb_fail_memory(f->err, sizeof *a->list);
  a->next = f->spec->vocab.own;
  nibble_status status = NIBBLE_OK;
  if (!(f->class && !f->class->keeps_steps && f->from_json && listed)) {
    cJSON_ArrayForEach(item, own) {
      if (status != NIBBLE_OK) break;
      if (!cJSON_IsObject(item)) return nb_fail(f->err, NIBBLE_BAD_INPUT, "%s: added_tokens is damaged", f->path);
      status = add_value(a, item, false);
    }
  }
  if (status == NIBBLE_OK && listed) status = add_listed(a, listed);
  bool of_pieces = f->class && is_sentencepiece(f);
  if (status == NIBBLE_OK && of_pieces) status = add_user_pieces(a);
  if (status == NIBBLE_OK && of_pieces && f->class->numbered.prefix) status = add_behind_pieces(a);
  cJSON_ArrayForEach(item, f->added_map) {
    if (status == NIBBLE_OK && !setting(f, item->string)) status = add_token(a, item->string, NULL, false);
  }
  return status;
}

static nibble_status add_tokens(folder *f) {
  adder a = {.folder = f};
  nibble_status status = begin_list(&a);
  if (status == NIBBLE_OK) status = add_special(&a);
  nb_strmap_free(&a.known);
  if (status == NIBBLE_OK && !cJSON_ReplaceItemInObjectCaseSensitive(f->spec->parts, "added_tokens", a.list) &&
      !cJSON_AddItemToObject(f->spec->parts, "added_tokens", a.list))
    status = nb_fail_memory(f->err, sizeof *a.list);
  else if (status != NIBBLE_OK)
    cJSON_Delete(a.list);
  return status;
}

/* ---- BOS and EOS ---- */

static nb_part_token find_token(const folder *f, const char *key) {
  const cJSON *value = setting(f, key), *item;
  nb_part_token out = {.id = -1};
  out.text = cJSON_IsObject(value) ? text_of(value, "content") : cJSON_GetStringValue(value);
  const nb_class_token *usual = value ? NULL : nb_class_token_of(f->class, key);
  if (usual) out.text = usual->text;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(f->spec->parts, "added_tokens")) {
    const char *text = text_of(item, "content");
    if (out.text && text && strcmp(text, out.text) == 0)
      out.id = (int32_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "id"));
  }
  return out;
}

/* A tokenizer.json says itself what stands around a text, or its class; for other files the settings do. */
static nibble_status add_ends(folder *f) {
  bool said = cJSON_HasObjectItem(f->settings, "add_bos_token") || cJSON_HasObjectItem(f->settings, "add_eos_token");
  bool has_ends = f->class && (f->class->single || f->class->post_processor);
  if (has_ends && !(said && !f->from_json && f->class->post_processor == nb_ends_none))
    return nb_class_add_ends(f->settings_path, f->class, f->settings, f->spec, f->err);
  bool bos = false, eos = false;
  if (f->from_json || !said) return NIBBLE_OK;
  nibble_status status = nb_json_bool(f->settings_path, f->settings, "add_bos_token", &bos, f->err);
  if (status == NIBBLE_OK) status = nb_json_bool(f->settings_path, f->settings, "add_eos_token", &eos, f->err);
  if (status != NIBBLE_OK) return status;
  nb_part_token first = find_token(f, "bos_token"), last = find_token(f, "eos_token");
  cJSON *post = nb_part_template(bos && first.id >= 0 ? &first : NULL, eos && last.id >= 0 ? &last : NULL);
  if (post && cJSON_ReplaceItemInObjectCaseSensitive(f->spec->parts, "post_processor", post)) return NIBBLE_OK;
  cJSON_Delete(post);
  return nb_fail_memory(f->err, sizeof *post);
}

/* Settings that change how text is decoded, or that nothing here honours. */
static nibble_status read_switches(const folder *f) {
  static const char forced[] = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
  bool split = false, cleans = false, corrupts = f->class && f->class->cleans_bytes;
  nibble_status status = nb_json_bool(f->settings_path, f->settings, "split_special_tokens", &split, f->err);
  if (status == NIBBLE_OK && split)
    return nb_fail(f->err, NIBBLE_BAD_INPUT, "%s: split_special_tokens is not supported", f->settings_path);
  if (status == NIBBLE_OK)
    status = nb_json_bool(f->settings_path, f->settings, "clean_up_tokenization_spaces", &cleans, f->err);
  if (status == NIBBLE_OK) status = nb_json_bool(f->settings_path, f->settings, forced, &corrupts, f->err);
  const char *model = text_of(nb_json_object(f->spec->parts, "model"), "type");
  f->spec->clean_up = cleans && (corrupts || !(model && strcmp(model, "BPE") == 0));
  return status;
}

static void close_folder(folder *f) {
  cJSON_Delete(f->settings);
  cJSON_Delete(f->tokens_map);
  cJSON_Delete(f->added_map);
  cJSON_Delete(f->config);
  free(f->settings_path);
}

static nibble_status apply_limits(folder *f) {
  nb_folder_limits limits = {.where = f->settings_path,
                             .settings = f->settings,
                             .pad_id = find_token(f, "pad_token").id,
                             .pads_left = nb_class_pads_left(f->class),
                             .parts = f->spec->parts,
                             .err = f->err};
  return nb_folder_limits_apply(&limits);
}

nibble_status nb_tokenizer_spec_folder(const char *path, nb_tokenizer_spec *out, nibble_error *err) {
  folder f = {.path = path, .spec = out, .err = err};
  *out = (nb_tokenizer_spec){0};
  nibble_status status = load_settings(&f);
  if (status == NIBBLE_OK) status = load_vocabulary(&f);
  if (status == NIBBLE_OK) status = apply_class(&f);
  if (status == NIBBLE_OK) status = read_switches(&f);
  if (status == NIBBLE_OK) status = add_tokens(&f);
  if (status == NIBBLE_OK) status = add_ends(&f);
  if (status == NIBBLE_OK) status = apply_limits(&f);
  close_folder(&f);
  return status;
}

/* ---- special tokens by name ---- */

/* The text under a key: what the settings say, else the class, else the file. A setting of null takes it away. */
static nibble_status name_token(const folder *f, const char *key, cJSON *out) {
  const cJSON *value = setting(f, key);
  const nb_class_token *usual = nb_class_token_of(f->class, key);
  const char *text = cJSON_IsObject(value) ? text_of(value, "content") : cJSON_GetStringValue(value);
  if (!value) text = usual ? usual->text : text_of(f->spec->named, key);
  cJSON_DeleteItemFromObjectCaseSensitive(out, key);
  if (text && !cJSON_AddStringToObject(out, key, text)) return nb_fail_memory(f->err, strlen(text));
  return NIBBLE_OK;
}

static nibble_status name_tokens(const folder *f, cJSON *out) {
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < NAMED && status == NIBBLE_OK; i++) status = name_token(f, named[i], out);
  for (int i = 0; f->class && i < NB_CLASS_TOKENS && f->class->tokens[i].key && status == NIBBLE_OK; i++)
    status = name_token(f, f->class->tokens[i].key, out);
  const cJSON *item;
  cJSON_ArrayForEach(item, f->settings) {
    bool is_one = nb_ends_with(item->string, "_token") && cJSON_IsString(item);
    if (status == NIBBLE_OK && is_one) status = name_token(f, item->string, out);
  }
  const cJSON *extra = setting(f, "extra_special_tokens");
  if (!cJSON_IsObject(extra)) return status;
  cJSON_ArrayForEach(item, extra) {
    const char *text = cJSON_IsObject(item) ? text_of(item, "content") : cJSON_GetStringValue(item);
    if (status != NIBBLE_OK || !text) continue;
    cJSON_DeleteItemFromObjectCaseSensitive(out, item->string);
    if (!cJSON_AddStringToObject(out, item->string, text)) status = nb_fail_memory(f->err, strlen(text));
  }
  return status;
}

/* The vocabulary is read only where the class or the names depend on it. */
static nibble_status decide_class(folder *f) {
  const nb_tokenizer_class *of_bytes;
  nibble_status status = nb_class_of(f->settings_path, class_names(f), true, &of_bytes, f->err);
  if (status == NIBBLE_OK) status = nb_class_of(f->settings_path, class_names(f), false, &f->class, f->err);
  if (status != NIBBLE_OK || (f->class == of_bytes && f->class)) return status;
  char *vocabulary;
  status = find_vocabulary(f, &vocabulary);
  bool there = status == NIBBLE_OK && vocabulary;
  free(vocabulary);
  if (there && (f->class != of_bytes || !f->from_json)) status = load_vocabulary(f);
  if (f->class != of_bytes && is_byte_level(cJSON_GetObjectItemCaseSensitive(f->spec->parts, "pre_tokenizer")))
    f->class = of_bytes;
  return status;
}

nibble_status nb_tokenizer_folder_tokens(const char *path, cJSON *out, nibble_error *err) {
  nb_tokenizer_spec spec = {0};
  folder f = {.path = path, .spec = &spec, .err = err};
  nibble_status status = load_settings(&f);
  if (status == NIBBLE_OK) status = decide_class(&f);
  if (status == NIBBLE_OK) status = name_tokens(&f, out);
  close_folder(&f);
  nb_tokenizer_spec_free(&spec);
  return status;
}
