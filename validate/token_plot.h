/* The drawing of a comparison of tokenizers: an SVG of its own, readable on light and dark pages. */
#ifndef NB_VALIDATE_TOKEN_PLOT_H
#define NB_VALIDATE_TOKEN_PLOT_H

#include "base/buf.h"
#include "nibble.h"

/* Bars: tokens a character under each tokenizer, for the text as a whole and the scripts that have most of it. */
void nb_token_plot(const nibble_token_comparison *comparison, const char *const *names, nb_buf *out);

#endif
