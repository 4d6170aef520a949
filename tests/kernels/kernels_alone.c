/* base/ and kernels/ alone, linked with the C library and OpenMP and nothing else: a product in 4 bits against plain
 * sums. That this program links is most of the test. */
#include <math.h>
#include <stdio.h>

#include "kernels/matmul.h"

enum { ROWS = 5, COLS = 128 };

int main(void) {
  uint8_t codes[ROWS * COLS / 2];
  float absmax[ROWS * COLS / 64], x[COLS], y[ROWS], weight[COLS];
  for (int i = 0; i < ROWS * COLS / 2; i++) codes[i] = (uint8_t)(i * 37);
  for (int i = 0; i < ROWS * COLS / 64; i++) absmax[i] = 0.5f + (float)i;
  for (int i = 0; i < COLS; i++) x[i] = (float)(i % 7 - 3);
  nb_packed w = nb_packed_usual(NB_FORMAT_NF4, ROWS, COLS, 64, false);
  w.codes = codes;
  w.scale.data = absmax;
  nb_matmul(&w, x, COLS, 1, y, ROWS);
  for (int r = 0; r < ROWS; r++) {
    double sum = 0, size = 0;
    nb_format_info(w.format)->dequantize((nb_tile){&w, r, 1, 0, COLS}, weight, COLS);
    for (int c = 0; c < COLS; c++) {
      sum += (double)(x[c] * weight[c]);
      size += fabs((double)(x[c] * weight[c]));
    }
    if (fabs(sum - (double)y[r]) <= 1e-5 * size) continue;
    fprintf(stderr, "row %d: %g, should be %g\n", r, (double)y[r], sum);
    return 1;
  }
  return 0;
}
