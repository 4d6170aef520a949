#include "validate/behaviour.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/parallel.h"
#include "convert/tokenizer_open.h"
#include "runner/session.h"
#include "runner/text.h"
#include "validate/divergence.h"
#include "validate/hidden.h"
#include "validate/sensitivity.h"

enum {
  DEFAULT_CTX = 512,
  STEP_TOKENS = 512,     /* of a window that are run at a time: scratch memory is for so many, however long it is */
  TILE_LOGITS = 1 << 22, /* of each model, at a time */
  CONTEXT_TOKENS = 12,   /* shown before a bad one */
  SENSITIVITY_TOKENS = 48,
  ROW_BAND = 8, /* rows of logits that a thread compares at a time */
};

/* One model and the batch of one window that it reads. */
typedef struct side {
  nb_model model;
  nb_session *session;
  float *logits; /* [tile, vocab] */
} side;

typedef struct token_result {
  float kl, nll, reference_nll;
  int32_t top1, reference_top1;
} token_result;

typedef struct run {
  const nb_behaviour_options *options;
  side artifact, original;
  nb_tokenizer *tokenizer;
  nb_ids ids;
  int64_t ctx, chunks, vocab, tile;
  int64_t step; /* tokens that are run at a time; ctx with LLM.int8, whose outlier columns are those of a step */
  nb_divergence *tile_results; /* [tile] */
  int32_t *rows;               /* [tile] */
  token_result *tokens;        /* [chunks * (ctx - 1)] */
  int64_t top1, top5, not_finite;
} run;

static uint64_t resident_now(void) {
  unsigned long size = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f) return 0;
  if (fscanf(f, "%lu %lu", &size, &resident) != 2) resident = 0;
  fclose(f);
  return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static nibble_status load_text(run *r, nibble_error *err) {
  const nb_behaviour_options *o = r->options;
  nb_buf text = {0};
  nibble_status status = nb_text_read(o->text, &text, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_of(o->original, &r->tokenizer, err);
  if (status == NIBBLE_OK)
    status = nb_tokenizer_encode(r->tokenizer, text.data ? text.data : "", text.length, NB_ADD_SPECIAL, &r->ids, err);
  nb_buf_free(&text);
  if (status != NIBBLE_OK) return status;
  r->chunks = (int64_t)r->ids.length / r->ctx;
  if (o->chunks > 0) r->chunks = nb_min_i64(r->chunks, o->chunks);
  if (r->chunks == 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %zu tokens do not fill a window of %lld", o->text, r->ids.length,
                   (long long)r->ctx);
  return NIBBLE_OK;
}

static nibble_status open_side(run *r, const char *path, side *out, nibble_error *err) {
  nb_model_options options = {.context = r->options->context, .llm_int8 = r->options->int8 == NIBBLE_INT8_LLM};
  nibble_status status = nb_model_load(path, &options, &out->model, err);
  if (status == NIBBLE_OK) status = nb_model_need_decoder(&out->model, err);
  if (status != NIBBLE_OK) return status;
  const nb_config *config = &out->model.checkpoint.config;
  int64_t vocab = config->vocab_size;
  if (r->ctx > config->max_position_embeddings)
    return nb_fail(err, NIBBLE_USAGE, "--ctx %lld: %s has max_position_embeddings %lld", (long long)r->ctx, path,
                   (long long)config->max_position_embeddings);
  if (r->vocab && vocab != r->vocab)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: its vocab_size is %lld, the other model's %lld", path, (long long)vocab,
                   (long long)r->vocab);
  r->vocab = vocab;
  r->tile = nb_max_i64(1, nb_min_i64(r->ctx - 1, TILE_LOGITS / vocab));
  if (!(out->logits = nb_alloc_aligned((uint64_t)(r->tile * vocab), sizeof(float))))
    return nb_fail_memory(err, (size_t)(r->tile * vocab) * sizeof(float));
  nb_session_options session = {.sequences = 1, .capacity = r->ctx, .step_tokens = r->step};
  return nb_session_create(&out->model, &session, &out->session, err);
}

static void close_side(side *s) {
  nb_session_free(s->session);
  free(s->logits);
  nb_model_free(&s->model);
}

typedef struct tile_job {
  run *r;
  int64_t window, first; /* prediction of row 0 */
} tile_job;

static void compare_rows(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  tile_job *job = ctx;
  run *r = job->r;
  const int32_t *ids = r->ids.data + job->window * r->ctx;
  for (int64_t i = begin; i < end; i++)
    nb_divergence_of(r->original.logits + i * r->vocab, r->artifact.logits + i * r->vocab, r->vocab,
                     ids[job->first + i + 1], &r->tile_results[i]);
}

/* Predictions [first, first + n), of tokens of the last step, which began at token `at`. */
static nibble_status compare_tile(run *r, int64_t window, int64_t at, int64_t first, int64_t n, nibble_error *err) {
  for (int64_t i = 0; i < n; i++) r->rows[i] = (int32_t)(first + i - at);
  nibble_status status = nb_session_logits(r->original.session, r->rows, n, r->original.logits, err);
  if (status == NIBBLE_OK) status = nb_session_logits(r->artifact.session, r->rows, n, r->artifact.logits, err);
  if (status != NIBBLE_OK) return status;
  tile_job job = {.r = r, .window = window, .first = first};
  nb_parallel(n, ROW_BAND, compare_rows, &job);
  for (int64_t i = 0; i < n; i++) {
    const nb_divergence *d = &r->tile_results[i];
    r->tokens[window * (r->ctx - 1) + first + i] = (token_result){
        (float)d->kl, (float)d->nll, (float)d->reference_nll, d->top1, d->reference_top1,
    };
    r->top1 += d->finite && d->top1 == d->reference_top1;
    r->top5 += d->common_top5;
    r->not_finite += !d->finite;
  }
  return NIBBLE_OK;
}

static nibble_status compare_step(run *r, int64_t window, int64_t at, nibble_error *err) {
  const int32_t *ids = r->ids.data + window * r->ctx + at;
  int64_t tokens = nb_min_i64(r->step, r->ctx - at), end = nb_min_i64(at + tokens, r->ctx - 1);
  nibble_status status = nb_session_step(r->original.session, ids, tokens, err);
  if (status == NIBBLE_OK) status = nb_session_step(r->artifact.session, ids, tokens, err);
  for (int64_t first = at; status == NIBBLE_OK && first < end; first += r->tile)
    status = compare_tile(r, window, at, first, nb_min_i64(r->tile, end - first), err);
  return status;
}

static nibble_status compare_window(run *r, int64_t window, nibble_error *err) {
  nb_session_truncate(r->original.session, 0);
  nb_session_truncate(r->artifact.session, 0);
  nibble_status status = NIBBLE_OK;
  for (int64_t at = 0; status == NIBBLE_OK && at < r->ctx; at += r->step) status = compare_step(r, window, at, err);
  return status;
}

/* ---- figures ---- */

typedef struct moments {
  double sum, squares;
  int64_t n;
} moments;

static void moments_add(moments *m, double x) {
  m->sum += x;
  m->squares += x * x;
  m->n++;
}

static double moments_mean(const moments *m) { return m->n ? m->sum / (double)m->n : 0; }

/* Of the mean, the values taken as independent. */
static double moments_stderr(const moments *m) {
  if (m->n < 2) return 0;
  double mean = moments_mean(m), variance = (m->squares - (double)m->n * mean * mean) / (double)(m->n - 1);
  return sqrt(fmax(0, variance) / (double)m->n);
}

static int compare_floats(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static int bin_of(double kl) {
  double bin = kl > 0 ? floor(2 * (log10(kl) + 7)) : 0;
  return bin < 0 ? 0 : bin >= NIBBLE_KL_BINS ? NIBBLE_KL_BINS - 1 : (int)bin;
}

static nibble_status sum_up(const run *r, nibble_behaviour *out, nibble_error *err) {
  int64_t n = r->chunks * (r->ctx - 1);
  moments kl = {0}, nll = {0}, reference = {0}, difference = {0};
  float *sorted = nb_alloc((uint64_t)n, sizeof *sorted);
  if (!sorted) return nb_fail_memory(err, (size_t)n * sizeof *sorted);
  for (int64_t i = 0; i < n; i++) {
    const token_result *t = &r->tokens[i];
    sorted[i] = t->kl;
    moments_add(&kl, (double)t->kl);
    moments_add(&nll, (double)t->nll);
    moments_add(&reference, (double)t->reference_nll);
    moments_add(&difference, (double)t->nll - (double)t->reference_nll);
    out->kl_bins[bin_of((double)t->kl)]++;
  }
  qsort(sorted, (size_t)n, sizeof *sorted, compare_floats);
  out->tokens = n;
  out->chunks = r->chunks;
  out->ctx = r->ctx;
  out->perplexity = exp(moments_mean(&nll));
  out->perplexity_stderr = out->perplexity * moments_stderr(&nll);
  out->reference_perplexity = exp(moments_mean(&reference));
  out->reference_perplexity_stderr = out->reference_perplexity * moments_stderr(&reference);
  out->nll_difference = moments_mean(&difference);
  out->nll_difference_low = out->nll_difference - 1.96 * moments_stderr(&difference);
  out->nll_difference_high = out->nll_difference + 1.96 * moments_stderr(&difference);
  out->ppl_increase = exp(out->nll_difference) - 1;
  out->kl_mean = moments_mean(&kl);
  out->kl_stderr = moments_stderr(&kl);
  out->kl_p99 = (double)sorted[nb_min_i64(n - 1, (int64_t)ceil(0.99 * (double)n) - 1)];
  out->kl_max = (double)sorted[n - 1];
  out->top1_agreement = (double)r->top1 / (double)n;
  out->top5_agreement = (double)r->top5 / (5 * (double)n);
  free(sorted);
  return NIBBLE_OK;
}

/* ---- the worst tokens ---- */

static char *decode(const run *r, const int32_t *ids, int64_t n) {
  nb_buf text = {0};
  char *out = NULL;
  if (nb_tokenizer_decode(r->tokenizer, ids, (size_t)n, 0, &text, NULL) == NIBBLE_OK && !text.failed)
    out = strdup(text.data ? text.data : "");
  nb_buf_free(&text);
  for (char *c = out; c && *c; c++) {
    if (*c == '\n' || *c == '\t') *c = ' ';
  }
  if (out) nibble_printable(out, "");
  return out;
}

static void find_worst(const run *r, nibble_behaviour *out) {
  int64_t n = r->chunks * (r->ctx - 1);
  int64_t at[NIBBLE_WORST_TOKENS], found = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t k = found < NIBBLE_WORST_TOKENS ? found++ : NIBBLE_WORST_TOKENS - 1;
    if (k == NIBBLE_WORST_TOKENS - 1 && found == NIBBLE_WORST_TOKENS && i >= NIBBLE_WORST_TOKENS &&
        !(r->tokens[i].kl > r->tokens[at[k]].kl))
      continue;
    for (; k > 0 && r->tokens[i].kl > r->tokens[at[k - 1]].kl; k--) at[k] = at[k - 1];
    at[k] = i;
  }
  for (int64_t k = 0; k < found; k++) {
    const token_result *t = &r->tokens[at[k]];
    int64_t window = at[k] / (r->ctx - 1), row = at[k] % (r->ctx - 1), from = nb_max_i64(0, row + 1 - CONTEXT_TOKENS);
    const int32_t *ids = r->ids.data + window * r->ctx;
    nibble_worst_token *w = &out->worst[out->worst_count++];
    *w = (nibble_worst_token){.position = window * r->ctx + row + 1, .kl = (double)t->kl};
    w->context = decode(r, ids + from, row + 1 - from);
    w->token = decode(r, ids + row + 1, 1);
    w->reference_top = decode(r, &t->reference_top1, 1);
    w->top = decode(r, &t->top1, 1);
  }
}

/* ---- all of it ---- */

static nibble_status allocate(run *r, nibble_error *err) {
  uint64_t n = (uint64_t)(r->chunks * (r->ctx - 1));
  r->tile_results = nb_alloc((uint64_t)r->tile, sizeof *r->tile_results);
  r->rows = nb_alloc((uint64_t)r->tile, sizeof *r->rows);
  r->tokens = nb_alloc(n, sizeof *r->tokens);
  if (r->tile_results && r->rows && r->tokens) return NIBBLE_OK;
  return nb_fail_memory(err, n * sizeof *r->tokens);
}

static nibble_status measure(run *r, nb_findings *findings, nibble_behaviour *out, nibble_error *err) {
  const nb_behaviour_options *o = r->options;
  nb_hidden hidden = {0};
  nibble_status status = load_text(r, err);
  uint64_t before = resident_now();
  if (status == NIBBLE_OK) status = open_side(r, o->artifact->path, &r->artifact, err);
  if (status == NIBBLE_OK) status = nb_hidden_keep(&r->artifact.model, r->ids.data, r->ctx, &hidden, err);
  uint64_t after = resident_now(), kept = before + nb_hidden_bytes(&hidden);
  out->resident_bytes = after > kept ? after - kept : 0;
  if (status == NIBBLE_OK) status = open_side(r, o->original->path, &r->original, err);
  if (status == NIBBLE_OK) status = nb_hidden_compare(&hidden, &r->original.model, r->ids.data, out, err);
  if (status == NIBBLE_OK) status = allocate(r, err);
  for (int64_t w = 0; status == NIBBLE_OK && w < r->chunks; w++) {
    nb_step(o->progress, "comparing", (uint64_t)(w * r->ctx), (uint64_t)(r->chunks * r->ctx), "tokens");
    status = compare_window(r, w, err);
  }
  if (status == NIBBLE_OK) status = sum_up(r, out, err);
  if (status == NIBBLE_OK) find_worst(r, out);
  if (status == NIBBLE_OK && o->sensitivity) {
    nb_step(o->progress, "comparing blocks", (uint64_t)(r->chunks * r->ctx), (uint64_t)(r->chunks * r->ctx), "tokens");
    nb_sensitivity sensitivity = {.original = &r->original.model,
                                  .artifact = &r->artifact.model,
                                  .ids = r->ids.data,
                                  .tokens = nb_min_i64(SENSITIVITY_TOKENS, nb_min_i64(r->tile, r->ctx - 1)),
                                  .reference = r->original.logits,
                                  .logits = r->artifact.logits};
    status = nb_sensitivity_measure(&sensitivity, out, err);
  }
  if (status == NIBBLE_OK && r->not_finite)
    nb_find(findings, NIBBLE_FAULT, "logits", "not-finite", nb_place_tensor(""),
            "the logits after %lld of %lld tokens are NaN or infinite", (long long)r->not_finite,
            (long long)out->tokens);
  if (status == NIBBLE_OK) {
    const nb_checkpoint *c = &r->artifact.model.checkpoint;
    out->predicted_bytes = r->artifact.model.weight_bytes;
    for (int i = 0; i < c->file_count; i++) out->file_bytes += c->files[i].map.size;
  }
  nb_hidden_free(&hidden);
  return status;
}

nibble_status nb_behaviour_measure(const nb_behaviour_options *options, nb_findings *findings, nibble_behaviour *out,
                                   nibble_error *err) {
  double start = nb_seconds();
  *out = (nibble_behaviour){.parting_block = -1};
  run r = {.options = options, .ctx = options->ctx ? options->ctx : DEFAULT_CTX};
  r.step = options->int8 == NIBBLE_INT8_LLM ? r.ctx : nb_min_i64(r.ctx, STEP_TOKENS);
  nibble_status status =
      r.ctx < 2 ? nb_fail(err, NIBBLE_USAGE, "a window needs two tokens at least") : measure(&r, findings, out, err);
  close_side(&r.artifact);
  close_side(&r.original);
  nb_tokenizer_close(r.tokenizer);
  nb_ids_free(&r.ids);
  free(r.tile_results);
  free(r.rows);
  free(r.tokens);
  out->seconds = nb_seconds() - start;
  return status;
}

void nb_behaviour_free(nibble_behaviour *b) {
  for (int64_t i = 0; i < b->worst_count; i++) {
    free(b->worst[i].context);
    free(b->worst[i].token);
    free(b->worst[i].reference_top);
    free(b->worst[i].top);
  }
  free(b->block_errors);
  free(b->block_sensitivity);
  *b = (nibble_behaviour){0};
}
