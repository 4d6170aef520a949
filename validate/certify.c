#include "validate/certify.h"

#include "validate/certificate.h"
#include "validate/certified.h"
#include "validate/figures.h"

/* Members with NULL checks left to the end: cJSON's adders return NULL on a NULL object, so one look is enough. */
static void add_thresholds(cJSON *json, const nibble_verification *v) {
  const nibble_thresholds *t = &v->thresholds;
  cJSON *to = cJSON_AddObjectToObject(json, "thresholds");
  cJSON_AddStringToObject(to, "profile", t->profile);
  cJSON_AddStringToObject(to, "limits_of", v->limits_of);
  nb_figure_add(to, "max_kl", t->max_kl);
  nb_figure_add(to, "max_ppl_increase", t->max_ppl_increase);
  nb_figure_add(to, "min_top1", t->min_top1);
}

static void add_behaviour(cJSON *json, const nibble_verification *v) {
  const nibble_behaviour *b = v->behaviour;
  cJSON *text = cJSON_AddObjectToObject(json, "text"), *to = cJSON_AddObjectToObject(json, "behaviour");
  cJSON_AddStringToObject(text, "name", v->text);
  cJSON_AddStringToObject(text, "sha256", v->text_sha256);
  cJSON_AddNumberToObject(to, "ctx", (double)b->ctx);
  cJSON_AddNumberToObject(to, "chunks", (double)b->chunks);
  cJSON_AddNumberToObject(to, "tokens", (double)b->tokens);
  nb_figures_add(to, b);
}

static void add_weights(cJSON *json, const nibble_verification *v) {
  cJSON *list = cJSON_AddObjectToObject(json, "weights");
  for (size_t i = 0; i < v->weight_count; i++) {
    const nibble_weight_error *w = &v->weights[i];
    cJSON *item = cJSON_AddObjectToObject(list, w->tensor);
    cJSON_AddStringToObject(item, "format", w->format);
    nb_figure_add(item, "relative_error", w->relative_error);
    nb_figure_add(item, "expected_error", w->expected_error);
    nb_figure_add(item, "snr_db", w->snr_db);
  }
}

static void add_findings(cJSON *json, const nibble_verification *v) {
  cJSON *list = cJSON_AddArrayToObject(json, "reasons");
  for (size_t i = 0; i < v->finding_count; i++) {
    const nibble_finding *f = &v->findings[i];
    if (f->severity != NIBBLE_FAULT) continue;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "tensor", f->tensor);
    cJSON_AddStringToObject(item, "cause", f->cause);
    cJSON_AddStringToObject(item, "text", f->text);
    if (!cJSON_AddItemToArray(list, item)) cJSON_Delete(item);
  }
}

static nibble_status add_side(cJSON *json, nb_side side, const char *name, const nb_checkpoint *c,
                              const nibble_verify_options *o, nibble_error *err) {
  cJSON *tensors, *files, *to = cJSON_AddObjectToObject(json, nb_side_name(side));
  nibble_status status = nb_certificate_hashes(c, side, o, &tensors, &files, err);
  if (status != NIBBLE_OK) return status;
  bool ok = to && cJSON_AddStringToObject(to, "name", name) && cJSON_AddItemToObject(to, "files", files);
  if (!ok) cJSON_Delete(files);
  if (ok && cJSON_AddItemToObject(to, "tensors", tensors)) return NIBBLE_OK;
  cJSON_Delete(tensors);
  return nb_fail_memory(err, sizeof(cJSON));
}

/* The certificate that stands there now; the caller's. False if there is none. */
static bool load_older(const nb_checkpoint *artifact, const char *path, cJSON **out) {
  nb_certificate_file file;
  *out = NULL;
  if (nb_certificate_read(artifact, path, &file, NULL) != NIBBLE_OK) return false;
  nibble_status status = nb_certificate_parse(&file, out, NULL);
  nb_certificate_file_free(&file);
  return status == NIBBLE_OK;
}

/* A certificate that went deeper and is of the same files stays: what it says is still so. */
static bool is_outdone(const nibble_verification *v, const cJSON *certificate, const nb_checkpoint *artifact,
                       const nibble_verify_options *o) {
  cJSON *before = NULL; /* of an artifact with faults nothing is loaded */
  nb_certified then = {0};
  nb_findings changes = {0};
  bool outdone = !v->fault_count && load_older(artifact, o->certificate, &before) &&
                 nb_certified_read("", before, &then, NULL) == NIBBLE_OK && then.sound &&
                 then.depth > nb_depth_reached(v);
  if (outdone) {
    outdone = nb_certificate_compare(certificate, before, NB_ARTIFACT, &changes, NULL) == NIBBLE_OK;
    nb_certified_judge(before, &then, NULL, &changes);
    outdone = outdone && changes.count == 0 && !changes.failed;
    nb_findings_free(&changes);
  }
  nb_weights_free(&then.weights);
  cJSON_Delete(before);
  return outdone;
}

static nibble_status save(const nibble_verification *v, const cJSON *certificate, const nb_certify_job *job,
                          nibble_error *err) {
  const nibble_verify_options *o = job->options;
  if (is_outdone(v, certificate, job->artifact, o)) {
    if (job->key) /* a signature says that its owner measured */
      return nb_fail(err, NIBBLE_USAGE,
                     "--sign: the certificate that is there is of the same files and says more than this run measured; "
                     "measure as much, or --certificate FILE writes this run's elsewhere");
    nb_warn(&o->progress, "the certificate stays as it was: it is of the same files, and says more than this run");
    return NIBBLE_OK;
  }
  nibble_error why;
  nibble_status status = nb_certificate_save(job->artifact, o, job->key, certificate, &why);
  if ((status == NIBBLE_SYSTEM || status == NIBBLE_USAGE) && !o->certificate && !job->key) {
    nb_warn(&o->progress, "no certificate is written: %s (--certificate FILE writes it elsewhere)", why.message);
    return NIBBLE_OK;
  }
  if (status != NIBBLE_OK && err) *err = why;
  return status;
}

nibble_status nb_certify(const nibble_verification *v, const nb_certify_job *job, nibble_error *err) {
  const nibble_verify_options *o = job->options;
  cJSON *json = cJSON_CreateObject();
  cJSON_AddStringToObject(json, "nibble", NIBBLE_VERSION);
  cJSON_AddStringToObject(json, "verdict", v->fault_count ? "failed" : "sound");
  cJSON_AddStringToObject(json, "depth", v->depth);
  cJSON_AddNumberToObject(json, "tensors", (double)v->tensors);
  cJSON_AddNumberToObject(json, "packed_weights", (double)v->packed_weights);
  add_findings(json, v);
  if (v->behaviour) {
    add_thresholds(json, v);
    add_behaviour(json, v);
  }
  if (v->weight_count) add_weights(json, v);
  nibble_status status = json ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK) status = add_side(json, NB_ARTIFACT, v->artifact, job->artifact, o, err);
  if (status == NIBBLE_OK && job->original) status = add_side(json, NB_SOURCE, v->original, job->original, o, err);
  if (status == NIBBLE_OK) status = save(v, json, job, err);
  cJSON_Delete(json);
  return status;
}
