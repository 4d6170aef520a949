/* The report's plots, each an <svg> appended to a page. Colours come from the page's CSS classes, so that they follow
 * light, dark and print; every plot has a <title> for those who cannot see it. */
#ifndef NB_VALIDATE_PLOTS_H
#define NB_VALIDATE_PLOTS_H

#include "base/buf.h"
#include "nibble.h"

/* Tokens by their KL divergence, in half decades. */
void nb_plot_kl(const nibble_behaviour *b, nb_buf *out);

/* Relative error of every weight that is not exact, by layer, beside the expected one; flagged ones marked. */
void nb_plot_weights(const nibble_verification *v, nb_buf *out);

/* Relative error of the hidden states after each block. */
void nb_plot_blocks(const nibble_behaviour *b, nb_buf *out);

/* Mean KL divergence if one block alone is the artifact's; the worst marked. */
void nb_plot_sensitivity(const nibble_behaviour *b, nb_buf *out);

/* Bars: predicted, on disk, resident. */
void nb_plot_memory(const nibble_behaviour *b, nb_buf *out);

#endif
