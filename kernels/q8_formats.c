#include <math.h>

#include "kernels/gguf_parts.h"
#include "kernels/gptq.h"
#include "kernels/q8.h"

enum { MULTIPLE = 64 }; /* columns: of the widest kernel */

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

static bool any_shape(const nb_packed *w) {
  (void)w;
  return true;
}

static bool blocks_hold_groups(const nb_packed *w) {
  return w->scale.block_cols >= MULTIPLE && (w->scale.block_cols & (w->scale.block_cols - 1)) == 0;
}

static bool groups_in_order(const nb_packed *w) {
  return !w->g_idx && w->scale.block_cols % NB_Q8_BLOCK == 0 && w->rows % 16 == 0;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static void weights_4bit(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  float steps = nb_format_info(w->format)->q8_steps;
  int64_t flat = row * w->cols + block * NB_Q8_BLOCK;
  const uint8_t *at = (const uint8_t *)w->codes + flat / 2;
  for (int j = 0; j < NB_Q8_BLOCK; j++) {
    float value = w->codebook[j % 2 ? at[j / 2] & 15 : at[j / 2] >> 4];
    out->codes[j] = (int16_t)lrintf(fminf(fmaxf(value, -1), 1) * steps);
  }
  out->scales[0] = out->scales[1] = nb_block_scale(w, flat / w->scale.block_cols) * (1 / steps);
}

static void weights_int8(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  const int8_t *at = (const int8_t *)w->codes + row * w->cols + block * NB_Q8_BLOCK;
  for (int j = 0; j < NB_Q8_BLOCK; j++) out->codes[j] = at[j];
  out->scales[0] = out->scales[1] = nb_row_scale(w, row);
}

static const uint8_t *gguf_block(const nb_packed *w, int64_t row, int64_t block) {
  const nb_format_row *info = nb_format_info(w->format);
  int64_t each = info->block.weights / NB_Q8_BLOCK;
  return (const uint8_t *)w->codes + (row * (w->cols / info->block.weights) + block / each) * info->block.bytes;
}

static void weights_q4_0(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  const uint8_t *at = gguf_block(w, row, block);
  for (int j = 0; j < 16; j++) {
    out->codes[j] = (int16_t)((at[2 + j] & 15) - 8);
    out->codes[j + 16] = (int16_t)((at[2 + j] >> 4) - 8);
  }
  out->scales[0] = out->scales[1] = nb_half_at(at);
}

static void weights_q8_0(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  const uint8_t *at = gguf_block(w, row, block);
  for (int j = 0; j < NB_Q8_BLOCK; j++) out->codes[j] = (int8_t)at[2 + j];
  out->scales[0] = out->scales[1] = nb_half_at(at);
}

static void weights_q4_k(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  const uint8_t *at = gguf_block(w, row, block);
  int part = (int)(block % 8), scale, minimum;
  nb_scale_and_minimum(at + 4, part, &scale, &minimum);
  for (int j = 0; j < NB_Q8_BLOCK; j++) out->codes[j] = at[16 + part / 2 * 32 + j] >> part % 2 * 4 & 15;
  out->scales[0] = out->scales[1] = nb_half_at(at) * (float)scale;
  out->minimum = nb_half_at(at + 2) * (float)minimum;
}

static void weights_q6_k(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  const uint8_t *at = gguf_block(w, row, block);
  int64_t part = block % 8, half = part / 4, quarter = part % 4;
  const uint8_t *low = at + half * 64 + quarter % 2 * 32, *high = at + 128 + half * 32;
  for (int j = 0; j < NB_Q8_BLOCK; j++) {
    int code = (low[j] >> quarter / 2 * 4 & 15) | (high[j] >> quarter * 2 & 3) << 4;
    out->codes[j] = (int16_t)(code - 32);
  }
  for (int j = 0; j < 2; j++) out->scales[j] = nb_half_at(at + 208) * (float)(int8_t)at[192 + part * 2 + j];
}

static void weights_gptq(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  int bits = nb_gptq_bits(w->format), codes = 32 / bits;
  int64_t col = block * NB_Q8_BLOCK, group = col / w->scale.block_cols;
  int64_t step, at = nb_gptq_at(w, row, nb_gptq_words(w->cols, bits), &step);
  const uint32_t *words = (const uint32_t *)w->codes + at + col / codes * step;
  for (int j = 0; j < NB_Q8_BLOCK; j++)
    out->codes[j] = (int16_t)(words[j / codes * step] >> j % codes * bits & ((1u << bits) - 1));
  out->scales[0] = out->scales[1] = nb_gptq_scale(w, group, row);
  out->minimum = out->scales[0] * (float)nb_gptq_zero(w, group, row);
}

const nb_q8_form nb_q8_codebook = {weights_4bit, blocks_hold_groups}, nb_q8_int8 = {weights_int8, any_shape},
                 nb_q8_q4_0 = {weights_q4_0, any_shape}, nb_q8_q8_0 = {weights_q8_0, any_shape},
                 nb_q8_q4_k = {weights_q4_k, any_shape}, nb_q8_q6_k = {weights_q6_k, any_shape},
                 nb_q8_gptq = {weights_gptq, groups_in_order};

bool nb_q8_fits(const nb_packed *w) {
  const nb_q8_form *form = nb_format_info(w->format)->q8;
  return form && w->cols % MULTIPLE == 0 && form->fits(w);
}

void nb_q8_weights_at(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out) {
  out->minimum = 0;
  nb_format_info(w->format)->q8->weights(w, row, block, out);
}
