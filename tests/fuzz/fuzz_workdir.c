/* The file of a layer in a calibration's work folder, behind its magic and hash, which are put right here: the first
 * byte chooses the grid that the run has, the rest is the file's. What is taken for a layer must be safe to use. */
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "quant/workdir.h"
#include "tests/fuzz/fuzz.h"

enum { ROWS = 3, COLS = 8, FRONT = 16 /* magic and hash */ };

static const nb_grid grids[] = {{.bits = 4, .group_size = 4},
                                {.bits = 2, .group_size = 0, .sym = true},
                                {.bits = 3, .group_size = 3, .bf16_scales = true},
                                {.bits = 8, .group_size = 16}};

static void use(const nb_rounded *r, const nb_grid *grid) {
  float values[ROWS * COLS];
  nb_rounded_values(r, 0, r->rows, values);
  for (int i = 0; i < ROWS * COLS; i++) {
    if (!(values[i] - values[i] == 0)) abort(); /* no number */
    if (r->codes[i] >> grid->bits) abort();
  }
  for (int64_t i = 0; i < r->groups * r->rows; i++) {
    if (r->zeros[i] >> grid->bits) abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const nb_grid *grid = &grids[data[0] % (sizeof grids / sizeof *grids)];
  nb_layer_shape shape = {.rows = ROWS, .cols = COLS, .grid = grid};
  size_t length = FRONT + size - 1;
  char *file = malloc(length);
  if (!file) return 0;
  uint64_t hash = XXH3_64bits(data + 1, size - 1);
  memcpy(file, "NBLAYER2", 8);
  memcpy(file + 8, &hash, sizeof hash);
  memcpy(file + FRONT, data + 1, size - 1);
  nb_rounded rounded;
  bool found;
  if (nb_layer_parse(file, length, &shape, &rounded, &found, NULL) == NIBBLE_OK && found) use(&rounded, grid);
  nb_rounded_free(&rounded);
  free(file);
  return 0;
}
