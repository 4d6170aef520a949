/* GPTQ's weights: a legal grouping of the columns, scales and zero points that some grid has, codes that use it. Reads
 * the tensors themselves, because nb_weight_load stops at the first fault. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/layouts.h"
#include "kernels/gptq.h"
#include "validate/scan.h"
#include "validate/structure.h"

typedef struct gptq_look {
  const nb_checkpoint *checkpoint;
  nb_findings *findings;
  const nb_tensor *qweight, *qzeros, *scales, *g_idx; /* g_idx may be NULL */
  nb_packed m;
} gptq_look;

static void tally(nb_tally *t, int64_t index) {
  if (t->count++ == 0) t->first = index;
}

static void fault(gptq_look *l, const char *check, const char *cause, const nb_tensor *t, const nb_tally *bad,
                  const char *text) {
  nb_place place = {t->name, -1, bad->first, bad->count};
  if (!bad->count) return;
  nb_find(l->findings, NIBBLE_FAULT, check, cause, place, "%lld of its %lld elements %s", (long long)bad->count,
          (long long)t->count, text);
}

static const nb_tensor *part(const gptq_look *l, const char *suffix) {
  size_t keep = strlen(l->qweight->name) - strlen("qweight"), room = keep + strlen(suffix) + 1;
  char *name = malloc(room);
  if (!name) return NULL;
  memcpy(name, l->qweight->name, keep);
  memcpy(name + keep, suffix, strlen(suffix) + 1);
  const nb_tensor *t = nb_checkpoint_find(l->checkpoint, name);
  free(name);
  return t;
}

/* A copy of a part, aligned; NULL without memory. */
static void *copy_of(const gptq_look *l, const nb_tensor *t, nb_dtype dtype) {
  void *copy = nb_alloc_aligned((uint64_t)t->count + 1, nb_dtype_size(dtype));
  if (copy && nb_tensor_read(l->checkpoint, t, 0, t->count, dtype, copy, NULL) == NIBBLE_OK) return copy;
  free(copy);
  return NULL;
}

static bool check_scales(gptq_look *l) {
  float *scales = copy_of(l, l->scales, NB_F32);
  if (!scales) return false;
  nb_tally not_finite = {0, -1}, negative = {0, -1}, zero = {0, -1};
  for (int64_t i = 0; i < l->scales->count; i++) {
    if (!isfinite(scales[i])) {
      tally(&not_finite, i);
    } else if (scales[i] < 0) {
      tally(&negative, i);
    } else if (scales[i] == 0) {
      tally(&zero, i);
    }
  }
  free(scales);
  fault(l, "scale", "scale-not-finite", l->scales, &not_finite, "are NaN or infinite");
  fault(l, "scale", "scale-negative", l->scales, &negative, "are negative");
  /* A group of zeros still gets a scale; where it underflowed there is nothing left of its weights. */
  fault(l, "scale", zero.count == l->scales->count ? "scales-all-zero" : "scale-lost", l->scales, &zero, "are zero");
  return true;
}

/* A symmetric grid has its zero in the middle; every other place is one that somebody moved. */
static bool check_zeros(gptq_look *l) {
  const nb_packed *m = &l->m;
  const cJSON *quant = nb_json_object(l->checkpoint->config.json, "quantization_config");
  bool symmetric = quant && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(quant, "sym"));
  int bits = nb_gptq_bits(m->format);
  int middle = 1 << (bits - 1);
  uint8_t *zeros = nb_alloc((uint64_t)m->rows + 1, 1);
  uint32_t *words = copy_of(l, l->qzeros, NB_I32);
  nb_tally off = {0, -1};
  int64_t by_one[2] = {0, 0}, n = m->groups * m->rows;
  for (int64_t g = 0; symmetric && zeros && words && g < m->groups; g++) {
    nb_gptq_unpack_zeros(words + g * l->qzeros->shape[1], m->rows, bits, !l->checkpoint->config.quant.gptq_v2, zeros);
    for (int64_t r = 0; r < m->rows; r++) {
      if (zeros[r] == middle) continue;
      tally(&off, g * m->rows + r);
      by_one[0] += zeros[r] == middle - 1;
      by_one[1] += zeros[r] == middle + 1;
    }
  }
  bool ok = zeros && words;
  free(zeros);
  free(words);
  if (!off.count) return ok;
  bool shifted = by_one[0] == n || by_one[1] == n;
  nb_find(l->findings, NIBBLE_FAULT, "zero", shifted ? "zero-point-off-by-one" : "zero-point-wrong",
          (nb_place){l->qzeros->name, off.first / m->rows, -1, off.count},
          "%lld of %lld zero points are not %d, as a symmetric grid of %d bits has them%s", (long long)off.count,
          (long long)n, middle, bits,
          shifted ? ": all lie one beside it, as when version 1 is read as version 2 or the other way round" : "");
  return ok;
}

/* All groups are of one size, but for one that takes the columns that are left. */
static bool check_groups(gptq_look *l) {
  const nb_packed *m = &l->m;
  if (!l->g_idx) return true;
  int32_t *g_idx = copy_of(l, l->g_idx, NB_I32);
  int64_t *columns = nb_alloc((uint64_t)m->groups + 1, sizeof *columns);
  bool ok = g_idx && columns;
  nb_tally outside = {0, -1};
  int64_t most = l->checkpoint->config.quant.group_size, uneven = 0, first = -1;
  for (int64_t i = 0; ok && i < l->g_idx->count; i++) {
    if (g_idx[i] < 0 || g_idx[i] >= m->groups) {
      tally(&outside, i);
    } else {
      columns[g_idx[i]]++;
    }
  }
  bool configured = most > 0;
  for (int64_t g = 0; ok && !configured && g < m->groups; g++) most = nb_max_i64(most, columns[g]);
  for (int64_t g = 0; ok && g < m->groups; g++) {
    if (columns[g] == most || (columns[g] < most && g == m->groups - 1)) continue;
    if (uneven++ == 0) first = g;
  }
  fault(l, "group", "group-out-of-range", l->g_idx, &outside, "name a group that is not there");
  if (uneven && !outside.count)
    nb_find(l->findings, NIBBLE_FAULT, "group", "groups-uneven", (nb_place){l->g_idx->name, first, -1, uneven},
            "%lld of %lld groups do not have %lld columns; group %lld has %lld", (long long)uneven,
            (long long)m->groups, (long long)most, (long long)first, (long long)columns[first]);
  free(g_idx);
  free(columns);
  return ok;
}

static bool check_codes(gptq_look *l) {
  int64_t words = l->qweight->count;
  uint32_t *codes = copy_of(l, l->qweight, NB_I32);
  if (!codes) return false;
  uint32_t differ = 0;
  for (int64_t i = 0; i < words; i++) differ |= codes[i] ^ codes[0];
  free(codes);
  if (differ == 0 && words > 1)
    nb_find(l->findings, NIBBLE_FAULT, "codes", "codes-all-equal", nb_place_tensor(l->qweight->name),
            "every word of codes is the same");
  return true;
}

static void check_config(gptq_look *l) {
  const nb_quant_config *q = &l->checkpoint->config.quant;
  int bits = nb_gptq_bits(l->m.format);
  if (!q->present) return;
  if (q->bits > 0 && q->bits != bits)
    nb_find(l->findings, NIBBLE_FAULT, "config", "config-names-other-format", nb_place_tensor(l->qweight->name),
            "it is packed in %d bits, quantization_config says %lld", bits, (long long)q->bits);
  if (q->group_size > 0 && nb_ceil_div(l->m.cols, q->group_size) != l->m.groups)
    nb_find(l->findings, NIBBLE_FAULT, "config", "group-size-wrong", nb_place_tensor(l->scales->name),
            "it has %lld groups for %lld columns; quantization_config says groups of %lld, which give %lld",
            (long long)l->m.groups, (long long)l->m.cols, (long long)q->group_size,
            (long long)nb_ceil_div(l->m.cols, q->group_size));
}

nibble_status nb_structure_gptq(const nb_checkpoint *c, const nb_tensor *main, nb_findings *findings,
                                nibble_error *err) {
  gptq_look l = {.checkpoint = c, .findings = findings, .qweight = main};
  l.qzeros = part(&l, "qzeros");
  l.scales = part(&l, "scales");
  l.g_idx = part(&l, "g_idx");
  nibble_error unreadable;
  if (nb_layout_describe(c, main, &l.m, NULL, &unreadable) != NIBBLE_OK) {
    const char *text = strstr(unreadable.message, "tensor '");
    nb_find(findings, NIBBLE_FAULT, "part", l.qzeros && l.scales ? "part-of-wrong-size" : "missing-part",
            nb_place_tensor(main->name), "%s", text ? text : unreadable.message);
    return NIBBLE_OK;
  }
  check_config(&l);
  bool ok = check_scales(&l) && check_zeros(&l) && check_groups(&l) && check_codes(&l);
  return ok ? NIBBLE_OK : nb_fail_memory(err, (size_t)main->bytes);
}
