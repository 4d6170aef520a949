#include "quant/select.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

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

/* The kind of a linear module's weight that a layout can pack, quantized or not; NB_KIND_OTHER for all else. */
static nb_kind linear_kind(const nb_tensor *t, const nb_layout *layout) {
  nb_kind kind = nb_role_info(t->id.role)->kind;
  if (t->id.rule && !nb_layout_takes(layout, t->id.rule, t->id.layer)) return NB_KIND_OTHER;
  int ndim = t->layout ? 2 : t->ndim;
  bool kept = t->id.is_bias || (t->id.rule && t->id.rule->stored & NB_KEEP_F32);
  return ndim == 2 && !kept && nb_kind_is_linear(kind) ? kind : NB_KIND_OTHER;
}

static nibble_status check_dtype(const nb_checkpoint *c, const nb_tensor *t, nibble_error *err) {
  nb_format plain;
  if (t->is_blocks || t->layout || nb_format_of_dtype(t->dtype, &plain)) return NIBBLE_OK;
  return nb_fail(
      err, NIBBLE_BAD_INPUT,
      "%s: tensor '%s' is of dtype %s; weights are quantized from F32, F16 or BF16 (--exclude leaves it out)",
      c->files[t->file].path, t->name, nb_dtype_name(t->dtype));
}

typedef struct selector {
  const nb_checkpoint *checkpoint;
  pattern include, exclude;
  nb_selection *out;
} selector;

static nibble_status choose(selector *s, size_t i, const char *name, nibble_error *err) {
  const nb_checkpoint *c = s->checkpoint;
  const nb_tensor *t = nb_checkpoint_at(c, i);
  nb_kind kind = linear_kind(t, s->out->layout);
  if (kind == NB_KIND_OTHER || t->count == 0) return NIBBLE_OK;
  /* transformers gives a tied head the embedding's weights, whatever the file says. */
  bool head = kind == NB_KIND_HEAD, tied = t == c->head && !c->config.head_differs;
  bool included = matches(&s->include, name) && !tied, excluded = matches(&s->exclude, name);
  bool chosen = (!head || included) && !excluded;
  s->include.used |= included;
  s->exclude.used |= excluded && (!head || included);
  s->out->is_default &= chosen == !head;
  if (!chosen) return NIBBLE_OK;
  s->out->choices[i] = NB_CHOICE_QUANTIZE;
  s->out->quantized++;
  return check_dtype(c, t, err);
}

static nibble_status choose_all(selector *s, nibble_error *err) {
  const nb_checkpoint *c = s->checkpoint;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < nb_checkpoint_count(c); i++) {
    const nb_tensor *t = nb_checkpoint_at(c, i);
    if (t->is_part || (s->out->layout->packs_experts ? t->views != NULL : t->whole != NULL)) {
      s->out->choices[i] = NB_CHOICE_DROP;
      continue;
    }
    status = choose(s, i, nb_tensor_weight_name(t), err);
  }
  return status;
}

static nibble_status check_use(const selector *s, const pattern *p, nibble_error *err) {
  if (!p->text || p->used) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_USAGE, "%s '%s' matches no weight of %s that it could change", p->option, p->text,
                 s->checkpoint->path);
}

nibble_status nb_select(const nb_checkpoint *c, const nb_select_options *options, nb_selection *out,
                        nibble_error *err) {
  selector s = {.checkpoint = c,
                .include = {.option = "--include", .text = options->include},
                .exclude = {.option = "--exclude", .text = options->exclude},
                .out = out};
  *out = (nb_selection){.choices = nb_alloc(nb_checkpoint_count(c) + 1, sizeof *out->choices),
                        .is_default = true,
                        .layout = options->layout};
  nibble_status status = out->choices ? NIBBLE_OK : nb_fail_memory(err, c->tensor_count * sizeof *out->choices);
  if (status == NIBBLE_OK) status = compile(&s.include, err);
  if (status == NIBBLE_OK) status = compile(&s.exclude, err);
  if (status == NIBBLE_OK) status = choose_all(&s, err);
  if (status == NIBBLE_OK) status = check_use(&s, &s.include, err);
  if (status == NIBBLE_OK) status = check_use(&s, &s.exclude, err);
  if (status == NIBBLE_OK && out->quantized == 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no linear layer's weight is left to quantize", c->path);
  release(&s.include);
  release(&s.exclude);
  if (status != NIBBLE_OK) nb_selection_free(out);
  return status;
}

void nb_selection_free(nb_selection *selection) {
  free(selection->choices);
  *selection = (nb_selection){0};
}

/* The name of a weight's module: what stands before ".weight". */
static bool add_module(cJSON *list, const char *name) {
  char *module = strdup(name);
  char *dot = module ? strrchr(module, '.') : NULL;
  if (dot) *dot = 0;
  bool ok = module && cJSON_AddItemToArray(list, cJSON_CreateString(module));
  free(module);
  return ok;
}

/* The output embedding by the family's rules, or by the usual name in a family without. */
static bool add_head(const nb_checkpoint *c, cJSON *list) {
  nb_identity id = {.role = NB_HEAD, .layer = -1, .expert = -1};
  id.rule = c->config.family ? nb_family_rule(c->config.family, NB_HEAD) : NULL;
  if (!id.rule) return cJSON_AddItemToArray(list, cJSON_CreateString(nb_usual_head));
  char *name = nb_identity_name(&c->config, &id);
  bool ok = name && add_module(list, name);
  free(name);
  return ok;
}

/* transformers takes the list as it stands, without what it would leave out by itself: so the head is named even where
 * it is tied and no tensor of the file. */
cJSON *nb_skip_modules(const nb_checkpoint *c, const nb_selection *selection) {
  if (selection->is_default) return cJSON_CreateNull();
  cJSON *list = cJSON_CreateArray();
  bool ok = list != NULL, head_named = false;
  for (size_t i = 0; ok && i < nb_checkpoint_count(c); i++) {
    if (selection->choices[i] == NB_CHOICE_DROP) continue;
    const nb_tensor *t = nb_checkpoint_at(c, i);
    if (t->id.role == NB_HEAD && !t->id.is_bias) head_named = true;
    if (selection->choices[i] != NB_CHOICE_KEEP || linear_kind(t, selection->layout) == NB_KIND_OTHER) continue;
    ok = add_module(list, nb_tensor_weight_name(t));
  }
  if (ok && !head_named) ok = add_head(c, list);
  if (ok) return list;
  cJSON_Delete(list);
  return NULL;
}
