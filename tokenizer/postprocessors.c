/* Post-processors: the special tokens around the ids of a text, as a template that is read once. */
#include <string.h>

#include "model/json.h"
#include "tokenizer/steps.h"

enum { MAX_TEMPLATE = 256 }; /* pieces: each may be the whole text again */

static nibble_status add_id(const nb_step_reader *r, const cJSON *json, nb_ids *out) {
  if (!cJSON_IsNumber(json) || !(json->valuedouble >= 0 && json->valuedouble < NB_MAX_ID))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has an id that is none", r->where, r->name);
  if (out->length >= MAX_TEMPLATE)
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has more than %d pieces", r->where, r->name, MAX_TEMPLATE);
  int32_t id = (int32_t)json->valuedouble;
  nb_ids_append(out, &id, 1);
  return NIBBLE_OK;
}

static nibble_status add_piece(const nb_step_reader *r, const cJSON *piece, const cJSON *specials, nb_ids *out) {
  const cJSON *special = nb_json_object(piece, "SpecialToken"), *sequence = nb_json_object(piece, "Sequence");
  const char *name = "";
  nibble_status status = nb_json_string(r->where, special ? special : sequence, "id", &name, r->err);
  if (status != NIBBLE_OK) return status;
  if (sequence && strcmp(name, "A") == 0 && out->length < MAX_TEMPLATE) {
    nb_ids_append(out, &(int32_t){-1}, 1);
    return NIBBLE_OK;
  }
  const cJSON *ids = special ? cJSON_GetObjectItemCaseSensitive(nb_json_object(specials, name), "ids") : NULL;
  if (!cJSON_IsArray(ids))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has a piece '%s' that it does not define", r->where, r->name,
                   name);
  for (const cJSON *id = ids->child; id && status == NIBBLE_OK; id = id->next) status = add_id(r, id, out);
  return status;
}

static nibble_status read_template(const nb_step_reader *r, const cJSON *json, nb_ids *out) {
  const cJSON *single = cJSON_GetObjectItemCaseSensitive(json, "single");
  if (!cJSON_IsArray(single)) return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has no \"single\"", r->where, r->name);
  nibble_status status = NIBBLE_OK;
  for (const cJSON *piece = single->child; piece && status == NIBBLE_OK; piece = piece->next)
    status = add_piece(r, piece, nb_json_object(json, "special_tokens"), out);
  if (status == NIBBLE_OK && out->length == 0)
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has an empty template", r->where, r->name);
  return status;
}

/* "cls" and "sep", each [token, id], around the text. */
static nibble_status read_cls_sep(const nb_step_reader *r, const cJSON *json, nb_ids *out) {
  const cJSON *cls = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "cls"), 1);
  const cJSON *sep = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "sep"), 1);
  nibble_status status = add_id(r, cls, out);
  nb_ids_append(out, &(int32_t){-1}, 1);
  return status == NIBBLE_OK ? add_id(r, sep, out) : status;
}

static const struct {
  const char *type;
  nibble_status (*read)(const nb_step_reader *r, const cJSON *json, nb_ids *out); /* a template; NULL: changes no ids */
} types[] = {
    {"ByteLevel", NULL}, /* moves offsets */
    {"TemplateProcessing", read_template},
    {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
};

static nibble_status add(const nb_step_reader *r, const cJSON *json, void *ctx) {
  nb_ids *out = ctx;
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (strcmp(r->type, types[i].type) != 0) continue;
    if (!types[i].read) return NIBBLE_OK;
    if (out->length > 0) return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has two templates", r->where, r->name);
    return types[i].read(r, json, out);
  }
  return nb_step_unknown(r);
}

nibble_status nb_post_read(const char *where, const cJSON *json, nb_ids *template, nibble_error *err) {
  const nb_step_reader r = {.where = where, .name = "post_processor", .list = "processors", .err = err};
  nibble_status status = nb_steps_each(&r, json, add, template);
  return status == NIBBLE_OK && template->failed ? nb_fail_memory(err, template->length * sizeof(int32_t)) : status;
}
