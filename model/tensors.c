#include "model/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "base/str.h"
#include "model/heads.h"

static const char weight[] = ".weight", bias[] = ".bias", input[] = ".input";

const char nb_usual_head[] = "lm_head";

int64_t nb_config_layers(const nb_config *c, int stack) {
  const nb_stack *s = &c->family->stacks[stack];
  if (!s->rules) return 0;
  return s->layers == NB_KEY_NUM_DECODER_LAYERS ? c->num_decoder_layers : c->num_hidden_layers;
}

/* ---- what a config promises ------------------------------------------------------------------------------------- */

static int64_t extent(const nb_config *c, nb_dim dim) {
  int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
  switch (dim) {
    case NB_DIM_NONE: return 0;
    case NB_DIM_VOCAB: return c->vocab_size;
    case NB_DIM_HIDDEN: return c->hidden_size;
    case NB_DIM_INTERMEDIATE: return c->intermediate_size;
    case NB_DIM_Q: return q;
    case NB_DIM_KV: return kv;
    case NB_DIM_QKV: return q + 2 * kv;
    case NB_DIM_HEAD: return c->head_dim;
    case NB_DIM_HEADS: return c->num_attention_heads;
    case NB_DIM_POSITIONS: return c->max_position_embeddings;
    case NB_DIM_TYPES: return c->type_vocab_size;
    case NB_DIM_BUCKETS: return c->relative_attention_num_buckets;
    case NB_DIM_EXPERTS: return c->num_experts;
    case NB_DIM_EXPERT: return c->moe_intermediate_size;
    case NB_DIM_LABELS: return c->num_labels;
  }
  return 0;
}

static bool is_promised(const nb_config *c, nb_when when, int layer) {
  nb_head_kind head = c->head->kind;
  bool sparse = layer >= 0 && c->layers[layer] & NB_LAYER_SPARSE;
  switch (when) {
    case NB_WHEN_ALWAYS: return true;
    case NB_WHEN_NEVER: return false;
    case NB_IF_ATTENTION_BIAS: return c->attention_bias;
    case NB_IF_OUTPUT_BIAS: return c->output_bias;
    case NB_IF_MLP_BIAS: return c->mlp_bias;
    case NB_IF_QK_NORM: return c->qk_norm;
    case NB_IF_GATED: return c->gated;
    case NB_IF_NOT_GATED: return !c->gated;
    case NB_IF_SPARSE: return sparse;
    case NB_IF_DENSE: return !sparse;
    case NB_IF_FIRST_LAYER: return layer == 0;
    case NB_IF_HEAD:
      return (head == NB_HEAD_LM || head == NB_HEAD_MASKED_LM) && (!c->tie_word_embeddings || c->head_differs);
    case NB_IF_MASKED: return head == NB_HEAD_MASKED_LM;
    case NB_IF_CLASSIFY: return head == NB_HEAD_CLASSIFY;
    case NB_IF_POOLER: return head == NB_HEAD_BASE || head == NB_HEAD_CLASSIFY;
  }
  return false;
}

bool nb_model_tensor_is_optional(const nb_config *c, const nb_model_tensor *t) {
  return t->rule->when == NB_IF_POOLER && c->head->kind == NB_HEAD_BASE;
}

void nb_model_tensor_stored_shape(const nb_model_tensor *t, int64_t out[3]) {
  bool turned = t->rule->stored & NB_TRANSPOSED && t->ndim == 2;
  for (int i = 0; i < t->ndim; i++) out[i] = t->shape[turned ? 1 - i : i];
}

/* `prefix`, the first spelling of `pattern` with its holes filled, and `suffix`; malloc'd. */
static char *expand(const char *prefix, const char *pattern, int layer, int expert, const char *suffix) {
  size_t room = strlen(prefix) + strlen(pattern) + strlen(suffix) + 24, at;
  char *name = malloc(room);
  if (!name) return NULL;
  at = (size_t)snprintf(name, room, "%s", prefix);
  int number = layer;
  for (const char *p = pattern; *p && *p != '|'; p++) {
    if (p[0] == '{' && p[1] == '}') {
      at += (size_t)snprintf(name + at, room - at, "%d", number);
      number = expert;
      p++;
    } else {
      name[at++] = *p;
    }
  }
  snprintf(name + at, room - at, "%s", suffix);
  return name;
}

typedef struct listing {
  const nb_config *config;
  nb_model_tensors *out;
  size_t capacity;
  int stack;
} listing;

static const char *prefix_of(const nb_config *c, const nb_rule *rule) {
  return rule->stored & NB_NO_PREFIX || c->head->kind == NB_HEAD_BASE ? "" : c->family->base_prefix;
}

static bool append(listing *l, const nb_rule *rule, int layer, int expert, bool is_bias) {
  nb_model_tensors *list = l->out;
  const nb_config *c = l->config;
  nb_model_tensor *items = nb_grow(list->items, &l->capacity, list->count + 1, sizeof *items);
  if (!items) return false;
  list->items = items;
  const char *suffix = is_bias ? bias : rule->stored & NB_BARE ? "" : weight;
  nb_model_tensor *t = &list->items[list->count];
  *t = (nb_model_tensor){.name = expand(prefix_of(c, rule), rule->name, layer, expert, suffix),
                         .rule = rule,
                         .role = rule->role,
                         .kind = nb_role_info(rule->role)->kind,
                         .is_bias = is_bias,
                         .stack = l->stack,
                         .layer = layer,
                         .expert = expert};
  int64_t *shape = t->shape;
  shape[t->ndim++] = extent(c, rule->out);
  if (rule->in != NB_DIM_NONE && !is_bias) shape[t->ndim++] = extent(c, rule->in);
  if (t->name) list->count++;
  return t->name != NULL;
}

static bool append_rule(listing *l, const nb_rule *rule, int layer, int expert) {
  const nb_config *c = l->config;
  if (!is_promised(c, rule->when, layer)) return true;
  if (!append(l, rule, layer, expert, false)) return false;
  return !is_promised(c, rule->bias, layer) || append(l, rule, layer, expert, true);
}

static int holes(const nb_rule *rule) {
  const char *first = strstr(rule->name, "{}"), *end = strchr(rule->name, '|');
  if (!first || (end && first > end)) return 0;
  const char *second = strstr(first + 2, "{}");
  return second && !(end && second > end) ? 2 : 1;
}

/* The rules of one layer, those of experts in runs: all tensors of one expert before those of the next. */
static bool append_layer(listing *l, const nb_rule *first, const nb_rule *end, int layer) {
  for (const nb_rule *rule = first; rule < end;) {
    if (holes(rule) == 1) {
      if (!append_rule(l, rule++, layer, -1)) return false;
      continue;
    }
    const nb_rule *run = rule;
    while (rule < end && holes(rule) == 2) rule++;
    for (int expert = 0; expert < l->config->num_experts; expert++) {
      for (const nb_rule *r = run; r < rule; r++) {
        if (!append_rule(l, r, layer, expert)) return false;
      }
    }
  }
  return true;
}

static bool list_stack(listing *l) {
  const nb_rule *rule = l->config->family->stacks[l->stack].rules;
  while (rule && rule->name) {
    if (!holes(rule)) {
      if (!append_rule(l, rule++, -1, -1)) return false;
      continue;
    }
    const nb_rule *first = rule;
    while (rule->name && holes(rule)) rule++;
    for (int64_t i = 0; i < nb_config_layers(l->config, l->stack); i++) {
      if (!append_layer(l, first, rule, (int)i)) return false;
    }
  }
  return true;
}

nibble_status nb_model_tensors_list(const nb_config *c, nb_model_tensors *out, nibble_error *err) {
  *out = (nb_model_tensors){0};
  listing l = {.config = c, .out = out};
  for (; l.stack < NB_MAX_STACKS; l.stack++) {
    if (list_stack(&l)) continue;
    nb_model_tensors_free(out);
    return nb_fail_memory(err, l.capacity * sizeof *out->items);
  }
  return NIBBLE_OK;
}

void nb_model_tensors_free(nb_model_tensors *tensors) {
  for (size_t i = 0; i < tensors->count; i++) free(tensors->items[i].name);
  free(tensors->items);
  *tensors = (nb_model_tensors){0};
}

/* ---- what a name says ------------------------------------------------------------------------------------------- */

/* Matches the n characters of `name` against one spelling, whose holes stand for runs of digits: their numbers, or -1,
 * go to numbers. *spelling_end is where the spelling ends. */
static bool match_one(const char *spelling, const char *name, size_t n, int numbers[2]) {
  const char *at = name, *end = name + n;
  int hole = 0;
  numbers[0] = numbers[1] = -1;
  for (; *spelling && *spelling != '|'; spelling++) {
    if (spelling[0] != '{') {
      if (at == end || *at++ != *spelling) return false;
      continue;
    }
    const char *digits = at;
    int value = 0;
    while (at < end && *at >= '0' && *at <= '9' && at - digits < 6) value = value * 10 + (*at++ - '0');
    if (at == digits || (at - digits > 1 && *digits == '0') || hole == 2) return false;
    numbers[hole++] = value;
    spelling++;
  }
  return at == end;
}

/* Any of the spellings; *which is its number. */
static bool match(const char *pattern, const char *name, size_t n, int numbers[2], int *which) {
  for (*which = 0; pattern; ++*which) {
    if (match_one(pattern, name, n, numbers)) return true;
    pattern = strchr(pattern, '|');
    if (pattern) pattern++;
  }
  return false;
}

static bool ends_with(const char *name, size_t n, const char *suffix, size_t *rest) {
  size_t m = strlen(suffix);
  if (n <= m || memcmp(name + n - m, suffix, m) != 0) return false;
  *rest = n - m;
  return true;
}

/* Takes ".weight" or ".bias" off the name; of norms TensorFlow's gamma and beta, too (transformers, modeling_utils.py).
 * False if it has neither. */
static bool split_name(const char *name, size_t n, nb_kind kind, size_t *module, bool *is_bias, bool *is_old) {
  *is_bias = *is_old = false;
  if (ends_with(name, n, weight, module)) return true;
  *is_bias = ends_with(name, n, bias, module);
  if (*is_bias || kind != NB_KIND_NORM) return *is_bias;
  *is_old = true;
  if (ends_with(name, n, ".gamma", module)) return true;
  return *is_bias = ends_with(name, n, ".beta", module);
}

static bool match_rule(const nb_rule *rule, const char *name, nb_identity *out) {
  size_t n = strlen(name), module = n;
  bool is_bias = false, is_old = false;
  int numbers[2], spelling;
  if (!(rule->stored & NB_BARE) && !split_name(name, n, nb_role_info(rule->role)->kind, &module, &is_bias, &is_old))
    return false;
  if (!match(rule->name, name, module, numbers, &spelling)) return false;
  *out = (nb_identity){.role = rule->role,
                       .rule = rule,
                       .is_bias = is_bias,
                       .layer = numbers[0],
                       .expert = numbers[1],
                       .spelling = is_old ? 1 : spelling};
  return true;
}

static bool contains_any(const char *name, const char *const *parts) {
  for (; *parts; parts++) {
    if (strcasestr(name, *parts)) return true;
  }
  return false;
}

/* Buffers that older versions of transformers saved: every loader ignores them. */
static bool is_old_buffer(const char *name) {
  static const char *const endings[] = {"rotary_emb.inv_freq", "position_ids", "attn.bias", "attn.masked_bias",
                                        "rope_freqs.weight"};
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    if (nb_ends_with(name, endings[i])) return true;
  }
  return false;
}

/* For names that no rule knows. */
static nb_role guess_role(const char *name, int ndim) {
  static const char *const embeddings[] = {"embed", "wte.", "wpe.", "shared.weight", "relative_attention_bias", NULL};
  static const char *const norms[] = {"norm", ".ln_", "ln_f", NULL};
  static const char *const heads[] = {"lm_head.weight", "score.weight", "embed_out.weight", NULL};
  size_t rest;
  if (is_old_buffer(name)) return NB_BUFFER;
  if (contains_any(name, heads)) return NB_UNKNOWN_HEAD;
  if (contains_any(name, norms)) return NB_UNKNOWN_NORM; /* BART's layernorm_embedding, too */
  if (contains_any(name, embeddings)) return NB_UNKNOWN_EMBED;
  return ndim == 2 && ends_with(name, strlen(name), weight, &rest) ? NB_UNKNOWN_LINEAR : NB_ROLE_OTHER;
}

nb_identity nb_identify(const nb_config *config, const char *name, int ndim) {
  const nb_family *family = config->family;
  nb_identity id = {.layer = -1, .expert = -1};
  if (family) {
    size_t prefix = strlen(family->base_prefix);
    bool prefixed = strncmp(name, family->base_prefix, prefix) == 0;
    for (int s = 0; s < NB_MAX_STACKS && family->stacks[s].rules; s++) {
      for (const nb_rule *rule = family->stacks[s].rules; rule->name; rule++) {
        const char *bare = prefixed && !(rule->stored & NB_NO_PREFIX) ? name + prefix : name;
        if (!match_rule(rule, bare, &id)) continue;
        id.stack = s;
        return id;
      }
    }
  }
  id.role = guess_role(name, ndim);
  return id;
}

const nb_rule *nb_family_rule(const nb_family *family, nb_role role) {
  for (int s = 0; s < NB_MAX_STACKS && family->stacks[s].rules; s++) {
    for (const nb_rule *rule = family->stacks[s].rules; rule->name; rule++) {
      if (rule->role == role) return rule;
    }
  }
  return NULL;
}

bool nb_identity_pieces(const nb_config *config, const nb_identity *id, nb_pieces *out) {
  const nb_role *part = id->rule ? nb_role_parts(id->role) : NULL;
  *out = (nb_pieces){.slices = part ? extent(config, id->rule->out) : 0};
  for (; part && *part != NB_ROLE_OTHER; part++, out->count++) {
    const nb_rule *rule = nb_family_rule(config->family, *part);
    if (!rule) return false;
    out->items[out->count].rule = rule;
    out->items[out->count].first = out->rows;
    out->items[out->count].rows = extent(config, rule->out);
    out->rows += extent(config, rule->out);
    out->cols = extent(config, rule->in);
  }
  return out->count > 0;
}

char *nb_identity_name(const nb_config *config, const nb_identity *id) {
  const char *suffix = id->is_bias ? bias : id->rule->stored & NB_BARE ? "" : weight;
  return expand(prefix_of(config, id->rule), id->rule->name, id->layer, id->expert, suffix);
}

char *nb_identity_module_name(const nb_config *config, const nb_identity *id) {
  const char *last = id->rule->stored & NB_MODULE_LAST ? strrchr(id->rule->name, '|') : NULL;
  if (!last) return nb_identity_name(config, id);
  return expand(prefix_of(config, id->rule), last + 1, id->layer, id->expert, id->is_bias ? bias : weight);
}

nibble_status nb_identify_gguf(const nb_family *family, const char *gguf_name, nb_identity *out, char **name,
                               nibble_error *err) {
  *name = NULL;
  for (const nb_rule *rule = family->stacks[0].rules; rule->name; rule++) {
    size_t module;
    bool is_bias, is_old;
    int numbers[2], spelling;
    if (!rule->gguf || !split_name(gguf_name, strlen(gguf_name), NB_KIND_OTHER, &module, &is_bias, &is_old) ||
        !match(rule->gguf, gguf_name, module, numbers, &spelling))
      continue;
    *out =
        (nb_identity){.role = rule->role, .rule = rule, .is_bias = is_bias, .layer = numbers[0], .expert = numbers[1]};
    const char *prefix = rule->stored & NB_NO_PREFIX ? "" : family->base_prefix;
    *name = expand(prefix, rule->name, numbers[0], numbers[1], is_bias ? bias : weight);
    return *name ? NIBBLE_OK : nb_fail_memory(err, strlen(gguf_name));
  }
  return NIBBLE_OK;
}

bool nb_identify_activation(const nb_config *config, const char *name, nb_identity *out) {
  size_t n = strlen(name), module;
  char text[256];
  int numbers[2], spelling;
  if (!ends_with(name, n, input, &module) || module + sizeof weight > sizeof text) return false;
  *out = (nb_identity){.layer = -1, .expert = -1};
  if (match("layers.{}", name, module, numbers, &spelling)) {
    out->layer = numbers[0];
    return true;
  }
  if (match("norm", name, module, numbers, &spelling)) {
    out->role = NB_FINAL_NORM;
    while (out->stack + 1 < NB_MAX_STACKS && config->family->stacks[out->stack + 1].rules) out->stack++;
    return true;
  }
  snprintf(text, sizeof text, "%.*s%s", (int)module, name, weight);
  *out = nb_identify(config, text, 2);
  return out->rule != NULL && out->rule->in != NB_DIM_NONE;
}
