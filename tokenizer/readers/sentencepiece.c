/* A SentencePiece model into the tokenizer that transformers makes of it where no class of its own says otherwise
 * (convert_slow_tokenizer.py, build_tokenizer_from_spm_proto), which reads text as SentencePiece does: its normalizer,
 * white space as U+2581, merges by the pieces' scores, user-defined pieces whole. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/spm_model.h"

/* ---- merges ---- */

typedef struct scored {
  double score;
  int32_t id;
} scored;

/* The best score first, then the lowest id. */
static int by_score(const void *a, const void *b) {
  const scored *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->id > y->id) - (x->id < y->id);
}

/* Trained models are in order already. */
static bool is_sorted(const scored *list, size_t count) {
  for (size_t i = 1; i < count; i++) {
    if (by_score(&list[i - 1], &list[i]) > 0) return false;
  }
  return true;
}

static nibble_status make_order(const nb_vocab *vocab, int32_t **out, nibble_error *err) {
  int32_t *order = *out = nb_alloc((uint64_t)vocab->count, sizeof *order);
  if (!order) return nb_fail_memory(err, (size_t)vocab->count * sizeof *order);
  for (int32_t id = 0; id < vocab->count; id++) order[id] = -1;
  return NIBBLE_OK;
}

/* Normal pieces merge into normal ones, the best-scored first. */
static nibble_status order_by_score(const nb_vocab *vocab, nb_merges *merges, nibble_error *err) {
  size_t count = 0;
  scored *list = nb_alloc((uint64_t)vocab->count, sizeof *list);
  if (!list) return nb_fail_memory(err, (size_t)vocab->count * sizeof *list);
  for (int32_t id = 0; id < vocab->count; id++) {
    if (nb_vocab_type(vocab, id) == NB_TOKEN_NORMAL) list[count++] = (scored){vocab->scores[id], id};
  }
  if (!is_sorted(list, count)) qsort(list, count, sizeof *list, by_score);
  nibble_status status = make_order(vocab, &merges->order, err);
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) merges->order[list[i].id] = (int32_t)i;
  free(list);
  return status;
}

nibble_status nb_spm_merges_by_id(const nb_vocab *vocab, nb_merges *merges, nibble_error *err) {
  free(merges->order);
  nibble_status status = make_order(vocab, &merges->order, err);
  for (int32_t id = 0; id < vocab->count && status == NIBBLE_OK; id++) merges->order[id] = id;
  return status;
}

/* ---- added tokens ---- */

/* Control pieces, and those that the settings name: they stand for no text. */
static nibble_status add_special(const char *where, const nb_spm_model *m, cJSON **list, nibble_error *err) {
  const char *const named[] = {m->bos, m->eos, m->unk};
  int32_t ids[3], next = m->vocab.count;
  for (int i = 0; i < 3; i++) {
    ids[i] = named[i] ? nb_vocab_id(&m->vocab, named[i], strlen(named[i])) : -1;
    if (named[i] && ids[i] < 0) ids[i] = next++;
  }
  *list = cJSON_CreateArray();
  for (int32_t id = 0; id < next; id++) {
    int name = id == ids[0] ? 0 : id == ids[1] ? 1 : id == ids[2] ? 2 : -1;
    if (name < 0 && nb_vocab_type(&m->vocab, id) != NB_TOKEN_CONTROL) continue;
    nb_str text = id < m->vocab.count ? nb_vocab_text(&m->vocab, id) : (nb_str){named[name], strlen(named[name])};
    if (memchr(text.data, 0, text.length))
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: piece %d, which is a special one, has a NUL character", where, id);
    *list = nb_json_push(*list, nb_part_added((nb_part_token){id, text.data, false, true}));
  }
  return NIBBLE_OK;
}

static nibble_status name_tokens(const nb_spm_model *m, cJSON **out, nibble_error *err) {
  const char *const keys[] = {"bos_token", "eos_token", "unk_token"}, *const texts[] = {m->bos, m->eos, m->unk};
  *out = cJSON_CreateObject();
  for (int i = 0; i < 3; i++) {
    if (texts[i]) *out = nb_json_put_in(*out, keys[i], cJSON_CreateString(texts[i]));
  }
  return *out ? NIBBLE_OK : nb_fail_memory(err, sizeof **out);
}

/* ---- user-defined pieces ---- */

static int longest_first(const void *a, const void *b) {
  const nb_str *x = a, *y = b;
  size_t m = 0, n = 0; /* in characters, as the reference counts them */
  for (size_t i = 0; i < x->length; i++) m += nb_utf8_begins(x->data[i]);
  for (size_t i = 0; i < y->length; i++) n += nb_utf8_begins(y->data[i]);
  if (m != n) return m > n ? -1 : 1;
  return (x->data > y->data) - (x->data < y->data); /* the file's order */
}

static void put_escaped(nb_str text, nb_buf *out) {
  for (size_t i = 0; i < text.length; i++) {
    if (strchr("\\^$.|?*+()[]{}", text.data[i])) nb_buf_puts(out, "\\");
    nb_buf_append(out, &text.data[i], 1);
  }
}

/* A pattern that matches any of them, the longest first; it stays empty where there are none. */
static nibble_status user_pattern(const char *where, const nb_vocab *vocab, nb_buf *out, nibble_error *err) {
  size_t count = 0;
  nb_str *pieces = nb_alloc((uint64_t)vocab->count, sizeof *pieces);
  if (!pieces) return nb_fail_memory(err, (size_t)vocab->count * sizeof *pieces);
  nibble_status status = NIBBLE_OK;
  for (int32_t id = 0; id < vocab->count && status == NIBBLE_OK; id++) {
    if (nb_vocab_type(vocab, id) != NB_TOKEN_USER) continue;
    pieces[count] = nb_vocab_text(vocab, id);
    if (memchr(pieces[count].data, 0, pieces[count].length))
      status =
          nb_fail(err, NIBBLE_BAD_INPUT, "%s: piece %d, which is a user-defined one, has a NUL character", where, id);
    count++;
  }
  if (count > 0) qsort(pieces, count, sizeof *pieces, longest_first);
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) {
    if (i > 0) nb_buf_puts(out, "|");
    put_escaped(pieces[i], out);
  }
  free(pieces);
  return status == NIBBLE_OK && out->failed ? nb_fail_memory(err, out->length) : status;
}

/* ---- the parts ---- */

/* transformers reads neither models of whole words nor white space as a suffix: they are read as SentencePiece does. */
static bool is_own(const nb_spm_model *m) { return m->kind == NB_SPM_WORD || m->space_as_suffix; }

/* The end of a text, where SentencePiece takes every U+2581 for a space, and puts one if it is a suffix. */
static cJSON *push_end(cJSON *steps, const nb_spm_model *m) {
  bool adds = m->space_as_suffix && m->add_dummy_prefix;
  if (m->remove_extra_whitespaces && adds)
    return nb_json_push(steps, nb_part_replace_regex(NB_METASPACE "+\\z|(?<=[^" NB_METASPACE "])\\z", NB_METASPACE));
  if (m->remove_extra_whitespaces) return nb_json_push(steps, nb_part_replace_regex(NB_METASPACE "+\\z", ""));
  return adds ? nb_json_push(steps, nb_part_replace_regex("(?<=[\\s\\S])\\z", NB_METASPACE)) : steps;
}

static cJSON *normalizer(const nb_spm_model *m, bool legacy) {
  cJSON *steps = cJSON_CreateArray();
  bool longest = is_own(m) || m->longest_match;
  cJSON *map = m->charsmap ? nb_json_make("type:s precompiled_charsmap:s", "Precompiled", m->charsmap) : NULL;
  if (map && longest) map = nb_json_put_in(map, "longest", cJSON_CreateTrue());
  if (m->charsmap) steps = nb_json_push(steps, map);
  if (m->remove_extra_whitespaces) {
    steps = nb_json_push(steps, nb_part_replace_regex("\\A +| +\\z", ""));
    steps = nb_json_push(steps, nb_part_replace_regex(" {2,}", " "));
  }
  if (m->escape_whitespaces) steps = nb_json_push(steps, nb_part_replace(" ", NB_METASPACE));
  if (is_own(m) && m->escape_whitespaces) steps = push_end(steps, m);
  /* Metaspace leaves a text alone that begins with U+2581 already; SentencePiece does not. */
  if (m->add_dummy_prefix && !m->space_as_suffix && legacy)
    steps = nb_json_push(steps, nb_part_replace_regex("\\A" NB_METASPACE, NB_METASPACE NB_METASPACE));
  return nb_part_sequence("normalizers", steps);
}

static cJSON *pre_tokenizer(const nb_spm_model *m, bool legacy, const nb_buf *users) {
  cJSON *steps = cJSON_CreateArray();
  bool has_prefix = m->add_dummy_prefix && !m->space_as_suffix;
  bool has_users = users->length > 0 && m->kind != NB_SPM_WORD; /* a word is whole anyway */
  if (has_prefix) steps = nb_json_push(steps, nb_part_metaspace(legacy ? "always" : "first", false));
  if (has_users) steps = nb_json_push(steps, nb_part_split(users->data));
  if (has_prefix || has_users) return nb_part_sequence("pretokenizers", steps);
  cJSON_Delete(steps);
  return cJSON_CreateNull();
}

static cJSON *decoder(const nb_spm_model *m) {
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_part_replace(NB_METASPACE, " "));
  if (m->byte_fallback) steps = nb_json_push(steps, nb_json_make("type:s", "ByteFallback"));
  if (m->byte_fallback || m->add_dummy_prefix) steps = nb_json_push(steps, nb_json_make("type:s", "Fuse"));
  if (m->add_dummy_prefix) steps = nb_json_push(steps, nb_part_strip_first(" "));
  return nb_part_sequence("decoders", steps);
}

static cJSON *model(const nb_spm_model *m, bool has_users) {
  if (m->kind == NB_SPM_WORD)
    return nb_json_make("type:s unk_id:i byte_fallback:b", "SentencePieceWord", m->unk_id, m->byte_fallback);
  if (m->kind == NB_SPM_UNIGRAM)
    return nb_json_make("type:s unk_id:o byte_fallback:b", "Unigram",
                        m->unk_id < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(m->unk_id), m->byte_fallback);
  return nb_part_bpe_model(&(nb_part_bpe){
      .unk_token = m->unk, .fuse_unk = true, .byte_fallback = m->byte_fallback, .ignore_merges = has_users});
}

nibble_status nb_spm_spec(const char *where, nb_spm_model *m, bool legacy, cJSON *post_processor,
                          nb_tokenizer_spec *out, nibble_error *err) {
  nb_buf users = {0};
  nb_parts parts = {.post_processor = post_processor};
  nibble_status status = user_pattern(where, &m->vocab, &users, err);
  bool merges = m->kind == NB_SPM_BPE || m->kind == NB_SPM_CHAR;
  if (status == NIBBLE_OK && merges) status = order_by_score(&m->vocab, &out->merges, err);
  if (status == NIBBLE_OK) status = add_special(where, m, &parts.added, err);
  if (status == NIBBLE_OK) status = name_tokens(m, &out->named, err);
  if (status == NIBBLE_OK) {
    parts.normalizer = normalizer(m, legacy);
    parts.pre_tokenizer = pre_tokenizer(m, legacy, &users);
    parts.decoder = decoder(m);
    parts.model = model(m, users.length > 0);
    out->vocab = m->vocab;
    m->vocab = (nb_vocab){0};
    status = nb_parts_finish(parts, out, err);
  } else {
    cJSON_Delete(parts.added);
    cJSON_Delete(post_processor);
  }
  nb_buf_free(&users);
  return status;
}

nibble_status nb_read_sentencepiece(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  if (nb_tiktoken_is(file->text)) return nb_read_tiktoken(file, out, err);
  nb_spm_model m;
  nibble_status status = nb_spm_parse(file->path, file->text, &m, err);
  if (status == NIBBLE_OK) status = nb_spm_spec(file->path, &m, true, nb_part_template(NULL, NULL), out, err);
  nb_spm_free(&m);
  return status;
}
