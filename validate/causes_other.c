/* Mistakes with GPTQ's format, with GGUF's and with plain tensors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/kernels.h"
#include "kernels/gptq.h"
#include "validate/trial.h"

/* ---- gptq ---- */

static void try_zeros(nb_trials *t, const nb_packed *as_is) {
  int64_t n = as_is->groups * as_is->rows;
  int most = (1 << nb_gptq_bits(as_is->format)) - 1;
  uint8_t *zeros = nb_alloc((uint64_t)n, 1);
  nb_packed m = *as_is;
  m.zeros = zeros;
  for (int shift = -1; zeros && shift <= 1; shift += 2) {
    for (int64_t i = 0; i < n; i++) zeros[i] = (uint8_t)(as_is->zeros[i] + shift);
    nb_trial(t, &(nb_reading){.packed = &m}, "zero-point-off-by-one", "every zero point is %+d", shift);
    for (int64_t i = 0; i < n; i++) zeros[i] = (uint8_t)((as_is->zeros[i] + shift) & most);
    nb_trial(t, &(nb_reading){.packed = &m}, "zero-point-off-by-one", "every zero point is %+d, and wraps around",
             shift);
  }
  free(zeros);
}

/* Codes within a word from the other end: what reading words of the other byte order, or AWQ's, comes near to. */
static void try_word_order(nb_trials *t, const nb_packed *as_is) {
  int bits = nb_gptq_bits(as_is->format);
  int64_t words = nb_gptq_words(as_is->cols, bits) * as_is->rows;
  if (32 % bits) return;
  uint32_t *codes = nb_alloc((uint64_t)words, sizeof *codes);
  const uint32_t *from = as_is->codes;
  nb_packed m = *as_is;
  m.codes = codes;
  for (int64_t i = 0; codes && i < words; i++) {
    codes[i] = 0;
    for (int k = 0; k < 32; k += bits) codes[i] |= (from[i] >> k & ((1u << bits) - 1)) << (32 - bits - k);
  }
  if (codes) nb_trial(t, &(nb_reading){.packed = &m}, "codes-reversed", "the codes of every word are in reverse");
  free(codes);
}

static void try_groups(nb_trials *t, const nb_packed *as_is) {
  nb_packed m = *as_is;
  if (as_is->g_idx) {
    m.g_idx = NULL;
    nb_trial(t, &(nb_reading){.packed = &m}, "group-order-wrong", "g_idx is left out and the groups taken in order");
  }
  int32_t *g_idx = nb_alloc((uint64_t)m.cols, sizeof *g_idx);
  m.g_idx = g_idx;
  for (int64_t i = 0; g_idx && i < m.cols; i++)
    g_idx[i] = (int32_t)(m.groups - 1 - nb_min_i64(nb_gptq_group(as_is, i), m.groups - 1));
  if (g_idx) nb_trial(t, &(nb_reading){.packed = &m}, "group-order-wrong", "the groups are taken from the last");
  for (int shift = -1; g_idx && shift <= 1; shift += 2) {
    for (int64_t i = 0; i < m.cols; i++) g_idx[i] = (int32_t)((nb_gptq_group(as_is, i) + m.groups + shift) % m.groups);
    nb_trial(t, &(nb_reading){.packed = &m}, "scales-shifted", "every group is taken as the one %s",
             shift > 0 ? "after it" : "before it");
  }
  free(g_idx);
}

static void try_others_scales(nb_trials *t, const nb_packed *as_is) {
  const nb_checkpoint *c = t->suspect->artifact;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *tensor = &c->tensors[i];
    nb_values other;
    if (tensor == t->suspect->copy->source.tensor || !tensor->layout) continue;
    if (nb_values_open(c, tensor, &other, NULL) == NIBBLE_OK) {
      const nb_packed *o = &other.source.weight.packed;
      if (o->format == as_is->format && o->rows == as_is->rows && o->groups == as_is->groups) {
        nb_packed m = *as_is;
        m.scale.data = o->scale.data;
        m.scale.dtype = o->scale.dtype;
        nb_trial(t, &(nb_reading){.packed = &m}, "scales-of-other-layer", "its scales are those of '%s'",
                 other.source.name);
      }
    }
    nb_values_close(&other);
  }
}

/* The other weight of the artifact that has the very same scales, malloc'd; NULL if there is none. */
static char *name_of_same_scales(const nb_trials *t, const nb_packed *m) {
  const nb_checkpoint *c = t->suspect->artifact;
  size_t bytes = (size_t)(m->groups * m->rows) * nb_dtype_size(m->scale.dtype);
  char *name = NULL;
  for (size_t i = 0; !name && i < c->tensor_count; i++) {
    const nb_tensor *tensor = &c->tensors[i];
    nb_values other;
    if (tensor == t->suspect->copy->source.tensor || !tensor->layout) continue;
    if (nb_values_open(c, tensor, &other, NULL) == NIBBLE_OK) {
      const nb_packed *o = &other.source.weight.packed;
      bool alike =
          o->format == m->format && o->rows == m->rows && o->groups == m->groups && o->scale.dtype == m->scale.dtype;
      if (alike && memcmp(o->scale.data, m->scale.data, bytes) == 0) name = strdup(other.source.name);
    }
    nb_values_close(&other);
  }
  return name;
}

/* What is left of a sampled row's squared error if every group had the scale that fits it best. */
static double row_with_best_scales(const nb_packed *m, const float *want, const float *have, double *product,
                                   double *copies) {
  double left = 0;
  for (int64_t g = 0; g < m->groups; g++) product[g] = copies[g] = 0;
  for (int64_t c = 0; c < m->cols; c++) {
    int64_t g = nb_gptq_group(m, c);
    product[g] += (double)want[c] * (double)have[c];
    copies[g] += (double)have[c] * (double)have[c];
    left += (double)want[c] * (double)want[c];
  }
  for (int64_t g = 0; g < m->groups; g++) left -= copies[g] > 0 ? product[g] * product[g] / copies[g] : 0;
  return left;
}

/* The last resort: only where nothing tells what happened to the scales. */
static void try_best_scales(nb_trials *t, const nb_packed *m) {
  double *sums = nb_alloc(2 * (uint64_t)m->groups, sizeof *sums), left = 0, squares = 0;
  for (int i = 0; sums && i < t->sample_count; i++) {
    const float *want = t->want + (size_t)i * (size_t)t->cols;
    nb_packed_read(nb_dequantizer(m->format), m, t->sample[i] * t->cols, t->cols, t->have);
    left += row_with_best_scales(m, want, t->have, sums, sums + m->groups);
    for (int64_t c = 0; c < t->cols; c++) squares += (double)want[c] * (double)want[c];
  }
  free(sums);
  if (!(squares > 0)) return;
  double error = sqrt(fmax(0, left) / squares);
  char *same = name_of_same_scales(t, m);
  if (same) {
    nb_trial_keep(t, error, "scales-of-other-layer", "its scales, which are those of '%s', are fitted anew", same);
  } else {
    nb_trial_keep(t, error, "scales-damaged", "every group's scale is fitted anew");
  }
  free(same);
}

void nb_trials_gptq(nb_trials *t) {
  const nb_packed *m = &t->suspect->copy->source.weight.packed;
  try_zeros(t, m);
  try_word_order(t, m);
  try_groups(t, m);
  try_others_scales(t, m);
  if (!isfinite(t->best)) try_best_scales(t, m);
}

/* ---- gguf ---- */

/* A change to a block, of which `last` and `next` are the neighbours, the ends joined. */
typedef void (*block_change)(uint8_t *block, const uint8_t *last, const uint8_t *next);

static void swap_nibbles(uint8_t *block, const uint8_t *last, const uint8_t *next) {
  (void)last, (void)next;
  for (int i = 2; i < 18; i++) block[i] = (uint8_t)(block[i] << 4 | block[i] >> 4);
}

/* Codes 2i and 2i + 1 in a byte, as bitsandbytes has them (but for the order of the halves), to GGUF's i and i + 16. */
static void part_pairs(uint8_t *block, const uint8_t *last, const uint8_t *next) {
  (void)last, (void)next;
  uint8_t codes[32];
  for (size_t i = 0; i < 16; i++) {
    codes[2 * i] = block[2 + i] & 15;
    codes[2 * i + 1] = block[2 + i] >> 4;
  }
  for (int i = 0; i < 16; i++) block[2 + i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
}

static void flip_signs(uint8_t *block, const uint8_t *last, const uint8_t *next) {
  (void)last, (void)next;
  for (int i = 2; i < 34; i++) block[i] ^= 0x80;
}

static void scale_of_last(uint8_t *block, const uint8_t *last, const uint8_t *next) {
  (void)next;
  memcpy(block, last, 2);
}

static void scale_of_next(uint8_t *block, const uint8_t *last, const uint8_t *next) {
  (void)last;
  memcpy(block, next, 2);
}

/* Of blocks that are a float16 and then the codes, two a byte or one. */
static const struct {
  int bits;
  block_change change;
  const char *cause, *text;
} block_mistakes[] = {
    {4, swap_nibbles, "nibbles-swapped", "the halves of every byte are swapped"},
    {4, part_pairs, "codes-in-pairs", "a byte's halves are neighbours, as in bitsandbytes"},
    {4, scale_of_last, "scales-shifted", "every scale is taken from the block before"},
    {4, scale_of_next, "scales-shifted", "every scale is taken from the next block"},
    {8, flip_signs, "codes-unsigned", "its codes are taken as 128 more than they are"},
    {8, scale_of_last, "scales-shifted", "every scale is taken from the block before"},
    {8, scale_of_next, "scales-shifted", "every scale is taken from the next block"},
};

static bool is_scale_and_codes(const nb_format_row *info) {
  const nb_block_layout *l = &info->block;
  return l->weights == 32 && l->codes == 2 && l->bytes == 2 + l->code_bytes && l->code_bytes == 4 * info->bits;
}

void nb_trials_gguf(nb_trials *t) {
  const nb_source *s = &t->suspect->copy->source;
  const nb_tensor *tensor = s->tensor;
  const nb_format_row *info = nb_format_info(tensor->format);
  const uint8_t *raw = nb_tensor_raw(s->checkpoint, tensor);
  if (tensor->permute_heads || !is_scale_and_codes(info)) return; /* or its rows lie in another order */
  int64_t size = info->block.bytes, blocks = tensor->count / info->block.weights;
  uint8_t *codes = nb_alloc_aligned((uint64_t)tensor->bytes, 1);
  nb_packed m = {.format = tensor->format, .rows = t->rows, .cols = t->cols, .codes = codes};
  for (size_t k = 0; codes && k < sizeof block_mistakes / sizeof *block_mistakes; k++) {
    if (block_mistakes[k].bits != info->bits) continue;
    memcpy(codes, raw, (size_t)tensor->bytes);
    for (int64_t b = 0; b < blocks; b++)
      block_mistakes[k].change(codes + b * size, raw + (b + blocks - 1) % blocks * size, raw + (b + 1) % blocks * size);
    nb_trial(t, &(nb_reading){.packed = &m}, block_mistakes[k].cause, "%s", block_mistakes[k].text);
  }
  free(codes);
}

/* ---- plain ---- */

void nb_trials_plain(nb_trials *t) {
  const nb_source *s = &t->suspect->copy->source;
  const nb_tensor *tensor = s->tensor;
  const uint8_t *view = nb_tensor_view(s->checkpoint, tensor);
  size_t size = nb_dtype_size(tensor->dtype);
  nb_packed m = {.rows = t->rows, .cols = t->cols};
  if (!view || !nb_format_of_dtype(tensor->dtype, &m.format)) return;
  uint8_t *codes = nb_alloc_aligned((uint64_t)tensor->count, size);
  if (!codes) return;
  m.codes = codes;
  for (int64_t i = 0; i < tensor->count; i++) {
    for (size_t k = 0; k < size; k++) codes[(size_t)i * size + k] = view[(size_t)i * size + size - 1 - k];
  }
  nb_trial(t, &(nb_reading){.packed = &m}, "bytes-swapped", "the bytes of every value are swapped");
  if (size == 2) {
    memcpy(codes, view, (size_t)tensor->bytes);
    if (!nb_format_of_dtype(tensor->dtype == NB_F16 ? NB_BF16 : NB_F16, &m.format)) goto done;
    nb_trial(t, &(nb_reading){.packed = &m}, "dtype-confused", "its bits are read as %s",
             nb_format_info(m.format)->name);
  }
done:
  free(codes);
}
