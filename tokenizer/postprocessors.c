/* Post-processors: the special tokens around the ids of a text or of two, as templates that are read once, and what
 * becomes of offsets. */
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "model/json.h"
#include "tokenizer/steps.h"

enum {
  MAX_TEMPLATE = 256, /* pieces */
  MAX_TEXTS = 4,      /* of them texts: each is all the work again. Templates in use have one or two */
};

static void add_piece(nb_step_reader *r, nb_post_template *out, nb_post_piece piece) {
  int texts = 0;
  for (size_t i = 0; i < out->count; i++) texts += out->pieces[i].id < 0;
  if (piece.id < 0 && texts == MAX_TEXTS)
    nb_step_fail(r, "has the text more than %d times", MAX_TEXTS);
  else if (out->count == MAX_TEMPLATE)
    nb_step_fail(r, "has more than %d pieces", MAX_TEMPLATE);
  if (r->status != NIBBLE_OK) return;
  if (!out->pieces && !(out->pieces = calloc(MAX_TEMPLATE, sizeof *out->pieces)))
    r->status = nb_fail_memory(r->err, MAX_TEMPLATE * sizeof *out->pieces);
  else
    out->pieces[out->count++] = piece;
}

static void add_special(nb_step_reader *r, nb_post_template *out, const cJSON *id, int32_t type_id) {
  if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < NB_MAX_ID))
    nb_step_fail(r, "has an id that is none");
  else
    add_piece(r, out, (nb_post_piece){(int32_t)id->valuedouble, type_id});
}

/* `texts`: how many there are, which the template may name. */
static void read_piece(nb_step_reader *r, const cJSON *json, int texts, nb_post_template *out) {
  const cJSON *special = nb_json_object(json, "SpecialToken"), *sequence = nb_json_object(json, "Sequence");
  const char *name = "";
  int64_t type_id = 0;
  r->status = nb_json_string(r->where, special ? special : sequence, "id", &name, r->err);
  if (r->status == NIBBLE_OK)
    r->status =
        nb_json_int(r->where, special ? special : sequence, "type_id", (nb_range){0, INT32_MAX}, &type_id, r->err);
  if (r->status == NIBBLE_OK && sequence && strlen(name) == 1 && name[0] >= 'A' && name[0] < 'A' + texts) {
    add_piece(r, out, (nb_post_piece){name[0] == 'A' ? NB_FIRST_TEXT : NB_SECOND_TEXT, (int32_t)type_id});
    return;
  }
  const cJSON *known = special ? nb_json_object(nb_json_object(r->json, "special_tokens"), name) : NULL;
  const cJSON *ids = cJSON_GetObjectItemCaseSensitive(known, "ids");
  if (!cJSON_IsArray(ids)) nb_step_fail(r, "has a piece '%s' that it does not define", name);
  for (const cJSON *id = ids ? ids->child : NULL; id && r->status == NIBBLE_OK; id = id->next)
    add_special(r, out, id, (int32_t)type_id);
}

static void read_pieces(nb_step_reader *r, const cJSON *list, int texts, nb_post_template *out) {
  for (const cJSON *json = list ? list->child : NULL; json && r->status == NIBBLE_OK; json = json->next)
    read_piece(r, json, texts, out);
}

static void read_template(nb_step_reader *r, nb_post *out) {
  const cJSON *single = cJSON_GetObjectItemCaseSensitive(r->json, "single");
  if (!cJSON_IsArray(single)) nb_step_fail(r, "has no \"single\"");
  read_pieces(r, single, 1, &out->single);
  read_pieces(r, cJSON_GetObjectItemCaseSensitive(r->json, "pair"), 2, &out->pair);
  if (out->single.count == 0) nb_step_fail(r, "has an empty template");
}

static void add_trim(nb_step_reader *r, nb_post *out, bool trims) {
  nb_post_trim trim = {.prefix_space = true};
  nb_step_bool(r, "trim_offsets", &trims);
  nb_step_bool(r, "add_prefix_space", &trim.prefix_space);
  if (trims && nb_step_room(r, out->trim_count)) out->trims[out->trim_count++] = trim;
}

/* "cls" and "sep", each [token, id], around the text; the second one is `joined` by sep. */
static void read_cls_sep(nb_step_reader *r, nb_post *out, bool joined, int32_t second_type) {
  const cJSON *cls = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(r->json, "cls"), 1);
  const cJSON *sep = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(r->json, "sep"), 1);
  nb_post_template *templates[] = {&out->single, &out->pair};
  for (int i = 0; i < 2; i++) {
    add_special(r, templates[i], cls, 0);
    add_piece(r, templates[i], (nb_post_piece){NB_FIRST_TEXT, 0});
    add_special(r, templates[i], sep, 0);
  }
  if (joined) add_special(r, &out->pair, sep, second_type);
  add_piece(r, &out->pair, (nb_post_piece){NB_SECOND_TEXT, second_type});
  add_special(r, &out->pair, sep, second_type);
}

static void read_bert(nb_step_reader *r, nb_post *out) { read_cls_sep(r, out, false, 1); }

static void read_roberta(nb_step_reader *r, nb_post *out) {
  add_trim(r, out, true);
  read_cls_sep(r, out, true, 0);
  out->zero_types = true;
}

static void read_byte_level(nb_step_reader *r, nb_post *out) { add_trim(r, out, true); }

static const struct step_type {
  const char *type;
  void (*read)(nb_step_reader *r, nb_post *out);
  bool is_template;
  bool behind[2]; /* nb_post_trim's, of the steps behind it */
} types[] = {
    {"ByteLevel", read_byte_level, false, {false, false}},
    {"TemplateProcessing", read_template, true, {false, false}}, /* its pieces stay apart until the end */
    {"RobertaProcessing", read_roberta, true, {true, true}},
    {"BertProcessing", read_bert, true, {true, false}},
};

typedef struct reading {
  nb_post *out;
  const struct step_type *template; /* that was read; NULL: none yet */
} reading;

static void add(nb_step_reader *r, const void *row, void *ctx) {
  const struct step_type *type = row;
  reading *reading = ctx;
  if (type->is_template && reading->template) nb_step_fail(r, "is one of two templates");
  if (r->status != NIBBLE_OK) return;
  nb_post *out = reading->out;
  int before = out->trim_count;
  type->read(r, out);
  for (int i = before; reading->template && i < out->trim_count; i++)
    memcpy(out->trims[i].behind, reading->template->behind, sizeof out->trims[i].behind);
  if (type->is_template) reading->template = type;
}

nibble_status nb_post_read(const char *where, const cJSON *parts, nb_post *out, nibble_error *err) {
  nb_step_reader r = {
      .where = where, .group = "post_processor", .list = "processors", .types = NB_STEP_TYPES(types), .err = err};
  reading reading = {.out = out};
  return nb_steps_each(&r, parts, add, &reading);
}

void nb_post_free(nb_post *post) {
  free(post->single.pieces);
  free(post->pair.pieces);
  *post = (nb_post){0};
}
