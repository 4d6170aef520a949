/* What gptq and rtn have in common: both round to an integer grid for every group of columns, and write GPTQ's layout.
 * They differ in how a weight comes to its codes: calibrated (gptq.h), or rounded to the nearest (rtn.h). */
#ifndef NB_QUANT_METHODS_GRIDS_H
#define NB_QUANT_METHODS_GRIDS_H

#include "quant/gptq.h"
#include "quant/methods.h"

enum {
  NB_GRIDS_OPTIONS = NB_OPTION_BITS | NB_OPTION_GROUP_SIZE | NB_OPTION_ZEROS | NB_OPTION_SCALES |
                     NB_OPTION_SCALE_DTYPE | NB_OPTION_LAYOUT
};

/* The first member of both methods' state. */
typedef struct nb_grids {
  int variant; /* of the layout */
  nb_grid grid;
  nb_format format;
} nb_grids;

/* The check of NB_GRIDS_OPTIONS. */
nibble_status nb_grids_check(const nibble_quantize_options *options, nibble_error *err);

/* searches: scales are searched for where the options do not say. */
nb_grids nb_grids_of(const nibble_quantize_options *options, bool searches);

/* The settings of NB_GRIDS_OPTIONS and of what all methods read, in a new object; NULL without memory. */
cJSON *nb_grids_settings(const nb_method_run *run);

/* nb_method's target and config; the latter without what a calibration adds to "meta". */
nibble_status nb_grids_target(const nb_method_run *run, const nb_source *source, nb_packed *out, nibble_error *err);
cJSON *nb_grids_config(const nb_method_run *run);

/* A weight that was rounded, as the layout's parts hold it. */
typedef struct nb_grids_weight {
  int64_t rows, groups;
  const uint32_t *words;  /* [nb_gptq_words(cols), rows] */
  const uint16_t *scales; /* [groups, rows] */
  const uint8_t *zeros;   /* [groups, rows] */
  const int32_t *g_idx;   /* [cols] */
  int64_t mended;         /* groups whose scale had to be moved into its dtype's range */
  double error, squares;  /* sums over the weights: of (W - Q)^2 and of W^2 */
} nb_grids_weight;

/* Writes the parts and fills in *out; out->details, the method's own object, learns how many groups were mended. */
nibble_status nb_grids_write(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job,
                             const nb_grids_weight *weight, nb_pack_result *out, nibble_error *err);

/* True for a linear layer of a block. */
bool nb_grids_reach(const nb_slot *slot);

#endif
