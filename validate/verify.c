#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "convert/checkpoint.h"
#include "validate/findings.h"
#include "validate/structure.h"
#include "validate/weights.h"

/* The public struct first, so that one pointer serves both. */
typedef struct verification {
  nibble_verification public;
  nb_checkpoint artifact;
  nb_findings findings;
  nb_weights weights;
} verification;

static nibble_status verdict(const verification *v, nibble_error *err) {
  size_t faults = v->public.fault_count;
  if (!faults) return NIBBLE_OK;
  for (size_t i = 0; i < v->findings.count; i++) {
    const nibble_finding *f = &v->findings.items[i];
    if (f->severity != NIBBLE_FAULT) continue;
    return nb_fail(err, NIBBLE_CHECK_FAILED, "%s: %zu fault%s; the first: %s%s%s", v->artifact.path, faults,
                   faults == 1 ? "" : "s", f->tensor, *f->tensor ? ": " : "", f->text);
  }
  return NIBBLE_OK;
}

static nibble_status check_structure(verification *v, const nibble_progress *progress, nibble_error *err) {
  double start = nb_seconds();
  nb_structure structure;
  nibble_status status = nb_structure_check(&v->artifact, progress, &v->findings, &structure, err);
  v->public.tensors = structure.tensors;
  v->public.packed_weights = structure.packed_weights;
  v->public.tensor_bytes = structure.bytes;
  v->public.structure_seconds = nb_seconds() - start;
  return status;
}

static nibble_status check_weights(verification *v, const nibble_verify_options *options, nibble_error *err) {
  nb_checkpoint original;
  double start = nb_seconds();
  nibble_status status = nb_checkpoint_open(options->against, &original, err);
  if (status != NIBBLE_OK) return status;
  status = nb_weights_compare(&v->artifact, &original, &options->progress, &v->findings, &v->weights, err);
  nb_checkpoint_close(&original);
  v->public.weights = v->weights.rows;
  v->public.weight_count = v->weights.count;
  for (size_t i = 0; i < v->weights.count; i++) v->public.flagged_count += v->weights.rows[i].flagged;
  v->public.weights_seconds = nb_seconds() - start;
  return status;
}

nibble_status nibble_verify(const nibble_verify_options *options, nibble_verification **out, nibble_error *err) {
  *out = NULL;
  verification *v = nb_alloc(1, sizeof *v);
  if (!v) return nb_fail_memory(err, sizeof *v);
  nibble_status status = nb_checkpoint_open_loose(options->artifact, &v->artifact, err);
  if (status == NIBBLE_OK) status = check_structure(v, &options->progress, err);
  if (status == NIBBLE_OK && options->against) status = check_weights(v, options, err);
  if (status != NIBBLE_OK) {
    nibble_verification_free(&v->public);
    return status;
  }
  v->public.findings = v->findings.items;
  v->public.finding_count = v->findings.count;
  v->public.fault_count = nb_findings_count(&v->findings, NIBBLE_FAULT);
  v->public.warning_count = nb_findings_count(&v->findings, NIBBLE_WARNING);
  *out = &v->public;
  return verdict(v, err);
}

void nibble_verification_free(nibble_verification *verified) {
  if (!verified) return;
  verification *v = (verification *)verified;
  nb_findings_free(&v->findings);
  nb_weights_free(&v->weights);
  nb_checkpoint_close(&v->artifact);
  free(v);
}
