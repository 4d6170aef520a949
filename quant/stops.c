#include "quant/stops.h"

#include <stdlib.h>

#include "base/checked.h"

enum { MAX_STEPS = 64, CACHE = NB_REGS }; /* keys and values in a cache: no register, but as alive as one */

static unsigned bit(int slot) { return 1u << slot; }
static unsigned bit_of(nb_reg reg) { return bit((int)reg); }

/* What a step reads, and what it writes whole. */
static void effects(const nb_op *op, unsigned *reads, unsigned *writes) {
  unsigned kv = bit(NB_K) | bit(NB_V);
  *reads = op->in | op->with ? bit_of(op->in) | bit_of(op->with) : 0;
  *writes = op->flags & NB_ADDED ? 0 : bit_of(op->out);
  if (op->flags & NB_ADDED) *reads |= bit_of(op->out);
  switch (op->kind) {
    case NB_OP_SPLIT: *writes |= kv | bit(NB_Q); break;
    case NB_OP_CACHE:
      *reads |= kv;
      *writes |= bit(CACHE);
      break;
    case NB_OP_ATTEND: *reads |= bit(CACHE); break;
    case NB_OP_EXPERTS: *reads |= bit(NB_R); break;
    case NB_OP_EMBED:
    case NB_OP_NORM:
    case NB_OP_LINEAR:
    case NB_OP_GATE:
    case NB_OP_SCALE:
    case NB_OP_END: break;
  }
  *reads &= ~bit(NB_NO_REG);
  *writes &= ~bit(NB_NO_REG);
}

/* Which registers' values at each step are read later. */
static void find_live(const nb_program *p, unsigned live[MAX_STEPS + 1]) {
  live[p->count] = bit(NB_X);
  for (int pc = p->count; pc-- > 0;) {
    unsigned reads, writes;
    effects(&p->steps[pc].op, &reads, &writes);
    live[pc] = (live[pc + 1] & ~writes) | reads;
  }
}

static int count_bits(unsigned set) { return __builtin_popcount(set); }

/* What steps [from, to) change, in place or whole. */
static unsigned changed(const nb_program *p, int from, int to) {
  unsigned all = 0;
  for (int pc = from; pc < to; pc++) {
    const nb_op *op = &p->steps[pc].op;
    unsigned reads, writes;
    effects(op, &reads, &writes);
    all |= writes | bit_of(op->out) | (op->kind == NB_OP_CACHE && op->flags & NB_ROTATED ? bit(NB_Q) | bit(NB_K) : 0);
  }
  return all & ~bit(NB_NO_REG);
}

/* The step in [from, pc] at which the fewest registers are alive, the last of equals; what is held there must not be
 * changed on the way to pc, which is gone twice. */
static int find_rest(const nb_program *p, const unsigned *live, int from, int pc) {
  int best = pc;
  for (int at = pc; at >= from; at--) {
    bool usable = !(live[at] & bit(CACHE)) && !(changed(p, at, pc) & live[at]);
    if (usable && (count_bits(live[at]) < count_bits(live[best]) || live[best] & bit(CACHE))) best = at;
  }
  return best;
}

/* Registers beside X get a boundary each, other than those of the stop before: both are in use while samples go from
 * one to the other. A register that is held at both keeps its own. */
static bool hold(nb_stop *stop, const nb_stop *before, unsigned live, unsigned is_new) {
  unsigned taken = 0;
  for (int i = 0; before && i < before->held_count; i++) {
    if (before->held[i].reg != NB_X) taken |= bit(before->held[i].slot);
  }
  for (int r = 1; r < NB_REGS; r++) {
    if (!(live & bit(r))) continue;
    if (stop->held_count == NB_STOP_SLOTS + 1) return false;
    nb_held *held = &stop->held[stop->held_count++];
    *held = (nb_held){.reg = (nb_reg)r, .slot = -1, .is_new = (is_new & bit(r)) != 0};
    for (int i = 0; before && i < before->held_count; i++) {
      if (before->held[i].reg == held->reg) held->slot = before->held[i].slot;
    }
    if (r == NB_X || held->slot >= 0) continue;
    int slot = 0;
    while (taken & bit(slot)) slot++;
    if (slot >= NB_STOP_SLOTS) return false;
    held->slot = slot;
    taken |= bit(slot);
  }
  return true;
}

static bool add_batch(nb_stop *stop, const nb_batch *batch) {
  stop->batches[stop->batch_count++] = *batch;
  for (int i = 0; i < batch->count; i++) stop->layers[stop->layer_count++] = batch->layers[i];
  return true;
}

static bool reserve(nb_stop *stop, int64_t batches) {
  stop->batches = nb_alloc((uint64_t)batches, sizeof *stop->batches);
  stop->layers = nb_alloc((uint64_t)batches * NB_MAX_GROUP, sizeof *stop->layers);
  return stop->batches && stop->layers;
}

static bool add_layers(const nb_block *block, int64_t num_experts, nb_stop *stop) {
  const nb_instruction *step = &block->program.steps[stop->pc];
  if (step->op.kind == NB_OP_LINEAR) {
    nb_batch batch = {.expert = -1, .count = step->group};
    for (int i = 0; i < step->group; i++) batch.layers[i] = (nb_module *)(uintptr_t)step[i].module;
    return reserve(stop, 1) && add_batch(stop, &batch);
  }
  if (!reserve(stop, 2 * num_experts)) return false;
  for (int e = 0; e < num_experts; e++) {
    const nb_modules *m = &block->modules;
    nb_batch first = {.expert = e, .count = 2}, second = {.expert = e, .count = 1, .is_inner = true};
    int stack = block->modules.items[0].stack;
    first.layers[0] = nb_module_find(m, stack, NB_EXPERT_GATE, e);
    first.layers[1] = nb_module_find(m, stack, NB_EXPERT_UP, e);
    second.layers[0] = nb_module_find(m, stack, NB_EXPERT_DOWN, e);
    add_batch(stop, &first);
    add_batch(stop, &second);
  }
  return true;
}

static bool is_stop(const nb_instruction *step) {
  bool layers = step->op.kind == NB_OP_LINEAR && step->group > 0;
  return step->op.kind == NB_OP_EXPERTS || (layers && nb_role_info(step->op.role)->kind == NB_KIND_LINEAR);
}

nibble_status nb_stops_find(const nb_block *block, int64_t num_experts, nb_stops *out, nibble_error *err) {
  const nb_program *p = &block->program;
  unsigned live[MAX_STEPS + 1];
  int from = 0;
  *out = (nb_stops){.items = nb_alloc((uint64_t)p->count + 2, sizeof *out->items)};
  if (!out->items) return nb_fail_memory(err, (size_t)p->count * sizeof *out->items);
  if (p->count > MAX_STEPS) return nb_fail(err, NIBBLE_BAD_INPUT, "a block of %d steps cannot be calibrated", p->count);
  find_live(p, live);
  for (int pc = 0; pc <= p->count; pc++) {
    if (pc < p->count && !is_stop(&p->steps[pc])) continue;
    nb_stop *stop = &out->items[out->count], *before = out->count ? stop - 1 : NULL;
    out->count++;
    stop->pc = pc;
    stop->rest = pc == p->count ? pc : before ? find_rest(p, live, from, pc) : 0;
    unsigned is_new = before ? changed(p, before->rest, stop->rest) : 0;
    if (!hold(stop, before, live[stop->rest], is_new))
      return nb_fail(err, NIBBLE_BAD_INPUT, "too much is alive at step %d of a block to be held", stop->rest);
    if (pc < p->count && !add_layers(block, num_experts, stop)) return nb_fail_memory(err, sizeof(nb_batch));
    from = pc < p->count && p->steps[pc].op.kind == NB_OP_LINEAR ? pc + p->steps[pc].group : pc + 1;
  }
  return NIBBLE_OK;
}

void nb_stops_free(nb_stops *stops) {
  for (int i = 0; i < stops->count; i++) {
    free(stops->items[i].batches);
    free(stops->items[i].layers);
  }
  free(stops->items);
  *stops = (nb_stops){0};
}

int64_t nb_stops_width(const nb_stops *stops, const nb_config *config, int slot) {
  int64_t width = 0;
  for (int i = 0; i < stops->count; i++) {
    for (int k = 0; k < stops->items[i].held_count; k++) {
      const nb_held *held = &stops->items[i].held[k];
      if (held->reg != NB_X && held->slot == slot) width = nb_max_i64(width, nb_register_width(config, held->reg));
    }
  }
  return width;
}

static nibble_status add_rows(const nb_run *run, nb_reg reg, int64_t rows, int64_t cols, nb_hessian *hessian,
                              nibble_error *err) {
  nb_backend *b = run->frame->backend;
  uint64_t bytes = (uint64_t)(rows * cols) * sizeof(float);
  if (rows == 0) return NIBBLE_OK;
  if (b->view) {
    nb_hessian_add(hessian, b->view(b, run->frame->reg[reg]), rows, cols);
    return NIBBLE_OK;
  }
  float *host = nb_alloc_aligned(bytes, 1);
  if (!host) return nb_fail_memory(err, bytes);
  nibble_status status = b->download(b, run->frame->reg[reg], 0, host, bytes, err);
  if (status == NIBBLE_OK) nb_hessian_add(hessian, host, rows, cols);
  free(host);
  return status;
}

nibble_status nb_batch_input(const nb_run *run, const nb_stop *stop, const nb_batch *batch, nb_hessian *hessian,
                             nibble_error *err) {
  const nb_op *op = &run->block->program.steps[stop->pc].op;
  int64_t cols = batch->layers[0]->in;
  if (batch->expert < 0) return add_rows(run, op->in, run->sequences * run->tokens, cols, hessian, err);
  nb_routes routes = {0};
  nibble_status status = nb_routes_create(run, &routes, err);
  int64_t rows = status == NIBBLE_OK ? nb_routes_of(&routes, batch->expert) : 0;
  if (rows > 0) nb_run_expert_input(run, op->in, &routes, rows);
  if (rows > 0 && batch->is_inner) status = nb_run_expert_inner(run, batch->expert, rows, err);
  if (status == NIBBLE_OK) status = add_rows(run, batch->is_inner ? NB_G : NB_T, rows, cols, hessian, err);
  nb_routes_free(&routes);
  return status;
}
