#include "quant/quantizers.h"

#include <stdlib.h>

#include "base/checked.h"
#include "runner/device.h"

nibble_status nb_quantizers_open(int threads, nb_quantizers *out, nibble_error *err) {
  *out = (nb_quantizers){.thread_count = threads};
  nibble_status status = nb_device_module(&out->gpu, err);
  if (status != NIBBLE_OK || !out->gpu) return status;
  out->threads = nb_alloc((uint64_t)threads, sizeof *out->threads);
  return out->threads ? NIBBLE_OK : nb_fail_memory(err, (size_t)threads * sizeof *out->threads);
}

void nb_quantizers_close(nb_quantizers *q) {
  for (int i = 0; q->threads && i < q->thread_count; i++) q->gpu->quantizer_free(q->threads[i]);
  free(q->threads);
  *q = (nb_quantizers){0};
}

static nibble_status of_thread(nb_quantizers *q, int thread, nibble_error *err) {
  return q->threads[thread] ? NIBBLE_OK : q->gpu->quantizer_create(&q->threads[thread], err);
}

nibble_status nb_quantizers_4bit(nb_quantizers *q, int thread, nb_format format, nb_dtype dtype, const void *src,
                                 int64_t n, int64_t block_size, bool nested, uint8_t *codes, float *absmax,
                                 nb_block_sums *sums, int64_t *bad, nibble_error *err) {
  if (!q->gpu) {
    *bad = nb_quantize_4bit(format, dtype, src, n, block_size, nested, codes, absmax, sums);
    return NIBBLE_OK;
  }
  nibble_status status = of_thread(q, thread, err);
  if (status != NIBBLE_OK) return status;
  return q->gpu->quantize_4bit(q->threads[thread], format, dtype, src, n, block_size, nested, codes, absmax, sums, bad,
                               err);
}

nibble_status nb_quantizers_int8(nb_quantizers *q, int thread, nb_dtype dtype, const void *src, int64_t rows,
                                 int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums, int64_t *bad,
                                 nibble_error *err) {
  if (!q->gpu) {
    *bad = nb_quantize_int8(dtype, src, rows, cols, codes, scb, sums);
    return NIBBLE_OK;
  }
  nibble_status status = of_thread(q, thread, err);
  if (status != NIBBLE_OK) return status;
  return q->gpu->quantize_int8(q->threads[thread], dtype, src, rows, cols, codes, scb, sums, bad, err);
}
