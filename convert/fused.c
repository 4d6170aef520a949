#include "convert/fused.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"

/* The piece of one expert. An identity with the second spelling, because a tensor that holds the one matrix alone goes
 * first where a file has both. */
static nb_tensor view_of(const nb_tensor *whole, const nb_pieces *p, int64_t expert, int piece) {
  int64_t rows = p->items[piece].rows, size = (int64_t)nb_dtype_size(whole->dtype);
  int64_t packed[3] = {p->rows * p->cols, p->cols, 1};
  const int64_t *stride = whole->is_strided ? whole->stride : packed;
  int64_t first = expert * stride[0] + p->items[piece].first * stride[1];
  nb_tensor view = {
      .dtype = whole->dtype,
      .ndim = 2,
      .shape = {rows, p->cols},
      .count = rows * p->cols,
      .file = whole->file,
      .offset = whole->offset + (uint64_t)(first * size),
      .bytes = (uint64_t)(((rows - 1) * stride[1] + (p->cols - 1) * stride[2] + 1) * size),
      .is_strided = whole->is_strided,
      .stride = {stride[1], stride[2]},
      .id = {.rule = p->items[piece].rule, .stack = whole->id.stack, .layer = whole->id.layer, .spelling = 1},
      .whole = whole,
  };
  view.id.role = view.id.rule->role;
  view.id.expert = (int)expert;
  return view;
}

static nibble_status add_view(nb_checkpoint *c, nb_tensor view, nibble_error *err) {
  if (!(view.name = nb_identity_name(&c->config, &view.id))) return nb_fail_memory(err, sizeof view);
  c->views[c->view_count] = view;
  int64_t index = (int64_t)(c->tensor_count + c->view_count++);
  if (nb_checkpoint_find(c, view.name)) return NIBBLE_OK; /* the name is that tensor's */
  bool ok = nb_strmap_add(&c->by_weight, view.name, strlen(view.name), index) != NB_STRMAP_NO_MEMORY;
  return ok ? NIBBLE_OK : nb_fail_memory(err, sizeof(nb_strmap_slot));
}

/* What a tensor that cannot be taken apart is, in a line. */
static nibble_status set_fault(nb_checkpoint *c, nb_tensor *t, const nb_pieces *p, nibble_error *err) {
  nb_buf text = {0};
  nb_buf_printf(&text, "%s: tensor '%s': ", c->files[t->file].path, t->name);
  if (!nb_dtype_is_float(t->dtype) || t->is_blocks) {
    nb_buf_printf(&text, "experts in one tensor can be read where they are not packed, but its dtype is %s",
                  nb_dtype_name(t->dtype));
  } else {
    nb_buf_printf(&text, "its shape is [");
    for (int i = 0; i < t->ndim; i++) nb_buf_printf(&text, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    nb_buf_printf(&text, "], the config makes it [%lld, %lld, %lld]", (long long)p->slices, (long long)p->rows,
                  (long long)p->cols);
  }
  t->fault = text.data;
  c->misfit = t;
  return text.failed ? nb_fail_memory(err, text.length) : NIBBLE_OK;
}

static bool fits(const nb_tensor *t, const nb_pieces *p) {
  return nb_dtype_is_float(t->dtype) && !t->is_blocks && t->ndim == 3 && t->shape[0] == p->slices &&
         t->shape[1] == p->rows && t->shape[2] == p->cols;
}

/* Whether the tensor is one of several matrices, and not another layout's business. */
static bool is_fused(const nb_checkpoint *c, const nb_tensor *t, nb_pieces *out) {
  bool foreign = c->foreign && !nb_dtype_is_float(t->dtype);
  return !t->is_part && !t->layout && !foreign && !t->id.is_bias && nb_identity_pieces(&c->config, &t->id, out);
}

nibble_status nb_fused_find(nb_checkpoint *c, nibble_error *err) {
  nb_pieces p;
  size_t count = 0;
  for (size_t i = 0; i < c->tensor_count; i++) {
    if (!is_fused(c, &c->tensors[i], &p)) continue;
    if (fits(&c->tensors[i], &p)) {
      count += (size_t)(p.slices * p.count);
    } else {
      nibble_status status = set_fault(c, &c->tensors[i], &p, err);
      if (status != NIBBLE_OK) return status;
    }
  }
  if (count == 0) return NIBBLE_OK;
  if (!(c->views = nb_alloc(count, sizeof *c->views))) return nb_fail_memory(err, count * sizeof *c->views);
  for (size_t i = 0; i < c->tensor_count; i++) {
    nb_tensor *t = &c->tensors[i];
    if (!is_fused(c, t, &p) || !fits(t, &p)) continue;
    t->views = &c->views[c->view_count];
    for (; t->view_count < (size_t)(p.slices * p.count); t->view_count++) {
      int64_t expert = (int64_t)t->view_count / p.count;
      nb_tensor view = view_of(t, &p, expert, (int)((int64_t)t->view_count % p.count));
      nibble_status status = add_view(c, view, err);
      if (status != NIBBLE_OK) return status;
    }
  }
  return NIBBLE_OK;
}

void nb_fused_free(nb_checkpoint *c) {
  for (size_t i = 0; i < c->view_count; i++) free(c->views[i].name);
  free(c->views);
}
