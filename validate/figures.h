/* The figures of a behaviour by their names in a certificate, both ways. */
#ifndef NB_VALIDATE_FIGURES_H
#define NB_VALIDATE_FIGURES_H

#include <cjson/cJSON.h>

#include "base/status.h"

/* JSON has no infinity and no NaN: such a number is null. */
void nb_figure_add(cJSON *json, const char *key, double value);

/* Adds every figure of the behaviour; reads them, null or missing as NaN, which meets no threshold. */
void nb_figures_add(cJSON *json, const nibble_behaviour *behaviour);
void nb_figures_read(const cJSON *json, nibble_behaviour *behaviour);

#endif
