/* Mistakes with GPTQ's format and with plain tensors. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
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
    if (tensor == t->suspect->copy->source.tensor || !nb_layout_is_packed(c, tensor)) continue;
    if (nb_values_open(c, tensor, &other, NULL) == NIBBLE_OK) {
      const nb_packed *o = &other.source.weight.packed;
      if (o->format == as_is->format && o->rows == as_is->rows && o->groups == as_is->groups) {
        nb_packed m = *as_is;
        m.scales = o->scales;
        m.scale_dtype = o->scale_dtype;
        nb_trial(t, &(nb_reading){.packed = &m}, "scales-of-other-layer", "its scales are those of '%s'",
                 other.source.name);
      }
    }
    nb_values_close(&other);
  }
}

void nb_trials_gptq(nb_trials *t) {
  const nb_packed *m = &t->suspect->copy->source.weight.packed;
  try_zeros(t, m);
  try_word_order(t, m);
  try_groups(t, m);
  try_others_scales(t, m);
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
    m.format = m.format == NB_FORMAT_F16 ? NB_FORMAT_BF16 : NB_FORMAT_F16;
    nb_trial(t, &(nb_reading){.packed = &m}, "dtype-confused", "its bits are read as %s",
             nb_format_info(m.format)->name);
  }
  free(codes);
}
