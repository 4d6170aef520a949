#include "validate/sensitivity.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "validate/divergence.h"

static bool is_alike(const nb_block *a, const nb_block *b) {
  if (a->backend != b->backend || a->modules.count != b->modules.count) return false;
  for (int i = 0; i < a->modules.count; i++) {
    const nb_module *p = &a->modules.items[i], *q = &b->modules.items[i];
    if (p->role != q->role || p->expert != q->expert || p->out != q->out || p->in != q->in) return false;
  }
  return true;
}

static bool are_alike(const nb_model *a, const nb_model *b) {
  const nb_model_stack *p = nb_model_last(a), *q = nb_model_last(b);
  if (p->layers != q->layers || a->output_width != b->output_width) return false;
  for (int64_t i = 0; i < p->layers; i++) {
    if (!is_alike(&p->blocks[i], &q->blocks[i])) return false;
  }
  return true;
}

static nibble_status run(const nb_sensitivity *s, nb_session *session, const int32_t *rows, float *logits,
                         nibble_error *err) {
  nb_session_truncate(session, 0);
  nibble_status status = nb_session_step(session, s->ids, s->tokens, err);
  return status == NIBBLE_OK ? nb_session_logits(session, rows, s->tokens, logits, err) : status;
}

static double mean_kl(const nb_sensitivity *s, int64_t vocab) {
  double sum = 0;
  for (int64_t i = 0; i < s->tokens; i++) {
    nb_divergence d;
    nb_divergence_of(s->reference + i * vocab, s->logits + i * vocab, vocab, 0, &d);
    sum += d.finite ? d.kl : NAN;
  }
  return sum / (double)s->tokens;
}

nibble_status nb_sensitivity_measure(const nb_sensitivity *s, nibble_behaviour *out, nibble_error *err) {
  int64_t blocks = nb_model_last(s->original)->layers, vocab = s->original->output_width, tokens = s->tokens;
  if (!are_alike(s->original, s->artifact) || tokens < 1) return NIBBLE_OK;
  nb_session *session = NULL;
  int32_t *rows = nb_alloc((uint64_t)tokens, sizeof *rows);
  out->block_sensitivity = nb_alloc((uint64_t)blocks + 1, sizeof *out->block_sensitivity);
  nibble_status status =
      rows && out->block_sensitivity ? NIBBLE_OK : nb_fail_memory(err, (size_t)(tokens + blocks) * sizeof(double));
  for (int64_t i = 0; rows && i < tokens; i++) rows[i] = (int32_t)i;
  if (status == NIBBLE_OK)
    status = nb_session_create(s->original, &(nb_session_options){.sequences = 1, .capacity = tokens}, &session, err);
  if (status == NIBBLE_OK) status = run(s, session, rows, s->reference, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < blocks; i++) {
    nb_block *block = &nb_model_last(s->original)->blocks[i], own = *block;
    *block = nb_model_last(s->artifact)->blocks[i];
    status = run(s, session, rows, s->logits, err);
    *block = own;
    if (status == NIBBLE_OK) out->block_sensitivity[i] = mean_kl(s, vocab);
  }
  if (status == NIBBLE_OK) out->sensitivity_count = blocks;
  nb_session_free(session);
  free(rows);
  return status;
}
