#include "runner/program.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/stop.h"

/* ---- registers -------------------------------------------------------------------------------------------------- */

int64_t nb_register_width(const nb_config *c, nb_reg reg) {
  int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
  switch (reg) {
    case NB_X:
    case NB_N:
    case NB_T:
    case NB_E: return c->hidden_size;
    case NB_Q:
    case NB_A: return q;
    case NB_K:
    case NB_V: return kv;
    case NB_F: return q + 2 * kv;
    case NB_G:
    case NB_U: return nb_max_i64(c->intermediate_size, c->moe_intermediate_size);
    case NB_R: return c->num_experts;
    case NB_L: return nb_max_i64(c->vocab_size, c->num_labels);
    case NB_NO_REG:
    case NB_REGS: break;
  }
  return 0;
}

unsigned nb_program_registers(const nb_program *p) {
  unsigned used = 0;
  for (int i = 0; i < p->count; i++) {
    const nb_op *op = &p->steps[i].op;
    used |= 1u << op->in | 1u << op->out | 1u << op->with;
    if (op->kind == NB_OP_CACHE || op->kind == NB_OP_SPLIT) used |= 1u << NB_Q | 1u << NB_K | 1u << NB_V;
    if (op->kind == NB_OP_EMBED && op->flags & NB_ADDED) used |= 1u << NB_T;
    if (op->kind == NB_OP_EXPERTS) used |= 1u << NB_R | 1u << NB_T | 1u << NB_G | 1u << NB_U;
  }
  return used & ~(1u << NB_NO_REG);
}

nibble_status nb_frame_grow(nb_frame *frame, const nb_config *c, unsigned registers, int64_t rows, nibble_error *err) {
  nb_backend *b = frame->backend;
  nibble_status status = NIBBLE_OK;
  for (int r = 1; status == NIBBLE_OK && r < NB_REGS; r++) {
    uint64_t bytes;
    if (frame->reg[r] || !(registers & 1u << r)) continue;
    if (!nb_mul_u64((uint64_t)rows, (uint64_t)nb_register_width(c, (nb_reg)r), &bytes) ||
        !nb_mul_u64(bytes, sizeof(float), &bytes))
      return nb_fail_memory(err, SIZE_MAX);
    status = b->buffer_create(b, bytes, &frame->reg[r], err);
  }
  return status;
}

void nb_frame_free(nb_frame *frame) {
  nb_backend *b = frame->backend;
  if (!b) return;
  for (int r = 0; r < NB_REGS; r++) b->buffer_free(b, frame->reg[r]);
  b->buffer_free(b, frame->cos);
  b->buffer_free(b, frame->sin);
  b->buffer_free(b, frame->bias);
  *frame = (nb_frame){0};
}

nibble_status nb_show(const nb_hook *hook, const nb_point *point, const nb_shown *s, nibble_error *err) {
  nb_backend *b = s->backend;
  if (!hook || (hook->wants && !hook->wants(hook->ctx, point))) return NIBBLE_OK;
  if (b->view) return hook->see(hook->ctx, point, b->view(b, s->x), s->rows, s->cols, err);
  uint64_t bytes = (uint64_t)(s->rows * s->cols) * sizeof(float);
  float *host = nb_alloc_aligned(bytes, 1);
  if (!host) return nb_fail_memory(err, bytes);
  nibble_status status = b->download(b, s->x, 0, host, bytes, err);
  if (status == NIBBLE_OK) status = hook->see(hook->ctx, point, host, s->rows, s->cols, err);
  free(host);
  return status;
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

static int64_t rows_of(const nb_run *r, const nb_op *op) {
  return r->sequences * (op->flags & NB_ONCE ? r->encoder_tokens : r->tokens);
}

/* Layers that share an input, whose hook sees it once for each. */
static nibble_status run_linears(const nb_run *r, const nb_instruction *first, nibble_error *err) {
  nb_layer_product products[NB_MAX_GROUP];
  nb_backend *b = r->frame->backend;
  const nb_buffer *x = r->frame->reg[first->op.in];
  int64_t rows = rows_of(r, &first->op);
  for (int i = 0; i < first->group; i++) {
    const nb_module *m = first[i].module;
    nb_point point = {r->stack, r->layer, m->expert, m->role};
    nibble_status status = nb_show(r->hook, &point, &(nb_shown){b, x, rows, m->in}, err);
    if (status != NIBBLE_OK) return status;
    products[i] = (nb_layer_product){.weight = m->matrix,
                                     .bias = m->bias,
                                     .y = r->frame->reg[first[i].op.out],
                                     .accumulate = (first[i].op.flags & NB_ADDED) != 0};
  }
  nb_layer_input in = {.x = x, .rows = rows, .group = rows / r->sequences};
  return b->matmul(b, products, first->group, &in, err);
}

static void run_norm(const nb_run *r, const nb_instruction *step) {
  const nb_config *c = r->config;
  const nb_op *op = &step->op;
  nb_backend *b = r->frame->backend;
  nb_norm norm = {step->module->vector, step->module->bias, (float)c->norm_eps, c->family->centered_norm};
  int64_t rows = rows_of(r, op), width = step->module->out;
  if (op->flags & NB_PER_HEAD) rows *= nb_register_width(c, op->in) / width;
  b->norm(b, r->frame->reg[op->in], &norm, rows, width, r->frame->reg[op->out]);
}

/* The row of a table that each token has by its id, its position or its type, which is 0. */
static void run_embed(const nb_run *r, const nb_instruction *step) {
  nb_backend *b = r->frame->backend;
  nb_buffer *const *reg = r->frame->reg;
  const nb_op *op = &step->op;
  int64_t rows = rows_of(r, op);
  bool added = op->flags & NB_ADDED;
  const int32_t *ids = op->role == NB_TOKEN_EMBED ? r->ids : op->role == NB_POSITION_EMBED ? r->positions : r->types;
  b->embed(b, step->module->matrix, ids, rows, reg[added ? NB_T : op->out]);
  if (added) b->add(b, reg[op->out], reg[NB_T], rows * step->module->in);
}

static void run_split(const nb_run *r, const nb_op *op) {
  const nb_config *c = r->config;
  nb_columns columns = {.rows = rows_of(r, op), .width = nb_register_width(c, NB_F)};
  for (nb_reg out = NB_Q; out <= NB_V; out++) {
    columns.count = nb_register_width(c, out);
    r->frame->backend->split(r->frame->backend, r->frame->reg[op->in], &columns, r->frame->reg[out]);
    columns.first += columns.count;
  }
}

static nb_attention_shape shape_of(const nb_run *r, const nb_op *op) {
  const nb_config *c = r->config;
  bool cross = op->flags & NB_CROSS, once = op->flags & NB_ONCE;
  return (nb_attention_shape){.sequences = r->sequences,
                              .tokens = once ? r->encoder_tokens : r->tokens,
                              .start = cross ? 0 : r->start,
                              .heads = c->num_attention_heads,
                              .kv_heads = c->num_key_value_heads,
                              .head_dim = c->head_dim,
                              .capacity = cross ? r->encoder_capacity : r->capacity,
                              .causal = r->causal && !cross,
                              .window = cross ? 0 : r->block->window,
                              .keys = cross ? r->encoder_tokens : r->start + r->tokens,
                              .rotary_dim = c->family->rotary ? c->head_dim : 0,
                              .scale = r->block->scale};
}

static void run_cache(const nb_run *r, const nb_op *op) {
  nb_backend *b = r->frame->backend;
  nb_frame *f = r->frame;
  nb_attention_shape shape = shape_of(r, op);
  nb_rotary_tables tables = {f->cos, f->sin};
  bool turns = op->flags & NB_ROTATED;
  nb_qkv rows = {.q = turns ? f->reg[NB_Q] : NULL, .k = f->reg[NB_K], .v = f->reg[NB_V]};
  b->store(b, &shape, turns ? &tables : NULL, &rows, op->flags & NB_CROSS ? r->cross : r->cache);
}

static void run_attend(const nb_run *r, const nb_op *op) {
  nb_backend *b = r->frame->backend;
  nb_attention_shape shape = shape_of(r, op);
  bool cross = op->flags & NB_CROSS;
  b->attention(b, &shape, r->frame->reg[op->in], cross ? r->cross : r->cache, cross ? NULL : r->frame->bias,
               r->frame->reg[op->out]);
}

static void run_gate(const nb_run *r, const nb_op *op) {
  nb_backend *b = r->frame->backend;
  nb_activation act = op->flags & NB_TANH ? NB_ACT_TANH : r->activation;
  int64_t width = op->in == NB_G ? r->config->intermediate_size : nb_register_width(r->config, op->in);
  b->gate(b, act, r->frame->reg[op->in], op->with ? r->frame->reg[op->with] : NULL, rows_of(r, op) * width);
}

static void run_scale(const nb_run *r, const nb_instruction *step) {
  const nb_op *op = &step->op;
  int64_t count = rows_of(r, op) * nb_register_width(r->config, op->in);
  r->frame->backend->scale(r->frame->backend, r->frame->reg[op->in], step->factor, count);
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

nibble_status nb_run_steps(const nb_run *r, const nb_program *program, int from, int to, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int pc = from; pc < to && status == NIBBLE_OK; pc++) {
    const nb_instruction *step = &program->steps[pc];
    const nb_op *op = &step->op;
    if (op->flags & NB_ONCE && !r->is_new) continue;
    if ((status = nb_stop_check(err)) != NIBBLE_OK) break;
    switch (op->kind) {
      case NB_OP_EMBED: run_embed(r, step); break;
      case NB_OP_NORM: run_norm(r, step); break;
      case NB_OP_LINEAR:
        if (step->group) status = run_linears(r, step, err); /* the others of a group ran with its first */
        break;
      case NB_OP_SPLIT: run_split(r, op); break;
      case NB_OP_CACHE: run_cache(r, op); break;
      case NB_OP_ATTEND: run_attend(r, op); break;
      case NB_OP_GATE: run_gate(r, op); break;
      case NB_OP_SCALE: run_scale(r, step); break;
      case NB_OP_EXPERTS: status = nb_run_experts(r, step, err); break;
      case NB_OP_END: break;
    }
  }
  return status == NIBBLE_OK ? nb_stop_check(err) : status; /* the last product may have left rows out */
}

nibble_status nb_run_all(const nb_run *run, const nb_program *program, nibble_error *err) {
  return nb_run_steps(run, program, 0, program->count, err);
}
