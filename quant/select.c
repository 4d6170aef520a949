#include "quant/select.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/layouts.h"
#include "model/archs.h"

typedef struct pattern {
  const char *option, *text;
  pcre2_code *code; /* NULL: none was given */
  pcre2_match_data *match;
  bool used;
} pattern;

static nibble_status compile(pattern *p, nibble_error *err) {
  if (!p->text) return NIBBLE_OK;
  int error;
  PCRE2_SIZE at;
  p->code = pcre2_compile((PCRE2_SPTR)p->text, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
  if (!p->code) {
    char text[128];
    pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
    return nb_fail(err, NIBBLE_USAGE, "%s '%s': %s, at character %zu", p->option, p->text, text, (size_t)at);
  }
  p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
  return p->match ? NIBBLE_OK : nb_fail_memory(err, sizeof *p);
}

static void release(pattern *p) {
  pcre2_match_data_free(p->match);
  pcre2_code_free(p->code);
}

static bool matches(const pattern *p, const char *name) {
  return p->code &&
         pcre2_match(p->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, PCRE2_NO_UTF_CHECK, p->match, NULL) >= 0;
}

static bool has_weight_suffix(const char *name) {
  size_t n = strlen(name);
  return n > 7 && strcmp(name + n - 7, ".weight") == 0;
}

/* A linear module's weight, quantized or not. */
static bool is_linear(const nb_checkpoint *c, const nb_tensor *t) {
  nb_role role = nb_tensor_role(&c->config, t->name, t->ndim);
  return t->ndim == 2 && has_weight_suffix(t->name) && (role == NB_ROLE_LINEAR || role == NB_ROLE_HEAD);
}

static nibble_status check_dtype(const nb_checkpoint *c, const nb_tensor *t, nibble_error *err) {
  nb_format plain;
  if (t->is_blocks || nb_layout_is_packed(c, t) || nb_format_of_dtype(t->dtype, &plain)) return NIBBLE_OK;
  return nb_fail(
      err, NIBBLE_BAD_INPUT,
      "%s: tensor '%s' is of dtype %s; weights are quantized from F32, F16 or BF16 (--exclude leaves it out)",
      c->files[t->file].path, t->name, nb_dtype_name(t->dtype));
}

static nibble_status choose(const nb_checkpoint *c, pattern *include, pattern *exclude, nb_selection *out,
                            nibble_error *err) {
  /* transformers gives a tied head the embedding's weights, whatever the file says. */
  bool tied = c->config.arch && c->config.tie_word_embeddings;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (nb_layout_is_part(c, t)) out->choices[i] = NB_CHOICE_DROP;
    if (out->choices[i] == NB_CHOICE_DROP || !is_linear(c, t) || t->count == 0) continue;
    bool head = nb_tensor_role(&c->config, t->name, t->ndim) == NB_ROLE_HEAD;
    bool chosen = !head;
    if (matches(include, t->name) && !(head && tied)) {
      include->used = true;
      if (head) out->is_default = false;
      chosen = true;
    }
    if (chosen && matches(exclude, t->name)) {
      exclude->used = true;
      if (!head) out->is_default = false;
      chosen = false;
    }
    if (!chosen) continue;
    nibble_status status = check_dtype(c, t, err);
    if (status != NIBBLE_OK) return status;
    out->choices[i] = NB_CHOICE_QUANTIZE;
    out->quantized++;
  }
  return NIBBLE_OK;
}

nibble_status nb_select(const nb_checkpoint *c, const char *include, const char *exclude, nb_selection *out,
                        nibble_error *err) {
  pattern patterns[] = {{.option = "--include", .text = include}, {.option = "--exclude", .text = exclude}};
  *out = (nb_selection){.choices = nb_alloc(c->tensor_count ? c->tensor_count : 1, sizeof *out->choices),
                        .is_default = true};
  nibble_status status = out->choices ? NIBBLE_OK : nb_fail_memory(err, c->tensor_count * sizeof *out->choices);
  if (status == NIBBLE_OK) status = compile(&patterns[0], err);
  if (status == NIBBLE_OK) status = compile(&patterns[1], err);
  if (status == NIBBLE_OK) status = choose(c, &patterns[0], &patterns[1], out, err);
  for (int i = 0; status == NIBBLE_OK && i < 2; i++) {
    if (patterns[i].text && !patterns[i].used)
      status = nb_fail(err, NIBBLE_USAGE, "%s '%s' matches no linear layer's weight of %s", patterns[i].option,
                       patterns[i].text, c->path);
  }
  if (status == NIBBLE_OK && out->quantized == 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no linear layer's weight is left to quantize", c->path);
  release(&patterns[0]);
  release(&patterns[1]);
  if (status != NIBBLE_OK) nb_selection_free(out);
  return status;
}

void nb_selection_free(nb_selection *selection) {
  free(selection->choices);
  *selection = (nb_selection){0};
}

/* transformers takes the list as it stands, without what it would leave out by itself: so the head is named even where
 * it is tied and no tensor of the file. */
cJSON *nb_skip_modules(const nb_checkpoint *c, const nb_selection *selection) {
  if (selection->is_default) return cJSON_CreateNull();
  cJSON *list = cJSON_CreateArray();
  bool ok = list != NULL, head_named = false;
  for (size_t i = 0; ok && i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (strcmp(t->name, "lm_head.weight") == 0) head_named = true;
    if (selection->choices[i] != NB_CHOICE_KEEP || !is_linear(c, t)) continue;
    char *module = strndup(t->name, strlen(t->name) - strlen(".weight"));
    ok = module && cJSON_AddItemToArray(list, cJSON_CreateString(module));
    free(module);
  }
  if (ok && !head_named) ok = cJSON_AddItemToArray(list, cJSON_CreateString("lm_head"));
  if (ok) return list;
  cJSON_Delete(list);
  return NULL;
}
