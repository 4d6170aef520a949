/* The kinds of tokenizers that GGUF files hold. The parts are those that the tokenizers library has for the same model.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "convert/gguf_tokenizer.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/spm_model.h"

#define SPACE "\u2581"

typedef nb_gguf_tokenizer_reader reader;

/* ---- what the kinds share ---- */

static bool is_special(int type) { return type == NB_TOKEN_CONTROL || type == NB_TOKEN_UNKNOWN; }

bool nb_gguf_token_is_added(const nb_vocab *vocab, int32_t id) {
  int type = nb_vocab_type(vocab, id);
  return is_special(type) || type == NB_TOKEN_USER;
}

static size_t spell_as_it_is(nb_str token, int type, char *out) {
  (void)type;
  if (token.length > 0) memcpy(out, token.data, token.length);
  return token.length;
}

static const char *text_of(const reader *r, int32_t id) {
  return id < 0 ? NULL : nb_vocab_text(&r->spec->vocab, id).data;
}

static cJSON *added_tokens(const reader *r) {
  const nb_vocab *vocab = &r->spec->vocab;
  cJSON *list = cJSON_CreateArray();
  for (int32_t id = 0; id < vocab->count && list; id++) {
    if (!nb_gguf_token_is_added(vocab, id)) continue;
    bool special = is_special(nb_vocab_type(vocab, id));
    list = nb_json_push(list, nb_part_added((nb_part_token){id, text_of(r, id), false, special}));
  }
  return list;
}

static cJSON *template(const reader *r) {
  nb_part_token bos = {.id = r->bos, .text = text_of(r, r->bos)}, eos = {.id = r->eos, .text = text_of(r, r->eos)};
  return nb_part_template(r->add_bos ? &bos : NULL, r->add_eos ? &eos : NULL);
}

/* ---- "gpt2": byte-level BPE ---- */

static cJSON *byte_words(const reader *r) {
  cJSON *steps = cJSON_CreateArray();
  if (r->words->digits) steps = nb_json_push(steps, nb_json_make("type:s individual_digits:b", "Digits", true));
  for (int i = 0; i < NB_MAX_SPLITS && r->words->splits[i]; i++)
    steps = nb_json_push(steps, nb_part_split(r->words->splits[i]));
  return nb_part_sequence("pretokenizers", nb_json_push(steps, nb_part_byte_level(false, true, r->words->gpt2)));
}

/* Every byte has a token, and none is unknown. */
static nibble_status finish_bytes(reader *r) {
  bool any;
  nibble_status status = nb_gguf_read_merges(r, &any);
  if (status != NIBBLE_OK) return status;
  nb_parts parts = {
      .added = added_tokens(r),
      .normalizer = r->words->nfc ? nb_json_make("type:s", "NFC") : cJSON_CreateNull(),
      .pre_tokenizer = byte_words(r),
      .post_processor = template(r),
      .decoder = nb_part_byte_level(true, true, true),
      .model = nb_part_bpe_model(&(nb_part_bpe){.prefix = "", .suffix = "", .ignore_merges = r->words->ignore_merges}),
  };
  return nb_parts_finish(parts, r->spec, r->err);
}

/* ---- "llama": SentencePiece's BPE; "gemma4": the same with merges and without a space before the text ---- */

/* SentencePiece with add_dummy_prefix puts a space before the text and writes every space as U+2581. */
static cJSON *space_normalizer(const reader *r) {
  cJSON *steps = cJSON_CreateArray();
  if (r->add_space_prefix) steps = nb_json_push(steps, nb_json_make("type:s prepend:s", "Prepend", SPACE));
  return nb_part_sequence("normalizers", nb_json_push(steps, nb_part_replace(" ", SPACE)));
}

static cJSON *space_decoder(const reader *r) {
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_part_replace(SPACE, " "));
  steps = nb_json_push(steps, nb_json_make("type:s", "ByteFallback"));
  steps = nb_json_push(steps, nb_json_make("type:s", "Fuse"));
  if (r->add_space_prefix) steps = nb_json_push(steps, nb_part_strip_first(" "));
  return nb_part_sequence("decoders", steps);
}

static nibble_status finish_pieces(reader *r) {
  bool any;
  nibble_status status = nb_gguf_read_merges(r, &any);
  if (status == NIBBLE_OK && !any) {
    status = nb_gguf_need_scores(r);
    if (status == NIBBLE_OK) status = nb_merges_from_scores(&r->spec->merges, &r->spec->vocab, r->gguf->path, r->err);
  }
  if (status != NIBBLE_OK) return status;
  nb_parts parts = {
      .added = added_tokens(r),
      .normalizer = space_normalizer(r),
      .pre_tokenizer = cJSON_CreateNull(),
      .post_processor = template(r),
      .decoder = space_decoder(r),
      .model = nb_part_bpe_model(
          &(nb_part_bpe){.unk_token = text_of(r, r->unknown), .fuse_unk = true, .byte_fallback = true}),
  };
  return nb_parts_finish(parts, r->spec, r->err);
}

/* ---- "bert": WordPiece ---- */

#define WITHIN "##" /* before a piece that begins no word */

/* The file has U+2581 before a piece that begins a word, and nothing before the others. */
static size_t spell_word_piece(nb_str token, int type, char *out) {
  if (is_special(type)) return spell_as_it_is(token, type, out);
  size_t n = strlen(SPACE);
  if (token.length >= n && memcmp(token.data, SPACE, n) == 0)
    return spell_as_it_is((nb_str){token.data + n, token.length - n}, type, out);
  size_t before = spell_as_it_is((nb_str){WITHIN, strlen(WITHIN)}, type, out);
  return before + spell_as_it_is(token, type, out + before);
}

static cJSON *around(const reader *r, int32_t id) {
  return nb_json_push(nb_json_push(cJSON_CreateArray(), cJSON_CreateString(text_of(r, id))), cJSON_CreateNumber(id));
}

static nibble_status finish_word_pieces(reader *r) {
  if (r->unknown < 0)
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: metadata 'tokenizer.ggml.unknown_token_id' is missing",
                   r->gguf->path);
  bool both = r->add_bos && r->add_eos;
  nb_parts parts = {
      .added = added_tokens(r),
      .normalizer = nb_json_make("type:s clean_text:b handle_chinese_chars:b strip_accents:b lowercase:b",
                                 "BertNormalizer", true, true, r->strip_accents, r->lowercase),
      .pre_tokenizer = nb_json_make("type:s", "BertPreTokenizer"),
      .post_processor = both
                            ? nb_json_make("type:s sep:o cls:o", "BertProcessing", around(r, r->eos), around(r, r->bos))
                            : template(r),
      .decoder = nb_json_make("type:s prefix:s cleanup:b", "WordPiece", WITHIN, true),
      .model = nb_json_make("type:s unk_token:s continuing_subword_prefix:s max_input_chars_per_word:i", "WordPiece",
                            text_of(r, r->unknown), WITHIN, 100),
  };
  return nb_parts_finish(parts, r->spec, r->err);
}

/* ---- "t5": SentencePiece's Unigram ---- */

static nibble_status read_charsmap(const reader *r, nb_spm_model *m) {
  static const char key[] = "tokenizer.ggml.precompiled_charsmap";
  const nb_gguf_entry *e = nb_gguf_find(r->gguf, key);
  if (!e) return NIBBLE_OK;
  if (!e->is_array || (e->type != NB_GGUF_U8 && e->type != NB_GGUF_I8))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: metadata '%s' is no array of bytes", r->gguf->path, key);
  nb_buf text = {0};
  nb_base64_encode(e->value, e->count, &text);
  m->charsmap = text.data;
  return text.failed ? nb_fail_memory(r->err, e->count) : NIBBLE_OK;
}

static nibble_status copy_text(const reader *r, int32_t id, char **out) {
  const char *text = text_of(r, id);
  *out = text ? strdup(text) : NULL;
  return text && !*out ? nb_fail_memory(r->err, strlen(text)) : NIBBLE_OK;
}

static nibble_status finish_unigram(reader *r) {
  nb_spm_model m = {.kind = NB_SPM_UNIGRAM,
                    .unk_id = r->unknown,
                    .add_dummy_prefix = r->add_space_prefix,
                    .longest_match = true,
                    .escape_whitespaces = true};
  nibble_status status = nb_gguf_need_scores(r);
  if (status == NIBBLE_OK)
    status = nb_gguf_bool(r->gguf, "tokenizer.ggml.remove_extra_whitespaces", &m.remove_extra_whitespaces, r->err);
  if (status == NIBBLE_OK) status = read_charsmap(r, &m);
  if (status == NIBBLE_OK) status = copy_text(r, r->unknown, &m.unk);
  if (status == NIBBLE_OK) status = copy_text(r, r->bos, &m.bos);
  if (status == NIBBLE_OK) status = copy_text(r, r->eos, &m.eos);
  if (status == NIBBLE_OK) {
    cJSON *post = template(r);
    m.vocab = r->spec->vocab;
    r->spec->vocab = (nb_vocab){0};
    status = nb_spm_spec(r->gguf->path, &m, true, post, r->spec, r->err);
  }
  nb_spm_free(&m);
  return status;
}

/* ---- the table ---- */

static const nb_gguf_tokenizer_kind kinds[] = {
    {.name = "gpt2", .has_pre = true, .add_space_prefix = true, .spell = spell_as_it_is, .finish = finish_bytes},
    {.name = "llama", .add_bos = true, .add_space_prefix = true, .spell = spell_as_it_is, .finish = finish_pieces},
    {.name = "gemma4", .spell = spell_as_it_is, .finish = finish_pieces},
    {.name = "bert",
     .has_cls = true,
     .add_bos = true,
     .add_eos = true,
     .spell = spell_word_piece,
     .finish = finish_word_pieces},
    {.name = "t5", .add_eos = true, .add_space_prefix = true, .spell = spell_as_it_is, .finish = finish_unigram},
};

const char nb_gguf_tokenizer_kind_names[] = "'gpt2', 'llama', 'gemma4', 'bert' and 't5'";

const nb_gguf_tokenizer_kind *nb_gguf_tokenizer_kind_of(nb_str name) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (nb_str_is(name, kinds[i].name)) return &kinds[i];
  }
  return NULL;
}
