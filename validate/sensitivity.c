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

static nibble_status run(nb_session *session, const int32_t *ids, const int32_t *rows, int64_t tokens, float *logits,
                         nibble_error *err) {
  nb_session_truncate(session, 0);
  nibble_status status = nb_session_step(session, ids, tokens, err);
  return status == NIBBLE_OK ? nb_session_logits(session, rows, tokens, logits, err) : status;
}

static double mean_kl(const float *reference, const float *logits, int64_t tokens, int64_t vocab) {
  double sum = 0;
  for (int64_t i = 0; i < tokens; i++) {
    nb_divergence d;
    nb_divergence_of(reference + i * vocab, logits + i * vocab, vocab, 0, &d);
    sum += d.finite ? d.kl : NAN;
  }
  return sum / (double)tokens;
}

nibble_status nb_sensitivity_measure(nb_model *original, const nb_model *artifact, const int32_t *ids, int64_t tokens,
                                     float *reference, float *logits, nibble_behaviour *out, nibble_error *err) {
  int64_t blocks = nb_model_last(original)->layers, vocab = original->output_width;
  if (!are_alike(original, artifact) || tokens < 1) return NIBBLE_OK;
  nb_session *session = NULL;
  int32_t *rows = nb_alloc((uint64_t)tokens, sizeof *rows);
  out->block_sensitivity = nb_alloc((uint64_t)blocks + 1, sizeof *out->block_sensitivity);
  nibble_status status =
      rows && out->block_sensitivity ? NIBBLE_OK : nb_fail_memory(err, (size_t)(tokens + blocks) * sizeof(double));
  for (int64_t i = 0; rows && i < tokens; i++) rows[i] = (int32_t)i;
  if (status == NIBBLE_OK)
    status = nb_session_create(original, &(nb_session_options){.sequences = 1, .capacity = tokens}, &session, err);
  if (status == NIBBLE_OK) status = run(session, ids, rows, tokens, reference, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < blocks; i++) {
    nb_block *block = &nb_model_last(original)->blocks[i], own = *block;
    *block = nb_model_last(artifact)->blocks[i];
    status = run(session, ids, rows, tokens, logits, err);
    *block = own;
    if (status == NIBBLE_OK) out->block_sensitivity[i] = mean_kl(reference, logits, tokens, vocab);
  }
  if (status == NIBBLE_OK) out->sensitivity_count = blocks;
  nb_session_free(session);
  free(rows);
  return status;
}
