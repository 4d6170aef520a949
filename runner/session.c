#include "runner/session.h"

#include <stdlib.h>

#include "base/checked.h"

/* Rows of logits that are held at once: enough to make a product worth its reading of the head, bounded in bytes. */
enum { LOGIT_TILE_ROWS = 128, LOGIT_TILE_BYTES = 32 << 20 };

enum { MAX_BACKENDS = 8 };

/* One of the model's stacks at work. */
typedef struct stack_run {
  const nb_model_stack *stack;
  int number;
  int64_t capacity, step_tokens; /* of a sequence */
  nb_frame frames[MAX_BACKENDS]; /* the first on the model's own backend */
  int frame_count;
  nb_kv_cache **caches, **cross; /* [layers]; cross: of the encoder's output, or NULL */
} stack_run;

struct nb_session {
  const nb_model *model;
  const nb_hook *hook;
  int64_t sequences, max_sequences;
  int64_t length;         /* tokens in the caches */
  int64_t last_tokens;    /* of the last step */
  int64_t encoder_tokens; /* that the decoder attends to */
  bool encoder_is_new;
  stack_run runs[NB_MAX_STACKS];
  int32_t *positions, *types; /* [rows of a step] */
  int64_t tile_rows;          /* of outputs */
  nb_frame head;              /* for so many rows */
  nb_recording *recording;    /* of the blocks on one new token for each sequence, or NULL */
  bool ran_single;            /* such a step has run, for as many sequences */
};

static const nb_config *config_of(const nb_session *s) { return &s->model->checkpoint.config; }

static stack_run *last_run(nb_session *s) { return &s->runs[s->model->stack_count - 1]; }

static bool has_encoder(const nb_session *s) { return s->model->stack_count > 1; }

/* ---- making a session ------------------------------------------------------------------------------------------- */

/* The frame on backend `b`, with the registers of a program. */
static nibble_status make_frame(nb_session *s, stack_run *run, nb_backend *b, unsigned registers, nibble_error *err) {
  int i = 0;
  while (i < run->frame_count && run->frames[i].backend != b) i++;
  if (i == MAX_BACKENDS)
    return nb_fail(err, NIBBLE_USAGE, "a model may be spread over at most %d backends", MAX_BACKENDS);
  nb_frame *frame = &run->frames[i];
  int64_t rows = s->max_sequences * nb_max_i64(run->step_tokens, run == s->runs ? 0 : s->runs[0].step_tokens);
  if (i < run->frame_count) return nb_frame_grow(frame, config_of(s), registers, rows, err);
  run->frame_count++;
  frame->backend = b;
  nibble_status status = nb_frame_grow(frame, config_of(s), registers | 1u << NB_X, rows, err);
  return status == NIBBLE_OK ? nb_frame_positions(frame, config_of(s), run->stack, run->capacity, err) : status;
}

static nibble_status make_cache(const nb_session *s, nb_backend *b, int64_t capacity, nb_kv_cache **out,
                                nibble_error *err) {
  const nb_config *c = config_of(s);
  nb_attention_shape shape = {
      .sequences = s->max_sequences, .kv_heads = c->num_key_value_heads, .head_dim = c->head_dim, .capacity = capacity};
  return b->kv_create(b, &shape, out, err);
}

static nibble_status make_stack(nb_session *s, int number, nibble_error *err) {
  stack_run *run = &s->runs[number];
  const nb_model *m = s->model;
  run->number = number;
  run->stack = &m->stacks[number];
  bool cross = number > 0;
  uint64_t layers = (uint64_t)run->stack->layers + 1;
  run->caches = nb_alloc(layers, sizeof *run->caches);
  run->cross = nb_alloc(layers, sizeof *run->cross);
  nibble_status status = run->caches && run->cross ? NIBBLE_OK : nb_fail_memory(err, layers * sizeof *run->caches);
  unsigned outer = nb_program_registers(&run->stack->embed) | nb_program_registers(&run->stack->end);
  if (status == NIBBLE_OK) status = make_frame(s, run, m->backend, outer, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < run->stack->layers; i++) {
    const nb_block *block = &run->stack->blocks[i];
    status = make_frame(s, run, block->backend, nb_program_registers(&block->program), err);
    if (status == NIBBLE_OK) status = make_cache(s, block->backend, run->capacity, &run->caches[i], err);
    if (status == NIBBLE_OK && cross) status = make_cache(s, block->backend, s->runs[0].capacity, &run->cross[i], err);
  }
  return status;
}

static nibble_status make_head(nb_session *s, nibble_error *err) {
  int64_t width = nb_max_i64(s->model->output_width, 1), fits = LOGIT_TILE_BYTES / (int64_t)sizeof(float) / width;
  int64_t rows = s->max_sequences * last_run(s)->step_tokens;
  s->tile_rows = nb_max_i64(1, nb_min_i64(nb_min_i64(LOGIT_TILE_ROWS, fits), rows));
  s->head.backend = s->model->backend;
  unsigned registers = nb_program_registers(&s->model->head) | 1u << NB_X;
  return nb_frame_grow(&s->head, config_of(s), registers, s->tile_rows, err);
}

static nibble_status make_tables(nb_session *s, nibble_error *err) {
  int64_t rows = s->max_sequences * nb_max_i64(s->runs[0].step_tokens, last_run(s)->step_tokens);
  s->positions = nb_alloc((uint64_t)rows, sizeof *s->positions);
  s->types = nb_alloc((uint64_t)rows, sizeof *s->types);
  return s->positions && s->types ? NIBBLE_OK : nb_fail_memory(err, (size_t)rows * sizeof *s->types);
}

nibble_status nb_session_create(const nb_model *model, const nb_session_options *options, nb_session **out,
                                nibble_error *err) {
  nb_session *s = nb_alloc(1, sizeof *s);
  if (!s) return nb_fail_memory(err, sizeof *s);
  *s = (nb_session){.model = model,
                    .hook = options->hook,
                    .sequences = nb_max_i64(1, options->sequences),
                    .max_sequences = nb_max_i64(1, options->sequences)};
  stack_run *run = last_run(s);
  run->capacity = nb_max_i64(1, options->capacity);
  run->step_tokens = options->step_tokens > 0 ? nb_min_i64(options->step_tokens, run->capacity) : run->capacity;
  if (has_encoder(s)) s->runs[0].capacity = s->runs[0].step_tokens = nb_max_i64(1, options->encoder_capacity);
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < model->stack_count; i++) status = make_stack(s, i, err);
  if (status == NIBBLE_OK) status = make_head(s, err);
  if (status == NIBBLE_OK) status = make_tables(s, err);
  if (status != NIBBLE_OK) {
    nb_session_free(s);
    return status;
  }
  *out = s;
  return NIBBLE_OK;
}

/* It holds for one number of sequences, and of the encoder's tokens. */
static void drop_recording(nb_session *s) {
  nb_backend *b = s->model->backend;
  if (s->recording) b->recording_free(b, s->recording);
  s->recording = NULL;
  s->ran_single = false;
}

static void free_stack(stack_run *run) {
  for (int64_t i = 0; run->caches && run->cross && i < run->stack->layers; i++) {
    nb_backend *b = run->stack->blocks[i].backend;
    b->kv_free(b, run->caches[i]);
    b->kv_free(b, run->cross[i]);
  }
  free(run->caches);
  free(run->cross);
  for (int i = 0; i < run->frame_count; i++) nb_frame_free(&run->frames[i]);
}

void nb_session_free(nb_session *s) {
  if (!s) return;
  for (int i = 0; i < NB_MAX_STACKS; i++) free_stack(&s->runs[i]);
  nb_frame_free(&s->head);
  drop_recording(s);
  free(s->positions);
  free(s->types);
  free(s);
}

int64_t nb_session_length(const nb_session *s) { return s->length; }

void nb_session_truncate(nb_session *s, int64_t length) { s->length = nb_min_i64(s->length, nb_max_i64(0, length)); }

void nb_session_restart(nb_session *s, int64_t sequences) {
  int64_t before = s->sequences;
  s->length = s->last_tokens = 0;
  s->sequences = nb_min_i64(s->max_sequences, nb_max_i64(1, sequences));
  if (s->sequences != before) drop_recording(s);
  s->encoder_tokens = 0; /* the texts of other sequences */
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

/* Copies the residual stream of one frame into register `into` of another. */
static nibble_status copy_residual(const nb_session *s, const nb_frame *from, nb_frame *to, nb_reg into, int64_t rows,
                                   nibble_error *err) {
  uint64_t bytes = (uint64_t)(rows * config_of(s)->hidden_size) * sizeof(float);
  float *host = nb_alloc_aligned(bytes, 1);
  if (!host) return nb_fail_memory(err, bytes);
  nibble_status status = from->backend->download(from->backend, from->reg[NB_X], 0, host, bytes, err);
  if (status == NIBBLE_OK) status = to->backend->upload(to->backend, to->reg[into], 0, host, bytes, err);
  free(host);
  return status;
}

/* The frame of backend `b`, with the residual stream moved there from *at. */
static nibble_status move_to(const nb_session *s, stack_run *run, nb_frame **at, nb_backend *b, int64_t rows,
                             nibble_error *err) {
  if ((*at)->backend == b) return NIBBLE_OK;
  nb_frame *to = run->frames;
  while (to->backend != b) to++;
  nibble_status status = copy_residual(s, *at, to, NB_X, rows, err);
  *at = to;
  return status;
}

static nibble_status check_ids(const nb_session *s, const int32_t *ids, int64_t count, nibble_error *err) {
  int64_t vocab = config_of(s)->vocab_size;
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= vocab)
      return nb_fail(err, NIBBLE_USAGE, "token id %d is not in the vocabulary of %lld", ids[i], (long long)vocab);
  }
  return NIBBLE_OK;
}

static nibble_status check_step(nb_session *s, const int32_t *ids, int64_t tokens, nibble_error *err) {
  const stack_run *run = last_run(s);
  const nb_config *c = config_of(s);
  if (tokens < 1 || tokens > run->step_tokens || tokens > run->capacity - s->length)
    return nb_fail(err, NIBBLE_USAGE, "%lld tokens more than the %lld there is room for", (long long)tokens,
                   (long long)nb_min_i64(run->step_tokens, run->capacity - s->length));
  if (c->family->positions_learned && s->length + tokens > c->max_position_embeddings)
    return nb_fail(err, NIBBLE_USAGE, "%lld tokens, but the model has positions for %lld",
                   (long long)(s->length + tokens), (long long)c->max_position_embeddings);
  if (has_encoder(s) && s->encoder_tokens == 0)
    return nb_fail(err, NIBBLE_USAGE, "%s: the encoder has not been given its tokens", s->model->checkpoint.path);
  return check_ids(s, ids, s->sequences * tokens, err);
}

/* Room in every block's cache for the tokens of the next step. */
static nibble_status reserve(const nb_session *s, const stack_run *run, int64_t tokens, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < run->stack->layers; i++) {
    nb_backend *b = run->stack->blocks[i].backend;
    status = b->kv_reserve(b, run->caches[i], s->sequences, tokens, err);
    if (status == NIBBLE_OK && run->cross[i] && s->encoder_is_new)
      status = b->kv_reserve(b, run->cross[i], s->sequences, s->encoder_tokens, err);
  }
  return status;
}

static nb_run run_of(const nb_session *s, const stack_run *run, nb_frame *frame, int64_t tokens) {
  return (nb_run){.config = config_of(s),
                  .activation = s->model->activation,
                  .hook = s->hook,
                  .frame = frame,
                  .positions = s->positions,
                  .types = s->types,
                  .stack = run->number,
                  .layer = -1,
                  .sequences = s->sequences,
                  .tokens = tokens,
                  .start = run == &s->runs[s->model->stack_count - 1] ? s->length : 0,
                  .capacity = run->capacity,
                  .encoder_tokens = s->encoder_tokens,
                  .encoder_capacity = s->runs[0].capacity,
                  .causal = run->stack->causal,
                  .is_new = s->encoder_is_new};
}

/* All blocks on the residual stream in *w, which ends where the last block is. */
static nibble_status run_blocks(const nb_session *s, stack_run *run, int64_t tokens, nb_frame **w, nibble_error *err) {
  int64_t rows = s->sequences * tokens, hidden = config_of(s)->hidden_size;
  nibble_status status = NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < run->stack->layers; i++) {
    const nb_block *block = &run->stack->blocks[i];
    nb_point point = {run->number, (int)i, -1, NB_ROLE_OTHER};
    if ((status = move_to(s, run, w, block->backend, rows, err)) != NIBBLE_OK) return status;
    nb_shown entering = {block->backend, (*w)->reg[NB_X], rows, hidden};
    if ((status = nb_show(s->hook, &point, &entering, err)) != NIBBLE_OK) return status;
    nb_run r = run_of(s, run, *w, tokens);
    r.block = block;
    r.layer = (int)i;
    r.cache = run->caches[i];
    r.cross = run->cross[i];
    status = nb_run_all(&r, &block->program, err);
  }
  return status;
}

/* True for the step that decoding repeats, where all of it is on one backend that can record. */
static bool can_record(nb_session *s, int64_t tokens) {
  return tokens == 1 && !s->hook && !s->encoder_is_new && !s->model->has_experts && last_run(s)->frame_count == 1 &&
         s->model->backend->record_begin;
}

/* The first such step runs as it is, so that whatever is made on first use is there; the second is recorded. */
static nibble_status run_recorded(nb_session *s, nb_frame **w, nibble_error *err) {
  nb_backend *b = s->model->backend;
  nibble_status status = NIBBLE_OK;
  if (!s->ran_single) {
    status = run_blocks(s, last_run(s), 1, w, err);
    s->ran_single = status == NIBBLE_OK;
    return status;
  }
  if (!s->recording) {
    if ((status = b->record_begin(b, err)) != NIBBLE_OK) return status;
    status = run_blocks(s, last_run(s), 1, w, err);
    nibble_status ended = b->record_end(b, &s->recording, status == NIBBLE_OK ? err : NULL);
    if (status == NIBBLE_OK) status = ended;
  }
  return status == NIBBLE_OK ? b->replay(b, s->recording, s->length, err) : status;
}

/* Embeds `tokens` of each sequence and runs the stack's blocks on them: register X of *w, which is the frame of the
 * model's own backend, then has what the last block gives. */
static nibble_status run_stack(nb_session *s, stack_run *run, const int32_t *ids, int64_t tokens, nb_frame **w,
                               nibble_error *err) {
  int64_t rows = s->sequences * tokens;
  *w = run->frames;
  nibble_status status = reserve(s, run, (run == last_run(s) ? s->length : 0) + tokens, err);
  if (status != NIBBLE_OK) return status;
  nb_run embed = run_of(s, run, *w, tokens);
  embed.ids = ids;
  for (int64_t i = 0; i < rows; i++) s->positions[i] = (int32_t)(embed.start + i % tokens);
  if ((status = nb_run_all(&embed, &run->stack->embed, err)) != NIBBLE_OK) return status;
  bool repeats = run == last_run(s) && can_record(s, tokens);
  status = repeats ? run_recorded(s, w, err) : run_blocks(s, run, tokens, w, err);
  return status == NIBBLE_OK ? move_to(s, run, w, s->model->backend, rows, err) : status;
}

nibble_status nb_session_encode(nb_session *s, const int32_t *ids, int64_t tokens, nibble_error *err) {
  stack_run *run = &s->runs[0], *decoder = last_run(s);
  nb_frame *w;
  if (!has_encoder(s))
    return nb_fail(err, NIBBLE_USAGE, "%s: it has no encoder beside a decoder", s->model->checkpoint.path);
  if (tokens < 1 || tokens > run->capacity)
    return nb_fail(err, NIBBLE_USAGE, "%lld tokens more than the %lld there is room for", (long long)tokens,
                   (long long)run->capacity);
  nibble_status status = check_ids(s, ids, s->sequences * tokens, err);
  if (status == NIBBLE_OK) status = run_stack(s, run, ids, tokens, &w, err);
  if (status != NIBBLE_OK) return status;
  nb_run end = run_of(s, run, w, tokens);
  if ((status = nb_run_all(&end, &run->stack->end, err)) != NIBBLE_OK) return status;
  for (int i = 0; status == NIBBLE_OK && i < decoder->frame_count; i++)
    if (decoder->frames[i].reg[NB_E])
      status = copy_residual(s, w, &decoder->frames[i], NB_E, s->sequences * tokens, err);
  drop_recording(s);
  s->length = s->last_tokens = 0;
  s->encoder_tokens = tokens;
  s->encoder_is_new = true;
  return status;
}

nibble_status nb_session_step(nb_session *s, const int32_t *ids, int64_t tokens, nibble_error *err) {
  nb_frame *w;
  stack_run *run = last_run(s);
  nibble_status status = check_step(s, ids, tokens, err);
  if (status == NIBBLE_OK) status = run_stack(s, run, ids, tokens, &w, err);
  if (status != NIBBLE_OK) return status;
  s->length += tokens;
  s->last_tokens = tokens;
  s->encoder_is_new = false;
  if (!run->stack->causal) s->length = 0; /* the next text is another */
  nb_point point = {run->number, -1, -1, NB_FINAL_NORM};
  nb_shown leaving = {s->model->backend, w->reg[NB_X], s->sequences * tokens, config_of(s)->hidden_size};
  return nb_show(s->hook, &point, &leaving, err);
}

/* ---- the head --------------------------------------------------------------------------------------------------- */

/* What the model gives for n <= tile_rows rows of the last step, left in register `output` of the head's frame. */
static nibble_status run_head(nb_session *s, const int32_t *rows, int64_t n, nibble_error *err) {
  const nb_model *m = s->model;
  nb_backend *b = m->backend;
  for (int64_t i = 0; i < n; i++) {
    if (rows[i] < 0 || rows[i] >= s->sequences * s->last_tokens)
      return nb_fail(err, NIBBLE_USAGE, "row %d is not among the %lld of the last step", rows[i],
                     (long long)(s->sequences * s->last_tokens));
  }
  b->gather(b, last_run(s)->frames[0].reg[NB_X], rows, n, config_of(s)->hidden_size, s->head.reg[NB_X]);
  nb_run run = run_of(s, last_run(s), &s->head, n);
  run.sequences = 1;
  return nb_run_all(&run, &m->head, err);
}

nibble_status nb_session_logits(nb_session *s, const int32_t *rows, int64_t n, float *out, nibble_error *err) {
  int64_t width = s->model->output_width;
  nb_backend *b = s->model->backend;
  for (int64_t at = 0; at < n; at += s->tile_rows) {
    int64_t tile = nb_min_i64(s->tile_rows, n - at);
    nibble_status status = run_head(s, rows + at, tile, err);
    if (status == NIBBLE_OK)
      status = b->download(b, s->head.reg[s->model->output], 0, out + at * width,
                           (uint64_t)(tile * width) * sizeof(float), err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

nibble_status nb_session_log_probs(nb_session *s, const nb_predictions *p, nibble_error *err) {
  int64_t vocab = s->model->output_width, n = p->count;
  nb_backend *b = s->model->backend;
  for (int64_t i = 0; i < n; i++) {
    if (p->targets[i] < 0 || p->targets[i] >= vocab)
      return nb_fail(err, NIBBLE_USAGE, "token id %d is not in the vocabulary of %lld", p->targets[i],
                     (long long)vocab);
  }
  for (int64_t at = 0; at < n; at += s->tile_rows) {
    int64_t tile = nb_min_i64(s->tile_rows, n - at);
    nibble_status status = run_head(s, p->rows + at, tile, err);
    nb_scored scored = {.logits = s->head.reg[s->model->output], .targets = p->targets + at, .n = tile, .vocab = vocab};
    if (status == NIBBLE_OK)
      status = b->log_probs(b, &scored, p->log_prob + at, p->argmax ? p->argmax + at : NULL, err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}
