#include "tokenizer/readers/class_steps.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "model/json.h"

#define QWEN(letters, signs)                                                             \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?" letters "+|\\p{N}| ?[^\\s" signs \
  "]+[\\r\\n]*|"                                                                         \
  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* ---- special tokens ---- */

static nb_part_token spelled_token(const nb_class_options *o, const char *text) {
  nb_part_token out = {.text = text, .special = true};
  out.id = text ? nb_vocab_id(&o->spec->vocab, text, strlen(text)) : -1;
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(o->spec->parts, "added_tokens")) {
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(item, "content");
    if (out.id < 0 && text && cJSON_IsString(content) && strcmp(content->valuestring, text) == 0)
      out.id = (int32_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "id"));
  }
  return out;
}

nb_part_token nb_class_special(const nb_class_options *o, const char *key) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(o->settings, key);
  if (cJSON_IsObject(value)) value = cJSON_GetObjectItemCaseSensitive(value, "content");
  const char *text = cJSON_GetStringValue(value);
  for (int i = 0; !text && i < NB_CLASS_TOKENS && o->class->tokens[i].key; i++) {
    if (strcmp(o->class->tokens[i].key, key) == 0) text = o->class->tokens[i].text;
  }
  return spelled_token(o, text);
}

static const char *setting_text(const nb_class_options *o, const char *key, const char *usual) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o->settings, key));
  return text ? text : usual;
}

/* ---- normalizers ---- */

static cJSON *type_only(const char *type) { return nb_json_make("type:s", type); }

#define PLAIN_STEP(name, type)             \
  cJSON *name(const nb_class_options *o) { \
    (void)o;                               \
    return type_only(type);                \
  }

#define REGEX_STEP(name, regex, by)            \
  cJSON *name(const nb_class_options *o) {     \
    (void)o;                                   \
    return nb_part_replace_regex((regex), by); \
  }

PLAIN_STEP(nb_step_nfc, "NFC")
PLAIN_STEP(nb_step_nfkc, "NFKC")
PLAIN_STEP(nb_step_nfkd, "NFKD")
PLAIN_STEP(nb_step_strip_accents, "StripAccents")
PLAIN_STEP(nb_step_lowercase, "Lowercase")

REGEX_STEP(nb_step_spaces, " {2,}", " ")
REGEX_STEP(nb_step_mark_spaces, " {2,}", NB_METASPACE)
REGEX_STEP(nb_step_blanks, "\\s{2,}|[\\n\\r\\t]", " ")
REGEX_STEP(nb_step_any_space, "\\s+", " ")
REGEX_STEP(nb_step_breaks, "[\\n\\r\\t]", " ")
REGEX_STEP(nb_step_before_mark, " +" NB_METASPACE, NB_METASPACE)
REGEX_STEP(nb_step_only_marks, "^" NB_METASPACE "+$", "")

cJSON *nb_step_nfkd_if(const nb_class_options *o) { return o->keep_accents ? cJSON_CreateNull() : nb_step_nfkd(o); }

cJSON *nb_step_strip_accents_if(const nb_class_options *o) {
  return o->keep_accents ? cJSON_CreateNull() : nb_step_strip_accents(o);
}

cJSON *nb_step_lowercase_if(const nb_class_options *o) {
  return o->lowercase ? nb_step_lowercase(o) : cJSON_CreateNull();
}

/* `` and '' */
cJSON *nb_step_quotes(const nb_class_options *o) {
  (void)o;
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_part_replace("``", "\""));
  return nb_part_sequence("normalizers", nb_json_push(steps, nb_part_replace("''", "\"")));
}

cJSON *nb_step_mark(const nb_class_options *o) {
  (void)o;
  return nb_part_replace(" ", NB_METASPACE);
}

cJSON *nb_step_strip_right(const nb_class_options *o) {
  (void)o;
  return nb_json_make("type:s strip_left:b strip_right:b", "Strip", false, true);
}

/* The file's Precompiled alone, where it has one. */
static const cJSON *find_precompiled(const nb_class_options *o) {
  const cJSON *normalizer = cJSON_GetObjectItemCaseSensitive(o->spec->parts, "normalizer"), *item;
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(normalizer, "normalizers");
  const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(normalizer, "type"));
  if (type && strcmp(type, "Precompiled") == 0) return normalizer;
  cJSON_ArrayForEach(item, list) {
    type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "type"));
    if (type && strcmp(type, "Precompiled") == 0) return item;
  }
  return NULL;
}

cJSON *nb_step_precompiled(const nb_class_options *o) {
  const cJSON *found = find_precompiled(o);
  return found ? cJSON_Duplicate(found, true) : cJSON_CreateNull();
}

cJSON *nb_step_spaces_if_precompiled(const nb_class_options *o) {
  return find_precompiled(o) ? nb_step_spaces(o) : cJSON_CreateNull();
}

cJSON *nb_step_newlines_if_not(const nb_class_options *o) {
  return find_precompiled(o) ? cJSON_CreateNull() : nb_part_replace_regex("\\n", " ");
}

static cJSON *bert_text(bool clean, bool chinese, cJSON *accents, bool lowercase) {
  return nb_json_make("type:s clean_text:b handle_chinese_chars:b strip_accents:o lowercase:b", "BertNormalizer", clean,
                      chinese, accents, lowercase);
}

static cJSON *accents(const nb_class_options *o) {
  return o->strips ? cJSON_CreateBool(o->strip_accents) : cJSON_CreateNull();
}

cJSON *nb_step_bert_text(const nb_class_options *o) { return bert_text(true, o->chinese, accents(o), o->lowercase); }

cJSON *nb_step_funnel_text(const nb_class_options *o) {
  return bert_text(o->clean_text, o->chinese, accents(o), o->lowercase);
}

cJSON *nb_step_herbert_text(const nb_class_options *o) {
  (void)o;
  return bert_text(true, true, cJSON_CreateFalse(), false);
}

cJSON *nb_step_openai_text(const nb_class_options *o) {
  (void)o;
  return bert_text(true, true, cJSON_CreateNull(), true);
}

/* ---- pre-tokenizers ---- */

PLAIN_STEP(nb_step_bert_words, "BertPreTokenizer")
PLAIN_STEP(nb_step_whitespace, "WhitespaceSplit")

static cJSON *split(const char *kind, const char *pattern, const char *behavior, bool invert) {
  return nb_json_make("type:s pattern:o behavior:s invert:b", "Split",
                      nb_json_put_in(cJSON_CreateObject(), kind, cJSON_CreateString(pattern)), behavior, invert);
}

cJSON *nb_step_bytes(const nb_class_options *o) { return nb_part_byte_level(o->add_prefix_space, true, true); }

cJSON *nb_step_plain_bytes(const nb_class_options *o) {
  (void)o;
  return nb_part_byte_level(false, true, true);
}

cJSON *nb_step_whole_bytes(const nb_class_options *o) { return nb_part_byte_level(o->add_prefix_space, true, false); }

cJSON *nb_step_qwen_words(const nb_class_options *o) {
  (void)o;
  return nb_part_split(QWEN("\\p{L}", "\\p{L}\\p{N}"));
}

cJSON *nb_step_qwen35_words(const nb_class_options *o) {
  (void)o;
  return nb_part_split(QWEN("[\\p{L}\\p{M}]", "\\p{L}\\p{M}\\p{N}"));
}

cJSON *nb_step_clip_words(const nb_class_options *o) {
  (void)o;
  return split("Regex",
               "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
               "Removed", true);
}

cJSON *nb_step_digits(const nb_class_options *o) {
  (void)o;
  return nb_json_make("type:s individual_digits:b", "Digits", true);
}

cJSON *nb_step_punctuation_if(const nb_class_options *o) {
  return o->split_by_punct ? nb_json_make("type:s behavior:s", "Punctuation", "Isolated") : cJSON_CreateNull();
}

cJSON *nb_step_metaspace(const nb_class_options *o) {
  return nb_part_metaspace(o->add_prefix_space ? "always" : "never", true);
}

cJSON *nb_step_metaspace_always(const nb_class_options *o) {
  (void)o;
  return nb_part_metaspace("always", true);
}

cJSON *nb_step_metaspace_first(const nb_class_options *o) {
  (void)o;
  return nb_part_metaspace("first", true);
}

cJSON *nb_step_metaspace_or_first(const nb_class_options *o) {
  return nb_part_metaspace(o->add_prefix_space ? "always" : "first", true);
}

cJSON *nb_step_llama_words(const nb_class_options *o) {
  return nb_part_metaspace(!o->add_prefix_space ? "never" : o->legacy ? "always" : "first", false);
}

cJSON *nb_step_code_llama_words(const nb_class_options *o) {
  return nb_part_metaspace(o->add_prefix_space ? "first" : "never", false);
}

cJSON *nb_step_gemma_words(const nb_class_options *o) {
  (void)o;
  return split("String", " ", "MergedWithPrevious", false);
}

cJSON *nb_step_nougat_mark(const nb_class_options *o) {
  (void)o;
  return split("String", "SPL1T-TH1S-Pl3A5E", "Removed", false);
}

/* Meant as a regular expression, but taken as it is spelled. */
cJSON *nb_step_nougat_signs(const nb_class_options *o) {
  (void)o;
  return split("String", "[\\(\\)\\[\\]\\{\\}]|([!\\\"#\\$%\\&'\\*\\+,\\-\\./:;<=>\\?\\\\\\^_`\\|\\~])\\1*", "Isolated",
               false);
}

cJSON *nb_step_nougat_lines(const nb_class_options *o) {
  (void)o;
  return split("String", "\n", "Isolated", false);
}

/* ---- decoders ---- */

PLAIN_STEP(nb_step_byte_fallback, "ByteFallback")
PLAIN_STEP(nb_step_fuse, "Fuse")

cJSON *nb_step_from_bytes(const nb_class_options *o) {
  (void)o;
  return nb_part_byte_level(true, true, true);
}

cJSON *nb_step_from_mark(const nb_class_options *o) {
  (void)o;
  return nb_part_replace(NB_METASPACE, " ");
}

cJSON *nb_step_strip_first(const nb_class_options *o) {
  (void)o;
  return nb_part_strip_first(" ");
}

cJSON *nb_step_strip_first_if(const nb_class_options *o) {
  return o->add_prefix_space ? nb_part_strip_first(" ") : cJSON_CreateNull();
}

static cJSON *wordpiece(const char *prefix) {
  return nb_json_make("type:s prefix:s cleanup:b", "WordPiece", prefix, true);
}

cJSON *nb_step_wordpiece(const nb_class_options *o) {
  (void)o;
  return wordpiece("##");
}

cJSON *nb_step_funnel_wordpiece(const nb_class_options *o) {
  return wordpiece(setting_text(o, "wordpieces_prefix", "##"));
}

cJSON *nb_step_word_ends(const nb_class_options *o) {
  (void)o;
  return nb_json_make("type:s suffix:s", "BPEDecoder", "</w>");
}

cJSON *nb_step_clip_ends(const nb_class_options *o) {
  (void)o;
  return nb_part_replace("</w>", " ");
}

/* What Python's str.strip takes away. */
REGEX_STEP(nb_step_clip_trim, "\\A[\\s\\x{1c}-\\x{1f}\\x{85}]+|[\\s\\x{1c}-\\x{1f}\\x{85}]+\\z", "")

REGEX_STEP(nb_step_whisper_times, "<\\|\\d+\\.\\d+\\|>", "")

/* ---- models ---- */

static int unigram_unk(const nb_class_options *o) {
  const nb_tokenizer_class *class = o->class;
  nb_part_token unk = nb_class_special(o, "unk_token");
  int32_t id = unk.text ? nb_vocab_id(&o->spec->vocab, unk.text, strlen(unk.text)) : -1;
  const double *scores = o->spec->vocab.scores;
  if (class->unk_rule == NB_UNK_NAMED && id >= 0) return id;
  if (class->unk_rule == NB_UNK_SCORED && id >= 0 && scores && scores[id] == 0) return id;
  const cJSON *set = cJSON_GetObjectItemCaseSensitive(o->settings, "unk_id");
  bool reads = class->unk_rule == NB_UNK_SETTING || class->unk_rule == NB_UNK_SCORED;
  return reads && cJSON_IsNumber(set) ? set->valueint : class->unk_id;
}

static cJSON *bpe(const nb_class_options *o) {
  nb_part_bpe options = o->class->bpe;
  if (options.unk_token) options.unk_token = nb_class_special(o, "unk_token").text;
  return nb_part_bpe_model(&options);
}

cJSON *nb_class_model(const nb_class_options *o) {
  if (strcmp(o->class->model, "BPE") == 0) return bpe(o);
  if (strcmp(o->class->model, "Unigram") == 0)
    return nb_json_make("type:s unk_id:i byte_fallback:b", "Unigram", unigram_unk(o), false);
  return nb_json_make("type:s unk_token:s continuing_subword_prefix:s max_input_chars_per_word:i", "WordPiece",
                      nb_class_special(o, "unk_token").text, "##", 100);
}

/* ---- post-processors ---- */

static cJSON *around(nb_part_token token) {
  return nb_json_push(nb_json_push(cJSON_CreateArray(), cJSON_CreateString(token.text)), cJSON_CreateNumber(token.id));
}

static cJSON *roberta(nb_part_token first, nb_part_token last, bool trims, bool add_prefix_space) {
  return nb_json_make("type:s sep:o cls:o trim_offsets:b add_prefix_space:b", "RobertaProcessing", around(last),
                      around(first), trims, add_prefix_space);
}

cJSON *nb_ends_roberta(const nb_class_options *o) {
  bool trims = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(o->settings, "trim_offsets"));
  return roberta(nb_class_special(o, "cls_token"), nb_class_special(o, "sep_token"), trims, o->add_prefix_space);
}

cJSON *nb_ends_roberta_plain(const nb_class_options *o) {
  return roberta(nb_class_special(o, "cls_token"), nb_class_special(o, "sep_token"), true, false);
}

cJSON *nb_ends_clip(const nb_class_options *o) {
  return roberta(nb_class_special(o, "bos_token"), nb_class_special(o, "eos_token"), false, false);
}

cJSON *nb_ends_none(const nb_class_options *o) {
  (void)o;
  return nb_part_template(NULL, NULL);
}

/* The class has these ids whatever the vocabulary says. */
cJSON *nb_ends_herbert(const nb_class_options *o) {
  nb_part_token sep = nb_class_special(o, "sep_token"), cls = nb_class_special(o, "cls_token");
  sep.id = 2;
  cls.id = 0;
  return nb_json_make("type:s sep:o cls:o", "BertProcessing", around(sep), around(cls));
}

cJSON *nb_ends_code_llama(const nb_class_options *o) {
  nb_part_token bos = nb_class_special(o, "bos_token");
  return nb_part_template(&bos, NULL);
}

/* ---- templates ---- */

static cJSON *piece(const char *kind, const char *id, int type_id) {
  return nb_json_put_in(cJSON_CreateObject(), kind, nb_json_make("id:s type_id:i", id, type_id));
}

static cJSON *defined(cJSON *specials, nb_part_token token) {
  if (cJSON_HasObjectItem(specials, token.text)) return specials;
  cJSON *ids = nb_json_push(cJSON_CreateArray(), cJSON_CreateNumber(token.id));
  cJSON *texts = nb_json_push(cJSON_CreateArray(), cJSON_CreateString(token.text));
  return nb_json_put_in(specials, token.text, nb_json_make("id:s ids:o tokens:o", token.text, ids, texts));
}

/* One template from its spelling, where a digit is one of `more`; tokens that it names are added to *specials. */
static cJSON *pieces(const nb_class_options *o, const char *spelling, const nb_part_token *more, cJSON **specials) {
  cJSON *list = cJSON_CreateArray();
  for (const char *at = spelling; *at;) {
    char key[32] = "";
    size_t n = strcspn(at, " "), name = strcspn(at, ": ");
    int type_id = name < n ? atoi(at + name + 1) : 0;
    memcpy(key, at, name);
    if (strcmp(key, "A") == 0 || strcmp(key, "B") == 0) {
      list = nb_json_push(list, piece("Sequence", key, type_id));
    } else {
      memcpy(key + name, "_token", sizeof "_token");
      bool is_more = key[0] >= '0' && key[0] <= '9';
      nb_part_token token = is_more ? more[key[0] - '0'] : nb_class_special(o, key);
      *specials = defined(*specials, token);
      list = nb_json_push(list, piece("SpecialToken", token.text, type_id));
    }
    at += n + (at[n] == ' ');
  }
  return list;
}

static cJSON *template(const nb_class_options *o, const char *single, const char *pair, const nb_part_token *more) {
  cJSON *specials = cJSON_CreateObject();
  cJSON *one = pieces(o, single, more, &specials), *two = pieces(o, pair, more, &specials);
  return nb_json_make("type:s single:o pair:o special_tokens:o", "TemplateProcessing", one, two, specials);
}

/* A token by its spelling; the unknown one where it is none. */
static nb_part_token spelled_or_unknown(const nb_class_options *o, const char *text) {
  nb_part_token token = spelled_token(o, text);
  return token.id < 0 ? nb_class_special(o, "unk_token") : token;
}

cJSON *nb_ends_template(const nb_class_options *o) {
  nb_part_token dot = spelled_or_unknown(o, ".");
  return template(o, o->class->single, o->class->pair, &dot);
}

cJSON *nb_ends_mbart(const nb_class_options *o) {
  nb_part_token lang = spelled_or_unknown(o, setting_text(o, "src_lang", "en_XX"));
  return template(o, "A eos 0", "A B eos 0", &lang);
}

cJSON *nb_ends_nllb(const nb_class_options *o) {
  nb_part_token lang = spelled_or_unknown(o, setting_text(o, "src_lang", "eng_Latn"));
  if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o->settings, "legacy_behaviour")))
    return template(o, "A eos 0", "A B eos 0", &lang);
  return template(o, "0 A eos", "0 A B eos", &lang);
}

cJSON *nb_ends_mbart50(const nb_class_options *o) {
  nb_part_token lang = spelled_or_unknown(o, setting_text(o, "src_lang", "en_XX"));
  return template(o, "0 A eos", "0 A B eos", &lang);
}

cJSON *nb_ends_seamless(const nb_class_options *o) {
  const char *name = setting_text(o, "src_lang", "eng"), *frame = strstr(name, "__") ? "" : "__";
  nb_buf text = {0};
  nb_buf_puts(&text, frame);
  nb_buf_puts(&text, name);
  nb_buf_puts(&text, frame);
  nb_part_token lang = text.failed ? (nb_part_token){0} : spelled_or_unknown(o, text.data);
  cJSON *out = template(o, "0 A eos", "0 A B eos", &lang);
  nb_buf_free(&text);
  return out;
}

cJSON *nb_ends_whisper(const nb_class_options *o) {
  enum { TASK = 1, TIMES = 2 };
  static const char *const single[] = {"0 A eos", "0 1 A eos", "0 2 A eos", "0 1 2 A eos"};
  static const char *const pair[] = {"0 A B:1 eos:1", "0 1 A B:1 eos:1", "0 2 A B:1 eos:1", "0 1 2 A B:1 eos:1"};
  const char *task = setting_text(o, "task", NULL);
  bool times = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o->settings, "predict_timestamps"));
  const char *spelled = task && strcmp(task, "transcribe") == 0 ? "<|transcribe|>" : "<|translate|>";
  const nb_part_token more[] = {spelled_or_unknown(o, "<|startoftranscript|>"), spelled_or_unknown(o, spelled),
                                spelled_or_unknown(o, "<|notimestamps|>")};
  int which = (task ? TASK : 0) | (times ? 0 : TIMES);
  return template(o, single[which], pair[which], more);
}
