/* A config.json of any bytes, and the tensors that it promises. */
#include "model/tensors.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_LAYERS = 64 }; /* a list of millions of names is slow, and nothing else */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nb_config config;
  nibble_error err;
  if (nb_config_parse("fuzz", (const char *)data, size, &config, &err) != NIBBLE_OK) return 0;
  nb_model_tensors tensors;
  if (config.family && config.num_hidden_layers <= MAX_LAYERS &&
      nb_model_tensors_list(&config, &tensors, &err) == NIBBLE_OK) {
    for (size_t i = 0; i < tensors.count; i++) nb_identify(&config, tensors.items[i].name, tensors.items[i].ndim);
    nb_model_tensors_free(&tensors);
  }
  nb_config_free(&config);
  return 0;
}
