#include "validate/certified.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/json.h"
#include "validate/figures.h"
#include "validate/thresholds.h"

static const char *const depths[NB_DEPTHS] = {
    [NB_DEPTH_STRUCTURE] = "structure", [NB_DEPTH_WEIGHTS] = "weights", [NB_DEPTH_BEHAVIOUR] = "behaviour"};

const char *nb_depth_name(nb_depth depth) { return depths[depth]; }

nb_depth nb_depth_reached(const nibble_verification *v) {
  return v->behaviour ? NB_DEPTH_BEHAVIOUR : *v->original ? NB_DEPTH_WEIGHTS : NB_DEPTH_STRUCTURE;
}

static double number(const cJSON *json, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
  return cJSON_IsNumber(item) ? item->valuedouble : (double)NAN;
}

static nibble_status read_weights(const cJSON *list, nb_weights *out, nibble_error *err) {
  size_t count = 0;
  for (const cJSON *item = list ? list->child : NULL; item; item = item->next) count++;
  if (!(out->rows = nb_alloc(count + 1, sizeof *out->rows)))
    return nb_fail_memory(err, (count + 1) * sizeof *out->rows);
  for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
    nibble_weight_error *row = &out->rows[out->count];
    *row = (nibble_weight_error){.tensor = strdup(item->string),
                                 .format = "",
                                 .relative_error = number(item, "relative_error"),
                                 .expected_error = number(item, "expected_error"),
                                 .snr_db = number(item, "snr_db"),
                                 .first_damaged_block = -1,
                                 .cause = ""};
    if (!row->tensor) return nb_fail_memory(err, strlen(item->string));
    out->count++;
    nibble_status status = nb_json_string("certificate", item, "format", &row->format, err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

static nibble_status read_behaviour(const char *where, const cJSON *json, nb_certified *out, nibble_error *err) {
  const cJSON *behaviour = nb_json_object(json, "behaviour"), *limits = nb_json_object(json, "thresholds"),
              *text = nb_json_object(json, "text");
  nibble_behaviour *b = &out->behaviour;
  nibble_thresholds *t = &out->thresholds;
  if (!behaviour || !limits || !text)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: its certificate has no \"behaviour\", \"thresholds\" or \"text\"",
                   where);
  nb_figures_read(behaviour, b);
  b->parting_block = -1;
  *t = (nibble_thresholds){.profile = "",
                           .max_kl = number(limits, "max_kl"),
                           .max_ppl_increase = number(limits, "max_ppl_increase"),
                           .min_top1 = number(limits, "min_top1")};
  nibble_status status = nb_json_int(where, behaviour, "tokens", (nb_range){0, INT64_C(1) << 53}, &b->tokens, err);
  if (status == NIBBLE_OK) status = nb_json_int(where, behaviour, "ctx", (nb_range){0, INT32_MAX}, &b->ctx, err);
  if (status == NIBBLE_OK)
    status = nb_json_int(where, behaviour, "chunks", (nb_range){0, INT64_C(1) << 53}, &b->chunks, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, limits, "profile", &t->profile, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, limits, "limits_of", &out->limits_of, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, text, "name", &out->text, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, text, "sha256", &out->text_sha256, err);
  return status;
}

nibble_status nb_certified_read(const char *where, const cJSON *json, nb_certified *out, nibble_error *err) {
  const char *depth = "", *verdict = "";
  *out = (nb_certified){.original = "", .text = "", .text_sha256 = "", .limits_of = ""};
  nibble_status status = nb_json_string(where, json, "depth", &depth, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, json, "verdict", &verdict, err);
  if (status == NIBBLE_OK) status = nb_json_int(where, json, "tensors", (nb_range){0, INT32_MAX}, &out->tensors, err);
  if (status == NIBBLE_OK)
    status = nb_json_int(where, json, "packed_weights", (nb_range){0, INT32_MAX}, &out->packed_weights, err);
  const cJSON *source = nb_json_object(json, "source");
  if (status == NIBBLE_OK && source) status = nb_json_string(where, source, "name", &out->original, err);
  if (status != NIBBLE_OK) return status;
  out->sound = strcmp(verdict, "sound") == 0;
  while (out->depth < NB_DEPTHS && strcmp(depths[out->depth], depth) != 0) out->depth++;
  if (out->depth == NB_DEPTHS)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: its certificate's \"depth\" is '%s'", where, depth);
  if (out->depth == NB_DEPTH_BEHAVIOUR) status = read_behaviour(where, json, out, err);
  if (status == NIBBLE_OK) status = read_weights(nb_json_object(json, "weights"), &out->weights, err);
  return status;
}

void nb_certified_judge(const cJSON *json, const nb_certified *c, const nibble_thresholds *asked,
                        nb_findings *findings) {
  static const char check[] = "certificate";
  nb_place whole = nb_place_tensor("");
  const cJSON *reasons = cJSON_GetObjectItemCaseSensitive(json, "reasons");
  if (!c->sound)
    nb_find(findings, NIBBLE_FAULT, check, "certified-as-failed", whole,
            "the certificate says that the artifact failed its checks");
  else if (reasons && reasons->child)
    nb_find(findings, NIBBLE_FAULT, check, "certificate-contradicts-itself", whole,
            "the certificate says \"sound\", and gives reasons why it is not");
  if (c->depth == NB_DEPTH_BEHAVIOUR) {
    nb_thresholds_check(&c->thresholds, &c->behaviour, findings);
    if (asked) nb_thresholds_check(asked, &c->behaviour, findings);
  } else if (asked) {
    nb_find(findings, NIBBLE_FAULT, check, "behaviour-not-certified", whole,
            "thresholds are asked for, but the certificate is of the %s only", depths[c->depth]);
  }
}
