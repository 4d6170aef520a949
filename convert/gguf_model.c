/* From what a GGUF file says of itself to a checkpoint: its config as Hugging Face writes it, its tensors under their
 * Hugging Face names. Which keys become which is that of transformers' import (integrations/ggml.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/gguf.h"
#include "convert/reader.h"
#include "model/tensors.h"

typedef struct element_type {
  const char *name;
  enum { UNSUPPORTED, PLAIN, BLOCKS, OPAQUE } kind;
  nb_dtype dtype;     /* PLAIN */
  nb_format format;   /* BLOCKS */
  int weights, bytes; /* OPAQUE: of a block, which nothing here can read */
} element_type;

/* By the file's number: ggml_type in ggml.h. The gaps are types that were taken out again. */
static const element_type element_types[] = {
    [0] = {"F32", PLAIN, NB_F32, 0, 0, 0},
    [1] = {"F16", PLAIN, NB_F16, 0, 0, 0},
    [2] = {"Q4_0", BLOCKS, NB_F32, NB_FORMAT_Q4_0, 0, 0},
    [3] = {"Q4_1", BLOCKS, NB_F32, NB_FORMAT_Q4_1, 0, 0},
    [6] = {"Q5_0", BLOCKS, NB_F32, NB_FORMAT_Q5_0, 0, 0},
    [7] = {"Q5_1", BLOCKS, NB_F32, NB_FORMAT_Q5_1, 0, 0},
    [8] = {"Q8_0", BLOCKS, NB_F32, NB_FORMAT_Q8_0, 0, 0},
    [9] = {"Q8_1", UNSUPPORTED, 0, 0, 0, 0},
    [10] = {"Q2_K", BLOCKS, NB_F32, NB_FORMAT_Q2_K, 0, 0},
    [11] = {"Q3_K", BLOCKS, NB_F32, NB_FORMAT_Q3_K, 0, 0},
    [12] = {"Q4_K", BLOCKS, NB_F32, NB_FORMAT_Q4_K, 0, 0},
    [13] = {"Q5_K", BLOCKS, NB_F32, NB_FORMAT_Q5_K, 0, 0},
    [14] = {"Q6_K", BLOCKS, NB_F32, NB_FORMAT_Q6_K, 0, 0},
    [15] = {"Q8_K", OPAQUE, NB_U8, 0, 256, 292},
    [16] = {"IQ2_XXS", OPAQUE, NB_U8, 0, 256, 66},
    [17] = {"IQ2_XS", OPAQUE, NB_U8, 0, 256, 74},
    [18] = {"IQ3_XXS", OPAQUE, NB_U8, 0, 256, 98},
    [19] = {"IQ1_S", OPAQUE, NB_U8, 0, 256, 50},
    [20] = {"IQ4_NL", OPAQUE, NB_U8, 0, 32, 18},
    [21] = {"IQ3_S", OPAQUE, NB_U8, 0, 256, 110},
    [22] = {"IQ2_S", OPAQUE, NB_U8, 0, 256, 82},
    [23] = {"IQ4_XS", OPAQUE, NB_U8, 0, 256, 136},
    [24] = {"I8", PLAIN, NB_I8, 0, 0, 0},
    [25] = {"I16", PLAIN, NB_I16, 0, 0, 0},
    [26] = {"I32", PLAIN, NB_I32, 0, 0, 0},
    [27] = {"I64", PLAIN, NB_I64, 0, 0, 0},
    [28] = {"F64", PLAIN, NB_F64, 0, 0, 0},
    [29] = {"IQ1_M", OPAQUE, NB_U8, 0, 256, 56},
    [30] = {"BF16", PLAIN, NB_BF16, 0, 0, 0},
    [34] = {"TQ1_0", OPAQUE, NB_U8, 0, 256, 54},
    [35] = {"TQ2_0", OPAQUE, NB_U8, 0, 256, 66},
    [39] = {"MXFP4", OPAQUE, NB_U8, 0, 32, 17},
};

/* The config's source: metadata keys begin with the architecture's name. */
typedef struct model {
  const nb_gguf *gguf;
  const nb_mapfile *map;
  const nb_family *family; /* NULL: a family that is not known */
  char arch_name[64];
  nibble_error *err;
} model;

static const char *key_of(const model *m, const char *suffix, char key[128]) {
  snprintf(key, 128, "%s.%s", m->arch_name, suffix);
  return key;
}

static const nb_gguf_tensor *find_tensor(const nb_gguf *g, const char *name) {
  for (size_t i = 0; i < g->tensor_count; i++) {
    if (nb_str_is(g->tensors[i].name, name)) return &g->tensors[i];
  }
  return NULL;
}

/* Copies the metadata value to config[name], if it is there. */
static nibble_status copy_int(const model *m, const char *gguf_key, cJSON *config, const char *name) {
  int64_t value = -1;
  nibble_status status = nb_gguf_int(m->gguf, gguf_key, 0, INT32_MAX, &value, m->err);
  if (status == NIBBLE_OK && value >= 0 && !cJSON_AddNumberToObject(config, name, (double)value))
    status = nb_fail_memory(m->err, sizeof(cJSON));
  return status;
}

static nibble_status copy_double(const model *m, const char *gguf_key, cJSON *config, const char *name) {
  double value = NAN;
  nibble_status status = nb_gguf_double(m->gguf, gguf_key, &value, m->err);
  if (status == NIBBLE_OK && !isnan(value) && !nb_json_add_float(config, name, value))
    status = nb_fail_memory(m->err, sizeof(cJSON));
  return status;
}

static nibble_status copy_bool(const model *m, const char *gguf_key, cJSON *config, const char *name) {
  bool value = false;
  nibble_status status = nb_gguf_bool(m->gguf, gguf_key, &value, m->err);
  if (status == NIBBLE_OK && nb_gguf_find(m->gguf, gguf_key) && !cJSON_AddBoolToObject(config, name, value))
    status = nb_fail_memory(m->err, sizeof(cJSON));
  return status;
}

static const char rope_freqs[] = "rope_freqs.weight";

/* rope_freqs.weight holds what each rotary frequency is divided by. The only scaling that is stored so is Llama 3's,
 * and its parameters are in no other place: take the factor from the tensor, the others as every such model has them
 * (arXiv:2407.21783 and Llama 3.1's config.json), and see whether they give the tensor. */
enum { LLAMA3_LOW = 1, LLAMA3_HIGH = 4, LLAMA3_CONTEXT = 8192 };

static double llama3_factor(double theta, int64_t head_dim, int64_t i, double factor) {
  double wavelength = 2 * M_PI * pow(theta, 2.0 * (double)i / (double)head_dim);
  if (wavelength < (double)LLAMA3_CONTEXT / LLAMA3_HIGH) return 1;
  if (wavelength > (double)LLAMA3_CONTEXT / LLAMA3_LOW) return factor;
  double smooth = (LLAMA3_CONTEXT / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW);
  return 1 / ((1 - smooth) / factor + smooth);
}

static nibble_status llama3_scaling(const model *m, double theta, cJSON *rope) {
  const nb_gguf *g = m->gguf;
  const nb_gguf_tensor *t = find_tensor(g, rope_freqs);
  if (!t) return NIBBLE_OK;
  uint64_t at;
  if (t->type != 0 || t->ndim != 1 || t->shape[0] > 1 << 16 || !nb_add_u64(g->data_at, t->offset, &at) ||
      !nb_range_inside(at, (uint64_t)t->shape[0] * 4, m->map->size))
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor 'rope_freqs.weight' is no list of F32 inside the file",
                   g->path);
  float factor = 1, value;
  bool all_ones = true, fits = true;
  int64_t n = t->shape[0];
  memcpy(&factor, m->map->data + at + (size_t)(n - 1) * 4, 4);
  for (int64_t i = 0; i < n; i++) {
    memcpy(&value, m->map->data + at + (size_t)i * 4, 4);
    double expected = llama3_factor(theta, 2 * n, i, (double)factor);
    all_ones = all_ones && value == 1;
    fits = fits && fabs((double)value - expected) <= 1e-4 * expected;
  }
  if (all_ones) return NIBBLE_OK;
  if (!fits || !(factor > 1))
    return nb_fail(m->err, NIBBLE_BAD_INPUT,
                   "%s: tensor 'rope_freqs.weight' is not the rope scaling of Llama 3; it has no place in config.json",
                   g->path);
  bool ok = nb_json_add_float(rope, "factor", (double)factor) &&
            nb_json_add_float(rope, "high_freq_factor", LLAMA3_HIGH) &&
            nb_json_add_float(rope, "low_freq_factor", LLAMA3_LOW) &&
            cJSON_AddNumberToObject(rope, "original_max_position_embeddings", LLAMA3_CONTEXT) &&
            cJSON_ReplaceItemInObjectCaseSensitive(rope, "rope_type", cJSON_CreateString("llama3"));
  return ok ? NIBBLE_OK : nb_fail_memory(m->err, sizeof(cJSON));
}

/* llama.cpp takes a factor without a type for linear scaling, and scale_linear for such a factor. */
static nibble_status scaling_type(const model *m, nb_str *type, double *factor) {
  char key[128];
  const nb_gguf *g = m->gguf;
  *factor = 0;
  nibble_status status = nb_gguf_double(g, key_of(m, "rope.scale_linear", key), factor, m->err);
  if (status == NIBBLE_OK) status = nb_gguf_double(g, key_of(m, "rope.scaling.factor", key), factor, m->err);
  *type = *factor == 0 || *factor == 1 ? (nb_str){"none", 4} : (nb_str){"linear", 6};
  if (status == NIBBLE_OK) status = nb_gguf_text(g, key_of(m, "rope.scaling.type", key), type, m->err);
  return status;
}

static nibble_status add_rope(const model *m, cJSON *config) {
  char key[128];
  nb_str type;
  double theta = 10000, factor;
  cJSON *rope = cJSON_AddObjectToObject(config, "rope_parameters");
  nibble_status status = nb_gguf_double(m->gguf, key_of(m, "rope.freq_base", key), &theta, m->err);
  if (status == NIBBLE_OK) status = scaling_type(m, &type, &factor);
  if (status != NIBBLE_OK) return status;
  bool linear = nb_str_is(type, "linear"), yarn = nb_str_is(type, "yarn");
  bool is_scaled = factor != 0 && factor != 1; /* either kind does nothing to angles without a factor */
  if (!linear && !yarn && !nb_str_is(type, "none"))
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: metadata '%s': rope scaling '%.*s' is not supported", m->gguf->path,
                   key_of(m, "rope.scaling.type", key), (int)type.length, type.data);
  linear = linear && is_scaled;
  yarn = yarn && is_scaled;
  if ((linear || yarn) && !nb_json_add_float(rope, "factor", factor)) return nb_fail_memory(m->err, sizeof(cJSON));
  if (yarn)
    status =
        copy_int(m, key_of(m, "rope.scaling.original_context_length", key), rope, "original_max_position_embeddings");
  if (status != NIBBLE_OK) return status;
  if (!nb_json_add_float(rope, "rope_theta", theta) || !cJSON_AddStringToObject(rope, "rope_type",
                                                                                linear ? "linear"
                                                                                : yarn ? "yarn"
                                                                                       : "default"))
    return nb_fail_memory(m->err, sizeof(cJSON));
  return linear || yarn ? NIBBLE_OK : llama3_scaling(m, theta, rope);
}

/* The places that transformers 4 looks in; 5 takes them for the same. */
static nibble_status add_old_rope(const model *m, cJSON *config) {
  const cJSON *rope = nb_json_object(config, "rope_parameters");
  const char *type = "";
  nibble_status status = nb_json_string(m->gguf->path, rope, "rope_type", &type, m->err);
  if (status != NIBBLE_OK) return status;
  cJSON *theta = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(rope, "rope_theta"), true);
  bool ok = cJSON_AddItemToObject(config, "rope_theta", theta);
  if (strcmp(type, "default") != 0) {
    cJSON *scaling = cJSON_Duplicate(rope, true);
    cJSON_DeleteItemFromObjectCaseSensitive(scaling, "rope_theta");
    ok = ok && cJSON_AddItemToObject(config, "rope_scaling", scaling);
  }
  return ok ? NIBBLE_OK : nb_fail_memory(m->err, sizeof(cJSON));
}

/* The rotary part of a head is all of it in every family that is known. */
static nibble_status add_head_dim(const model *m, cJSON *config) {
  char key[128];
  int64_t key_length = 0, rotary = 0;
  nibble_status status = nb_gguf_int(m->gguf, key_of(m, "attention.key_length", key), 1, 1 << 20, &key_length, m->err);
  if (status == NIBBLE_OK)
    status = nb_gguf_int(m->gguf, key_of(m, "rope.dimension_count", key), 1, 1 << 20, &rotary, m->err);
  if (status != NIBBLE_OK) return status;
  int64_t value_length = key_length;
  status = nb_gguf_int(m->gguf, key_of(m, "attention.value_length", key), 1, 1 << 20, &value_length, m->err);
  if (status != NIBBLE_OK) return status;
  if (key_length && value_length != key_length)
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: metadata '%s': values of %lld dimensions beside keys of %lld",
                   m->gguf->path, key, (long long)value_length, (long long)key_length);
  if (key_length && rotary && key_length != rotary)
    return nb_fail(m->err, NIBBLE_BAD_INPUT,
                   "%s: rotary embeddings on %lld of a head's %lld dimensions are not supported", m->gguf->path,
                   (long long)rotary, (long long)key_length);
  int64_t head_dim = key_length ? key_length : rotary;
  if (head_dim && !cJSON_AddNumberToObject(config, "head_dim", (double)head_dim))
    return nb_fail_memory(m->err, sizeof(cJSON));
  return NIBBLE_OK;
}

/* The dtype that a folder made from this file is written in: matrices that are all F32 or all F16 keep that; blocks
 * become bfloat16, which holds all they tell. */
static const char *torch_dtype(const nb_gguf *g) {
  enum { NONE = -1, MIXED = -2 };
  int64_t common = NONE;
  for (size_t i = 0; i < g->tensor_count; i++) {
    const nb_gguf_tensor *t = &g->tensors[i];
    if (t->ndim > 1) common = common == NONE || common == (int64_t)t->type ? (int64_t)t->type : MIXED;
  }
  return common == 0 ? "float32" : common == 1 ? "float16" : "bfloat16";
}

/* The members that the family reads and the file has, by the table of keys. */
static nibble_status add_numbers(const model *m, cJSON *config) {
  char key[128], name[64];
  nibble_status status = NIBBLE_OK;
  for (nb_key k = NB_KEY_NONE + 1; status == NIBBLE_OK && k < NB_KEYS; k++) {
    const nb_key_row *row = nb_key_info(k);
    if (!row->gguf || !nb_family_reads(m->family, k)) continue;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(row->names, "|"), row->names);
    key_of(m, row->gguf, key);
    if (row->type == NB_KEY_INT) status = copy_int(m, key, config, name);
    if (row->type == NB_KEY_DOUBLE) status = copy_double(m, key, config, name);
    if (row->type == NB_KEY_BOOL) status = copy_bool(m, key, config, name);
  }
  if (status != NIBBLE_OK) return status;
  if (cJSON_HasObjectItem(config, "vocab_size")) return NIBBLE_OK;
  const nb_gguf_entry *tokens = nb_gguf_find(m->gguf, "tokenizer.ggml.tokens");
  if (tokens && tokens->is_array && !cJSON_AddNumberToObject(config, "vocab_size", (double)tokens->count))
    return nb_fail_memory(m->err, sizeof(cJSON));
  return NIBBLE_OK;
}

/* Whether the file has the tensor of that role, in the first block if it is of a block. */
static bool has_tensor(const model *m, nb_role role, bool is_bias) {
  char name[128];
  for (const nb_rule *rule = m->family->stacks[0].rules; rule->name; rule++) {
    if (rule->role != role || !rule->gguf) continue;
    const char *hole = strstr(rule->gguf, "{}"), *suffix = is_bias ? ".bias" : ".weight";
    int before = (int)(hole ? (size_t)(hole - rule->gguf) : strlen(rule->gguf));
    snprintf(name, sizeof name, "%.*s%s%s%s", before, rule->gguf, hole ? "0" : "", hole ? hole + 2 : "", suffix);
    return find_tensor(m->gguf, name) != NULL;
  }
  return false;
}

/* Switches that the file shows by having a tensor or not. */
static nibble_status add_switches(const model *m, cJSON *config) {
  static const struct {
    nb_key key;
    nb_role role;
    bool is_bias, is_not;
  } switches[] = {
      {NB_KEY_TIE_WORD_EMBEDDINGS, NB_HEAD, false, true},
      {NB_KEY_ATTENTION_BIAS, NB_ATTN_Q, true, false},
      {NB_KEY_MLP_BIAS, NB_MLP_GATE, true, false},
  };
  for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
    if (!nb_family_reads(m->family, switches[i].key)) continue;
    bool value = has_tensor(m, switches[i].role, switches[i].is_bias) != switches[i].is_not;
    if (!cJSON_AddBoolToObject(config, nb_key_info(switches[i].key)->names, value))
      return nb_fail_memory(m->err, sizeof(cJSON));
  }
  return NIBBLE_OK;
}

/* Metadata under the architecture's name that is understood here, or says nothing about what is computed. */
static bool is_understood(const model *m, const char *suffix) {
  static const char *const others[] = {"rope.scale_linear",
                                       "rope.scaling.type",
                                       "rope.scaling.factor",
                                       "rope.dimension_count",
                                       "attention.key_length",
                                       "attention.value_length",
                                       "rope.scaling.finetuned",
                                       "tensor_data_layout",
                                       "rope.scaling.original_context_length",
                                       "attention.layer_norm_rms_epsilon"};
  for (nb_key k = NB_KEY_NONE + 1; k < NB_KEYS; k++) {
    const char *known = nb_key_info(k)->gguf;
    if (known && nb_family_reads(m->family, k) && strcmp(known, suffix) == 0) return true;
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    if (strcmp(others[i], suffix) == 0) return true;
  }
  return false;
}

/* What is not understood may change what the model computes: it is refused by name, unless it says zero, or no. Of a
 * scaling of angles zero is a setting like any other. */
static nibble_status check_metadata(const model *m) {
  const nb_gguf *g = m->gguf;
  static const char scaling[] = "rope.scaling.";
  size_t n = strlen(m->arch_name);
  char suffix[128];
  for (size_t i = 0; i < g->entry_count; i++) {
    const nb_gguf_entry *e = &g->entries[i];
    if (e->key.length <= n + 1 || memcmp(e->key.data, m->arch_name, n) != 0 || e->key.data[n] != '.') continue;
    snprintf(suffix, sizeof suffix, "%.*s", (int)(e->key.length - n - 1), e->key.data + n + 1);
    bool is_zero = !e->is_array && e->type != NB_GGUF_STRING && nb_gguf_item_double(e, 0) == 0;
    bool is_scaling = strncmp(suffix, scaling, sizeof scaling - 1) == 0;
    if ((is_zero && !is_scaling) || is_understood(m, suffix)) continue;
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: metadata '%s.%s' is not understood in a model of family '%s'",
                   g->path, m->arch_name, suffix, m->arch_name);
  }
  return NIBBLE_OK;
}

/* A token that the file does not have is null: left out, transformers would take LlamaConfig's 1 and 2. */
static nibble_status add_token_ids(const model *m, cJSON *config) {
  static const struct {
    const char *key, *name;
  } rows[] = {
      {"tokenizer.ggml.bos_token_id", "bos_token_id"},
      {"tokenizer.ggml.eos_token_id", "eos_token_id"},
      {"tokenizer.ggml.padding_token_id", "pad_token_id"},
  };
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof rows / sizeof *rows; i++) {
    status = copy_int(m, rows[i].key, config, rows[i].name);
    if (status == NIBBLE_OK && !cJSON_HasObjectItem(config, rows[i].name) &&
        !cJSON_AddNullToObject(config, rows[i].name))
      status = nb_fail_memory(m->err, sizeof(cJSON));
  }
  return status == NIBBLE_OK ? copy_int(m, "tokenizer.ggml.unknown_token_id", config, "unk_token_id") : status;
}

static cJSON *string_of(nb_str s) {
  char *text = strndup(s.data ? s.data : "", s.length);
  cJSON *json = text ? cJSON_CreateString(text) : NULL;
  free(text);
  return json;
}

static nibble_status build_config(const model *m, cJSON *config) {
  if (!m->family) {
    char type[80];
    snprintf(type, sizeof type, "gguf-%s", m->arch_name); /* no model_type of transformers */
    return cJSON_AddStringToObject(config, "model_type", type) ? NIBBLE_OK : nb_fail_memory(m->err, sizeof(cJSON));
  }
  nb_str name = {0};
  nibble_status status = nb_gguf_text(m->gguf, "general.name", &name, m->err);
  if (status != NIBBLE_OK) return status;
  if (name.length && !cJSON_AddItemToObject(config, "_model_name_or_path", string_of(name)))
    return nb_fail_memory(m->err, sizeof(cJSON));
  cJSON *classes = cJSON_AddArrayToObject(config, "architectures");
  if (!cJSON_AddItemToArray(classes, cJSON_CreateString(m->family->default_class)) ||
      !cJSON_AddStringToObject(config, "model_type", m->family->model_type) ||
      !cJSON_AddStringToObject(config, "dtype", torch_dtype(m->gguf)) ||
      !cJSON_AddStringToObject(config, "hidden_act", "silu"))
    return nb_fail_memory(m->err, sizeof(cJSON));
  status = check_metadata(m);
  if (status == NIBBLE_OK) status = add_numbers(m, config);
  if (status == NIBBLE_OK) status = add_head_dim(m, config);
  if (status == NIBBLE_OK) status = add_rope(m, config);
  if (status == NIBBLE_OK) status = add_old_rope(m, config);
  if (status == NIBBLE_OK) status = add_switches(m, config);
  if (status == NIBBLE_OK) status = add_token_ids(m, config);
  return status;
}

static nibble_status identify(model *m) {
  nb_str name = {0}, type = {0};
  int64_t parts = 1;
  nibble_status status = nb_gguf_text(m->gguf, "general.architecture", &name, m->err);
  if (status == NIBBLE_OK) status = nb_gguf_text(m->gguf, "general.type", &type, m->err);
  if (status == NIBBLE_OK) status = nb_gguf_int(m->gguf, "split.count", 0, INT32_MAX, &parts, m->err);
  if (status != NIBBLE_OK) return status;
  if (name.length == 0 || name.length >= sizeof m->arch_name || memchr(name.data, 0, name.length))
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: metadata 'general.architecture' does not name a family",
                   m->gguf->path);
  if (type.length && !nb_str_is(type, "model"))
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: metadata 'general.type' is '%.*s': it holds no whole model",
                   m->gguf->path, (int)nb_min_i64((int64_t)type.length, 64), type.data);
  if (parts > 1)
    return nb_fail(m->err, NIBBLE_BAD_INPUT,
                   "%s: one part of a model split into %lld files, which is not supported; merge them first "
                   "(llama-gguf-split --merge)",
                   m->gguf->path, (long long)parts);
  memcpy(m->arch_name, name.data, name.length);
  m->family = nb_family_by_gguf(m->arch_name);
  return NIBBLE_OK;
}

/* Sets dtype, format and bytes. */
static nibble_status measure(const model *m, const nb_gguf_tensor *t, nb_tensor *out) {
  const char *path = m->gguf->path;
  const element_type *type = t->type < sizeof element_types / sizeof *element_types && element_types[t->type].name
                                 ? &element_types[t->type]
                                 : NULL;
  if (!type)
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': element type %u is not known", path,
                   (int)t->name.length, t->name.data, t->type);
  if (type->kind == UNSUPPORTED)
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': element type %s is not supported", path,
                   (int)t->name.length, t->name.data, type->name);
  out->dtype = type->dtype;
  out->is_blocks = type->kind == BLOCKS;
  out->opaque = type->kind == OPAQUE ? type->name : NULL;
  out->format = type->format;
  int64_t unit = 1, unit_bytes = (int64_t)nb_dtype_size(type->dtype), units, bytes;
  if (out->is_blocks) {
    unit = nb_format_info(type->format)->block.weights;
    unit_bytes = nb_format_info(type->format)->block.bytes;
  } else if (out->opaque) {
    unit = type->weights;
    unit_bytes = type->bytes;
  }
  if (t->shape[t->ndim - 1] % unit != 0)
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': rows of %lld are no whole blocks of %s", path,
                   (int)t->name.length, t->name.data, (long long)t->shape[t->ndim - 1], type->name);
  if (!nb_shape_count(t->shape, t->ndim, &units) || __builtin_mul_overflow(units / unit, unit_bytes, &bytes))
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': its shape is too large", path, (int)t->name.length,
                   t->name.data);
  out->bytes = (uint64_t)bytes;
  return NIBBLE_OK;
}

/* The Hugging Face name, malloc'd, and over how many heads the rows are interleaved. NULL with NIBBLE_OK: a tensor that
 * has no counterpart and needs none. */
static nibble_status translate(const model *m, nb_str gguf_name, const nb_config *config, char **out,
                               int64_t *permute_heads) {
  nb_identity id;
  char *name = strndup(gguf_name.data, gguf_name.length);
  *out = NULL;
  *permute_heads = 0;
  if (!name) return nb_fail_memory(m->err, gguf_name.length);
  if (!m->family) {
    *out = name;
    return NIBBLE_OK;
  }
  nibble_status status = NIBBLE_OK;
  if (strcmp(name, rope_freqs) != 0) { /* in the config by now */
    status = nb_identify_gguf(m->family, name, &id, out, m->err);
    if (status == NIBBLE_OK && !*out)
      status = nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%s': a model of family '%s' has none of that name",
                       m->gguf->path, name, m->arch_name);
    else if (status == NIBBLE_OK && m->family->gguf_interleaved)
      *permute_heads = id.role == NB_ATTN_Q   ? config->num_attention_heads
                       : id.role == NB_ATTN_K ? config->num_key_value_heads
                                              : 0;
  }
  free(name);
  return status;
}

static nibble_status add_tensor(const model *m, nb_checkpoint *c, int file, const nb_gguf_tensor *t) {
  nb_tensor tensor = {.file = file, .ndim = t->ndim};
  memcpy(tensor.shape, t->shape, sizeof t->shape);
  nibble_status status = measure(m, t, &tensor);
  if (status != NIBBLE_OK) return status;
  if (t->offset % m->gguf->alignment != 0)
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': offset %llu is no multiple of the alignment, %llu",
                   m->gguf->path, (int)t->name.length, t->name.data, (unsigned long long)t->offset,
                   (unsigned long long)m->gguf->alignment);
  if (!nb_add_u64(m->gguf->data_at, t->offset, &tensor.offset))
    return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': offset %llu is not possible", m->gguf->path,
                   (int)t->name.length, t->name.data, (unsigned long long)t->offset);
  status = translate(m, t->name, &c->config, &tensor.name, &tensor.permute_heads);
  if (status == NIBBLE_OK && tensor.name) status = nb_checkpoint_add_tensor(c, &tensor, m->err);
  free(tensor.name);
  return status;
}

static nibble_status check_overlaps(nb_checkpoint *c, const char *path, nibble_error *err) {
  if (c->tensor_count) qsort(c->tensors, c->tensor_count, sizeof *c->tensors, nb_tensor_compare);
  for (size_t i = 1; i < c->tensor_count; i++) {
    const nb_tensor *a = &c->tensors[i - 1], *b = &c->tensors[i];
    if (a->offset + a->bytes > b->offset)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' overlaps '%s'", path, b->name, a->name);
  }
  return NIBBLE_OK;
}

/* By way of its text, so that numbers are spelled as transformers spells them whatever becomes of the config. */
static nibble_status make_config(const model *m, nb_config *out) {
  nb_buf text = {0};
  cJSON *json = cJSON_CreateObject();
  nibble_status status = json ? build_config(m, json) : nb_fail_memory(m->err, sizeof *json);
  if (status == NIBBLE_OK) {
    nb_json_put(&text, json, &nb_json_indented);
    nb_buf_puts(&text, "\n");
    status = text.failed ? nb_fail_memory(m->err, text.length)
                         : nb_config_parse(m->gguf->path, text.data, text.length, out, m->err);
  }
  nb_buf_free(&text);
  cJSON_Delete(json);
  return status;
}

nibble_status nb_gguf_open(nb_checkpoint *c, const char *path, nibble_error *err) {
  int file;
  nibble_status status = nb_checkpoint_add_file(c, path, &file, err);
  if (status != NIBBLE_OK) return status;
  const nb_mapfile map = c->files[file].map;
  if ((status = nb_gguf_parse(c->files[file].path, &map, &c->gguf, err)) != NIBBLE_OK) return status;
  model m = {.gguf = c->gguf, .map = &map, .err = err};
  if ((status = identify(&m)) != NIBBLE_OK) return status;
  if ((status = make_config(&m, &c->config)) != NIBBLE_OK) return status;
  for (size_t i = 0; status == NIBBLE_OK && i < c->gguf->tensor_count; i++)
    status = add_tensor(&m, c, file, &c->gguf->tensors[i]);
  return status == NIBBLE_OK ? check_overlaps(c, path, err) : status;
}
