#include "runner/block.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"

/* ---- memory ----------------------------------------------------------------------------------------------------- */

nibble_status nb_make_buffer(nb_backend *b, int64_t rows, int64_t width, nb_buffer **out, nibble_error *err) {
  uint64_t bytes;
  if (!nb_mul_u64((uint64_t)rows, (uint64_t)width, &bytes) || !nb_mul_u64(bytes, sizeof(float), &bytes))
    return nb_fail_memory(err, SIZE_MAX);
  return b->buffer_create(b, bytes, out, err);
}

static nibble_status upload_rope(const nb_config *c, int64_t capacity, nb_block_scratch *w, nibble_error *err) {
  int64_t half = c->head_dim / 2;
  uint64_t row_bytes = (uint64_t)half * sizeof(float);
  float *values = nb_alloc((uint64_t)half * 3, sizeof(float));
  if (!values) return nb_fail_memory(err, row_bytes * 3);
  float *frequency = values, *cosines = values + half, *sines = cosines + half;
  nb_rope_frequencies(&c->rope, c->head_dim, frequency);
  nibble_status status = NIBBLE_OK;
  for (int64_t p = 0; status == NIBBLE_OK && p < capacity; p++) {
    for (int64_t i = 0; i < half; i++) {
      float angle = (float)p * frequency[i];
      cosines[i] = cosf(angle);
      sines[i] = sinf(angle);
    }
    status = w->backend->upload(w->backend, w->cos, (uint64_t)p * row_bytes, cosines, row_bytes, err);
    if (status == NIBBLE_OK)
      status = w->backend->upload(w->backend, w->sin, (uint64_t)p * row_bytes, sines, row_bytes, err);
  }
  free(values);
  return status;
}

nibble_status nb_block_scratch_create(const nb_config *c, nb_backend *backend, int64_t rows, int64_t capacity,
                                      nb_block_scratch *out, nibble_error *err) {
  *out = (nb_block_scratch){.backend = backend};
  const struct {
    nb_buffer **buffer;
    int64_t rows, width;
  } wanted[] = {
      {&out->x, rows, c->hidden_size},
      {&out->normed, rows, c->hidden_size},
      {&out->q, rows, c->num_attention_heads * c->head_dim},
      {&out->attended, rows, c->num_attention_heads * c->head_dim},
      {&out->k, rows, c->num_key_value_heads * c->head_dim},
      {&out->v, rows, c->num_key_value_heads * c->head_dim},
      {&out->gate, rows, c->intermediate_size},
      {&out->up, rows, c->intermediate_size},
      {&out->cos, capacity, c->head_dim / 2},
      {&out->sin, capacity, c->head_dim / 2},
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    nibble_status status = nb_make_buffer(backend, wanted[i].rows, wanted[i].width, wanted[i].buffer, err);
    if (status != NIBBLE_OK) return status;
  }
  return upload_rope(c, capacity, out, err);
}

void nb_block_scratch_free(nb_block_scratch *w) {
  if (!w->backend) return;
  nb_buffer *const all[] = {w->x, w->normed, w->q, w->attended, w->k, w->v, w->gate, w->up, w->cos, w->sin};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) w->backend->buffer_free(w->backend, all[i]);
  *w = (nb_block_scratch){0};
}

nibble_status nb_block_cache_create(const nb_config *c, nb_backend *b, int64_t sequences, int64_t capacity,
                                    nb_kv_cache **out, nibble_error *err) {
  nb_attention_shape shape = {
      .sequences = sequences, .kv_heads = c->num_key_value_heads, .head_dim = c->head_dim, .capacity = capacity};
  return b->kv_create(b, &shape, out, err);
}

nibble_status nb_show(const nb_hook *hook, nb_backend *b, int64_t layer, const char *what, const nb_buffer *x,
                      int64_t rows, int64_t cols, nibble_error *err) {
  if (!hook) return NIBBLE_OK;
  char name[96];
  if (layer < 0) {
    snprintf(name, sizeof name, "%s", what);
  } else {
    snprintf(name, sizeof name, "layers.%lld.%s", (long long)layer, what);
  }
  if (hook->wants && !hook->wants(hook->ctx, name)) return NIBBLE_OK;
  if (b->view) return hook->see(hook->ctx, name, b->view(b, x), rows, cols, err);
  uint64_t bytes = (uint64_t)(rows * cols) * sizeof(float);
  float *host = nb_alloc_aligned(bytes, 1);
  if (!host) return nb_fail_memory(err, bytes);
  nibble_status status = b->download(b, x, 0, host, bytes, err);
  if (status == NIBBLE_OK) status = hook->see(hook->ctx, name, host, rows, cols, err);
  free(host);
  return status;
}

/* ---- parts ------------------------------------------------------------------------------------------------------ */

static int64_t rows_of(const nb_block_run *run) { return run->sequences * run->tokens; }

/* Runs `count` layers that share the input x, and shows the input to the hook once for each. */
static nibble_status run_linears(const nb_block_run *run, const nb_linear_slot *slots, int count, const nb_buffer *x,
                                 nb_buffer *const *y, bool accumulate, nibble_error *err) {
  nb_layer_product products[NB_LINEARS];
  nb_backend *b = run->block->backend;
  for (int i = 0; i < count; i++) {
    const nb_linear *linear = &run->block->linear[slots[i]];
    char what[64];
    snprintf(what, sizeof what, "%s.input", nb_linear_names[slots[i]]);
    nibble_status status = nb_show(run->hook, b, run->layer, what, x, rows_of(run), linear->in, err);
    if (status != NIBBLE_OK) return status;
    products[i] =
        (nb_layer_product){.weight = linear->matrix, .bias = linear->bias, .y = y[i], .accumulate = accumulate};
  }
  return b->matmul(b, products, count, x, rows_of(run), run->tokens, err);
}

nibble_status nb_block_attend(const nb_block_run *run, nibble_error *err) {
  const nb_config *c = run->config;
  const nb_block *block = run->block;
  nb_backend *b = block->backend;
  nb_block_scratch *w = run->scratch;
  float eps = (float)c->norm_eps;
  int64_t rows = rows_of(run);
  b->norm(b, w->x, &(nb_norm){.weight = block->norm[NB_INPUT_NORM], .eps = eps}, rows, c->hidden_size, w->normed);
  nibble_status status = run_linears(run, (nb_linear_slot[]){NB_Q_PROJ, NB_K_PROJ, NB_V_PROJ}, 3, w->normed,
                                     (nb_buffer *[]){w->q, w->k, w->v}, false, err);
  if (status != NIBBLE_OK) return status;
  if (block->norm[NB_Q_NORM])
    b->norm(b, w->q, &(nb_norm){.weight = block->norm[NB_Q_NORM], .eps = eps}, rows * c->num_attention_heads,
            c->head_dim, w->q);
  if (block->norm[NB_K_NORM])
    b->norm(b, w->k, &(nb_norm){.weight = block->norm[NB_K_NORM], .eps = eps}, rows * c->num_key_value_heads,
            c->head_dim, w->k);
  nb_attention_shape shape = {.sequences = run->sequences,
                              .tokens = run->tokens,
                              .start = run->start,
                              .heads = c->num_attention_heads,
                              .kv_heads = c->num_key_value_heads,
                              .head_dim = c->head_dim,
                              .capacity = run->capacity,
                              .causal = true,
                              .window = block->window,
                              .rotary_dim = c->head_dim,
                              .scale = (float)(1 / sqrt((double)c->head_dim))};
  b->store(b, &shape, &(nb_rotary_tables){w->cos, w->sin}, w->q, w->k, w->v, run->cache);
  b->attention(b, &shape, w->q, run->cache, NULL, w->attended);
  return NIBBLE_OK;
}

nibble_status nb_block_project(const nb_block_run *run, nibble_error *err) {
  nb_block_scratch *w = run->scratch;
  return run_linears(run, (nb_linear_slot[]){NB_O_PROJ}, 1, w->attended, &w->x, true, err);
}

nibble_status nb_block_gate(const nb_block_run *run, nibble_error *err) {
  const nb_config *c = run->config;
  nb_backend *b = run->block->backend;
  nb_block_scratch *w = run->scratch;
  int64_t rows = rows_of(run);
  nb_norm n = {.weight = run->block->norm[NB_POST_ATTENTION_NORM], .eps = (float)c->norm_eps};
  b->norm(b, w->x, &n, rows, c->hidden_size, w->normed);
  nibble_status status = run_linears(run, (nb_linear_slot[]){NB_GATE_PROJ, NB_UP_PROJ}, 2, w->normed,
                                     (nb_buffer *[]){w->gate, w->up}, false, err);
  if (status == NIBBLE_OK) b->gate(b, run->activation, w->gate, w->up, rows * c->intermediate_size);
  return status;
}

nibble_status nb_block_down(const nb_block_run *run, nibble_error *err) {
  nb_block_scratch *w = run->scratch;
  return run_linears(run, (nb_linear_slot[]){NB_DOWN_PROJ}, 1, w->gate, &w->x, true, err);
}
