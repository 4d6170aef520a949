/* A verification as one HTML page that needs nothing else: no network, no script; light and dark by the reader's
 * setting, and printable. Plots are SVG in the page (plots.h). */
#ifndef NB_VALIDATE_REPORT_H
#define NB_VALIDATE_REPORT_H

#include "base/buf.h"
#include "base/status.h"

/* NIBBLE_USAGE if something stands at `path` that is no report, and `force` does not say that it may be replaced. */
nibble_status nb_report_check(const char *path, bool force, nibble_error *err);

/* Writes the page to a file, whole or not at all, where nb_report_check allows it. */
nibble_status nb_report_save(const nibble_verification *v, const char *path, bool force, nibble_error *err);

/* Appends text with what HTML would take for markup escaped, and what is not UTF-8 or a control character replaced. */
void nb_html_text(nb_buf *out, const char *text);

#endif
