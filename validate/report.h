/* A verification as one HTML page that needs nothing else: no network, no script; light and dark by the reader's
 * setting, and printable. Plots are SVG in the page (plots.h). */
#ifndef NB_VALIDATE_REPORT_H
#define NB_VALIDATE_REPORT_H

#include "base/buf.h"
#include "base/status.h"

/* Writes the page to a file, replacing one that is there, whole or not at all. */
nibble_status nb_report_save(const nibble_verification *v, const char *path, nibble_error *err);

/* Appends text with what HTML would take for markup escaped, and what is not UTF-8 or a control character replaced. */
void nb_html_text(nb_buf *out, const char *text);

#endif
