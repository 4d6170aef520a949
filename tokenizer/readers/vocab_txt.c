/* BERT's vocab.txt. It says nothing of the other parts, which are those of transformers' BertTokenizer; what it calls
 * its special tokens stands in tokenizer_config.json. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/readers.h"
#include "tokenizer/unicode.h"

static nb_str without_space_at_end(nb_str line) {
  while (line.length > 0) {
    size_t at = line.length - 1, n;
    while (at > 0 && !nb_utf8_begins(line.data[at])) at--;
    if (!nb_is_space(nb_utf8_decode(line.data + at, &n))) break;
    line.length = at;
  }
  return line;
}

static nibble_status read_lines(const nb_tokenizer_file *file, nb_vocab *vocab, nibble_error *err) {
  size_t valid = nb_utf8_valid(file->text.data, file->text.length);
  if (valid < file->text.length) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not UTF-8 at byte %zu", file->path, valid);
  vocab->texts = malloc(file->text.length + 1);
  if (!vocab->texts) return nb_fail_memory(err, file->text.length);
  if (file->text.length > 0) memcpy(vocab->texts, file->text.data, file->text.length);
  nb_str text = {vocab->texts, file->text.length};
  nibble_status status = NIBBLE_OK;
  while (text.length > 0 && status == NIBBLE_OK) {
    if (vocab->count == NB_MAX_ID)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: more than %d tokens", file->path, NB_MAX_ID);
    status = nb_vocab_append(vocab, without_space_at_end(nb_take_line(&text)), err);
  }
  if (status == NIBBLE_OK && vocab->count == 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: it holds no token", file->path);
  return status == NIBBLE_OK ? nb_vocab_make_index(vocab, NULL, err) : status;
}

nibble_status nb_read_vocab_txt(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  static const char *const special[] = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"};
  nibble_status status = read_lines(file, &out->vocab, err);
  if (status != NIBBLE_OK) return status;
  cJSON *added = cJSON_CreateArray(), *ends[2] = {NULL, NULL};
  int32_t next = out->vocab.count;
  for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
    int32_t id = nb_vocab_id(&out->vocab, special[i], strlen(special[i]));
    nb_part_token token = {.id = id < 0 ? next++ : id, .text = special[i], .special = true};
    added = nb_json_push(added, nb_part_added(token));
    if (i % 2 == 0 || i > 3) continue; /* [SEP] and [CLS] stand around a text */
    cJSON *end = nb_json_push(cJSON_CreateArray(), cJSON_CreateString(special[i]));
    ends[i / 2] = nb_json_push(end, cJSON_CreateNumber(token.id));
  }
  nb_parts parts = {
      .added = added,
      .normalizer = nb_json_make("type:s clean_text:b handle_chinese_chars:b strip_accents:z lowercase:b",
                                 "BertNormalizer", true, true, true),
      .pre_tokenizer = nb_json_make("type:s", "BertPreTokenizer"),
      .post_processor = nb_json_make("type:s sep:o cls:o", "BertProcessing", ends[0], ends[1]),
      .decoder = nb_json_make("type:s prefix:s cleanup:b", "WordPiece", "##", true),
      .model = nb_json_make("type:s unk_token:s continuing_subword_prefix:s max_input_chars_per_word:i", "WordPiece",
                            "[UNK]", "##", 100),
  };
  return nb_parts_finish(parts, out, err);
}
