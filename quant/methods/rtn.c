/* rtn: weights rounded to the nearest point of their group's grid, without calibration; the baseline that gptq is
 * measured against, in the same layout. */
#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/layouts/gptq.h"
#include "quant/methods/grids.h"

enum { READ_BAND = 64 };

static nibble_status open_rtn(nb_method_run *run, nibble_error *err) {
  nb_grids *g = run->state = nb_alloc(1, sizeof *g);
  if (!g) return nb_fail_memory(err, sizeof *g);
  *g = nb_grids_of(run->options, false);
  run->settings = nb_grids_settings(run);
  return run->settings ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

static void close_rtn(nb_method_run *run, bool is_done) {
  (void)is_done;
  free(run->state);
}

typedef struct read_job {
  const nb_source *source;
  float *out;
  nb_shared_error error;
} read_job;

static void read_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  read_job *job = ctx;
  const nb_source *s = job->source;
  int64_t cols = s->shape[1], first = begin * cols, count = (end - begin) * cols;
  uint64_t bytes = (uint64_t)count * nb_dtype_size(s->dtype);
  nibble_error err;
  void *values = nb_alloc_aligned(bytes, 1);
  nibble_status status = values ? nb_source_read(s, first, count, values, &err) : nb_fail_memory(&err, bytes);
  if (status == NIBBLE_OK) nb_to_f32(s->dtype, values, (size_t)count, job->out + first);
  for (int64_t i = first; status == NIBBLE_OK && i < first + count; i++) {
    if (isfinite(job->out[i])) continue;
    status = nb_fail(&err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is not finite at index %lld", s->checkpoint->path,
                     s->name, (long long)i);
  }
  if (status != NIBBLE_OK) nb_shared_error_set(&job->error, status, &err);
  free(values);
}

static nibble_status round_source(const nb_method_run *run, const nb_source *source, nb_rounded *out,
                                  nibble_error *err) {
  const nb_grids *g = run->state;
  read_job job = {.source = source, .out = nb_alloc_aligned((uint64_t)source->count, sizeof(float))};
  if (!job.out) return nb_fail_memory(err, (size_t)source->count * sizeof(float));
  nb_parallel(source->shape[0], READ_BAND, read_band, &job);
  nibble_status status = nb_shared_error_get(&job.error, err);
  nb_source_release(source, 0, source->count);
  nb_dense_layer layer = {job.out, source->shape[0], source->shape[1]};
  if (status == NIBBLE_OK) status = nb_rtn_solve(&layer, &g->grid, out, err);
  free(job.out);
  if (status == NIBBLE_OK && out->mended > 0)
    nb_warn(&run->options->progress, "%s: %lld groups have a scale out of its dtype's range", source->name,
            (long long)out->mended);
  return status;
}

static nibble_status write_rtn(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job, nb_pack_result *out,
                               nibble_error *err) {
  nb_rounded rounded = {0};
  nibble_status status = round_source(run, job->source, &rounded, err);
  if (status == NIBBLE_OK && !(out->details = cJSON_CreateObject())) status = nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK) status = nb_grids_write(run, packer, job, &rounded, out, err);
  nb_rounded_free(&rounded);
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
