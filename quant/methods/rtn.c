/* rtn: weights rounded to the nearest point of their group's grid, without calibration; the baseline that gptq is
 * measured against, in the same layout. A weight goes through in bands of rows; what is held of it are its packed
 * words, since those of a band do not lie side by side in the file. */
#include "quant/rtn.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/layouts/gptq.h"
#include "kernels/gptq.h"
#include "quant/methods/grids.h"

enum { ROW_BAND = 32 };

static nibble_status open_rtn(nb_method_run *run, nibble_error *err) {
  nb_grids *g = run->state = nb_alloc(1, sizeof *g);
  if (!g) return nb_fail_memory(err, sizeof *g);
  *g = nb_grids_of(run->options, false);
  run->settings = nb_grids_settings(run);
  return run->settings ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

static void close_rtn(nb_method_run *run, nibble_status status, nibble_error *err) {
  (void)status, (void)err;
  free(run->state);
}

/* Of one thread, for a band. */
typedef struct scratch {
  void *values; /* as the source has them, where it is not mapped */
  float *w, *search;
  uint8_t *codes;
} scratch;

typedef struct round_job {
  const nb_source *source;
  const nb_grid *grid;
  uint32_t *words;
  uint16_t *scales;
  uint8_t *zeros;
  int32_t *g_idx;
  nb_rtn_rows *bands; /* what became of each */
  scratch *threads;
  nb_shared_error error;
} round_job;

/* Names the first weight that is not finite, of rows from `begin` on; NIBBLE_OK if there is none. */
static nibble_status check_finite(const round_job *job, int64_t begin, int64_t count, const float *w,
                                  nibble_error *err) {
  const nb_source *s = job->source;
  for (int64_t i = 0; i < count; i++) {
    if (isfinite(w[i])) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is not finite at index %lld", s->checkpoint->path, s->name,
                   (long long)(begin * s->shape[1] + i));
  }
  return NIBBLE_OK;
}

/* Rows [begin, end) as float32. */
static nibble_status read_rows(const round_job *job, int64_t begin, int64_t end, const scratch *own,
                               nibble_error *err) {
  const nb_source *s = job->source;
  int64_t first = begin * s->shape[1], count = (end - begin) * s->shape[1];
  const char *view = nb_source_view(s);
  nibble_status status = view ? NIBBLE_OK : nb_source_read(s, first, count, own->values, err);
  if (status != NIBBLE_OK) return status;
  nb_to_f32(s->dtype, view ? view + (size_t)first * nb_dtype_size(s->dtype) : own->values, (size_t)count, own->w);
  return NIBBLE_OK;
}

static void round_band(void *ctx, int64_t begin, int64_t end, int thread) {
  round_job *job = ctx;
  const scratch *own = &job->threads[thread];
  int64_t rows = job->source->shape[0], cols = job->source->shape[1];
  nb_rtn_rows *band = &job->bands[begin / ROW_BAND];
  nibble_error err;
  nibble_status status = read_rows(job, begin, end, own, &err);
  if (status == NIBBLE_OK) {
    *band = (nb_rtn_rows){.w = own->w, .rows = end - begin, .cols = cols, .codes = own->codes, .stride = rows};
    band->scales = job->scales + begin;
    band->zeros = job->zeros + begin;
    nb_rtn_round(job->grid, band, own->search);
    nb_gptq_codes codes = {.data = own->codes, .rows = end - begin, .cols = cols, .bits = job->grid->bits};
    nb_gptq_pack(&codes, job->words + begin, rows);
    /* Squares may overflow where weights are finite. */
    if (!isfinite(band->squares)) status = check_finite(job, begin, band->rows * cols, own->w, &err);
  }
  if (status != NIBBLE_OK) nb_shared_error_set(&job->error, status, &err);
}

/* False without memory. */
static bool allocate(round_job *job, int64_t groups) {
  const nb_source *s = job->source;
  int64_t rows = s->shape[0], cols = s->shape[1], bands = nb_ceil_div(rows, ROW_BAND);
  uint64_t weights = (uint64_t)(nb_min_i64(rows, ROW_BAND) * cols);
  job->words = nb_alloc_aligned((uint64_t)(nb_gptq_words(cols, job->grid->bits) * rows), sizeof *job->words);
  job->scales = nb_alloc((uint64_t)(groups * rows), sizeof *job->scales);
  job->zeros = nb_alloc((uint64_t)(groups * rows), 1);
  job->g_idx = nb_alloc((uint64_t)cols, sizeof *job->g_idx);
  job->bands = nb_alloc((uint64_t)bands, sizeof *job->bands);
  job->threads = nb_alloc((uint64_t)nb_threads(), sizeof *job->threads);
  bool ok = job->words && job->scales && job->zeros && job->g_idx && job->bands && job->threads;
  for (int i = 0; ok && i < nb_threads(); i++) {
    scratch *own = &job->threads[i];
    own->values = nb_source_view(s) ? NULL : nb_alloc_aligned(weights, nb_dtype_size(s->dtype));
    own->w = nb_alloc_aligned(weights, sizeof(float));
    own->search = nb_alloc_aligned((uint64_t)nb_rtn_scratch(job->grid, cols), sizeof(float));
    own->codes = nb_alloc_aligned(weights, 1);
    ok = (own->values || nb_source_view(s)) && own->w && own->search && own->codes;
  }
  return ok;
}

static void release(round_job *job) {
  for (int i = 0; job->threads && i < nb_threads(); i++) {
    free(job->threads[i].values);
    free(job->threads[i].w);
    free(job->threads[i].search);
    free(job->threads[i].codes);
  }
  free(job->words);
  free(job->scales);
  free(job->zeros);
  free(job->g_idx);
  free(job->bands);
  free(job->threads);
}

static nibble_status write_rtn(const nb_method_run *run, nb_packer *packer, const nb_pack_job *target,
                               nb_pack_result *out, nibble_error *err) {
  const nb_grids *g = run->state;
  const nb_source *source = target->source;
  int64_t rows = source->shape[0], cols = source->shape[1], size = target->target->scale.block_cols;
  nb_grids_weight weight = {.rows = rows, .groups = nb_ceil_div(cols, size)};
  round_job job = {.source = source, .grid = &g->grid};
  nibble_status status = NIBBLE_OK;
  if (!allocate(&job, weight.groups) || !(out->details = cJSON_CreateObject())) {
    status = nb_fail_memory(err, (uint64_t)source->count / 2);
    goto done;
  }
  for (int64_t c = 0; c < cols; c++) job.g_idx[c] = (int32_t)(c / size);
  status = nb_parallel_stoppable(rows, ROW_BAND, round_band, &job, err);
  if (status == NIBBLE_OK) status = nb_shared_error_get(&job.error, err);
  if (status != NIBBLE_OK) goto done;
  for (int64_t b = 0; b < nb_ceil_div(rows, ROW_BAND); b++) {
    weight.error += job.bands[b].error;
    weight.squares += job.bands[b].squares;
    weight.mended += job.bands[b].mended;
  }
  weight.words = job.words, weight.scales = job.scales, weight.zeros = job.zeros, weight.g_idx = job.g_idx;
  if (weight.mended > 0)
    nb_warn(&run->options->progress, "%s: %lld groups have a scale out of its dtype's range", source->name,
            (long long)weight.mended);
  status = nb_grids_write(run, packer, target, &weight, out, err);
done:
  release(&job);
  return status;
}

const nb_method nb_method_rtn = {.name = "rtn",
                                 .reads = NB_GRIDS_OPTIONS,
                                 .layout = &nb_layout_gptq,
                                 .check = nb_grids_check,
                                 .open = open_rtn,
                                 .target = nb_grids_target,
                                 .write = write_rtn,
                                 .config = nb_grids_config,
                                 .close = close_rtn};
