#include "convert/chat_template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/stage.h"
#include "base/str.h"
#include "convert/gguf.h"
#include "tokenizer/readers/readers.h"

/* What was found. A text is NULL if there is none of that name. */
typedef struct found {
  char *standard, *tool_use;
  char *where, *tools_where; /* for messages */
  bool is_named;             /* several, or one of another name: then it is no standard one */
} found;

static void free_found(found *f) {
  free(f->standard);
  free(f->tool_use);
  free(f->where);
  free(f->tools_where);
  *f = (found){0};
}

/* Puts a text, which is taken over, in the place of its name. */
static nibble_status keep(found *f, const char *name, char *text, const char *where, nibble_error *err) {
  bool is_standard = strcmp(name, "default") == 0, is_tools = strcmp(name, "tool_use") == 0;
  char **slot = is_standard ? &f->standard : &f->tool_use, **place = is_standard ? &f->where : &f->tools_where;
  f->is_named = f->is_named || !is_standard;
  if (!is_standard && !is_tools) {
    free(text);
    return NIBBLE_OK;
  }
  free(*slot);
  free(*place);
  *slot = text;
  *place = strdup(where);
  return text && *place ? NIBBLE_OK : nb_fail_memory(err, strlen(where));
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static nibble_status read_file(found *f, const char *name, const char *path, nibble_error *err) {
  char *text;
  size_t n;
  nibble_status status = nb_read_file(path, NB_TEMPLATE_MAX, &text, &n, err);
  if (status != NIBBLE_OK) return status;
  if (strlen(text) == n) return keep(f, name, text, path, err);
  free(text);
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a chat template with a NUL in it", path);
}

static bool is_there(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 || errno != ENOENT;
}

typedef struct listing {
  found *found;
  const char *folder;
  nibble_status status;
  nibble_error *err;
} listing;

static int visit(void *ctx, int fd, const char *file) {
  listing *l = ctx;
  enum { ENDING = 6 };
  (void)fd;
  if (!nb_ends_with(file, ".jinja")) return 0;
  char *name = strndup(file, strlen(file) - ENDING), *path = nb_path_join(l->folder, file);
  l->status = name && path ? read_file(l->found, name, path, l->err) : nb_fail_memory(l->err, strlen(file));
  free(name);
  free(path);
  return l->status != NIBBLE_OK;
}

static nibble_status read_folder(found *f, const char *path, nibble_error *err) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? NIBBLE_OK : nb_fail_input(path, err);
  listing l = {.found = f, .folder = path, .status = NIBBLE_OK, .err = err};
  if (nb_folder_list(fd, visit, &l) < 0) l.status = nb_fail_errno(err, "%s", path);
  close(fd);
  return l.status;
}

/* ---- tokenizer_config.json -------------------------------------------------------------------------------------- */

/* *out is NULL if there is no such file. */
static nibble_status load_beside(const nb_checkpoint *c, const char *name, cJSON **out, nibble_error *err) {
  *out = NULL;
  char *path = nb_path_join(c->folder, name);
  if (!path) return nb_fail_memory(err, strlen(name));
  nibble_status status = is_there(path) ? nb_json_load(path, out, err) : NIBBLE_OK;
  if (status == NIBBLE_OK && *out) status = nb_json_last_wins(*out, err);
  free(path);
  return status;
}

static nibble_status keep_config(found *f, const char *name, const cJSON *text, nibble_error *err) {
  static const char where[] = "chat_template of tokenizer_config.json";
  if (!name || !cJSON_IsString(text))
    return nb_fail(err, NIBBLE_BAD_INPUT, "tokenizer_config.json: chat_template is neither a text nor named texts");
  return keep(f, name, strdup(text->valuestring), where, err);
}

/* A text, or [{"name": ..., "template": ...}], or {name: text}. */
static nibble_status read_config(found *f, const nb_checkpoint *c, nibble_error *err) {
  cJSON *json;
  nibble_status status = load_beside(c, "tokenizer_config.json", &json, err);
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, "chat_template");
  if (status == NIBBLE_OK && cJSON_IsString(value)) {
    status = keep_config(f, "default", value, err);
  } else if (status == NIBBLE_OK && value && !cJSON_IsNull(value)) {
    f->is_named = true;
    if (!cJSON_IsArray(value) && !cJSON_IsObject(value)) status = keep_config(f, NULL, value, err);
    for (const cJSON *item = value->child; status == NIBBLE_OK && item; item = item->next) {
      bool is_list = cJSON_IsArray(value);
      const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
      const cJSON *text = is_list ? cJSON_GetObjectItemCaseSensitive(item, "template") : item;
      status = keep_config(f, is_list ? cJSON_GetStringValue(name) : item->string, text, err);
    }
  }
  cJSON_Delete(json);
  return status;
}

static nibble_status read_gguf(found *f, const nb_checkpoint *c, nibble_error *err) {
  nb_str text = {0};
  nibble_status status = nb_gguf_text(c->gguf, "tokenizer.chat_template", &text, err);
  if (status != NIBBLE_OK || !text.length) return status;
  if (memchr(text.data, 0, text.length))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a chat template with a NUL in it", c->path);
  return keep(f, "default", strndup(text.data, text.length), c->path, err);
}

static nibble_status find(const nb_checkpoint *c, found *f, nibble_error *err) {
  *f = (found){0};
  if (c->gguf) return read_gguf(f, c, err);
  char *file = nb_path_join(c->folder, "chat_template.jinja");
  char *folder = nb_path_join(c->folder, "additional_chat_templates");
  nibble_status status = file && folder ? NIBBLE_OK : nb_fail_memory(err, strlen(c->folder));
  if (status == NIBBLE_OK && is_there(file)) status = read_file(f, "default", file, err);
  if (status == NIBBLE_OK) status = read_folder(f, folder, err);
  if (status == NIBBLE_OK && !f->standard && !f->is_named) status = read_config(f, c, err);
  free(file);
  free(folder);
  return status;
}

nibble_status nb_chat_template_exists(const nb_checkpoint *c, bool *out, nibble_error *err) {
  found f;
  nibble_status status = find(c, &f, err);
  *out = f.standard || f.is_named;
  free_found(&f);
  return status;
}

/* ---- special tokens --------------------------------------------------------------------------------------------- */

static nibble_status read_tokens(const nb_checkpoint *c, cJSON *tokens, nibble_error *err) {
  if (c->gguf) return nb_gguf_special_tokens(c->gguf, tokens, err);
  return nb_tokenizer_folder_tokens(c->folder, tokens, err);
}

/* ---- a template ------------------------------------------------------------------------------------------------- */

nibble_status nb_chat_template_open(const nb_checkpoint *c, bool with_tools, nb_chat_template *out, nibble_error *err) {
  found f;
  *out = (nb_chat_template){0};
  nibble_status status = find(c, &f, err);
  bool has_one = f.standard || f.is_named, is_tools = with_tools && f.tool_use;
  const char *text = is_tools ? f.tool_use : f.standard, *where = is_tools ? f.tools_where : f.where;
  if (status == NIBBLE_OK && has_one && !text)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: several chat templates, and none of them is the default", c->path);
  if (status == NIBBLE_OK && has_one && !(out->tokens = cJSON_CreateObject()))
    status = nb_fail_memory(err, sizeof *out->tokens);
  if (status == NIBBLE_OK && has_one) status = read_tokens(c, out->tokens, err);
  if (status == NIBBLE_OK && has_one) status = nb_template_parse(where, text, strlen(text), &out->text, err);
  free_found(&f);
  return status;
}

void nb_chat_template_free(nb_chat_template *chat) {
  nb_template_free(chat->text);
  cJSON_Delete(chat->tokens);
  *chat = (nb_chat_template){0};
}

nibble_status nb_chat_template_render(const nb_chat_template *chat, const cJSON *variables, nb_buf *out,
                                      nibble_error *err) {
  cJSON *all = cJSON_Duplicate(variables, true);
  bool ok = all != NULL;
  for (const cJSON *token = chat->tokens->child; ok && token; token = token->next) {
    if (cJSON_GetObjectItemCaseSensitive(all, token->string)) continue;
    ok = cJSON_AddStringToObject(all, token->string, token->valuestring) != NULL;
  }
  nibble_status status =
      ok ? nb_template_render(chat->text, all, chat->now, out, err) : nb_fail_memory(err, sizeof *all);
  cJSON_Delete(all);
  return status;
}
