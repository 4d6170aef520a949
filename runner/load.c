#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/stop.h"
#include "runner/device.h"
#include "runner/head.h"
#include "runner/model.h"

/* ---- one module ------------------------------------------------------------------------------------------------- */

static nibble_status load_values(const nb_checkpoint *c, const nb_tensor *t, int64_t n, float **out,
                                 nibble_error *err) {
  const char *file = c->files[t->file].path;
  if (t->count != n)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' should have %lld elements", file, t->name, (long long)n);
  if (!nb_dtype_is_float(t->dtype))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is %s, not a float dtype", file, t->name,
                   nb_dtype_name(t->dtype));
  if (!(*out = nb_alloc((uint64_t)n, sizeof **out))) return nb_fail_memory(err, (uint64_t)n * sizeof **out);
  nibble_status status = nb_tensor_read(c, t, (nb_span){0, n}, NB_F32, *out, err);
  if (status == NIBBLE_OK) return status;
  free(*out);
  *out = NULL;
  return status;
}

/* A 1-D tensor (a norm's weight or a bias) as float32. */
static nibble_status load_vector(const nb_loader *l, const nb_slot *slot, nb_buffer **out, nibble_error *err) {
  const nb_checkpoint *c = l->checkpoint;
  nb_backend *b = l->backend;
  int64_t n = slot->wanted->shape[0];
  uint64_t bytes = (uint64_t)n * sizeof(float);
  float *values;
  if (slot->tensor->ndim != 1 || slot->tensor->shape[0] != n)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' should have the shape [%lld]",
                   c->files[slot->tensor->file].path, slot->tensor->name, (long long)n);
  nibble_status status = load_values(c, slot->tensor, n, &values, err);
  if (status != NIBBLE_OK) return status;
  status = b->buffer_create(b, bytes, out, err);
  if (status == NIBBLE_OK) status = b->upload(b, *out, 0, values, bytes, err);
  free(values);
  return status;
}

static nibble_status load_matrix(const nb_loader *l, const nb_slot *slot, nb_module *out, nibble_error *err) {
  const nb_checkpoint *c = l->checkpoint;
  nb_backend *b = l->backend;
  out->out = slot->wanted->shape[0];
  out->in = slot->wanted->shape[1];
  nibble_status status = nb_weight_load_tensor(c, slot->tensor, out->out, out->in, &out->source, err);
  if (status != NIBBLE_OK) return status;
  status = b->matrix_create(b, &out->source.packed, l->options, &out->matrix, err);
  if (status == NIBBLE_OK && !(b->matrix_borrows && b->matrix_borrows(out->matrix))) {
    nb_tensor_release(c, slot->tensor, 0, slot->tensor->count);
    nb_weight_free(&out->source);
  }
  return status;
}

static nibble_status fail_missing(const nb_checkpoint *c, const nb_slot *slot, nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is missing", c->path, slot->wanted->name);
}

static nibble_status load_module(const nb_loader *l, const nb_slot *slot, nb_module *out, nibble_error *err) {
  const nb_model_tensor *want = slot->wanted;
  *out = (nb_module){
      .role = want->role, .stack = want->stack, .layer = want->layer, .expert = want->expert, .tensor = slot->tensor};
  if (!slot->tensor) return fail_missing(l->checkpoint, slot, err);
  if (want->ndim == 2) return load_matrix(l, slot, out, err);
  out->out = want->shape[0];
  return load_vector(l, slot, &out->vector, err);
}

static void free_module(nb_backend *b, nb_module *m) {
  if (!m->is_borrowed) b->matrix_free(b, m->matrix);
  b->buffer_free(b, m->vector);
  b->buffer_free(b, m->bias);
  nb_weight_free(&m->source);
  *m = (nb_module){0};
}

nb_module *nb_module_find(const nb_modules *modules, int stack, nb_role role, int expert) {
  nb_module *other = NULL;
  for (int i = 0; i < modules->count; i++) {
    nb_module *m = &modules->items[i];
    if (m->role != role || m->expert != expert) continue;
    if (m->stack == stack) return m;
    other = m;
  }
  return other;
}

/* Bytes that a slot's tensor stands for, scales included. */
static uint64_t stored_bytes(const nb_tensor *t) { return t->packed ? (uint64_t)nb_packed_bytes(t->packed) : t->bytes; }

/* Adds what a slot holds: a new module, or the bias of the one that was added last, which is always its own. */
static nibble_status add_slot(const nb_loader *l, const nb_slot *slot, nb_modules *out, nibble_error *err) {
  nb_module *m = &out->items[out->count];
  if (!slot->tensor && nb_model_tensor_is_optional(&l->checkpoint->config, slot->wanted)) return NIBBLE_OK;
  if (!slot->wanted->is_bias) {
    nibble_status status = load_module(l, slot, m, err);
    out->count++;
    return status;
  }
  if (!slot->tensor) return fail_missing(l->checkpoint, slot, err);
  return load_vector(l, slot, &m[-1].bias, err);
}

static void free_modules(nb_backend *b, nb_modules *modules) {
  for (int i = 0; i < modules->count; i++) free_module(b, &modules->items[i]);
  free(modules->items);
  *modules = (nb_modules){0};
}

/* Which slots are loaded: those of one layer of a stack; of layer -1 those outside of blocks, of all stacks. */
typedef struct choice {
  int stack;
  int64_t layer;
  const nb_op *ops; /* NULL, or only the roles that this list names */
} choice;

static bool is_chosen(const choice *which, const nb_model_tensor *t) {
  if (t->layer != which->layer || (t->layer >= 0 && t->stack != which->stack) || t->kind == NB_KIND_TABLE) return false;
  const nb_op *op = which->ops;
  while (op && op->kind != NB_OP_END && op->role != t->role) op++;
  return !op || op->kind != NB_OP_END;
}

static nibble_status load_modules(const nb_loader *l, const choice *which, nb_modules *out, uint64_t *bytes,
                                  nibble_error *err) {
  const nb_checkpoint *c = l->checkpoint;
  size_t count = 0;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->promised.count; i++) count += is_chosen(which, &c->promised.items[i]);
  *out = (nb_modules){.items = nb_alloc(count + 1, sizeof *out->items)}; /* and a tied head */
  if (!out->items) return nb_fail_memory(err, count * sizeof *out->items);
  for (size_t i = 0; status == NIBBLE_OK && i < c->promised.count; i++) {
    const nb_slot *slot = &c->slots[i];
    if (!is_chosen(which, slot->wanted)) continue;
    status = add_slot(l, slot, out, err);
    if (status == NIBBLE_OK) status = nb_stop_check(err);
    if (slot->tensor) *bytes += stored_bytes(slot->tensor);
  }
  if (status != NIBBLE_OK) free_modules(l->backend, out);
  return status;
}

/* ---- programs --------------------------------------------------------------------------------------------------- */

static unsigned bit(nb_reg reg) { return 1u << reg; }

/* What SCALE multiplies by. */
static float factor_of(const nb_config *c, nb_role role) {
  return role == NB_HEAD && c->head_scaled ? (float)(1 / sqrt((double)c->hidden_size)) : 1;
}

/* Whether the operation is one of this program; *written gains what it writes. */
static bool resolve(const nb_config *c, const nb_modules *modules, int stack, nb_instruction *step, unsigned *written) {
  nb_op *op = &step->op;
  unsigned kv = bit(NB_K) | bit(NB_V);
  step->module = op->role ? nb_module_find(modules, stack, op->role, -1) : NULL;
  if (op->in && !(*written & bit(op->in))) return false;
  if (op->with && !(*written & bit(op->with))) op->with = NB_NO_REG;
  switch (op->kind) {
    case NB_OP_EMBED:
    case NB_OP_NORM:
    case NB_OP_LINEAR:
      if (!step->module) return false;
      break;
    case NB_OP_SPLIT: *written |= kv | bit(NB_Q); break;
    case NB_OP_CACHE:
      if ((*written & kv) != kv) return false;
      break;
    case NB_OP_SCALE:
      step->factor = factor_of(c, op->role);
      if (step->factor == 1) return false;
      break;
    case NB_OP_EXPERTS:
      if (!nb_module_find(modules, stack, NB_EXPERT_DOWN, 0)) return false;
      break;
    case NB_OP_ATTEND:
    case NB_OP_GATE:
    case NB_OP_END: break;
  }
  if (op->out) *written |= bit(op->out);
  return true;
}

nibble_status nb_program_resolve(const nb_program_source *from, unsigned given, nb_program *out, nibble_error *err) {
  const nb_op *ops = from->ops;
  int count = 0;
  unsigned written = given;
  while (ops[count].kind != NB_OP_END) count++;
  *out = (nb_program){.steps = nb_alloc((uint64_t)count + 1, sizeof *out->steps)};
  if (!out->steps) return nb_fail_memory(err, (size_t)count * sizeof *out->steps);
  for (int i = 0; i < count; i++) {
    nb_instruction step = {.op = ops[i]};
    if (!resolve(from->config, from->modules, from->stack, &step, &written)) continue;
    nb_instruction *last = out->count ? &out->steps[out->count - 1] : NULL;
    out->steps[out->count++] = step;
    if (step.op.kind != NB_OP_LINEAR) continue;
    while (last && last > out->steps && !last->group && last->op.kind == NB_OP_LINEAR) last--;
    bool shares = last && last->op.kind == NB_OP_LINEAR && last->op.in == step.op.in && last->group < NB_MAX_GROUP &&
                  last->op.flags == step.op.flags;
    if (shares) {
      last->group++;
    } else {
      out->steps[out->count - 1].group = 1;
    }
  }
  return NIBBLE_OK;
}

void nb_program_free(nb_program *program) {
  free(program->steps);
  *program = (nb_program){0};
}

/* ---- a block ---------------------------------------------------------------------------------------------------- */

static float attention_scale(const nb_config *c, int64_t layer) {
  double scale = c->family->attention_unscaled || !c->scale_attn_weights ? 1 : 1 / sqrt((double)c->head_dim);
  if (c->scale_attn_by_inverse_layer_idx) scale /= (double)(layer + 1);
  return (float)scale;
}

nibble_status nb_block_load(const nb_loader *l, int stack, int64_t layer, nb_block *out, nibble_error *err) {
  const nb_config *config = &l->checkpoint->config;
  bool slides = layer < config->num_hidden_layers && config->layers[layer] & NB_LAYER_SLIDING;
  *out = (nb_block){
      .backend = l->backend, .window = slides ? config->sliding_window : 0, .scale = attention_scale(config, layer)};
  nibble_status status = load_modules(l, &(choice){stack, layer, NULL}, &out->modules, &out->weight_bytes, err);
  nb_program_source from = {config, config->family->stacks[stack].block, &out->modules, stack};
  if (status == NIBBLE_OK) status = nb_program_resolve(&from, bit(NB_X) | bit(NB_E), &out->program, err);
  if (status != NIBBLE_OK) nb_block_free(out);
  return status;
}

void nb_block_free(nb_block *block) {
  if (!block->backend) return;
  free_modules(block->backend, &block->modules);
  nb_program_free(&block->program);
  *block = (nb_block){0};
}

nibble_status nb_embedding_load(const nb_loader *l, int stack, nb_block *out, nibble_error *err) {
  *out = (nb_block){.backend = l->backend};
  const nb_config *config = &l->checkpoint->config;
  const nb_op *ops = config->family->stacks[stack].embed;
  nibble_status status = load_modules(l, &(choice){stack, -1, ops}, &out->modules, &out->weight_bytes, err);
  nb_program_source from = {config, ops, &out->modules, stack};
  if (status == NIBBLE_OK) status = nb_program_resolve(&from, 0, &out->program, err);
  if (status != NIBBLE_OK) nb_block_free(out);
  return status;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

bool nb_activation_named(const char *name, nb_activation *out) {
  static const struct {
    const char *name;
    nb_activation activation;
  } known[] = {
      {"silu", NB_ACT_SILU},          {"swish", NB_ACT_SILU},
      {"gelu", NB_ACT_GELU},          {"gelu_python", NB_ACT_GELU},
      {"gelu_new", NB_ACT_GELU_TANH}, {"gelu_pytorch_tanh", NB_ACT_GELU_TANH},
      {"relu", NB_ACT_RELU},          {"quick_gelu", NB_ACT_QUICK_GELU},
      {"tanh", NB_ACT_TANH},
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
  if (!config->family || config->head->kind == NB_HEAD_OTHER || config->family->stacks[0].embed->kind == NB_OP_END)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model_type '%s' can be inspected and converted, but not run%s%s", path,
                   config->model_type, config->family ? " as " : "", config->family ? config->architecture : "");
  if (checkpoint->foreign)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: weights packed by '%s' cannot be run", path, checkpoint->foreign);
  nibble_status status = nb_checkpoint_no_stray(checkpoint, err);
  if (status != NIBBLE_OK) return status;
  if (config->unread)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" changes what a model computes, and is not computed for '%s'",
                   path, config->unread, config->model_type);
  if (!nb_activation_named(config->hidden_act, activation))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the activation '%s' is unknown", path, config->hidden_act);
  if (config->rope.type == NB_ROPE_OTHER)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: rope scaling '%s' cannot be run", path, config->rope.type_name);
  if (!config->is_causal && config->sliding_window)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a sliding_window together with \"is_causal\": false cannot be run",
                   path);
  if (config->family->rotary && config->head_dim % 2 != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: head_dim %lld is odd, which rotary embeddings cannot be", path,
                   (long long)config->head_dim);
  return NIBBLE_OK;
}

nibble_status nb_model_need_decoder(const nb_model *m, nibble_error *err) {
  const nb_config *c = &m->checkpoint.config;
  const char *what = m->stack_count > 1            ? "is an encoder and a decoder"
                     : c->head->kind != NB_HEAD_LM ? "does not score next tokens"
                     : !nb_model_last(m)->causal   ? "sees later tokens"
                                                   : NULL;
  if (!what) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: '%s' %s: this needs a model that scores next tokens, one after the other",
                 m->checkpoint.path, *c->architecture ? c->architecture : c->family->default_class, what);
}

/* The tied head is the embedding. */
static void tie_head(nb_model *m) {
  const nb_module *embedding = nb_module_find(&m->outer, 0, NB_TOKEN_EMBED, -1);
  const nb_config *c = &m->checkpoint.config;
  bool wanted = c->head->kind == NB_HEAD_LM || c->head->kind == NB_HEAD_MASKED_LM;
  nb_module *own = nb_module_find(&m->outer, 0, NB_HEAD, -1);
  if (!embedding || !wanted || (own && own->matrix)) return;
  nb_module *head = &m->outer.items[m->outer.count++]; /* load_modules made room for it */
  *head = (nb_module){.role = NB_HEAD,
                      .layer = -1,
                      .expert = -1,
                      .tensor = embedding->tensor,
                      .matrix = embedding->matrix,
                      .out = embedding->out,
                      .in = embedding->in,
                      .is_borrowed = true};
}

/* A bias that is a tensor of its own becomes the head's. */
static void take_bias(nb_model *m) {
  nb_module *head = nb_module_find(&m->outer, 0, NB_HEAD, -1);
  nb_module *bias = nb_module_find(&m->outer, 0, NB_HEAD_BIAS, -1);
  if (!head || !bias || head->bias) return;
  head->bias = bias->vector;
  bias->vector = NULL;
}

/* The list of the last stack's end, then that of the head. */
static nibble_status resolve_head(nb_model *m, nibble_error *err) {
  const nb_config *c = &m->checkpoint.config;
  nb_op ops[24];
  int count = 0;
  const nb_op *lists[] = {c->family->stacks[m->stack_count - 1].end, c->head->ops};
  for (int i = 0; i < 2; i++) {
    for (const nb_op *op = lists[i]; op->kind != NB_OP_END; op++) ops[count++] = *op;
  }
  ops[count] = (nb_op){.kind = NB_OP_END};
  nb_program_source from = {c, ops, &m->outer, m->stack_count - 1};
  nibble_status status = nb_program_resolve(&from, bit(NB_X), &m->head, err);
  m->output = NB_X;
  m->output_width = c->hidden_size;
  for (int i = 0; i < m->head.count; i++) {
    if (m->head.steps[i].op.out != NB_L) continue;
    m->output = NB_L;
    m->output_width = m->head.steps[i].module->out;
  }
  if (status == NIBBLE_OK && m->output == NB_X && c->head->kind != NB_HEAD_BASE)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: '%s' has no output that is computed", m->checkpoint.path,
                   c->architecture);
  return status;
}

static nibble_status load_position_bias(nb_model *m, int stack, nibble_error *err) {
  const nb_checkpoint *c = &m->checkpoint;
  for (size_t i = 0; i < c->promised.count; i++) {
    const nb_slot *slot = &c->slots[i];
    const nb_model_tensor *want = slot->wanted;
    if (want->kind != NB_KIND_TABLE || want->stack != stack) continue;
    if (!slot->tensor) return fail_missing(c, slot, err);
    m->weight_bytes += slot->tensor->bytes;
    return load_values(c, slot->tensor, want->shape[0] * want->shape[1], &m->stacks[stack].position_bias, err);
  }
  return NIBBLE_OK;
}

static nibble_status load_stack(nb_model *m, int s, const nb_model_options *options, const nb_placement *place,
                                nibble_error *err) {
  const nb_checkpoint *c = &m->checkpoint;
  nb_model_stack *stack = &m->stacks[s];
  *stack = (nb_model_stack){.family = &c->config.family->stacks[s], .layers = nb_config_layers(&c->config, s)};
  stack->causal = stack->family->causal && c->config.is_causal;
  m->stack_count = s + 1;
  nb_program_source embed = {&c->config, stack->family->embed, &m->outer, s};
  nb_program_source end = {&c->config, stack->family->end, &m->outer, s};
  nibble_status status = nb_program_resolve(&embed, 0, &stack->embed, err);
  if (status == NIBBLE_OK) status = nb_program_resolve(&end, bit(NB_X), &stack->end, err);
  if (status == NIBBLE_OK) status = load_position_bias(m, s, err);
  if (status != NIBBLE_OK) return status;
  if (!(stack->blocks = nb_alloc((uint64_t)stack->layers + 1, sizeof *stack->blocks)))
    return nb_fail_memory(err, (uint64_t)stack->layers * sizeof *stack->blocks);
  for (int64_t i = 0; status == NIBBLE_OK && i < stack->layers; i++) {
    nb_backend *backend = options->backend_of_layer ? options->backend_of_layer(options->ctx, i)
                          : options->backend        ? options->backend
                          : i < place->gpu_layers   ? place->gpu
                                                    : nb_backend_cpu();
    status = nb_block_load(&(nb_loader){c, backend, &m->matrix_options}, s, i, &stack->blocks[i], err);
    m->weight_bytes += stack->blocks[i].weight_bytes;
    m->has_experts = m->has_experts || nb_module_find(&stack->blocks[i].modules, s, NB_ROUTER, -1);
  }
  return status;
}

nb_matrix_options nb_outer_options(const nb_model *m) {
  nb_matrix_options options = m->matrix_options;
  if (options.activations == NIBBLE_ACTIVATIONS_FAST) options.activations = NIBBLE_ACTIVATIONS_EXACT;
  return options;
}

static nibble_status load_all(nb_model *m, const nb_model_options *options, nibble_error *err) {
  const nb_config *config = &m->checkpoint.config;
  nb_placement place = {0};
  nibble_status status = NIBBLE_OK;
  if (!m->backend) {
    bool cpu_only = options->llm_int8 || options->activations == NIBBLE_ACTIVATIONS_INT8;
    if ((status = nb_device_place(options->context, &m->checkpoint, cpu_only, &place, err)) != NIBBLE_OK) return status;
    m->backend = place.outer;
  }
  nb_matrix_options outer = nb_outer_options(m);
  nb_loader loader = {&m->checkpoint, m->backend, &outer};
  status = load_modules(&loader, &(choice){0, -1, NULL}, &m->outer, &m->weight_bytes, err);
  if (status == NIBBLE_OK) {
    tie_head(m);
    take_bias(m);
    if (options->head == NIBBLE_HEAD_INT8) status = nb_head_to_int8(m, err);
  }
  for (int s = 0; status == NIBBLE_OK && s < NB_MAX_STACKS && config->family->stacks[s].rules; s++)
    status = load_stack(m, s, options, &place, err);
  return status == NIBBLE_OK ? resolve_head(m, err) : status;
}

static bool rounds(const nb_block *block) {
  for (int i = 0; block->backend->matrix_rounds && i < block->modules.count; i++) {
    const nb_module *m = &block->modules.items[i];
    if (m->matrix && m->tensor->packed && block->backend->matrix_rounds(m->matrix)) return true;
  }
  return false;
}

static nibble_activations activations_of(const nb_model *m) {
  for (int s = 0; s < m->stack_count; s++) {
    for (int64_t i = 0; i < m->stacks[s].layers; i++) {
      if (rounds(&m->stacks[s].blocks[i])) return NIBBLE_ACTIVATIONS_INT8;
    }
  }
  return NIBBLE_ACTIVATIONS_EXACT;
}

nibble_status nb_model_load(const char *path, const nb_model_options *options, nb_model *out, nibble_error *err) {
  *out = (nb_model){.backend = options->backend};
  nibble_status status = nb_checkpoint_open(path, &out->checkpoint, err);
  if (status == NIBBLE_OK) status = nb_model_check_runnable(&out->checkpoint, &out->activation, err);
  if (status == NIBBLE_OK) {
    nb_checkpoint_warn(&out->checkpoint, options->progress);
    out->matrix_options.llm_int8 = options->llm_int8;
    out->matrix_options.activations = options->activations;
    out->matrix_options.int8_threshold = (float)out->checkpoint.config.quant.int8_threshold;
    status = load_all(out, options, err);
  }
  if (status == NIBBLE_OK) out->activations = activations_of(out);
  if (status != NIBBLE_OK) nb_model_free(out);
  return status;
}

void nb_model_free(nb_model *model) {
  for (int s = 0; s < model->stack_count; s++) {
    nb_model_stack *stack = &model->stacks[s];
    for (int64_t i = 0; stack->blocks && i < stack->layers; i++) nb_block_free(&stack->blocks[i]);
    nb_program_free(&stack->embed);
    nb_program_free(&stack->end);
    free(stack->blocks);
    free(stack->position_bias);
  }
  nb_program_free(&model->head);
  if (model->backend) free_modules(model->backend, &model->outer);
  nb_checkpoint_close(&model->checkpoint);
  *model = (nb_model){0};
}
