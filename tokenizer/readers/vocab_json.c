/* GPT-2's files: vocab.json, an object of tokens and ids, and merges.txt, a merge on each line. They say nothing of the
 * other parts, which are those of transformers' GPT2Tokenizer. */
#include <string.h>

#include "base/checked.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/readers.h"

static nibble_status read_merge(const nb_tokenizer_file *file, size_t number, nb_str line, nb_tokenizer_spec *out,
                                nibble_error *err) {
  const char *space = memchr(line.data, ' ', line.length);
  nb_str left = {line.data, space ? (size_t)(space - line.data) : 0};
  nb_str right = {space ? space + 1 : line.data, space ? line.length - left.length - 1 : 0};
  if (!space || memchr(right.data, ' ', right.length))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: line %zu is not two tokens with a space between", file->beside_path,
                   number);
  bool known;
  nibble_status status = nb_merges_add(&out->merges, &out->vocab, left, right, &known, err);
  if (status != NIBBLE_OK || known) return status;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: line %zu, '%.*s', names a token that is not in %s", file->beside_path,
                 number, (int)nb_min_i64((int64_t)line.length, 120), line.data, file->name);
}

static nibble_status read_merges(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  nb_str text = file->beside;
  nibble_status status = NIBBLE_OK;
  for (size_t number = 1; text.length > 0 && status == NIBBLE_OK; number++) {
    nb_str line = nb_take_line(&text);
    bool version = line.length >= 8 && memcmp(line.data, "#version", 8) == 0;
    if (!version) status = read_merge(file, number, line, out, err);
  }
  return status;
}

nibble_status nb_read_vocab_json(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  static const char end[] = "<|endoftext|>";
  nibble_status status = nb_vocab_read_json(file->path, file->text, &out->vocab, err);
  if (status == NIBBLE_OK) status = read_merges(file, out, err);
  if (status != NIBBLE_OK) return status;
  int32_t id = nb_vocab_id(&out->vocab, end, strlen(end));
  nb_part_token special = {.id = id < 0 ? out->vocab.count : id, .text = end, .special = true};
  nb_parts parts = {
      .added = nb_json_push(cJSON_CreateArray(), nb_part_added(special)),
      .normalizer = cJSON_CreateNull(),
      .pre_tokenizer = nb_part_byte_level(false, true, true),
      .post_processor = nb_part_template(NULL, NULL),
      .decoder = nb_part_byte_level(true, true, true),
      .model = nb_part_bpe_model(&(nb_part_bpe){.prefix = "", .suffix = ""}),
  };
  return nb_parts_finish(parts, out, err);
}
