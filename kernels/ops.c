#include "kernels/ops.h"

#include <math.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/ops_cpu.h"

/* Rows, or runs of elements, that one band works through: enough to outweigh handing it to a thread. */
enum { ROW_BAND = 8, ELEMENT_BAND = 16384, COLUMN_BAND = 512, LOGIT_ROW_BAND = 1, SMALL_ATTENTION = 16384 };

static const nb_cpu_ops *ops(void) { return nb_cpu_ops_for(nb_isa_current()); }

typedef struct norm_job {
  const nb_row_norm *norm;
  const float *x;
  float *y;
} norm_job;

static void rmsnorm_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const norm_job *job = ctx;
  const nb_row_norm *n = job->norm;
  for (int64_t r = begin; r < end; r++)
    ops()->rmsnorm_row(job->x + r * n->cols, n->weight, n->cols, n->eps, job->y + r * n->cols);
}

void nb_rmsnorm(const float *x, const nb_row_norm *norm, int64_t rows, float *y) {
  norm_job job = {.norm = norm, .x = x, .y = y};
  nb_parallel(rows, ROW_BAND, rmsnorm_band, &job);
}

static void layernorm_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const norm_job *job = ctx;
  const nb_row_norm *n = job->norm;
  for (int64_t r = begin; r < end; r++)
    ops()->layernorm_row(job->x + r * n->cols, n->weight, n->bias, n->cols, n->eps, job->y + r * n->cols);
}

void nb_layernorm(const float *x, const nb_row_norm *norm, int64_t rows, float *y) {
  norm_job job = {.norm = norm, .x = x, .y = y};
  nb_parallel(rows, ROW_BAND, layernorm_band, &job);
}

typedef struct elementwise_job {
  const float *a, *b;
  float *y;
} elementwise_job;

static void silu_mul_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const elementwise_job *job = ctx;
  ops()->silu_mul(job->a + begin, job->b ? job->b + begin : NULL, end - begin, job->y + begin);
}

void nb_silu_mul(const float *gate, const float *up, int64_t n, float *y) {
  elementwise_job job = {.a = gate, .b = up, .y = y};
  nb_parallel(n, ELEMENT_BAND, silu_mul_band, &job);
}

static void add_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const elementwise_job *job = ctx;
  for (int64_t i = begin; i < end; i++) job->y[i] += job->a[i];
}

void nb_add(const float *x, int64_t n, float *y) {
  elementwise_job job = {.a = x, .y = y};
  nb_parallel(n, ELEMENT_BAND, add_band, &job);
}

typedef struct scale_job {
  float *x, factor;
} scale_job;

static void scale_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const scale_job *job = ctx;
  for (int64_t i = begin; i < end; i++) job->x[i] *= job->factor;
}

void nb_scale(float factor, int64_t n, float *x) {
  scale_job job = {.x = x, .factor = factor};
  nb_parallel(n, ELEMENT_BAND, scale_band, &job);
}

typedef struct scatter_job {
  const float *x, *weights;
  const int32_t *rows;
  float *y;
  int64_t n, cols;
} scatter_job;

/* Bands of columns, not of rows: what a row of y gets comes in order then, however often it comes. */
static void scatter_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const scatter_job *job = ctx;
  for (int64_t i = 0; i < job->n; i++) {
    const float *x = job->x + i * job->cols;
    float *y = job->y + job->rows[i] * job->cols, weight = job->weights[i];
    for (int64_t c = begin; c < end; c++) y[c] += weight * x[c];
  }
}

void nb_scatter_add(const float *x, const int32_t *rows, const float *weights, int64_t n, int64_t cols, float *y) {
  scatter_job job = {.x = x, .weights = weights, .rows = rows, .y = y, .n = n, .cols = cols};
  nb_parallel(cols, COLUMN_BAND, scatter_band, &job);
}

typedef struct rotary_job {
  const nb_rotation *rotation;
  float *x;
  int64_t stride;
} rotary_job;

static void rotary_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const rotary_job *job = ctx;
  const nb_rotation *t = job->rotation;
  int64_t half = t->rotary_dim / 2;
  for (int64_t r = begin; r < end; r++) {
    const float *cos = t->cos + r % t->period * half, *sin = t->sin + r % t->period * half;
    for (int64_t h = 0; h < t->heads; h++) {
      float *restrict low = job->x + r * job->stride + h * t->head_dim, *restrict high = low + half;
      for (int64_t i = 0; i < half; i++) {
        float a = low[i], b = high[i];
        low[i] = a * cos[i] - b * sin[i];
        high[i] = b * cos[i] + a * sin[i];
      }
    }
  }
}

void nb_rotary(float *x, int64_t stride, int64_t rows, const nb_rotation *r) {
  rotary_job job = {.rotation = r, .x = x, .stride = stride};
  nb_parallel(rows, ROW_BAND, rotary_band, &job);
}

/* Queries of one key head that make one item of work. For a single new token each head is one, so that there is
 * something to share out. */
static int64_t query_tile(const nb_attention *a) { return a->tokens == 1 ? 1 : NB_QUERY_TILE; }

static void attention_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const nb_attention *a = ctx;
  int64_t queries = a->tokens * (a->heads / a->kv_heads), tile = query_tile(a), tiles = nb_ceil_div(queries, tile);
  for (int64_t item = begin; item < end; item++) {
    int64_t first = item % tiles * tile, kv_head = item / tiles % a->kv_heads, sequence = item / tiles / a->kv_heads;
    ops()->attention_tile(a, sequence, kv_head, first, nb_min_i64(tile, queries - first));
  }
}

void nb_attention_run(const nb_attention *a) {
  int64_t tiles = nb_ceil_div(a->tokens * (a->heads / a->kv_heads), query_tile(a));
  int64_t items = a->sequences * a->kv_heads * tiles;
  /* A short cache is read in less time than it takes to wake a thread. */
  int64_t keys = nb_attention_end(a, a->tokens - 1);
  bool small = keys * a->head_dim * a->heads * a->tokens * a->sequences < SMALL_ATTENTION;
  nb_parallel_stoppable(items, small ? items : 1, attention_band, (void *)a, NULL);
}

typedef struct logprob_job {
  const nb_logits *logits;
  const int32_t *targets;
  double *logprob;
  int32_t *argmax;
} logprob_job;

static void logprob_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const logprob_job *job = ctx;
  for (int64_t r = begin; r < end; r++) {
    const float *row = job->logits->data + r * job->logits->stride;
    int64_t vocab = job->logits->vocab, argmax = ops()->argmax(row, vocab);
    double sum = ops()->sum_exp(row, vocab, row[argmax]);
    job->logprob[r] = (double)row[job->targets[r]] - (double)row[argmax] - log(sum);
    if (job->argmax) job->argmax[r] = (int32_t)argmax;
  }
}

void nb_logprob(const nb_logits *logits, const int32_t *targets, double *logprob, int32_t *argmax) {
  logprob_job job = {.logits = logits, .targets = targets, .logprob = logprob, .argmax = argmax};
  nb_parallel(logits->rows, LOGIT_ROW_BAND, logprob_band, &job);
}
