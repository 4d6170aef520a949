/* A nibble.json of any bytes: what `verify --check-only` makes of the certificate in it. */
#include "model/json.h"
#include "tests/fuzz/fuzz.h"
#include "validate/certificate.h"
#include "validate/certified.h"

static const char artifact[] =
    "\x40\0\0\0\0\0\0\0{\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"
    "\0\0\x80\x3f\0\0\0\x40";

static cJSON *certificate;

static void look(const nb_checkpoint *c) {
  nb_findings findings = {0};
  nibble_error err;
  nibble_verify_options o = {.size = sizeof o};
  for (int side = NB_ARTIFACT; side <= NB_SOURCE; side++)
    nb_certificate_check(c, certificate, (nb_side)side, &o, &findings, &err);
  nb_certified certified;
  if (nb_certified_read("certificate", certificate, &certified, &err) == NIBBLE_OK)
    nb_certified_judge(certificate, &certified, NULL, &findings);
  nb_weights_free(&certified.weights);
  nb_findings_free(&findings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cJSON *json;
  nibble_error err;
  if (nb_json_parse("fuzz", (const char *)data, size, &json, &err) != NIBBLE_OK) return 0;
  certificate = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "certificate") : NULL;
  if (cJSON_IsObject(certificate)) nb_fuzz_open((const uint8_t *)artifact, sizeof artifact - 1, look);
  cJSON_Delete(json);
  return 0;
}
