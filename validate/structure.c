#include "validate/structure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/str.h"
#include "convert/conform.h"
#include "convert/layouts.h"
#include "model/archs.h"
#include "validate/scan.h"

typedef struct look {
  const nb_checkpoint *checkpoint;
  const nibble_progress *progress;
  nb_findings *findings;
  bool *promised; /* [tensor_count]: the config names it */
  uint64_t bytes_done, bytes_total;
} look;

static void print_shape(char *out, size_t room, const int64_t *shape, int ndim) {
  size_t used = 0;
  out[0] = 0;
  for (int i = 0; i < ndim && used < room; i++)
    used += (size_t)snprintf(out + used, room - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
}

/* ---- what the config promises ---- */

bool nb_module_skipped(const nb_config *config, const char *name, bool is_head) {
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

static void check_shape(look *l, const nb_model_tensor *want, const nb_tensor *have) {
  nb_packed packed = {0};
  bool is_packed = nb_layout_is_packed(l->checkpoint, have);
  if (is_packed && nb_layout_describe(l->checkpoint, have, &packed, NULL, NULL) != NIBBLE_OK)
    return; /* reported later */
  int64_t logical[NB_MAX_DIMS] = {packed.rows, packed.cols};
  int ndim = is_packed ? 2 : have->ndim;
  if (!is_packed) memcpy(logical, have->shape, sizeof logical);
  if (ndim == want->ndim && memcmp(logical, want->shape, (size_t)ndim * sizeof *logical) == 0) return;
  char is[192], should[64];
  print_shape(is, sizeof is, logical, ndim);
  print_shape(should, sizeof should, want->shape, want->ndim);
  bool turned = ndim == 2 && want->ndim == 2 && logical[0] == want->shape[1] && logical[1] == want->shape[0];
  nb_find(l->findings, NIBBLE_FAULT, "shape", turned ? "transposed" : "wrong-shape", nb_place_tensor(have->name),
          "its shape is [%s], the config makes it [%s]", is, should);
}

/* GPTQ's config names what is packed by rules of its own, or not at all; then every linear layer is. */
static bool packs_every_linear(const nb_config *config) {
  const cJSON *quant = nb_json_object(config->json, "quantization_config");
  if (strcmp(config->quant.method, "bitsandbytes") == 0) return true;
  if (strcmp(config->quant.method, "gptq") != 0) return false;
  return !cJSON_HasObjectItem(quant, "dynamic") && !cJSON_HasObjectItem(quant, "modules_in_block_to_quantize");
}

static void check_format(look *l, const nb_model_tensor *want, const nb_tensor *have) {
  const nb_quant_config *quant = &l->checkpoint->config.quant;
  bool packed = nb_layout_is_packed(l->checkpoint, have);
  if (packed && (want->role == NB_ROLE_EMBEDDING || want->role == NB_ROLE_NORM || want->role == NB_ROLE_BIAS))
    nb_find(l->findings, NIBBLE_FAULT, "config", "wrong-tensor-packed", nb_place_tensor(have->name),
            "it is packed, but no linear layer's weight: nothing that loads this model expects that");
  if (packed || have->is_blocks) return;
  if (!nb_dtype_is_float(have->dtype)) {
    nb_find(l->findings, NIBBLE_FAULT, "dtype", "wrong-dtype", nb_place_tensor(have->name),
            "its dtype is %s, which is no weight's", nb_dtype_name(have->dtype));
    return;
  }
  bool linear = want->role == NB_ROLE_LINEAR || want->role == NB_ROLE_HEAD;
  if (linear && quant->present && packs_every_linear(&l->checkpoint->config) &&
      !nb_module_skipped(&l->checkpoint->config, have->name, want->role == NB_ROLE_HEAD))
    nb_find(l->findings, NIBBLE_FAULT, "config", "forgotten-tensor", nb_place_tensor(have->name),
            "it is plain %s, but quantization_config does not list it among the modules that are not quantized",
            nb_dtype_name(have->dtype));
}

static nibble_status check_promised(look *l, nibble_error *err) {
  const nb_checkpoint *c = l->checkpoint;
  if (!c->config.arch) return NIBBLE_OK;
  nb_model_tensors wanted;
  nibble_status status = nb_model_tensors_list(&c->config, &wanted, err);
  for (size_t i = 0; status == NIBBLE_OK && i < wanted.count; i++) {
    const nb_model_tensor *want = &wanted.items[i];
    const nb_tensor *have = NULL;
    if ((status = nb_conform_find(c, want->name, &have, err)) != NIBBLE_OK) break;
    if (have) {
      l->promised[have - c->tensors] = true;
      check_shape(l, want, have);
      check_format(l, want, have);
    } else if (want->rule->when != NB_IF_POOLER) { /* transformers makes a new pooler where there is none */
      nb_find(l->findings, NIBBLE_FAULT, "missing", "missing-tensor", nb_place_tensor(want->name),
              "a model of type '%s' has it, the files do not", c->config.model_type);
    }
  }
  nb_model_tensors_free(&wanted);
  return status;
}

/* ---- what is left over ---- */

/* Buffers that older versions of transformers saved and every version ignores. */
static bool is_old_buffer(const char *name) {
  static const char *const endings[] = {"rotary_emb.inv_freq", "position_ids", "attn.bias", "attn.masked_bias",
                                        "rope_freqs.weight"};
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    if (nb_ends_with(name, endings[i])) return true;
  }
  return false;
}

static bool is_part_name(const char *name) {
  static const char *const parts[] = {".absmax",           ".quant_map",     ".nested_absmax",
                                      ".nested_quant_map", ".weight_format", ".SCB"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (nb_ends_with(name, parts[i])) return true;
  }
  return strstr(name, ".quant_state.") != NULL;
}

static void check_left_over(look *l) {
  const nb_checkpoint *c = l->checkpoint;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (l->promised[i] || nb_layout_is_part(c, t)) continue;
    if (is_part_name(t->name)) {
      nb_find(l->findings, NIBBLE_FAULT, "left-over", "part-without-weight", nb_place_tensor(t->name),
              "it is a part of a packed weight that is not there");
    } else if (c->config.arch) {
      /* The heads of encoders are many, and the table does not list them all. */
      bool old = is_old_buffer(t->name), head = !c->config.arch->decoder;
      bool tied = strcmp(t->name, "lm_head.weight") == 0 && c->config.tie_word_embeddings;
      if (tied) continue; /* check_shared looks at it */
      nb_find(l->findings,
              old    ? NIBBLE_NOTE
              : head ? NIBBLE_WARNING
                     : NIBBLE_FAULT,
              "left-over", old ? "" : "left-over-tensor", nb_place_tensor(t->name), "%s",
              old ? "a buffer that old versions saved and nothing reads" : "the config has no place for it");
    }
  }
}

/* ---- values ---- */

/* GGUF's blocks, F64 views with strides and the like: as float32, a piece at a time. */
static nibble_status scan_by_reading(const nb_checkpoint *c, const nb_tensor *t, nb_plain_scan *out,
                                     nibble_error *err) {
  enum { PIECE = 1 << 16 };
  float *values = nb_alloc_aligned(PIECE, sizeof *values);
  *out = (nb_plain_scan){.not_finite = {0, -1}, .all_equal = true, .all_zero = true};
  nibble_status status = values ? NIBBLE_OK : nb_fail_memory(err, PIECE * sizeof *values);
  float first = 0;
  for (int64_t at = 0; status == NIBBLE_OK && at < t->count; at += PIECE) {
    int64_t n = nb_min_i64(PIECE, t->count - at);
    if ((status = nb_tensor_read(c, t, at, n, NB_F32, values, err)) != NIBBLE_OK) break;
    if (at == 0) first = values[0];
    nb_plain_scan piece;
    nb_scan_plain(NB_F32, values, n, &piece);
    if (piece.not_finite.count && out->not_finite.count == 0) out->not_finite.first = at + piece.not_finite.first;
    out->not_finite.count += piece.not_finite.count;
    out->all_zero &= piece.all_zero;
    out->all_equal &= piece.all_equal && memcmp(&values[0], &first, sizeof first) == 0;
  }
  free(values);
  return status;
}

static nibble_status check_values(look *l, const nb_tensor *t, nibble_error *err) {
  const nb_checkpoint *c = l->checkpoint;
  const void *view = nb_tensor_view(c, t);
  nb_plain_scan scan;
  if (t->count == 0) {
    nb_find(l->findings, NIBBLE_WARNING, "values", "empty", nb_place_tensor(t->name), "it has no elements");
    return NIBBLE_OK;
  }
  if (view) {
    nb_scan_plain(t->dtype, view, t->count, &scan);
  } else {
    nibble_status status = scan_by_reading(c, t, &scan, err);
    if (status != NIBBLE_OK) return status;
  }
  nb_place place = {t->name, -1, scan.not_finite.first, scan.not_finite.count};
  nb_role role = nb_tensor_role(&c->config, t->name, t->ndim);
  bool matrix = (role == NB_ROLE_LINEAR || role == NB_ROLE_EMBEDDING || role == NB_ROLE_HEAD) && t->count > 1;
  if (scan.not_finite.count)
    nb_find(l->findings, NIBBLE_FAULT, "finite", "not-finite", place, "%lld of %lld elements are NaN or infinite",
            (long long)scan.not_finite.count, (long long)t->count);
  if (scan.all_zero && (matrix || (role == NB_ROLE_NORM && nb_ends_with(t->name, ".weight")))) {
    nb_find(l->findings, matrix && c->config.arch ? NIBBLE_FAULT : NIBBLE_WARNING, "values", "all-zero",
            nb_place_tensor(t->name), "every element is zero");
  } else if (scan.all_equal && matrix) {
    nb_find(l->findings, NIBBLE_FAULT, "values", "constant", nb_place_tensor(t->name), "every element is the same");
  }
  return NIBBLE_OK;
}

/* transformers gives a tied head the embedding's weights, whatever the file says: if they differ, one of them is not
 * what the model was. */
static void check_shared(look *l) {
  const nb_checkpoint *c = l->checkpoint;
  const nb_tensor *head = nb_checkpoint_find(c, "lm_head.weight"), *embedding = NULL;
  if (!head || !c->config.arch || !c->config.arch->decoder || !c->config.tie_word_embeddings) return;
  if (nb_conform_find(c, "model.embed_tokens.weight", &embedding, NULL) != NIBBLE_OK || !embedding) return;
  bool same = head->dtype == embedding->dtype && head->bytes == embedding->bytes &&
              memcmp(nb_tensor_raw(c, head), nb_tensor_raw(c, embedding), (size_t)head->bytes) == 0;
  if (same) return;
  nb_find(l->findings, NIBBLE_FAULT, "shared", "tied-tensors-differ", nb_place_tensor(head->name),
          "tie_word_embeddings says that it is '%s', but its bytes are others", embedding->name);
}

/* ---- quantization_config ---- */

static const char *format_flag(nb_format format) {
  return format == NB_FORMAT_INT8                             ? "load_in_8bit"
         : format == NB_FORMAT_NF4 || format == NB_FORMAT_FP4 ? "load_in_4bit"
                                                              : "";
}

static void check_quant_config(look *l) {
  const nb_checkpoint *c = l->checkpoint;
  const nb_quant_config *q = &c->config.quant;
  bool any = false;
  if (!c->config.json || !c->config.json->child) return; /* a lone file has no config to disagree with */
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    nb_packed m;
    if (nb_layout_is_part(c, t) || !nb_layout_is_packed(c, t)) continue;
    any = true;
    if (nb_layout_describe(c, t, &m, NULL, NULL) != NIBBLE_OK || !*format_flag(m.format)) continue;
    const char *name = nb_format_info(m.format)->name;
    if (!q->present || strcmp(q->method, "bitsandbytes") != 0) {
      nb_find(l->findings, NIBBLE_FAULT, "config", "no-quantization-config", nb_place_tensor(t->name),
              "weights are packed as %s, but config.json has no quantization_config that says so", name);
      return;
    }
    bool flag = m.format == NB_FORMAT_INT8 ? q->load_in_8bit : q->load_in_4bit;
    bool type = m.format == NB_FORMAT_INT8 || strcmp(q->quant_type, name) == 0;
    if (!flag || !type) {
      nb_find(l->findings, NIBBLE_FAULT, "config", "config-names-other-format", nb_place_tensor(t->name),
              "it is packed as %s, quantization_config says %s%s", name,
              q->load_in_4bit   ? "4 bits of type "
              : q->load_in_8bit ? "8 bits"
                                : "neither 4 nor 8 bits",
              q->load_in_4bit ? q->quant_type : "");
      return;
    }
  }
  if (!any && q->present && strcmp(q->method, "bitsandbytes") == 0)
    nb_find(l->findings, NIBBLE_FAULT, "config", "nothing-is-packed", nb_place_tensor(""),
            "config.json has a quantization_config, but no weight is packed");
}

nibble_status nb_structure_check(const nb_checkpoint *c, const nibble_progress *progress, nb_findings *findings,
                                 nb_structure *out, nibble_error *err) {
  look l = {.checkpoint = c, .progress = progress, .findings = findings};
  *out = (nb_structure){.tensors = c->tensor_count};
  if (!(l.promised = nb_alloc(c->tensor_count + 1, sizeof *l.promised)))
    return nb_fail_memory(err, c->tensor_count * sizeof *l.promised);
  for (size_t i = 0; i < c->tensor_count; i++) out->bytes += c->tensors[i].bytes;
  nibble_status status = check_promised(&l, err);
  if (status != NIBBLE_OK) goto done;
  check_left_over(&l);
  check_quant_config(&l);
  check_shared(&l);
  for (size_t i = 0; status == NIBBLE_OK && i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    nb_step(progress, t->name, l.bytes_done, out->bytes, "bytes");
    l.bytes_done += t->bytes;
    if (nb_layout_is_part(c, t)) continue;
    if (nb_layout_is_packed(c, t)) {
      out->packed_weights++;
      bool gptq = nb_ends_with(t->name, ".qweight");
      status = (gptq ? nb_structure_gptq : nb_structure_packed)(c, t, findings, err);
    } else if (t->is_blocks || nb_dtype_is_float(t->dtype)) {
      bool named = t->is_blocks && nb_structure_blocks(c, t, findings);
      if (!named) status = check_values(&l, t, err);
    }
    nb_tensor_release(c, t, 0, t->count);
  }
  if (status == NIBBLE_OK && c->gguf) nb_structure_gguf_vocab(c, findings);
  if (status == NIBBLE_OK) status = nb_structure_vocab(c, findings, err);
  if (status == NIBBLE_OK && findings->failed) status = nb_fail_memory(err, sizeof(nibble_finding));
done:
  free(l.promised);
  return status;
}
