#include "validate/hidden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { TOKENS = 32 };

/* Hidden states that are off by this share of their size have parted. */
static const double PARTED = 0.25;

/* The place in `states` of what is seen at a point; -1 if it is none of them. */
static int64_t layer_of(const nb_hidden *h, const nb_point *point) {
  if (point->role == NB_FINAL_NORM && point->layer < 0) return h->layers - 1;
  return point->role == NB_ROLE_OTHER ? point->layer : -1;
}

static bool wants(void *ctx, const nb_point *point) { return layer_of(ctx, point) >= 0; }

static nibble_status keep(void *ctx, const nb_point *point, const float *x, int64_t rows, int64_t cols,
                          nibble_error *err) {
  nb_hidden *h = ctx;
  if (rows != h->tokens || cols != h->width)
    return nb_fail(err, NIBBLE_BAD_INPUT, "hidden states of block %d are not [tokens, hidden_size]", point->layer);
  memcpy(h->states + layer_of(h, point) * rows * cols, x, (size_t)(rows * cols) * sizeof *x);
  return NIBBLE_OK;
}

static nibble_status compare(void *ctx, const nb_point *point, const float *x, int64_t rows, int64_t cols,
                             nibble_error *err) {
  nb_hidden *h = ctx;
  int64_t layer = layer_of(h, point);
  if (rows != h->tokens || cols != h->width || layer >= h->layers)
    return nb_fail(err, NIBBLE_BAD_INPUT, "the two models' hidden states of block %d are of other sizes", point->layer);
  const float *kept = h->states + layer * rows * cols;
  for (int64_t i = 0; i < rows * cols; i++) {
    double d = (double)kept[i] - (double)x[i];
    h->error[layer] += d * d;
    h->squares[layer] += (double)x[i] * (double)x[i];
  }
  return NIBBLE_OK;
}

static nibble_status run(const nb_model *model, const nb_hook *hook, const int32_t *ids, int64_t tokens,
                         nibble_error *err) {
  nb_session *session = NULL;
  nb_session_options options = {.sequences = 1, .capacity = tokens, .hook = hook};
  nibble_status status = nb_session_create(model, &options, &session, err);
  if (status == NIBBLE_OK) status = nb_session_step(session, ids, tokens, err);
  nb_session_free(session);
  return status;
}

nibble_status nb_hidden_keep(const nb_model *model, const int32_t *ids, int64_t most, nb_hidden *out,
                             nibble_error *err) {
  const nb_config *config = &model->checkpoint.config;
  *out = (nb_hidden){
      .tokens = nb_min_i64(most, TOKENS), .width = config->hidden_size, .layers = config->num_hidden_layers + 1};
  out->states = nb_alloc((uint64_t)out->layers, (uint64_t)(out->tokens * out->width) * sizeof *out->states);
  out->error = nb_alloc((uint64_t)out->layers, sizeof *out->error);
  out->squares = nb_alloc((uint64_t)out->layers, sizeof *out->squares);
  if (!out->states || !out->error || !out->squares) return nb_fail_memory(err, (size_t)nb_hidden_bytes(out));
  nb_hook hook = {.wants = wants, .see = keep, .ctx = out};
  return run(model, &hook, ids, out->tokens, err);
}

nibble_status nb_hidden_compare(nb_hidden *h, const nb_model *reference, const int32_t *ids, nibble_behaviour *out,
                                nibble_error *err) {
  nb_hook hook = {.wants = wants, .see = compare, .ctx = h};
  nibble_status status = run(reference, &hook, ids, h->tokens, err);
  if (status != NIBBLE_OK) return status;
  if (!(out->block_errors = nb_alloc((uint64_t)h->layers, sizeof(double))))
    return nb_fail_memory(err, (size_t)h->layers * sizeof(double));
  out->block_count = h->layers;
  for (int64_t i = 0; i < h->layers; i++) {
    out->block_errors[i] = h->squares[i] > 0 ? sqrt(h->error[i] / h->squares[i]) : 0;
    if (i > 0 && out->parting_block < 0 && !(out->block_errors[i] < PARTED)) out->parting_block = i - 1;
  }
  return NIBBLE_OK;
}

uint64_t nb_hidden_bytes(const nb_hidden *h) {
  return h->states ? (uint64_t)(h->layers * h->tokens * h->width) * sizeof *h->states : 0;
}

void nb_hidden_free(nb_hidden *h) {
  free(h->states);
  free(h->error);
  free(h->squares);
  *h = (nb_hidden){0};
}
