#include "runner/head.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/quantize.h"

enum { BAND_ROWS = 64 };

typedef struct head_job {
  const nb_checkpoint *checkpoint;
  const nb_tensor *tensor;
  const nb_packed *packed;
  int8_t *codes; /* [rows, cols] */
  float *scales; /* [rows] */
  nb_shared_error failure;
} head_job;

static nibble_status round_band(const head_job *job, int64_t begin, int64_t end, nibble_error *err) {
  const nb_tensor *t = job->tensor;
  int64_t cols = job->packed->cols, count = (end - begin) * cols;
  nb_block_sums sums[BAND_ROWS];
  float *values = nb_alloc((uint64_t)count, sizeof *values);
  if (!values) return nb_fail_memory(err, (uint64_t)count * sizeof *values);
  nibble_status status = nb_tensor_read(job->checkpoint, t, (nb_span){begin * cols, count}, NB_F32, values, err);
  nb_quantize_run run = {.dtype = NB_F32,
                         .src = values,
                         .count = count,
                         .codes = job->codes + begin * cols,
                         .scales = job->scales + begin,
                         .sums = sums};
  int64_t bad = status == NIBBLE_OK ? nb_quantize(job->packed, &run) : -1;
  if (bad >= 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': the weight in row %lld, column %lld is not finite",
                     job->checkpoint->files[t->file].path, t->name, (long long)(begin + bad / cols),
                     (long long)(bad % cols));
  free(values);
  return status;
}

static void round_bands(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  head_job *job = ctx;
  nibble_error err;
  nibble_status status = round_band(job, begin, end, &err);
  if (status != NIBBLE_OK) nb_shared_error_set(&job->failure, status, &err);
}

/* Fills *out, which owns its buffers, with the head's weights in int8. */
static nibble_status round_weights(const nb_checkpoint *c, const nb_module *head, nb_weight *out, nibble_error *err) {
  *out = (nb_weight){.packed = nb_packed_usual(NB_FORMAT_INT8, head->out, head->in, 0, false), .source_dtype = NB_F16};
  head_job job = {.checkpoint = c, .tensor = head->tensor, .packed = &out->packed};
  out->owned[0] = job.codes = nb_alloc_aligned((uint64_t)head->out, (uint64_t)head->in);
  out->owned[1] = job.scales = nb_alloc((uint64_t)head->out, sizeof *job.scales);
  if (!job.codes || !job.scales) return nb_fail_memory(err, (uint64_t)head->out * (uint64_t)head->in);
  out->packed.codes = job.codes;
  out->packed.scale.data = job.scales;
  nibble_status status = nb_parallel_stoppable(head->out, BAND_ROWS, round_bands, &job, err);
  return status == NIBBLE_OK ? nb_shared_error_get(&job.failure, err) : status;
}

nibble_status nb_head_to_int8(nb_model *m, nibble_error *err) {
  nb_module *head = nb_module_find(&m->outer, 0, NB_HEAD, -1);
  if (!head || !head->matrix || head->tensor->packed) return NIBBLE_OK;
  nb_backend *b = m->backend;
  nb_matrix_options options = nb_outer_options(m);
  nb_weight rounded;
  nb_matrix *matrix = NULL;
  nibble_status status = round_weights(&m->checkpoint, head, &rounded, err);
  if (status == NIBBLE_OK) status = b->matrix_create(b, &rounded.packed, &options, &matrix, err);
  if (status != NIBBLE_OK) {
    nb_weight_free(&rounded);
    return status;
  }
  m->weight_bytes += (uint64_t)nb_packed_bytes(&rounded.packed);
  if (!head->is_borrowed) {
    m->weight_bytes -= head->tensor->bytes;
    b->matrix_free(b, head->matrix);
    nb_weight_free(&head->source);
    nb_tensor_release(&m->checkpoint, head->tensor, 0, head->tensor->count);
  }
  head->matrix = matrix;
  head->source = rounded;
  head->is_borrowed = false;
  if (!(b->matrix_borrows && b->matrix_borrows(matrix))) nb_weight_free(&head->source);
  return NIBBLE_OK;
}
