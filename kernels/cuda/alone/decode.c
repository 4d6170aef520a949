/* Decoding with a model that has a real one's shape and random weights: what a token costs, from the embedding to the
 * logits, beside what reading its bytes once would cost. */
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "kernels/cuda/alone/bench.h"
#include "kernels/cuda/alone/random.h"

enum {
  HIDDEN = 4096,
  INTERMEDIATE = 11008,
  LAYERS = 32,
  HEADS = 32,
  HEAD_DIM = 128,
  VOCAB = 32000,
  CAPACITY = 512,
  WARM_STEPS = 8,
  STEPS = 64
};

typedef enum slot { Q, K, V, O, GATE, UP, DOWN, SLOTS } slot;

static const int64_t slot_rows[SLOTS] = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, INTERMEDIATE, INTERMEDIATE, HIDDEN};
static const int64_t slot_cols[SLOTS] = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, INTERMEDIATE};

enum { X, NORMED, QUERY, KEY, VALUE, ATTENDED, GATED, UPPED, COS, SIN, WEIGHT, LOGITS, BUFFERS };

static const int64_t buffer_floats[BUFFERS] = {HIDDEN,
                                               HIDDEN,
                                               HIDDEN,
                                               HIDDEN,
                                               HIDDEN,
                                               HIDDEN,
                                               INTERMEDIATE,
                                               INTERMEDIATE,
                                               CAPACITY *HEAD_DIM / 2,
                                               CAPACITY *HEAD_DIM / 2,
                                               HIDDEN,
                                               VOCAB};

typedef struct made_up {
  nb_backend *b;
  nb_matrix *linear[LAYERS][SLOTS], *embedding;
  nb_kv_cache *cache[LAYERS];
  nb_buffer *buffer[BUFFERS];
  nb_recording *recording;
  double bytes;        /* of the weights that a token reads */
  double buffer_bytes; /* of caches and activations */
} made_up;

static nibble_status make_matrix(made_up *m, const nb_random_options *o, int copies, nb_matrix **const *out,
                                 nibble_error *err) {
  nb_random_matrix source;
  if (!nb_random_create(o, 1, &source)) return nb_fail_memory(err, (size_t)(o->rows * o->cols));
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < copies; i++) {
    status = m->b->matrix_create(m->b, &source.m, &(nb_matrix_options){0}, out[i], err);
    m->bytes += (double)nb_packed_bytes(&source.m);
  }
  nb_random_free(&source);
  return status;
}

static nibble_status make_buffer(made_up *m, int64_t n, nb_buffer **out, nibble_error *err) {
  float *values = nb_alloc((uint64_t)n, sizeof *values);
  if (!values) return nb_fail_memory(err, (size_t)n * sizeof *values);
  nb_random_floats((uint64_t)n, 0.5f, n, values);
  m->buffer_bytes += (double)n * sizeof *values;
  nibble_status status = m->b->buffer_create(m->b, (uint64_t)n * sizeof *values, out, err);
  if (status == NIBBLE_OK) status = m->b->upload(m->b, *out, 0, values, (uint64_t)n * sizeof *values, err);
  free(values);
  return status;
}

static nibble_status make(made_up *m, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int s = 0; status == NIBBLE_OK && s < SLOTS; s++) {
    nb_matrix **places[LAYERS];
    for (int l = 0; l < LAYERS; l++) places[l] = &m->linear[l][s];
    nb_random_options o = {.format = NB_FORMAT_NF4, .rows = slot_rows[s], .cols = slot_cols[s]};
    status = make_matrix(m, &o, LAYERS, places, err);
  }
  nb_random_options head = {.format = NB_FORMAT_BF16, .rows = VOCAB, .cols = HIDDEN};
  nb_matrix **place = &m->embedding;
  if (status == NIBBLE_OK) status = make_matrix(m, &head, 1, &place, err);
  nb_attention_shape shape = {.sequences = 1, .kv_heads = HEADS, .head_dim = HEAD_DIM, .capacity = CAPACITY};
  for (int l = 0; status == NIBBLE_OK && l < LAYERS; l++) {
    status = m->b->kv_create(m->b, &shape, &m->cache[l], err);
    if (status == NIBBLE_OK) status = m->b->kv_reserve(m->b, m->cache[l], 1, CAPACITY, err);
    m->buffer_bytes += 2.0 * HEADS * CAPACITY * HEAD_DIM * sizeof(float);
  }
  for (int i = 0; status == NIBBLE_OK && i < BUFFERS; i++)
    status = make_buffer(m, buffer_floats[i], &m->buffer[i], err);
  return status;
}

static void unmake(made_up *m) {
  nb_backend *b = m->b;
  for (int l = 0; l < LAYERS; l++) {
    for (int s = 0; s < SLOTS; s++) b->matrix_free(b, m->linear[l][s]);
    b->kv_free(b, m->cache[l]);
  }
  b->matrix_free(b, m->embedding);
  for (int i = 0; i < BUFFERS; i++) b->buffer_free(b, m->buffer[i]);
  b->recording_free(b, m->recording);
}

/* Layers on one token's row in a buffer. */
static nibble_status multiply(made_up *m, const nb_layer_product *products, int count, int x, nibble_error *err) {
  nb_layer_input in = {.x = m->buffer[x], .rows = 1, .group = 1};
  return m->b->matmul(m->b, products, count, &in, err);
}

static nibble_status run_layer(made_up *m, int l, int64_t start, nibble_error *err) {
  nb_backend *b = m->b;
  nb_buffer **f = m->buffer;
  nb_matrix **w = m->linear[l];
  nb_attention_shape shape = {.sequences = 1,
                              .tokens = 1,
                              .start = start,
                              .heads = HEADS,
                              .kv_heads = HEADS,
                              .head_dim = HEAD_DIM,
                              .capacity = CAPACITY,
                              .causal = true,
                              .rotary_dim = HEAD_DIM,
                              .scale = 0.08838835f};
  nb_norm norm = {.weight = f[WEIGHT], .eps = 1e-5f};
  nb_rotary_tables tables = {f[COS], f[SIN]};
  b->norm(b, f[X], &norm, 1, HIDDEN, f[NORMED]);
  nb_layer_product qkv[] = {
      {.weight = w[Q], .y = f[QUERY]}, {.weight = w[K], .y = f[KEY]}, {.weight = w[V], .y = f[VALUE]}};
  nb_layer_product mlp[] = {{.weight = w[GATE], .y = f[GATED]}, {.weight = w[UP], .y = f[UPPED]}};
  nb_qkv rows = {.q = f[QUERY], .k = f[KEY], .v = f[VALUE]};
  nibble_status status = multiply(m, qkv, 3, NORMED, err);
  b->store(b, &shape, &tables, &rows, m->cache[l]);
  b->attention(b, &shape, f[QUERY], m->cache[l], NULL, f[ATTENDED]);
  if (status == NIBBLE_OK) status = multiply(m, &(nb_layer_product){.weight = w[O], .y = f[X]}, 1, ATTENDED, err);
  b->norm(b, f[X], &norm, 1, HIDDEN, f[NORMED]);
  if (status == NIBBLE_OK) status = multiply(m, mlp, 2, NORMED, err);
  b->gate(b, NB_ACT_SILU, f[GATED], f[UPPED], INTERMEDIATE);
  if (status == NIBBLE_OK) status = multiply(m, &(nb_layer_product){.weight = w[DOWN], .y = f[X]}, 1, GATED, err);
  return status;
}

static nibble_status run_token(made_up *m, int64_t start, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int l = 0; status == NIBBLE_OK && l < LAYERS; l++) status = run_layer(m, l, start, err);
  nb_norm norm = {.weight = m->buffer[WEIGHT], .eps = 1e-5f};
  m->b->norm(m->b, m->buffer[X], &norm, 1, HIDDEN, m->buffer[NORMED]);
  nb_layer_product head = {.weight = m->embedding, .y = m->buffer[LOGITS]};
  return status == NIBBLE_OK ? multiply(m, &head, 1, NORMED, err) : status;
}

/* Seconds a token, with the next id chosen on the host each time, as generation does. */
static nibble_status time_tokens(made_up *m, bool recorded, double *seconds, nibble_error *err) {
  nb_backend *b = m->b;
  double begin = 0;
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < WARM_STEPS + STEPS; i++) {
    if (i == WARM_STEPS) begin = nb_seconds();
    float first;
    b->embed(b, m->embedding, &(int32_t){i * 37 % VOCAB}, 1, m->buffer[X]);
    if (recorded && !m->recording) {
      status = b->record_begin(b, err);
      if (status == NIBBLE_OK) status = run_token(m, i, err);
      nibble_status ended = b->record_end(b, &m->recording, status == NIBBLE_OK ? err : NULL);
      if (status == NIBBLE_OK) status = ended;
    }
    if (status == NIBBLE_OK) status = recorded ? b->replay(b, m->recording, i, err) : run_token(m, i, err);
    if (status == NIBBLE_OK) status = b->download(b, m->buffer[LOGITS], 0, &first, sizeof first, err);
  }
  *seconds = (nb_seconds() - begin) / STEPS;
  return status;
}

static void print(const char *how, const made_up *m, double seconds, double rate) {
  printf("%-10s %8.3f ms a token, %7.1f tokens/s, %6.0f GB/s of weights, %3.0f%% of the copy rate\n", how,
         seconds * 1e3, 1 / seconds, m->bytes / seconds / 1e9, rate > 0 ? 100 * m->bytes / seconds / rate : 0);
}

/* What the model takes of the device's memory, beside the bytes of its packed weights, caches and activations, which is
 * what `nibble memory` adds up. The difference is tables, padding, and what CUDA itself rounds up. */
static void print_memory(const made_up *m, uint64_t before, uint64_t after) {
  double taken = (double)before - (double)after, predicted = m->bytes + m->buffer_bytes;
  printf("memory: %.3f GB taken of the device, %.3f GB of weights, caches and activations: %+.1f%%\n", taken / 1e9,
         predicted / 1e9, 100 * (taken / predicted - 1));
}

nibble_status nb_bench_decode(nb_backend *cuda, nibble_error *err) {
  made_up m = {.b = cuda};
  double rate = nb_gpu_copy_rate(), launches = 0, graph = 0;
  uint64_t before = nb_backend_cuda_free_bytes();
  nibble_status status = make(&m, err);
  uint64_t after = nb_backend_cuda_free_bytes();
  if (status == NIBBLE_OK) status = time_tokens(&m, false, &launches, err);
  if (status == NIBBLE_OK) status = time_tokens(&m, true, &graph, err);
  if (status == NIBBLE_OK) {
    printf("decode, 32 layers of 4096 x 11008, nf4, bf16 head, %.2f GB of weights\n", m.bytes / 1e9);
    print_memory(&m, before, after);
    print("launches", &m, launches, rate);
    print("one graph", &m, graph, rate);
  }
  unmake(&m);
  return status;
}
