/* What a model needs in each format, from its config alone; where there are weights, also what they take as stored. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/stage.h"
#include "convert/checkpoint.h"
#include "convert/layouts.h"
#include "model/heads.h"

/* Bytes of a quantized linear layer of [out, in]; the rest of the model stays in `plain_bytes` a parameter. */
typedef struct footprint_row {
  const char *format;
  int plain_bytes;
  int64_t (*linear_bytes)(int64_t out, int64_t in);
} footprint_row;

enum { BNB_BLOCK = 64, NESTED_BLOCK = 256, GPTQ_GROUP = 128 };

static int64_t f32_bytes(int64_t out, int64_t in) { return out * in * 4; }
static int64_t f16_bytes(int64_t out, int64_t in) { return out * in * 2; }
static int64_t int8_bytes(int64_t out, int64_t in) { return out * in + out * 4; }

static int64_t nf4_bytes(int64_t out, int64_t in) {
  return nb_ceil_div(out * in, 2) + nb_ceil_div(out * in, BNB_BLOCK) * 4 + 16 * 4;
}

static int64_t nf4_double_bytes(int64_t out, int64_t in) {
  int64_t blocks = nb_ceil_div(out * in, BNB_BLOCK);
  return nb_ceil_div(out * in, 2) + blocks + nb_ceil_div(blocks, NESTED_BLOCK) * 4 + (16 + 256 + 1) * 4;
}

static int64_t gptq_bytes(int64_t out, int64_t in) {
  int64_t groups = nb_ceil_div(in, GPTQ_GROUP);
  return nb_ceil_div(in, 8) * 4 * out + groups * nb_ceil_div(out, 8) * 4 + groups * out * 2 + in * 4;
}

static const footprint_row footprints[] = {
    {"f32", 4, f32_bytes},
    {"f16", 2, f16_bytes},
    {"int8", 2, int8_bytes},
    {"nf4", 2, nf4_bytes},
    {"nf4-double-quant", 2, nf4_double_bytes},
    {"gptq-4bit-g128", 2, gptq_bytes},
};

enum { FOOTPRINTS = sizeof footprints / sizeof *footprints };

static void add_tensor(nibble_memory_result *out, const nb_rule *rule, nb_kind kind, const int64_t *shape, int ndim) {
  int64_t count = 1;
  for (int i = 0; i < ndim; i++) count *= shape[i];
  bool kept = rule && rule->stored & NB_KEEP_F32;
  bool quantizable = (kind == NB_KIND_LINEAR || kind == NB_KIND_EXPERT) && ndim == 2 && !kept;
  out->parameters += count;
  if (quantizable) out->quantizable_parameters += count;
  for (int f = 0; f < FOOTPRINTS; f++) {
    int64_t bytes = quantizable ? footprints[f].linear_bytes(shape[0], shape[1]) : count * footprints[f].plain_bytes;
    out->rows[f].weight_bytes += (uint64_t)bytes;
  }
}

/* Keys and values in 16 bits, of the stack that keeps them; the residual stream, its norm, and the wider of attention's
 * and the MLP's intermediates in 16 bits a token; the last token's outputs in float32. */
static void add_state(const nb_config *c, nibble_memory_result *out) {
  int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
  int last = c->family->stacks[1].rules ? 1 : 0, caches = last ? 2 : 1; /* a decoder keeps the encoder's, too */
  double tokens = (double)out->ctx * (double)out->batch;
  double layers = c->family->stacks[last].causal ? (double)(nb_config_layers(c, last) * caches) : 0;
  double cache = 2.0 * layers * (double)kv * tokens * 2;
  double widest = (double)nb_max_i64(2 * q + 2 * kv, 2 * nb_max_i64(c->intermediate_size, c->moe_intermediate_size));
  double activations = (2.0 * (double)c->hidden_size + widest) * tokens * 2;
  if (c->head->kind == NB_HEAD_LM) activations += 4.0 * (double)c->vocab_size * (double)out->batch;
  for (size_t i = 0; i < out->row_count; i++) {
    out->rows[i].kv_cache_bytes = (uint64_t)cache;
    out->rows[i].activation_bytes = (uint64_t)activations;
  }
}

static nibble_status config_path(const char *model, char **out, nibble_error *err) {
  struct stat info;
  if (stat(model, &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no such file", model);
    return nb_fail_errno(err, "%s", model);
  }
  *out = S_ISDIR(info.st_mode) ? nb_path_join(model, "config.json") : strdup(model);
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(model));
}

/* By the config's table: what is not in the files (a head to be trained, say) counts as well. */
static nibble_status add_promised(const nb_config *config, nibble_memory_result *out, nibble_error *err) {
  nb_model_tensors tensors;
  nibble_status status = nb_model_tensors_list(config, &tensors, err);
  if (status != NIBBLE_OK) return status;
  for (size_t i = 0; i < tensors.count; i++) {
    const nb_model_tensor *t = &tensors.items[i];
    add_tensor(out, t->rule, t->is_bias ? NB_KIND_OTHER : t->kind, t->shape, t->ndim);
  }
  nb_model_tensors_free(&tensors);
  return NIBBLE_OK;
}

/* For a family without a table: by the tensors themselves. */
static void add_stored(const nb_checkpoint *checkpoint, nibble_memory_result *out) {
  for (size_t i = 0; i < checkpoint->tensor_count; i++) {
    const nb_tensor *t = &checkpoint->tensors[i];
    const int64_t logical[2] = {t->packed ? t->packed->rows : 0, t->packed ? t->packed->cols : 0};
    if (t->is_part) continue;
    add_tensor(out, NULL, nb_role_info(t->id.role)->kind, t->packed ? logical : t->shape, t->packed ? 2 : t->ndim);
  }
}

nibble_status nibble_memory(const nibble_memory_options *options, nibble_memory_result *out, nibble_error *err) {
  *out = (nibble_memory_result){.row_count = FOOTPRINTS, .batch = options->batch ? options->batch : 1};
  for (int f = 0; f < FOOTPRINTS; f++) out->rows[f].format = footprints[f].format;
  nb_config bare = {0};
  nb_checkpoint checkpoint = {0};
  const nb_config *config = &bare;
  char *path = NULL;
  nibble_status status = config_path(options->model, &path, err);
  if (status != NIBBLE_OK) goto done;
  if (nb_checkpoint_has_weights(options->model)) {
    if ((status = nb_checkpoint_open(options->model, &checkpoint, err)) != NIBBLE_OK) goto done;
    config = &checkpoint.config;
    nibble_memory_row *stored = &out->rows[out->row_count++];
    stored->format = "as stored";
    for (size_t i = 0; i < checkpoint.tensor_count; i++) stored->weight_bytes += checkpoint.tensors[i].bytes;
  } else if ((status = nb_config_load(path, &bare, err)) != NIBBLE_OK) {
    goto done;
  }
  snprintf(out->model_type, sizeof out->model_type, "%s", config->model_type);
  if (config->family) {
    out->ctx = options->ctx ? options->ctx : nb_min_i64(2048, config->max_position_embeddings);
    if ((status = add_promised(config, out, err)) != NIBBLE_OK) goto done;
    add_state(config, out);
  } else if (checkpoint.tensor_count) {
    add_stored(&checkpoint, out);
  } else {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no table for model_type \"%s\", and no weights to go by", path,
                     config->model_type);
    goto done;
  }
  for (size_t i = 0; i < out->row_count; i++)
    out->rows[i].total_bytes = out->rows[i].weight_bytes + out->rows[i].kv_cache_bytes + out->rows[i].activation_bytes;
done:
  nb_checkpoint_close(&checkpoint);
  nb_config_free(&bare);
  free(path);
  return status;
}
