#include "kernels/cuda/matrix.h"

#include "kernels/cuda/memory.h"

#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/checked.h"
#include "kernels/gptq.h"
}

enum { BAND_BYTES = 64 << 20 };

/* The parts of the allocation, each copied from `source` as it is, or filled by bands where that is NULL. */
typedef struct part {
  const void *source;
  uint64_t bytes;
  const void **address; /* to be set to where the part lies */
} part;

typedef struct upload_job {
  const nb_packed *m;
  nb_matrix *matrix;
  cudaStream_t stream;
  part parts[NB_MATRIX_PARTS];
  int count;
  int32_t *order;
} upload_job;

static void add(upload_job *job, const void *source, int64_t bytes, const void **address) {
  if (bytes <= 0) return;
  part p = {source, (uint64_t)bytes, address};
  job->parts[job->count++] = p;
}

/* What nf4 and fp4 have beside their codes and scales. */
static void add_maps(upload_job *job) {
  const nb_packed *m = job->m;
  nb_device_matrix *w = &job->matrix->w;
  if (!m->codebook) return;
  nb_from_f32(NB_F16, m->codebook, 16, w->values);
  add(job, m->codebook, 16 * sizeof(float), (const void **)&w->quant_map);
  if (!m->second.block_cols) return;
  memcpy(job->matrix->nested_map, m->scale.codebook, sizeof job->matrix->nested_map);
  int64_t blocks = nb_ceil_div(m->rows * m->cols, m->scale.block_cols);
  add(job, m->scale.codebook, 256 * sizeof(float), (const void **)&w->nested_map);
  add(job, m->second.data, nb_ceil_div(blocks, m->second.block_cols) * 4, (const void **)&w->nested_absmax);
  w->nested_offset = m->scale.offset;
}

/* The source's own buffers, for a matrix without tiles. */
static void add_source(upload_job *job) {
  const nb_packed *m = job->m;
  nb_packed *p = &job->matrix->w.packed;
  job->matrix->w.gptq_bits = nb_gptq_bits(m->format);
  add(job, m->codes, nb_packed_code_bytes(m), &p->codes);
  add(job, m->scale.data, nb_scale_count(m) * (int64_t)nb_dtype_size(m->scale.dtype), &p->scale.data);
  if (m->zeros) add(job, m->zeros, nb_scale_count(m), (const void **)&p->zeros);
  if (m->g_idx) add(job, m->g_idx, m->cols * 4, (const void **)&p->g_idx);
}

static nibble_status copy(upload_job *job, const void *to, const void *from, uint64_t bytes, nibble_error *err) {
  cudaError_t code = cudaMemcpyAsync((void *)to, from, (size_t)bytes, cudaMemcpyHostToDevice, job->stream);
  if (code == cudaSuccess) code = cudaStreamSynchronize(job->stream);
  if (code == cudaSuccess) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_SYSTEM, "CUDA: copying a weight: %s", cudaGetErrorString(code));
}

static nibble_status place(upload_job *job, nibble_error *err) {
  for (int i = 0; i < job->count; i++) {
    const part *p = &job->parts[i];
    void *memory = job->matrix->memory[i] = nb_device_alloc(p->bytes);
    if (!memory)
      return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for %llu bytes of a weight",
                     (unsigned long long)p->bytes);
    *p->address = memory;
    if (!p->source) continue;
    nibble_status status = copy(job, memory, p->source, p->bytes, err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

/* Some row tiles of a GGUF matrix as float16, in `out`, described by *band. */
static void widen_band(const nb_packed *m, int64_t first, int64_t count, float *values, uint16_t *out,
                       nb_packed *band) {
  int64_t row = first * NB_TILE_ROWS, rows = nb_min_i64(count * NB_TILE_ROWS, m->rows - row);
  nb_tile tile = {m, row, rows, 0, m->cols};
  nb_format_info(m->format)->dequantize(tile, values, m->cols);
  nb_from_f32(NB_F16, values, (size_t)(rows * m->cols), out);
  nb_packed f16 = {};
  f16.format = NB_FORMAT_F16, f16.rows = rows, f16.cols = m->cols, f16.codes = out;
  *band = f16;
}

/* Packs band after band and copies it to its place. */
static nibble_status send_tiles(upload_job *job, bool widened, nibble_error *err) {
  const nb_tiles *t = &job->matrix->w.tiles;
  int64_t codes = nb_tiles_code_bytes(t), scales = nb_tiles_scale_bytes(t);
  int64_t step = nb_max_i64(1, nb_min_i64(t->row_tiles, BAND_BYTES / (codes + scales)));
  uint32_t *code = (uint32_t *)nb_alloc_aligned((uint64_t)(step * codes), 1);
  char *scale = (char *)nb_alloc_aligned((uint64_t)(step * scales) + 1, 1);
  int64_t elements = widened ? step * NB_TILE_ROWS * t->cols : 0;
  float *values = (float *)nb_alloc_aligned((uint64_t)elements + 1, sizeof(float));
  uint16_t *halves = (uint16_t *)nb_alloc_aligned((uint64_t)elements + 1, sizeof(uint16_t));
  nibble_status status = code && scale && values && halves ? NIBBLE_OK : nb_fail_memory(err, (size_t)(step * codes));
  for (int64_t first = 0; status == NIBBLE_OK && first < t->row_tiles; first += step) {
    int64_t count = nb_min_i64(step, t->row_tiles - first);
    if (widened) {
      nb_packed band;
      nb_tiles band_tiles;
      widen_band(job->m, first, count, values, halves, &band);
      nb_tiles_plan(&band, &band_tiles);
      nb_tiling alone = {&band, &band_tiles, NULL};
      nb_tiles_pack(&alone, 0, count, code, scale);
    } else {
      nb_tiling whole = {job->m, t, job->order};
      nb_tiles_pack(&whole, first, count, code, scale);
    }
    const char *to = (const char *)job->matrix->w.codes + first * codes;
    status = copy(job, to, code, (uint64_t)(count * codes), err);
    if (status == NIBBLE_OK && scales > 0)
      status = copy(job, (const char *)job->matrix->w.scales + first * scales, scale, (uint64_t)(count * scales), err);
  }
  free(code);
  free(scale);
  free(values);
  free(halves);
  return status;
}

static nibble_status upload_tiled(upload_job *job, bool widened, nibble_error *err) {
  nb_device_matrix *w = &job->matrix->w;
  const nb_tiles *t = &w->tiles;
  add(job, NULL, t->row_tiles * nb_tiles_code_bytes(t), (const void **)&w->codes);
  add(job, NULL, t->row_tiles * nb_tiles_scale_bytes(t), &w->scales);
  if (!widened) add_maps(job);
  if (t->reordered) {
    job->order = (int32_t *)nb_alloc((uint64_t)(t->col_tiles * NB_TILE_COLS), sizeof *job->order);
    if (!job->order) return nb_fail_memory(err, (size_t)t->cols * sizeof *job->order);
    nb_tiles_order(job->m, t, job->order);
    add(job, job->order, t->col_tiles * NB_TILE_COLS * 4, (const void **)&w->order);
  }
  nibble_status status = place(job, err);
  return status == NIBBLE_OK ? send_tiles(job, widened, err) : status;
}

/* The pointers of a copy that has no tiles are those of the device. */
static void point_packed(nb_device_matrix *w) {
  w->packed.codebook = w->quant_map;
  w->packed.scale.codebook = w->nested_map;
  w->packed.second.data = w->nested_absmax;
}

nibble_status nb_matrix_upload(const nb_packed *m, cudaStream_t stream, nb_matrix **out, nibble_error *err) {
  nb_matrix *matrix = (nb_matrix *)calloc(1, sizeof *matrix);
  if (!matrix) return nb_fail_memory(err, sizeof *matrix);
  matrix->w.packed = *m;
  bool widened = nb_format_info(m->format)->scheme == NB_SCHEME_BLOCKS;
  nb_packed as_f16 = *m;
  if (widened) as_f16.format = NB_FORMAT_F16;
  upload_job job = {};
  job.m = m, job.matrix = matrix, job.stream = stream;
  nibble_status status;
  if (nb_tiles_plan(&as_f16, &matrix->w.tiles)) {
    status = upload_tiled(&job, widened, err);
  } else {
    add_source(&job);
    add_maps(&job);
    status = place(&job, err);
    point_packed(&matrix->w);
  }
  free(job.order);
  if (status != NIBBLE_OK) {
    nb_matrix_free(matrix);
    return status;
  }
  *out = matrix;
  return NIBBLE_OK;
}

void nb_matrix_free(nb_matrix *matrix) {
  for (int i = 0; matrix && i < NB_MATRIX_PARTS; i++) nb_device_free(matrix->memory[i]);
  free(matrix);
}
