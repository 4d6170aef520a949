#include "convert/layouts/gptq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/str.h"
#include "kernels/gptq.h"

static const char main_suffix[] = "qweight";
enum { MAIN_LENGTH = sizeof main_suffix - 1 };

/* How zero points are stored. */
static const char *const variants[] = {[NB_GPTQ_V1] = "gptq", [NB_GPTQ_V2] = "gptq_v2", NULL};

/* The four tensors of a packed weight, and what their shapes say. */
typedef struct gptq_parts {
  const nb_tensor *qweight, *qzeros, *scales, *g_idx;
  nb_packed packed;
} gptq_parts;

/* AWQ's tensors have the same names and dtypes, in another order of bits; they have no g_idx. */
static bool claims(const nb_checkpoint *checkpoint, const nb_tensor *main) {
  if (!nb_ends_with(main->name, ".qweight") || main->is_blocks) return false;
  return nb_layout_is_named(&nb_layout_gptq, &checkpoint->config.quant) ||
         nb_part_find(checkpoint, main, MAIN_LENGTH, "g_idx");
}

/* Finds a part and checks its dtype and shape; rows below 0: any. */
static nibble_status need_matrix(const nb_checkpoint *c, const nb_tensor *main, const char *suffix,
                                 const int64_t shape[2], const nb_tensor **out, nibble_error *err) {
  *out = nb_part_find(c, main, MAIN_LENGTH, suffix);
  if (!*out) return nb_part_missing(c, main, suffix, err);
  const nb_tensor *t = *out;
  bool is_scales = strcmp(suffix, "scales") == 0;
  if (t->is_blocks || !(is_scales ? nb_dtype_is_float(t->dtype) : t->dtype == NB_I32))
    return nb_tensor_fail(c, t, is_scales ? "is of no float dtype" : "is not of dtype I32", err);
  if (t->ndim == 2 && (shape[0] < 0 || t->shape[0] == shape[0]) && t->shape[1] == shape[1]) return NIBBLE_OK;
  char what[160];
  snprintf(what, sizeof what, "should have %lld columns and as many rows as there are groups, to agree with '%s'",
           (long long)shape[1], main_suffix);
  return nb_tensor_fail(c, t, what, err);
}

/* bits = words * 32 / cols where the last word is full, which is so for every model that GPTQModel packs itself. */
static nibble_status find_format(const nb_checkpoint *c, gptq_parts *p, nibble_error *err) {
  nb_packed *m = &p->packed;
  int64_t words = p->qweight->shape[0];
  for (int bits = 2; bits <= 8; bits++) {
    if (nb_gptq_format(bits, &m->format) && nb_gptq_words(m->cols, bits) == words) return NIBBLE_OK;
  }
  char what[128];
  snprintf(what, sizeof what, "has %lld rows, which is not 2, 3, 4 or 8 bits for %lld input features", (long long)words,
           (long long)m->cols);
  return nb_tensor_fail(c, p->qweight, what, err);
}

/* Input features: g_idx counts them; without it, what the words hold at the bits the config names. */
static nibble_status find_cols(const nb_checkpoint *c, gptq_parts *p, nibble_error *err) {
  nb_packed *m = &p->packed;
  nb_format format;
  int64_t bits = c->config.quant.bits;
  p->g_idx = nb_part_find(c, p->qweight, MAIN_LENGTH, "g_idx");
  if (p->g_idx && (p->g_idx->dtype != NB_I32 || p->g_idx->is_blocks || p->g_idx->ndim != 1))
    return nb_tensor_fail(c, p->g_idx, "is not one row of I32", err);
  if (!p->g_idx && !nb_gptq_format(bits, &format)) return nb_part_missing(c, p->qweight, "g_idx", err);
  m->cols = p->g_idx ? p->g_idx->count : p->qweight->shape[0] * 32 / bits;
  return m->cols >= 1 ? NIBBLE_OK : nb_tensor_fail(c, p->qweight, "has no input features", err);
}

static nibble_status find_parts(const nb_checkpoint *c, const nb_tensor *main, gptq_parts *p, nibble_error *err) {
  *p = (gptq_parts){.qweight = main};
  nb_packed *m = &p->packed;
  if (main->dtype != NB_I32 || main->ndim != 2 || main->shape[0] < 1 || main->shape[1] < 1)
    return nb_tensor_fail(c, main, "is not a matrix of dtype I32", err);
  m->rows = main->shape[1];
  nibble_status status = find_cols(c, p, err);
  if (status == NIBBLE_OK) status = find_format(c, p, err);
  if (status == NIBBLE_OK) status = need_matrix(c, main, "scales", (int64_t[]){-1, m->rows}, &p->scales, err);
  if (status != NIBBLE_OK) return status;
  m->groups = p->scales->shape[0];
  m->scale.dtype = p->scales->dtype;
  if (m->groups < 1 || m->groups > m->cols) return nb_tensor_fail(c, p->scales, "has no rows, or too many", err);
  m->scale.block_rows = 1;
  m->scale.block_cols = nb_ceil_div(m->cols, m->groups);
  int64_t words = nb_gptq_words(m->rows, nb_gptq_bits(m->format));
  return need_matrix(c, main, "qzeros", (int64_t[]){m->groups, words}, &p->qzeros, err);
}

static nibble_status describe(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                              nb_dtype *source_dtype, nibble_error *err) {
  gptq_parts parts;
  nibble_status status = find_parts(checkpoint, main, &parts, err);
  *out = parts.packed;
  *source_dtype = parts.packed.scale.dtype;
  return status;
}

/* Checks g_idx and drops it where columns lie group by group, which is the faster way to read them. */
static nibble_status load_groups(const nb_checkpoint *c, const gptq_parts *p, nb_weight *out, nibble_error *err) {
  nb_packed *m = &out->packed;
  int64_t configured = c->config.quant.group_size;
  if (!p->g_idx) {
    if (configured > 0 && nb_ceil_div(m->cols, configured) == m->groups) m->scale.block_cols = configured;
    return NIBBLE_OK;
  }
  const void *values = NULL;
  nibble_status status = nb_weight_view(c, p->g_idx, out, &values, err);
  if (status != NIBBLE_OK) return status;
  const int32_t *g_idx = values;
  int64_t first = 0; /* columns in group 0, if they lie in order */
  while (first < m->cols && g_idx[first] == 0) first++;
  bool in_order = first > 0 && nb_ceil_div(m->cols, first) == m->groups;
  for (int64_t i = 0; i < m->cols; i++) {
    if (g_idx[i] < 0 || g_idx[i] >= m->groups) {
      char what[96];
      snprintf(what, sizeof what, "names group %d at index %lld; there are %lld", g_idx[i], (long long)i,
               (long long)m->groups);
      return nb_tensor_fail(c, p->g_idx, what, err);
    }
    in_order = in_order && g_idx[i] == i / first;
  }
  if (in_order) {
    m->scale.block_cols = first;
  } else {
    m->g_idx = g_idx;
  }
  return NIBBLE_OK;
}

static nibble_status load_zeros(const nb_checkpoint *c, const gptq_parts *p, nb_weight *out, nibble_error *err) {
  nb_packed *m = &out->packed;
  const void *words = NULL;
  void *zeros = NULL;
  nb_weight copy = {0};
  nibble_status status = nb_weight_view(c, p->qzeros, &copy, &words, err);
  if (status == NIBBLE_OK) status = nb_weight_own(out, (uint64_t)(m->groups * m->rows), &zeros, err);
  for (int64_t g = 0; status == NIBBLE_OK && g < m->groups; g++) {
    nb_gptq_unpack_zeros((const uint32_t *)words + g * p->qzeros->shape[1], m->rows, nb_gptq_bits(m->format),
                         !c->config.quant.zeros_as_stored, (uint8_t *)zeros + g * m->rows);
  }
  m->zeros = zeros;
  nb_weight_free(&copy);
  return status;
}

static nibble_status load(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out, nibble_error *err) {
  gptq_parts parts;
  nibble_status status = find_parts(checkpoint, main, &parts, err);
  nb_packed *m = &out->packed;
  *m = parts.packed;
  out->source_dtype = m->scale.dtype;
  if (status == NIBBLE_OK) status = nb_weight_view(checkpoint, main, out, &m->codes, err);
  if (status == NIBBLE_OK) status = nb_weight_view(checkpoint, parts.scales, out, &m->scale.data, err);
  if (status == NIBBLE_OK) status = load_groups(checkpoint, &parts, out, err);
  if (status == NIBBLE_OK) status = load_zeros(checkpoint, &parts, out, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < m->groups * m->rows; i++) {
    if (isfinite(nb_gptq_scale(m, 0, i))) continue;
    char what[64];
    snprintf(what, sizeof what, "is not finite at index %lld", (long long)i);
    status = nb_tensor_fail(checkpoint, parts.scales, what, err);
  }
  return status;
}

/* Zero points of the first group that are the middle of the grid as they are stored, and with one added. */
static nibble_status count_middles(const nb_checkpoint *c, const gptq_parts *p, int64_t counts[2], nibble_error *err) {
  int bits = nb_gptq_bits(p->packed.format);
  int64_t words = p->qzeros->shape[1];
  uint32_t *packed = nb_alloc((uint64_t)words, sizeof *packed);
  uint8_t *zeros = nb_alloc((uint64_t)p->packed.rows, 1);
  bool ok = packed && zeros;
  nibble_status status = ok ? nb_tensor_read(c, p->qzeros, (nb_span){0, words}, NB_I32, packed, err)
                            : nb_fail_memory(err, (size_t)words * sizeof *packed);
  counts[0] = counts[1] = 0;
  for (int less_one = 0; status == NIBBLE_OK && less_one < 2; less_one++) {
    nb_gptq_unpack_zeros(packed, p->packed.rows, bits, less_one != 0, zeros);
    for (int64_t i = 0; i < p->packed.rows; i++) counts[less_one] += zeros[i] == 1 << (bits - 1);
  }
  free(packed);
  free(zeros);
  return status;
}

/* A symmetric grid has its zero in the middle, whatever version the config claims: files of version 2 are about whose
 * config says version 1 (vllm pull request 38966). Looks at the first group of one weight. */
static nibble_status settle(nb_checkpoint *c, const nb_tensor *main, nibble_error *err) {
  nb_quant_config *q = &c->config.quant;
  gptq_parts p;
  int64_t counts[2];
  if (!q->sym || find_parts(c, main, &p, NULL) != NIBBLE_OK) return NIBBLE_OK;
  nibble_status status = count_middles(c, &p, counts, err);
  if (status != NIBBLE_OK) return status;
  if (counts[0] == p.packed.rows) q->zeros_as_stored = true;
  if (counts[1] == p.packed.rows) q->zeros_as_stored = false;
  if (q->zeros_as_stored == q->gptq_v2) return NIBBLE_OK;
  nb_buf text = {0};
  nb_buf_printf(
      &text,
      "%s: its config says %s, but the zero points of a symmetric grid tell that it is %s, which is how they "
      "are read; what goes by the config alone reads every weight one step off (convert --layout %s mends it)",
      c->path, variants[q->gptq_v2 ? NB_GPTQ_V2 : NB_GPTQ_V1], variants[q->gptq_v2 ? NB_GPTQ_V1 : NB_GPTQ_V2],
      variants[q->gptq_v2 ? NB_GPTQ_V1 : NB_GPTQ_V2]);
  c->layout_warning = text.data;
  return text.failed ? nb_fail_memory(err, text.length) : NIBBLE_OK;
}

static bool add_parts(const nb_packed *m, nb_dtype source_dtype, const char *name, nb_part *out, int *count) {
  (void)source_dtype; /* the scales' dtype is told by the descriptor */
  int bits = nb_gptq_bits(m->format);
  static const char weight[] = "weight";
  size_t whole = strlen(name), keep = whole > sizeof weight - 1 ? whole - (sizeof weight - 1) : 0;
  nb_str module = {name, keep};
  int64_t packed_cols = nb_gptq_words(m->cols, bits), packed_rows = nb_gptq_words(m->rows, bits);
  nb_part codes = {.role = NB_PART_CODES, .dtype = NB_I32, .ndim = 2, .shape = {packed_cols, m->rows}};
  nb_part zeros = {.role = NB_PART_ZEROS, .dtype = NB_I32, .ndim = 2, .shape = {m->groups, packed_rows}};
  nb_part scales = {.role = NB_PART_SCALES, .dtype = m->scale.dtype, .ndim = 2, .shape = {m->groups, m->rows}};
  nb_part g_idx = {.role = NB_PART_G_IDX, .dtype = NB_I32, .ndim = 1, .shape = {m->cols}};
  return nb_part_add(out, count, module, main_suffix, codes) && nb_part_add(out, count, module, "qzeros", zeros) &&
         nb_part_add(out, count, module, "scales", scales) && nb_part_add(out, count, module, "g_idx", g_idx);
}

/* ---- another variant ---- */

/* Group by group. */
static nibble_status rewrite_zeros(const nb_checkpoint *c, const nb_tensor *part, int variant, nb_writer *writer,
                                   size_t index, nibble_error *err) {
  const nb_packed *m = part->main->packed;
  int bits = nb_gptq_bits(m->format);
  int64_t groups = part->shape[0], words = part->shape[1];
  uint64_t bytes = (uint64_t)words * sizeof(uint32_t);
  uint32_t *packed = nb_alloc((uint64_t)words, sizeof *packed);
  uint8_t *zeros = nb_alloc((uint64_t)m->rows, 1);
  nibble_status status = packed && zeros ? NIBBLE_OK : nb_fail_memory(err, (size_t)bytes);
  for (int64_t g = 0; status == NIBBLE_OK && g < groups; g++) {
    status = nb_tensor_read(c, part, (nb_span){g * words, words}, NB_I32, packed, err);
    if (status != NIBBLE_OK) break;
    nb_gptq_unpack_zeros(packed, m->rows, bits, !c->config.quant.zeros_as_stored, zeros);
    nb_gptq_pack_zeros(zeros, m->rows, bits, variant == NB_GPTQ_V1, packed);
    status = nb_writer_write(writer, index, (uint64_t)g * bytes, packed, bytes, err);
  }
  free(packed);
  free(zeros);
  return status;
}

/* ---- quantization_config ---- */

static bool name_variant(cJSON *config, int variant) {
  cJSON_DeleteItemFromObjectCaseSensitive(config, "format");
  cJSON_DeleteItemFromObjectCaseSensitive(config, "checkpoint_format");
  return cJSON_AddStringToObject(config, "format", variants[variant]) &&
         cJSON_AddStringToObject(config, "checkpoint_format", variants[variant]);
}

static cJSON *write_config(const nb_layout_config *config) {
  const nb_quant_config *q = &config->quant;
  const char *method = nb_layout_gptq.method;
  cJSON *json = cJSON_CreateObject();
  bool ok = json && cJSON_AddNumberToObject(json, "bits", (double)q->bits) &&
            cJSON_AddNumberToObject(json, "group_size", (double)q->group_size) &&
            cJSON_AddBoolToObject(json, "desc_act", config->desc_act) && cJSON_AddBoolToObject(json, "sym", q->sym) &&
            cJSON_AddBoolToObject(json, "lm_head", config->head) && cJSON_AddStringToObject(json, "method", method) &&
            cJSON_AddStringToObject(json, "quant_method", method) && name_variant(json, config->variant) &&
            cJSON_AddStringToObject(json, "pack_dtype", "int32");
  bool taken = ok && config->kept && cJSON_AddItemToObject(json, "dynamic", config->kept);
  if (config->kept && !taken) cJSON_Delete(config->kept);
  if (ok && (taken || !config->kept)) return json;
  cJSON_Delete(json);
  return NULL;
}

static const char *const choosers[] = {"dynamic", "modules_in_block_to_quantize", NULL};

/* Of the kernels of AutoGPTQ and of Marlin. */
static const char *const buffers[] = {".wf", ".workspace", NULL};

static bool holds(nb_format format) { return nb_gptq_bits(format) != 0; }

static const nb_part_name part_names[] = {
    {"qzeros", NB_PART_ZEROS}, {"scales", NB_PART_SCALES}, {"g_idx", NB_PART_G_IDX}, {NULL, 0}};

const nb_layout nb_layout_gptq = {.name = "gptq",
                                  .method = "gptq",
                                  .main = main_suffix,
                                  .parts = part_names,
                                  .buffers = buffers,
                                  .claims = claims,
                                  .describe = describe,
                                  .load = load,
                                  .settle = settle,
                                  .holds = holds,
                                  .variants = variants,
                                  .variant_part = NB_PART_ZEROS,
                                  .rewrite = rewrite_zeros,
                                  .name_variant = name_variant,
                                  .config_too = "quantize_config.json",
                                  .packs_experts = true,
                                  .blocks_only = true,
                                  .names_modules = true,
                                  .choosers = choosers,
                                  .config = write_config,
                                  .add_parts = add_parts};
