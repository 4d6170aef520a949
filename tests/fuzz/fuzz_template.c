/* A chat template of any bytes and variables for it. The input is a template up to the last NUL, and behind it the JSON
 * of its variables; without a NUL there is a short conversation. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/json.h"
#include "template/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char some[] =
      "{\"messages\": [{\"role\": \"user\", \"content\": \" H\xc3\xa9llo \"}, {\"role\": \"assistant\", \"content\": "
      "[{\"type\": \"text\", \"text\": \"<x>\"}]}], \"tools\": [{\"a\": 1, \"b\": [2.5, null]}], \"bos_token\": "
      "\"<s>\", \"add_generation_prompt\": true}";
  const uint8_t *nul = memrchr(data, 0, size);
  size_t n = nul ? (size_t)(nul - data) : size;
  const char *json = nul ? (const char *)nul + 1 : some;
  const struct tm now = {.tm_year = 126, .tm_mon = 10, .tm_mday = 29};
  cJSON *variables = NULL;
  nb_template *t;
  nibble_error err;
  nb_buf out = {0};
  if (nb_template_parse("fuzz", (const char *)data, n, &t, &err) != NIBBLE_OK) return 0;
  if (nb_json_parse("fuzz", json, nul ? size - n - 1 : sizeof some - 1, &variables, &err) == NIBBLE_OK &&
      nb_template_render(t, variables, &now, &out, &err) == NIBBLE_OK &&
      memchr(out.data ? out.data : "", 0xff, out.length))
    abort(); /* what goes in is UTF-8, and so is what comes out */
  nb_buf_free(&out);
  cJSON_Delete(variables);
  nb_template_free(t);
  return 0;
}
