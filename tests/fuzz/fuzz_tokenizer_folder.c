/* What stands beside a tokenizer.json: the first byte chooses the kind of its model, then come the texts of the files
 * below, each behind the NUL of the one before it. If the folder opens, some text is encoded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tokenizer/readers/readers.h"

static const char *const names[] = {"tokenizer_config.json", "config.json", "special_tokens_map.json",
                                    "added_tokens.json"};
enum { NAMES = sizeof names / sizeof *names };

static const char *const models[] = {
    "{\"type\": \"BPE\", \"vocab\": {\"<s>\": 0, \"</s>\": 1, \"<unk>\": 2, \"a\": 3, \"b\": 4, \"ab\": 5, "
    "\"\\u2581\": 6}, "
    "\"merges\": [\"a b\"]}",
    "{\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\", "
    "\"max_input_chars_per_word\": 100, \"vocab\": {\"[UNK]\": 0, \"[CLS]\": 1, \"[SEP]\": 2, \"a\": 3, \"##b\": 4}}",
    "{\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0.0], [\"<s>\", 0.0], [\"</s>\", 0.0], [\"a\", "
    "-1.0], "
    "[\"\\u2581a\", -2.0]]}",
};
enum { MODELS = sizeof models / sizeof *models };

static char folder[] = "/tmp/nibble-fuzz-XXXXXX";

static void put(const char *name, const char *text, size_t n) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  if (!file || (n > 0 && fwrite(text, n, 1, file) != 1) || fclose(file) != 0) abort();
}

static void clear(void) {
  char path[128];
  for (int i = 0; i < NAMES; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    unlink(path);
  }
}

static void leave(void) {
  char path[128];
  clear();
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  unlink(path);
  rmdir(folder);
}

static void use(nb_tokenizer *t) {
  static const char text[] = "ab  <s> A\xc3\xa9 ``x'' <mask> 12, don't . \xf0\x9f\x98\x80\n";
  nb_ids ids = {0};
  nb_buf back = {0};
  nb_token_stream stream = {.tokenizer = t};
  nibble_error err;
  nibble_status status = nb_tokenizer_encode(t, text, sizeof text - 1, NB_ADD_SPECIAL, &ids, &err);
  if (status == NIBBLE_OK) nb_tokenizer_decode(t, ids.data, ids.length, 0, &back, &err);
  for (size_t i = 0; i < ids.length && status == NIBBLE_OK; i++)
    status = nb_token_stream_push(&stream, ids.data[i], &back, &err);
  nb_token_stream_end(&stream, &back, &err);
  nb_ids_free(&ids);
  nb_buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  if (folder[sizeof folder - 2] == 'X') {
    if (!mkdtemp(folder)) abort();
    atexit(leave);
  }
  clear();
  char tokenizer[1024];
  int length = snprintf(tokenizer, sizeof tokenizer, "{\"added_tokens\": [], \"model\": %s}", models[data[0] % MODELS]);
  put("tokenizer.json", tokenizer, (size_t)length);
  const char *at = (const char *)data + 1, *end = (const char *)data + size;
  for (int i = 0; i < NAMES && at < end; i++) {
    const char *nul = memchr(at, 0, (size_t)(end - at));
    if (!nul) nul = end;
    if (nul > at) put(names[i], at, (size_t)(nul - at));
    at = nul + 1;
  }
  nb_tokenizer_spec spec;
  nb_tokenizer *t = NULL;
  nibble_error err;
  nibble_status status = nb_tokenizer_spec_folder(folder, &spec, &err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make(folder, &spec, &t, &err);
  if (status == NIBBLE_OK) use(t);
  nb_tokenizer_close(t);
  nb_tokenizer_spec_free(&spec);
  cJSON *tokens = cJSON_CreateObject();
  nb_tokenizer_folder_tokens(folder, tokens, &err);
  cJSON_Delete(tokens);
  return 0;
}
