#include "convert/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/stop.h"
#include "base/str.h"
#include "convert/fused.h"
#include "convert/layouts.h"

/* ---- names ------------------------------------------------------------------------------------------------------ */

const char *nb_tensor_weight_name(const nb_tensor *t) { return t->weight_name ? t->weight_name : t->name; }

const nb_tensor *nb_checkpoint_find_weight(const nb_checkpoint *c, const char *name) {
  int64_t index;
  if (nb_strmap_find(&c->by_weight, name, strlen(name), &index)) return nb_checkpoint_at(c, (size_t)index);
  const nb_tensor *t = nb_checkpoint_find(c, name);
  return t && !t->is_part ? t : NULL;
}

nb_tensor nb_tensor_as_stored(const nb_tensor *t) {
  nb_tensor stored = *t;
  if (!t->is_transposed) return stored;
  stored.shape[0] = t->shape[1];
  stored.shape[1] = t->shape[0];
  stored.is_transposed = stored.is_strided = false;
  return stored;
}

/* ---- layouts ---------------------------------------------------------------------------------------------------- */

/* Names of weights that a layout calls something else: "NAME.qweight" is "NAME.weight". */
static nibble_status name_weight(nb_checkpoint *c, nb_tensor *t, nibble_error *err) {
  static const char weight[] = "weight";
  size_t cut = strlen(t->layout->main), whole = strlen(t->name);
  if (strcmp(t->layout->main, weight) == 0) return NIBBLE_OK;
  if (!(t->weight_name = malloc(whole - cut + sizeof weight))) return nb_fail_memory(err, whole);
  memcpy(t->weight_name, t->name, whole - cut);
  memcpy(t->weight_name + whole - cut, weight, sizeof weight);
  bool ok = nb_strmap_add(&c->by_weight, t->weight_name, strlen(t->weight_name), t - c->tensors) != NB_STRMAP_NO_MEMORY;
  return ok ? NIBBLE_OK : nb_fail_memory(err, whole);
}

static nibble_status describe(const nb_checkpoint *c, nb_tensor *t, nibble_error *err) {
  nibble_error why;
  if (!(t->packed = nb_alloc(1, sizeof *t->packed))) return nb_fail_memory(err, sizeof *t->packed);
  nibble_status status = t->layout->describe(c, t, t->packed, &t->source_dtype, &why);
  if (status == NIBBLE_OK) return NIBBLE_OK;
  free(t->packed);
  t->packed = NULL;
  if (status == NIBBLE_SYSTEM) return nb_fail(err, status, "%s", why.message);
  return (t->fault = strdup(why.message)) ? NIBBLE_OK : nb_fail_memory(err, sizeof why.message);
}

static void mark_parts(const nb_checkpoint *c, const nb_tensor *main) {
  size_t cut = strlen(main->layout->main);
  for (const nb_part_name *part = main->layout->parts; part->suffix; part++) {
    const nb_tensor *found = nb_part_find(c, main, cut, part->suffix);
    if (!found || found->layout || found->is_part) continue;
    nb_tensor *t = &c->tensors[found - c->tensors];
    t->is_part = true;
    t->part = part->role;
    t->main = main;
  }
}

static nibble_status find_layouts(nb_checkpoint *c, nibble_error *err) {
  bool settled[16] = {false};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->tensor_count; i++) {
    nb_tensor *t = &c->tensors[i];
    for (const nb_layout *const *row = nb_layouts; *row && !t->layout; row++) {
      if ((*row)->claims(c, t)) t->layout = *row;
    }
  }
  for (size_t i = 0; status == NIBBLE_OK && i < c->tensor_count; i++) {
    nb_tensor *t = &c->tensors[i];
    if (!t->layout) continue;
    mark_parts(c, t);
    status = name_weight(c, t, err);
    if (status == NIBBLE_OK) status = describe(c, t, err);
    size_t row = 0;
    while (nb_layouts[row] != t->layout) row++;
    if (status == NIBBLE_OK && t->layout->settle && t->packed && !settled[row]) status = t->layout->settle(c, t, err);
    settled[row] = settled[row] || t->packed;
  }
  return status;
}

/* What other layouts have beside a weight, or in its place: such a tensor means nothing by itself. */
static bool is_foreign_part(const char *name) {
  static const char *const endings[] = {"_scale_inv",         ".weight_scale",   ".weight_packed", "_blocks",
                                        ".weight_zero_point", ".weight_scale_2", ".qweight"};
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    if (nb_ends_with(name, endings[i])) return true;
  }
  return false;
}

/* A packing that no row reads: by the config's word, by a tensor that only such a packing has, or by a type of blocks.
 */
static void find_foreign(nb_checkpoint *c) {
  const nb_quant_config *q = &c->config.quant;
  if (q->present && *q->method && !nb_layout_of_config(q)) c->foreign = q->method;
  for (size_t i = 0; i < c->tensor_count && !c->foreign; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (t->opaque) c->foreign = t->opaque;
    if (!t->layout && !t->is_part && !t->is_blocks && is_foreign_part(t->name)) c->foreign = t->name;
  }
}

/* ---- roles ------------------------------------------------------------------------------------------------------ */

/* Shows a plain weight that lies as [in, out] as [out, in]. */
static void turn(nb_tensor *t) {
  int64_t in = t->shape[0], out = t->shape[1];
  int64_t strides[2] = {t->is_strided ? t->stride[0] : out, t->is_strided ? t->stride[1] : 1};
  if (t->is_blocks || t->permute_heads || t->is_strided) return;
  t->shape[0] = out, t->shape[1] = in;
  t->stride[0] = strides[1], t->stride[1] = strides[0];
  t->is_strided = t->is_transposed = true;
}

static void find_roles(nb_checkpoint *c) {
  for (size_t i = 0; i < c->tensor_count; i++) {
    nb_tensor *t = &c->tensors[i];
    t->id.layer = t->id.expert = -1;
    if (t->is_part) continue;
    t->id = nb_identify(&c->config, nb_tensor_weight_name(t), t->layout ? 2 : t->ndim);
    if (!t->id.rule && nb_layout_is_buffer(t->name)) t->id.role = NB_BUFFER;
    bool turned = t->id.rule && t->id.rule->stored & NB_TRANSPOSED && !t->id.is_bias;
    if (turned && !t->layout && t->ndim == 2 && !c->gguf) turn(t);
  }
}

/* The weight, or bias, with that role and the best spelling; NULL if there is none. */
static const nb_tensor *find_role(const nb_checkpoint *c, nb_role role, bool is_bias) {
  const nb_tensor *best = NULL;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (t->is_part || t->id.role != role || t->id.is_bias != is_bias || !t->id.rule) continue;
    if (!best || t->id.spelling < best->id.spelling) best = t;
  }
  return best;
}

enum { COMPARED = 16 << 20 /* bytes between two looks at whether the caller wants to stop */ };

/* Whether the two hold the same: gigabytes of a file, at its first reading. */
static nibble_status compare(const nb_checkpoint *c, const nb_tensor *a, const nb_tensor *b, bool *same,
                             nibble_error *err) {
  *same = a->dtype == b->dtype && a->bytes == b->bytes && !a->layout == !b->layout;
  if (!*same) return NIBBLE_OK;
  const char *x = nb_tensor_raw(c, a), *y = nb_tensor_raw(c, b);
  for (size_t at = 0, n, all = (size_t)a->bytes; *same && at < all; at += n) {
    nibble_status status = nb_stop_check(err);
    if (status != NIBBLE_OK) return status;
    n = all - at < COMPARED ? all - at : COMPARED;
    *same = memcmp(x + at, y + at, n) == 0;
  }
  return NIBBLE_OK;
}

/* The two are to be one, and are not. */
static nibble_status note_untied(nb_checkpoint *c, const nb_tensor *t, const nb_tensor *other, nibble_error *err) {
  nb_buf text = {0};
  if (c->untied) return NIBBLE_OK;
  c->untied = t;
  nb_buf_printf(&text,
                "%s: tie_word_embeddings says that tensor '%s' is '%s', but the two differ; they are taken as they are",
                c->files[t->file].path, t->name, other->name);
  c->tie_warning = text.data;
  return text.failed ? nb_fail_memory(err, text.length) : NIBBLE_OK;
}

/* transformers 5 ties by the config, unless the file has two tensors that differ (modeling_utils.py, tie_weights). */
static nibble_status decide_tie(nb_checkpoint *c, nibble_error *err) {
  if (!c->config.tie_word_embeddings) return NIBBLE_OK;
  const nb_tensor *embedding = find_role(c, NB_TOKEN_EMBED, false);
  c->head = find_role(c, NB_HEAD, false);
  if (!c->head || !embedding) return NIBBLE_OK;
  bool same;
  nibble_status status = compare(c, c->head, embedding, &same, err);
  if (status != NIBBLE_OK || same) return status;
  c->config.head_differs = true;
  return c->config.tie_is_loose ? NIBBLE_OK : note_untied(c, c->head, embedding, err);
}

/* ---- what the config promises ----------------------------------------------------------------------------------- */

/* The promised tensor of that identity; *out is NULL if there is none. */
static nibble_status find_slot(const nb_checkpoint *c, const nb_identity *id, nb_slot **out, nibble_error *err) {
  int64_t at;
  *out = NULL;
  if (!id->rule || !c->slots) return NIBBLE_OK;
  char *name = nb_identity_name(&c->config, id);
  if (!name) return nb_fail_memory(err, 0);
  if (nb_strmap_find(&c->by_promise, name, strlen(name), &at)) *out = &c->slots[at];
  free(name);
  return NIBBLE_OK;
}

static nb_tensor *own(const nb_checkpoint *c, const nb_tensor *t) {
  return t->whole ? &c->views[t - c->views] : &c->tensors[t - c->tensors];
}

/* Of two spellings of one tensor the better is taken. */
static void take(const nb_checkpoint *c, nb_slot *slot, const nb_tensor *t) {
  const nb_tensor *other = slot->tensor;
  bool is_better = !other || t->id.spelling < other->id.spelling;
  if (is_better) slot->tensor = t;
  if (other && is_better) own(c, other)->twin = t;
  if (!is_better) own(c, t)->twin = other;
}

static nb_slot *slot_of(const nb_checkpoint *c, nb_role role, bool is_bias) {
  for (size_t i = 0; i < c->promised.count; i++) {
    if (c->slots[i].wanted->role == role && c->slots[i].wanted->is_bias == is_bias) return &c->slots[i];
  }
  return NULL;
}

/* A bias that stands by itself and the head's own are tied by the same word, apart from the weights: either will do
 * where the other is missing, and the head's own is the one that is added. */
static nibble_status tie_bias(nb_checkpoint *c, nibble_error *err) {
  nb_slot *alone = slot_of(c, NB_HEAD_BIAS, false), *heads = slot_of(c, NB_HEAD, true);
  const nb_tensor *stored = find_role(c, NB_HEAD, true);
  if (!c->config.tie_word_embeddings || !alone) return NIBBLE_OK;
  const nb_tensor *other = alone->tensor;
  if (heads && !heads->tensor) heads->tensor = other;
  if (!stored) return NIBBLE_OK;
  if (!heads || !other) alone->tensor = stored;
  if (!other) return NIBBLE_OK;
  bool same;
  nibble_status status = compare(c, stored, other, &same, err);
  if (status != NIBBLE_OK) return status;
  if (!same) return note_untied(c, stored, other, err);
  if (!heads) own(c, other)->twin = stored;
  return NIBBLE_OK;
}

static nibble_status fill_slots(nb_checkpoint *c, nibble_error *err) {
  for (size_t i = 0; i < c->promised.count; i++) {
    const char *name = c->promised.items[i].name;
    c->slots[i].wanted = &c->promised.items[i];
    if (nb_strmap_add(&c->by_promise, name, strlen(name), (int64_t)i) == NB_STRMAP_NO_MEMORY)
      return nb_fail_memory(err, c->promised.count * sizeof(nb_strmap_slot));
  }
  for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
    const nb_tensor *t = nb_checkpoint_at(c, i);
    nb_slot *slot = NULL;
    nibble_status status = t->is_part ? NIBBLE_OK : find_slot(c, &t->id, &slot, err);
    if (status != NIBBLE_OK) return status;
    if (slot) take(c, slot, t);
    bool is_stray = c->gguf && !slot && t->id.rule && t->id.layer >= 0;
    if (is_stray && !c->stray) c->stray = t;
  }
  for (size_t i = 0; i < c->promised.count; i++) {
    nb_slot *slot = &c->slots[i];
    if (slot->wanted->role == NB_TOKEN_EMBED && !slot->tensor) slot->tensor = c->head;
  }
  return tie_bias(c, err);
}

nibble_status nb_checkpoint_counterpart(const nb_checkpoint *c, const char *name, const nb_identity *id,
                                        const nb_tensor **out, nibble_error *err) {
  nb_slot *slot = NULL;
  *out = nb_checkpoint_find_weight(c, name);
  nibble_status status = *out ? NIBBLE_OK : find_slot(c, id, &slot, err);
  if (slot) *out = slot->tensor;
  return status;
}

const nb_slot *nb_checkpoint_slot(const nb_checkpoint *c, nb_role role) { return slot_of(c, role, false); }

nibble_status nb_bind(nb_checkpoint *c, nibble_error *err) {
  nibble_status status = find_layouts(c, err);
  if (status != NIBBLE_OK) return status;
  find_foreign(c);
  find_roles(c);
  if (!c->config.family) return NIBBLE_OK;
  if ((status = decide_tie(c, err)) != NIBBLE_OK) return status;
  if ((status = nb_model_tensors_list(&c->config, &c->promised, err)) != NIBBLE_OK) return status;
  if (!(c->slots = nb_alloc(c->promised.count + 1, sizeof *c->slots)))
    return nb_fail_memory(err, c->promised.count * sizeof *c->slots);
  if ((status = nb_fused_find(c, err)) != NIBBLE_OK) return status;
  return fill_slots(c, err);
}

void nb_bind_free(nb_checkpoint *c) {
  for (size_t i = 0; i < c->tensor_count; i++) {
    free(c->tensors[i].packed);
    free(c->tensors[i].weight_name);
    free(c->tensors[i].fault);
  }
  nb_fused_free(c);
  nb_strmap_free(&c->by_weight);
  nb_strmap_free(&c->by_promise);
  nb_model_tensors_free(&c->promised);
  free(c->slots);
  free(c->tie_warning);
  free(c->layout_warning);
}

/* ---- what is asked of it ---------------------------------------------------------------------------------------- */

void nb_shape_print(char *out, size_t room, const int64_t *shape, int ndim) {
  size_t used = 0;
  out[0] = 0;
  for (int i = 0; i < ndim && used < room; i++)
    used += (size_t)snprintf(out + used, room - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
}

/* Nothing tells which of the two is the model's. */
static nibble_status check_twin(const nb_checkpoint *c, const nb_tensor *t, nibble_error *err) {
  bool same = true;
  nibble_status status = t->twin ? compare(c, t, t->twin, &same, err) : NIBBLE_OK;
  if (status != NIBBLE_OK || same) return status;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' stands for the same as '%s', but the two differ",
                 c->files[t->file].path, t->name, t->twin->name);
}

static nibble_status check_shape(const nb_checkpoint *c, const nb_slot *slot, nibble_error *err) {
  const nb_model_tensor *want = slot->wanted;
  const nb_tensor *have = slot->tensor;
  if (!have || have->layout || (c->foreign && !nb_dtype_is_float(have->dtype))) return NIBBLE_OK;
  if (have->ndim == want->ndim && memcmp(have->shape, want->shape, (size_t)want->ndim * sizeof *want->shape) == 0)
    return NIBBLE_OK;
  char is[192], should[96];
  nb_shape_print(is, sizeof is, have->shape, have->ndim);
  nb_shape_print(should, sizeof should, want->shape, want->ndim);
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its shape is [%s], the config makes it [%s]",
                 c->files[have->file].path, have->name, is, should);
}

nibble_status nb_bind_check(const nb_checkpoint *c, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->tensor_count; i++) {
    if (c->tensors[i].fault) return nb_fail(err, NIBBLE_BAD_INPUT, "%s", c->tensors[i].fault);
  }
  for (size_t i = 0; status == NIBBLE_OK && i < nb_checkpoint_count(c); i++)
    status = check_twin(c, nb_checkpoint_at(c, i), err);
  for (size_t i = 0; status == NIBBLE_OK && i < c->promised.count; i++) status = check_shape(c, &c->slots[i], err);
  return status;
}

nibble_status nb_checkpoint_no_stray(const nb_checkpoint *c, nibble_error *err) {
  if (!c->stray) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is none that a model of type '%s' has", c->path,
                 c->stray->name, c->config.model_type);
}

nibble_status nb_checkpoint_complete(const nb_checkpoint *c, nibble_error *err) {
  for (size_t i = 0; i < c->promised.count; i++) {
    const nb_slot *slot = &c->slots[i];
    if (slot->tensor || nb_model_tensor_is_optional(&c->config, slot->wanted)) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is missing, which a model of type '%s' has", c->path,
                   slot->wanted->name, c->config.model_type);
  }
  return nb_checkpoint_no_stray(c, err);
}

void nb_checkpoint_warn(const nb_checkpoint *c, const nibble_progress *progress) {
  if (c->skipped_values)
    nb_warn(progress, "%s: %zu entries that are no tensors are left out", c->path, c->skipped_values);
  if (c->tie_warning) nb_warn(progress, "%s", c->tie_warning);
  if (c->layout_warning) nb_warn(progress, "%s", c->layout_warning);
}
