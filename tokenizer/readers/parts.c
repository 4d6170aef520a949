#include "tokenizer/readers/parts.h"

#include <string.h>

#include "model/json.h"

cJSON *nb_part_sequence(const char *key, cJSON *steps) {
  return nb_json_put_in(nb_json_make("type:s", "Sequence"), key, steps);
}

cJSON *nb_part_replace(const char *what, const char *by) {
  return nb_json_make("type:s pattern:o content:s", "Replace", nb_json_make("String:s", what), by);
}

cJSON *nb_part_replace_regex(const char *regex, const char *by) {
  return nb_json_make("type:s pattern:o content:s", "Replace", nb_json_make("Regex:s", regex), by);
}

cJSON *nb_part_split(const char *regex) {
  return nb_json_make("type:s pattern:o behavior:s invert:b", "Split", nb_json_make("Regex:s", regex), "Isolated",
                      false);
}

cJSON *nb_part_metaspace(const char *prepend_scheme, bool split) {
  return nb_json_make("type:s replacement:s prepend_scheme:s split:b", "Metaspace", NB_METASPACE, prepend_scheme,
                      split);
}

cJSON *nb_part_byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return nb_json_make("type:s add_prefix_space:b trim_offsets:b use_regex:b", "ByteLevel", add_prefix_space,
                      trim_offsets, use_regex);
}

cJSON *nb_part_strip_first(const char *content) {
  return nb_json_make("type:s content:s start:i stop:i", "Strip", content, 1, 0);
}

cJSON *nb_part_added(nb_part_token token) {
  return nb_json_make("id:i content:s single_word:b lstrip:b rstrip:b normalized:b special:b", token.id, token.text,
                      false, false, false, token.normalized, token.special);
}

/* ---- the template ---- */

static cJSON *special_piece(const nb_part_token *token, int type_id) {
  return nb_json_make("SpecialToken:o", nb_json_make("id:s type_id:i", token->text, type_id));
}

/* One text or two, "A" and "B", each between the special tokens. */
static cJSON *template(const nb_part_token *before, const nb_part_token *after, int texts) {
  static const char *const names[] = {"A", "B"};
  cJSON *pieces = cJSON_CreateArray();
  for (int i = 0; i < texts; i++) {
    if (before) pieces = nb_json_push(pieces, special_piece(before, i));
    pieces = nb_json_push(pieces, nb_json_make("Sequence:o", nb_json_make("id:s type_id:i", names[i], i)));
    if (after) pieces = nb_json_push(pieces, special_piece(after, i));
  }
  return pieces;
}

static cJSON *special_token(const nb_part_token *token) {
  return nb_json_make("id:s ids:o tokens:o", token->text,
                      nb_json_push(cJSON_CreateArray(), cJSON_CreateNumber(token->id)),
                      nb_json_push(cJSON_CreateArray(), cJSON_CreateString(token->text)));
}

cJSON *nb_part_template(const nb_part_token *before, const nb_part_token *after) {
  cJSON *specials = cJSON_CreateObject();
  if (before) specials = nb_json_put_in(specials, before->text, special_token(before));
  if (after && !(before && strcmp(before->text, after->text) == 0))
    specials = nb_json_put_in(specials, after->text, special_token(after));
  return nb_json_make("type:s single:o pair:o special_tokens:o", "TemplateProcessing", template(before, after, 1),
                      template(before, after, 2), specials);
}

/* ---- the whole ---- */

static cJSON *text_or_null(const char *text) { return text ? cJSON_CreateString(text) : cJSON_CreateNull(); }

cJSON *nb_part_bpe_model(const nb_part_bpe *bpe) {
  return nb_json_make(
      "type:s dropout:z unk_token:o continuing_subword_prefix:o end_of_word_suffix:o fuse_unk:b "
      "byte_fallback:b ignore_merges:b",
      "BPE", text_or_null(bpe->unk_token), text_or_null(bpe->prefix), text_or_null(bpe->suffix), bpe->fuse_unk,
      bpe->byte_fallback, bpe->ignore_merges);
}

nibble_status nb_parts_finish(nb_parts p, nb_tokenizer_spec *out, nibble_error *err) {
  out->parts = nb_json_make(
      "version:s truncation:z padding:z added_tokens:o normalizer:o pre_tokenizer:o "
      "post_processor:o decoder:o model:o",
      "1.0", p.added, p.normalizer, p.pre_tokenizer, p.post_processor, p.decoder, p.model);
  return out->parts ? NIBBLE_OK : nb_fail_memory(err, sizeof *out->parts);
}
