#include "runner/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "runner/device.h"

const char *const nb_linear_names[NB_LINEARS] = {
    [NB_Q_PROJ] = "self_attn.q_proj", [NB_K_PROJ] = "self_attn.k_proj", [NB_V_PROJ] = "self_attn.v_proj",
    [NB_O_PROJ] = "self_attn.o_proj", [NB_GATE_PROJ] = "mlp.gate_proj", [NB_UP_PROJ] = "mlp.up_proj",
    [NB_DOWN_PROJ] = "mlp.down_proj",
};

const char *const nb_norm_names[NB_NORMS] = {
    [NB_INPUT_NORM] = "input_layernorm",
    [NB_POST_ATTENTION_NORM] = "post_attention_layernorm",
    [NB_Q_NORM] = "self_attn.q_norm",
    [NB_K_NORM] = "self_attn.k_norm",
};

/* True if `rule` (a name in the family's table) is `prefix` + `middle` + `suffix`. */
static bool is_named(const char *rule, const char *prefix, const char *middle, const char *suffix) {
  size_t a = strlen(prefix), b = strlen(middle);
  return strncmp(rule, prefix, a) == 0 && strncmp(rule + a, middle, b) == 0 && strcmp(rule + a + b, suffix) == 0;
}

/* ---- one tensor ------------------------------------------------------------------------------------------------- */

/* Loads a 1-D tensor (a norm's weight or a bias) as float32. */
static nibble_status load_vector(const nb_checkpoint *c, nb_backend *b, const char *name, int64_t n, nb_buffer **out,
                                 uint64_t *stored_bytes, nibble_error *err) {
  const nb_tensor *tensor = nb_checkpoint_find(c, name);
  if (!tensor) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is missing", c->path, name);
  const char *file = c->files[tensor->file].path;
  if (tensor->ndim != 1 || tensor->shape[0] != n)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' should have the shape [%lld]", file, name, (long long)n);
  if (!nb_dtype_is_float(tensor->dtype))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is %s, not a float dtype", file, name,
                   nb_dtype_name(tensor->dtype));
  uint64_t bytes = (uint64_t)n * sizeof(float);
  float *values = nb_alloc((uint64_t)n, sizeof(float));
  if (!values) return nb_fail_memory(err, bytes);
  nibble_status status = nb_tensor_read(c, tensor, 0, n, NB_F32, values, err);
  if (status == NIBBLE_OK) status = b->buffer_create(b, bytes, out, err);
  if (status == NIBBLE_OK) status = b->upload(b, *out, 0, values, bytes, err);
  free(values);
  *stored_bytes += tensor->bytes;
  return status;
}

static nibble_status load_matrix(const nb_checkpoint *c, nb_backend *b, const char *name, int64_t out_features,
                                 int64_t in_features, const nb_matrix_options *options, nb_linear *out,
                                 uint64_t *stored_bytes, nibble_error *err) {
  nibble_status status = nb_weight_load(c, name, out_features, in_features, &out->source, err);
  if (status != NIBBLE_OK) return status;
  out->out = out_features;
  out->in = in_features;
  *stored_bytes += (uint64_t)nb_packed_bytes(&out->source.packed);
  status = b->matrix_create(b, &out->source.packed, options, &out->matrix, err);
  if (status == NIBBLE_OK && !(b->matrix_borrows && b->matrix_borrows(out->matrix))) {
    const nb_tensor *tensor = nb_layout_find(c, name);
    if (tensor) nb_tensor_release(c, tensor, 0, tensor->count);
    nb_weight_free(&out->source);
  }
  return status;
}

static void linear_free(nb_backend *b, nb_linear *linear) {
  b->matrix_free(b, linear->matrix);
  b->buffer_free(b, linear->bias);
  nb_weight_free(&linear->source);
  *linear = (nb_linear){0};
}

/* ---- a block ---------------------------------------------------------------------------------------------------- */

static nibble_status load_block_tensor(const nb_checkpoint *c, const nb_model_tensor *t,
                                       const nb_matrix_options *options, nb_block *block, nibble_error *err) {
  nb_backend *b = block->backend;
  const char *rule = t->rule->name;
  for (int i = 0; i < NB_LINEARS; i++) {
    nb_linear *linear = &block->linear[i];
    if (is_named(rule, "layers.{}.", nb_linear_names[i], ".weight"))
      return load_matrix(c, b, t->name, t->shape[0], t->shape[1], options, linear, &block->weight_bytes, err);
    if (is_named(rule, "layers.{}.", nb_linear_names[i], ".bias"))
      return load_vector(c, b, t->name, t->shape[0], &linear->bias, &block->weight_bytes, err);
  }
  for (int i = 0; i < NB_NORMS; i++) {
    if (is_named(rule, "layers.{}.", nb_norm_names[i], ".weight"))
      return load_vector(c, b, t->name, t->shape[0], &block->norm[i], &block->weight_bytes, err);
  }
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the runner has no place for tensor '%s'", c->path, t->name);
}

/* Which layers slide is said layer by layer in newer configs, by max_window_layers in older ones of Qwen. */
static int64_t window_of_layer(const nb_config *config, int64_t layer) {
  if (config->sliding_window == 0) return 0;
  const cJSON *types = cJSON_GetObjectItemCaseSensitive(config->json, "layer_types");
  if (cJSON_IsArray(types)) {
    const cJSON *type = cJSON_GetArrayItem(types, (int)layer);
    return cJSON_IsString(type) && strcmp(type->valuestring, "sliding_attention") == 0 ? config->sliding_window : 0;
  }
  const cJSON *full = cJSON_GetObjectItemCaseSensitive(config->json, "max_window_layers");
  double first = cJSON_IsNumber(full) ? full->valuedouble : (double)config->arch->max_window_layers_default;
  return (double)layer < first ? 0 : config->sliding_window;
}

nibble_status nb_block_load(const nb_checkpoint *c, const nb_model_tensors *tensors, int64_t layer, nb_backend *backend,
                            const nb_matrix_options *options, nb_block *out, nibble_error *err) {
  *out = (nb_block){.backend = backend, .window = window_of_layer(&c->config, layer)};
  for (size_t i = 0; i < tensors->count; i++) {
    if (tensors->items[i].layer != layer) continue;
    nibble_status status = load_block_tensor(c, &tensors->items[i], options, out, err);
    if (status != NIBBLE_OK) {
      nb_block_free(out);
      return status;
    }
  }
  return NIBBLE_OK;
}

void nb_block_free(nb_block *block) {
  if (!block->backend) return;
  for (int i = 0; i < NB_LINEARS; i++) linear_free(block->backend, &block->linear[i]);
  for (int i = 0; i < NB_NORMS; i++) block->backend->buffer_free(block->backend, block->norm[i]);
  *block = (nb_block){0};
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static bool find_activation(const char *name, nb_activation *out) {
  static const struct {
    const char *name;
    nb_activation activation;
  } known[] = {
      {"silu", NB_ACT_SILU},        {"swish", NB_ACT_SILU},         {"gelu", NB_ACT_GELU},
      {"gelu_python", NB_ACT_GELU}, {"gelu_new", NB_ACT_GELU_TANH}, {"gelu_pytorch_tanh", NB_ACT_GELU_TANH},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, name) != 0) continue;
    *out = known[i].activation;
    return true;
  }
  return false;
}

nibble_status nb_model_check_runnable(const nb_checkpoint *checkpoint, nb_activation *activation, nibble_error *err) {
  const nb_config *config = &checkpoint->config;
  const char *path = checkpoint->path;
  if (!config->arch || !config->arch->runnable)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model_type '%s' can be inspected and converted, but not run", path,
                   config->model_type);
  const char *method = config->quant.method;
  if (config->quant.present && strcmp(method, "bitsandbytes") != 0 && strcmp(method, "gptq") != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: weights packed by '%s' cannot be run", path, method);
  if (!find_activation(config->hidden_act, activation))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the activation '%s' is unknown", path, config->hidden_act);
  if (config->rope.type == NB_ROPE_OTHER)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: rope scaling '%s' cannot be run", path, config->rope.type_name);
  const cJSON *rope = nb_json_object(config->json, "rope_parameters");
  double part = 1;
  nibble_status status = nb_json_double(path, config->json, "partial_rotary_factor", &part, err);
  if (status == NIBBLE_OK) status = nb_json_double(path, rope, "partial_rotary_factor", &part, err);
  if (status != NIBBLE_OK) return status;
  if (part != 1) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: partial_rotary_factor %g cannot be run", path, part);
  if (config->head_dim % 2 != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: head_dim %lld is odd, which rotary embeddings cannot be", path,
                   (long long)config->head_dim);
  return NIBBLE_OK;
}

static nibble_status load_outer_tensor(nb_model *m, const nb_model_tensor *t, nibble_error *err) {
  const nb_checkpoint *c = &m->checkpoint;
  const char *rule = t->rule->name;
  if (strcmp(rule, "embed_tokens.weight") == 0)
    return load_matrix(c, m->backend, t->name, t->shape[0], t->shape[1], &m->matrix_options, &m->embedding,
                       &m->weight_bytes, err);
  if (strcmp(rule, "lm_head.weight") == 0)
    return load_matrix(c, m->backend, t->name, t->shape[0], t->shape[1], &m->matrix_options, &m->head, &m->weight_bytes,
                       err);
  if (strcmp(rule, "norm.weight") == 0)
    return load_vector(c, m->backend, t->name, t->shape[0], &m->final_norm, &m->weight_bytes, err);
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the runner has no place for tensor '%s'", c->path, t->name);
}

static nibble_status load_all(nb_model *m, const nb_model_options *options, nibble_error *err) {
  const nb_config *config = &m->checkpoint.config;
  nb_model_tensors tensors;
  nibble_status status = nb_model_tensors_list(config, &tensors, err);
  if (status != NIBBLE_OK) return status;
  nb_placement place = {0};
  if (!m->backend) {
    bool cpu_only = options->llm_int8 || options->int8_activations;
    status = nb_device_place(&m->checkpoint, &tensors, cpu_only, &place, err);
    if (status != NIBBLE_OK) goto done;
    m->backend = place.outer;
  }
  for (size_t i = 0; i < tensors.count; i++) {
    if (tensors.items[i].layer >= 0) continue;
    if ((status = load_outer_tensor(m, &tensors.items[i], err)) != NIBBLE_OK) goto done;
  }
  m->blocks = nb_alloc((uint64_t)nb_max_i64(1, config->num_hidden_layers), sizeof *m->blocks);
  if (!m->blocks) {
    status = nb_fail_memory(err, (uint64_t)config->num_hidden_layers * sizeof *m->blocks);
    goto done;
  }
  for (int64_t i = 0; i < config->num_hidden_layers; i++) {
    nb_backend *backend = options->backend_of_layer ? options->backend_of_layer(options->ctx, i)
                          : options->backend        ? options->backend
                          : i < place.gpu_layers    ? place.gpu
                                                    : nb_backend_cpu();
    status = nb_block_load(&m->checkpoint, &tensors, i, backend, &m->matrix_options, &m->blocks[i], err);
    if (status != NIBBLE_OK) goto done;
    m->weight_bytes += m->blocks[i].weight_bytes;
  }
done:
  nb_model_tensors_free(&tensors);
  return status;
}

nibble_status nb_model_load(const char *path, const nb_model_options *options, nb_model *out, nibble_error *err) {
  *out = (nb_model){.backend = options->backend};
  nibble_status status = nb_checkpoint_open(path, &out->checkpoint, err);
  if (status == NIBBLE_OK) status = nb_model_check_runnable(&out->checkpoint, &out->activation, err);
  if (status == NIBBLE_OK) {
    out->matrix_options.llm_int8 = options->llm_int8;
    out->matrix_options.int8_activations = options->int8_activations;
    out->matrix_options.int8_threshold = (float)out->checkpoint.config.quant.int8_threshold;
    status = load_all(out, options, err);
  }
  if (status == NIBBLE_OK && out->checkpoint.config.tie_word_embeddings)
    out->head = (nb_linear){.matrix = out->embedding.matrix, .out = out->embedding.out, .in = out->embedding.in};
  if (status != NIBBLE_OK) nb_model_free(out);
  return status;
}

void nb_model_free(nb_model *model) {
  nb_backend *b = model->backend;
  if (!b) { /* it got no further than its file */
    nb_checkpoint_close(&model->checkpoint);
    return;
  }
  if (model->head.matrix == model->embedding.matrix) model->head = (nb_linear){0};
  linear_free(b, &model->head);
  linear_free(b, &model->embedding);
  b->buffer_free(b, model->final_norm);
  for (int64_t i = 0; model->blocks && i < model->checkpoint.config.num_hidden_layers; i++)
    nb_block_free(&model->blocks[i]);
  free(model->blocks);
  nb_checkpoint_close(&model->checkpoint);
  *model = (nb_model){0};
}

/* ---- rotary embedding ------------------------------------------------------------------------------------------- */

/* Su et al. 2021, arXiv:2104.09864; float32 at each step, because that is what transformers does. */
void nb_rope_frequencies(const nb_rope *rope, int64_t head_dim, float *out) {
  for (int64_t i = 0; i < head_dim / 2; i++) {
    float exponent = (float)(2 * i) / (float)head_dim;
    out[i] = 1.0f / powf((float)rope->theta, exponent);
  }
  if (rope->type == NB_ROPE_LINEAR) {
    for (int64_t i = 0; i < head_dim / 2; i++) out[i] /= (float)rope->factor;
  }
  if (rope->type != NB_ROPE_LLAMA3) return;
  /* Long wavelengths are stretched by `factor`, short ones kept, those between interpolated (Llama 3.1). */
  double context = (double)rope->original_max_position_embeddings;
  double low = rope->low_freq_factor, high = rope->high_freq_factor;
  for (int64_t i = 0; i < head_dim / 2; i++) {
    float wavelength = (float)(2 * M_PI) / out[i];
    float stretched = out[i] / (float)rope->factor;
    if (wavelength > (float)(context / low)) {
      out[i] = stretched;
    } else if (wavelength >= (float)(context / high)) {
      float smooth = ((float)context / wavelength - (float)low) / (float)(high - low);
      out[i] = (1 - smooth) * stretched + smooth * out[i];
    }
  }
}
