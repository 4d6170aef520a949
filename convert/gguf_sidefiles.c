/* The small files of a Hugging Face folder, from a GGUF file's metadata: what transformers writes on save_pretrained
 * after it has read the same file. */
#include <stdlib.h>
#include <string.h>

#include "base/stage.h"
#include "convert/gguf.h"

/* The special tokens by the names that transformers has for them. */
static const struct {
  const char *key, *name;
} special_tokens[] = {
    {"tokenizer.ggml.bos_token_id", "bos_token"},
    {"tokenizer.ggml.eos_token_id", "eos_token"},
    {"tokenizer.ggml.padding_token_id", "pad_token"},
    {"tokenizer.ggml.unknown_token_id", "unk_token"},
};

/* Generation stops at any of these: end of text, of a turn, of a message. */
static const char *const end_keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};

static nibble_status token_id(const nb_gguf *g, const char *key, int64_t *out, nibble_error *err) {
  *out = -1;
  return nb_gguf_int(g, key, 0, INT32_MAX, out, err);
}

nibble_status nb_gguf_special_tokens(const nb_gguf *g, cJSON *json, nibble_error *err) {
  nb_str *tokens;
  size_t count;
  nibble_status status = nb_gguf_strings(g, "tokenizer.ggml.tokens", &tokens, &count, err);
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof special_tokens / sizeof *special_tokens; i++) {
    int64_t id;
    status = token_id(g, special_tokens[i].key, &id, err);
    if (status != NIBBLE_OK || id < 0 || id >= (int64_t)count) continue;
    char *text = strndup(tokens[id].data, tokens[id].length);
    if (!text || !cJSON_AddStringToObject(json, special_tokens[i].name, text))
      status = nb_fail_memory(err, tokens[id].length);
    free(text);
  }
  free(tokens);
  return status;
}

static nibble_status write_special_tokens(const nb_gguf *g, const nb_folder *folder, nibble_error *err) {
  cJSON *json = cJSON_CreateObject();
  nibble_status status = nb_gguf_special_tokens(g, json, err);
  if (status == NIBBLE_OK) status = nb_json_save_in(folder, "special_tokens_map.json", json, err);
  cJSON_Delete(json);
  return status;
}

static nibble_status write_tokenizer_config(const nb_checkpoint *c, const nb_folder *folder, nibble_error *err) {
  cJSON *json = cJSON_CreateObject();
  nibble_status status = nb_gguf_special_tokens(c->gguf, json, err);
  /* A class that takes tokenizer.json as it is, in transformers 4 and 5. */
  bool ok = cJSON_AddBoolToObject(json, "clean_up_tokenization_spaces", false) &&
            cJSON_AddNumberToObject(json, "model_max_length", (double)c->config.max_position_embeddings) &&
            cJSON_AddStringToObject(json, "tokenizer_class", "PreTrainedTokenizerFast");
  if (status == NIBBLE_OK && !ok) status = nb_fail_memory(err, sizeof *json);
  if (status == NIBBLE_OK) status = nb_json_save_in(folder, "tokenizer_config.json", json, err);
  cJSON_Delete(json);
  return status;
}

static nibble_status write_chat_template(const nb_gguf *g, const nb_folder *folder, nibble_error *err) {
  nb_str text = {0};
  nibble_status status = nb_gguf_text(g, "tokenizer.chat_template", &text, err);
  if (status != NIBBLE_OK || !text.length) return status;
  return nb_folder_write(folder, "chat_template.jinja", text.data, text.length, err);
}

static nibble_status add_ends(const nb_gguf *g, cJSON *json, nibble_error *err) {
  int ends[sizeof end_keys / sizeof *end_keys], count = 0;
  for (size_t i = 0; i < sizeof end_keys / sizeof *end_keys; i++) {
    int64_t id;
    nibble_status status = token_id(g, end_keys[i], &id, err);
    if (status != NIBBLE_OK) return status;
    bool known = id < 0;
    for (int k = 0; k < count; k++) known = known || ends[k] == (int)id;
    if (!known) ends[count++] = (int)id;
  }
  if (count == 0) return NIBBLE_OK;
  cJSON *value = count == 1 ? cJSON_CreateNumber(ends[0]) : cJSON_CreateIntArray(ends, count);
  return cJSON_AddItemToObject(json, "eos_token_id", value) ? NIBBLE_OK : nb_fail_memory(err, sizeof *value);
}

static nibble_status write_generation_config(const nb_gguf *g, const nb_folder *folder, nibble_error *err) {
  int64_t bos, pad;
  cJSON *json = cJSON_CreateObject();
  bool ok = cJSON_AddBoolToObject(json, "_from_model_config", true);
  nibble_status status = token_id(g, "tokenizer.ggml.bos_token_id", &bos, err);
  if (status == NIBBLE_OK) status = token_id(g, "tokenizer.ggml.padding_token_id", &pad, err);
  if (status == NIBBLE_OK && bos >= 0) ok = ok && cJSON_AddNumberToObject(json, "bos_token_id", (double)bos);
  if (status == NIBBLE_OK) status = add_ends(g, json, err);
  if (status == NIBBLE_OK && pad >= 0) ok = ok && cJSON_AddNumberToObject(json, "pad_token_id", (double)pad);
  if (status == NIBBLE_OK && !ok) status = nb_fail_memory(err, sizeof *json);
  if (status == NIBBLE_OK) status = nb_json_save_in(folder, "generation_config.json", json, err);
  cJSON_Delete(json);
  return status;
}

static nibble_status write_tokenizer(const nb_checkpoint *c, const nb_folder *folder, const nibble_progress *progress,
                                     nibble_error *err) {
  nb_buf text = {0};
  nibble_status status = nb_gguf_tokenizer_json(c, &text, err);
  if (status == NIBBLE_BAD_INPUT) {
    nb_warn(progress, "%s; no tokenizer is written", err->message);
    nb_buf_free(&text);
    return NIBBLE_OK;
  }
  if (status == NIBBLE_OK) status = nb_write_file_in(folder, "tokenizer.json", &text, err);
  if (status == NIBBLE_OK) status = write_tokenizer_config(c, folder, err);
  if (status == NIBBLE_OK) status = write_special_tokens(c->gguf, folder, err);
  nb_buf_free(&text);
  return status;
}

nibble_status nb_gguf_write_sidefiles(const nb_checkpoint *c, const nb_folder *folder, const nibble_progress *progress,
                                      nibble_error *err) {
  nibble_error why;
  if (!c->config.family)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the names of its tensors in Hugging Face's format are not known ('%s')",
                   c->path, c->config.model_type);
  nibble_status status = write_tokenizer(c, folder, progress, err ? err : &why);
  if (status == NIBBLE_OK) status = write_chat_template(c->gguf, folder, err);
  if (status == NIBBLE_OK) status = write_generation_config(c->gguf, folder, err);
  return status;
}
