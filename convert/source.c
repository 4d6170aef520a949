#include "convert/source.h"

#include <string.h>

#include "base/checked.h"

enum { CHUNK = 2048 }; /* values on their way through float32; on the stack */

nibble_status nb_source_describe(const nb_checkpoint *c, const nb_tensor *t, nb_source *out, nibble_error *err) {
  *out = (nb_source){.checkpoint = c, .tensor = t, .dtype = t->dtype, .ndim = t->ndim, .count = t->count};
  memcpy(out->shape, t->shape, sizeof t->shape);
  if (c->gguf && nb_dtype_is_float(t->dtype)) out->dtype = c->config.dtype;
  out->name = nb_tensor_weight_name(t);
  if (t->fault) return nb_fail(err, NIBBLE_BAD_INPUT, "%s", t->fault);
  if (!t->layout) return NIBBLE_OK;
  const nb_packed m = *t->packed;
  out->is_packed = true;
  out->dtype = nb_format_info(m.format)->scheme == NB_SCHEME_SYMMETRIC ? c->config.dtype : t->source_dtype;
  out->ndim = 2;
  out->shape[0] = m.rows;
  out->shape[1] = m.cols;
  out->count = m.rows * m.cols;
  return NIBBLE_OK;
}

nibble_status nb_source_open(const nb_checkpoint *c, const nb_tensor *t, nb_source *out, nibble_error *err) {
  nibble_status status = nb_source_describe(c, t, out, err);
  if (status != NIBBLE_OK || !out->is_packed) return status;
  return nb_weight_load_tensor(c, t, out->shape[0], out->shape[1], &out->weight, err);
}

void nb_source_close(nb_source *source) {
  if (source->weight.packed.codes) nb_weight_release(source->checkpoint, source->tensor);
  nb_weight_free(&source->weight);
  *source = (nb_source){0};
}

const void *nb_source_view(const nb_source *s) {
  return s->is_packed || s->dtype != s->tensor->dtype ? NULL : nb_tensor_view(s->checkpoint, s->tensor);
}

nibble_status nb_source_read(const nb_source *s, int64_t first, int64_t count, void *out, nibble_error *err) {
  if (!s->is_packed) return nb_tensor_read(s->checkpoint, s->tensor, (nb_span){first, count}, s->dtype, out, err);
  const nb_packed *m = &s->weight.packed;
  nb_dequantize_fn dequantize = nb_format_info(m->format)->dequantize;
  float values[CHUNK];
  for (int64_t done = 0, n; done < count; done += n) {
    int64_t row = (first + done) / m->cols, col = (first + done) % m->cols;
    n = nb_min_i64(nb_min_i64(m->cols - col, count - done), CHUNK);
    dequantize((nb_tile){m, row, 1, col, n}, values, n);
    nb_from_f32(s->dtype, values, (size_t)n, (char *)out + (size_t)done * nb_dtype_size(s->dtype));
  }
  return NIBBLE_OK;
}

/* Values of a packed weight share bytes: its pages are given back when it is closed. */
void nb_source_release(const nb_source *s, int64_t first, int64_t count) {
  if (!s->is_packed) nb_tensor_release(s->checkpoint, s->tensor, first, count);
}
