#include "model/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/printable.h"
#include "base/stage.h"
#include "model/family.h"
#include "model/heads.h"

/* Larger than any model there is, small enough that products of three stay inside an int64. */
enum { MAX_EXTENT = 1 << 20, MAX_VOCAB = 1 << 24 };

/* Configs say 2^31 and more for "no limit". A table of so many positions times MAX_EXTENT is still an int64 of bytes.
 */
static const int64_t max_positions = (int64_t)1 << 40;

/* As in transformers, "dtype" goes before "torch_dtype". The field is a wish for loading; one that names no float dtype
 * ("auto", "int8") counts for nothing. Some tools write "torch.float32", as torch prints it. */
static void parse_dtype(nb_config *c) {
  static const char *const keys[] = {"dtype", "torch_dtype"}, prefix[] = "torch.";
  c->dtype = NB_F32;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(c->json, keys[i]);
    if (!item || cJSON_IsNull(item)) continue;
    const char *name = cJSON_IsString(item) ? item->valuestring : "";
    nb_dtype dtype;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) name += sizeof prefix - 1;
    if (nb_dtype_parse(name, &dtype) && nb_dtype_is_float(dtype)) c->dtype = dtype;
    return;
  }
}

/* Names of a kind are printed by whoever reads a config, and compared with ours, which are plain. */
static nibble_status check_name(const char *where, const char *key, const char *name, nibble_error *err) {
  if (nb_is_printable(name)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" is '%s', with characters that no name has", where, key, name);
}

static nibble_status parse_identity(const char *where, nb_config *c, nibble_error *err) {
  c->model_type = c->architecture = "";
  nibble_status status = nb_json_string(where, c->json, "model_type", &c->model_type, err);
  if (status != NIBBLE_OK) return status;
  const cJSON *classes = cJSON_GetObjectItemCaseSensitive(c->json, "architectures");
  const cJSON *first = cJSON_IsArray(classes) ? cJSON_GetArrayItem(classes, 0) : NULL;
  if (cJSON_IsString(first)) c->architecture = first->valuestring;
  status = check_name(where, "model_type", c->model_type, err);
  if (status == NIBBLE_OK) status = check_name(where, "architectures", c->architecture, err);
  if (status != NIBBLE_OK) return status;
  if (!*c->model_type && !*c->architecture)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: neither \"model_type\" nor \"architectures\": no model's configuration",
                   where);
  c->family = nb_family_by_model_type(c->model_type);
  parse_dtype(c);
  return NIBBLE_OK;
}

static nibble_status parse_quantization(const char *where, nb_config *c, nibble_error *err) {
  nb_quant_config *q = &c->quant;
  const cJSON *json = nb_json_object(c->json, "quantization_config");
  bool present = json && json->child; /* an empty object says nothing */
  *q = (nb_quant_config){.present = present, .method = "", .quant_type = "fp4", .int8_threshold = 6.0};
  if (!present) return NIBBLE_OK;
  nibble_status status = nb_json_string(where, json, "quant_method", &q->method, err);
  if (status == NIBBLE_OK) status = check_name(where, "quant_method", q->method, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "load_in_4bit", &q->load_in_4bit, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "load_in_8bit", &q->load_in_8bit, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, json, "bnb_4bit_use_double_quant", &q->double_quant, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, json, "bnb_4bit_quant_type", &q->quant_type, err);
  if (status == NIBBLE_OK) status = nb_json_double(where, json, "llm_int8_threshold", &q->int8_threshold, err);
  bool is_gptq = strcmp(q->method, "gptq") == 0; /* other methods have keys of the same names */
  if (status == NIBBLE_OK && is_gptq) status = nb_json_int(where, json, "bits", (nb_range){0, 64}, &q->bits, err);
  if (status == NIBBLE_OK && is_gptq)
    status = nb_json_int(where, json, "group_size", (nb_range){-1, MAX_EXTENT}, &q->group_size, err);
  /* GPTQModel writes checkpoint_format, and since version 5 format beside it. */
  const char *layout = "gptq";
  if (status == NIBBLE_OK && is_gptq) status = nb_json_string(where, json, "format", &layout, err);
  if (status == NIBBLE_OK && is_gptq) status = nb_json_string(where, json, "checkpoint_format", &layout, err);
  if (status == NIBBLE_OK && is_gptq) status = nb_json_bool(where, json, "sym", &q->sym, err);
  q->gptq_v2 = q->zeros_as_stored = strcmp(layout, "gptq_v2") == 0;
  if (is_gptq && !q->gptq_v2 && strcmp(layout, "gptq") != 0) q->method = layout; /* another, whose bits lie otherwise */
  /* transformers wrote no quant_method before 4.32. */
  if (status == NIBBLE_OK && !*q->method && (q->load_in_4bit || q->load_in_8bit)) q->method = "bitsandbytes";
  return status;
}

/* What follows from the keys: extents that are left out, and what their products may come to. */
static nibble_status check_sizes(const char *where, nb_config *c, nibble_error *err) {
  if (!c->num_key_value_heads) c->num_key_value_heads = c->num_attention_heads;
  if (!c->head_dim) {
    if (c->hidden_size % c->num_attention_heads != 0)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: hidden_size %lld is no multiple of num_attention_heads %lld", where,
                     (long long)c->hidden_size, (long long)c->num_attention_heads);
    c->head_dim = c->hidden_size / c->num_attention_heads;
  }
  if (c->num_attention_heads % c->num_key_value_heads != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: num_attention_heads %lld is no multiple of num_key_value_heads %lld",
                   where, (long long)c->num_attention_heads, (long long)c->num_key_value_heads);
  if (c->head_dim > MAX_EXTENT / c->num_attention_heads)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: head_dim %lld times num_attention_heads %lld is too large", where,
                   (long long)c->head_dim, (long long)c->num_attention_heads);
  if (c->num_experts > 0 && c->num_experts_per_tok > c->num_experts)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: num_experts_per_tok %lld is more than the %lld experts", where,
                   (long long)c->num_experts_per_tok, (long long)c->num_experts);
  if (!(c->norm_eps >= 0 && c->norm_eps < 1))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: rms_norm_eps %g is out of range", where, c->norm_eps);
  return NIBBLE_OK;
}

/* The class decides what is on top of the blocks, and how many labels a classifier has. */
static nibble_status parse_head(const char *where, nb_config *c, nibble_error *err) {
  c->head = nb_head_of_class(*c->architecture ? c->architecture : c->family->default_class);
  c->num_labels = 2;
  const cJSON *labels = nb_json_object(c->json, "id2label");
  if (!labels) return nb_json_int(where, c->json, "num_labels", (nb_range){1, MAX_EXTENT}, &c->num_labels, err);
  c->num_labels = nb_max_i64(1, cJSON_GetArraySize(labels));
  return NIBBLE_OK;
}

static bool is_listed(const cJSON *list, int64_t number) {
  const cJSON *item;
  cJSON_ArrayForEach(item, list) {
    if (cJSON_IsNumber(item) && item->valuedouble == (double)number) return true;
  }
  return false;
}

/* Which layers slide is said layer by layer in newer configs, by max_window_layers in older ones of Qwen. null is no
 * window; a number below 1 is one in which no token sees any, and "none" to other programs: it is refused where it is
 * used, as are layers that are to slide without a window. */
static nibble_status parse_layers(nb_config *c, nibble_error *err) {
  const cJSON *types = cJSON_GetObjectItemCaseSensitive(c->json, "layer_types"), *type = NULL;
  const cJSON *dense = cJSON_GetObjectItemCaseSensitive(c->json, "mlp_only_layers");
  const nb_key window_key = NB_KEY_SLIDING_WINDOW;
  const cJSON *window = nb_family_reads(c->family, window_key) ? nb_key_find(c->json, window_key, NULL) : NULL;
  bool has_window = c->use_sliding_window && (c->sliding_window != 0 || cJSON_IsNumber(window));
  if (!(c->layers = nb_alloc((uint64_t)nb_max_i64(c->num_hidden_layers, c->num_decoder_layers) + 1, 1)))
    return nb_fail_memory(err, (size_t)c->num_hidden_layers);
  bool typed = cJSON_IsArray(types) && nb_family_reads(c->family, NB_KEY_LAYER_TYPES), slides_somewhere = false;
  if (typed) type = types->child;
  for (int64_t i = 0; i < c->num_hidden_layers; i++, type = type ? type->next : NULL) {
    bool slides = typed ? type && cJSON_IsString(type) && strcmp(type->valuestring, "sliding_attention") == 0
                        : has_window && i >= c->max_window_layers;
    bool sparse = c->num_experts > 0 && !is_listed(dense, i) &&
                  (c->decoder_sparse_step == 0 || (i + 1) % c->decoder_sparse_step == 0);
    c->layers[i] = (uint8_t)((slides ? NB_LAYER_SLIDING : 0) | (sparse ? NB_LAYER_SPARSE : 0));
    slides_somewhere |= slides;
  }
  if (slides_somewhere && !has_window) c->unread = types->string;
  if (slides_somewhere && has_window && c->sliding_window < 1) c->unread = nb_key_info(window_key)->names;
  if (!has_window || c->sliding_window < 0) c->sliding_window = 0;
  return NIBBLE_OK;
}

static nibble_status parse_eos(const char *where, nb_config *c, nibble_error *err) {
  const cJSON *eos = cJSON_GetObjectItemCaseSensitive(c->json, "eos_token_id");
  const cJSON *item = cJSON_IsArray(eos) ? eos->child : eos;
  for (; item && !cJSON_IsNull(item); item = cJSON_IsArray(eos) ? item->next : NULL) {
    double id = item->valuedouble;
    if (!cJSON_IsNumber(item) || !(id >= INT32_MIN && id <= MAX_VOCAB) || id != (double)(int64_t)id)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"eos_token_id\" must be a token's number, or a list of them", where);
    if (id < 0) continue; /* how some configs say that there is none */
    if (c->eos_token_count == (int)(sizeof c->eos_token_ids / sizeof *c->eos_token_ids))
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"eos_token_id\" has more than %d entries", where, c->eos_token_count);
    c->eos_token_ids[c->eos_token_count++] = (int64_t)id;
  }
  return NIBBLE_OK;
}

/* transformers 5 keeps all of it in rope_parameters; before, rope_theta stood at the top and the rest in rope_scaling,
 * which wins where both are there (modeling_rope_utils.py, convert_rope_params_to_dict). */
static const cJSON *find_rope(nb_config *c) {
  const cJSON *scaling = nb_json_object(c->json, "rope_scaling"), *item;
  const cJSON *said = cJSON_GetObjectItemCaseSensitive(c->json, "rope_scaling");
  if (said && !cJSON_IsNull(said) && !cJSON_IsObject(said)) c->unread = said->string;
  if (!scaling || !scaling->child) scaling = nb_json_object(c->json, "rope_parameters");
  cJSON_ArrayForEach(item, scaling) {
    if (cJSON_IsObject(item)) c->unread = item->string; /* parameters for some of the layers */
  }
  return scaling;
}

static nibble_status parse_rope(const char *where, nb_config *c, nibble_error *err) {
  nb_rope *r = &c->rope;
  double part = 1;
  *r = (nb_rope){.type_name = "default", .factor = 1, .low_freq_factor = 1, .high_freq_factor = 4};
  r->theta = nb_key_default(c->family, NB_KEY_ROPE_THETA);
  r->original_max_position_embeddings = c->max_position_embeddings;
  const cJSON *rope = find_rope(c);
  const struct {
    const cJSON *object;
    const char *key;
    double *out;
  } numbers[] = {{c->json, "rope_theta", &r->theta},
                 {rope, "rope_theta", &r->theta},
                 {c->json, "partial_rotary_factor", &part},
                 {rope, "partial_rotary_factor", &part},
                 {rope, "factor", &r->factor},
                 {rope, "low_freq_factor", &r->low_freq_factor},
                 {rope, "high_freq_factor", &r->high_freq_factor}};
  const cJSON *const contexts[] = {rope, c->json}; /* the one at the top counts */
  nibble_status status = nb_json_string(where, rope, "type", &r->type_name, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, rope, "rope_type", &r->type_name, err);
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof numbers / sizeof *numbers; i++)
    status = nb_json_double(where, numbers[i].object, numbers[i].key, numbers[i].out, err);
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof contexts / sizeof *contexts; i++)
    status = nb_json_int(where, contexts[i], "original_max_position_embeddings", (nb_range){1, max_positions},
                         &r->original_max_position_embeddings, err);
  if (status != NIBBLE_OK) return status;
  static const char *const names[] = {
      [NB_ROPE_DEFAULT] = "default", [NB_ROPE_LINEAR] = "linear", [NB_ROPE_LLAMA3] = "llama3"};
  r->type = NB_ROPE_DEFAULT;
  while (r->type < NB_ROPE_OTHER && strcmp(r->type_name, names[r->type]) != 0) r->type++;
  /* Only the scaled kinds look at it (compute_default_rope_parameters does not), and then make angles of the wrong
   * number for these families. */
  if (part != 1 && r->type != NB_ROPE_DEFAULT) c->unread = nb_key_info(NB_KEY_PARTIAL_ROTARY_FACTOR)->names;
  if (!(r->theta > 0) || !(r->factor > 0) || !(r->low_freq_factor > 0) || !(r->high_freq_factor > r->low_freq_factor))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the rope parameters are out of range", where);
  return NIBBLE_OK;
}

static nibble_status parse_text(const char *where, const char *text, size_t n, nb_config *c, nibble_error *err) {
  nibble_status status = nb_json_parse(where, text, n, &c->json, err);
  if (status != NIBBLE_OK) return status;
  if (!cJSON_IsObject(c->json)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a JSON object", where);
  if (!(c->text = strndup(text, n))) return nb_fail_memory(err, n);
  return nb_json_last_wins(c->json, err);
}

nibble_status nb_config_parse(const char *where, const char *text, size_t n, nb_config *out, nibble_error *err) {
  *out = (nb_config){0};
  nibble_status status = parse_text(where, text, n, out, err);
  if (status != NIBBLE_OK) goto done;
  if ((status = parse_identity(where, out, err)) != NIBBLE_OK) goto done;
  if ((status = parse_quantization(where, out, err)) != NIBBLE_OK) goto done;
  if (!out->family) goto done;
  out->use_sliding_window = true; /* in families without that switch */
  out->is_causal = out->scale_attn_weights = true;
  out->bos_token_id = -1;
  if ((status = nb_keys_read(where, out, err)) != NIBBLE_OK) goto done;
  out->output_bias = out->attention_bias && out->family->output_bias;
  out->qk_norm = out->family->qk_norm;
  if (out->family->finish && (status = out->family->finish(where, out, err)) != NIBBLE_OK) goto done;
  if ((status = check_sizes(where, out, err)) != NIBBLE_OK) goto done;
  if ((status = parse_head(where, out, err)) != NIBBLE_OK) goto done;
  if ((status = parse_layers(out, err)) != NIBBLE_OK) goto done;
  if ((status = parse_eos(where, out, err)) != NIBBLE_OK) goto done;
  if (out->family->rotary && (status = parse_rope(where, out, err)) != NIBBLE_OK) goto done;
  if (!out->unread) out->unread = nb_keys_unread(out);
done:
  if (status != NIBBLE_OK) nb_config_free(out);
  return status;
}

nibble_status nb_config_load(const char *path, nb_config *out, nibble_error *err) {
  char *text;
  size_t n;
  *out = (nb_config){0};
  nibble_status status = nb_read_file(path, NB_JSON_MAX_BYTES, &text, &n, err);
  if (status != NIBBLE_OK) return status;
  status = nb_config_parse(path, text, n, out, err);
  free(text);
  return status;
}

void nb_config_free(nb_config *config) {
  free(config->text);
  cJSON_Delete(config->json);
  free(config->layers);
  *config = (nb_config){0};
}
