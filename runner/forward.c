#include "runner/forward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* Rows of logits that are held at once: enough to make a product worth its reading of the head, bounded in bytes. */
enum { LOGIT_TILE_ROWS = 128, LOGIT_TILE_BYTES = 32 << 20 };

/* Activations of one step on one backend. */
typedef struct scratch {
  nb_backend *backend;
  nb_buffer *x;            /* residual stream [rows, hidden] */
  nb_buffer *normed;       /* [rows, hidden] */
  nb_buffer *q, *attended; /* [rows, heads * head_dim] */
  nb_buffer *k, *v;        /* [rows, kv_heads * head_dim] */
  nb_buffer *gate, *up;    /* [rows, intermediate] */
  nb_buffer *cos, *sin;    /* [capacity, head_dim / 2] */
} scratch;

typedef struct kv_cache {
  nb_buffer *k, *v; /* [sequences, kv_heads, capacity, head_dim] */
} kv_cache;

enum { MAX_BACKENDS = 8 };

struct nb_session {
  const nb_model *model;
  const nb_hook *hook;
  int64_t sequences, max_sequences, capacity, step_tokens;
  int64_t length;      /* tokens in the caches */
  int64_t last_tokens; /* of the last step */
  scratch scratches[MAX_BACKENDS];
  int scratch_count;
  kv_cache *caches;                         /* [num_hidden_layers] */
  int64_t tile_rows;                        /* of logits */
  nb_buffer *head_x, *head_normed, *logits; /* [tile_rows, hidden], [tile_rows, hidden], [tile_rows, vocab] */
};

static const nb_config *config_of(const nb_session *s) { return &s->model->checkpoint.config; }

/* ---- making a session ------------------------------------------------------------------------------------------- */

static nibble_status make_buffer(nb_backend *b, int64_t rows, int64_t width, nb_buffer **out, nibble_error *err) {
  uint64_t bytes;
  if (!nb_mul_u64((uint64_t)rows, (uint64_t)width, &bytes) || !nb_mul_u64(bytes, sizeof(float), &bytes))
    return nb_fail_memory(err, SIZE_MAX);
  return b->buffer_create(b, bytes, out, err);
}

static nibble_status upload_rope(nb_session *s, scratch *w, nibble_error *err) {
  const nb_config *c = config_of(s);
  int64_t half = c->head_dim / 2;
  uint64_t row_bytes = (uint64_t)half * sizeof(float);
  float *values = nb_alloc((uint64_t)half * 3, sizeof(float));
  if (!values) return nb_fail_memory(err, row_bytes * 3);
  float *frequency = values, *cosines = values + half, *sines = cosines + half;
  nb_rope_frequencies(&c->rope, c->head_dim, frequency);
  nibble_status status = NIBBLE_OK;
  for (int64_t p = 0; status == NIBBLE_OK && p < s->capacity; p++) {
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

static nibble_status make_scratch(nb_session *s, nb_backend *b, nibble_error *err) {
  for (int i = 0; i < s->scratch_count; i++) {
    if (s->scratches[i].backend == b) return NIBBLE_OK;
  }
  if (s->scratch_count == MAX_BACKENDS)
    return nb_fail(err, NIBBLE_USAGE, "a model may be spread over at most %d backends", MAX_BACKENDS);
  const nb_config *c = config_of(s);
  int64_t rows = s->sequences * s->step_tokens;
  scratch *w = &s->scratches[s->scratch_count++];
  *w = (scratch){.backend = b};
  const struct {
    nb_buffer **buffer;
    int64_t rows, width;
  } wanted[] = {
      {&w->x, rows, c->hidden_size},
      {&w->normed, rows, c->hidden_size},
      {&w->q, rows, c->num_attention_heads * c->head_dim},
      {&w->attended, rows, c->num_attention_heads * c->head_dim},
      {&w->k, rows, c->num_key_value_heads * c->head_dim},
      {&w->v, rows, c->num_key_value_heads * c->head_dim},
      {&w->gate, rows, c->intermediate_size},
      {&w->up, rows, c->intermediate_size},
      {&w->cos, s->capacity, c->head_dim / 2},
      {&w->sin, s->capacity, c->head_dim / 2},
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    nibble_status status = make_buffer(b, wanted[i].rows, wanted[i].width, wanted[i].buffer, err);
    if (status != NIBBLE_OK) return status;
  }
  return upload_rope(s, w, err);
}

static void free_scratch(scratch *w) {
  nb_buffer *const all[] = {w->x, w->normed, w->q, w->attended, w->k, w->v, w->gate, w->up, w->cos, w->sin};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) w->backend->buffer_free(w->backend, all[i]);
}

static nibble_status make_head(nb_session *s, nibble_error *err) {
  nb_backend *b = s->model->backend;
  const nb_config *c = config_of(s);
  int64_t fits = LOGIT_TILE_BYTES / (int64_t)sizeof(float) / c->vocab_size;
  s->tile_rows = nb_max_i64(1, nb_min_i64(nb_min_i64(LOGIT_TILE_ROWS, fits), s->sequences * s->step_tokens));
  nibble_status status = make_buffer(b, s->tile_rows, c->hidden_size, &s->head_x, err);
  if (status == NIBBLE_OK) status = make_buffer(b, s->tile_rows, c->hidden_size, &s->head_normed, err);
  if (status == NIBBLE_OK) status = make_buffer(b, s->tile_rows, c->vocab_size, &s->logits, err);
  return status;
}

nibble_status nb_session_create(const nb_model *model, const nb_session_options *options, nb_session **out,
                                nibble_error *err) {
  nb_session *s = nb_alloc(1, sizeof *s);
  if (!s) return nb_fail_memory(err, sizeof *s);
  *s = (nb_session){.model = model,
                    .hook = options->hook,
                    .sequences = nb_max_i64(1, options->sequences),
                    .max_sequences = nb_max_i64(1, options->sequences),
                    .capacity = nb_max_i64(1, options->capacity)};
  s->step_tokens = options->step_tokens > 0 ? nb_min_i64(options->step_tokens, s->capacity) : s->capacity;
  const nb_config *c = config_of(s);
  nibble_status status = make_scratch(s, model->backend, err);
  s->caches = nb_alloc((uint64_t)c->num_hidden_layers + 1, sizeof *s->caches);
  if (!s->caches && status == NIBBLE_OK) status = nb_fail_memory(err, (uint64_t)c->num_hidden_layers);
  int64_t rows = s->sequences * c->num_key_value_heads;
  for (int64_t i = 0; status == NIBBLE_OK && i < c->num_hidden_layers; i++) {
    nb_backend *b = model->blocks[i].backend;
    status = make_scratch(s, b, err);
    if (status == NIBBLE_OK) status = make_buffer(b, rows, s->capacity * c->head_dim, &s->caches[i].k, err);
    if (status == NIBBLE_OK) status = make_buffer(b, rows, s->capacity * c->head_dim, &s->caches[i].v, err);
  }
  if (status == NIBBLE_OK) status = make_head(s, err);
  if (status != NIBBLE_OK) {
    nb_session_free(s);
    return status;
  }
  *out = s;
  return NIBBLE_OK;
}

void nb_session_free(nb_session *s) {
  if (!s) return;
  for (int64_t i = 0; s->caches && i < config_of(s)->num_hidden_layers; i++) {
    nb_backend *b = s->model->blocks[i].backend;
    b->buffer_free(b, s->caches[i].k);
    b->buffer_free(b, s->caches[i].v);
  }
  free(s->caches);
  for (int i = 0; i < s->scratch_count; i++) free_scratch(&s->scratches[i]);
  nb_backend *b = s->model->backend;
  b->buffer_free(b, s->head_x);
  b->buffer_free(b, s->head_normed);
  b->buffer_free(b, s->logits);
  free(s);
}

int64_t nb_session_length(const nb_session *s) { return s->length; }

void nb_session_truncate(nb_session *s, int64_t length) { s->length = nb_min_i64(s->length, nb_max_i64(0, length)); }

void nb_session_restart(nb_session *s, int64_t sequences) {
  s->length = s->last_tokens = 0;
  s->sequences = nb_min_i64(s->max_sequences, nb_max_i64(1, sequences));
}

/* ---- hooks ------------------------------------------------------------------------------------------------------ */

/* Shows `x` to the hook under the name "layers.LAYER.WHAT" (or WHAT alone if layer is negative). */
static nibble_status show(const nb_session *s, nb_backend *b, int64_t layer, const char *what, const nb_buffer *x,
                          int64_t rows, int64_t cols, nibble_error *err) {
  const nb_hook *hook = s->hook;
  if (!hook) return NIBBLE_OK;
  char name[96];
  if (layer < 0) {
    snprintf(name, sizeof name, "%s", what);
  } else {
    snprintf(name, sizeof name, "layers.%lld.%s", (long long)layer, what);
  }
  if (hook->wants && !hook->wants(hook->ctx, name)) return NIBBLE_OK;
  uint64_t bytes = (uint64_t)(rows * cols) * sizeof(float);
  float *host = nb_alloc_aligned(bytes, 1);
  if (!host) return nb_fail_memory(err, bytes);
  nibble_status status = b->download(b, x, 0, host, bytes, err);
  if (status == NIBBLE_OK) status = hook->see(hook->ctx, name, host, rows, cols, err);
  free(host);
  return status;
}

/* ---- one block -------------------------------------------------------------------------------------------------- */

/* One step of one block: what its parts need to know. */
typedef struct block_step {
  const nb_session *session;
  const nb_block *block;
  scratch *w;
  int64_t layer, rows, tokens;
} block_step;

/* Runs `count` layers that share the input x, and shows the input to the hook once for each. */
static nibble_status run_linears(const block_step *st, const nb_linear_slot *slots, int count, const nb_buffer *x,
                                 nb_buffer *const *y, bool accumulate, nibble_error *err) {
  nb_layer_product products[NB_LINEARS];
  nb_backend *b = st->block->backend;
  for (int i = 0; i < count; i++) {
    const nb_linear *linear = &st->block->linear[slots[i]];
    char what[64];
    snprintf(what, sizeof what, "%s.input", nb_linear_names[slots[i]]);
    nibble_status status = show(st->session, b, st->layer, what, x, st->rows, linear->in, err);
    if (status != NIBBLE_OK) return status;
    products[i] =
        (nb_layer_product){.weight = linear->matrix, .bias = linear->bias, .y = y[i], .accumulate = accumulate};
  }
  return b->matmul(b, products, count, x, st->rows, st->tokens, err);
}

static nibble_status run_attention(const block_step *st, nibble_error *err) {
  const nb_session *s = st->session;
  const nb_config *c = config_of(s);
  const nb_block *block = st->block;
  nb_backend *b = block->backend;
  scratch *w = st->w;
  float eps = (float)c->norm_eps;
  b->norm(b, w->x, block->norm[NB_INPUT_NORM], st->rows, c->hidden_size, eps, w->normed);
  nibble_status status = run_linears(st, (nb_linear_slot[]){NB_Q_PROJ, NB_K_PROJ, NB_V_PROJ}, 3, w->normed,
                                     (nb_buffer *[]){w->q, w->k, w->v}, false, err);
  if (status != NIBBLE_OK) return status;
  if (block->norm[NB_Q_NORM])
    b->norm(b, w->q, block->norm[NB_Q_NORM], st->rows * c->num_attention_heads, c->head_dim, eps, w->q);
  if (block->norm[NB_K_NORM])
    b->norm(b, w->k, block->norm[NB_K_NORM], st->rows * c->num_key_value_heads, c->head_dim, eps, w->k);
  nb_attention_shape shape = {.sequences = s->sequences,
                              .tokens = st->tokens,
                              .start = s->length,
                              .heads = c->num_attention_heads,
                              .kv_heads = c->num_key_value_heads,
                              .head_dim = c->head_dim,
                              .capacity = s->capacity,
                              .window = block->window,
                              .scale = (float)(1 / sqrt((double)c->head_dim))};
  const kv_cache *cache = &s->caches[st->layer];
  b->rotary(b, &shape, w->cos, w->sin, w->q, w->k, w->v, cache->k, cache->v);
  b->attention(b, &shape, w->q, cache->k, cache->v, w->attended);
  return run_linears(st, (nb_linear_slot[]){NB_O_PROJ}, 1, w->attended, &w->x, true, err);
}

static nibble_status run_mlp(const block_step *st, nibble_error *err) {
  const nb_config *c = config_of(st->session);
  nb_backend *b = st->block->backend;
  scratch *w = st->w;
  b->norm(b, w->x, st->block->norm[NB_POST_ATTENTION_NORM], st->rows, c->hidden_size, (float)c->norm_eps, w->normed);
  nibble_status status = run_linears(st, (nb_linear_slot[]){NB_GATE_PROJ, NB_UP_PROJ}, 2, w->normed,
                                     (nb_buffer *[]){w->gate, w->up}, false, err);
  if (status != NIBBLE_OK) return status;
  b->gate(b, st->session->model->activation, w->gate, w->up, st->rows * c->intermediate_size);
  return run_linears(st, (nb_linear_slot[]){NB_DOWN_PROJ}, 1, w->gate, &w->x, true, err);
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

/* The scratch of backend `b`, with the residual stream moved there from `at`. */
static nibble_status move_to(nb_session *s, scratch **at, nb_backend *b, int64_t rows, nibble_error *err) {
  if ((*at)->backend == b) return NIBBLE_OK;
  scratch *to = s->scratches;
  while (to->backend != b) to++;
  uint64_t bytes = (uint64_t)(rows * config_of(s)->hidden_size) * sizeof(float);
  float *host = nb_alloc_aligned(bytes, 1);
  if (!host) return nb_fail_memory(err, bytes);
  nibble_status status = (*at)->backend->download((*at)->backend, (*at)->x, 0, host, bytes, err);
  if (status == NIBBLE_OK) status = b->upload(b, to->x, 0, host, bytes, err);
  free(host);
  *at = to;
  return status;
}

static nibble_status check_step(const nb_session *s, const int32_t *ids, int64_t tokens, nibble_error *err) {
  int64_t vocab = config_of(s)->vocab_size;
  if (tokens < 1 || tokens > s->step_tokens || tokens > s->capacity - s->length)
    return nb_fail(err, NIBBLE_USAGE, "%lld tokens more than the %lld there is room for", (long long)tokens,
                   (long long)nb_min_i64(s->step_tokens, s->capacity - s->length));
  for (int64_t i = 0; i < s->sequences * tokens; i++) {
    if (ids[i] < 0 || ids[i] >= vocab)
      return nb_fail(err, NIBBLE_USAGE, "token id %d is not in the vocabulary of %lld", ids[i], (long long)vocab);
  }
  return NIBBLE_OK;
}

nibble_status nb_session_step(nb_session *s, const int32_t *ids, int64_t tokens, nibble_error *err) {
  nibble_status status = check_step(s, ids, tokens, err);
  if (status != NIBBLE_OK) return status;
  const nb_model *m = s->model;
  const nb_config *c = config_of(s);
  int64_t rows = s->sequences * tokens;
  scratch *w = &s->scratches[0];
  m->backend->embed(m->backend, m->embedding.matrix, ids, rows, w->x);
  for (int64_t i = 0; i < c->num_hidden_layers; i++) {
    const nb_block *block = &m->blocks[i];
    if ((status = move_to(s, &w, block->backend, rows, err)) != NIBBLE_OK) return status;
    block_step st = {.session = s, .block = block, .w = w, .layer = i, .rows = rows, .tokens = tokens};
    if ((status = show(s, block->backend, i, "input", w->x, rows, c->hidden_size, err)) != NIBBLE_OK) return status;
    if ((status = run_attention(&st, err)) != NIBBLE_OK) return status;
    if ((status = run_mlp(&st, err)) != NIBBLE_OK) return status;
  }
  if ((status = move_to(s, &w, m->backend, rows, err)) != NIBBLE_OK) return status;
  s->length += tokens;
  s->last_tokens = tokens;
  return show(s, m->backend, -1, "norm.input", w->x, rows, c->hidden_size, err);
}

/* ---- the head --------------------------------------------------------------------------------------------------- */

/* Logits of n <= tile_rows rows of the last step, left in s->logits. */
static nibble_status run_head(nb_session *s, const int32_t *rows, int64_t n, nibble_error *err) {
  const nb_model *m = s->model;
  const nb_config *c = config_of(s);
  nb_backend *b = m->backend;
  if (!m->head.matrix)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: '%s' has no output embedding", m->checkpoint.path, c->architecture);
  for (int64_t i = 0; i < n; i++) {
    if (rows[i] < 0 || rows[i] >= s->sequences * s->last_tokens)
      return nb_fail(err, NIBBLE_USAGE, "row %d is not among the %lld of the last step", rows[i],
                     (long long)(s->sequences * s->last_tokens));
  }
  b->gather(b, s->scratches[0].x, rows, n, c->hidden_size, s->head_x);
  b->norm(b, s->head_x, m->final_norm, n, c->hidden_size, (float)c->norm_eps, s->head_normed);
  nibble_status status = show(s, b, -1, "lm_head.input", s->head_normed, n, c->hidden_size, err);
  if (status != NIBBLE_OK) return status;
  nb_layer_product product = {.weight = m->head.matrix, .bias = m->head.bias, .y = s->logits};
  return b->matmul(b, &product, 1, s->head_normed, n, n, err);
}

nibble_status nb_session_logits(nb_session *s, const int32_t *rows, int64_t n, float *out, nibble_error *err) {
  int64_t vocab = config_of(s)->vocab_size;
  nb_backend *b = s->model->backend;
  for (int64_t at = 0; at < n; at += s->tile_rows) {
    int64_t tile = nb_min_i64(s->tile_rows, n - at);
    nibble_status status = run_head(s, rows + at, tile, err);
    if (status == NIBBLE_OK)
      status = b->download(b, s->logits, 0, out + at * vocab, (uint64_t)(tile * vocab) * sizeof(float), err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

nibble_status nb_session_log_probs(nb_session *s, const int32_t *rows, const int32_t *targets, int64_t n,
                                   double *log_prob, int32_t *argmax, nibble_error *err) {
  int64_t vocab = config_of(s)->vocab_size;
  nb_backend *b = s->model->backend;
  for (int64_t i = 0; i < n; i++) {
    if (targets[i] < 0 || targets[i] >= vocab)
      return nb_fail(err, NIBBLE_USAGE, "token id %d is not in the vocabulary of %lld", targets[i], (long long)vocab);
  }
  for (int64_t at = 0; at < n; at += s->tile_rows) {
    int64_t tile = nb_min_i64(s->tile_rows, n - at);
    nibble_status status = run_head(s, rows + at, tile, err);
    if (status == NIBBLE_OK)
      status = b->log_probs(b, s->logits, targets + at, tile, vocab, log_prob + at, argmax ? argmax + at : NULL, err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}
