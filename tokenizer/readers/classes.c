#include "tokenizer/readers/classes.h"

#include <stdlib.h>
#include <string.h>

#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/readers.h"

#define SPACE "\u2581"
#define QWEN                                                                                          \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" \
  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What the steps of a class depend on. */
typedef struct options {
  const char *where;
  const nb_tokenizer_class *class;
  const cJSON *settings;
  nb_tokenizer_spec *spec;
  nibble_error *err;
  bool add_prefix_space, legacy, lowercase, chinese, strips, strip_accents;
} options;

typedef cJSON *make(const options *o);

enum { MAX_TOKENS = 7 };

struct nb_tokenizer_class {
  const char *names;                 /* parted by spaces; without "Fast" */
  const char *model;                 /* the type of model */
  const char *tokens[MAX_TOKENS][2]; /* keys of special tokens, and what they are by default */
  bool add_prefix_space, legacy;     /* defaults */
  int extra_ids;
  make *normalizer, *pre_tokenizer, *decoder, *options;
  make *post_processor; /* NULL: the file's stays */
};

/* ---- special tokens ---- */

const char *nb_class_token(const nb_tokenizer_class *class, const char *key) {
  for (int i = 0; class && i < MAX_TOKENS && class->tokens[i][0]; i++) {
    if (strcmp(class->tokens[i][0], key) == 0) return class->tokens[i][1];
  }
  return NULL;
}

int nb_class_extra_ids(const nb_tokenizer_class *class) { return class ? class->extra_ids : 0; }

static const char *token(const options *o, const char *key) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(o->settings, key);
  if (cJSON_IsObject(value)) value = cJSON_GetObjectItemCaseSensitive(value, "content");
  return cJSON_IsString(value) ? value->valuestring : nb_class_token(o->class, key);
}

/* Its id; a token that the vocabulary lacks gets the next one when it is added, which no template of ours then names.
 */
static nb_part_token part_token(const options *o, const char *key) {
  nb_part_token out = {.text = token(o, key), .special = true};
  out.id = out.text ? nb_vocab_id(&o->spec->vocab, out.text, strlen(out.text)) : -1;
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(o->spec->parts, "added_tokens")) {
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(item, "content");
    if (out.id < 0 && out.text && cJSON_IsString(text) && strcmp(text->valuestring, out.text) == 0)
      out.id = (int32_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "id"));
  }
  return out;
}

/* ---- steps ---- */

static cJSON *nothing(const options *o) {
  (void)o;
  return cJSON_CreateNull();
}

static cJSON *nfc(const options *o) {
  (void)o;
  return nb_json_make("type:s", "NFC");
}

static cJSON *bert_normalizer(const options *o) {
  return nb_json_make("type:s clean_text:b handle_chinese_chars:b strip_accents:o lowercase:b", "BertNormalizer", true,
                      o->chinese, o->strips ? cJSON_CreateBool(o->strip_accents) : cJSON_CreateNull(), o->lowercase);
}

/* The file's Precompiled alone, where it has one. */
static const cJSON *find_precompiled(const cJSON *normalizer) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(normalizer, "normalizers"), *item;
  const cJSON *type = cJSON_GetObjectItemCaseSensitive(normalizer, "type");
  if (cJSON_IsString(type) && strcmp(type->valuestring, "Precompiled") == 0) return normalizer;
  cJSON_ArrayForEach(item, list) {
    type = cJSON_GetObjectItemCaseSensitive(item, "type");
    if (cJSON_IsString(type) && strcmp(type->valuestring, "Precompiled") == 0) return item;
  }
  return NULL;
}

static cJSON *precompiled(const options *o) {
  const cJSON *found = find_precompiled(cJSON_GetObjectItemCaseSensitive(o->spec->parts, "normalizer"));
  return found ? cJSON_Duplicate(found, true) : cJSON_CreateNull();
}

static cJSON *byte_level(const options *o) { return nb_part_byte_level(o->add_prefix_space, true, true); }

static cJSON *qwen_words(const options *o) {
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_part_split(QWEN));
  return nb_part_sequence("pretokenizers", nb_json_push(steps, nb_part_byte_level(o->add_prefix_space, true, false)));
}

static cJSON *bert_words(const options *o) {
  (void)o;
  return nb_json_make("type:s", "BertPreTokenizer");
}

static cJSON *metaspace(const char *scheme, bool split) {
  return nb_json_make("type:s replacement:s prepend_scheme:s split:b", "Metaspace", SPACE, scheme, split);
}

static cJSON *llama_words(const options *o) {
  return metaspace(!o->add_prefix_space ? "never" : o->legacy ? "always" : "first", false);
}

static cJSON *t5_words(const options *o) {
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_json_make("type:s", "WhitespaceSplit"));
  return nb_part_sequence("pretokenizers",
                          nb_json_push(steps, metaspace(o->add_prefix_space ? "always" : "never", true)));
}

static cJSON *byte_decoder(const options *o) {
  (void)o;
  return nb_part_byte_level(true, true, true);
}

static cJSON *llama_decoder(const options *o) {
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_part_replace(SPACE, " "));
  steps = nb_json_push(steps, nb_json_make("type:s", "ByteFallback"));
  steps = nb_json_push(steps, nb_json_make("type:s", "Fuse"));
  if (o->add_prefix_space) steps = nb_json_push(steps, nb_part_strip_first(" "));
  return nb_part_sequence("decoders", steps);
}

static cJSON *t5_decoder(const options *o) { return metaspace(o->add_prefix_space ? "always" : "never", true); }

static cJSON *bert_decoder(const options *o) {
  (void)o;
  return nb_json_make("type:s prefix:s cleanup:b", "WordPiece", "##", true);
}

static cJSON *gpt2_model(const options *o) {
  (void)o;
  return nb_part_bpe_model(&(nb_part_bpe){.prefix = "", .suffix = ""});
}

static cJSON *llama_model(const options *o) {
  (void)o;
  return nb_part_bpe_model(&(nb_part_bpe){.fuse_unk = true, .byte_fallback = true});
}

static cJSON *bert_model(const options *o) {
  return nb_json_make("type:s unk_token:s continuing_subword_prefix:s max_input_chars_per_word:i", "WordPiece",
                      token(o, "unk_token"), "##", 100);
}

static cJSON *t5_model(const options *o) {
  (void)o;
  return nb_json_make("type:s unk_id:i byte_fallback:b", "Unigram", 2, false);
}

static cJSON *roberta_model(const options *o) {
  (void)o;
  return nb_json_make("type:s unk_id:i byte_fallback:b", "Unigram", 3, false);
}

/* ---- post-processors ---- */

static cJSON *around(nb_part_token token) {
  return nb_json_push(nb_json_push(cJSON_CreateArray(), cJSON_CreateString(token.text)), cJSON_CreateNumber(token.id));
}

static cJSON *cls_and_sep(const options *o) {
  return nb_json_make("type:s sep:o cls:o", "BertProcessing", around(part_token(o, "sep_token")),
                      around(part_token(o, "cls_token")));
}

static cJSON *roberta_ends(const options *o) {
  return nb_json_make("type:s sep:o cls:o trim_offsets:b add_prefix_space:b", "RobertaProcessing",
                      around(part_token(o, "sep_token")), around(part_token(o, "cls_token")), true,
                      o->add_prefix_space);
}

static cJSON *bos_and_eos(const options *o) {
  return nb_json_make("type:s sep:o cls:o trim_offsets:b add_prefix_space:b", "RobertaProcessing",
                      around(part_token(o, "eos_token")), around(part_token(o, "bos_token")), true, false);
}

static cJSON *eos(const options *o) {
  nb_part_token end = part_token(o, "eos_token");
  return nb_part_template(NULL, &end);
}

static cJSON *as_the_settings_say(const options *o) {
  bool bos = false, eos = false;
  nb_part_token first = part_token(o, "bos_token"), last = part_token(o, "eos_token");
  nb_json_bool(o->where, o->settings, "add_bos_token", &bos, NULL);
  nb_json_bool(o->where, o->settings, "add_eos_token", &eos, NULL);
  return nb_part_template(bos && first.text ? &first : NULL, eos && last.text ? &last : NULL);
}

/* ---- the tables ---- */

#define END "<|endoftext|>"

static const nb_tokenizer_class classes[] = {
    {.names = "GPT2Tokenizer",
     .model = "BPE",
     .tokens = {{"unk_token", END}, {"bos_token", END}, {"eos_token", END}},
     .normalizer = nothing,
     .pre_tokenizer = byte_level,
     .decoder = byte_decoder,
     .options = gpt2_model},
    {.names = "Qwen2Tokenizer",
     .model = "BPE",
     .tokens = {{"unk_token", END}, {"eos_token", END}, {"pad_token", END}},
     .normalizer = nfc,
     .pre_tokenizer = qwen_words,
     .decoder = byte_decoder,
     .options = gpt2_model},
    {.names = "RobertaTokenizer BartTokenizer LEDTokenizer",
     .model = "BPE",
     .tokens = {{"bos_token", "<s>"},
                {"eos_token", "</s>"},
                {"unk_token", "<unk>"},
                {"sep_token", "</s>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<s>"},
                {"mask_token", "<mask>"}},
     .normalizer = nothing,
     .pre_tokenizer = byte_level,
     .decoder = byte_decoder,
     .options = gpt2_model,
     .post_processor = roberta_ends},
    {.names = "GPTNeoXTokenizer",
     .model = "BPE",
     .tokens = {{"bos_token", END}, {"eos_token", END}, {"unk_token", END}, {"pad_token", "<|padding|>"}},
     .normalizer = nfc,
     .pre_tokenizer = byte_level,
     .decoder = byte_decoder,
     .options = gpt2_model,
     .post_processor = as_the_settings_say},
    {.names = "LlamaTokenizer",
     .model = "BPE",
     .tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}},
     .add_prefix_space = true,
     .normalizer = nothing,
     .pre_tokenizer = llama_words,
     .decoder = llama_decoder,
     .options = llama_model},
    {.names = "BertTokenizer DistilBertTokenizer ElectraTokenizer MobileBertTokenizer LxmertTokenizer",
     .model = "WordPiece",
     .tokens = {{"unk_token", "[UNK]"},
                {"sep_token", "[SEP]"},
                {"pad_token", "[PAD]"},
                {"cls_token", "[CLS]"},
                {"mask_token", "[MASK]"}},
     .normalizer = bert_normalizer,
     .pre_tokenizer = bert_words,
     .decoder = bert_decoder,
     .options = bert_model,
     .post_processor = cls_and_sep},
    {.names = "T5Tokenizer",
     .model = "Unigram",
     .tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
     .add_prefix_space = true,
     .extra_ids = 100,
     .normalizer = precompiled,
     .pre_tokenizer = t5_words,
     .decoder = t5_decoder,
     .options = t5_model,
     .post_processor = eos},
    {.names = "XLMRobertaTokenizer",
     .model = "Unigram",
     .tokens = {{"bos_token", "<s>"},
                {"eos_token", "</s>"},
                {"unk_token", "<unk>"},
                {"sep_token", "</s>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<s>"},
                {"mask_token", "<mask>"}},
     .add_prefix_space = true,
     .normalizer = precompiled,
     .pre_tokenizer = t5_words,
     .decoder = t5_decoder,
     .options = roberta_model,
     .post_processor = bos_and_eos},
};

/* Classes of transformers with steps of their own that have no row. */
static const char refused[] =
    "AlbertTokenizer BarthezTokenizer BertJapaneseTokenizer BigBirdTokenizer BlenderbotTokenizer CLIPTokenizer "
    "CamembertTokenizer CodeGenTokenizer CodeLlamaTokenizer CohereTokenizer DebertaTokenizer DebertaV2Tokenizer "
    "EsmcTokenizer FunnelTokenizer GemmaTokenizer HerbertTokenizer LasrTokenizer LayoutLMv2Tokenizer "
    "LayoutLMv3Tokenizer LayoutXLMTokenizer LukeTokenizer MBart50Tokenizer MBartTokenizer MLukeTokenizer "
    "MPNetTokenizer NllbTokenizer NougatTokenizer OpenAIGPTTokenizer PegasusTokenizer Qwen3_5Tokenizer "
    "ReformerTokenizer RemBertTokenizer SeamlessM4TTokenizer Siglip2Tokenizer SplinterTokenizer Tipsv2Tokenizer "
    "UdopTokenizer VideoPrismTokenizer WhisperTokenizer XGLMTokenizer XLNetTokenizer";

/* The classes of model types, where a folder names none or another one; "" takes the file as it is. `wins`:
 * transformers holds what the hub's folders say for wrong. */
static const struct {
  const char *types, *class;
  bool wins;
} model_types[] = {
    {"gpt2 gpt_bigcode opt phi starcoder2 gptj gpt_neo", "GPT2Tokenizer", false},
    {"qwen2", "Qwen2Tokenizer", true},
    {"qwen3 qwen3_moe qwen2_moe", "Qwen2Tokenizer", false},
    {"roberta", "RobertaTokenizer", false},
    {"gpt_neox mpt olmo", "GPTNeoXTokenizer", false},
    {"bert distilbert electra mobilebert", "BertTokenizer", false},
    {"t5 mt5", "T5Tokenizer", false},
    {"xlm-roberta", "XLMRobertaTokenizer", false},
    {"granite stablelm mistral mixtral ministral mistral3", "", false},
    {"phi3 phimoe modernbert nemotron jamba internlm2 minicpm3", "", true},
};

static bool has_word(const char *words, const char *word, size_t n) {
  for (const char *at = words; *at;) {
    size_t length = strcspn(at, " ");
    if (length == n && memcmp(at, word, n) == 0) return true;
    at += length + (at[length] == ' ');
  }
  return false;
}

/* Its length without the "Fast" at its end. */
static size_t plain_length(const char *name) {
  size_t n = strlen(name);
  return n > 4 && strcmp(name + n - 4, "Fast") == 0 ? n - 4 : n;
}

static nibble_status find(const char *where, const char *name, const nb_tokenizer_class **out, nibble_error *err) {
  size_t n = plain_length(name);
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
    if (!has_word(classes[i].names, name, n)) continue;
    *out = &classes[i];
    return NIBBLE_OK;
  }
  if (!has_word(refused, name, n)) return NIBBLE_OK; /* transformers takes the file as it is */
  return nb_fail(err, NIBBLE_BAD_INPUT,
                 "%s: tokenizer_class '%.64s' has steps of its own beside tokenizer.json, which are not supported",
                 where, name);
}

nibble_status nb_class_of(const char *where, nb_class_names names, bool is_byte_level, const nb_tokenizer_class **out,
                          nibble_error *err) {
  *out = NULL;
  const char *own = names.in_tokenizer_config ? names.in_tokenizer_config : names.in_config, *of_type = NULL;
  bool wins = false;
  for (size_t i = 0; names.model_type && i < sizeof model_types / sizeof *model_types; i++) {
    if (!has_word(model_types[i].types, names.model_type, strlen(names.model_type))) continue;
    of_type = model_types[i].class;
    wins = model_types[i].wins;
  }
  bool is_llama = own && strncmp(own, "LlamaTokenizer", plain_length(own)) == 0 && plain_length(own) == 14;
  if (is_llama && is_byte_level && !wins) return NIBBLE_OK; /* a class for pieces with white space as U+2581 */
  if (!own && !of_type) return NIBBLE_OK;
  if (own && of_type) {
    bool same = strlen(of_type) == plain_length(own) && strncmp(own, of_type, plain_length(own)) == 0;
    if (!same && !*of_type) return NIBBLE_OK;
    if (wins) own = of_type;
  }
  return find(where, own ? own : of_type, out, err);
}

/* ---- applying one ---- */

static nibble_status read_options(options *o) {
  const cJSON *s = o->settings;
  o->add_prefix_space = o->class->add_prefix_space;
  o->legacy = o->class->legacy;
  o->lowercase = o->chinese = true;
  const cJSON *accents = cJSON_GetObjectItemCaseSensitive(s, "strip_accents");
  o->strips = cJSON_IsBool(accents);
  o->strip_accents = cJSON_IsTrue(accents);
  const struct {
    const char *key;
    bool *out;
  } keys[] = {{"add_prefix_space", &o->add_prefix_space},
              {"legacy", &o->legacy},
              {"do_lower_case", &o->lowercase},
              {"tokenize_chinese_chars", &o->chinese}};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < sizeof keys / sizeof *keys && status == NIBBLE_OK; i++) {
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(s, keys[i].key))) continue;
    status = nb_json_bool(o->where, s, keys[i].key, keys[i].out, o->err);
  }
  return status;
}

static nibble_status replace(const options *o, const char *key, make *make) {
  if (!make) return NIBBLE_OK;
  cJSON *part = make(o);
  if (part && cJSON_ReplaceItemInObjectCaseSensitive(o->spec->parts, key, part)) return NIBBLE_OK;
  if (part && cJSON_AddItemToObject(o->spec->parts, key, part)) return NIBBLE_OK;
  cJSON_Delete(part);
  return nb_fail_memory(o->err, sizeof *part);
}

nibble_status nb_class_apply(const char *where, const nb_tokenizer_class *class, const cJSON *settings,
                             nb_tokenizer_spec *spec, nibble_error *err) {
  options o = {.where = where, .class = class, .settings = settings, .spec = spec, .err = err};
  const nb_token_model_kind *kind;
  nibble_status status = nb_token_model_kind_of(where, nb_json_object(spec->parts, "model"), &kind, err);
  if (status != NIBBLE_OK) return status;
  if (strcmp(kind->type, class->model) != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tokenizer_class '%.*s' has a model of type %s, the tokenizer's is %.32s",
                   where, (int)strcspn(class->names, " "), class->names, class->model, kind->type);
  status = read_options(&o);
  if (status == NIBBLE_OK) status = replace(&o, "normalizer", class->normalizer);
  if (status == NIBBLE_OK) status = replace(&o, "pre_tokenizer", class->pre_tokenizer);
  if (status == NIBBLE_OK) status = replace(&o, "decoder", class->decoder);
  if (status == NIBBLE_OK) status = replace(&o, "model", class->options);
  return status == NIBBLE_OK ? replace(&o, "post_processor", class->post_processor) : status;
}
