#include "runner/forward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* Rows of logits that are held at once: enough to make a product worth its reading of the head, bounded in bytes. */
enum { LOGIT_TILE_ROWS = 128, LOGIT_TILE_BYTES = 32 << 20 };

enum { MAX_BACKENDS = 8 };

struct nb_session {
  const nb_model *model;
  const nb_hook *hook;
  int64_t sequences, max_sequences, capacity, step_tokens;
  int64_t length;      /* tokens in the caches */
  int64_t last_tokens; /* of the last step */
  nb_block_scratch scratches[MAX_BACKENDS];
  int scratch_count;
  nb_kv_cache **caches;                     /* [num_hidden_layers] */
  int64_t tile_rows;                        /* of logits */
  nb_buffer *head_x, *head_normed, *logits; /* [tile_rows, hidden], [tile_rows, hidden], [tile_rows, vocab] */
  nb_recording *recording;                  /* of the blocks on one new token for each sequence, or NULL */
  bool ran_single;                          /* such a step has run, for as many sequences */
};

static const nb_config *config_of(const nb_session *s) { return &s->model->checkpoint.config; }

/* ---- making a session ------------------------------------------------------------------------------------------- */

static nibble_status make_scratch(nb_session *s, nb_backend *b, nibble_error *err) {
  for (int i = 0; i < s->scratch_count; i++) {
    if (s->scratches[i].backend == b) return NIBBLE_OK;
  }
  if (s->scratch_count == MAX_BACKENDS)
    return nb_fail(err, NIBBLE_USAGE, "a model may be spread over at most %d backends", MAX_BACKENDS);
  nb_block_scratch *w = &s->scratches[s->scratch_count++];
  return nb_block_scratch_create(config_of(s), b, s->sequences * s->step_tokens, s->capacity, w, err);
}

static nibble_status make_head(nb_session *s, nibble_error *err) {
  nb_backend *b = s->model->backend;
  const nb_config *c = config_of(s);
  int64_t fits = LOGIT_TILE_BYTES / (int64_t)sizeof(float) / c->vocab_size;
  s->tile_rows = nb_max_i64(1, nb_min_i64(nb_min_i64(LOGIT_TILE_ROWS, fits), s->sequences * s->step_tokens));
  nibble_status status = nb_make_buffer(b, s->tile_rows, c->hidden_size, &s->head_x, err);
  if (status == NIBBLE_OK) status = nb_make_buffer(b, s->tile_rows, c->hidden_size, &s->head_normed, err);
  if (status == NIBBLE_OK) status = nb_make_buffer(b, s->tile_rows, c->vocab_size, &s->logits, err);
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
  for (int64_t i = 0; status == NIBBLE_OK && i < c->num_hidden_layers; i++) {
    nb_backend *b = model->blocks[i].backend;
    status = make_scratch(s, b, err);
    if (status == NIBBLE_OK) status = nb_block_cache_create(c, b, s->sequences, s->capacity, &s->caches[i], err);
  }
  if (status == NIBBLE_OK) status = make_head(s, err);
  if (status != NIBBLE_OK) {
    nb_session_free(s);
    return status;
  }
  *out = s;
  return NIBBLE_OK;
}

/* It holds for one number of sequences. */
static void drop_recording(nb_session *s) {
  nb_backend *b = s->model->backend;
  if (s->recording) b->recording_free(b, s->recording);
  s->recording = NULL;
  s->ran_single = false;
}

void nb_session_free(nb_session *s) {
  if (!s) return;
  for (int64_t i = 0; s->caches && i < config_of(s)->num_hidden_layers; i++) {
    nb_backend *b = s->model->blocks[i].backend;
    b->kv_free(b, s->caches[i]);
  }
  free(s->caches);
  for (int i = 0; i < s->scratch_count; i++) nb_block_scratch_free(&s->scratches[i]);
  nb_backend *b = s->model->backend;
  b->buffer_free(b, s->head_x);
  b->buffer_free(b, s->head_normed);
  b->buffer_free(b, s->logits);
  drop_recording(s);
  free(s);
}

int64_t nb_session_length(const nb_session *s) { return s->length; }

void nb_session_truncate(nb_session *s, int64_t length) { s->length = nb_min_i64(s->length, nb_max_i64(0, length)); }

void nb_session_restart(nb_session *s, int64_t sequences) {
  int64_t before = s->sequences;
  s->length = s->last_tokens = 0;
  s->sequences = nb_min_i64(s->max_sequences, nb_max_i64(1, sequences));
  if (s->sequences != before) drop_recording(s);
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

/* The scratch of backend `b`, with the residual stream moved there from `at`. */
static nibble_status move_to(nb_session *s, nb_block_scratch **at, nb_backend *b, int64_t rows, nibble_error *err) {
  if ((*at)->backend == b) return NIBBLE_OK;
  nb_block_scratch *to = s->scratches;
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

/* Room in every block's cache for the tokens of the next step. */
static nibble_status reserve(nb_session *s, int64_t tokens, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < config_of(s)->num_hidden_layers; i++) {
    nb_backend *b = s->model->blocks[i].backend;
    status = b->kv_reserve(b, s->caches[i], s->sequences, s->length + tokens, err);
  }
  return status;
}

/* All blocks on the residual stream in *w, which ends where the last block is. */
static nibble_status run_blocks(nb_session *s, int64_t tokens, nb_block_scratch **w, nibble_error *err) {
  const nb_model *m = s->model;
  const nb_config *c = config_of(s);
  int64_t rows = s->sequences * tokens;
  nibble_status status = NIBBLE_OK;
  for (int64_t i = 0; i < c->num_hidden_layers; i++) {
    const nb_block *block = &m->blocks[i];
    if ((status = move_to(s, w, block->backend, rows, err)) != NIBBLE_OK) return status;
    if ((status = nb_show(s->hook, block->backend, i, "input", (*w)->x, rows, c->hidden_size, err)) != NIBBLE_OK)
      return status;
    nb_block_run run = {.config = c,
                        .block = block,
                        .activation = m->activation,
                        .hook = s->hook,
                        .scratch = *w,
                        .cache = s->caches[i],
                        .layer = i,
                        .sequences = s->sequences,
                        .tokens = tokens,
                        .start = s->length,
                        .capacity = s->capacity};
    if ((status = nb_block_attend(&run, err)) != NIBBLE_OK) return status;
    if ((status = nb_block_project(&run, err)) != NIBBLE_OK) return status;
    if ((status = nb_block_gate(&run, err)) != NIBBLE_OK) return status;
    if ((status = nb_block_down(&run, err)) != NIBBLE_OK) return status;
  }
  return status;
}

/* True for the step that decoding repeats, where all of it is on one backend that can record. */
static bool can_record(const nb_session *s, int64_t tokens) {
  return tokens == 1 && !s->hook && s->scratch_count == 1 && s->model->backend->record_begin;
}

/* The first such step runs as it is, so that whatever is made on first use is there; the second is recorded. */
static nibble_status run_recorded(nb_session *s, nb_block_scratch **w, nibble_error *err) {
  nb_backend *b = s->model->backend;
  nibble_status status = NIBBLE_OK;
  if (!s->ran_single) {
    status = run_blocks(s, 1, w, err);
    s->ran_single = status == NIBBLE_OK;
    return status;
  }
  if (!s->recording) {
    if ((status = b->record_begin(b, err)) != NIBBLE_OK) return status;
    status = run_blocks(s, 1, w, err);
    nibble_status ended = b->record_end(b, &s->recording, status == NIBBLE_OK ? err : NULL);
    if (status == NIBBLE_OK) status = ended;
  }
  return status == NIBBLE_OK ? b->replay(b, s->recording, s->length, err) : status;
}

nibble_status nb_session_step(nb_session *s, const int32_t *ids, int64_t tokens, nibble_error *err) {
  nibble_status status = check_step(s, ids, tokens, err);
  if (status == NIBBLE_OK) status = reserve(s, tokens, err);
  if (status != NIBBLE_OK) return status;
  const nb_model *m = s->model;
  int64_t rows = s->sequences * tokens;
  nb_block_scratch *w = &s->scratches[0];
  m->backend->embed(m->backend, m->embedding.matrix, ids, rows, w->x);
  status = can_record(s, tokens) ? run_recorded(s, &w, err) : run_blocks(s, tokens, &w, err);
  if (status == NIBBLE_OK) status = move_to(s, &w, m->backend, rows, err);
  if (status != NIBBLE_OK) return status;
  s->length += tokens;
  s->last_tokens = tokens;
  return nb_show(s->hook, m->backend, -1, "norm.input", w->x, rows, config_of(s)->hidden_size, err);
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
  nb_norm norm = {.weight = m->final_norm, .eps = (float)c->norm_eps};
  b->norm(b, s->head_x, &norm, n, c->hidden_size, s->head_normed);
  nibble_status status = nb_show(s->hook, b, -1, "lm_head.input", s->head_normed, n, c->hidden_size, err);
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
