/* The tokenizer.json of a specification: what json.c reads. */
#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/spec.h"

static void put_text(nb_buf *out, const nb_vocab *vocab, int32_t id) {
  nb_str text = nb_vocab_text(vocab, id);
  nb_json_put_text(out, text.data, text.length);
}

static void put_vocab(nb_buf *out, const nb_vocab *vocab) {
  const char *between = "\n";
  nb_buf_puts(out, "    \"vocab\": {");
  for (int32_t id = 0; id < vocab->count; id++) {
    if (!vocab->tokens[id].text) continue;
    nb_buf_printf(out, "%s      ", between);
    put_text(out, vocab, id);
    nb_buf_printf(out, ": %d", id);
    between = ",\n";
  }
  nb_buf_puts(out, *between == ',' ? "\n    }" : "}");
}

static void put_scored(nb_buf *out, const nb_vocab *vocab) {
  nb_buf_puts(out, "    \"vocab\": [");
  for (int32_t id = 0; id < vocab->count; id++) {
    nb_buf_puts(out, id > 0 ? ",\n      [\n        " : "\n      [\n        ");
    put_text(out, vocab, id);
    nb_buf_puts(out, ",\n        ");
    nb_json_put_float(out, vocab->scores[id]);
    nb_buf_puts(out, "\n      ]");
  }
  nb_buf_puts(out, vocab->count > 0 ? "\n    ]" : "]");
}

static void put_merges(nb_buf *out, const nb_tokenizer_spec *spec) {
  const nb_merges *merges = &spec->merges;
  nb_buf_puts(out, ",\n    \"merges\": [");
  for (size_t i = 0; i < merges->count; i++) {
    nb_buf_puts(out, i > 0 ? ",\n      [\n        " : "\n      [\n        ");
    put_text(out, &spec->vocab, merges->list[i].left);
    nb_buf_puts(out, ",\n        ");
    put_text(out, &spec->vocab, merges->list[i].right);
    nb_buf_puts(out, "\n      ]");
  }
  nb_buf_puts(out, merges->count > 0 ? "\n    ]" : "]");
}

/* A member on lines that `outer` indents. */
static void put_member(nb_buf *out, const cJSON *item, const char *outer) {
  nb_json_layout layout = nb_json_indented;
  layout.outer = outer;
  nb_buf_puts(out, outer);
  nb_json_put_string(out, item->string);
  nb_buf_puts(out, ": ");
  nb_json_put(out, item, &layout);
}

static void put_model(nb_buf *out, const nb_tokenizer_spec *spec, const cJSON *model) {
  const nb_token_model_kind *kind;
  nb_buf_puts(out, "  \"model\": {\n");
  for (const cJSON *item = model->child; item; item = item->next) {
    put_member(out, item, "    ");
    nb_buf_puts(out, ",\n");
  }
  bool known = nb_token_model_kind_of("", model, &kind, NULL) == NIBBLE_OK;
  if (known && kind->has_scores)
    put_scored(out, &spec->vocab);
  else
    put_vocab(out, &spec->vocab);
  if (known && kind->has_merges) put_merges(out, spec);
  nb_buf_puts(out, "\n  }");
}

void nb_tokenizer_spec_write(const nb_tokenizer_spec *spec, nb_buf *out) {
  const cJSON *model = nb_json_object(spec->parts, "model");
  nb_buf_puts(out, "{\n");
  for (const cJSON *part = spec->parts->child; part; part = part->next) {
    if (part == model)
      put_model(out, spec, model);
    else
      put_member(out, part, "  ");
    nb_buf_puts(out, part->next ? ",\n" : "\n");
  }
  nb_buf_puts(out, "}");
}
