#include "validate/figures.h"

#include <math.h>
#include <stddef.h>

static const struct {
  const char *key;
  size_t offset;
} figures[] = {
    {"perplexity", offsetof(nibble_behaviour, perplexity)},
    {"perplexity_stderr", offsetof(nibble_behaviour, perplexity_stderr)},
    {"reference_perplexity", offsetof(nibble_behaviour, reference_perplexity)},
    {"reference_perplexity_stderr", offsetof(nibble_behaviour, reference_perplexity_stderr)},
    {"nll_difference", offsetof(nibble_behaviour, nll_difference)},
    {"nll_difference_low", offsetof(nibble_behaviour, nll_difference_low)},
    {"nll_difference_high", offsetof(nibble_behaviour, nll_difference_high)},
    {"ppl_increase", offsetof(nibble_behaviour, ppl_increase)},
    {"kl_mean", offsetof(nibble_behaviour, kl_mean)},
    {"kl_p99", offsetof(nibble_behaviour, kl_p99)},
    {"kl_max", offsetof(nibble_behaviour, kl_max)},
    {"top1_agreement", offsetof(nibble_behaviour, top1_agreement)},
    {"top5_agreement", offsetof(nibble_behaviour, top5_agreement)},
};
enum { FIGURES = sizeof figures / sizeof *figures };

void nb_figure_add(cJSON *json, const char *key, double value) {
  if (isfinite(value)) {
    cJSON_AddNumberToObject(json, key, value);
  } else {
    cJSON_AddNullToObject(json, key);
  }
}

void nb_figures_add(cJSON *json, const nibble_behaviour *b) {
  for (int i = 0; i < FIGURES; i++)
    nb_figure_add(json, figures[i].key, *(const double *)(const void *)((const char *)b + figures[i].offset));
}

void nb_figures_read(const cJSON *json, nibble_behaviour *b) {
  for (int i = 0; i < FIGURES; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, figures[i].key);
    *(double *)(void *)((char *)b + figures[i].offset) = cJSON_IsNumber(item) ? item->valuedouble : (double)NAN;
  }
}
