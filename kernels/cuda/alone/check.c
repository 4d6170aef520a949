#include "kernels/cuda/alone/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cuda/alone/random.h"

/* Sums of products differ by the rounding of what enters them: nf4's values and, beyond four rows, the activations are
 * rounded to float16, half a unit of 2^-10 each. Compared by the length of the difference. */
static const double product_tolerance = 6e-4, exact_tolerance = 2e-5;

/* ---- comparing -------------------------------------------------------------------------------------------------- */

static void say(nb_check *c, const char *what, const char *why) {
  char line[2048];
  snprintf(line, sizeof line, "%s: %s", what, why);
  c->failed++;
  if (c->report) c->report(line);
}

/* |got - want| / |want| at most `tolerance`; a NaN is never near. */
static void compare(nb_check *c, const char *what, const float *got, const float *want, int64_t n, double tolerance) {
  double difference = 0, size = 0;
  int64_t worst = 0;
  for (int64_t i = 0; i < n; i++) {
    double d = (double)got[i] - (double)want[i];
    if (!(fabs(d) <= fabs((double)got[worst] - (double)want[worst]))) worst = i;
    difference += d * d;
    size += (double)want[i] * (double)want[i];
  }
  if (sqrt(difference) <= tolerance * sqrt(size) + 1e-30) {
    c->passed++;
    return;
  }
  char why[256];
  snprintf(why, sizeof why, "differs by %.2e of its length; element %lld is %g, should be %g", sqrt(difference / size),
           (long long)worst, (double)got[worst], (double)want[worst]);
  say(c, what, why);
}

/* ---- the same on two backends ----------------------------------------------------------------------------------- */

enum { SIDES = 2, MAX_BUFFERS = 12 };

/* Buffers that exist on the CPU and on the tested backend, with the same contents. */
typedef struct twins {
  nb_check *check;
  nb_backend *backend[SIDES]; /* the CPU's first */
  nb_buffer *buffer[MAX_BUFFERS][SIDES];
  int64_t size[MAX_BUFFERS]; /* floats */
  int count;
  nb_kv_cache *cache[SIDES];
  bool failed;
} twins;

static twins begin(nb_check *c) { return (twins){.check = c, .backend = {nb_backend_cpu(), c->tested}}; }

static void end(twins *t) {
  for (int i = 0; i < t->count; i++) {
    for (int s = 0; s < SIDES; s++) t->backend[s]->buffer_free(t->backend[s], t->buffer[i][s]);
  }
  for (int s = 0; s < SIDES; s++) t->backend[s]->kv_free(t->backend[s], t->cache[s]);
}

/* A new buffer of n floats: random, or NaN where `spread` is 0. */
static int make(twins *t, int64_t n, float spread) {
  int at = t->count++;
  float *values = nb_alloc((uint64_t)n, sizeof *values);
  nibble_error err;
  t->size[at] = n;
  for (int64_t i = 0; values && i < n; i++) values[i] = NAN;
  if (values && spread > 0) nb_random_floats((uint64_t)(at * 7919 + n), spread, n, values);
  for (int s = 0; s < SIDES; s++) {
    nb_backend *b = t->backend[s];
    uint64_t bytes = (uint64_t)n * sizeof *values;
    if (!values || b->buffer_create(b, bytes, &t->buffer[at][s], &err) != NIBBLE_OK ||
        b->upload(b, t->buffer[at][s], 0, values, bytes, &err) != NIBBLE_OK)
      t->failed = true;
  }
  free(values);
  return at;
}

static void make_caches(twins *t, const nb_attention_shape *shape) {
  nibble_error err;
  for (int s = 0; s < SIDES && !t->failed; s++)
    t->failed = t->backend[s]->kv_create(t->backend[s], shape, &t->cache[s], &err) != NIBBLE_OK;
}

typedef struct attention_buffers {
  int q, k, v, cos, sin, out;
  int bias; /* -1: none */
} attention_buffers;

/* What attention on such a shape needs for `rows` tokens. */
static attention_buffers make_attention(twins *t, const nb_attention_shape *s, int64_t rows, bool has_bias) {
  int64_t turned = nb_max_i64(1, s->capacity * s->rotary_dim / 2);
  attention_buffers at = {.q = make(t, rows * s->heads * s->head_dim, 1),
                          .k = make(t, rows * s->kv_heads * s->head_dim, 1),
                          .v = make(t, rows * s->kv_heads * s->head_dim, 1),
                          .cos = make(t, turned, 1),
                          .sin = make(t, turned, 1),
                          .out = make(t, rows * s->heads * s->head_dim, 1)};
  at.bias = has_bias ? make(t, s->heads * (2 * s->capacity - 1), 2) : -1;
  return at;
}

/* Rotation, caching and attention on one side, for the tokens from shape->start on. */
static void attend(twins *t, int side, const nb_attention_shape *shape, const attention_buffers *at) {
  nb_backend *b = t->backend[side];
  nb_buffer *(*f)[SIDES] = t->buffer;
  nb_rotary_tables tables = {f[at->cos][side], f[at->sin][side]};
  bool turns = shape->rotary_dim > 0;
  nb_qkv rows = {.q = turns ? f[at->q][side] : NULL, .k = f[at->k][side], .v = f[at->v][side]};
  b->store(b, shape, turns ? &tables : NULL, &rows, t->cache[side]);
  b->attention(b, shape, f[at->q][side], t->cache[side], at->bias < 0 ? NULL : f[at->bias][side], f[at->out][side]);
}

static void expect_equal(twins *t, const char *what, int buffer, double tolerance) {
  int64_t n = t->size[buffer];
  float *values[SIDES];
  nibble_error err = {0};
  for (int s = 0; s < SIDES; s++) {
    values[s] = nb_alloc((uint64_t)n, sizeof(float));
    nb_backend *b = t->backend[s];
    if (t->failed || !values[s] ||
        b->download(b, t->buffer[buffer][s], 0, values[s], (uint64_t)n * sizeof(float), &err) != NIBBLE_OK)
      t->failed = true;
  }
  if (t->failed) {
    say(t->check, what, err.message[0] ? err.message : "no memory");
  } else {
    compare(t->check, what, values[1], values[0], n, tolerance);
  }
  for (int s = 0; s < SIDES; s++) free(values[s]);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

static void describe(const nb_random_options *o, int64_t n, char out[160]) {
  snprintf(out, 160, "%s%s%s [%lld, %lld] by %lld rows", nb_format_info(o->format)->name,
           o->double_quant ? "+double" : "", o->act_order ? "+order" : "", (long long)o->rows, (long long)o->cols,
           (long long)n);
}

/* Three layers of one input, as q, k and v are: with a bias, plain, and added to what is there. */
static void check_product(nb_check *c, const nb_random_options *o, int64_t n) {
  nb_random_matrix w;
  char what[160];
  describe(o, n, what);
  if (!nb_random_create(o, 1, &w)) {
    say(c, what, "no memory");
    return;
  }
  twins t = begin(c);
  int x = make(&t, n * o->cols, 1), bias = make(&t, o->rows, 3);
  int y[3] = {make(&t, n * o->rows, 0), make(&t, n * o->rows, 0), make(&t, n * o->rows, 10)};
  nb_matrix *matrix[SIDES] = {NULL, NULL};
  nibble_error err = {0};
  for (int s = 0; s < SIDES && !t.failed; s++) {
    nb_backend *b = t.backend[s];
    if (b->matrix_create(b, &w.m, &(nb_matrix_options){0}, &matrix[s], &err) != NIBBLE_OK) {
      t.failed = true;
      break;
    }
    nb_layer_product products[3] = {
        {.weight = matrix[s], .bias = t.buffer[bias][s], .y = t.buffer[y[0]][s]},
        {.weight = matrix[s], .y = t.buffer[y[1]][s]},
        {.weight = matrix[s], .y = t.buffer[y[2]][s], .accumulate = true},
    };
    nb_layer_input in = {.x = t.buffer[x][s], .rows = n, .group = n};
    if (b->matmul(b, products, 3, &in, &err) != NIBBLE_OK) t.failed = true;
  }
  if (t.failed) {
    say(c, what, err.message);
  } else {
    for (int i = 0; i < 3; i++) expect_equal(&t, what, y[i], product_tolerance);
  }
  for (int s = 0; s < SIDES; s++) t.backend[s]->matrix_free(t.backend[s], matrix[s]);
  end(&t);
  nb_random_free(&w);
}

/* Rows of the weight as the embedding hands them out: every weight by itself. */
static void check_rows(nb_check *c, const nb_random_options *o) {
  nb_random_matrix w;
  char what[160];
  describe(o, 0, what);
  if (!nb_random_create(o, 2, &w)) return;
  twins t = begin(c);
  int32_t ids[5] = {0, (int32_t)(o->rows - 1), (int32_t)(o->rows / 2), 0, (int32_t)(o->rows / 3)};
  int out = make(&t, 5 * o->cols, 0);
  nibble_error err = {0};
  for (int s = 0; s < SIDES && !t.failed; s++) {
    nb_matrix *matrix = NULL;
    nb_backend *b = t.backend[s];
    t.failed = b->matrix_create(b, &w.m, &(nb_matrix_options){0}, &matrix, &err) != NIBBLE_OK;
    if (!t.failed) b->embed(b, matrix, ids, 5, t.buffer[out][s]);
    if (!t.failed) b->download(b, t.buffer[out][s], 0, &(float){0}, sizeof(float), &err); /* the matrix goes now */
    b->matrix_free(b, matrix);
  }
  expect_equal(&t, what, out, 1e-6);
  end(&t);
  nb_random_free(&w);
}

static const nb_random_options formats[] = {
    {.format = NB_FORMAT_F32},
    {.format = NB_FORMAT_F16},
    {.format = NB_FORMAT_BF16},
    {.format = NB_FORMAT_NF4},
    {.format = NB_FORMAT_NF4, .double_quant = true},
    {.format = NB_FORMAT_NF4, .block_size = 128, .double_quant = true},
    {.format = NB_FORMAT_FP4},
    {.format = NB_FORMAT_FP4, .double_quant = true},
    {.format = NB_FORMAT_INT8},
    {.format = NB_FORMAT_GPTQ2},
    {.format = NB_FORMAT_GPTQ3, .bf16 = true},
    {.format = NB_FORMAT_GPTQ4},
    {.format = NB_FORMAT_GPTQ4, .act_order = true, .bf16 = true},
    {.format = NB_FORMAT_GPTQ4, .group_size = 32},
    {.format = NB_FORMAT_GPTQ8},
    {.format = NB_FORMAT_GPTQ8, .act_order = true},
    {.format = NB_FORMAT_Q4_0}, /* GGUF's become float16 */
    {.format = NB_FORMAT_Q8_0},
};

void nb_check_products(nb_check *c) {
  static const int64_t small[][2] = {{1, 64}, {33, 256}, {70, 130}},
                       large[][2] = {{1, 1},      {3, 63},     {65, 257},    {127, 1024},
                                     {256, 4096}, {1000, 512}, {4096, 1408}, {640, 11008}};
  static const int64_t few[] = {1, 5, 70}, many[] = {1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 127, 300};
  int shapes = c->tiny ? 2 : c->small ? 3 : 8, counts = c->tiny ? 1 : c->small ? 3 : 17;
  for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
    for (int s = 0; s < shapes; s++) {
      nb_random_options o = formats[f];
      o.rows = c->small ? small[s][0] : large[s][0];
      o.cols = c->small ? small[s][1] : large[s][1];
      int block = nb_format_info(o.format)->block.weights;
      if (block) continue; /* random bits are no GGUF blocks: their scales may be NaN */
      check_rows(c, &o);
      for (int i = 0; i < counts; i++) check_product(c, &o, c->small ? few[i] : many[i]);
    }
  }
}

/* ---- the other operations --------------------------------------------------------------------------------------- */

static void check_norms(nb_check *c) {
  static const int64_t widths[] = {1, 31, 64, 577, 4096, 5004, 8200, 16384, 16388};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    twins t = begin(c);
    int64_t rows = 5, width = widths[i];
    int x = make(&t, rows * width, 1), weight = make(&t, width, 1), bias = make(&t, width, 1);
    int out = make(&t, rows * width, 0), centered = make(&t, rows * width, 0), biased = make(&t, rows * width, 0);
    for (int s = 0; s < SIDES && !t.failed; s++) {
      nb_backend *b = t.backend[s];
      nb_norm n = {.weight = t.buffer[weight][s], .eps = 1e-5f};
      b->norm(b, t.buffer[x][s], &n, rows, width, t.buffer[out][s]);
      n.centered = true;
      b->norm(b, t.buffer[x][s], &n, rows, width, t.buffer[centered][s]);
      n.bias = t.buffer[bias][s];
      b->norm(b, t.buffer[x][s], &n, rows, width, t.buffer[biased][s]);
      b->norm(b, t.buffer[biased][s], &n, rows, width, t.buffer[biased][s]); /* in place too */
      n = (nb_norm){.weight = t.buffer[weight][s], .eps = 1e-5f};
      b->norm(b, t.buffer[x][s], &n, rows, width, t.buffer[x][s]);
    }
    expect_equal(&t, "norm", out, exact_tolerance);
    expect_equal(&t, "norm in place", x, exact_tolerance);
    expect_equal(&t, "centered norm", centered, exact_tolerance);
    expect_equal(&t, "centered norm with a bias, in place", biased, exact_tolerance);
    end(&t);
  }
}

static void check_gates(nb_check *c) {
  for (int i = 0; i < 2 * NB_ACTIVATIONS; i++) {
    twins t = begin(c);
    nb_activation act = (nb_activation)(i / 2);
    int64_t n = i % 2 ? 12345 : 12348; /* the latter by fours */
    int gate = make(&t, n, 4), up = make(&t, n, 1), alone = make(&t, n, 4);
    for (int s = 0; s < SIDES && !t.failed; s++) {
      t.backend[s]->gate(t.backend[s], act, t.buffer[gate][s], t.buffer[up][s], n);
      t.backend[s]->gate(t.backend[s], act, t.buffer[alone][s], NULL, n);
    }
    char what[32];
    snprintf(what, sizeof what, "gate, activation %d", (int)act);
    expect_equal(&t, what, gate, exact_tolerance);
    expect_equal(&t, "activation without a gate", alone, exact_tolerance);
    end(&t);
  }
}

static void check_sums(nb_check *c) {
  twins t = begin(c);
  int64_t n = 12345;
  int x = make(&t, n, 1), y = make(&t, n, 1);
  for (int s = 0; s < SIDES && !t.failed; s++) {
    nb_backend *b = t.backend[s];
    b->add(b, t.buffer[y][s], t.buffer[x][s], n);
    b->scale(b, t.buffer[x][s], -0.3f, n);
  }
  expect_equal(&t, "add", y, 0);
  expect_equal(&t, "scale", x, 0);
  end(&t);
}

static void check_gather(nb_check *c) {
  twins t = begin(c);
  int32_t rows[] = {6, 0, 6, 3};
  nb_columns columns = {.rows = 7, .width = 131, .first = 5, .count = 77};
  int x = make(&t, 7 * 131, 1), out = make(&t, 4 * 131, 0), part = make(&t, 7 * 77, 0);
  for (int s = 0; s < SIDES && !t.failed; s++) {
    t.backend[s]->gather(t.backend[s], t.buffer[x][s], rows, 4, 131, t.buffer[out][s]);
    t.backend[s]->split(t.backend[s], t.buffer[x][s], &columns, t.buffer[part][s]);
  }
  expect_equal(&t, "gather", out, 0);
  expect_equal(&t, "split", part, 0);
  end(&t);
}

/* In order where a row comes twice, at once where they ascend. */
static void check_scatter(nb_check *c) {
  static const int32_t rows[][4] = {{6, 0, 6, 3}, {0, 3, 4, 6}};
  static const float weights[4] = {0.5f, -2, 3, 0.1f};
  for (int i = 0; i < 2; i++) {
    twins t = begin(c);
    nb_scatter to = {.rows = rows[i], .weights = weights, .n = 4, .width = 531};
    int x = make(&t, 4 * to.width, 1), y = make(&t, 7 * to.width, 1);
    for (int s = 0; s < SIDES && !t.failed; s++)
      t.backend[s]->scatter_add(t.backend[s], t.buffer[x][s], &to, t.buffer[y][s]);
    expect_equal(&t, "scatter_add", y, exact_tolerance);
    end(&t);
  }
}

static void check_log_probs(nb_check *c) {
  enum { ROWS = 3 };
  static const int64_t vocabs[] = {1, 50, 1000, 32001};
  for (int v = 0; v < 4; v++) {
    twins t = begin(c);
    int x = make(&t, ROWS * vocabs[v], 3);
    int32_t targets[ROWS] = {0, (int32_t)(vocabs[v] - 1), (int32_t)(vocabs[v] / 2)}, best[SIDES][ROWS];
    double got[SIDES][ROWS];
    nibble_error err = {0};
    for (int s = 0; s < SIDES && !t.failed; s++) {
      nb_scored scored = {.logits = t.buffer[x][s], .targets = targets, .n = ROWS, .vocab = vocabs[v]};
      t.failed = t.backend[s]->log_probs(t.backend[s], &scored, got[s], best[s], &err) != NIBBLE_OK;
    }
    for (int i = 0; i < ROWS; i++) {
      if (t.failed || !(fabs(got[0][i] - got[1][i]) < 1e-5) || best[0][i] != best[1][i]) {
        say(c, "log_probs", t.failed ? err.message : "another value than the CPU's");
      } else {
        c->passed++;
      }
    }
    end(&t);
  }
}

/* Prefill of `prompt` tokens, then `steps` of `tokens` each: rotation, caches and attention together. */
typedef struct attention_case {
  int64_t sequences, prompt, steps, tokens, heads, kv_heads, head_dim, window;
} attention_case;

/* In what it is other than a decoder's. */
typedef struct attention_kind {
  bool all;             /* not causal: every token sees all keys but the last `unseen` */
  int64_t unseen, flat; /* flat: dimensions of a head that do not turn */
  bool bias;
} attention_kind;

static void attention_step(twins *t, nb_attention_shape shape, int64_t start, int64_t tokens,
                           const attention_buffers *buffers) {
  nibble_error err;
  shape.start = start;
  shape.tokens = tokens;
  for (int s = 0; s < SIDES && !t->failed; s++) {
    nb_backend *b = t->backend[s];
    t->failed = b->kv_reserve(b, t->cache[s], shape.sequences, start + tokens, &err) != NIBBLE_OK;
    if (!t->failed) attend(t, s, &shape, buffers);
  }
}

static void check_attention(nb_check *c, const attention_case *a, const attention_kind *kind) {
  int64_t capacity = a->prompt + a->steps * a->tokens + 3, rows = a->sequences * nb_max_i64(a->prompt, a->tokens);
  nb_attention_shape shape = {.sequences = a->sequences,
                              .heads = a->heads,
                              .kv_heads = a->kv_heads,
                              .head_dim = a->head_dim,
                              .capacity = capacity,
                              .causal = !kind->all,
                              .window = a->window,
                              .rotary_dim = a->head_dim - kind->flat,
                              .scale = (float)(1 / sqrt((double)a->head_dim))};
  twins t = begin(c);
  make_caches(&t, &shape);
  attention_buffers b = make_attention(&t, &shape, rows, kind->bias);
  char what[200];
  snprintf(what, sizeof what, "attention, %lld sequences of %lld tokens, heads %lld/%lld of %lld, window %lld%s%s%s",
           (long long)a->sequences, (long long)a->prompt, (long long)a->heads, (long long)a->kv_heads,
           (long long)a->head_dim, (long long)a->window, kind->all ? ", not causal" : "", kind->bias ? ", a bias" : "",
           kind->flat ? ", partly turned" : "");
  shape.keys = a->prompt - kind->unseen;
  attention_step(&t, shape, 0, a->prompt, &b);
  expect_equal(&t, what, b.out, exact_tolerance);
  expect_equal(&t, "rotated keys", b.k, exact_tolerance);
  for (int64_t i = 0; i < a->steps; i++) {
    shape.keys = a->prompt + (i + 1) * a->tokens - kind->unseen;
    attention_step(&t, shape, a->prompt + i * a->tokens, a->tokens, &b);
    expect_equal(&t, what, b.out, exact_tolerance);
  }
  end(&t);
}

void nb_check_operations(nb_check *c) {
  /* With few heads the keys are shared out, over page ends and with windows that begin in a later page. */
  static const attention_case small[] = {
      {1, 37, 2, 1, 4, 2, 16, 0},   {2, 9, 1, 3, 3, 1, 64, 5},     {1, 70, 1, 2, 2, 2, 20, 33},
      {3, 1, 3, 1, 6, 3, 8, 2},     {1, 126, 4, 1, 2, 1, 128, 0},  {1, 1, 2, 1, 1, 1, 128, 0},
      {1, 190, 4, 2, 1, 1, 64, 70}, {1, 30, 3, 2, 1, 1, 256, 0},   {1, 130, 2, 1, 1, 1, 256, 40},
      {1, 62, 2, 3, 2, 1, 96, 0},   {1, 125, 3, 1, 1, 1, 80, 64},  {1, 94, 3, 1, 2, 1, 22, 0},
      {2, 63, 2, 4, 2, 2, 64, 0},   {1, 200, 2, 4, 2, 1, 128, 99}, {1, 5, 2, 1, 2, 1, 250, 3}};
  static const attention_case large[] = {
      {1, 1000, 3, 1, 32, 8, 128, 0}, {3, 129, 2, 4, 9, 3, 64, 50}, {1, 513, 2, 2, 8, 1, 256, 0},
      {2, 33, 2, 5, 6, 2, 80, 0},     {64, 5, 2, 1, 4, 4, 96, 3},   {1, 5000, 2, 1, 4, 2, 128, 4096},
      {1, 126, 4, 1, 32, 32, 128, 0}, {1, 1, 3, 1, 32, 32, 128, 0}, {1, 255, 2, 4, 40, 8, 128, 0},
      {1, 600, 3, 2, 8, 1, 256, 100}, {1, 300, 3, 1, 14, 2, 64, 0}, {2, 70, 3, 3, 6, 2, 22, 0},
      {1, 1021, 4, 1, 3, 1, 250, 77}, {1, 3000, 3, 1, 1, 1, 64, 0}};
  /* Encoders, partly turned heads, even one of an odd size, and biases: few tokens, many, over page ends. */
  static const struct varied {
    attention_case sizes;
    attention_kind kind;
  } varied[] = {
      {{2, 70, 2, 1, 4, 2, 16, 0}, {true, 0, 0, false}},    {{2, 45, 2, 3, 3, 3, 64, 0}, {true, 6, 64, true}},
      {{1, 130, 3, 1, 2, 1, 128, 0}, {false, 0, 96, true}}, {{1, 67, 2, 2, 4, 2, 23, 20}, {false, 0, 9, true}},
      {{2, 9, 1, 1, 2, 2, 33, 4}, {false, 0, 33, false}},   {{1, 20, 2, 1, 2, 1, 256, 0}, {false, 0, 128, true}},
      {{1, 66, 1, 2, 2, 2, 96, 7}, {true, 1, 40, true}}};
  static const struct varied varied_large[] = {{{8, 511, 1, 1, 12, 12, 64, 0}, {true, 0, 64, false}},
                                               {{3, 300, 3, 1, 8, 8, 64, 0}, {false, 0, 64, true}},
                                               {{1, 700, 3, 2, 32, 8, 128, 0}, {true, 90, 64, true}},
                                               {{1, 150, 2, 4, 4, 2, 81, 60}, {false, 0, 51, true}}};
  static const attention_kind plain = {0};
  check_norms(c);
  check_gates(c);
  check_sums(c);
  check_gather(c);
  check_scatter(c);
  check_log_probs(c);
  int count = c->small ? (int)(sizeof small / sizeof *small) : (int)(sizeof large / sizeof *large);
  for (int i = 0; i < count; i++) check_attention(c, c->small ? &small[i] : &large[i], &plain);
  for (size_t i = 0; i < sizeof varied / sizeof *varied; i++) check_attention(c, &varied[i].sizes, &varied[i].kind);
  for (size_t i = 0; !c->small && i < sizeof varied_large / sizeof *varied_large; i++)
    check_attention(c, &varied_large[i].sizes, &varied_large[i].kind);
}

/* A recorded step at positions on both sides of a page's end, against the same steps one by one on the same backend.
 * The cache grows after the recording. */
static void check_recording(nb_check *c, nb_attention_shape shape, int64_t prompt, int64_t tokens, bool has_bias) {
  enum { STEPS = 4 };
  nb_backend *b = c->tested;
  twins t = begin(c);
  t.backend[0] = b; /* both sides are the tested backend: side 0 step by step, side 1 recorded */
  make_caches(&t, &shape);
  attention_buffers at = make_attention(&t, &shape, shape.sequences * prompt, has_bias);
  nb_recording *recording = NULL;
  nibble_error err = {0};
  attention_step(&t, shape, 0, prompt, &at);
  shape.tokens = tokens;
  for (int64_t start = prompt; start < prompt + STEPS * tokens && !t.failed; start += tokens) {
    for (int s = 0; s < SIDES && !t.failed; s++)
      t.failed = b->kv_reserve(b, t.cache[s], shape.sequences, start + tokens, &err) != NIBBLE_OK;
    if (t.failed) break;
    shape.start = start;
    attend(&t, 0, &shape, &at);
    shape.start = 0; /* what is recorded is not to matter */
    if (!recording) {
      t.failed = b->record_begin(b, &err) != NIBBLE_OK;
      if (t.failed) break;
      attend(&t, 1, &shape, &at);
      t.failed = b->record_end(b, &recording, &err) != NIBBLE_OK;
    }
    if (!t.failed) t.failed = b->replay(b, recording, start, &err) != NIBBLE_OK;
    expect_equal(&t, "a recorded step", at.out, 0);
  }
  if (t.failed) say(c, "recording", err.message);
  b->recording_free(b, recording);
  end(&t);
}

/* The operations around attention, recorded and replayed twice, against the same two rounds as they are. */
static void check_recorded_elements(nb_check *c) {
  enum { ROWS = 3, WIDTH = 40, PART = 16 };
  nb_backend *b = c->tested;
  twins t = begin(c);
  t.backend[0] = b;
  int x = make(&t, ROWS * WIDTH, 1), y = make(&t, ROWS * WIDTH, 1), out = make(&t, ROWS * PART, 0);
  int weight = make(&t, WIDTH, 1), bias = make(&t, WIDTH, 1);
  nb_columns columns = {.rows = ROWS, .width = WIDTH, .first = 11, .count = PART};
  nb_recording *recording = NULL;
  nibble_error err = {0};
  for (int round = 0; round < 3 && !t.failed; round++) { /* the first two as they are, on side 0; then side 1 */
    int s = round == 2;
    nb_norm n = {.weight = t.buffer[weight][s], .bias = t.buffer[bias][s], .eps = 1e-5f, .centered = true};
    if (s == 1) t.failed = b->record_begin(b, &err) != NIBBLE_OK;
    if (t.failed) break;
    b->norm(b, t.buffer[x][s], &n, ROWS, WIDTH, t.buffer[x][s]);
    b->gate(b, NB_ACT_RELU, t.buffer[x][s], NULL, ROWS * WIDTH);
    b->add(b, t.buffer[x][s], t.buffer[y][s], ROWS * WIDTH);
    b->scale(b, t.buffer[x][s], 0.7f, ROWS * WIDTH);
    b->split(b, t.buffer[x][s], &columns, t.buffer[out][s]);
    if (s == 1) t.failed = b->record_end(b, &recording, &err) != NIBBLE_OK;
  }
  for (int i = 0; i < 2 && !t.failed; i++) t.failed = b->replay(b, recording, 0, &err) != NIBBLE_OK;
  expect_equal(&t, "recorded elements", x, 0);
  expect_equal(&t, "recorded columns", out, 0);
  b->recording_free(b, recording);
  end(&t);
}

void nb_check_recording(nb_check *c) {
  static const struct {
    int64_t sequences, heads, kv_heads, head_dim, rotary_dim, capacity, window;
    int64_t prompt, tokens;
    bool alone; /* every step sees the prompt alone, as a decoder sees what its encoder made */
    bool bias;
  } cases[] = {
      {2, 4, 2, 32, 32, 70, 0, 62, 1, false, false},       {1, 2, 1, 128, 128, 200, 0, 126, 1, false, false},
      {1, 1, 1, 64, 64, 300, 90, 155, 2, false, false},    {1, 2, 2, 22, 22, 80, 0, 60, 2, false, false},
      {2, 3, 3, 64, 0, 150, 0, 126, 1, true, false},       {1, 2, 1, 64, 24, 150, 0, 126, 1, false, true},
      {1, 32, 32, 128, 128, 512, 0, 254, 1, false, false}, {2, 8, 2, 256, 256, 512, 0, 508, 1, false, false},
  };
  if (!c->tested->record_begin) return;
  check_recorded_elements(c);
  for (int i = 0; i < (c->small ? 6 : 8); i++) {
    nb_attention_shape shape = {.sequences = cases[i].sequences,
                                .heads = cases[i].heads,
                                .kv_heads = cases[i].kv_heads,
                                .head_dim = cases[i].head_dim,
                                .capacity = cases[i].capacity,
                                .causal = !cases[i].alone,
                                .window = cases[i].window,
                                .keys = cases[i].prompt,
                                .rotary_dim = cases[i].rotary_dim,
                                .scale = 1 / sqrtf((float)cases[i].head_dim)};
    check_recording(c, shape, cases[i].prompt, cases[i].tokens, cases[i].bias);
  }
}
