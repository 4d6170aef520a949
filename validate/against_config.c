#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "model/family.h"
#include "model/heads.h"
#include "runner/model.h"
#include "validate/against.h"

static const char check[] = "against";

/* The first of the names of a key, "a|b|c". */
static int name_length(const char *names) { return (int)strcspn(names, "|"); }

static void find_difference(const nb_pair *p, const char *names, const char *now, const char *then) {
  nb_find(p->findings, NIBBLE_FAULT, check, "config-differs", nb_place_tensor(""),
          "config.json: %.*s is %s, and %s in the original: that is another model", name_length(names), names, now,
          then);
}

static void compare_ints(const nb_pair *p, const char *names, int64_t now, int64_t then) {
  char texts[2][32];
  if (now == then) return;
  snprintf(texts[0], sizeof texts[0], "%lld", (long long)now);
  snprintf(texts[1], sizeof texts[1], "%lld", (long long)then);
  find_difference(p, names, texts[0], texts[1]);
}

/* In float32, which is what files of other formats and the arithmetic have. */
static void compare_doubles(const nb_pair *p, const char *names, double now, double then) {
  char texts[2][32];
  if ((float)now == (float)then) return;
  snprintf(texts[0], sizeof texts[0], "%.9g", now);
  snprintf(texts[1], sizeof texts[1], "%.9g", then);
  find_difference(p, names, texts[0], texts[1]);
}

static void compare_bools(const nb_pair *p, const char *names, bool now, bool then) {
  if (now != then) find_difference(p, names, now ? "true" : "false", then ? "true" : "false");
}

/* Texts name activations; some have several names. */
static void compare_texts(const nb_pair *p, const char *names, const char *now, const char *then) {
  nb_activation a, b;
  if (strcmp(now, then) == 0) return;
  if (nb_activation_named(now, &a) && nb_activation_named(then, &b) && a == b) return;
  find_difference(p, names, now, then);
}

static void compare_key(const nb_pair *p, const nb_key_row *row) {
  const void *now = (const char *)&p->artifact->config + row->offset;
  const void *then = (const char *)&p->original->config + row->offset;
  switch (row->type) {
    case NB_KEY_INT: compare_ints(p, row->names, *(const int64_t *)now, *(const int64_t *)then); break;
    case NB_KEY_DOUBLE: compare_doubles(p, row->names, *(const double *)now, *(const double *)then); break;
    case NB_KEY_BOOL: compare_bools(p, row->names, *(const bool *)now, *(const bool *)then); break;
    case NB_KEY_TEXT: compare_texts(p, row->names, *(const char *const *)now, *(const char *const *)then); break;
    case NB_KEY_OTHER: break;
  }
}

static void compare_rope(const nb_pair *p) {
  const nb_rope *now = &p->artifact->config.rope, *then = &p->original->config.rope;
  compare_doubles(p, "rope_theta", now->theta, then->theta);
  if (now->type != then->type || (now->type == NB_ROPE_OTHER && strcmp(now->type_name, then->type_name) != 0))
    find_difference(p, "rope_type", now->type_name, then->type_name);
  if (now->type != then->type || now->type == NB_ROPE_DEFAULT) return; /* which reads no more */
  compare_doubles(p, "rope_scaling.factor", now->factor, then->factor);
  if (now->type == NB_ROPE_LINEAR) return;
  compare_doubles(p, "rope_scaling.low_freq_factor", now->low_freq_factor, then->low_freq_factor);
  compare_doubles(p, "rope_scaling.high_freq_factor", now->high_freq_factor, then->high_freq_factor);
  compare_ints(p, "rope_scaling.original_max_position_embeddings", now->original_max_position_embeddings,
               then->original_max_position_embeddings);
}

/* Which layers slide and which have experts, however the configs say so. */
static void compare_layers(const nb_pair *p) {
  const nb_config *now = &p->artifact->config, *then = &p->original->config;
  for (int64_t i = 0; i < now->num_hidden_layers && i < then->num_hidden_layers; i++) {
    if (now->layers[i] == then->layers[i]) continue;
    bool slides = (now->layers[i] ^ then->layers[i]) & NB_LAYER_SLIDING;
    nb_find(p->findings, NIBBLE_FAULT, check, "config-differs", nb_place_tensor(""),
            "config.json: layer %lld %s in the artifact and in the original not, or the other way round: that is "
            "another model",
            (long long)i, slides ? "attends to a sliding window" : "has experts");
    return;
  }
}

static bool has_eos(const nb_config *c, int64_t id) {
  for (int i = 0; i < c->eos_token_count; i++) {
    if (c->eos_token_ids[i] == id) return true;
  }
  return false;
}

/* A .gguf has room for one. */
bool nb_against_same_eos(const nb_pair *p) {
  const nb_config *now = &p->artifact->config, *then = &p->original->config;
  int shared = 0;
  for (int i = 0; i < now->eos_token_count; i++) shared += has_eos(then, now->eos_token_ids[i]);
  if (p->artifact->gguf || p->original->gguf) return shared || !now->eos_token_count || !then->eos_token_count;
  int shared_back = 0;
  for (int i = 0; i < then->eos_token_count; i++) shared_back += has_eos(now, then->eos_token_ids[i]);
  return shared == now->eos_token_count && shared_back == then->eos_token_count;
}

/* The text of a member, cut short; "absent" for NULL. */
static void print_value(const cJSON *value, char *out, size_t room) {
  static const nb_json_layout one_line = {.newline = "", .outer = "", .indent = "", .comma = ", ", .colon = ": "};
  nb_buf text = {0};
  if (value) nb_json_put(&text, value, &one_line);
  snprintf(out, room, "%s", !value ? "absent" : text.data ? text.data : "?");
  nb_buf_free(&text);
}

static void compare_fields(const nb_pair *p) {
  const nb_config *now = &p->artifact->config, *then = &p->original->config;
  for (nb_key key = NB_KEY_NONE + 1; key < NB_KEYS; key++) {
    if (nb_family_reads(now->family, key) && !nb_key_info(key)->is_folded) compare_key(p, nb_key_info(key));
  }
  bool is_made = !nb_family_reads(now->family, NB_KEY_HIDDEN_ACT) && now->hidden_act && then->hidden_act;
  if (is_made) compare_texts(p, "hidden_act", now->hidden_act, then->hidden_act); /* of several members */
  compare_bools(p, "is_gated_act", now->gated, then->gated);
  compare_bools(p, "scale_decoder_outputs", now->head_scaled, then->head_scaled);
  if (now->head->kind == NB_HEAD_CLASSIFY) compare_ints(p, "num_labels", now->num_labels, then->num_labels);
  if (now->family->rotary) compare_rope(p);
  compare_layers(p);
  if (!nb_against_same_eos(p)) {
    char texts[2][64];
    print_value(cJSON_GetObjectItemCaseSensitive(now->json, "eos_token_id"), texts[0], sizeof texts[0]);
    print_value(cJSON_GetObjectItemCaseSensitive(then->json, "eos_token_id"), texts[1], sizeof texts[1]);
    find_difference(p, "eos_token_id", texts[0], texts[1]);
  }
}

/* ---- the members that are not read ---- */

/* What whoever quantizes or saves a model writes, and what is compared by itself. */
static bool is_expected(const nb_pair *p, const char *name) {
  static const char *const names[] = {"quantization_config",  "torch_dtype",   "dtype",
                                      "transformers_version", "_name_or_path", "architectures",
                                      "model_type",           "eos_token_id",  "tie_word_embeddings"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(names[i], name) == 0) return true;
  }
  return nb_family_reads_member(p->artifact->config.family, name);
}

/* One member; now or then NULL: it is not there. */
static nibble_status compare_member(const nb_pair *p, const cJSON *now, const cJSON *then, nb_buf *others,
                                    nibble_error *err) {
  char texts[2][64];
  bool same;
  const char *name = now ? now->string : then->string;
  if (is_expected(p, name)) return NIBBLE_OK;
  if (!nb_json_same(now, then, &same)) return nb_fail_memory(err, sizeof(cJSON));
  if (same) return NIBBLE_OK;
  print_value(now, texts[0], sizeof texts[0]);
  print_value(then, texts[1], sizeof texts[1]);
  bool may_matter = !p->artifact->config.family && nb_key_named(name);
  if (may_matter || nb_member_matters(now) || nb_member_matters(then))
    find_difference(p, name, texts[0], texts[1]);
  else if (others->length < NIBBLE_MESSAGE_MAX)
    nb_buf_printf(others, "%s%s is %s (%s)", others->length ? ", " : "", name, texts[0], texts[1]);
  return NIBBLE_OK;
}

static nibble_status compare_members(const nb_pair *p, nibble_error *err) {
  const cJSON *now = p->artifact->config.json, *then = p->original->config.json;
  nb_strmap by_name_now, by_name_then;
  nb_buf others = {0};
  bool indexed = nb_json_index(now, &by_name_now);
  nibble_status status = nb_json_index(then, &by_name_then) && indexed ? NIBBLE_OK : nb_fail_memory(err, sizeof *now);
  for (const cJSON *item = now->child; status == NIBBLE_OK && item; item = item->next)
    status = compare_member(p, item, nb_json_indexed(&by_name_then, item->string), &others, err);
  for (const cJSON *item = then->child; status == NIBBLE_OK && item; item = item->next) {
    if (!nb_json_indexed(&by_name_now, item->string)) status = compare_member(p, NULL, item, &others, err);
  }
  if (status == NIBBLE_OK && others.failed) status = nb_fail_memory(err, others.length);
  if (status == NIBBLE_OK && others.length)
    nb_find(p->findings, NIBBLE_WARNING, check, "config-differs-elsewhere", nb_place_tensor(""),
            "config.json differs from the original's in what is not read here: %s", others.data);
  nb_buf_free(&others);
  nb_strmap_free(&by_name_now);
  nb_strmap_free(&by_name_then);
  return status;
}

nibble_status nb_against_config(const nb_pair *p, nibble_error *err) {
  const nb_config *now = &p->artifact->config, *then = &p->original->config;
  if (strcmp(now->model_type, then->model_type) != 0) {
    find_difference(p, "model_type", now->model_type, then->model_type);
    return NIBBLE_OK; /* nothing else can be compared */
  }
  if (now->family && now->head != then->head)
    find_difference(p, "architectures", now->architecture, then->architecture);
  if (now->family) compare_fields(p);
  if (now->family && now->tie_word_embeddings != then->tie_word_embeddings && !now->tie_is_loose)
    nb_find(
        p->findings, NIBBLE_WARNING, check, "config-differs-elsewhere", nb_place_tensor(""),
        "config.json: tie_word_embeddings is %s, and not so in the original; the head itself is compared as a weight",
        now->tie_word_embeddings ? "true" : "false");
  /* A .gguf has no config.json: what it does not say is not different. */
  return p->artifact->gguf || p->original->gguf ? NIBBLE_OK : compare_members(p, err);
}
