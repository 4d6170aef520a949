/* The packed integers of GPTQ's layout (Frantar et al. 2022, arXiv:2210.17323), as AutoGPTQ and GPTQModel write them:
 * a code of `bits` bits, 2, 3, 4 or 8, for every weight, a scale and a zero point for every group of columns and row,
 * weight = scale * (code - zero). Codes of one row run down a column of 32-bit words, lowest bits first, as one stream
 * of bits: 32 codes fill `bits` words, and codes of 3 bits cross from one word to the next.
 * Zero points run along a row of words in the same way. Version 1 of the layout stores them less one. */
#ifndef NB_KERNELS_GPTQ_H
#define NB_KERNELS_GPTQ_H

#include "kernels/formats.h"

/* The format of so many bits; false if there is none. */
bool nb_gptq_format(int64_t bits, nb_format *out);

/* 2, 3, 4 or 8; 0 for a format of another family. */
int nb_gptq_bits(nb_format format);

/* 32-bit words that `count` codes take, the last padded. */
int64_t nb_gptq_words(int64_t count, int bits);

/* A matrix of codes, one a byte. */
typedef struct nb_gptq_codes {
  const uint8_t *data; /* [rows, cols] */
  int64_t rows, cols;
  int bits; /* of a code */
} nb_gptq_codes;

/* Packs the codes into words [nb_gptq_words(cols), rows], whose rows of words begin `stride` apart: they may be a part
 * of those of a larger matrix. */
void nb_gptq_pack(const nb_gptq_codes *codes, uint32_t *words, int64_t stride);

/* One group's zero points [rows] to and from words [nb_gptq_words(rows)]. With `less_one` they are stored less one, as
 * version 1 has them: for 2, 4 and 8 bits by a subtraction on whole words, whose borrow crosses fields (GPTQModel's
 * utils/model.py), for 3 bits in each field by itself (its utils/model_dequant.py). */
void nb_gptq_pack_zeros(const uint8_t *zeros, int64_t rows, int bits, bool less_one, uint32_t *words);
void nb_gptq_unpack_zeros(const uint32_t *words, int64_t rows, int bits, bool less_one, uint8_t *zeros);

/* nb_dequantize_fn for all four formats, whichever way the words lie. */
void nb_gptq_dequantize(nb_tile t, float *out, int64_t stride);

/* The scale and the zero point of row `row` in group `group`. */
float nb_gptq_scale(const nb_packed *m, int64_t group, int64_t row);
uint8_t nb_gptq_zero(const nb_packed *m, int64_t group, int64_t row);

/* As files have them, the words of one row lie in as many pages; kernels like bands of rows that follow each other, the
 * last perhaps narrower, as wide as what one of them works on together, so that it reads from one end to the other:
 *
 *   words [rows / band][nb_gptq_words(cols)][band], scales and zeros [rows / band][groups][band] */

/* Where what belongs to `row` begins, and how far it is to what comes next for the same row, in a matrix of `count`
 * words or groups a row. */
static inline int64_t nb_gptq_at(const nb_packed *m, int64_t row, int64_t count, int64_t *step) {
  int64_t first = m->band ? row / m->band * m->band : 0, rest = m->rows - first;
  *step = m->band && rest > m->band ? m->band : rest;
  return first * count + row - first;
}

/* True if `rows` rows that begin where a kernel works lie beside each other: bands may have been made for another
 * instruction set, whose vectors are narrower. */
static inline bool nb_gptq_beside(const nb_packed *m, int64_t rows) { return !m->band || m->band >= rows; }

/* The rows of a band that the kernels in use like; multiples of those that any others work on together. */
int nb_gptq_band(void);

/* True if a copy of w in bands is faster to work with: its rows fill vectors. */
bool nb_gptq_repackable(const nb_packed *w);

/* A copy of w in bands; it takes the memory of the original and no more. Columns that g_idx shuffles are sorted by
 * their groups where these have the same number of columns, so that a group's scale is loaded once. *memory, to be
 * freed with free(), is all that *out points to. False if there is none. */
bool nb_gptq_repack(const nb_packed *w, nb_packed *out, void **memory);

static inline int64_t nb_gptq_group(const nb_packed *m, int64_t col) {
  return m->g_idx ? m->g_idx[col] : col / m->scale.block_cols;
}

#endif
