#include <string.h>

#include "model/family.h"

/* A line a family; the rest is in its file. */
/* clang-format off */
extern const nb_family
    nb_family_bert,
    nb_family_gpt2,
    nb_family_llama,
    nb_family_mistral,
    nb_family_mixtral,
    nb_family_qwen2,
    nb_family_qwen3,
    nb_family_qwen3_moe,
    nb_family_t5;

const nb_family *const nb_families[] = {
    &nb_family_bert,
    &nb_family_gpt2,
    &nb_family_llama,
    &nb_family_mistral,
    &nb_family_mixtral,
    &nb_family_qwen2,
    &nb_family_qwen3,
    &nb_family_qwen3_moe,
    &nb_family_t5,
    NULL,
};
/* clang-format on */

const nb_family *nb_family_by_model_type(const char *model_type) {
  for (const nb_family *const *f = nb_families; *f; f++) {
    if (strcmp((*f)->model_type, model_type) == 0) return *f;
  }
  return NULL;
}

const nb_family *nb_family_by_gguf(const char *gguf_arch) {
  for (const nb_family *const *f = nb_families; *f; f++) {
    if ((*f)->gguf_arch && strcmp((*f)->gguf_arch, gguf_arch) == 0) return *f;
  }
  return NULL;
}
