/* nibble.h's handles: a model that stays open, and sessions of it that take ids and give logits. */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/context.h"
#include "base/parallel.h"
#include "runner/session.h"

enum { DEFAULT_CAPACITY = 2048, DEFAULT_STEP = 512 };

struct nibble_model {
  nb_model model;
  nibble_context context; /* as it was when the model was opened */
  atomic_int users;       /* the caller, until he closes it, and the sessions; the last frees it */
};

struct nibble_session {
  nibble_model *of;
  nb_session *session;
  nibble_context context;
  int64_t capacity, step; /* ids that it may hold, and that are run at a time */
  int64_t rows;           /* whose output can be read: the last that were fed */
};

/* ---- a model ---------------------------------------------------------------------------------------------------- */

static nibble_status open_model(const nibble_model_options *o, nibble_model **out, nibble_error *err) {
  nibble_model *m = nb_alloc(1, sizeof *m);
  if (!m) return nb_fail_memory(err, sizeof *m);
  m->context = *o->context;
  atomic_init(&m->users, 1);
  nb_model_options load = {
      .context = &m->context, .llm_int8 = o->int8 == NIBBLE_INT8_LLM, .activations = o->activations, .head = o->head};
  nibble_status status = nb_model_load(o->model, &load, &m->model, err);
  if (status == NIBBLE_OK) {
    *out = m;
  } else {
    free(m);
  }
  return status;
}

nibble_status nibble_model_open(const nibble_model_options *options, nibble_model **out, nibble_error *err) {
  nibble_model_options o;
  static const nb_call_rules rules = {"nibble_model_open",
                                      NB_SIZES(nibble_model_options, activations),
                                      {0},
                                      {NB_REQUIRED(nibble_model_options, model)}};
  nb_call call = {.options = &o};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = open_model(&o, out, err);
  return nb_call_end(&call, status);
}

void nibble_model_close(nibble_model *model) {
  if (!model || atomic_fetch_sub(&model->users, 1) != 1) return;
  nb_model_free(&model->model);
  free(model);
}

nibble_status nibble_model_describe(const nibble_model *model, nibble_model_info *out, nibble_error *err) {
  static const nb_sizes sizes = NB_SIZES(nibble_model_info, has_one_row);
  nibble_status status = nb_result_clear(__func__, &sizes, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "model", model, err);
  if (status != NIBBLE_OK) return status;
  const nb_model *m = &model->model;
  const nb_config *c = &m->checkpoint.config;
  nibble_model_info info = {.model_type = c->model_type,
                            .architecture = c->architecture ? c->architecture : "",
                            .layers = nb_model_last(m)->layers,
                            .vocab_size = c->vocab_size,
                            .hidden_size = c->hidden_size,
                            .output_width = m->output_width,
                            .max_positions = c->max_position_embeddings,
                            .weight_bytes = m->weight_bytes,
                            .has_encoder = m->stack_count > 1,
                            .is_causal = nb_model_last(m)->causal,
                            .has_one_row = c->head->first_only};
  nb_result_fill(out, &info, sizeof info);
  return NIBBLE_OK;
}

/* ---- a session -------------------------------------------------------------------------------------------------- */

static nibble_status check_room(const nibble_session_options *o, nibble_error *err) {
  const int64_t asked[] = {o->capacity, o->encoder_capacity, o->step};
  const char *const names[] = {"capacity", "encoder_capacity", "step"};
  for (int i = 0; i < 3; i++) {
    if (asked[i] < 0 || asked[i] > INT32_MAX)
      return nb_fail(err, NIBBLE_USAGE, "nibble_session_open: %s is %lld; from 0 to %d is required", names[i],
                     (long long)asked[i], INT32_MAX);
  }
  return NIBBLE_OK;
}

static nibble_status open_session(nibble_model *m, const nibble_session_options *o, nibble_session **out,
                                  nibble_error *err) {
  const nb_model *model = &m->model;
  nibble_status status = check_room(o, err);
  if (status != NIBBLE_OK) return status;
  nibble_session *s = nb_alloc(1, sizeof *s);
  if (!s) return nb_fail_memory(err, sizeof *s);
  int64_t most = nb_min_i64(DEFAULT_CAPACITY, model->checkpoint.config.max_position_embeddings);
  *s = (nibble_session){.of = m, .context = *o->context, .capacity = o->capacity > 0 ? o->capacity : most};
  /* What sees later tokens takes a text as a whole, and LLM.int8 its outlier columns from all of it. */
  bool whole = model->matrix_options.llm_int8 || !nb_model_last(model)->causal;
  s->step = nb_min_i64(s->capacity, whole ? s->capacity : o->step > 0 ? o->step : DEFAULT_STEP);
  nb_session_options room = {.capacity = s->capacity,
                             .step_tokens = s->step,
                             .encoder_capacity = o->encoder_capacity > 0 ? o->encoder_capacity : most};
  if ((status = nb_session_create(model, &room, &s->session, err)) == NIBBLE_OK) {
    atomic_fetch_add(&m->users, 1);
    *out = s;
  } else {
    free(s);
  }
  return status;
}

nibble_status nibble_session_open(nibble_model *model, const nibble_session_options *options, nibble_session **out,
                                  nibble_error *err) {
  nibble_session_options o;
  static const nb_call_rules rules = {"nibble_session_open", NB_SIZES(nibble_session_options, step), {0}, {{0}}};
  nb_call call = {.options = &o};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "model", model, err);
  if (status == NIBBLE_OK && !options->context) {
    o.context = &model->context;
    nb_call_begin_in(&call, o.context);
  }
  if (status == NIBBLE_OK) status = open_session(model, &o, out, err);
  return nb_call_end(&call, status);
}

void nibble_session_close(nibble_session *session) {
  if (!session) return;
  nb_session_free(session->session);
  nibble_model_close(session->of);
  free(session);
}

int64_t nibble_session_length(const nibble_session *session) {
  return session ? nb_session_length(session->session) : 0;
}

/* ---- ids in, logits out ----------------------------------------------------------------------------------------- */

static nibble_status require_ids(const char *function, const nibble_session *session, const int32_t *ids, size_t count,
                                 nibble_error *err) {
  nibble_status status = nb_call_require(function, "session", session, err);
  if (status == NIBBLE_OK) status = nb_call_require(function, "ids", ids, err);
  if (status != NIBBLE_OK) return status;
  if (count == 0 || count > INT32_MAX)
    return nb_fail(err, NIBBLE_USAGE, "%s: count is %zu; from 1 to %d is required", function, count, INT32_MAX);
  return NIBBLE_OK;
}

nibble_status nibble_session_encode(nibble_session *session, const int32_t *ids, size_t count, nibble_error *err) {
  nb_call call = {0};
  nibble_status status = require_ids(__func__, session, ids, count, err);
  if (status != NIBBLE_OK) return status;
  nb_call_begin_in(&call, &session->context);
  status = nb_session_encode(session->session, ids, (int64_t)count, err);
  if (status == NIBBLE_OK) session->rows = 0;
  return nb_call_end(&call, status);
}

/* The first step is the short one, so that as many rows as can be are those of the last. */
static nibble_status feed(nibble_session *s, const int32_t *ids, int64_t count, nibble_error *err) {
  int64_t before = nb_session_length(s->session), room = s->capacity - before;
  if (count > room || (count > s->step && !nb_model_last(&s->of->model)->causal))
    return nb_fail(err, NIBBLE_USAGE, "%lld tokens more than the %lld there is room for", (long long)count,
                   (long long)room);
  nibble_status status = NIBBLE_OK;
  for (int64_t at = 0, step = (count - 1) % s->step + 1; status == NIBBLE_OK && at < count; at += step, step = s->step)
    status = nb_session_step(s->session, ids + at, step, err);
  if (status != NIBBLE_OK) nb_session_truncate(s->session, before);
  s->rows = status == NIBBLE_OK ? nb_min_i64(count, s->step) : 0;
  return status;
}

nibble_status nibble_session_feed(nibble_session *session, const int32_t *ids, size_t count, nibble_error *err) {
  nb_call call = {0};
  nibble_status status = require_ids(__func__, session, ids, count, err);
  if (status != NIBBLE_OK) return status;
  nb_call_begin_in(&call, &session->context);
  status = feed(session, ids, (int64_t)count, err);
  return nb_call_end(&call, status);
}

/* The last `count` rows, a tile of row numbers at a time. */
static nibble_status read_rows(nibble_session *s, int64_t count, float *out, nibble_error *err) {
  enum { TILE = 128 };
  int64_t first = s->of->model.checkpoint.config.head->first_only ? 0 : s->rows - count;
  nibble_status status = NIBBLE_OK;
  for (int64_t at = 0; status == NIBBLE_OK && at < count; at += TILE) {
    int64_t n = nb_min_i64(TILE, count - at);
    int32_t rows[TILE];
    for (int64_t i = 0; i < n; i++) rows[i] = (int32_t)(first + at + i);
    status = nb_session_logits(s->session, rows, n, out + at * s->of->model.output_width, err);
  }
  return status;
}

nibble_status nibble_session_logits(nibble_session *session, size_t rows, float *out, nibble_error *err) {
  nb_call call = {0};
  nibble_status status = nb_call_require(__func__, "session", session, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "out", out, err);
  if (status != NIBBLE_OK) return status;
  bool one = session->of->model.checkpoint.config.head->first_only;
  int64_t most = one ? nb_min_i64(1, session->rows) : session->rows;
  if (rows == 0 || rows > (uint64_t)most)
    return nb_fail(err, NIBBLE_USAGE, "%s: rows is %zu, but the last feed left %lld that can be read", __func__, rows,
                   (long long)most);
  nb_call_begin_in(&call, &session->context);
  status = read_rows(session, (int64_t)rows, out, err);
  return nb_call_end(&call, status);
}

nibble_status nibble_session_truncate(nibble_session *session, int64_t length, nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "session", session, err);
  if (status != NIBBLE_OK) return status;
  int64_t most = nb_session_length(session->session);
  if (length < 0 || length > most)
    return nb_fail(err, NIBBLE_USAGE, "%s: length is %lld; from 0 to the session's %lld is required", __func__,
                   (long long)length, (long long)most);
  nb_session_truncate(session->session, length);
  session->rows = 0;
  return NIBBLE_OK;
}
