/* Mixtures of experts (Shazeer et al. 2017, arXiv:1701.06538; Jiang et al. 2024, arXiv:2401.04088): a router scores the
 * experts for each row, the best few work on it, and their outputs are summed by the router's weights. */
#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "runner/program.h"

static void softmax(const float *scores, int64_t n, float *out) {
  float largest = scores[0], sum = 0;
  for (int64_t i = 1; i < n; i++) largest = fmaxf(largest, scores[i]);
  for (int64_t i = 0; i < n; i++) sum += out[i] = expf(scores[i] - largest);
  for (int64_t i = 0; i < n; i++) out[i] /= sum;
}

/* The k largest, largest first; of equals the first. What is taken becomes negative, which no probability is. */
static void take_largest(float *p, int64_t n, int64_t k, int32_t *which, float *values) {
  for (int64_t j = 0; j < k; j++) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) best = p[i] > p[best] ? i : best;
    which[j] = (int32_t)best;
    values[j] = p[best];
    p[best] = -1;
  }
}

void nb_route(const nb_config *c, float *scores, int64_t rows, int32_t *experts, float *weights) {
  int64_t n = c->num_experts, k = c->num_experts_per_tok;
  for (int64_t r = 0; r < rows; r++) {
    float *p = scores + r * n, *w = weights + r * k, sum = 0;
    softmax(p, n, p);
    take_largest(p, n, k, experts + r * k, w);
    for (int64_t j = 0; j < k; j++) sum += w[j];
    for (int64_t j = 0; c->norm_topk_prob && j < k; j++) w[j] /= sum;
  }
}

nibble_status nb_routes_create(const nb_run *r, nb_routes *out, nibble_error *err) {
  const nb_config *c = r->config;
  nb_backend *b = r->frame->backend;
  int64_t rows = r->sequences * r->tokens, k = c->num_experts_per_tok;
  uint64_t bytes = (uint64_t)(rows * c->num_experts) * sizeof(float);
  *out = (nb_routes){.rows_count = rows, .per_row = k};
  float *scores = nb_alloc_aligned(bytes, 1);
  out->experts = nb_alloc((uint64_t)(rows * k), sizeof *out->experts);
  out->weights = nb_alloc((uint64_t)(rows * k), sizeof *out->weights);
  out->rows = nb_alloc((uint64_t)rows, sizeof *out->rows);
  out->row_weights = nb_alloc((uint64_t)rows, sizeof *out->row_weights);
  bool ok = scores && out->experts && out->weights && out->rows && out->row_weights;
  nibble_status status = ok ? b->download(b, r->frame->reg[NB_R], 0, scores, bytes, err) : nb_fail_memory(err, bytes);
  if (status == NIBBLE_OK) nb_route(c, scores, rows, out->experts, out->weights);
  free(scores);
  return status;
}

void nb_routes_free(nb_routes *routes) {
  free(routes->experts);
  free(routes->weights);
  free(routes->rows);
  free(routes->row_weights);
  *routes = (nb_routes){0};
}

int64_t nb_routes_of(nb_routes *routes, int expert) {
  int64_t n = 0;
  for (int64_t r = 0; r < routes->rows_count; r++) {
    for (int64_t j = r * routes->per_row; j < (r + 1) * routes->per_row; j++) {
      if (routes->experts[j] != expert) continue;
      routes->rows[n] = (int32_t)r;
      routes->row_weights[n++] = routes->weights[j];
    }
  }
  return n;
}

/* A matrix and where its product goes. */
typedef struct factor {
  const nb_module *module;
  nb_reg out;
} factor;

/* Products of register `in`, one launch. */
static nibble_status multiply(const nb_run *r, nb_reg in, const factor *factors, int count, int64_t rows,
                              nibble_error *err) {
  nb_backend *b = r->frame->backend;
  nb_layer_product products[NB_MAX_GROUP];
  for (int i = 0; i < count; i++) {
    const nb_module *m = factors[i].module;
    nb_point point = {r->stack, r->layer, m->expert, m->role};
    nibble_status status = nb_show(r->hook, &point, &(nb_shown){b, r->frame->reg[in], rows, m->in}, err);
    if (status != NIBBLE_OK) return status;
    products[i] = (nb_layer_product){.weight = m->matrix, .bias = m->bias, .y = r->frame->reg[factors[i].out]};
  }
  nb_layer_input input = {.x = r->frame->reg[in], .rows = rows, .group = rows};
  return b->matmul(b, products, count, &input, err);
}

void nb_run_expert_input(const nb_run *r, nb_reg in, const nb_routes *routes, int64_t rows) {
  nb_backend *b = r->frame->backend;
  b->gather(b, r->frame->reg[in], routes->rows, rows, r->config->hidden_size, r->frame->reg[NB_T]);
}

nibble_status nb_run_expert_inner(const nb_run *r, int expert, int64_t rows, nibble_error *err) {
  const nb_modules *modules = &r->block->modules;
  nb_backend *b = r->frame->backend;
  const factor first[] = {{nb_module_find(modules, r->stack, NB_EXPERT_GATE, expert), NB_G},
                          {nb_module_find(modules, r->stack, NB_EXPERT_UP, expert), NB_U}};
  nibble_status status = multiply(r, NB_T, first, 2, rows, err);
  int64_t inner = first[0].module->out;
  if (status == NIBBLE_OK) b->gate(b, r->activation, r->frame->reg[NB_G], r->frame->reg[NB_U], rows * inner);
  return status;
}

nibble_status nb_run_experts(const nb_run *r, const nb_instruction *step, nibble_error *err) {
  nb_backend *b = r->frame->backend;
  nb_routes routes = {0};
  nibble_status status = nb_routes_create(r, &routes, err);
  for (int e = 0; status == NIBBLE_OK && e < r->config->num_experts; e++) {
    int64_t rows = nb_routes_of(&routes, e);
    if (rows == 0) continue;
    const factor down = {nb_module_find(&r->block->modules, r->stack, NB_EXPERT_DOWN, e), NB_T};
    nb_run_expert_input(r, step->op.in, &routes, rows);
    status = nb_run_expert_inner(r, e, rows, err);
    if (status == NIBBLE_OK) status = multiply(r, NB_G, &down, 1, rows, err);
    nb_scatter to = {routes.rows, routes.row_weights, rows, r->config->hidden_size};
    if (status == NIBBLE_OK) b->scatter_add(b, r->frame->reg[NB_T], &to, r->frame->reg[step->op.out]);
  }
  nb_routes_free(&routes);
  return status;
}
