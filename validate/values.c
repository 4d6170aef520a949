#include "validate/values.h"

#include "base/checked.h"
#include "kernels/cpu/kernels.h"

/* Whether the tensor lies as some format does, so that kernels can read it. */
static bool lies_plain(const nb_tensor *t, const void *raw, nb_format *format) {
  if (t->is_strided || t->permute_heads) return false;
  *format = t->format;
  return t->is_blocks || (nb_format_of_dtype(t->dtype, format) && (uintptr_t)raw % nb_dtype_size(t->dtype) == 0);
}

nibble_status nb_values_open(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_values *out,
                             nibble_error *err) {
  *out = (nb_values){0};
  nibble_status status = nb_source_open(checkpoint, tensor, &out->source, err);
  if (status != NIBBLE_OK) return status;
  const nb_source *s = &out->source;
  out->rows = s->ndim >= 2 && s->count > 0 ? s->shape[0] : 1;
  out->cols = s->count / nb_max_i64(1, out->rows);
  nb_packed *plain = &out->plain;
  *plain = (nb_packed){.rows = out->rows, .cols = out->cols, .codes = nb_tensor_raw(checkpoint, tensor)};
  if (s->is_packed) {
    out->dequantize = nb_dequantizer(s->weight.packed.format);
  } else if (lies_plain(tensor, plain->codes, &plain->format)) {
    out->dequantize = nb_dequantizer(plain->format);
  }
  return NIBBLE_OK;
}

void nb_values_close(nb_values *values) {
  const nb_source *s = &values->source;
  if (s->checkpoint) nb_values_release(values, 0, s->tensor->count);
  nb_source_close(&values->source);
}

void nb_values_release(const nb_values *values, int64_t first, int64_t count) {
  nb_source_release(&values->source, first, count);
}

void nb_packed_read(nb_dequantize_fn dequantize, const nb_packed *m, int64_t first, int64_t count, float *out) {
  for (int64_t done = 0; done < count;) {
    int64_t row = (first + done) / m->cols, col = (first + done) % m->cols;
    int64_t whole = col == 0 ? (count - done) / m->cols : 0;
    if (whole) {
      dequantize((nb_tile){m, row, whole, 0, m->cols}, out + done, m->cols);
      done += whole * m->cols;
      continue;
    }
    int64_t n = nb_min_i64(m->cols - col, count - done);
    dequantize((nb_tile){m, row, 1, col, n}, out + done, n);
    done += n;
  }
}

nibble_status nb_values_read(const nb_values *v, int64_t first, int64_t count, float *out, nibble_error *err) {
  const nb_source *s = &v->source;
  if (!v->dequantize) return nb_tensor_read(s->checkpoint, s->tensor, (nb_span){first, count}, NB_F32, out, err);
  nb_packed_read(v->dequantize, s->is_packed ? &s->weight.packed : &v->plain, first, count, out);
  return NIBBLE_OK;
}
