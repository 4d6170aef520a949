#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/stage.h"
#include "convert/checkpoint.h"
#include "validate/against.h"
#include "validate/behaviour.h"
#include "validate/certificate.h"
#include "validate/certified.h"
#include "validate/certify.h"
#include "validate/findings.h"
#include "validate/report.h"
#include "validate/signature.h"
#include "validate/structure.h"
#include "validate/thresholds.h"
#include "validate/weights.h"

/* The public struct first, so that one pointer serves both. */
typedef struct verification {
  nibble_verification public;
  nb_checkpoint artifact, original;
  bool has_original;
  nb_findings findings;
  nb_weights weights;
  nibble_behaviour behaviour;
  char *names[3];
  char text_sha256[NB_SHA256_CHARS];
  cJSON *certificate; /* with check_only: what is confirmed, and what it says */
  nb_certified certified;
  nb_signing_key key; /* that signs, or whose signature is asked for */
} verification;

static nibble_status verdict(const verification *v, nibble_error *err) {
  size_t faults = v->public.fault_count;
  for (size_t i = 0; faults && i < v->findings.count; i++) {
    const nibble_finding *f = &v->findings.items[i];
    if (f->severity != NIBBLE_FAULT) continue;
    return nb_fail(err, NIBBLE_CHECK_FAILED, "%s: %zu fault%s; the first: %s%s%s", v->artifact.path, faults,
                   faults == 1 ? "" : "s", f->tensor, *f->tensor ? ": " : "", f->text);
  }
  return NIBBLE_OK;
}

static nibble_status check_structure(verification *v, const nibble_verify_options *o, nibble_error *err) {
  double start = nb_seconds();
  nb_structure structure;
  nibble_status status = nb_structure_check(&v->artifact, &o->progress, &v->findings, &structure, err);
  v->public.tensors = structure.tensors;
  v->public.packed_weights = structure.packed_weights;
  v->public.tensor_bytes = structure.bytes;
  v->public.structure_seconds = nb_seconds() - start;
  return status;
}

static nibble_status check_weights(verification *v, const nibble_verify_options *o, nibble_error *err) {
  double start = nb_seconds();
  if (v->original.foreign)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: weights packed by '%s' cannot be compared with", v->original.path,
                   v->original.foreign);
  nb_pair pair = {&v->artifact, &v->original, &v->findings};
  nibble_status status = nb_against_check(&pair, err);
  if (status != NIBBLE_OK) return status;
  status = nb_weights_compare(&v->artifact, &v->original, &o->progress, &v->findings, &v->weights, err);
  v->public.weights = v->weights.rows;
  v->public.weight_count = v->weights.count;
  for (size_t i = 0; i < v->weights.count; i++) v->public.flagged_count += v->weights.rows[i].flagged;
  v->public.weights_seconds = nb_seconds() - start;
  return status;
}

static nibble_status check_behaviour(verification *v, const nibble_verify_options *o, nibble_error *err) {
  nb_behaviour_options options = {.context = o->context,
                                  .artifact = &v->artifact,
                                  .original = &v->original,
                                  .text = o->text,
                                  .ctx = o->ctx,
                                  .chunks = o->chunks,
                                  .int8 = o->int8,
                                  .sensitivity = o->sensitivity || o->report,
                                  .progress = &o->progress};
  nibble_status status = nb_sha256_file(o->text, v->text_sha256, err);
  if (status != NIBBLE_OK) return status;
  nibble_error why;
  status = nb_behaviour_measure(&options, &v->findings, &v->behaviour, &why);
  if (status == NIBBLE_BAD_INPUT && nb_findings_count(&v->findings, NIBBLE_FAULT)) {
    /* Of a damaged artifact that cannot be run the damage is the finding. */
    nb_find(&v->findings, NIBBLE_FAULT, "behaviour", "cannot-be-run", nb_place_tensor(""), "%s", why.message);
    return NIBBLE_OK;
  }
  if (status != NIBBLE_OK) {
    if (err) *err = why;
    return status;
  }
  v->public.behaviour = &v->behaviour;
  nb_thresholds_choose(o, &v->artifact, &v->weights, &v->public.thresholds, &v->public.limits_of);
  nb_thresholds_compare(&v->public.thresholds, &v->behaviour, v->public.limits);
  nb_thresholds_check(&v->public.thresholds, &v->behaviour, &v->findings);
  return NIBBLE_OK;
}

static nibble_status check_options(const nibble_verify_options *o, nibble_error *err) {
  if (o->text && !o->against) return nb_fail(err, NIBBLE_USAGE, "--text needs --against: behaviour is compared");
  if (o->text && strcmp(o->text, "-") == 0)
    return nb_fail(err, NIBBLE_USAGE, "--text -: a file is wanted, whose hash the certificate can name");
  if (!o->text && !o->check_only && nb_thresholds_asked(o))
    return nb_fail(err, NIBBLE_USAGE, "thresholds are for the behaviour: --text FILE is wanted, too");
  if (o->check_only && (o->text || o->report))
    return nb_fail(err, NIBBLE_USAGE, "--check-only compares hashes; it measures nothing");
  if (o->key && !o->check_only)
    return nb_fail(err, NIBBLE_USAGE, "--key is for --check-only, which asks for its signature");
  if (o->sign && o->check_only)
    return nb_fail(err, NIBBLE_USAGE, "--sign signs what is measured, and --check-only measures nothing");
  if (o->sign && !o->certificate && (!o->against || o->no_certificate))
    return nb_fail(err, NIBBLE_USAGE,
                   "--sign needs a certificate: --against MODEL, or --certificate FILE, is required");
  return NIBBLE_OK;
}

/* Before the models are opened: a key that is no key must not end hours of work. */
static nibble_status open_key(verification *v, const nibble_verify_options *o, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  if (o->sign) status = nb_key_read_private(o->sign, &o->progress, &v->key, err);
  if (o->key) status = nb_key_read_public(o->key, &v->key, err);
  v->public.key_sha256 = v->key.fingerprint;
  return status;
}

static nibble_status name_inputs(verification *v, const nibble_verify_options *o, nibble_error *err) {
  const char *paths[3] = {o->artifact, o->against, o->text}, *names[3] = {"", "", ""};
  for (int i = 0; i < 3; i++) {
    if (!paths[i]) continue;
    if (!(names[i] = v->names[i] = nb_path_name(paths[i]))) return nb_fail_memory(err, strlen(paths[i]));
  }
  v->public.artifact = names[0];
  v->public.original = names[1];
  v->public.text = names[2];
  v->public.text_sha256 = v->text_sha256;
  return NIBBLE_OK;
}

static nibble_status open_both(verification *v, const nibble_verify_options *o, nibble_error *err) {
  nibble_status status = nb_checkpoint_open_loose(o->artifact, &v->artifact, err);
  if (status != NIBBLE_OK || !o->against) return status;
  status = nb_checkpoint_open(o->against, &v->original, err);
  v->has_original = status == NIBBLE_OK;
  return status;
}

/* That `place` is none of the inputs. */
static nibble_status spare_inputs(const verification *v, const nibble_verify_options *o, const char *place,
                                  nibble_error *err) {
  nibble_status status = nb_checkpoint_protect(&v->artifact, place, err);
  if (status == NIBBLE_OK && v->has_original) status = nb_checkpoint_protect(&v->original, place, err);
  if (status == NIBBLE_OK && o->text) status = nb_stage_spare(place, o->text, err);
  if (status == NIBBLE_OK && o->sign) status = nb_stage_spare(place, o->sign, err);
  return status;
}

/* Where the certificate is written come what may, and its signature; NULL: only if it can be. */
static nibble_status find_places(const verification *v, const nibble_verify_options *o, char **certificate,
                                 char **signature, nibble_error *err) {
  *certificate = *signature = NULL;
  if (!o->certificate && !o->sign) return NIBBLE_OK;
  nibble_status status = nb_certificate_path(&v->artifact, o->certificate, certificate, err);
  if (status == NIBBLE_OK && !(*signature = nb_signature_path(*certificate)))
    status = nb_fail_memory(err, strlen(*certificate));
  return status;
}

/* Said before anything is measured: what stands where an output is to go. */
static nibble_status check_places(const verification *v, const nibble_verify_options *o, nibble_error *err) {
  char *certificate, *signature;
  nibble_status status = find_places(v, o, &certificate, &signature, err);
  const char *places[] = {certificate, signature, o->report};
  for (int i = 0; status == NIBBLE_OK && i < 3; i++) {
    if (places[i]) status = spare_inputs(v, o, places[i], err);
  }
  if (status == NIBBLE_OK && certificate) status = nb_certificate_check_place(&v->artifact, o, err);
  if (status == NIBBLE_OK && o->report) status = nb_report_check(o->report, o->force, err);
  free(certificate);
  free(signature);
  if (status == NIBBLE_OK && o->sign && v->artifact.folder &&
      nb_stage_spare(v->artifact.folder, o->sign, NULL) == NIBBLE_USAGE)
    nb_warn(&o->progress, "%s: the private key lies in the artifact's folder; whoever gets that gets the key", o->sign);
  return status;
}

/* What the certificate says becomes the result, as far as it says it. */
static void show_certified(verification *v) {
  nibble_verification *p = &v->public;
  const nb_certified *c = &v->certified;
  p->depth = nb_depth_name(c->depth);
  p->original = c->original;
  p->text = c->text;
  p->text_sha256 = c->text_sha256;
  p->tensors = (size_t)c->tensors;
  p->packed_weights = (size_t)c->packed_weights;
  p->weights = c->weights.rows;
  p->weight_count = c->weights.count;
  if (c->depth < NB_DEPTH_BEHAVIOUR) return;
  p->behaviour = &c->behaviour;
  p->thresholds = c->thresholds;
  p->limits_of = c->limits_of;
  nb_thresholds_compare(&c->thresholds, &c->behaviour, p->limits);
}

/* The certificate of the artifact to v->certificate; NULL if it has not the signature asked for, which is a fault. */
static nibble_status load_signed(verification *v, const nibble_verify_options *o, nibble_error *err) {
  nb_certificate_file file;
  const nb_signing_key *key = o->key ? &v->key : NULL;
  nibble_status status = nb_certificate_read(&v->artifact, o->certificate, &file, err);
  if (status != NIBBLE_OK) return status;
  status = nb_signature_check(file.signature, key, (nb_str){file.text, file.length}, &v->findings, &v->public.signature,
                              err);
  if (status == NIBBLE_OK && (!key || v->public.signature == NIBBLE_SIGNATURE_GOOD))
    status = nb_certificate_parse(&file, &v->certificate, err);
  nb_certificate_file_free(&file);
  return status;
}

static nibble_status confirm(verification *v, const nibble_verify_options *o, nibble_error *err) {
  nibble_thresholds asked;
  const char *asked_of;
  v->public.depth = "";
  nibble_status status = load_signed(v, o, err);
  if (status != NIBBLE_OK || !v->certificate) return status;
  status = nb_certified_read(v->artifact.path, v->certificate, &v->certified, err);
  if (status == NIBBLE_OK)
    status = nb_certificate_check(&v->artifact, v->certificate, NB_ARTIFACT, o, &v->findings, err);
  if (status == NIBBLE_OK && v->has_original)
    status = nb_certificate_check(&v->original, v->certificate, NB_SOURCE, o, &v->findings, err);
  if (status != NIBBLE_OK) return status;
  nb_thresholds_choose(o, &v->artifact, &v->certified.weights, &asked, &asked_of);
  nb_certified_judge(v->certificate, &v->certified, nb_thresholds_asked(o) ? &asked : NULL, &v->findings);
  show_certified(v);
  return NIBBLE_OK;
}

static void count(verification *v) {
  v->public.findings = v->findings.items;
  v->public.finding_count = v->findings.count;
  v->public.fault_count = nb_findings_count(&v->findings, NIBBLE_FAULT);
  v->public.warning_count = nb_findings_count(&v->findings, NIBBLE_WARNING);
}

static nibble_status measure(verification *v, const nibble_verify_options *o, nibble_error *err) {
  nibble_status status = check_structure(v, o, err);
  if (status == NIBBLE_OK && o->against) status = check_weights(v, o, err);
  if (status == NIBBLE_OK && o->text) status = check_behaviour(v, o, err);
  if (status != NIBBLE_OK) return status;
  count(v);
  v->public.depth = nb_depth_name(nb_depth_reached(&v->public));
  bool certify = o->certificate || (o->against && v->artifact.folder && !o->no_certificate);
  /* The certificate comes last: it also covers a page that is written into the artifact's folder. */
  if (o->report) status = nb_report_save(&v->public, o->report, o->force, err);
  if (status != NIBBLE_OK || !certify) return status;
  nb_certify_job job = {.artifact = &v->artifact,
                        .original = v->has_original ? &v->original : NULL,
                        .options = o,
                        .key = o->sign ? &v->key : NULL};
  status = nb_certify(&v->public, &job, err);
  if (status == NIBBLE_OK && o->sign) v->public.signature = NIBBLE_SIGNATURE_GOOD;
  if (status == NIBBLE_STOPPED && o->report)
    nb_fail(err, status, "stopped; no certificate is written, but the report, %s", o->report);
  return status;
}

static nibble_status verify(const nibble_verify_options *o, nibble_verification **out, nibble_error *err) {
  nibble_status status = check_options(o, err);
  if (status != NIBBLE_OK) return status;
  verification *v = nb_alloc(1, sizeof *v);
  if (!v) return nb_fail_memory(err, sizeof *v);
  v->public.limits_of = "";
  status = nb_thresholds_check_profile(o, err);
  if (status == NIBBLE_OK) status = open_key(v, o, err);
  if (status == NIBBLE_OK) status = name_inputs(v, o, err);
  if (status == NIBBLE_OK) status = open_both(v, o, err);
  if (status == NIBBLE_OK && !o->check_only) status = check_places(v, o, err);
  if (status == NIBBLE_OK) status = o->check_only ? confirm(v, o, err) : measure(v, o, err);
  if (status == NIBBLE_OK && v->findings.failed) status = nb_fail_memory(err, sizeof(nibble_finding));
  if (status != NIBBLE_OK) {
    nibble_verification_free(&v->public);
    return status;
  }
  count(v);
  *out = &v->public;
  return verdict(v, err);
}

nibble_status nibble_verify(const nibble_verify_options *options, nibble_verification **out, nibble_error *err) {
  nibble_verify_options o;
  static const nb_call_rules rules = {
      "nibble_verify", NB_SIZES(nibble_verify_options, progress), {0}, {NB_REQUIRED(nibble_verify_options, artifact)}};
  nb_call call = {.options = &o};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = verify(&o, out, err);
  return nb_call_end(&call, status);
}

void nibble_verification_free(nibble_verification *verified) {
  if (!verified) return;
  verification *v = (verification *)verified;
  nb_findings_free(&v->findings);
  nb_weights_free(&v->weights);
  nb_behaviour_free(&v->behaviour);
  nb_weights_free(&v->certified.weights);
  cJSON_Delete(v->certificate);
  nb_key_free(&v->key);
  nb_checkpoint_close(&v->artifact);
  nb_checkpoint_close(&v->original);
  for (int i = 0; i < 3; i++) free(v->names[i]);
  free(v);
}
