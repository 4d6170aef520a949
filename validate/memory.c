/* What a model needs in each format, from its config alone; where there are weights, also what they take as stored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/context.h"
#include "base/stage.h"
#include "convert/checkpoint.h"
#include "model/heads.h"

/* A line: linear layers in this format, all else in float16, or in the format itself if it is plain. */
typedef struct footprint {
  const char *name;
  nb_format format;
  bool nested;
} footprint;

enum { MOST_FOOTPRINTS = 7, MOST_BITS = 32 }; /* "as stored" is the eighth of nibble_memory_result's rows */

typedef struct footprints {
  footprint lines[MOST_FOOTPRINTS];
  int count;
} footprints;

/* Those that the formats name, from most bits to fewest. */
static void list_footprints(footprints *out) {
  for (int bits = MOST_BITS; bits > 0; bits--) {
    for (int f = 0; f < NB_FORMAT_COUNT; f++) {
      const nb_format_row *info = nb_format_info((nb_format)f);
      const char *names[] = {info->footprint, info->nested_footprint};
      for (int nested = 0; nested < 2; nested++) {
        if (info->bits != bits || !names[nested] || out->count == MOST_FOOTPRINTS) continue;
        out->lines[out->count++] = (footprint){names[nested], (nb_format)f, nested != 0};
      }
    }
  }
}

static void add_tensor(nibble_memory_result *out, const footprints *all, const nb_rule *rule, nb_kind kind,
                       const int64_t *shape, int ndim) {
  int64_t count = 1;
  for (int i = 0; i < ndim; i++) count *= shape[i];
  bool kept = rule && rule->stored & NB_KEEP_F32;
  bool quantizable = (kind == NB_KIND_LINEAR || kind == NB_KIND_EXPERT) && ndim == 2 && !kept;
  out->parameters += count;
  if (quantizable) out->quantizable_parameters += count;
  for (int f = 0; f < all->count; f++) {
    const footprint *line = &all->lines[f];
    const nb_format_row *info = nb_format_info(line->format);
    nb_dtype rest = info->scheme == NB_SCHEME_PLAIN ? info->plain : NB_F16;
    int64_t bytes = count * (int64_t)nb_dtype_size(rest);
    if (quantizable) {
      nb_packed m = nb_packed_usual(line->format, shape[0], shape[1], 0, line->nested);
      bytes = nb_packed_bytes(&m);
    }
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
  if (stat(model, &info) != 0) return nb_fail_input(model, err);
  *out = S_ISDIR(info.st_mode) ? nb_path_join(model, "config.json") : strdup(model);
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(model));
}

/* By the config's table: what is not in the files (a head to be trained, say) counts as well. */
static nibble_status add_promised(const nb_config *config, const footprints *all, nibble_memory_result *out,
                                  nibble_error *err) {
  nb_model_tensors tensors;
  nibble_status status = nb_model_tensors_list(config, &tensors, err);
  if (status != NIBBLE_OK) return status;
  for (size_t i = 0; i < tensors.count; i++) {
    const nb_model_tensor *t = &tensors.items[i];
    add_tensor(out, all, t->rule, t->is_bias ? NB_KIND_OTHER : t->kind, t->shape, t->ndim);
  }
  nb_model_tensors_free(&tensors);
  return NIBBLE_OK;
}

/* For a family without a table: by the tensors themselves. */
static void add_stored(const nb_checkpoint *checkpoint, const footprints *all, nibble_memory_result *out) {
  for (size_t i = 0; i < checkpoint->tensor_count; i++) {
    const nb_tensor *t = &checkpoint->tensors[i];
    const int64_t logical[2] = {t->packed ? t->packed->rows : 0, t->packed ? t->packed->cols : 0};
    if (t->is_part) continue;
    add_tensor(out, all, NULL, nb_role_info(t->id.role)->kind, t->packed ? logical : t->shape, t->packed ? 2 : t->ndim);
  }
}

static nibble_status tell_memory(const nibble_memory_options *options, nibble_memory_result *out, nibble_error *err) {
  footprints all = {0};
  list_footprints(&all);
  *out = (nibble_memory_result){.row_count = (size_t)all.count, .batch = options->batch ? options->batch : 1};
  for (int f = 0; f < all.count; f++) out->rows[f].format = all.lines[f].name;
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
    if ((status = add_promised(config, &all, out, err)) != NIBBLE_OK) goto done;
    add_state(config, out);
  } else if (checkpoint.tensor_count) {
    add_stored(&checkpoint, &all, out);
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

nibble_status nibble_memory(const nibble_memory_options *options, nibble_memory_result *out, nibble_error *err) {
  nibble_memory_options o;
  nibble_memory_result r;
  static const nb_call_rules rules = {"nibble_memory",
                                      NB_SIZES(nibble_memory_options, batch),
                                      NB_SIZES(nibble_memory_result, row_count),
                                      {NB_REQUIRED(nibble_memory_options, model)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = tell_memory(&o, &r, err);
  return nb_call_end(&call, status);
}
