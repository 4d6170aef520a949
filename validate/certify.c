#include "validate/certify.h"

#include <math.h>
#include <string.h>

#include "validate/certificate.h"

/* Members with NULL checks left to the end: cJSON's adders return NULL on a NULL object, so one look is enough. */
static void add_figure(cJSON *json, const char *key, double value) {
  if (isfinite(value)) {
    cJSON_AddNumberToObject(json, key, value);
  } else {
    cJSON_AddNullToObject(json, key);
  }
}

static void add_thresholds(cJSON *json, const nibble_thresholds *t) {
  cJSON *to = cJSON_AddObjectToObject(json, "thresholds");
  cJSON_AddStringToObject(to, "profile", t->profile);
  add_figure(to, "max_kl", t->max_kl);
  add_figure(to, "max_ppl_increase", t->max_ppl_increase);
  add_figure(to, "min_top1", t->min_top1);
}

static void add_behaviour(cJSON *json, const nibble_verification *v) {
  const nibble_behaviour *b = v->behaviour;
  cJSON *text = cJSON_AddObjectToObject(json, "text"), *to = cJSON_AddObjectToObject(json, "behaviour");
  cJSON_AddStringToObject(text, "name", v->text);
  cJSON_AddStringToObject(text, "sha256", v->text_sha256);
  cJSON_AddNumberToObject(to, "ctx", (double)b->ctx);
  cJSON_AddNumberToObject(to, "chunks", (double)b->chunks);
  cJSON_AddNumberToObject(to, "tokens", (double)b->tokens);
  add_figure(to, "perplexity", b->perplexity);
  add_figure(to, "perplexity_stderr", b->perplexity_stderr);
  add_figure(to, "reference_perplexity", b->reference_perplexity);
  add_figure(to, "reference_perplexity_stderr", b->reference_perplexity_stderr);
  add_figure(to, "nll_difference", b->nll_difference);
  add_figure(to, "nll_difference_low", b->nll_difference_low);
  add_figure(to, "nll_difference_high", b->nll_difference_high);
  add_figure(to, "ppl_increase", b->ppl_increase);
  add_figure(to, "kl_mean", b->kl_mean);
  add_figure(to, "kl_p99", b->kl_p99);
  add_figure(to, "kl_max", b->kl_max);
  add_figure(to, "top1_agreement", b->top1_agreement);
  add_figure(to, "top5_agreement", b->top5_agreement);
}

static void add_weights(cJSON *json, const nibble_verification *v) {
  cJSON *list = cJSON_AddObjectToObject(json, "weights");
  for (size_t i = 0; i < v->weight_count; i++) {
    const nibble_weight_error *w = &v->weights[i];
    cJSON *item = cJSON_AddObjectToObject(list, w->tensor);
    cJSON_AddStringToObject(item, "format", w->format);
    add_figure(item, "relative_error", w->relative_error);
    add_figure(item, "expected_error", w->expected_error);
    add_figure(item, "snr_db", w->snr_db);
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

static nibble_status add_side(cJSON *json, const char *side, const char *name, const nb_checkpoint *c,
                              const nibble_progress *progress, nibble_error *err) {
  cJSON *tensors, *files, *to = cJSON_AddObjectToObject(json, side);
  nibble_status status = nb_certificate_tensors(c, progress, &tensors, &files, err);
  if (status != NIBBLE_OK) return status;
  bool ok = to && cJSON_AddStringToObject(to, "name", name) && cJSON_AddItemToObject(to, "files", files);
  if (!ok) cJSON_Delete(files);
  if (ok && cJSON_AddItemToObject(to, "tensors", tensors)) return NIBBLE_OK;
  cJSON_Delete(tensors);
  return nb_fail_memory(err, sizeof(cJSON));
}

nibble_status nb_certify(const nibble_verification *v, const nb_checkpoint *artifact, const nb_checkpoint *original,
                         const nibble_verify_options *o, nibble_error *err) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddStringToObject(json, "nibble", NIBBLE_VERSION);
  cJSON_AddStringToObject(json, "verdict", v->fault_count ? "failed" : "sound");
  cJSON_AddStringToObject(json, "depth", v->behaviour ? "behaviour" : original ? "weights" : "structure");
  add_findings(json, v);
  if (v->behaviour) {
    add_thresholds(json, &v->thresholds);
    add_behaviour(json, v);
  }
  if (v->weight_count) add_weights(json, v);
  nibble_status status = json ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK) status = add_side(json, "artifact", v->artifact, artifact, &o->progress, err);
  if (status == NIBBLE_OK && original) status = add_side(json, "source", v->original, original, &o->progress, err);
  if (status == NIBBLE_OK) {
    nibble_error why;
    status = nb_certificate_save(artifact, o->certificate, o->force, json, &why);
    if ((status == NIBBLE_SYSTEM || status == NIBBLE_USAGE) && !o->certificate) {
      nb_warn(&o->progress, "no certificate is written: %s (--certificate FILE writes it elsewhere)", why.message);
      status = NIBBLE_OK;
    } else if (status != NIBBLE_OK && err) {
      *err = why;
    }
  }
  cJSON_Delete(json);
  return status;
}

void nb_certificate_verdict(const cJSON *certificate, nb_findings *findings) {
  const cJSON *verdict = cJSON_GetObjectItemCaseSensitive(certificate, "verdict");
  if (cJSON_IsString(verdict) && strcmp(verdict->valuestring, "sound") == 0) return;
  nb_find(findings, NIBBLE_FAULT, "certificate", "certified-as-failed", nb_place_tensor(""),
          "the certificate says that the artifact failed its checks");
}
