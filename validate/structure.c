#include "validate/structure.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/stop.h"
#include "convert/layouts.h"
#include "convert/layouts/bnb.h"
#include "convert/layouts/gptq.h"
#include "model/heads.h"
#include "validate/scan.h"

typedef struct look {
  const nb_checkpoint *checkpoint;
  const nibble_progress *progress;
  nb_findings *findings;
  bool *promised; /* [tensor_count]: the config names it */
  uint64_t bytes_done, bytes_total;
} look;

/* ---- what the config promises ---- */

static void check_shape(look *l, const nb_model_tensor *want, const nb_tensor *have) {
  if (have->fault) return; /* reported later */
  if (l->checkpoint->foreign && !nb_dtype_is_float(have->dtype)) return;
  int64_t logical[NB_MAX_DIMS] = {0};
  int ndim = have->layout ? 2 : have->ndim;
  memcpy(logical, have->shape, sizeof logical);
  if (have->layout) logical[0] = have->packed->rows, logical[1] = have->packed->cols;
  if (ndim == want->ndim && memcmp(logical, want->shape, (size_t)ndim * sizeof *logical) == 0) return;
  char is[192], should[96];
  nb_shape_print(is, sizeof is, logical, ndim);
  nb_shape_print(should, sizeof should, want->shape, want->ndim);
  bool turned = ndim == 2 && want->ndim == 2 && logical[0] == want->shape[1] && logical[1] == want->shape[0];
  nb_find(l->findings, NIBBLE_FAULT, "shape", turned ? "transposed" : "wrong-shape", nb_place_tensor(have->name),
          "its shape is [%s], the config makes it [%s]", is, should);
}

/* The layout that quantization_config names, if every linear layer is to be packed by it: a config may choose them by
 * rules of its own. */
static const nb_layout *layout_of_every_linear(const nb_config *config) {
  const cJSON *quant = nb_json_object(config->json, "quantization_config");
  const nb_layout *layout = nb_layout_of_config(&config->quant);
  for (int i = 0; layout && layout->choosers && layout->choosers[i]; i++) {
    if (cJSON_HasObjectItem(quant, layout->choosers[i])) return NULL;
  }
  return layout;
}

static void check_format(look *l, const nb_model_tensor *want, const nb_tensor *have) {
  if (l->checkpoint->foreign) return;
  bool may_be_packed = nb_kind_is_linear(want->kind) && !want->is_bias && !(want->rule->stored & NB_KEEP_F32);
  bool outside = want->layer < 0 && want->kind == NB_KIND_LINEAR; /* of blocks */
  if (have->layout && (!may_be_packed || (outside && have->layout->blocks_only)))
    nb_find(l->findings, NIBBLE_FAULT, "config", "wrong-tensor-packed", nb_place_tensor(have->name),
            "it is packed, but no linear layer's weight%s: nothing that loads this model expects that",
            may_be_packed ? " of a block" : "");
  if (have->layout || have->is_blocks) return;
  if (!nb_dtype_is_float(have->dtype)) {
    nb_find(l->findings, NIBBLE_FAULT, "dtype", "wrong-dtype", nb_place_tensor(have->name),
            "its dtype is %s, which is no weight's", nb_dtype_name(have->dtype));
    return;
  }
  bool head = want->kind == NB_KIND_HEAD, expected = may_be_packed && want->ndim == 2;
  const nb_layout *layout = layout_of_every_linear(&l->checkpoint->config);
  if (layout && !nb_layout_takes(layout, want->rule, want->layer)) expected = false;
  if (expected && layout && !nb_bnb_skips_module(&l->checkpoint->config, have->name, head))
    nb_find(l->findings, NIBBLE_FAULT, "config", "forgotten-tensor", nb_place_tensor(have->name),
            "it is plain %s, but quantization_config does not list it among the modules that are not quantized",
            nb_dtype_name(have->dtype));
}

/* What loads the model takes two tensors that differ as they are (transformers 5 with a warning, too). Whether the head
 * is the one that the model had tells a comparison with the original. */
static void check_tie(look *l) {
  const nb_tensor *untied = l->checkpoint->untied;
  if (untied)
    nb_find(
        l->findings, NIBBLE_WARNING, "shared", "tied-tensors-differ", nb_place_tensor(untied->name),
        "tie_word_embeddings says that it is another tensor, too, but their bytes differ: both are taken as they are");
}

/* A packing that no row of the layouts reads: whatever its tensors hold, nothing here can tell. */
static void check_foreign(look *l) {
  const char *foreign = l->checkpoint->foreign;
  if (foreign)
    nb_find(l->findings, NIBBLE_FAULT, "config", "unread-packing", nb_place_tensor(""),
            "weights are packed by '%s', which is not read here: what they hold cannot be checked", foreign);
}

static void check_promised(look *l) {
  const nb_checkpoint *c = l->checkpoint;
  for (size_t i = 0; i < c->promised.count; i++) {
    const nb_model_tensor *want = c->slots[i].wanted;
    const nb_tensor *have = c->slots[i].tensor;
    if (have) {
      l->promised[nb_checkpoint_index(c, have->whole ? have->whole : have)] = true;
      check_shape(l, want, have);
      check_format(l, want, have);
    } else if ((c->foreign && nb_kind_is_linear(want->kind)) || (c->misfit && want->kind == NB_KIND_EXPERT)) {
      continue; /* it may have another name there, or be in the tensor that cannot be taken apart */
    } else if (!nb_model_tensor_is_optional(&c->config, want)) {
      nb_find(l->findings, NIBBLE_FAULT, "missing", "missing-tensor", nb_place_tensor(want->name),
              "a model of type '%s' has it, the files do not", c->config.model_type);
    }
  }
  if (!c->config.family && c->config.model_type && *c->config.model_type)
    nb_find(l->findings, NIBBLE_WARNING, "family", "unknown-family", nb_place_tensor(""),
            "the family of model_type '%s' is not known: which tensors it has, and which may be packed, is not checked",
            c->config.model_type);
}

/* ---- what is left over ---- */

/* A second copy of a tensor under another name, as older versions saved what is tied. */
static void check_twin(look *l, const nb_tensor *t) {
  const nb_checkpoint *c = l->checkpoint;
  bool same = t->dtype == t->twin->dtype && t->bytes == t->twin->bytes &&
              memcmp(nb_tensor_raw(c, t), nb_tensor_raw(c, t->twin), (size_t)t->bytes) == 0;
  nb_find(l->findings, same ? NIBBLE_NOTE : NIBBLE_FAULT, "shared", same ? "" : "copies-differ",
          nb_place_tensor(t->name),
          same ? "a copy of '%s', which is what is read" : "it stands for the same as '%s', but its bytes are others",
          t->twin->name);
}

static bool is_zero(const nb_checkpoint *c, const nb_tensor *t) {
  const void *view = nb_tensor_view(c, t);
  nb_plain_scan scan = {0};
  if (view && nb_dtype_is_float(t->dtype)) nb_scan_plain(t->dtype, view, t->count, &scan);
  return scan.all_zero;
}

static void check_left_over(look *l) {
  const nb_checkpoint *c = l->checkpoint;
  if (c->foreign) return; /* its parts have names of their own */
  for (size_t i = 0; i < c->view_count; i++) {
    if (c->views[i].twin) check_twin(l, &c->views[i]);
  }
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (l->promised[i] || t->is_part || (t->views && t->views->twin)) continue;
    if (nb_bnb_is_part_name(t->name)) {
      nb_find(l->findings, NIBBLE_FAULT, "left-over", "part-without-weight", nb_place_tensor(t->name),
              "it is a part of a packed weight that is not there");
    } else if (t->twin) {
      check_twin(l, t);
    } else if (t->fault && !t->layout) {
      const char *after_name = strstr(t->fault, "': ");
      nb_find(l->findings, NIBBLE_FAULT, "shape", "wrong-shape", nb_place_tensor(t->name), "%s",
              after_name ? after_name + 3 : t->fault);
    } else if (t->id.rule && t->id.is_bias && is_zero(c, t)) { /* AutoGPTQ saves one for each layer */
      nb_find(l->findings, NIBBLE_NOTE, "left-over", "", nb_place_tensor(t->name),
              "a bias of zeros, which the config has no place for and which changes nothing");
    } else if (c->config.family && t != c->head) { /* of a tied head check_tie has told */
      /* The heads of classes are many, and the rules do not list them all. */
      bool old = t->id.role == NB_BUFFER, head = c->config.head->kind != NB_HEAD_LM;
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
    if ((status = nb_tensor_read(c, t, (nb_span){at, n}, NB_F32, values, err)) != NIBBLE_OK) break;
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
  nb_kind kind = nb_role_info(t->id.role)->kind;
  bool matrix = (nb_kind_is_linear(kind) || kind == NB_KIND_EMBEDDING) && !t->id.is_bias && t->count > 1;
  if (scan.not_finite.count)
    nb_find(l->findings, NIBBLE_FAULT, "finite", "not-finite", place, "%lld of %lld elements are NaN or infinite",
            (long long)scan.not_finite.count, (long long)t->count);
  if (scan.all_zero && (matrix || (kind == NB_KIND_NORM && !t->id.is_bias))) {
    nb_find(l->findings, matrix && c->config.family ? NIBBLE_FAULT : NIBBLE_WARNING, "values", "all-zero",
            nb_place_tensor(t->name), "every element is zero");
  } else if (scan.all_equal && matrix) {
    nb_find(l->findings, NIBBLE_FAULT, "values", "constant", nb_place_tensor(t->name), "every element is the same");
  }
  return NIBBLE_OK;
}

/* ---- quantization_config ---- */

static bool says_4bit(const nb_quant_config *q, nb_format format) {
  return q->load_in_4bit && strcmp(q->quant_type, nb_format_info(format)->name) == 0;
}

static bool says_8bit(const nb_quant_config *q, nb_format format) {
  (void)format;
  return q->load_in_8bit;
}

/* How a layout's weights are looked at. */
typedef struct layout_look {
  const nb_layout *layout;
  nibble_status (*weight)(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_findings *findings,
                          nibble_error *err);
  /* Whether quantization_config says that weights are of this format. NULL: `weight` looks for itself. */
  bool (*says)(const nb_quant_config *quant, nb_format format);
  /* Once, what concerns all weights of the layout together. NULL: nothing. */
  void (*whole)(const nb_checkpoint *checkpoint, nb_findings *findings);
} layout_look;

/* Of a layout without a row: nobody may take the artifact for sound. */
static nibble_status look_at_nothing(const nb_checkpoint *c, const nb_tensor *main, nb_findings *findings,
                                     nibble_error *err) {
  (void)c, (void)err;
  nb_find(findings, NIBBLE_FAULT, "layout", "unchecked-layout", nb_place_tensor(main->name),
          "it is packed in the layout '%s', which is not looked into here", main->layout->name);
  return NIBBLE_OK;
}

static const layout_look layout_looks[] = {{&nb_layout_bnb4, nb_structure_packed, says_4bit, NULL},
                                           {&nb_layout_bnb8, nb_structure_packed, says_8bit, NULL},
                                           {&nb_layout_gptq, nb_structure_gptq, NULL, nb_structure_gptq_label},
                                           {NULL, look_at_nothing, NULL, NULL}};

/* The row of a layout; the last if there is none. */
static const layout_look *look_of(const nb_layout *layout) {
  const layout_look *row = layout_looks;
  while (row->layout && row->layout != layout) row++;
  return row;
}

bool nb_structure_knows(const nb_layout *layout) { return look_of(layout)->layout != NULL; }

static void check_quant_config(look *l) {
  const nb_checkpoint *c = l->checkpoint;
  const nb_quant_config *q = &c->config.quant;
  bool any = false;
  if (!c->config.json || !c->config.json->child) return; /* a lone file has no config to disagree with */
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    nb_packed m;
    if (t->is_part || !t->layout) continue;
    any = true;
    if (nb_layout_describe(c, t, &m, NULL, NULL) != NIBBLE_OK || !look_of(t->layout)->says) continue;
    const char *name = nb_format_info(m.format)->name;
    if (!nb_layout_is_named(t->layout, q)) {
      nb_find(l->findings, NIBBLE_FAULT, "config", "no-quantization-config", nb_place_tensor(t->name),
              "weights are packed as %s, but config.json has no quantization_config that says so", name);
      return;
    }
    if (!look_of(t->layout)->says(q, m.format)) {
      nb_find(l->findings, NIBBLE_FAULT, "config", "config-names-other-format", nb_place_tensor(t->name),
              "it is packed as %s, quantization_config says %s%s", name,
              q->load_in_4bit   ? "4 bits of type "
              : q->load_in_8bit ? "8 bits"
                                : "neither 4 nor 8 bits",
              q->load_in_4bit ? q->quant_type : "");
      return;
    }
  }
  for (const layout_look *row = layout_looks; row->layout; row++) {
    if (row->whole) row->whole(c, l->findings);
  }
  if (!any && look_of(nb_layout_of_config(q))->says)
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
  nibble_status status = NIBBLE_OK;
  check_foreign(&l);
  check_promised(&l);
  check_left_over(&l);
  check_quant_config(&l);
  check_tie(&l);
  for (size_t i = 0; status == NIBBLE_OK && i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    nb_step(progress, t->name, l.bytes_done, out->bytes, "bytes");
    l.bytes_done += t->bytes;
    if (t->is_part || (c->foreign && t->layout)) continue;
    if (t->layout) {
      out->packed_weights++;
      status = look_of(t->layout)->weight(c, t, findings, err);
    } else if (t->is_blocks || nb_dtype_is_float(t->dtype)) {
      bool named = t->is_blocks && nb_structure_blocks(c, t, findings);
      if (!named) status = check_values(&l, t, err);
    }
    nb_tensor_release(c, t, 0, t->count);
    if (status == NIBBLE_OK) status = nb_stop_check(err);
  }
  if (status == NIBBLE_OK && c->gguf) nb_structure_gguf_vocab(c, findings);
  if (status == NIBBLE_OK) status = nb_structure_vocab(c, findings, err);
  if (status == NIBBLE_OK && findings->failed) status = nb_fail_memory(err, sizeof(nibble_finding));
  free(l.promised);
  return status;
}
