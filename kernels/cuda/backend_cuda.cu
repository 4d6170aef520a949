/* The CUDA backend: the table of kernels/backend.h over the kernels of this folder. Buffers are plain device memory,
 * everything runs on one stream, and nothing waits for the device but a download. What a launch did wrong is asked for
 * after the operations that return a status. */
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/checked.h"
#include "kernels/backend.h"
}
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/ops.h"

struct nb_buffer {
  float *data;
};

struct nb_kv_cache {
  nb_kv_pages pages; /* its table is on the device */
  float **table;     /* on the host, the same; NULL where a page is not there yet */
  bool has_grown;    /* since the device's was written */
  int64_t sequences;
  uint64_t page_bytes;
};

struct nb_recording {
  cudaGraphExec_t graph;
};

/* Memory that grows. What it grew out of is kept while there are recordings, which may still name it; each is twice the
 * one before, but no more than `most` unless it must. */
typedef struct scratch {
  void *data;
  uint64_t bytes, most; /* most: 0: any */
  void *outgrown[48];
  int outgrown_count;
} scratch;

typedef struct cuda_backend {
  nb_backend table; /* first: the table's `self` is this struct */
  nb_workspace ws;
  nb_gemm *gemm;
  bool gemm_tried, recording;
  int recordings;  /* that there are, or that are being made */
  int64_t *start;  /* on the device, for recordings */
  int64_t freed;   /* matrices so far */
  nb_matrix *last; /* first of the layers that were multiplied last, or NULL */
  scratch ids, weights, targets, log_probs, argmax, narrow, panel, attention;
} cuda_backend;

enum {
  PARTIAL_FLOATS = 3 << 20, /* of products: two sets a multiprocessor, of 256 rows by 32 at most */
  ARRIVED = 16384,          /* sets of a product */
  PANEL_BYTES = 256 << 20,  /* of a widened weight, or part of one: in parts so large, cutting costs a percent */
};

static cuda_backend *self_of(nb_backend *self) { return (cuda_backend *)self; }

static nibble_status fail(nibble_error *err, cudaError_t code, const char *what) {
  return nb_fail(err, NIBBLE_SYSTEM, "CUDA: %s: %s", what, cudaGetErrorString(code));
}

static nibble_status check(nibble_error *err, const char *what) {
  cudaError_t code = cudaGetLastError();
  return code == cudaSuccess ? NIBBLE_OK : fail(err, code, what);
}

/* NULL if there is no memory. Zeroed where `zeroed`. */
static void *device_memory(cuda_backend *b, uint64_t bytes, bool zeroed) {
  void *data = NULL;
  if (cudaMalloc(&data, bytes > 0 ? (size_t)bytes : 1) != cudaSuccess) {
    cudaGetLastError();
    return NULL;
  }
  if (zeroed) cudaMemsetAsync(data, 0, (size_t)bytes, b->ws.stream);
  return data;
}

static void *room(cuda_backend *b, scratch *s, uint64_t bytes) {
  if (s->bytes >= bytes) return s->data;
  uint64_t wanted = bytes > 2 * s->bytes ? bytes : 2 * s->bytes;
  if (s->most && wanted > s->most) wanted = bytes > s->most ? bytes : s->most;
  if (s->data && b->recordings == 0) {
    cudaFree(s->data); /* waits for what uses it */
    s->data = NULL, s->bytes = 0;
  }
  void *data = device_memory(b, wanted, false);
  if (!data) return NULL;
  if (s->data) s->outgrown[s->outgrown_count++] = s->data;
  s->data = data;
  s->bytes = wanted;
  return data;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static nibble_status buffer_create(nb_backend *self, uint64_t bytes, nb_buffer **out, nibble_error *err) {
  nb_buffer *buffer = (nb_buffer *)malloc(sizeof *buffer);
  if (!buffer) return nb_fail_memory(err, sizeof *buffer);
  buffer->data = (float *)nb_device_alloc(bytes);
  if (buffer->data) cudaMemsetAsync(buffer->data, 0, (size_t)bytes, self_of(self)->ws.stream);
  if (!buffer->data) {
    free(buffer);
    return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for %llu bytes", (unsigned long long)bytes);
  }
  *out = buffer;
  return NIBBLE_OK;
}

static void buffer_free(nb_backend *self, nb_buffer *buffer) {
  (void)self;
  if (buffer) nb_device_free(buffer->data);
  free(buffer);
}

/* The source may go as soon as this returns. */
static nibble_status copy_in(cuda_backend *b, void *to, const void *from, uint64_t bytes, nibble_error *err) {
  cudaError_t code = cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyHostToDevice, b->ws.stream);
  if (code == cudaSuccess) code = cudaStreamSynchronize(b->ws.stream);
  return code == cudaSuccess ? NIBBLE_OK : fail(err, code, "copying to the device");
}

static nibble_status copy_out(cuda_backend *b, void *to, const void *from, uint64_t bytes, nibble_error *err) {
  cudaError_t code = cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToHost, b->ws.stream);
  if (code == cudaSuccess) code = cudaStreamSynchronize(b->ws.stream);
  if (code == cudaSuccess) code = cudaGetLastError();
  return code == cudaSuccess ? NIBBLE_OK : fail(err, code, "copying from the device");
}

static nibble_status upload(nb_backend *self, nb_buffer *buffer, uint64_t offset, const void *src, uint64_t bytes,
                            nibble_error *err) {
  return copy_in(self_of(self), (char *)buffer->data + offset, src, bytes, err);
}

static nibble_status download(nb_backend *self, const nb_buffer *buffer, uint64_t offset, void *dst, uint64_t bytes,
                              nibble_error *err) {
  return copy_out(self_of(self), dst, (const char *)buffer->data + offset, bytes, err);
}

static nibble_status matrix_create(nb_backend *self, const nb_packed *packed, const nb_matrix_options *options,
                                   nb_matrix **out, nibble_error *err) {
  if (options->llm_int8 && nb_format_info(packed->format)->llm_int8)
    return nb_fail(err, NIBBLE_USAGE, "LLM.int8's products run on the cpu only (--device cpu)");
  if (options->activations == NIBBLE_ACTIVATIONS_INT8)
    return nb_fail(err, NIBBLE_USAGE, "products with activations of eight bits run on the cpu only (--device cpu)");
  return nb_matrix_upload(packed, self_of(self)->ws.stream, out, err);
}

static void matrix_free(nb_backend *self, nb_matrix *matrix) {
  cuda_backend *b = self_of(self);
  b->freed++; /* it may be among those that another names */
  b->last = NULL;
  nb_matrix_free(matrix);
}

/* ---- keys and values -------------------------------------------------------------------------------------------- */

static void kv_free(nb_backend *self, nb_kv_cache *cache) {
  (void)self;
  if (!cache) return;
  for (int64_t i = 0; cache->table && i < cache->sequences * cache->pages.per_sequence; i++)
    nb_device_free(cache->table[i]);
  nb_device_free((void *)cache->pages.table);
  free(cache->table);
  free(cache);
}

static nibble_status kv_create(nb_backend *self, const nb_attention_shape *s, nb_kv_cache **out, nibble_error *err) {
  uint64_t floats, bytes, most = INT64_MAX / sizeof(float) / 2;
  int64_t per_sequence = nb_ceil_div(s->capacity, NB_KV_PAGE);
  if (!nb_mul_u64((uint64_t)s->kv_heads * NB_KV_PAGE, (uint64_t)s->head_dim, &floats) || floats > most ||
      !nb_mul_u64((uint64_t)per_sequence * sizeof(float *), (uint64_t)s->sequences, &bytes))
    return nb_fail_memory(err, SIZE_MAX);
  nb_kv_cache *cache = (nb_kv_cache *)calloc(1, sizeof *cache);
  if (!cache) return nb_fail_memory(err, sizeof *cache);
  cache->sequences = s->sequences;
  cache->page_bytes = 2 * floats * sizeof(float);
  cache->pages.per_sequence = per_sequence, cache->pages.values = (int64_t)floats;
  cache->pages.table = (float *const *)nb_device_alloc(bytes);
  cache->table = (float **)calloc((size_t)bytes, 1);
  if (!cache->table || !cache->pages.table) {
    kv_free(self, cache);
    return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no memory for %llu pages of keys and values",
                   (unsigned long long)(bytes / sizeof(float *)));
  }
  *out = cache;
  return NIBBLE_OK;
}

/* Where memory ends, the pages that could be had stay for the next call. */
static nibble_status kv_reserve(nb_backend *self, nb_kv_cache *cache, int64_t sequences, int64_t tokens,
                                nibble_error *err) {
  int64_t per_sequence = cache->pages.per_sequence, pages = nb_ceil_div(tokens, NB_KV_PAGE);
  for (int64_t i = 0; i < sequences * pages; i++) {
    float **page = &cache->table[i / pages * per_sequence + i % pages];
    if (*page) continue;
    *page = (float *)nb_device_alloc(cache->page_bytes);
    if (!*page)
      return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for the keys and values of %lld tokens",
                     (long long)tokens);
    cache->has_grown = true;
  }
  if (!cache->has_grown) return NIBBLE_OK;
  uint64_t bytes = (uint64_t)(cache->sequences * per_sequence) * sizeof(float *);
  nibble_status status = copy_in(self_of(self), (void *)cache->pages.table, cache->table, bytes, err);
  cache->has_grown = status != NIBBLE_OK;
  return status;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

static nb_device_layer layer_of(const nb_layer_product *p) {
  nb_device_layer layer = {};
  layer.w = p->weight->w;
  layer.bias = p->bias ? p->bias->data : NULL;
  layer.y = p->y->data;
  layer.accumulate = p->accumulate;
  return layer;
}

/* A launch has one order of columns and one set of tables, its first layer's. */
static bool can_share(const nb_matrix *a, const nb_matrix *b) {
  return a->w.tiles.kind == b->w.tiles.kind && a->w.tiles.col_tiles == b->w.tiles.col_tiles && !a->w.order &&
         !b->w.order && memcmp(a->w.values, b->w.values, sizeof a->w.values) == 0 &&
         memcmp(a->nested_map, b->nested_map, sizeof a->nested_map) == 0;
}

/* Layers are multiplied in the same order for every token: remembers which follow which, and gives those that followed
 * this one the last time, as layers; returns how many. */
static int expect(cuda_backend *b, const nb_layer_product *products, int count, nb_device_layer *next) {
  nb_matrix *first = (nb_matrix *)products[0].weight;
  for (int i = 0; b->last && i < count; i++) b->last->followers[i] = products[i].weight;
  if (b->last) b->last->follower_count = count, b->last->followed_at = b->freed;
  b->last = first;
  int known = first->followed_at == b->freed ? first->follower_count : 0;
  for (int i = 0; i < known; i++) next[i] = {}, next[i].w = first->followers[i]->w;
  return known;
}

/* Up to 64 rows at once. */
static bool multiply_few(cuda_backend *b, const nb_device_layer *layers, int count, const float *x, int64_t n) {
  int64_t elements = nb_product_narrow_elements(n, layers[0].w.tiles.col_tiles);
  b->ws.narrow = (uint16_t *)room(b, &b->narrow, (uint64_t)elements * sizeof *b->ws.narrow);
  b->ws.narrow_elements = b->ws.narrow ? elements : 0;
  return nb_product_small(&b->ws, layers, count, {x, NB_X_F32, layers[0].w.packed.cols, n});
}

/* With more rows than the tensor-core kernel takes. */
static bool multiply_many(cuda_backend *b, const nb_device_layer *layer, const float *x, int64_t rows) {
  int64_t cols = layer->w.packed.cols, width = layer->w.tiles.col_tiles * NB_TILE_COLS;
  if (!b->gemm_tried) b->gemm = nb_gemm_create(b->ws.stream);
  b->gemm_tried = true;
  if (b->gemm) {
    nb_gemm_room r = {};
    r.panel_elements = nb_gemm_panel_elements(&layer->w, PANEL_BYTES / 2);
    r.narrow = (uint16_t *)room(b, &b->narrow, (uint64_t)(rows * width) * 2);
    r.panel = (uint16_t *)room(b, &b->panel, (uint64_t)r.panel_elements * 2 + 1);
    return r.narrow && r.panel && nb_product_gemm(b->gemm, &b->ws, layer, {x, NB_X_F32, cols, rows}, &r);
  }
  for (int64_t at = 0; at < rows; at += NB_PRODUCT_MAX_ROWS) {
    nb_device_layer part = *layer;
    part.y += at * layer->w.packed.rows;
    int n = (int)nb_min_i64(NB_PRODUCT_MAX_ROWS, rows - at);
    if (!multiply_few(b, &part, 1, x + at * cols, n)) return false;
  }
  return true;
}

static nibble_status matmul(nb_backend *self, const nb_layer_product *products, int count, const nb_layer_input *in,
                            nibble_error *err) {
  int64_t rows = in->rows;
  const float *x = in->x->data;
  cuda_backend *b = self_of(self);
  nb_device_layer layers[NB_PRODUCT_FUSED];
  for (int i = 0; i < count;) {
    layers[0] = layer_of(&products[i++]);
    int64_t cols = layers[0].w.packed.cols;
    bool ok = true, is_tiled = layers[0].w.tiles.kind != NB_TILED_NONE;
    if (!is_tiled && (rows <= NB_PRODUCT_MAX_ROWS || nb_format_info(layers[0].w.packed.format)->plain != NB_F32)) {
      nb_product_plain(&b->ws, &layers[0], x, cols, rows);
    } else if (rows > NB_PRODUCT_MAX_ROWS) {
      ok = multiply_many(b, &layers[0], x, rows);
    } else {
      int n = 1;
      for (; i < count && n < NB_PRODUCT_FUSED; i++, n++) {
        if (!can_share(products[i - n].weight, products[i].weight)) break;
        layers[n] = layer_of(&products[i]);
      }
      nb_device_layer next[NB_PRODUCT_FUSED];
      b->ws.ahead_count = expect(b, &products[i - n], n, next);
      b->ws.ahead = b->ws.ahead_count > 0 ? next : NULL;
      ok = multiply_few(b, layers, n, x, rows);
      b->ws.ahead = NULL;
    }
    if (!ok) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for a product of %lld rows", (long long)rows);
  }
  return check(err, "a matrix product");
}

/* ---- the rest --------------------------------------------------------------------------------------------------- */

/* Numbers from the host that a kernel needs, of four bytes each; NULL if there is no memory, which the next status
 * tells. */
static const void *bring(cuda_backend *b, scratch *s, const void *values, int64_t n) {
  void *to = room(b, s, (uint64_t)n * 4);
  if (!to || copy_in(b, to, values, (uint64_t)n * 4, NULL) != NIBBLE_OK) return NULL;
  return to;
}

static void embed(nb_backend *self, const nb_matrix *table, const int32_t *ids, int64_t n, nb_buffer *out) {
  cuda_backend *b = self_of(self);
  const int32_t *there = (const int32_t *)bring(b, &b->ids, ids, n);
  if (there) nb_rows_of(&b->ws, &table->w, there, n, out->data);
}

static void norm(nb_backend *self, const nb_buffer *x, const nb_norm *n, int64_t rows, int64_t width, nb_buffer *out) {
  cudaStream_t stream = self_of(self)->ws.stream;
  nb_norm_args a = {x->data, n->weight->data, n->bias ? n->bias->data : NULL, out->data, width, n->eps};
  if (n->centered) {
    nb_cuda_layernorm(stream, &a, rows);
  } else {
    nb_cuda_rmsnorm(stream, &a, rows);
  }
}

static nb_attention_args attention_args(const cuda_backend *b, const nb_attention_shape *shape,
                                        const nb_kv_cache *cache) {
  nb_attention_args a = {};
  a.shape = *shape;
  if (!shape->causal) a.shape.window = 0;
  a.start_at = b->recording ? b->start : NULL;
  a.pages = cache->pages;
  return a;
}

static void store(nb_backend *self, const nb_attention_shape *shape, const nb_rotary_tables *tables, const nb_qkv *rows,
                  nb_kv_cache *cache) {
  cuda_backend *b = self_of(self);
  nb_attention_args a = attention_args(b, shape, cache);
  if (!tables) a.shape.rotary_dim = 0;
  if (a.shape.rotary_dim > 0) a.cos = tables->cos->data, a.sin = tables->sin->data, a.q = rows->q->data;
  a.k = rows->k->data, a.v = rows->v->data;
  nb_cuda_store(b->ws.stream, &a);
}

static void attention(nb_backend *self, const nb_attention_shape *shape, const nb_buffer *q, const nb_kv_cache *cache,
                      const nb_buffer *bias, nb_buffer *out) {
  cuda_backend *b = self_of(self);
  nb_attention_args a = attention_args(b, shape, cache);
  a.q = q->data, a.out = out->data;
  a.bias = bias ? bias->data : NULL;
  /* By the capacity, not by the length: the cut of the keys, and with it the sum's order, is the same in every step. */
  int64_t floats = nb_cuda_attention_plan(&a, shape->capacity, b->ws.processors);
  a.partial = (float *)room(b, &b->attention, (uint64_t)floats * sizeof(float) + 1);
  a.arrived = b->ws.arrived;
  if (a.partial) nb_cuda_attention(b->ws.stream, &a);
}

static void gate(nb_backend *self, nb_activation act, nb_buffer *g, const nb_buffer *up, int64_t count) {
  nb_cuda_gate(self_of(self)->ws.stream, act, g->data, up ? up->data : NULL, count);
}

static void add(nb_backend *self, nb_buffer *y, const nb_buffer *x, int64_t count) {
  nb_cuda_add(self_of(self)->ws.stream, y->data, x->data, count);
}

static void scale(nb_backend *self, nb_buffer *x, float factor, int64_t count) {
  nb_cuda_scale(self_of(self)->ws.stream, x->data, factor, count);
}

static void split(nb_backend *self, const nb_buffer *x, const nb_columns *columns, nb_buffer *out) {
  nb_cuda_gather(self_of(self)->ws.stream, x->data, NULL, columns, out->data);
}

static void gather(nb_backend *self, const nb_buffer *x, const int32_t *rows, int64_t n, int64_t width,
                   nb_buffer *out) {
  cuda_backend *b = self_of(self);
  const int32_t *there = (const int32_t *)bring(b, &b->ids, rows, n);
  nb_columns all = {n, width, 0, width};
  if (there) nb_cuda_gather(b->ws.stream, x->data, there, &all, out->data);
}

/* Rows that ascend are different ones, which can be added to at the same time. */
static void scatter_add(nb_backend *self, const nb_buffer *x, const nb_scatter *to, nb_buffer *y) {
  cuda_backend *b = self_of(self);
  bool ascend = true;
  if (to->n == 0) return;
  for (int64_t i = 1; i < to->n; i++) ascend = ascend && to->rows[i - 1] < to->rows[i];
  nb_scatter there = *to;
  there.rows = (const int32_t *)bring(b, &b->ids, to->rows, to->n);
  there.weights = (const float *)bring(b, &b->weights, to->weights, to->n);
  if (there.rows && there.weights) nb_cuda_scatter_add(b->ws.stream, x->data, &there, ascend, y->data);
}

static nibble_status log_probs(nb_backend *self, const nb_scored *scored, double *log_prob, int32_t *argmax,
                               nibble_error *err) {
  cuda_backend *b = self_of(self);
  int64_t n = scored->n;
  const int32_t *there = (const int32_t *)bring(b, &b->targets, scored->targets, n);
  double *out = (double *)room(b, &b->log_probs, (uint64_t)n * sizeof *out);
  int32_t *best = (int32_t *)room(b, &b->argmax, (uint64_t)n * sizeof *best);
  if (!there || !out || !best) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for log-probabilities");
  nb_log_prob_args a = {scored->logits->data, there, scored->vocab, out, best};
  nb_cuda_log_probs(b->ws.stream, &a, n);
  nibble_status status = copy_out(b, log_prob, out, (uint64_t)n * sizeof *out, err);
  if (status == NIBBLE_OK && argmax) status = copy_out(b, argmax, best, (uint64_t)n * sizeof *best, err);
  return status;
}

/* ---- recordings ------------------------------------------------------------------------------------------------- */

static nibble_status record_begin(nb_backend *self, nibble_error *err) {
  cuda_backend *b = self_of(self);
  cudaError_t code = cudaStreamBeginCapture(b->ws.stream, cudaStreamCaptureModeRelaxed);
  if (code != cudaSuccess) return fail(err, code, "recording");
  b->recording = true;
  b->recordings++;
  return NIBBLE_OK;
}

static nibble_status record_end(nb_backend *self, nb_recording **out, nibble_error *err) {
  cuda_backend *b = self_of(self);
  cudaGraph_t graph = NULL;
  b->recording = false;
  b->recordings--; /* until it is one */
  cudaError_t code = cudaStreamEndCapture(b->ws.stream, &graph);
  if (code != cudaSuccess) return fail(err, code, "recording");
  nb_recording *r = (nb_recording *)calloc(1, sizeof *r);
  if (!r) {
    cudaGraphDestroy(graph);
    return nb_fail_memory(err, sizeof *r);
  }
  code = cudaGraphInstantiate(&r->graph, graph, 0);
  cudaGraphDestroy(graph);
  if (code != cudaSuccess) {
    free(r);
    return fail(err, code, "making a graph");
  }
  b->recordings++;
  *out = r;
  return NIBBLE_OK;
}

static nibble_status replay(nb_backend *self, nb_recording *recording, int64_t start, nibble_error *err) {
  cuda_backend *b = self_of(self);
  nb_cuda_set_value(b->ws.stream, b->start, start);
  cudaError_t code = cudaGraphLaunch(recording->graph, b->ws.stream);
  return code == cudaSuccess ? NIBBLE_OK : fail(err, code, "running a graph");
}

static void recording_free(nb_backend *self, nb_recording *recording) {
  if (!recording) return;
  self_of(self)->recordings--;
  cudaGraphExecDestroy(recording->graph);
  free(recording);
}

/* ---- making one ------------------------------------------------------------------------------------------------- */

static nb_backend make_table(void) {
  nb_backend t = {};
  t.name = "cuda";
  t.buffer_create = buffer_create;
  t.buffer_free = buffer_free;
  t.upload = upload;
  t.download = download;
  t.matrix_create = matrix_create;
  t.matrix_free = matrix_free;
  t.embed = embed;
  t.norm = norm;
  t.matmul = matmul;
  t.kv_create = kv_create;
  t.kv_free = kv_free;
  t.kv_reserve = kv_reserve;
  t.store = store;
  t.attention = attention;
  t.gate = gate;
  t.add = add;
  t.scale = scale;
  t.split = split;
  t.gather = gather;
  t.scatter_add = scatter_add;
  t.log_probs = log_probs;
  t.record_begin = record_begin;
  t.record_end = record_end;
  t.replay = replay;
  t.recording_free = recording_free;
  return t;
}

/* The first device, its stream and the memory that products need; the reason in *err if there is none. */
static bool start(cuda_backend *b, nibble_error *err) {
  int count = 0, major = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) {
    nb_fail(err, NIBBLE_SYSTEM, "no CUDA device (%s)",
            code == cudaSuccess ? "none is there" : cudaGetErrorString(code));
    return false;
  }
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major < 8) {
    nb_fail(err, NIBBLE_SYSTEM, "no CUDA device: the first has compute capability %d, 8.0 is wanted", major);
    return false;
  }
  int shared = 0;
  cudaDeviceGetAttribute(&b->ws.processors, cudaDevAttrMultiProcessorCount, 0);
  cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  b->ws.shared_limit = shared;
  code = cudaStreamCreateWithFlags(&b->ws.stream, cudaStreamNonBlocking);
  if (code != cudaSuccess) {
    fail(err, code, "making a stream");
    return false;
  }
  b->ws.partial = (float *)device_memory(b, PARTIAL_FLOATS * sizeof(float), false);
  b->ws.partial_floats = PARTIAL_FLOATS;
  b->ws.arrived = (unsigned *)device_memory(b, ARRIVED * sizeof(unsigned), true);
  b->ws.arrived_count = ARRIVED;
  b->panel.most = PANEL_BYTES;
  b->start = (int64_t *)device_memory(b, sizeof *b->start, true);
  if (b->ws.partial && b->ws.arrived && b->start) return true;
  nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory");
  return false;
}

nb_backend *nb_backend_cuda(nibble_error *err) {
  static cuda_backend backend;
  if (backend.table.name) return &backend.table;
  if (!start(&backend, err)) return NULL;
  backend.table = make_table();
  return &backend.table;
}

uint64_t nb_backend_cuda_free_bytes(void) {
  size_t available = 0, total = 0;
  if (cudaMemGetInfo(&available, &total) != cudaSuccess) return 0;
  return available;
}
