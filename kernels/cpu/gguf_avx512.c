/* GGUF's block formats, compiled for AVX-512. */
#include "kernels/gguf_body.h"

void nb_gguf_dequantize_avx512(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                               int64_t stride) {
  dequantize_tile(m, row, rows, col, cols, out, stride);
}
