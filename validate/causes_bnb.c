/* Mistakes with bitsandbytes' formats: halves of a byte, maps, scales. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/quantize.h"
#include "validate/trial.h"

typedef struct bnb {
  nb_trials *trials;
  nb_packed m;     /* as the artifact has it, double quantization undone */
  int64_t scales;  /* blocks or rows */
  float *restored; /* [scales] as they are */
  float *changed;  /* [scales] scratch */
  uint8_t *codes;  /* scratch for all codes */
  int64_t code_bytes;
} bnb;

static void try_codes(bnb *b, const char *cause, const char *text) {
  nb_packed m = b->m;
  m.codes = b->codes;
  nb_trial(b->trials, &(nb_reading){.packed = &m}, cause, "%s", text);
}

static void try_scales(bnb *b, const char *cause, const char *text) {
  nb_packed m = b->m;
  m.scale.data = b->changed;
  nb_trial(b->trials, &(nb_reading){.packed = &m}, cause, "%s", text);
}

/* ---- codes ---- */

static void try_code_orders(bnb *b) {
  const uint8_t *codes = b->m.codes;
  if (!b->m.codebook) {
    for (int64_t i = 0; i < b->code_bytes; i++) b->codes[i] = codes[i] ^ 0x80;
    try_codes(b, "codes-unsigned", "its codes are taken as 128 more than they are");
    return;
  }
  for (int64_t i = 0; i < b->code_bytes; i++) b->codes[i] = (uint8_t)(codes[i] << 4 | codes[i] >> 4);
  try_codes(b, "nibbles-swapped", "the halves of every byte are swapped");
  for (int64_t i = 0; i < b->code_bytes; i++) b->codes[i] = codes[i] ^ 0xff;
  try_codes(b, "codes-inverted", "every code is taken as 15 less it");
  /* GGUF: the low halves of a block's bytes are its first weights, the high halves the others. */
  int64_t half = b->m.scale.block_cols / 2, whole = b->code_bytes / half;
  memcpy(b->codes, codes, (size_t)b->code_bytes);
  for (int64_t block = 0; block < whole; block++) {
    for (int64_t i = 0; i < half; i++) {
      const uint8_t *p = codes + block * half;
      /* Weights 2i and 2i + 1 of the block lie at those places of the split order. */
      uint8_t first = 2 * i < half ? p[2 * i] & 15 : p[2 * i - half] >> 4;
      uint8_t second = 2 * i + 1 < half ? p[2 * i + 1] & 15 : p[2 * i + 1 - half] >> 4;
      b->codes[block * half + i] = (uint8_t)(first << 4 | second);
    }
  }
  try_codes(b, "codes-in-halves", "a block's first half lies in the low halves of its bytes, as in GGUF");
}

static void try_maps(bnb *b) {
  nb_packed m = b->m;
  const nb_format_row *own = nb_format_info(m.format);
  for (int f = 0; f < NB_FORMAT_COUNT; f++) {
    const nb_format_row *other = nb_format_info((nb_format)f);
    if (!other->codebook || other == own) continue;
    m.codebook = other->codebook;
    nb_trial(b->trials, &(nb_reading){.packed = &m}, "map-of-other-format", "its codes are read as %s", other->name);
  }
  m.codebook = own->codebook;
  nb_trial(b->trials, &(nb_reading){.packed = &m}, "map-damaged", "its codes are read with the map of %s", own->name);
}

static void try_block_sizes(bnb *b) {
  nb_packed m = b->m;
  for (m.scale.block_cols = 32; m.scale.block_cols <= NB_MAX_BLOCK_SIZE; m.scale.block_cols *= 2) {
    if (m.scale.block_cols == b->m.scale.block_cols || nb_ceil_div(m.rows * m.cols, m.scale.block_cols) > b->scales)
      continue;
    nb_trial(b->trials, &(nb_reading){.packed = &m}, "block-size-wrong", "its blocks are of %lld weights",
             (long long)m.scale.block_cols);
  }
}

/* ---- scales ---- */

static void try_shifted_scales(bnb *b) {
  if (b->scales < 2) return;
  memcpy(b->changed, b->restored + 1, (size_t)(b->scales - 1) * sizeof(float));
  b->changed[b->scales - 1] = b->restored[0];
  try_scales(b, "scales-shifted", "every scale is taken from the next block");
  memcpy(b->changed + 1, b->restored, (size_t)(b->scales - 1) * sizeof(float));
  b->changed[0] = b->restored[b->scales - 1];
  try_scales(b, "scales-shifted", "every scale is taken from the block before");
}

static void restore_scales(const nb_packed *m, int64_t count, float *out) {
  for (int64_t i = 0; i < count; i++) out[i] = nb_block_scale(m, i);
}

static bool is_alike(const bnb *b, const nb_packed *m) {
  return m->format == b->m.format && m->rows == b->m.rows && m->cols == b->m.cols &&
         m->scale.block_cols == b->m.scale.block_cols;
}

/* Of every other weight of the artifact that has as many. */
static void try_others_scales(bnb *b) {
  const nb_checkpoint *c = b->trials->suspect->artifact;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    nb_values other;
    if (t == b->trials->suspect->copy->source.tensor || t->is_part || !t->layout) continue;
    if (nb_values_open(c, t, &other, NULL) == NIBBLE_OK) {
      const nb_packed *m = &other.source.weight.packed;
      if (m->format == b->m.format && m->rows == b->m.rows && m->cols == b->m.cols &&
          m->scale.block_cols == b->m.scale.block_cols) {
        nb_packed with = b->m;
        restore_scales(m, b->scales, b->changed);
        with.scale.data = b->changed;
        nb_trial(b->trials, &(nb_reading){.packed = &with}, "scales-of-other-layer", "its scales are those of '%s'",
                 other.source.name);
      }
    }
    nb_values_close(&other);
  }
}

/* The other weight of the artifact that has the very same scales, malloc'd; NULL if there is none. */
static char *name_of_same_scales(bnb *b) {
  const nb_checkpoint *c = b->trials->suspect->artifact;
  float *scales = nb_alloc((uint64_t)b->scales, sizeof *scales);
  char *name = NULL;
  for (size_t i = 0; scales && !name && i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    nb_values other;
    if (t == b->trials->suspect->copy->source.tensor || t->is_part || !t->layout) continue;
    if (nb_values_open(c, t, &other, NULL) == NIBBLE_OK && is_alike(b, &other.source.weight.packed)) {
      restore_scales(&other.source.weight.packed, b->scales, scales);
      if (memcmp(scales, b->restored, (size_t)b->scales * sizeof *scales) == 0) name = strdup(other.source.name);
    }
    nb_values_close(&other);
  }
  free(scales);
  return name;
}

/* The scales that the original's weights give; false without memory. */
static bool true_scales(bnb *b, float *out) {
  const nb_values *v = b->trials->suspect->values;
  int64_t count = v->source.count, unit = nb_packed_unit(&b->m);
  float *w = nb_alloc_aligned((uint64_t)unit, sizeof *w);
  bool ok = w != NULL;
  for (int64_t s = 0; ok && s < b->scales; s++) {
    int64_t n = nb_min_i64(unit, count - s * unit);
    ok = n > 0 && nb_values_read(v, s * unit, n, w, NULL) == NIBBLE_OK;
    out[s] = 0;
    for (int64_t i = 0; ok && i < n; i++) out[s] = fmaxf(out[s], fabsf(w[i]));
  }
  free(w);
  return ok;
}

/* An offset that is wrong leaves the differences between blocks as they were. */
static void try_offset(bnb *b, const float *right) {
  double shift = 0;
  for (int64_t i = 0; i < b->scales; i++) shift += (double)right[i] - (double)b->restored[i];
  shift /= (double)b->scales;
  for (int64_t i = 0; i < b->scales; i++) b->changed[i] = b->restored[i] + (float)shift;
  nb_packed m = b->m;
  m.scale.data = b->changed;
  nb_trial(b->trials, &(nb_reading){.packed = &m}, "nested-offset-wrong", "nested_offset is %.6g more", shift);
}

static void try_true_scales(bnb *b) {
  if (!true_scales(b, b->changed)) return;
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < b->scales; i++) {
    bool same = fabsf(b->changed[i] - b->restored[i]) <= 0.02f * fmaxf(fabsf(b->changed[i]), fabsf(b->restored[i]));
    if (!same && wrong++ == 0) first = i;
  }
  nb_trials *t = b->trials;
  if (b->m.scale.data == b->restored && t->suspect->copy->source.weight.packed.second.block_cols && wrong) {
    float *right = nb_alloc((uint64_t)b->scales, sizeof *right);
    if (right) {
      memcpy(right, b->changed, (size_t)b->scales * sizeof *right);
      try_offset(b, right);
      memcpy(b->changed, right, (size_t)b->scales * sizeof *right);
    }
    free(right);
  }
  /* The last resort: only where nothing tells what happened to the scales. */
  if (isfinite(t->best)) return;
  nb_packed m = b->m;
  nb_fit fit;
  m.scale.data = b->changed;
  if (nb_trial_read(t, &(nb_reading){.packed = &m}, &fit)) {
    char *same = t->is_local ? NULL : name_of_same_scales(b);
    if (same) {
      nb_trial_keep(t, fit.error, "scales-of-other-layer",
                    "its scales, which are those of '%s', are made anew from the original", same);
    } else {
      nb_trial_keep(t, fit.error, "scales-damaged",
                    "%lld of %lld scales, from that of block %lld on, are made anew from the original",
                    (long long)wrong, (long long)b->scales, (long long)first);
    }
    free(same);
  }
  if (!isfinite(t->best) && wrong == 0) t->suspect->row->cause = "codes-damaged";
}

void nb_trials_bnb(nb_trials *trials) {
  bnb b = {.trials = trials, .m = trials->suspect->copy->source.weight.packed};
  b.scales = nb_ceil_div(b.m.rows * b.m.cols, nb_packed_unit(&b.m));
  b.code_bytes = nb_packed_code_bytes(&b.m);
  b.restored = nb_alloc((uint64_t)b.scales, sizeof(float));
  b.changed = nb_alloc((uint64_t)b.scales, sizeof(float));
  b.codes = nb_alloc((uint64_t)b.code_bytes, 1);
  if (b.restored && b.changed && b.codes) {
    restore_scales(&b.m, b.scales, b.restored);
    b.m.scale.data = b.restored;
    b.m.scale.dtype = NB_F32;
    b.m.second = (nb_scales){0};
    if (!trials->is_local) {
      try_code_orders(&b);
      if (b.m.codebook) {
        try_maps(&b);
        try_block_sizes(&b);
      }
      try_shifted_scales(&b);
      try_others_scales(&b);
    }
    try_true_scales(&b);
  }
  free(b.restored);
  free(b.changed);
  free(b.codes);
}
