#include "quant/quantizers.h"

#include <stdlib.h>

#include "base/checked.h"
#include "runner/device.h"

nibble_status nb_quantizers_open(const nibble_context *context, int threads, nb_quantizers *out, nibble_error *err) {
  *out = (nb_quantizers){.thread_count = threads};
  nibble_status status = nb_device_module(context, &out->gpu, err);
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

nibble_status nb_quantizers_run(nb_quantizers *q, int thread, const nb_packed *m, const nb_quantize_run *run,
                                int64_t *bad, nibble_error *err) {
  if (!q->gpu) {
    *bad = nb_quantize(m, run);
    return NIBBLE_OK;
  }
  nibble_status status = of_thread(q, thread, err);
  return status == NIBBLE_OK ? q->gpu->quantize(q->threads[thread], m, run, bad, err) : status;
}
