#include "kernels/gptq.h"

#include <string.h>

enum { WORD_BITS = 32 };

bool nb_gptq_format(int64_t bits, nb_format *out) {
  for (int i = 0; i < NB_FORMAT_COUNT; i++) {
    if (nb_gptq_bits((nb_format)i) == 0 || nb_gptq_bits((nb_format)i) != bits) continue;
    *out = (nb_format)i;
    return true;
  }
  return false;
}

int nb_gptq_bits(nb_format format) {
  const nb_format_row *info = nb_format_info(format);
  return info->scheme == NB_SCHEME_AFFINE ? info->bits : 0;
}

int64_t nb_gptq_words(int64_t count, int bits) {
  return count / WORD_BITS * bits + (count % WORD_BITS * bits + WORD_BITS - 1) / WORD_BITS;
}

/* Puts code number i into words that lie `step` apart and were zero; its field may cross into the next word. */
static void put(uint32_t *words, int64_t step, int64_t i, int bits, uint32_t code) {
  int64_t word = i * bits / WORD_BITS;
  int shift = (int)(i * bits % WORD_BITS);
  words[word * step] |= code << shift;
  if (shift + bits > WORD_BITS) words[(word + 1) * step] |= code >> (WORD_BITS - shift);
}

static uint32_t get(const uint32_t *words, int64_t step, int64_t i, int bits) {
  int64_t word = i * bits / WORD_BITS;
  int shift = (int)(i * bits % WORD_BITS);
  uint32_t code = words[word * step] >> shift;
  if (shift + bits > WORD_BITS) code |= words[(word + 1) * step] << (WORD_BITS - shift);
  return code & ((1u << bits) - 1);
}

/* Eight codes, the first in the lowest byte, side by side in 8 * bits: pairs are put together, then pairs of pairs. */
static inline uint64_t squeeze(uint64_t eight, int bits) {
  const uint64_t pairs = (1u << 2 * bits) - 1, fours = (1ull << 4 * bits) - 1;
  eight = (eight | eight >> (8 - bits)) & pairs * 0x0001000100010001;
  eight = (eight | eight >> (16 - 2 * bits)) & fours * 0x0000000100000001;
  return bits == 8 ? eight : (eight | eight >> (32 - 4 * bits)) & ((1ull << 8 * bits % 64) - 1);
}

/* A full run of 32 codes of one row, as `bits` words that lie `step` apart; bits is a constant. */
static inline __attribute__((always_inline)) void pack32(const uint8_t *codes, int bits, uint32_t *words,
                                                         int64_t step) {
  uint64_t waiting = 0; /* bits yet to be written, the first lowest */
  int count = 0;
  for (int i = 0; i < WORD_BITS; i += 8) {
    uint64_t eight;
    memcpy(&eight, codes + i, sizeof eight);
    eight = squeeze(eight, bits);
    waiting |= eight << count;
    count += 8 * bits;
    for (; count >= WORD_BITS; count -= WORD_BITS, words += step) {
      *words = (uint32_t)waiting;
      waiting >>= WORD_BITS;
    }
  }
}

/* Rows side by side for every 32 columns: their words are neighbours. */
static inline __attribute__((always_inline)) void pack_rows(const nb_gptq_codes *codes, int bits, uint32_t *words,
                                                            int64_t stride) {
  for (int64_t c = 0; c + WORD_BITS <= codes->cols; c += WORD_BITS, words += bits * stride) {
    for (int64_t r = 0; r < codes->rows; r++) pack32(codes->data + r * codes->cols + c, bits, words + r, stride);
  }
}

void nb_gptq_pack(const nb_gptq_codes *codes, uint32_t *words, int64_t stride) {
  switch (codes->bits) {
    case 2: pack_rows(codes, 2, words, stride); break;
    case 3: pack_rows(codes, 3, words, stride); break;
    case 4: pack_rows(codes, 4, words, stride); break;
    default: pack_rows(codes, 8, words, stride); break;
  }
  int64_t full = codes->cols / WORD_BITS, rest = codes->cols % WORD_BITS;
  words += full * codes->bits * stride;
  for (int64_t w = 0; w < nb_gptq_words(rest, codes->bits); w++)
    memset(words + w * stride, 0, (size_t)codes->rows * sizeof *words);
  for (int64_t r = 0; r < codes->rows; r++) {
    const uint8_t *row = codes->data + r * codes->cols + full * WORD_BITS;
    for (int64_t c = 0; c < rest; c++) put(words + r, stride, c, codes->bits, row[c]);
  }
}

/* A one in the lowest bit of every field of a word. */
static uint32_t ones(int bits) {
  uint32_t word = 0;
  for (int shift = 0; shift < WORD_BITS; shift += bits) word |= 1u << shift;
  return word;
}

void nb_gptq_pack_zeros(const uint8_t *zeros, int64_t rows, int bits, bool less_one, uint32_t *words) {
  int64_t n = nb_gptq_words(rows, bits);
  uint32_t mask = (1u << bits) - 1, less = less_one && bits == 3;
  memset(words, 0, (size_t)n * sizeof *words);
  for (int64_t r = 0; r < rows; r++) put(words, 1, r, bits, (zeros[r] - less) & mask);
  for (int64_t w = 0; less_one && bits != 3 && w < n; w++) words[w] -= ones(bits);
}

void nb_gptq_unpack_zeros(const uint32_t *words, int64_t rows, int bits, bool less_one, uint8_t *zeros) {
  uint32_t mask = (1u << bits) - 1;
  for (int64_t r = 0; r < rows; r++) {
    if (bits == 3) {
      zeros[r] = (uint8_t)((get(words, 1, r, bits) + less_one) & mask);
    } else {
      uint32_t word = words[r * bits / WORD_BITS] + (less_one ? ones(bits) : 0);
      zeros[r] = (uint8_t)(word >> r * bits % WORD_BITS & mask);
    }
  }
}

float nb_gptq_scale(const nb_packed *m, int64_t group, int64_t row) {
  int64_t step, at = nb_gptq_at(m, row, m->groups, &step);
  float scale;
  at += group * step;
  nb_to_f32(m->scale.dtype, (const char *)m->scale.data + (size_t)at * nb_dtype_size(m->scale.dtype), 1, &scale);
  return scale;
}

uint8_t nb_gptq_zero(const nb_packed *m, int64_t group, int64_t row) {
  int64_t step, at = nb_gptq_at(m, row, m->groups, &step);
  return m->zeros[at + group * step];
}

void nb_gptq_dequantize(nb_tile t, float *out, int64_t stride) {
  const nb_packed *m = t.packed;
  int bits = nb_gptq_bits(m->format);
  for (int64_t r = t.row; r < t.row + t.rows; r++, out += stride) {
    int64_t step, current = -1;
    const uint32_t *words = (const uint32_t *)m->codes + nb_gptq_at(m, r, nb_gptq_words(m->cols, bits), &step);
    float scale = 0;
    int zero = 0;
    for (int64_t c = t.col; c < t.col + t.cols; c++) {
      int64_t group = nb_gptq_group(m, c);
      if (group != current) {
        current = group;
        scale = nb_gptq_scale(m, group, r);
        zero = nb_gptq_zero(m, group, r);
      }
      out[c - t.col] = scale * (float)((int)get(words, step, c, bits) - zero);
    }
  }
}
