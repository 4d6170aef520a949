#include "runner/device.h"

#include <stdlib.h>

#include "base/checked.h"

enum {
  KV_TOKENS = 4096,     /* of a cache that is counted with each layer, if the model takes so many */
  WORKSPACE = 384 << 20 /* of the backend: a widened panel, cuBLAS, activations */
};

static nibble_device device_of(const nibble_context *context) { return context ? context->device : NIBBLE_DEVICE_CPU; }

nibble_status nibble_device_check(nibble_error *err) { return nb_backend_cuda(err) ? NIBBLE_OK : NIBBLE_SYSTEM; }

nibble_status nb_device_module(const nibble_context *context, const nb_cuda_module **out, nibble_error *err) {
  nibble_device device = device_of(context);
  *out = NULL;
  if (device == NIBBLE_DEVICE_CPU) return NIBBLE_OK;
  if (!nb_backend_cuda(err)) return device == NIBBLE_DEVICE_AUTO ? NIBBLE_OK : NIBBLE_SYSTEM;
  *out = nb_cuda_module_get(err);
  return NIBBLE_OK;
}

nibble_status nb_device_allow_cpu(const nibble_context *context, const char *what, nibble_error *err) {
  if (device_of(context) != NIBBLE_DEVICE_CUDA) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_USAGE, "--device cuda: %s computes on the cpu only", what);
}

int64_t nb_place_layers(uint64_t budget, uint64_t outer_bytes, const uint64_t *layer_bytes, int64_t layers,
                        bool *outer_fits) {
  *outer_fits = outer_bytes <= budget;
  uint64_t left = *outer_fits ? budget - outer_bytes : budget;
  for (int64_t i = 0; i < layers; i++) {
    if (layer_bytes[i] > left) return i;
    left -= layer_bytes[i];
  }
  return layers;
}

/* Bytes of each layer, with its cache, and of what is outside of them; from headers alone. A model's stacks share the
 * numbers of their layers. */
static void count_bytes(const nb_checkpoint *c, uint64_t *layer_bytes, uint64_t *outer_bytes) {
  const nb_config *config = &c->config;
  int64_t tokens = nb_min_i64(KV_TOKENS, config->max_position_embeddings);
  for (int64_t i = 0; i < config->num_hidden_layers; i++)
    layer_bytes[i] = (uint64_t)(2 * tokens * config->num_key_value_heads * config->head_dim) * sizeof(float);
  *outer_bytes = 0;
  for (size_t i = 0; i < c->promised.count; i++) {
    const nb_model_tensor *want = &c->promised.items[i];
    const nb_tensor *t = c->slots[i].tensor;
    bool outer = want->layer < 0 || want->layer >= config->num_hidden_layers;
    uint64_t *sum = outer ? outer_bytes : &layer_bytes[want->layer];
    if (want->ndim == 1) {
      *sum += (uint64_t)want->shape[0] * sizeof(float);
    } else if (t) {
      *sum += t->packed ? (uint64_t)nb_packed_bytes(t->packed) : t->bytes;
    }
  }
}

static nibble_status place_what_fits(const nibble_context *context, const nb_checkpoint *c, nb_placement *out,
                                     nibble_error *err) {
  int64_t layers = c->config.num_hidden_layers;
  uint64_t available = nb_backend_cuda_free_bytes() / 10 * 9, outer_bytes = 0;
  uint64_t budget = context->gpu_memory > 0 && context->gpu_memory < available ? context->gpu_memory : available;
  uint64_t *layer_bytes = nb_alloc((uint64_t)layers + 1, sizeof *layer_bytes);
  if (!layer_bytes) return nb_fail_memory(err, (size_t)layers * sizeof *layer_bytes);
  count_bytes(c, layer_bytes, &outer_bytes);
  bool outer_fits;
  budget = budget > WORKSPACE ? budget - WORKSPACE : 0;
  out->gpu_layers = nb_place_layers(budget, outer_bytes, layer_bytes, layers, &outer_fits);
  if (outer_fits) out->outer = out->gpu;
  free(layer_bytes);
  return NIBBLE_OK;
}

nibble_status nb_device_place(const nibble_context *context, const nb_checkpoint *c, bool cpu_only, nb_placement *out,
                              nibble_error *err) {
  nibble_device device = device_of(context);
  *out = (nb_placement){.outer = nb_backend_cpu()};
  if (device == NIBBLE_DEVICE_CPU || (device == NIBBLE_DEVICE_AUTO && cpu_only)) return NIBBLE_OK;
  nb_backend *gpu = nb_backend_cuda(err);
  if (!gpu) return device == NIBBLE_DEVICE_AUTO ? NIBBLE_OK : NIBBLE_SYSTEM;
  out->gpu = gpu;
  if (device == NIBBLE_DEVICE_AUTO) return place_what_fits(context, c, out, err);
  out->outer = gpu;
  out->gpu_layers = nb_max_i64(c->config.num_hidden_layers, c->config.num_decoder_layers);
  return NIBBLE_OK;
}
