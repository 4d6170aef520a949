#include <string.h>

#include "base/checked.h"
#include "convert/checkpoint.h"

enum { CHUNK = 2048 }; /* elements on their way through float32; on the stack */

const void *nb_tensor_raw(const nb_checkpoint *c, const nb_tensor *t) {
  return t->bytes ? c->files[t->file].map.data + t->offset : (const uint8_t *)"";
}

const void *nb_tensor_view(const nb_checkpoint *c, const nb_tensor *t) {
  return t->is_blocks || t->opaque || t->permute_heads || t->is_strided ? NULL : nb_tensor_raw(c, t);
}

const char *nb_tensor_type_name(const nb_tensor *t) {
  if (t->opaque) return t->opaque;
  return t->is_blocks ? nb_format_info(t->format)->name : nb_dtype_name(t->dtype);
}

/* n elements; either the same dtype or two float ones. */
static void convert(nb_dtype from, const uint8_t *src, int64_t n, nb_dtype to, uint8_t *dst) {
  size_t in = nb_dtype_size(from), out = nb_dtype_size(to);
  if (from == to) {
    memcpy(dst, src, (size_t)n * in);
    return;
  }
  float values[CHUNK];
  for (int64_t i = 0; i < n; i += CHUNK) {
    size_t k = (size_t)nb_min_i64(CHUNK, n - i);
    nb_to_f32(from, src + (size_t)i * in, k, values);
    nb_from_f32(to, values, k, dst + (size_t)i * out);
  }
}

/* The row of the file that holds row `row`: GGUF's llama interleaves the two halves of each head, so that row
 * (head, half, i) lies at (head, i, half). https://github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py, permute(). */
static int64_t stored_row(const nb_tensor *t, int64_t row) {
  if (!t->permute_heads) return row;
  int64_t rows = t->shape[0] / t->permute_heads, head = row / rows, r = row % rows;
  return head * rows + r % (rows / 2) * 2 + r / (rows / 2);
}

static void read_rows(const nb_checkpoint *c, const nb_tensor *t, int64_t first, int64_t count, nb_dtype to,
                      uint8_t *dst) {
  const uint8_t *raw = nb_tensor_raw(c, t);
  int64_t rows = t->ndim > 1 || t->permute_heads ? t->shape[0] : 1, cols = t->count / rows;
  nb_packed packed = {.format = t->format, .rows = rows, .cols = cols, .codes = raw};
  size_t out = nb_dtype_size(to);
  float values[CHUNK];
  for (int64_t done = 0, n; done < count; done += n) {
    int64_t row = (first + done) / cols, col = (first + done) % cols;
    int64_t at = stored_row(t, row);
    n = nb_min_i64(cols - col, count - done);
    if (t->is_blocks) {
      n = nb_min_i64(n, CHUNK);
      nb_format_info(t->format)->dequantize((nb_tile){&packed, at, 1, col, n}, values, n);
      nb_from_f32(to, values, (size_t)n, dst + (size_t)done * out);
    } else {
      convert(t->dtype, raw + (size_t)(at * cols + col) * nb_dtype_size(t->dtype), n, to, dst + (size_t)done * out);
    }
  }
}

static void gather(const nb_checkpoint *c, const nb_tensor *t, int64_t first, int64_t count, nb_dtype to,
                   uint8_t *dst) {
  const uint8_t *raw = nb_tensor_raw(c, t);
  size_t size = nb_dtype_size(t->dtype), out = nb_dtype_size(to);
  int64_t index[NB_MAX_DIMS], rest = first;
  for (int d = t->ndim - 1; d >= 0; d--) {
    index[d] = rest % t->shape[d];
    rest /= t->shape[d];
  }
  uint8_t values[CHUNK * sizeof(double)];
  for (int64_t done = 0; done < count; done += CHUNK) {
    int64_t n = nb_min_i64(CHUNK, count - done);
    for (int64_t i = 0; i < n; i++) {
      int64_t at = 0;
      for (int d = 0; d < t->ndim; d++) at += index[d] * t->stride[d];
      memcpy(values + (size_t)i * size, raw + (size_t)at * size, size);
      for (int d = t->ndim - 1; d >= 0 && ++index[d] == t->shape[d]; d--) index[d] = 0;
    }
    convert(t->dtype, values, n, to, dst + (size_t)done * out);
  }
}

nibble_status nb_tensor_read(const nb_checkpoint *c, const nb_tensor *t, nb_span span, nb_dtype dtype, void *out,
                             nibble_error *err) {
  const char *path = c->files[t->file].path;
  int64_t first = span.first, count = span.count;
  if (first < 0 || count < 0 || first > t->count || count > t->count - first)
    return nb_fail(err, NIBBLE_USAGE, "%s: tensor '%s': elements %lld to %lld of %lld were asked for", path, t->name,
                   (long long)first, (long long)(first + count), (long long)t->count);
  bool writable = nb_dtype_is_float(dtype) && dtype != NB_F8_E4M3 && dtype != NB_F8_E5M2;
  if (t->opaque || (dtype != t->dtype && !(writable && nb_dtype_is_float(t->dtype))))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': %s cannot be read as %s", path, t->name,
                   nb_tensor_type_name(t), nb_dtype_name(dtype));
  if (count == 0) return NIBBLE_OK;
  if (t->is_strided) {
    gather(c, t, first, count, dtype, out);
  } else if (t->is_blocks || t->permute_heads) {
    read_rows(c, t, first, count, dtype, out);
  } else {
    const uint8_t *raw = nb_tensor_raw(c, t);
    convert(t->dtype, raw + (size_t)first * nb_dtype_size(t->dtype), count, dtype, out);
  }
  return NIBBLE_OK;
}

void nb_tensor_release(const nb_checkpoint *c, const nb_tensor *t, int64_t first, int64_t count) {
  if (t->count == 0 || t->bytes == 0 || count <= 0) return;
  uint64_t begin = 0, end = t->bytes;
  if (!t->is_strided && t->count > 0) {
    int64_t unit = 1; /* elements whose bytes lie in their own place: one, a head of permuted rows */
    if (t->permute_heads) unit = t->count / t->permute_heads;
    double scale = (double)t->bytes / (double)t->count;
    int64_t from = first / unit * unit, to = nb_min_i64(nb_ceil_div(first + count, unit) * unit, t->count);
    begin = (uint64_t)((double)from * scale);
    end = to == t->count ? t->bytes : (uint64_t)((double)to * scale);
  }
  nb_mapfile_release(&c->files[t->file].map, t->offset + begin, end - begin);
}
