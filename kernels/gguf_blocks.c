#include "kernels/gguf_blocks.h"

#include "kernels/gguf_body.h"

void nb_gguf_dequantize(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                        int64_t stride) {
  dequantize_tile(m, row, rows, col, cols, out, stride);
}
