#include "quant/pack.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "quant/quantizers.h"

/* A band is what a thread takes: a few system calls' worth of weights. A slice is what is hashed at once, still in some
 * cache, by the thread that finishes its last band; then its pages are given back. */
enum { BAND = 1 << 17, SLICE_BANDS = 8, NESTED_BAND = 64 * NB_NESTED_BLOCK_SIZE };

/* Grown as needed, kept from tensor to tensor. */
typedef struct scratch {
  void *data;
  uint64_t bytes;
} scratch;

typedef struct thread_scratch {
  scratch source, codes, sums;
} thread_scratch;

struct nb_packer {
  nb_writer *writer;
  const nibble_progress *progress;
  int64_t total, done;
  thread_scratch *threads;
  int thread_count;
  nb_quantizers quantizers;
  scratch absmax, sums, nested_codes, nested_absmax, errors, bands_left;
  XXH3_state_t *hash;
};

/* One tensor on its way. */
typedef struct stream {
  nb_packer *packer;
  const nb_source *source;
  const nb_packed *target; /* NULL: copied */
  size_t index;
  int64_t band; /* weights */
  void (*work)(struct stream *s, int64_t first, int64_t count, const void *weights, int thread);
  double (*errors)[2];     /* a pair a band: error, squares */
  _Atomic int *bands_left; /* of each slice */
  int64_t slices, hashed;  /* slices [0, hashed) are; only the holder of `hashing` looks */
  atomic_flag hashing;
  nb_shared_error error;
} stream;

static void *grow(scratch *s, uint64_t count, uint64_t size) {
  uint64_t bytes;
  if (!nb_mul_u64(count, size, &bytes)) return NULL;
  if (bytes > s->bytes || !s->data) {
    free(s->data);
    s->data = nb_alloc_aligned(bytes ? bytes : 1, 1);
    s->bytes = s->data ? bytes : 0;
  }
  return s->data;
}

nibble_status nb_packer_open(const nibble_context *context, nb_writer *writer, const nibble_progress *progress,
                             int64_t total, nb_packer **out, nibble_error *err) {
  nb_packer *p = *out = nb_alloc(1, sizeof *p);
  if (!p) return nb_fail_memory(err, sizeof *p);
  *p = (nb_packer){.writer = writer, .progress = progress, .total = total, .thread_count = nb_threads()};
  p->threads = nb_alloc((uint64_t)p->thread_count, sizeof *p->threads);
  p->hash = XXH3_createState();
  nibble_status status = p->threads && p->hash ? nb_quantizers_open(context, p->thread_count, &p->quantizers, err)
                                               : nb_fail_memory(err, sizeof *p);
  if (status == NIBBLE_OK) return status;
  nb_packer_close(p);
  *out = NULL;
  return status;
}

void nb_packer_close(nb_packer *p) {
  if (!p) return;
  nb_quantizers_close(&p->quantizers);
  for (int i = 0; p->threads && i < p->thread_count; i++) {
    free(p->threads[i].source.data);
    free(p->threads[i].codes.data);
    free(p->threads[i].sums.data);
  }
  free(p->threads);
  free(p->absmax.data);
  free(p->sums.data);
  free(p->nested_codes.data);
  free(p->nested_absmax.data);
  free(p->errors.data);
  free(p->bands_left.data);
  XXH3_freeState(p->hash);
  free(p);
}

static void fail(stream *s, nibble_status status, const nibble_error *err) {
  if (status != NIBBLE_OK) nb_shared_error_set(&s->error, status, err);
}

static void fail_memory(stream *s, uint64_t bytes) {
  nibble_error err;
  fail(s, nb_fail_memory(&err, (size_t)bytes), &err);
}

/* The stored bytes that belong to a slice; blocks and strides share theirs out evenly. */
static void hash_slice(stream *s, int64_t slice) {
  const nb_tensor *t = s->source->tensor;
  int64_t total = s->source->count, length = SLICE_BANDS * s->band, first = slice * length;
  int64_t count = nb_min_i64(length, total - first);
  double scale = (double)t->bytes / (double)total;
  uint64_t begin = (uint64_t)((double)first * scale);
  uint64_t end = first + count == total ? t->bytes : (uint64_t)((double)(first + count) * scale);
  const char *raw = nb_tensor_raw(s->source->checkpoint, t);
  XXH3_128bits_update(s->packer->hash, raw + begin, (size_t)(end - begin));
  nb_source_release(s->source, first, count);
}

static bool next_is_ready(stream *s) { return s->hashed < s->slices && s->bands_left[s->hashed] == 0; }

/* Hashes the slices that are finished, in order. One thread does so at a time. It checks again after releasing
 * `hashing`, so that no slice is missed that another thread finished meanwhile and left to it. */
static void hash_finished(stream *s) {
  bool more = true;
  while (more && !atomic_flag_test_and_set(&s->hashing)) {
    while (next_is_ready(s)) hash_slice(s, s->hashed++);
    int64_t hashed = s->hashed;
    atomic_flag_clear(&s->hashing);
    more = hashed < s->slices && s->bands_left[hashed] == 0;
  }
}

static void work_on_band(stream *s, int64_t band, int thread) {
  int64_t first = band * s->band, count = nb_min_i64(s->band, s->source->count - first);
  size_t size = nb_dtype_size(s->source->dtype);
  const char *weights = nb_source_view(s->source);
  if (weights) {
    s->work(s, first, count, weights + (size_t)first * size, thread);
    return;
  }
  nibble_error err;
  char *copy = grow(&s->packer->threads[thread].source, (uint64_t)s->band, size);
  nibble_status status =
      copy ? nb_source_read(s->source, first, count, copy, &err) : nb_fail_memory(&err, (size_t)s->band * size);
  if (status == NIBBLE_OK) {
    s->work(s, first, count, copy, thread);
  } else {
    nb_shared_error_set(&s->error, status, &err);
  }
}

static void work_on_bands(void *ctx, int64_t begin, int64_t end, int thread) {
  stream *s = ctx;
  for (int64_t band = begin; band < end; band++) {
    work_on_band(s, band, thread);
    if (atomic_fetch_sub(&s->bands_left[band / SLICE_BANDS], 1) == 1) hash_finished(s);
  }
}

static nibble_status run(stream *s, nb_pack_result *out, nibble_error *err) {
  nb_packer *p = s->packer;
  int64_t bands = nb_ceil_div(s->source->count, s->band);
  *out = (nb_pack_result){0};
  s->slices = nb_ceil_div(bands, SLICE_BANDS);
  s->errors = grow(&p->errors, (uint64_t)bands, sizeof *s->errors);
  s->bands_left = grow(&p->bands_left, (uint64_t)s->slices, sizeof *s->bands_left);
  if (!s->errors || !s->bands_left) return nb_fail_memory(err, (size_t)bands * sizeof *s->errors);
  memset(s->errors, 0, (size_t)bands * sizeof *s->errors);
  for (int64_t i = 0; i < s->slices; i++)
    atomic_init(&s->bands_left[i], (int)nb_min_i64(SLICE_BANDS, bands - i * SLICE_BANDS));
  XXH3_128bits_reset(p->hash);
  nibble_status status = nb_parallel_stoppable(bands, 1, work_on_bands, s, err);
  if (status == NIBBLE_OK) status = nb_shared_error_get(&s->error, err);
  if (status != NIBBLE_OK) return status;
  nb_hash_print(XXH3_128bits_digest(p->hash), out->hash);
  for (int64_t b = 0; b < bands; b++) {
    out->error += s->errors[b][0];
    out->squares += s->errors[b][1];
  }
  p->done += s->source->count;
  nb_step(p->progress, s->source->name, (uint64_t)p->done, (uint64_t)p->total, "weights");
  return NIBBLE_OK;
}

static void copy_band(stream *s, int64_t first, int64_t count, const void *weights, int thread) {
  (void)thread;
  nibble_error err;
  size_t size = nb_dtype_size(s->source->dtype);
  fail(s, nb_writer_write(s->packer->writer, s->index, (uint64_t)first * size, weights, (uint64_t)count * size, &err),
       &err);
}

nibble_status nb_pack_copy(nb_packer *packer, const nb_source *source, size_t index, nb_pack_result *out,
                           nibble_error *err) {
  stream s = {
      .packer = packer, .source = source, .index = index, .band = BAND, .work = copy_band, .hashing = ATOMIC_FLAG_INIT};
  nibble_status status = nb_writer_begin(packer->writer, index, source->count, err);
  return status == NIBBLE_OK ? run(&s, out, err) : status;
}

/* Names the weight at flattened index `at`. */
static void fail_not_finite(stream *s, int64_t at) {
  const nb_source *source = s->source;
  float value = 0;
  uint8_t stored[8] = {0};
  nibble_error err;
  if (nb_source_read(source, at, 1, stored, &err) == NIBBLE_OK) nb_to_f32(source->dtype, stored, 1, &value);
  const char *fault = isfinite(value) ? "beyond float16, which int8 goes through" : "not finite";
  fail(s,
       nb_fail(&err, NIBBLE_BAD_INPUT, "%s: tensor '%s': the weight at [%lld, %lld] is %g, %s",
               source->checkpoint->files[source->tensor->file].path, source->name, (long long)(at / source->shape[1]),
               (long long)(at % source->shape[1]), (double)value, fault),
       &err);
}

static void quantize_band(stream *s, int64_t first, int64_t count, const void *weights, int thread) {
  nb_packer *p = s->packer;
  const nb_packed *m = s->target;
  const nb_format_row *info = nb_format_info(m->format);
  int64_t unit = nb_packed_unit(m), first_block = first / unit, blocks = nb_ceil_div(count, unit);
  uint64_t bytes = (uint64_t)nb_ceil_div(count * info->bits, 8);
  nb_quantize_run run = {.dtype = s->source->dtype, .src = weights, .count = count, .nested = m->second.block_cols > 0};
  run.scales = (float *)p->absmax.data + first_block;
  run.codes = grow(&p->threads[thread].codes, (uint64_t)nb_ceil_div(s->band * info->bits, 8), 1);
  run.sums = run.nested ? (nb_block_sums *)p->sums.data + first_block
                        : grow(&p->threads[thread].sums, (uint64_t)(s->band / unit), sizeof *run.sums);
  if (!run.codes || !run.sums) {
    fail_memory(s, (uint64_t)s->band);
    return;
  }
  int64_t bad = -1;
  nibble_error err;
  nibble_status status = nb_quantizers_run(&p->quantizers, thread, m, &run, &bad, &err);
  fail(s, status, &err);
  if (status != NIBBLE_OK) return;
  if (bad >= 0) {
    fail_not_finite(s, first + bad);
    return;
  }
  double *pair = s->errors[first / s->band];
  for (int64_t b = 0; b < blocks && !run.nested; b++) {
    double error, squares;
    float scale = run.scales[b] / info->peak;
    nb_block_error(&run.sums[b], scale, scale, &error, &squares);
    pair[0] += error;
    pair[1] += squares;
  }
  uint64_t at = (uint64_t)(first * info->bits / 8);
  fail(s, nb_writer_write(p->writer, s->index, at, run.codes, bytes, &err), &err);
}

/* ---- double quantization: absmax itself is quantized ---- */

typedef struct nested_job {
  nb_packer *packer;
  float map[256], offset;
  int64_t blocks;
  double (*errors)[2];
} nested_job;

static void nested_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  nested_job *job = ctx;
  const float *absmax = job->packer->absmax.data;
  const nb_block_sums *sums = job->packer->sums.data;
  uint8_t *codes = job->packer->nested_codes.data;
  float *nested_absmax = job->packer->nested_absmax.data;
  nb_quantize_dynamic(absmax + begin, end - begin, job->offset, job->map, codes + begin,
                      nested_absmax + begin / NB_NESTED_BLOCK_SIZE);
  double *pair = job->errors[begin / NESTED_BAND];
  for (int64_t b = begin; b < end; b++) {
    float scale = job->map[codes[b]] * nested_absmax[b / NB_NESTED_BLOCK_SIZE] + job->offset;
    double error, squares;
    nb_block_error(&sums[b], absmax[b], scale, &error, &squares);
    pair[0] += error;
    pair[1] += squares;
  }
}

static nibble_status quantize_absmax(nb_packer *p, const nb_source *source, int64_t blocks, nested_job *job,
                                     nb_pack_result *out, nibble_error *err) {
  int64_t bands = nb_ceil_div(blocks, NESTED_BAND), nested_blocks = nb_ceil_div(blocks, NB_NESTED_BLOCK_SIZE);
  *job = (nested_job){.packer = p, .offset = nb_mean(p->absmax.data, blocks), .blocks = blocks};
  if (!isfinite(job->offset))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': the sum of its blocks' maxima overflows float32",
                   source->checkpoint->files[source->tensor->file].path, source->name);
  nb_dynamic_map(job->map);
  job->errors = grow(&p->errors, (uint64_t)bands, sizeof *job->errors);
  if (!grow(&p->nested_codes, (uint64_t)blocks, 1) ||
      !grow(&p->nested_absmax, (uint64_t)nested_blocks, sizeof(float)) || !job->errors)
    return nb_fail_memory(err, (size_t)blocks);
  memset(job->errors, 0, (size_t)bands * sizeof *job->errors);
  nb_parallel(blocks, NESTED_BAND, nested_band, job);
  for (int64_t b = 0; b < bands; b++) {
    out->error += job->errors[b][0];
    out->squares += job->errors[b][1];
  }
  return NIBBLE_OK;
}

/* ---- the parts ---- */

/* Part i of a weight, which became `m`. */
static nibble_status write_part(nb_packer *p, const nb_pack_job *job, int i, const nb_packed *m,
                                const nested_job *nested, nibble_error *err) {
  static const uint8_t row_major = 0;
  const nb_part *part = &job->parts[i];
  size_t index = job->index + (size_t)i;
  const void *bytes = NULL;
  nb_buf state = {0};
  int64_t count = part->shape[0];
  nibble_status status = NIBBLE_OK;
  switch (part->role) {
    case NB_PART_CODES:
    case NB_PART_ZEROS:
    case NB_PART_SCALES:
    case NB_PART_G_IDX: return NIBBLE_OK;
    case NB_PART_ABSMAX: bytes = m->second.block_cols ? p->nested_codes.data : p->absmax.data; break;
    case NB_PART_NESTED_ABSMAX: bytes = p->nested_absmax.data; break;
    case NB_PART_NESTED_QUANT_MAP: bytes = nested->map; break;
    case NB_PART_QUANT_MAP: bytes = nb_format_info(m->format)->codebook; break;
    case NB_PART_FORMAT: bytes = &row_major; break;
    case NB_PART_STATE:
      nb_layout_state_json(m, job->source->dtype, &state);
      if (state.failed) status = nb_fail_memory(err, state.length);
      bytes = state.data;
      count = (int64_t)state.length;
      break;
  }
  if (status == NIBBLE_OK) status = nb_writer_begin(p->writer, index, count, err);
  uint64_t n = (uint64_t)count * nb_dtype_size(part->dtype);
  if (status == NIBBLE_OK) status = nb_writer_write(p->writer, index, 0, bytes, n, err);
  nb_buf_free(&state);
  return status;
}

nb_writer *nb_packer_writer(const nb_packer *packer) { return packer->writer; }

nibble_status nb_pack_quantize(nb_packer *p, const nb_pack_job *job, nb_pack_result *out, nibble_error *err) {
  const nb_source *source = job->source;
  const nb_packed *target = job->target;
  size_t index = job->index;
  nb_packed m = *target;
  nested_job nested;
  int64_t unit = nb_packed_unit(&m), blocks = nb_ceil_div(source->count, unit);
  stream s = {.packer = p, .source = source, .target = target, .index = index, .hashing = ATOMIC_FLAG_INIT};
  s.work = quantize_band;
  s.band = nb_max_i64(BAND / unit, 1) * unit;
  if (!grow(&p->absmax, (uint64_t)blocks, sizeof(float)) ||
      (m.second.block_cols && !grow(&p->sums, (uint64_t)blocks, sizeof(nb_block_sums))))
    return nb_fail_memory(err, (size_t)blocks * sizeof(nb_block_sums));
  nibble_status status = nb_writer_begin(p->writer, index, nb_packed_code_bytes(&m), err);
  if (status == NIBBLE_OK) status = run(&s, out, err);
  if (status == NIBBLE_OK && m.second.block_cols) {
    status = quantize_absmax(p, source, blocks, &nested, out, err);
    m.scale.offset = nested.offset;
  }
  for (int i = 0; status == NIBBLE_OK && i < job->part_count; i++) status = write_part(p, job, i, &m, &nested, err);
  return status;
}
