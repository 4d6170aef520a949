/* Packed weights: parts, then scales, then codes. What is tested is what a quantizer that rounds to nearest cannot help
 * writing: each block's scale is the magnitude of one of its weights, which then has the code of 1 or -1. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/layouts.h"
#include "convert/layouts/bnb.h"
#include "kernels/quantize.h"
#include "model/json.h"
#include "validate/scan.h"
#include "validate/structure.h"

enum { ROLES = NB_PART_FORMAT + 1 };

typedef struct weight_look {
  const nb_checkpoint *checkpoint;
  const nb_tensor *main;
  nb_findings *findings;
  nb_packed packed;              /* described, then with buffers */
  const nb_tensor *parts[ROLES]; /* by role; NULL: missing or of another shape */
  void *owned[ROLES];            /* aligned copies, by role */
  float dynamic_map[256];
  bool is_zero; /* every scale and code stands for zero */
} weight_look;

static nb_place place_of(const nb_tensor *t, const nb_tally *tally, bool is_block) {
  return (nb_place){t->name, is_block ? tally->first : -1, is_block ? -1 : tally->first, tally->count};
}

/* ---- parts ---- */

/* A wrong number of scales that another block size explains. */
static int64_t block_size_of(const weight_look *l, int64_t scales) {
  int64_t n = l->packed.rows * l->packed.cols;
  for (int64_t size = 32; size <= NB_MAX_BLOCK_SIZE; size *= 2) {
    if (nb_ceil_div(n, size) == scales) return size;
  }
  return 0;
}

static void wrong_part(weight_look *l, const nb_part *want, const nb_tensor *have) {
  int64_t n = 1, other = 0;
  for (int i = 0; i < want->ndim; i++) n *= want->shape[i];
  bool dtype = have->dtype == want->dtype && !have->is_blocks;
  if (want->role == NB_PART_ABSMAX && !l->packed.scale.block_rows && dtype) other = block_size_of(l, have->count);
  if (other) {
    nb_find(l->findings, NIBBLE_FAULT, "part", "block-size-wrong", nb_place_tensor(have->name),
            "it has %lld scales, as blocks of %lld give; the quant state says blocks of %lld, which give %lld",
            (long long)have->count, (long long)other, (long long)l->packed.scale.block_cols, (long long)n);
  } else {
    nb_find(l->findings, NIBBLE_FAULT, "part", dtype ? "part-of-wrong-size" : "part-of-wrong-dtype",
            nb_place_tensor(have->name), "it has %lld elements of %s, not %lld of %s", (long long)have->count,
            nb_dtype_name(have->dtype), (long long)n, nb_dtype_name(want->dtype));
  }
}

static nibble_status gather_parts(weight_look *l, nibble_error *err) {
  nb_part parts[NB_MAX_PARTS];
  int count = nb_layout_parts(&l->packed, NB_BF16, l->main->name, parts);
  if (count < 0) return nb_fail_memory(err, strlen(l->main->name));
  for (int i = 0; i < count; i++) {
    const nb_part *want = &parts[i];
    const nb_tensor *have = nb_checkpoint_find(l->checkpoint, want->name);
    if (!have) {
      /* bitsandbytes reads a folder without weight_format: there is one order left. */
      if (want->role == NB_PART_FORMAT) continue;
      nb_find(l->findings, NIBBLE_FAULT, "part", "missing-part", nb_place_tensor(want->name),
              "it belongs to the packed weight '%s' and is missing", l->main->name);
      continue;
    }
    int64_t n = 1;
    for (int d = 0; d < want->ndim; d++) n *= want->shape[d];
    /* bnb_4bit_quant_storage puts the same codes under another dtype; a state is as long as its text. */
    bool same = want->role == NB_PART_CODES && !l->packed.scale.block_rows ? have->bytes == (uint64_t)n
                : want->role == NB_PART_STATE                              ? have->dtype == NB_U8
                                              : have->dtype == want->dtype && have->count == n && !have->is_blocks;
    if (same) {
      l->parts[want->role] = have;
    } else {
      wrong_part(l, want, have);
    }
  }
  nb_layout_parts_free(parts, count);
  return NIBBLE_OK;
}

/* The elements of a part, aligned; *out stays NULL where the part is missing. */
static nibble_status part_view(weight_look *l, nb_part_role role, const void **out, nibble_error *err) {
  const nb_tensor *t = l->parts[role];
  *out = NULL;
  if (!t) return NIBBLE_OK;
  const void *view = nb_tensor_view(l->checkpoint, t);
  size_t size = nb_dtype_size(t->dtype);
  if (view && (uintptr_t)view % size == 0) {
    *out = view;
    return NIBBLE_OK;
  }
  void *copy = l->owned[role] = nb_alloc_aligned((uint64_t)t->count + 1, size);
  if (!copy) return nb_fail_memory(err, (size_t)t->bytes);
  *out = copy;
  return nb_tensor_read(l->checkpoint, t, (nb_span){0, t->count}, t->dtype, copy, err);
}

/* ---- maps ---- */

static bool map_equals(const float *map, const float *known, int n, int step, int begin, float sign) {
  for (int i = 0; i < n; i++) {
    if (!(fabsf(sign * map[begin + step * i] - known[i]) <= 1e-6f)) return false;
  }
  return true;
}

static bool is_others_map(const float *map, const float *known) {
  for (int f = 0; f < NB_FORMAT_COUNT; f++) {
    const float *other = nb_format_info((nb_format)f)->codebook;
    if (other && other != known && map_equals(map, other, 16, 1, 0, 1)) return true;
  }
  return false;
}

static void check_map(weight_look *l, nb_part_role role, const float *map, const float *known, int n) {
  const nb_tensor *t = l->parts[role];
  if (!map || map_equals(map, known, n, 1, 0, 1)) return;
  nb_tally bad = {0, -1};
  for (int i = 0; i < n; i++) {
    if (fabsf(map[i] - known[i]) <= 1e-6f) continue;
    if (bad.count++ == 0) bad.first = i;
  }
  const char *cause = "map-damaged";
  if (role == NB_PART_QUANT_MAP && is_others_map(map, known)) cause = "map-of-other-format";
  if (map_equals(map, known, n, -1, n - 1, 1)) cause = "map-reversed";
  if (map_equals(map, known, n, 1, 0, -1)) cause = "map-negated";
  nb_find(l->findings, NIBBLE_FAULT, "map", cause, place_of(t, &bad, false),
          "%lld of its %d values are not those of %s: the first is %g where %g belongs", (long long)bad.count, n,
          role == NB_PART_QUANT_MAP ? nb_format_info(l->packed.format)->name : "bitsandbytes' dynamic map",
          (double)map[bad.first], (double)known[bad.first]);
}

/* ---- scales ---- */

static void find_scales(weight_look *l, const nb_tensor *t, const nb_scales_scan *s) {
  static const char check[] = "scale";
  long long n = (long long)s->count;
  if (s->not_finite.count)
    nb_find(l->findings, NIBBLE_FAULT, check, "scale-not-finite", place_of(t, &s->not_finite, true),
            "%lld of %lld scales are NaN or infinite", (long long)s->not_finite.count, n);
  if (s->negative.count)
    nb_find(l->findings, NIBBLE_FAULT, check, "scale-negative", place_of(t, &s->negative, true),
            "%lld of %lld scales are negative", (long long)s->negative.count, n);
  l->is_zero = s->zero.count == s->count; /* find_codes says whether the codes agree */
  if (s->far.count)
    nb_find(l->findings, NIBBLE_FAULT, check, "scale-out-of-range", place_of(t, &s->far, true),
            "%lld of %lld scales are more than 2^24 times the others' mean, 2^%.1f", (long long)s->far.count, n,
            s->mean_log2);
}

/* Dynamic 8-bit codes lie at most this share of their block's absmax apart, near 1. */
static const double NESTED_STEP = 0.016;

static nibble_status check_nested(weight_look *l, nibble_error *err) {
  nb_packed *m = &l->packed;
  const void *nested = NULL, *map = NULL, *codes = NULL;
  nibble_status status = part_view(l, NB_PART_NESTED_ABSMAX, &nested, err);
  if (status == NIBBLE_OK) status = part_view(l, NB_PART_NESTED_QUANT_MAP, &map, err);
  if (status == NIBBLE_OK) status = part_view(l, NB_PART_ABSMAX, &codes, err);
  if (status != NIBBLE_OK) return status;
  float *known = l->dynamic_map; /* as bitsandbytes has it: damage to the file's own is reported, not followed */
  nb_dynamic_map(known);
  check_map(l, NB_PART_NESTED_QUANT_MAP, map, known, 256);
  int64_t blocks = nb_ceil_div(m->rows * m->cols, m->scale.block_cols);
  float largest = 0; /* as double, gcc 12 for aarch64 would crash here */
  if (nested) {
    nb_scales_scan scan;
    nb_packed as_scales = {.scale = {.data = nested, .dtype = NB_F32}};
    const nb_tensor *t = l->parts[NB_PART_NESTED_ABSMAX];
    nb_scan_scales(&as_scales, t->count, 0, &scan);
    scan.zero.count = 0; /* blocks that are all of the mean scale */
    find_scales(l, t, &scan);
    for (int64_t i = 0; i < t->count; i++) largest = fmaxf(largest, fabsf(((const float *)nested)[i]));
  }
  if (!(m->scale.offset > 0))
    nb_find(l->findings, m->scale.offset < 0 ? NIBBLE_FAULT : NIBBLE_WARNING, "scale", "nested-offset-lost",
            nb_place_tensor(l->main->name), "nested_offset, the mean of all scales, is %g", (double)m->scale.offset);
  if (nested && map && codes) {
    m->scale.data = codes;
    m->second.data = nested;
    m->scale.codebook = known;
    nb_scales_scan scan;
    nb_scan_scales(m, blocks, NESTED_STEP * (double)largest, &scan);
    scan.not_finite.count = 0; /* named with nested_absmax */
    if (!isfinite(largest)) scan.negative.count = 0;
    find_scales(l, l->parts[NB_PART_ABSMAX], &scan);
  }
  return NIBBLE_OK;
}

static nibble_status check_scales(weight_look *l, nibble_error *err) {
  nb_packed *m = &l->packed;
  if (m->second.block_cols) return check_nested(l, err);
  const void *absmax = NULL;
  nibble_status status = part_view(l, NB_PART_ABSMAX, &absmax, err);
  if (status != NIBBLE_OK || !absmax) return status;
  m->scale.data = absmax;
  nb_scales_scan scan;
  const nb_tensor *t = l->parts[NB_PART_ABSMAX];
  nb_scan_scales(m, t->count, 0, &scan);
  find_scales(l, t, &scan);
  return NIBBLE_OK;
}

/* ---- codes ---- */

static void find_codes(weight_look *l, const nb_codes_scan *s) {
  const nb_tensor *t = l->main;
  static const char check[] = "codes";
  bool rows = !nb_format_info(l->packed.format)->codebook;
  const char *unit = rows ? "rows" : "blocks";
  long long n = (long long)s->blocks;
  if (l->is_zero) {
    bool fault = l->checkpoint->config.family != NULL || !s->all_zero;
    nb_find(l->findings, fault ? NIBBLE_FAULT : NIBBLE_WARNING, s->all_zero ? "values" : "scale",
            s->all_zero ? "all-zero" : "scales-all-zero", nb_place_tensor(t->name),
            s->all_zero ? "every weight is zero" : "every scale is zero, the codes are not");
    return;
  }
  if ((s->all_equal || s->all_zero) && l->packed.rows * l->packed.cols >= 16) {
    nb_find(l->findings, NIBBLE_FAULT, check, "codes-all-equal", nb_place_tensor(t->name), "%s",
            s->all_zero ? "every code stands for zero, the scales do not" : "every code is the same");
    return;
  }
  if (s->high_half_equal != s->low_half_equal && l->packed.rows * l->packed.cols > 64)
    nb_find(l->findings, NIBBLE_FAULT, check, "half-of-the-codes-lost", nb_place_tensor(t->name),
            "the %s half of every byte is the same", s->high_half_equal ? "high" : "low");
  if (s->unscaled.count)
    nb_find(l->findings, NIBBLE_FAULT, check, "scale-lost", place_of(t, &s->unscaled, true),
            "%lld of %lld %s have a scale of zero, but codes that are not", (long long)s->unscaled.count, n, unit);
  if (s->below_lowest.count)
    nb_find(l->findings, NIBBLE_FAULT, check, "code-out-of-range", place_of(t, &s->below_lowest, true),
            "%lld of %lld rows hold -128, which no weight becomes", (long long)s->below_lowest.count, n);
  struct {
    const nb_tally *tally;
    int64_t most; /* more than one in so many is a fault */
    nibble_severity few;
    const char *cause, *text;
  } shares[] = {
      {&s->constant, 50, NIBBLE_NOTE, "constant-blocks", "are of one code"},
      {&s->saturated, 4, NIBBLE_NOTE, "saturated-blocks", "have more than half their codes at the end of the range"},
      {&s->without_peak, 2, NIBBLE_WARNING, "scale-too-large",
       "have no code of value 1 or -1, which the largest weight becomes"},
  };
  for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
    const nb_tally *tally = shares[i].tally;
    if (!tally->count) continue;
    bool fault = tally->count > s->blocks / shares[i].most && tally->count > 1;
    nb_find(l->findings, fault ? NIBBLE_FAULT : shares[i].few, check, shares[i].cause, place_of(t, tally, true),
            "%lld of %lld %s %s", (long long)tally->count, n, unit, shares[i].text);
  }
}

static void check_codes(weight_look *l) {
  nb_packed *m = &l->packed;
  nb_codes_scan scan;
  m->codes = l->parts[NB_PART_CODES] ? nb_tensor_view(l->checkpoint, l->parts[NB_PART_CODES]) : NULL;
  if (!m->codes || (!m->scale.data && !m->second.block_cols)) return;
  if (nb_format_info(m->format)->codebook) {
    nb_scan_codes4(m, &scan);
  } else {
    nb_scan_codes8(m, &scan);
  }
  find_codes(l, &scan);
}

static const char *why_unreadable(const weight_look *l) {
  const nb_tensor *state = nb_bnb_any_state(l->checkpoint, l->main->name);
  if (!state) return "missing-part";
  const char *type = "", *cause = "quant-state-damaged", *suffix = strrchr(state->name, '_');
  const char *text = nb_tensor_view(l->checkpoint, state);
  cJSON *json = NULL;
  if (!text || nb_json_parse("", text, state->bytes, &json, NULL) != NIBBLE_OK) return cause;
  const cJSON *shape = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "shape") : NULL;
  if (nb_json_string("", json, "quant_type", &type, NULL) == NIBBLE_OK && suffix && strcmp(type, suffix + 1) != 0) {
    cause = "quant-state-of-other-format";
  } else if (cJSON_GetArraySize(shape) == 2) {
    const cJSON *rows = cJSON_GetArrayItem(shape, 0), *cols = cJSON_GetArrayItem(shape, 1);
    double bytes = ceil(rows->valuedouble * cols->valuedouble / 2);
    if (cJSON_IsNumber(rows) && cJSON_IsNumber(cols) && bytes != (double)l->main->bytes) cause = "codes-of-wrong-size";
  }
  cJSON_Delete(json);
  return cause;
}

/* A state that cannot be read: nothing else of the weight can be understood. */
static void find_unreadable(weight_look *l, const char *message) {
  const char *after_path = strstr(message, "tensor '");
  nb_find(l->findings, NIBBLE_FAULT, "part", why_unreadable(l), nb_place_tensor(l->main->name), "%s",
          after_path ? after_path : message);
}

nibble_status nb_structure_packed(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_findings *findings,
                                  nibble_error *err) {
  weight_look l = {.checkpoint = checkpoint, .main = main, .findings = findings};
  nibble_error unreadable;
  nibble_status described = nb_layout_describe(checkpoint, main, &l.packed, NULL, &unreadable);
  if (described == NIBBLE_SYSTEM) {
    if (err) *err = unreadable;
    return described;
  }
  if (described != NIBBLE_OK) {
    find_unreadable(&l, unreadable.message);
    return NIBBLE_OK;
  }
  nb_packed *m = &l.packed;
  nibble_status status = gather_parts(&l, err);
  const float *codebook = nb_format_info(m->format)->codebook;
  if (status == NIBBLE_OK && codebook) {
    const void *map;
    status = part_view(&l, NB_PART_QUANT_MAP, &map, err);
    if (status == NIBBLE_OK) check_map(&l, NB_PART_QUANT_MAP, map, codebook, 16);
  } else if (status == NIBBLE_OK && l.parts[NB_PART_FORMAT]) {
    const uint8_t *order = nb_tensor_view(checkpoint, l.parts[NB_PART_FORMAT]);
    if (order && *order)
      nb_find(findings, NIBBLE_FAULT, "part", "weight-format-unknown", nb_place_tensor(l.parts[NB_PART_FORMAT]->name),
              "it is %d; 0, row-major, is the only int8 order there is today", *order);
  }
  if (status == NIBBLE_OK) status = check_scales(&l, err);
  if (status == NIBBLE_OK) check_codes(&l);
  for (int i = 0; i < ROLES; i++) {
    if (l.parts[i]) nb_tensor_release(checkpoint, l.parts[i], 0, l.parts[i]->count);
    free(l.owned[i]);
  }
  return status;
}
