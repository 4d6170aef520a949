/* llama.cpp's tokenizer, for scripts/tokenizer_references.py: reads texts from standard input, one a line, and prints
 * the ids of each, with the special tokens around it. usage: llama_tokenize FILE.gguf */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

static void quiet(enum ggml_log_level level, const char *text, void *ctx) {
  (void)ctx;
  if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv) {
  llama_log_set(quiet, NULL);
  struct llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  struct llama_model *model = argc == 2 ? llama_model_load_from_file(argv[1], params) : NULL;
  if (!model) return EXIT_FAILURE;
  const struct llama_vocab *vocab = llama_model_get_vocab(model);
  char *line = NULL;
  llama_token *ids = NULL;
  size_t room = 0, capacity = 0;
  for (ssize_t n; (n = getline(&line, &room, stdin)) > 0;) {
    if (line[n - 1] == '\n') n--;
    if (capacity < (size_t)n * 4 + 16) {
      capacity = (size_t)n * 4 + 16;
      ids = realloc(ids, capacity * sizeof *ids);
      if (!ids) return EXIT_FAILURE;
    }
    int count = llama_tokenize(vocab, line, (int32_t)n, ids, (int32_t)capacity, true, true);
    if (count < 0) return EXIT_FAILURE;
    for (int i = 0; i < count; i++) printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
  }
  free(ids);
  free(line);
  llama_model_free(model);
  return EXIT_SUCCESS;
}
