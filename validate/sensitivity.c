#include "validate/sensitivity.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "validate/divergence.h"

static bool is_alike(const nb_block *a, const nb_block *b) {
  bool alike = a->backend == b->backend;
  for (int i = 0; i < NB_LINEARS; i++)
    alike = alike && a->linear[i].out == b->linear[i].out && a->linear[i].in == b->linear[i].in;
  for (int i = 0; i < NB_NORMS; i++) alike = alike && !a->norm[i] == !b->norm[i];
  return alike;
}

static bool are_alike(const nb_model *a, const nb_model *b) {
  const nb_config *p = &a->checkpoint.config, *q = &b->checkpoint.config;
  if (p->num_hidden_layers != q->num_hidden_layers || p->vocab_size != q->vocab_size) return false;
  for (int64_t i = 0; i < p->num_hidden_layers; i++) {
    if (!is_alike(&a->blocks[i], &b->blocks[i])) return false;
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
  int64_t blocks = original->checkpoint.config.num_hidden_layers, vocab = original->checkpoint.config.vocab_size;
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
    nb_block own = original->blocks[i];
    original->blocks[i] = artifact->blocks[i];
    status = run(session, ids, rows, tokens, logits, err);
    original->blocks[i] = own;
    if (status == NIBBLE_OK) out->block_sensitivity[i] = mean_kl(reference, logits, tokens, vocab);
  }
  if (status == NIBBLE_OK) out->sensitivity_count = blocks;
  nb_session_free(session);
  free(rows);
  return status;
}
