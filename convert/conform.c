#include "convert/conform.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "convert/layouts.h"
#include "model/archs.h"

nibble_status nb_conform_find(const nb_checkpoint *c, const char *name, const nb_tensor **out, nibble_error *err) {
  const char *prefix = c->config.arch->base_prefix;
  size_t n = strlen(prefix);
  if ((*out = nb_layout_find(c, name))) return NIBBLE_OK;
  if (strncmp(name, prefix, n) == 0) {
    *out = nb_layout_find(c, name + n);
    return NIBBLE_OK;
  }
  nb_buf other = {0};
  nb_buf_puts(&other, prefix);
  nb_buf_puts(&other, name);
  nibble_status status = other.failed ? nb_fail_memory(err, other.length) : NIBBLE_OK;
  if (status == NIBBLE_OK) *out = nb_layout_find(c, other.data);
  nb_buf_free(&other);
  return status;
}

static void print_shape(char *out, size_t room, const int64_t *shape, int ndim) {
  size_t used = 0;
  out[0] = 0;
  for (int i = 0; i < ndim && used < room; i++)
    used += (size_t)snprintf(out + used, room - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
}

static nibble_status check_shape(const nb_checkpoint *c, const nb_model_tensor *want, const nb_tensor *have,
                                 nibble_error *err) {
  if (!have || (c->config.quant.present && !nb_dtype_is_float(have->dtype))) return NIBBLE_OK;
  if (have->ndim == want->ndim && memcmp(have->shape, want->shape, (size_t)want->ndim * sizeof *want->shape) == 0)
    return NIBBLE_OK;
  char is[192], should[64];
  print_shape(is, sizeof is, have->shape, have->ndim);
  print_shape(should, sizeof should, want->shape, want->ndim);
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its shape is [%s], the config makes it [%s]",
                 c->files[have->file].path, have->name, is, should);
}

static nibble_status check_presence(const nb_checkpoint *c, const nb_model_tensor *want, const nb_tensor *have,
                                    nibble_error *err) {
  /* A class may be saved without its pooler; transformers makes a new one then. */
  if (have || want->rule->when == NB_IF_POOLER) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is missing, which a model of type '%s' has", c->path,
                 want->name, c->config.model_type);
}

static nibble_status check_all(const nb_checkpoint *c,
                               nibble_status (*check)(const nb_checkpoint *, const nb_model_tensor *, const nb_tensor *,
                                                      nibble_error *),
                               nibble_error *err) {
  if (!c->config.arch) return NIBBLE_OK;
  nb_model_tensors wanted;
  nibble_status status = nb_model_tensors_list(&c->config, &wanted, err);
  for (size_t i = 0; status == NIBBLE_OK && i < wanted.count; i++) {
    const nb_tensor *have;
    status = nb_conform_find(c, wanted.items[i].name, &have, err);
    if (status == NIBBLE_OK) status = check(c, &wanted.items[i], have, err);
  }
  nb_model_tensors_free(&wanted);
  return status;
}

nibble_status nb_conform_shapes(const nb_checkpoint *c, nibble_error *err) { return check_all(c, check_shape, err); }

nibble_status nb_conform_complete(const nb_checkpoint *c, nibble_error *err) {
  return check_all(c, check_presence, err);
}
