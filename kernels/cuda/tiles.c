#include "kernels/cuda/tiles.h"

#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/gptq.h"

/* ---- which layout ----------------------------------------------------------------------------------------------- */

/* True if every bfloat16 is finite in float16, in which the tensor cores are to see it: three bits more for what a
 * weight usually is, and only what is smaller than 6e-5 loses some. */
static bool fits_f16(const nb_packed *m) {
  const char *at = m->codes;
  for (int64_t i = 0; i < m->rows * m->cols; i++) {
    uint16_t bits;
    memcpy(&bits, at + i * 2, sizeof bits);
    if ((bits & 0x7fff) >= 0x4780) return false; /* 65536 */
  }
  return true;
}

static nb_tiled_kind kind_of(const nb_packed *m) {
  const nb_format_row *info = nb_format_info(m->format);
  if (info->plain == NB_BF16 && !fits_f16(m)) return NB_TILED_NONE;
  if (info->tiled == NB_TILED_LUT4 && m->second.block_cols) return NB_TILED_LUT4_TWICE;
  return info->tiled;
}

static int unit_words_of(nb_tiled_kind kind) {
  switch (kind) {
    case NB_TILED_LUT4:
    case NB_TILED_LUT4_TWICE:
    case NB_TILED_GPTQ4: return 4;
    case NB_TILED_INT8:
    case NB_TILED_GPTQ8: return 8;
    default: return 16;
  }
}

/* Most columns that any group has. */
static int64_t widest_group(const nb_packed *m) {
  if (!m->g_idx) return nb_min_i64(m->scale.block_cols, m->cols);
  int64_t widest = 0;
  for (int64_t g = 0; g < m->groups; g++) {
    int64_t count = 0;
    for (int64_t c = 0; c < m->cols; c++) count += m->g_idx[c] == g;
    widest = nb_max_i64(widest, count);
  }
  return widest;
}

/* True if place i of the order is column i, but for padding at the end. */
static bool is_in_order(const nb_packed *m, const nb_tiles *t) {
  int64_t step = t->group_tiles * NB_TILE_COLS;
  for (int64_t c = 0; c < m->cols; c++) {
    if (nb_gptq_group(m, c) != c / step) return false;
  }
  return true;
}

/* Groups are padded to whole tiles; where that would add more than a quarter, the matrix stays as it is. */
static bool plan_gptq(const nb_packed *m, nb_tiles *t) {
  if (m->scale.dtype != NB_F16 && m->scale.dtype != NB_BF16) return false;
  t->scale_is_bf16 = m->scale.dtype == NB_BF16;
  t->groups = m->groups;
  t->group_tiles = nb_max_i64(1, nb_ceil_div(widest_group(m), NB_TILE_COLS));
  t->reordered = !is_in_order(m, t);
  /* In order, tiles are needed up to the last column only. */
  if (t->reordered) t->col_tiles = t->groups * t->group_tiles;
  return !t->reordered || (t->col_tiles - 1) * NB_TILE_COLS <= m->cols + m->cols / 4;
}

static bool plan_blocks(const nb_packed *m, nb_tiles *t) {
  if (m->scale.block_cols % NB_TILE_COLS != 0 || m->cols % m->scale.block_cols != 0) return false;
  t->block_tiles = m->scale.block_cols / NB_TILE_COLS;
  return !m->second.block_cols || m->second.block_cols == 256;
}

bool nb_tiles_plan(const nb_packed *m, nb_tiles *out) {
  nb_tiled_kind kind = kind_of(m);
  nb_tiles t = {.kind = kind,
                .rows = m->rows,
                .cols = m->cols,
                .row_tiles = nb_ceil_div(m->rows, NB_TILE_ROWS),
                .col_tiles = nb_ceil_div(m->cols, NB_TILE_COLS),
                .unit_words = unit_words_of(kind)};
  /* The kernels count columns' tiles in 16 bits, and blocks in 32. */
  bool fits = kind != NB_TILED_NONE && m->rows > 0 && m->cols > 0 && t.col_tiles <= UINT16_MAX &&
              t.row_tiles * NB_TILE_ROWS <= INT32_MAX / t.col_tiles;
  if (kind == NB_TILED_GPTQ4 || kind == NB_TILED_GPTQ8) fits = fits && plan_gptq(m, &t);
  if (nb_is_lut4(kind)) fits = fits && plan_blocks(m, &t);
  if (!fits) t.kind = NB_TILED_NONE;
  *out = t;
  return fits;
}

int64_t nb_tiles_code_bytes(const nb_tiles *t) {
  return t->col_tiles * NB_TILE_SLABS * 32 * t->unit_words * (int64_t)sizeof(uint32_t);
}

int64_t nb_tiles_scale_bytes(const nb_tiles *t) {
  switch (t->kind) {
    case NB_TILED_LUT4:
    case NB_TILED_LUT4_TWICE: return t->col_tiles * nb_tile_scale_bytes(t->kind);
    case NB_TILED_INT8: return NB_TILE_ROWS * (int64_t)sizeof(float);
    case NB_TILED_GPTQ4:
    case NB_TILED_GPTQ8: return t->groups * NB_TILE_ROWS * (int64_t)sizeof(uint32_t);
    default: return 0;
  }
}

void nb_tiles_order(const nb_packed *m, const nb_tiles *t, int32_t *order) {
  int64_t places = t->col_tiles * NB_TILE_COLS, step = t->group_tiles * NB_TILE_COLS;
  for (int64_t i = 0; i < places; i++) order[i] = !t->reordered && i < m->cols ? (int32_t)i : -1;
  if (!t->reordered) return;
  for (int64_t g = 0; g < m->groups; g++) {
    int64_t at = g * step;
    for (int64_t c = 0; c < m->cols; c++) {
      if (nb_gptq_group(m, c) == g) order[at++] = (int32_t)c;
    }
  }
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

typedef struct pack_job {
  const nb_packed *m;
  const nb_tiles *t;
  const int32_t *order; /* NULL: columns lie in order */
  uint32_t *codes;
  void *scales;
  int64_t first;
} pack_job;

static uint32_t source_code(const nb_packed *m, const nb_format_row *info, int64_t row, int64_t col) {
  int64_t at = row * m->cols + col;
  switch (info->scheme) {
    case NB_SCHEME_CODEBOOK: {
      uint8_t byte = ((const uint8_t *)m->codes)[at >> 1];
      return at & 1 ? byte & 15u : (uint32_t)byte >> 4;
    }
    case NB_SCHEME_SYMMETRIC: return ((const uint8_t *)m->codes)[at] ^ 0x80u;
    case NB_SCHEME_AFFINE: {
      int each = 32 / info->bits; /* a power of two, or the format has no tiles */
      return ((const uint32_t *)m->codes)[col / each * m->rows + row] >> col % each * info->bits &
             ((1u << info->bits) - 1);
    }
    default: {
      uint16_t bits;
      memcpy(&bits, (const char *)m->codes + at * 2, sizeof bits);
      return info->plain == NB_BF16 ? nb_f32_to_f16(nb_bf16_to_f32(bits)) : bits;
    }
  }
}

static void pack_codes(const pack_job *job, int64_t row_tile) {
  const nb_tiles *t = job->t;
  const nb_format_row *info = nb_format_info(job->m->format);
  int64_t words = nb_tiles_code_bytes(t) / (int64_t)sizeof(uint32_t);
  uint32_t *codes = job->codes + (row_tile - job->first) * words;
  memset(codes, 0, (size_t)words * sizeof *codes);
  int64_t first_row = row_tile * NB_TILE_ROWS, rows = nb_min_i64(NB_TILE_ROWS, t->rows - first_row);
  for (int64_t c = 0; c < t->col_tiles * NB_TILE_COLS; c++) {
    int64_t col = job->order ? job->order[c] : c;
    if (col < 0 || col >= t->cols) continue;
    for (int r = 0; r < rows; r++) {
      nb_unit_place p = nb_place_in_tile(r, (int)(c % NB_TILE_COLS));
      int shift, word = nb_unit_word(t->kind, p, &shift);
      codes[nb_word_index(t->unit_words, c / NB_TILE_COLS, p.slab, p.lane, word)] |=
          source_code(job->m, info, first_row + r, col) << shift;
    }
  }
}

/* A group's scale in the low half of a word, its zero point in the high. */
static uint32_t group_word(const nb_packed *m, int64_t group, int64_t row) {
  uint16_t scale;
  memcpy(&scale, (const char *)m->scale.data + (group * m->rows + row) * 2, sizeof scale);
  return scale | (uint32_t)m->zeros[group * m->rows + row] << 16;
}

static void pack_scales(const pack_job *job, int64_t row_tile) {
  const nb_tiles *t = job->t;
  const nb_packed *m = job->m;
  char *at = (char *)job->scales + (row_tile - job->first) * nb_tiles_scale_bytes(t);
  memset(at, 0, (size_t)nb_tiles_scale_bytes(t));
  int64_t first_row = row_tile * NB_TILE_ROWS, rows = nb_min_i64(NB_TILE_ROWS, t->rows - first_row);
  for (int r = 0; r < rows; r++) {
    int64_t row = first_row + r, slot = nb_scale_slot(r);
    switch (t->kind) {
      case NB_TILED_LUT4:
      case NB_TILED_LUT4_TWICE:
        for (int64_t c = 0; c < t->col_tiles; c++) {
          int64_t block = (row * t->cols + c * NB_TILE_COLS) / m->scale.block_cols;
          if (!m->second.block_cols) {
            ((float *)at)[c * NB_TILE_ROWS + slot] = ((const float *)m->scale.data)[block];
          } else {
            ((uint8_t *)at)[c * NB_TILE_ROWS + slot] = ((const uint8_t *)m->scale.data)[block];
          }
        }
        break;
      case NB_TILED_INT8: ((float *)at)[r] = nb_row_scale(m, row); break;
      case NB_TILED_GPTQ4:
      case NB_TILED_GPTQ8:
        for (int64_t g = 0; g < t->groups; g++) ((uint32_t *)at)[g * NB_TILE_ROWS + slot] = group_word(m, g, row);
        break;
      default: break;
    }
  }
}

static void pack_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const pack_job *job = ctx;
  for (int64_t i = job->first + begin; i < job->first + end; i++) {
    pack_codes(job, i);
    pack_scales(job, i);
  }
}

void nb_tiles_pack(const nb_tiling *from, int64_t first, int64_t count, uint32_t *codes, void *scales) {
  const nb_tiles *t = from->t;
  pack_job job = {.m = from->m, .t = t, .codes = codes, .scales = scales, .first = first};
  job.order = t->reordered ? from->order : NULL;
  nb_parallel(count, 1, pack_band, &job);
}

/* ---- the plan of a product -------------------------------------------------------------------------------------- */

enum { X_PAD = NB_TILE_COLS / 2, FLAG_BYTES = 16 };

static int64_t x_bytes(int columns, int64_t col_tiles) { return columns * (col_tiles * NB_TILE_COLS + X_PAD) * 2; }

/* Of the warps' sums, where those of a row tile are added up: in a long product those of two sets, by turns. */
static int64_t sum_bytes(bool is_long, int columns) {
  int64_t floats = is_long ? 2 * NB_PRODUCT_WARPS * NB_TILE_ROWS * columns
                           : NB_PRODUCT_WARPS / 2 * NB_TILE_ROWS * 8 * nb_product_n_tiles(columns);
  return floats * (int64_t)sizeof(float);
}

/* How the blocks share the units. */
static void share_out(int64_t sets, int64_t set_units, int64_t stages, int64_t processors, nb_product_plan *p) {
  enum { BUSY = 93 }; /* percent of the multiprocessors that whole sets must keep at work */
  int64_t rounds = nb_ceil_div(sets, processors), units = sets * set_units;
  bool whole = sets * 100 >= rounds * processors * BUSY;
  int64_t blocks = whole ? nb_ceil_div(sets, rounds) : nb_max_i64(1, nb_min_i64(processors, units / stages));
  p->set_units = (uint32_t)set_units;
  p->units = (uint32_t)units;
  p->blocks = (uint32_t)blocks;
  p->run_units = whole ? (uint32_t)(rounds * set_units) : 0;
}

/* Where things lie in shared memory, with so many stages. False if they do not fit. */
static bool lay_out(nb_tiled_kind kind, int64_t columns, int64_t stages, int64_t shared_limit, nb_product_plan *p) {
  enum { MOST = 8 }; /* units of a chunk: the first one is waited for */
  int64_t warps_k = nb_product_warps_k(p->is_long), sums = sum_bytes(p->is_long, (int)columns);
  int64_t before = nb_product_table_bytes(kind) + NB_PRODUCT_WARPS * stages * nb_stage_bytes(kind);
  int64_t chunk = p->set_units, x = x_bytes((int)columns, chunk * warps_k);
  if (!p->is_long) { /* one chunk in use and one on its way */
    int64_t run = p->run_units ? p->run_units : nb_ceil_div(p->units, p->blocks);
    chunk = ((shared_limit - before - sums - FLAG_BYTES) / (4 * columns) - X_PAD) / (warps_k * NB_TILE_COLS);
    chunk = nb_min_i64(nb_min_i64(chunk, MOST), run);
    if (chunk < 1) return false;
    x = 2 * x_bytes((int)columns, chunk * warps_k);
  }
  p->chunk_units = (uint32_t)chunk;
  p->stages = (int)stages;
  p->x_offset = before;
  p->sums_offset = before + x;
  p->shared_bytes = before + x + sums + FLAG_BYTES;
  return p->shared_bytes <= shared_limit;
}

bool nb_product_plan_make(const nb_product_shape *s, bool is_long, int stages, int processors, int64_t shared_limit,
                          nb_product_plan *out) {
  int64_t set_units = nb_ceil_div(s->col_tiles, nb_product_warps_k(is_long));
  if (is_long && (s->columns > 8 || x_bytes(s->columns, s->col_tiles) > NB_LONG_X_BYTES)) return false;
  if ((s->sets * set_units + 1) * (processors + 1) > UINT32_MAX) return false;
  *out = (nb_product_plan){.is_long = is_long, .n_tiles = nb_product_n_tiles(s->columns)};
  share_out(s->sets, set_units, stages, processors, out);
  return lay_out(s->kind, s->columns, stages, shared_limit, out);
}
