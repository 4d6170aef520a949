/* Post-processors: the special tokens around the ids of a text, as a template that is read once. */
#include <string.h>

#include "model/json.h"
#include "tokenizer/steps.h"

enum {
  MAX_TEMPLATE = 256, /* pieces */
  MAX_TEXTS = 4,      /* of them the text: each is all the work again. Templates in use have one */
};

static void add_id(nb_step_reader *r, const cJSON *json, nb_ids *out) {
  if (!cJSON_IsNumber(json) || !(json->valuedouble >= 0 && json->valuedouble < NB_MAX_ID))
    nb_step_fail(r, "has an id that is none");
  else if (out->length >= MAX_TEMPLATE)
    nb_step_fail(r, "has more than %d pieces", MAX_TEMPLATE);
  else
    nb_ids_append(out, &(int32_t){(int32_t)json->valuedouble}, 1);
}

static void add_text(nb_step_reader *r, nb_ids *out) {
  int texts = 0;
  for (size_t i = 0; i < out->length; i++) texts += out->data[i] < 0;
  if (texts == MAX_TEXTS)
    nb_step_fail(r, "has the text more than %d times", MAX_TEXTS);
  else if (out->length >= MAX_TEMPLATE)
    nb_step_fail(r, "has more than %d pieces", MAX_TEMPLATE);
  else
    nb_ids_append(out, &(int32_t){-1}, 1);
}

static void add_piece(nb_step_reader *r, const cJSON *piece, nb_ids *out) {
  const cJSON *special = nb_json_object(piece, "SpecialToken"), *sequence = nb_json_object(piece, "Sequence");
  const char *name = "";
  r->status = nb_json_string(r->where, special ? special : sequence, "id", &name, r->err);
  if (r->status == NIBBLE_OK && sequence && strcmp(name, "A") == 0) {
    add_text(r, out);
    return;
  }
  const cJSON *known = special ? nb_json_object(nb_json_object(r->json, "special_tokens"), name) : NULL;
  const cJSON *ids = cJSON_GetObjectItemCaseSensitive(known, "ids");
  if (!cJSON_IsArray(ids)) nb_step_fail(r, "has a piece '%s' that it does not define", name);
  for (const cJSON *id = ids ? ids->child : NULL; id && r->status == NIBBLE_OK; id = id->next) add_id(r, id, out);
}

static void read_template(nb_step_reader *r, nb_ids *out) {
  const cJSON *single = cJSON_GetObjectItemCaseSensitive(r->json, "single");
  if (!cJSON_IsArray(single)) nb_step_fail(r, "has no \"single\"");
  for (const cJSON *piece = single ? single->child : NULL; piece && r->status == NIBBLE_OK; piece = piece->next)
    add_piece(r, piece, out);
  if (out->length == 0) nb_step_fail(r, "has an empty template");
}

/* "cls" and "sep", each [token, id], around the text. */
static void read_cls_sep(nb_step_reader *r, nb_ids *out) {
  add_id(r, cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(r->json, "cls"), 1), out);
  nb_ids_append(out, &(int32_t){-1}, 1);
  add_id(r, cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(r->json, "sep"), 1), out);
}

static const struct step_type {
  const char *type;
  void (*read)(nb_step_reader *r, nb_ids *out); /* the template; NULL: the type changes no ids */
} types[] = {
    {"ByteLevel", NULL}, /* moves offsets */
    {"TemplateProcessing", read_template},
    {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
};

static void add(nb_step_reader *r, const void *row, void *ctx) {
  const struct step_type *type = row;
  nb_ids *out = ctx;
  if (type->read && out->length > 0) nb_step_fail(r, "is one of two templates");
  if (type->read && r->status == NIBBLE_OK) type->read(r, out);
}

nibble_status nb_post_read(const char *where, const cJSON *parts, nb_ids *template, nibble_error *err) {
  nb_step_reader r = {
      .where = where, .group = "post_processor", .list = "processors", .types = NB_STEP_TYPES(types), .err = err};
  nibble_status status = nb_steps_each(&r, parts, add, template);
  return status == NIBBLE_OK && template->failed ? nb_fail_memory(err, template->length * sizeof(int32_t)) : status;
}
