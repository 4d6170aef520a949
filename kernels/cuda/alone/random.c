#include "kernels/cuda/alone/random.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/gptq.h"

uint64_t nb_random_next(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static float uniform(uint64_t *state) { return (float)(nb_random_next(state) >> 40) * 0x1p-24f; }

/* The sum of four uniform numbers is normal enough. */
void nb_random_floats(uint64_t seed, float spread, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i++) {
    float sum = uniform(&seed) + uniform(&seed) + uniform(&seed) + uniform(&seed);
    out[i] = (sum - 2) * 1.7320508f * spread;
  }
}

static void *own(nb_random_matrix *r, int64_t bytes) {
  void *p = nb_alloc((uint64_t)bytes + 8, 1);
  r->owned[r->count++] = p;
  return p;
}

static bool fill_bits(nb_random_matrix *r, uint64_t *state, int64_t bytes, const void **out) {
  uint64_t *words = own(r, bytes);
  for (int64_t i = 0; words && i < bytes / 8 + 1; i++) words[i] = nb_random_next(state);
  *out = words;
  return words != NULL;
}

static bool fill_positive(nb_random_matrix *r, uint64_t *state, int64_t n, float most, const float **out) {
  float *values = own(r, n * (int64_t)sizeof *values);
  for (int64_t i = 0; values && i < n; i++) values[i] = (0.01f + uniform(state)) * most;
  *out = values;
  return values != NULL;
}

/* Repeated after PERIOD values, a prime: no two rows of a weight are the same, and large ones are soon made. */
static bool fill_plain(nb_random_matrix *r, uint64_t *state, nb_dtype dtype) {
  enum { PERIOD = 1048573 };
  int64_t n = r->m.rows * r->m.cols, size = (int64_t)nb_dtype_size(dtype);
  char *values = own(r, n * size);
  for (int64_t i = 0; values && i < n && i < PERIOD; i++) {
    float v;
    nb_random_floats(nb_random_next(state), 1, 1, &v);
    nb_from_f32(dtype, &v, 1, values + i * size);
  }
  for (int64_t i = PERIOD; values && i < n; i += PERIOD)
    memcpy(values + i * size, values, (size_t)(nb_min_i64(PERIOD, n - i) * size));
  r->m.codes = values;
  return values != NULL;
}

static bool fill_4bit(nb_random_matrix *r, uint64_t *state, const nb_random_options *o) {
  nb_packed *m = &r->m;
  int64_t count = m->rows * m->cols;
  int64_t blocks = nb_ceil_div(count, m->scale.block_cols);
  if (!fill_bits(r, state, (count + 1) / 2, &m->codes)) return false;
  const float *values = NULL;
  if (!o->double_quant) {
    bool ok = fill_positive(r, state, blocks, 1, &values);
    m->scale.data = values;
    return ok;
  }
  m->scale.offset = 0.3f;
  const void *codes = NULL;
  bool ok = fill_bits(r, state, blocks, &codes) && fill_positive(r, state, 256, 0.5f, &m->scale.codebook) &&
            fill_positive(r, state, nb_ceil_div(blocks, 256), 0.25f, &values);
  m->scale.data = codes;
  m->second.data = values;
  return ok;
}

static void shuffle(uint64_t *state, int32_t *values, int64_t n) {
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = (int64_t)(nb_random_next(state) % (uint64_t)(i + 1));
    int32_t keep = values[i];
    values[i] = values[j];
    values[j] = keep;
  }
}

static bool fill_gptq(nb_random_matrix *r, uint64_t *state, const nb_random_options *o) {
  nb_packed *m = &r->m;
  int bits = nb_gptq_bits(m->format);
  m->scale.dtype = o->bf16 ? NB_BF16 : NB_F16;
  int64_t scales = m->groups * m->rows;
  uint16_t *scale = own(r, scales * 2);
  uint8_t *zeros = own(r, scales);
  if (!scale || !zeros || !fill_bits(r, state, nb_gptq_words(m->cols, bits) * m->rows * 4, &m->codes)) return false;
  for (int64_t i = 0; i < scales; i++) {
    float v = 0.01f + uniform(state) * 0.1f;
    scale[i] = o->bf16 ? nb_f32_to_bf16(v) : nb_f32_to_f16(v);
    zeros[i] = (uint8_t)(nb_random_next(state) & ((1u << bits) - 1));
  }
  m->scale.data = scale;
  m->zeros = zeros;
  if (!o->act_order) return true;
  int32_t *g_idx = own(r, m->cols * (int64_t)sizeof *g_idx);
  if (!g_idx) return false;
  for (int64_t c = 0; c < m->cols; c++) g_idx[c] = (int32_t)(c / m->scale.block_cols);
  shuffle(state, g_idx, m->cols);
  m->g_idx = g_idx;
  return true;
}

bool nb_random_create(const nb_random_options *o, uint64_t seed, nb_random_matrix *out) {
  int64_t block = o->block_size ? o->block_size : o->group_size;
  *out = (nb_random_matrix){.m = nb_packed_usual(o->format, o->rows, o->cols, block, o->double_quant)};
  uint64_t state = seed * 1000003 + (uint64_t)(o->rows * 31 + o->cols);
  const nb_format_row *info = nb_format_info(o->format);
  const float *scb = NULL;
  bool ok;
  if (info->scheme == NB_SCHEME_PLAIN) {
    ok = fill_plain(out, &state, info->plain);
  } else if (info->scheme == NB_SCHEME_SYMMETRIC) {
    ok = fill_bits(out, &state, o->rows * o->cols, &out->m.codes) && fill_positive(out, &state, o->rows, 1, &scb);
    out->m.scale.data = scb;
  } else if (info->scheme == NB_SCHEME_AFFINE) {
    ok = fill_gptq(out, &state, o);
  } else {
    ok = fill_4bit(out, &state, o);
  }
  if (!ok) nb_random_free(out);
  return ok;
}

void nb_random_free(nb_random_matrix *matrix) {
  for (int i = 0; i < matrix->count; i++) free(matrix->owned[i]);
  *matrix = (nb_random_matrix){0};
}
