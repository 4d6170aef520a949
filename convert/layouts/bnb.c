#include "convert/layouts/bnb.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/str.h"
#include "model/json.h"

/* A quant state is some 200 bytes; a longer text is not one. */
enum { MAX_STATE_BYTES = 4096, NESTED_CODES = 256, CODES = 16 };

static const char state_infix[] = ".quant_state.bitsandbytes__";
static const nb_format formats_4bit[] = {NB_FORMAT_NF4, NB_FORMAT_FP4};

/* A weight whose other parts are looked for: they are called main's name without its last `cut` characters and more. */
typedef struct stem {
  const nb_checkpoint *checkpoint;
  const nb_tensor *main;
  size_t cut;
} stem;

/* Finds a part and checks its dtype and count. */
static nibble_status need_part(const stem *of, const char *suffix, nb_dtype dtype, int64_t count, const nb_tensor **out,
                               nibble_error *err) {
  *out = nb_part_find(of->checkpoint, of->main, of->cut, suffix);
  if (!*out) return nb_part_missing(of->checkpoint, of->main, suffix, err);
  if (!(*out)->is_blocks && (*out)->dtype == dtype && (*out)->count == count) return NIBBLE_OK;
  char what[128];
  snprintf(what, sizeof what, "has %lld elements of %s, not %lld of %s", (long long)(*out)->count,
           nb_dtype_name((*out)->dtype), (long long)count, nb_dtype_name(dtype));
  return nb_tensor_fail(of->checkpoint, *out, what, err);
}

/* A float32 part, aligned, every value finite. */
static nibble_status load_floats(const stem *of, const char *suffix, int64_t count, nb_weight *weight, const void **out,
                                 nibble_error *err) {
  const nb_tensor *part;
  const void *values = NULL;
  nibble_status status = need_part(of, suffix, NB_F32, count, &part, err);
  if (status == NIBBLE_OK) status = nb_weight_view(of->checkpoint, part, weight, &values, err);
  if (status != NIBBLE_OK) return status;
  *out = values;
  for (int64_t i = 0; i < count; i++) {
    if (isfinite(((const float *)values)[i])) continue;
    char what[64];
    snprintf(what, sizeof what, "is not finite at index %lld", (long long)i);
    return nb_tensor_fail(of->checkpoint, part, what, err);
  }
  return NIBBLE_OK;
}

/* ---- names and settings, for those who judge a checkpoint ---- */

bool nb_bnb_skips_module(const nb_config *config, const char *name, bool is_head) {
  const cJSON *quant = nb_json_object(config->json, "quantization_config");
  const cJSON *list = quant ? cJSON_GetObjectItemCaseSensitive(quant, "llm_int8_skip_modules") : NULL;
  if (!cJSON_IsArray(list)) return is_head;
  size_t n = strlen(name);
  if (nb_ends_with(name, ".weight")) n -= strlen(".weight");
  for (const cJSON *item = list->child; item; item = item->next) {
    if (!cJSON_IsString(item)) continue;
    const char *skip = item->valuestring;
    size_t k = strlen(skip);
    if (k > n || k == 0) continue;
    if (strncmp(name + n - k, skip, k) == 0) return true;
    if (strncmp(name, skip, k) == 0 && name[k] == '.') return true;
  }
  return false;
}

bool nb_bnb_is_part_name(const char *name) {
  static const char *const parts[] = {".absmax",           ".quant_map",     ".nested_absmax",
                                      ".nested_quant_map", ".weight_format", ".SCB"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (nb_ends_with(name, parts[i])) return true;
  }
  return strstr(name, ".quant_state.") != NULL;
}

const nb_tensor *nb_bnb_any_state(const nb_checkpoint *c, const char *name) {
  size_t n = strlen(name);
  for (size_t i = 0; i < c->tensor_count; i++) {
    if (strncmp(c->tensors[i].name, name, n) == 0 && strncmp(c->tensors[i].name + n, ".quant_state.", 13) == 0)
      return &c->tensors[i];
  }
  return NULL;
}

/* ---- 4 bits ---- */

static const nb_tensor *find_state(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_format *format) {
  for (size_t i = 0; i < sizeof formats_4bit / sizeof *formats_4bit; i++) {
    char suffix[64];
    snprintf(suffix, sizeof suffix, "%s%s", state_infix, nb_format_info(formats_4bit[i])->name);
    const nb_tensor *state = nb_part_find(checkpoint, main, 0, suffix);
    *format = formats_4bit[i];
    if (state) return state;
  }
  return NULL;
}

static bool claims_4bit(const nb_checkpoint *checkpoint, const nb_tensor *main) {
  nb_format format;
  if (!nb_ends_with(main->name, "weight") || main->is_blocks) return false;
  /* Whichever of the two is missing is then reported as missing. */
  return find_state(checkpoint, main, &format) ||
         (main->dtype == NB_U8 && nb_part_find(checkpoint, main, 0, ".absmax"));
}

static nibble_status parse_shape(const char *where, const cJSON *json, nb_packed *out, nibble_error *err) {
  const cJSON *shape = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "shape") : NULL;
  int64_t extent[2] = {0, 0}, count;
  bool ok = cJSON_IsArray(shape) && cJSON_GetArraySize(shape) == 2;
  for (int i = 0; ok && i < 2; i++) {
    double v = cJSON_GetArrayItem(shape, i)->valuedouble;
    ok = cJSON_IsNumber(cJSON_GetArrayItem(shape, i)) && v >= 1 && v <= 9e15 && v == floor(v);
    if (ok) extent[i] = (int64_t)v;
  }
  if (!ok || !nb_shape_count(extent, 2, &count))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"shape\" must be two positive numbers", where);
  out->rows = extent[0];
  out->cols = extent[1];
  return NIBBLE_OK;
}

static nibble_status parse_state_json(const char *where, const cJSON *json, nb_format expected, nb_packed *out,
                                      nb_dtype *source_dtype, nibble_error *err) {
  const char *quant_type = "", *dtype = "", *nested_dtype = "float32";
  double offset = 0;
  bool nested = cJSON_IsObject(json) && cJSON_HasObjectItem(json, "nested_offset");
  nibble_status status = nb_json_string(where, json, "quant_type", &quant_type, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, json, "dtype", &dtype, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, json, "nested_dtype", &nested_dtype, err);
  if (status == NIBBLE_OK) status = nb_json_double(where, json, "nested_offset", &offset, err);
  if (status == NIBBLE_OK)
    status = nb_json_need_int(where, json, "blocksize", (nb_range){32, 4096}, &out->scale.block_cols, err);
  if (status == NIBBLE_OK && nested)
    status = nb_json_need_int(where, json, "nested_blocksize", (nb_range){1, 1 << 20}, &out->second.block_cols, err);
  if (status == NIBBLE_OK) status = parse_shape(where, json, out, err);
  if (status != NIBBLE_OK) return status;

  if (strcmp(quant_type, nb_format_info(expected)->name) != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"quant_type\" is \"%s\", the tensor's name says \"%s\"", where,
                   quant_type, nb_format_info(expected)->name);
  if (out->scale.block_cols & (out->scale.block_cols - 1))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"blocksize\" %lld is not a power of two", where,
                   (long long)out->scale.block_cols);
  nb_format plain;
  if (!nb_dtype_parse(dtype, source_dtype) || !nb_format_of_dtype(*source_dtype, &plain))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"dtype\" is \"%s\", not float32, float16 or bfloat16", where, dtype);
  out->scale.offset = (float)offset;
  out->scale.dtype = nested ? NB_U8 : NB_F32;
  out->second.dtype = NB_F32;
  if (strcmp(nested_dtype, "float32") != 0 || !isfinite(out->scale.offset))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"nested_dtype\" and \"nested_offset\" must be float32", where);
  return NIBBLE_OK;
}

nibble_status nb_bnb_state_parse(const char *where, nb_str text, nb_format expected, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err) {
  cJSON *json;
  *out = (nb_packed){.format = expected};
  if (text.length > MAX_STATE_BYTES)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %zu bytes are too many for a quant state", where, text.length);
  nibble_status status = nb_json_parse(where, text.data, text.length, &json, err);
  if (status != NIBBLE_OK) return status;
  status = parse_state_json(where, json, expected, out, source_dtype, err);
  cJSON_Delete(json);
  return status;
}

static nibble_status describe_4bit(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                                   nb_dtype *source_dtype, nibble_error *err) {
  nb_format format;
  const nb_tensor *state = find_state(checkpoint, main, &format);
  if (!state) return nb_part_missing(checkpoint, main, state_infix + 1, err);
  const char *text = nb_tensor_view(checkpoint, state);
  if (!text || state->dtype != NB_U8) return nb_tensor_fail(checkpoint, state, "is not of dtype U8", err);
  char where[NIBBLE_MESSAGE_MAX / 2];
  snprintf(where, sizeof where, "%s: tensor '%s'", checkpoint->files[state->file].path, state->name);
  nibble_status status = nb_bnb_state_parse(where, (nb_str){text, state->bytes}, format, out, source_dtype, err);
  if (status != NIBBLE_OK) return status;

  /* bnb_4bit_quant_storage may have put the same bytes under another dtype. */
  uint64_t bytes = (uint64_t)nb_ceil_div(out->rows * out->cols, 2);
  if (main->bytes == bytes) return NIBBLE_OK;
  char what[160];
  snprintf(what, sizeof what, "has %llu bytes, but its quant state's shape [%lld, %lld] takes %llu",
           (unsigned long long)main->bytes, (long long)out->rows, (long long)out->cols, (unsigned long long)bytes);
  return nb_tensor_fail(checkpoint, main, what, err);
}

static nibble_status load_nested_absmax(const stem *of, int64_t blocks, nb_weight *out, nibble_error *err) {
  nb_packed *m = &out->packed;
  const nb_tensor *codes;
  nibble_status status = need_part(of, ".absmax", NB_U8, blocks, &codes, err);
  if (status != NIBBLE_OK) return status;
  m->scale.data = nb_tensor_view(of->checkpoint, codes);
  int64_t nested_blocks = nb_ceil_div(blocks, m->second.block_cols);
  status = load_floats(of, ".nested_absmax", nested_blocks, out, &m->second.data, err);
  if (status != NIBBLE_OK) return status;
  const void *map = NULL;
  status = load_floats(of, ".nested_quant_map", NESTED_CODES, out, &map, err);
  m->scale.codebook = map;
  return status;
}

static nibble_status load_4bit(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out,
                               nibble_error *err) {
  nb_packed *m = &out->packed;
  nibble_status status = describe_4bit(checkpoint, main, m, &out->source_dtype, err);
  if (status != NIBBLE_OK) return status;
  m->codes = nb_tensor_view(checkpoint, main);
  if (!m->codes) return nb_tensor_fail(checkpoint, main, "cannot be packed in a file of this kind", err);
  int64_t blocks = nb_ceil_div(m->rows * m->cols, m->scale.block_cols);
  const stem whole = {checkpoint, main, 0};
  const void *map = NULL;
  status = load_floats(&whole, ".quant_map", CODES, out, &map, err);
  m->codebook = map;
  if (status != NIBBLE_OK) return status;
  if (m->second.block_cols) return load_nested_absmax(&whole, blocks, out, err);
  return load_floats(&whole, ".absmax", blocks, out, &m->scale.data, err);
}

/* ---- int8 ---- */

static const size_t weight_length = sizeof "weight" - 1;

/* Int8 of a config that names another packing is that one's, unless it has bitsandbytes' scales. */
static bool claims_8bit(const nb_checkpoint *checkpoint, const nb_tensor *main) {
  if (main->dtype != NB_I8 || main->is_blocks || main->ndim != 2 || !nb_ends_with(main->name, ".weight")) return false;
  const nb_quant_config *quant = &checkpoint->config.quant;
  return nb_layout_is_named(&nb_layout_bnb8, quant) || !quant->present ||
         nb_part_find(checkpoint, main, weight_length, "SCB");
}

static nibble_status describe_8bit(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                                   nb_dtype *source_dtype, nibble_error *err) {
  *source_dtype = NB_F16;
  if (main->shape[0] < 1 || main->shape[1] < 1) return nb_tensor_fail(checkpoint, main, "is empty", err);
  *out = nb_packed_usual(NB_FORMAT_INT8, main->shape[0], main->shape[1], 0, false);
  return NIBBLE_OK;
}

static nibble_status load_8bit(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out,
                               nibble_error *err) {
  nb_packed *m = &out->packed;
  nibble_status status = describe_8bit(checkpoint, main, m, &out->source_dtype, err);
  if (status != NIBBLE_OK) return status;
  m->codes = nb_tensor_view(checkpoint, main);
  if (!m->codes) return nb_tensor_fail(checkpoint, main, "cannot be packed in a file of this kind", err);

  /* Formats other than 0, row-major, belonged to old GPUs; bitsandbytes refuses them too. */
  const nb_tensor *format = nb_part_find(checkpoint, main, weight_length, "weight_format");
  const uint8_t *value = format ? nb_tensor_view(checkpoint, format) : NULL;
  if (format && (!value || format->dtype != NB_U8 || format->count != 1 || *value != 0))
    return nb_tensor_fail(checkpoint, format, "is not 0 (row-major), the only int8 order there is today", err);
  const stem module = {checkpoint, main, weight_length};
  return load_floats(&module, "SCB", m->rows, out, &m->scale.data, err);
}

/* ---- writing ---- */

/* A part of one dimension. */
static nb_part row_of(nb_part_role role, nb_dtype dtype, int64_t count) {
  return (nb_part){.role = role, .dtype = dtype, .ndim = 1, .shape = {count}};
}

static bool add_parts_8bit(const nb_packed *m, nb_dtype source_dtype, const char *name, nb_part *out, int *n) {
  (void)source_dtype; /* it goes through float16, whatever it was */
  size_t length = strlen(name);
  nb_str whole = {name, length}, module = {name, length > weight_length ? length - weight_length : 0};
  nb_part codes = {.role = NB_PART_CODES, .dtype = NB_I8, .ndim = 2, .shape = {m->rows, m->cols}};
  nb_part format = {.role = NB_PART_FORMAT, .dtype = NB_U8, .shape = {1}};
  return nb_part_add(out, n, whole, "", codes) &&
         nb_part_add(out, n, module, "SCB", row_of(NB_PART_ABSMAX, NB_F32, m->rows)) &&
         nb_part_add(out, n, module, "weight_format", format);
}

static bool add_parts_4bit(const nb_packed *m, nb_dtype source_dtype, const char *name, nb_part *out, int *n) {
  nb_str whole = {name, strlen(name)};
  int64_t count = m->rows * m->cols, blocks = nb_ceil_div(count, m->scale.block_cols);
  bool nested = m->second.block_cols > 0;
  char state[64];
  snprintf(state, sizeof state, "%s%s", state_infix, nb_format_info(m->format)->name);
  /* The longest state: a plain one, or one whose offset is the longest float there is. */
  nb_packed longest = *m;
  longest.scale.offset = -1.2345678e-38f;
  nb_buf json = {0};
  nb_layout_state_json(&longest, source_dtype, &json);
  int64_t state_bytes = (int64_t)json.length + (nested ? 8 : 0);
  bool ok = !json.failed;
  nb_buf_free(&json);

  nb_part codes = {.role = NB_PART_CODES, .dtype = NB_U8, .ndim = 2, .shape = {nb_ceil_div(count, 2), 1}};
  ok = ok && nb_part_add(out, n, whole, "", codes) &&
       nb_part_add(out, n, whole, ".absmax", row_of(NB_PART_ABSMAX, nested ? NB_U8 : NB_F32, blocks));
  if (nested) {
    nb_part absmax = row_of(NB_PART_NESTED_ABSMAX, NB_F32, nb_ceil_div(blocks, m->second.block_cols));
    nb_part map = row_of(NB_PART_NESTED_QUANT_MAP, NB_F32, NESTED_CODES);
    ok = ok && nb_part_add(out, n, whole, ".nested_absmax", absmax) &&
         nb_part_add(out, n, whole, ".nested_quant_map", map);
  }
  return ok && nb_part_add(out, n, whole, ".quant_map", row_of(NB_PART_QUANT_MAP, NB_F32, CODES)) &&
         nb_part_add(out, n, whole, state, row_of(NB_PART_STATE, NB_U8, state_bytes));
}

/* The shortest decimal that reads back as v, spelled as Python's repr spells it: exponents below -4 and from 16 on in
 * scientific notation with at least two digits, otherwise positional with at least one digit after the point. */
static void append_python_float(nb_buf *out, double v) {
  char text[40];
  int digits = 0;
  do snprintf(text, sizeof text, "%.*e", digits, v);
  while (strtod(text, NULL) != v && ++digits < 17);
  int exponent = atoi(strchr(text, 'e') + 1);
  if (exponent < -4 || exponent >= 16) {
    nb_buf_puts(out, text);
  } else {
    int decimals = digits - exponent;
    nb_buf_printf(out, "%.*f", decimals > 1 ? decimals : 1, v);
  }
}

void nb_layout_state_json(const nb_packed *m, nb_dtype source_dtype, nb_buf *out) {
  nb_buf_printf(out, "{\"quant_type\": \"%s\", \"blocksize\": %lld, \"dtype\": \"%s\", \"shape\": [%lld, %lld]",
                nb_format_info(m->format)->name, (long long)m->scale.block_cols, nb_dtype_torch_name(source_dtype),
                (long long)m->rows, (long long)m->cols);
  if (m->second.block_cols > 0) {
    nb_buf_printf(out, ", \"nested_blocksize\": %lld, \"nested_dtype\": \"float32\", \"nested_offset\": ",
                  (long long)m->second.block_cols);
    append_python_float(out, m->scale.offset);
  }
  nb_buf_puts(out, "}");
}

/* As transformers 5.23 writes it: keys sorted, the ones that are not asked for at their defaults. */
static cJSON *write_config(const nb_layout_config *config) {
  const nb_quant_config *q = &config->quant;
  cJSON *json = cJSON_CreateObject();
  cJSON_AddBoolToObject(json, "_load_in_4bit", q->load_in_4bit);
  cJSON_AddBoolToObject(json, "_load_in_8bit", q->load_in_8bit);
  cJSON_AddStringToObject(json, "bnb_4bit_compute_dtype", "float32");
  cJSON_AddStringToObject(json, "bnb_4bit_quant_storage", "uint8");
  cJSON_AddStringToObject(json, "bnb_4bit_quant_type", q->quant_type ? q->quant_type : "fp4");
  cJSON_AddBoolToObject(json, "bnb_4bit_use_double_quant", q->double_quant);
  cJSON_AddBoolToObject(json, "llm_int8_enable_fp32_cpu_offload", false);
  cJSON_AddBoolToObject(json, "llm_int8_has_fp16_weight", false);
  bool ok = cJSON_AddItemToObject(json, "llm_int8_skip_modules", config->kept);
  if (!ok) cJSON_Delete(config->kept);
  cJSON_AddRawToObject(json, "llm_int8_threshold", "6.0"); /* transformers refuses a whole number here */
  cJSON_AddBoolToObject(json, "load_in_4bit", q->load_in_4bit);
  cJSON_AddBoolToObject(json, "load_in_8bit", q->load_in_8bit);
  if (ok && cJSON_AddStringToObject(json, "quant_method", "bitsandbytes")) return json;
  cJSON_Delete(json);
  return NULL;
}

static bool holds_4bit(nb_format format) { return format == NB_FORMAT_NF4 || format == NB_FORMAT_FP4; }
static bool holds_8bit(nb_format format) { return format == NB_FORMAT_INT8; }

static const nb_part_name parts_4bit[] = {
    {"weight.absmax", NB_PART_ABSMAX},
    {"weight.quant_map", NB_PART_QUANT_MAP},
    {"weight.nested_absmax", NB_PART_NESTED_ABSMAX},
    {"weight.nested_quant_map", NB_PART_NESTED_QUANT_MAP},
    {"weight.quant_state.bitsandbytes__nf4", NB_PART_STATE},
    {"weight.quant_state.bitsandbytes__fp4", NB_PART_STATE},
    {NULL, 0},
};

static const nb_part_name parts_8bit[] = {{"SCB", NB_PART_ABSMAX}, {"weight_format", NB_PART_FORMAT}, {NULL, 0}};

const nb_layout nb_layout_bnb4 = {.name = "bitsandbytes 4-bit",
                                  .method = "bitsandbytes",
                                  .main = "weight",
                                  .parts = parts_4bit,
                                  .claims = claims_4bit,
                                  .describe = describe_4bit,
                                  .load = load_4bit,
                                  .holds = holds_4bit,
                                  .config = write_config,
                                  .add_parts = add_parts_4bit};

const nb_layout nb_layout_bnb8 = {.name = "bitsandbytes int8",
                                  .method = "bitsandbytes",
                                  .main = "weight",
                                  .parts = parts_8bit,
                                  .claims = claims_8bit,
                                  .describe = describe_8bit,
                                  .load = load_8bit,
                                  .holds = holds_8bit,
                                  .config = write_config,
                                  .add_parts = add_parts_8bit};
