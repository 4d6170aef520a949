/* Which tensors of a checkpoint are quantized: what transformers would quantize, changed by --include and --exclude,
 * and how a config.json says so. */
#ifndef NB_QUANT_SELECT_H
#define NB_QUANT_SELECT_H

#include "convert/layouts.h"

typedef enum nb_choice {
  NB_CHOICE_KEEP, /* written as it is */
  NB_CHOICE_QUANTIZE,
  NB_CHOICE_DROP, /* a part of a packed source's weight; of a view and its whole the one that the other stands for */
} nb_choice;

typedef struct nb_selection {
  nb_choice *choices;      /* [nb_checkpoint_count] */
  size_t quantized;        /* how many are to be quantized */
  const nb_layout *layout; /* as it was asked for */
  bool is_default;         /* exactly what transformers quantizes by itself */
} nb_selection;

typedef struct nb_select_options {
  const char *include, *exclude; /* or NULL */
  const nb_layout *layout;       /* where the weights are to lie: it says which of them it has a place for */
} nb_select_options;

/* Where the layout packs experts, each matrix of a tensor that holds those of all is taken by itself, else the tensor
 * stays whole. By default every linear layer's weight (nb_tensor.id) is quantized. `include` and `exclude` are regular
 * expressions (PCRE2), searched anywhere in a tensor's name, or NULL: include adds output embeddings that are not tied,
 * exclude takes away and wins. NIBBLE_USAGE: an expression is malformed or matches no weight it could change.
 * NIBBLE_BAD_INPUT: a chosen weight is of no dtype that can be quantized, or there is none. Free with
 * nb_selection_free. */
nibble_status nb_select(const nb_checkpoint *checkpoint, const nb_select_options *options, nb_selection *out,
                        nibble_error *err);
void nb_selection_free(nb_selection *selection);

/* The value of llm_int8_skip_modules: null if the selection is the default one, else the names of all linear modules
 * that are not quantized. The caller's; NULL if there is no memory. */
cJSON *nb_skip_modules(const nb_checkpoint *checkpoint, const nb_selection *selection);

#endif
