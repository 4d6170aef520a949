/* GPTQ's weights: a legal grouping of the columns, scales and zero points that some grid has, codes that use it. Reads
 * the tensors themselves, because nb_weight_load stops at the first fault. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
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

/* A copy of a part, aligned; NULL without memory. */
static void *copy_of(const gptq_look *l, const nb_tensor *t, nb_dtype dtype) {
  void *copy = nb_alloc_aligned((uint64_t)t->count + 1, nb_dtype_size(dtype));
  if (copy && nb_tensor_read(l->checkpoint, t, (nb_span){0, t->count}, dtype, copy, NULL) == NIBBLE_OK) return copy;
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
    nb_gptq_unpack_zeros(words + g * l->qzeros->shape[1], m->rows, bits, !l->checkpoint->config.quant.zeros_as_stored,
                         zeros);
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

/* ---- codes ---- */

/* Words of a group's columns, some rows of the weight at a time. */
enum { TILE = 256 };

typedef struct group_tally {
  nb_tally constant, saturated; /* index: group * rows + row */
} group_tally;

typedef struct codes_job {
  const uint32_t *words; /* [groups * words_per_group, rows] */
  int64_t rows, words_per_group;
  int bits;
  group_tally *groups;
} codes_job;

/* A one in the lowest bit of every field. */
static uint32_t field_ones(int bits) {
  uint32_t ones = 0;
  for (int shift = 0; shift < 32; shift += bits) ones |= 1u << shift;
  return ones;
}

/* Without an instruction for it, which the oldest processors lack: so that compilers make vectors of it. */
static int count_ones(uint32_t x) {
  x = (x & 0x55555555u) + (x >> 1 & 0x55555555u);
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  x += x >> 8;
  return (int)((x + (x >> 16)) & 63);
}

/* Fields of a word that are 0 or all ones. */
static int ends_in(uint32_t word, int bits, uint32_t ones) {
  uint32_t all = word, none = ~word;
  for (int i = 1; i < bits; i++) {
    all &= word >> i;
    none &= ~word >> i;
  }
  return count_ones((all | none) & ones);
}

/* A group of weights that are all zero has the code in the middle, or the one below it. */
static bool is_zero_code(uint32_t code, int bits) {
  uint32_t middle = 1u << (bits - 1);
  return code == middle || code == middle - 1;
}

static void scan_tile(const codes_job *job, int64_t group, int64_t first_row, int64_t n, uint32_t ones) {
  const uint32_t *first = job->words + group * job->words_per_group * job->rows + first_row;
  uint32_t differ[TILE] = {0}, mask = (1u << job->bits) - 1;
  int32_t ends[TILE] = {0};
  for (int64_t w = 0; w < job->words_per_group; w++) {
    const uint32_t *p = first + w * job->rows;
    for (int64_t r = 0; r < n; r++) differ[r] |= p[r] ^ first[r];
    for (int64_t r = 0; r < n; r++) ends[r] += ends_in(p[r], job->bits, ones);
  }
  int64_t codes = job->words_per_group * 32 / job->bits;
  for (int64_t r = 0; r < n; r++) {
    uint32_t code = first[r] & mask;
    bool constant = differ[r] == 0 && first[r] == code * ones;
    if (constant && !is_zero_code(code, job->bits))
      tally(&job->groups[group].constant, group * job->rows + first_row + r);
    if (job->bits > 2 && (int64_t)2 * ends[r] > codes)
      tally(&job->groups[group].saturated, group * job->rows + first_row + r);
  }
}

static void scan_groups(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  codes_job *job = ctx;
  uint32_t ones = field_ones(job->bits);
  for (int64_t group = begin; group < end; group++) {
    job->groups[group] = (group_tally){{0, -1}, {0, -1}};
    for (int64_t row = 0; row < job->rows; row += TILE)
      scan_tile(job, group, row, nb_min_i64(TILE, job->rows - row), ones);
  }
}

/* Runs of group_size columns: where g_idx scatters the groups, a run is none, but looks no other. */
static void check_group_codes(gptq_look *l, const uint32_t *words) {
  const nb_packed *m = &l->m;
  int bits = nb_gptq_bits(m->format);
  int64_t total = m->groups * m->rows;
  if (32 % bits || m->cols % m->groups || m->cols / m->groups * bits % 32) return;
  codes_job job = {.words = words, .rows = m->rows, .words_per_group = m->cols / m->groups * bits / 32, .bits = bits};
  if (!(job.groups = nb_alloc((uint64_t)m->groups, sizeof *job.groups))) {
    l->findings->failed = true;
    return;
  }
  nb_parallel_stoppable(m->groups, 1, scan_groups, &job, NULL); /* a group that was left out has no findings */
  nb_tally constant = {0, -1}, saturated = {0, -1};
  for (int64_t g = 0; g < m->groups; g++) {
    if (!constant.count) constant.first = job.groups[g].constant.first;
    if (!saturated.count) saturated.first = job.groups[g].saturated.first;
    constant.count += job.groups[g].constant.count;
    saturated.count += job.groups[g].saturated.count;
  }
  free(job.groups);
  const struct {
    const nb_tally *tally;
    int64_t most; /* more than one in so many is a fault */
    const char *cause, *text;
  } shares[] = {{&constant, 50, "constant-blocks", "are of one code"},
                {&saturated, 4, "saturated-blocks", "have more than half their codes at the ends of the range"}};
  for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
    const nb_tally *t = shares[i].tally;
    if (!t->count) continue;
    bool is_fault = t->count > total / shares[i].most && t->count > 1;
    nb_find(l->findings, is_fault ? NIBBLE_FAULT : NIBBLE_NOTE, "codes", shares[i].cause,
            (nb_place){l->qweight->name, t->first / m->rows, t->first % m->rows, t->count},
            "%lld of %lld groups %s; the first is group %lld of output feature %lld", (long long)t->count,
            (long long)total, shares[i].text, (long long)(t->first / m->rows), (long long)(t->first % m->rows));
  }
}

static bool check_codes(gptq_look *l) {
  int64_t words = l->qweight->count;
  const uint32_t *codes = nb_tensor_view(l->checkpoint, l->qweight);
  uint32_t *copy = codes && (uintptr_t)codes % sizeof *codes == 0 ? NULL : copy_of(l, l->qweight, NB_I32);
  if (copy) codes = copy;
  if (!codes || (uintptr_t)codes % sizeof *codes) return false;
  uint32_t differ = 0;
  for (int64_t i = 0; i < words; i++) differ |= codes[i] ^ codes[0];
  if (differ == 0 && words > 1) {
    nb_find(l->findings, NIBBLE_FAULT, "codes", "codes-all-equal", nb_place_tensor(l->qweight->name),
            "every word of codes is the same");
  } else {
    check_group_codes(l, codes);
  }
  free(copy);
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

/* Zero points say of themselves what version they are of (layouts/gptq.c). No version but 1 is written without a label,
 * and kernels that take symmetric grids for granted read files of version 2 that lack theirs; nothing makes files of
 * version 1 under the other label. */
void nb_structure_gptq_label(const nb_checkpoint *c, nb_findings *findings) {
  const nb_quant_config *q = &c->config.quant;
  if (q->zeros_as_stored == q->gptq_v2) return;
  nb_find(findings, q->gptq_v2 ? NIBBLE_FAULT : NIBBLE_WARNING, "zero", "zero-point-off-by-one", nb_place_tensor(""),
          "quantization_config says version %d, the zero points of a symmetric grid tell that it is version %d: what "
          "goes by the config alone reads every weight one step off",
          q->gptq_v2 ? 2 : 1, q->gptq_v2 ? 1 : 2);
}

nibble_status nb_structure_gptq(const nb_checkpoint *c, const nb_tensor *main, nb_findings *findings,
                                nibble_error *err) {
  gptq_look l = {.checkpoint = c, .findings = findings, .qweight = main};
  l.qzeros = nb_part_find(c, main, strlen(main->layout->main), "qzeros");
  l.scales = nb_part_find(c, main, strlen(main->layout->main), "scales");
  l.g_idx = nb_part_find(c, main, strlen(main->layout->main), "g_idx");
  nibble_error unreadable;
  nibble_status described = nb_layout_describe(c, main, &l.m, NULL, &unreadable);
  if (described == NIBBLE_SYSTEM) {
    if (err) *err = unreadable;
    return described;
  }
  if (described != NIBBLE_OK) {
    const char *text = strstr(unreadable.message, "tensor '");
    nb_find(findings, NIBBLE_FAULT, "part", l.qzeros && l.scales ? "part-of-wrong-size" : "missing-part",
            nb_place_tensor(main->name), "%s", text ? text : unreadable.message);
    return NIBBLE_OK;
  }
  check_config(&l);
  bool ok = check_scales(&l) && check_zeros(&l) && check_groups(&l) && check_codes(&l);
  const nb_tensor *parts[] = {l.qzeros, l.scales, l.g_idx};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (parts[i]) nb_tensor_release(c, parts[i], 0, parts[i]->count);
  }
  return ok ? NIBBLE_OK : nb_fail_memory(err, (size_t)main->bytes);
}
