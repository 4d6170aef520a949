#include "validate/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/printable.h"
#include "base/stage.h"
#include "validate/plots.h"

static const char style[] =
    ":root{--bg:#fff;--fg:#1c2430;--soft:#5b6675;--line:#d9dee6;--card:#f6f8fa;--bar:#3b6fb6;--good:#1a7f4b;"
    "--bad:#c0362c;--warn:#9a6700}\n"
    "@media (prefers-color-scheme:dark){:root{--bg:#12161c;--fg:#e3e8ef;--soft:#98a4b3;--line:#303946;--card:#1a2029;"
    "--bar:#6ea3e8;--good:#4cc38a;--bad:#ff7b6e;--warn:#e2b340}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;background:var(--bg);color:var(--fg);"
    "font:15px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.5rem;margin:0 0 .25rem;overflow-wrap:anywhere}\n"
    "h2{font-size:1.1rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}\n"
    "p{margin:.4rem 0}.soft{color:var(--soft)}\n"
    ".verdict{display:inline-block;margin:.8rem 0;padding:.35rem .9rem;border-radius:.4rem;font-weight:600;"
    "border:2px solid}\n"
    ".sound{color:var(--good)}.failed,.fault{color:var(--bad)}.warning{color:var(--warn)}.note{color:var(--soft)}\n"
    ".wide{overflow-x:auto}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\n"
    "th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}\n"
    "th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}\n"
    "td.name{overflow-wrap:anywhere}code,.mono{font-family:ui-monospace,monospace;font-size:.9em}\n"
    "svg{display:block;width:100%;height:auto;margin:.5rem 0;background:var(--card);border-radius:.4rem}\n"
    "svg text{fill:var(--soft);font:12px system-ui,sans-serif}\n"
    ".grid{stroke:var(--line)}.bar{fill:var(--bar)}.dot{fill:var(--bar)}.flagged{fill:var(--bad)}\n"
    ".stem{stroke:var(--line);stroke-width:2}.expected{stroke:var(--soft);stroke-width:1.5}\n"
    "mark{background:none;color:var(--bad);font-weight:600}\n"
    "@media print{:root{--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--card:#fff;--bar:#345;--good:#060;--bad:#900;"
    "--warn:#640}body{max-width:none;padding:0;font-size:11px}h2,h2+p,tr:first-child{break-after:avoid}.wide{overflow:"
    "visible}svg,tr{"
    "break-inside:avoid}"
    "*{print-color-adjust:exact}}\n";

void nb_html_text(nb_buf *out, const char *text) {
  size_t left = strlen(text);
  for (const char *p = text; left > 0;) {
    int length = nb_printable_character(p, left);
    size_t n = (size_t)(length < 0 ? -length : length);
    switch (*p) {
      case '&': nb_buf_puts(out, "&amp;"); break;
      case '<': nb_buf_puts(out, "&lt;"); break;
      case '>': nb_buf_puts(out, "&gt;"); break;
      case '"': nb_buf_puts(out, "&quot;"); break;
      case '\'': nb_buf_puts(out, "&#39;"); break;
      default:
        if (length < 0)
          nb_buf_puts(out, "\xef\xbf\xbd");
        else
          nb_buf_append(out, p, n);
    }
    p += n;
    left -= n;
  }
}

/* ---- tables ---- */

typedef struct cell_text {
  char text[64];
} cell_text;

static cell_text cell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static cell_text cell(const char *format, ...) {
  cell_text c;
  va_list args;
  va_start(args, format);
  vsnprintf(c.text, sizeof c.text, format, args);
  va_end(args);
  return c;
}

static const cell_text none = {""};

static void row(nb_buf *out, const char *name, cell_text original, cell_text artifact, cell_text difference,
                const char *limit, bool missed) {
  nb_buf_printf(out,
                "<tr><td>%s</td><td class=\"n\">%s</td><td class=\"n\">%s</td><td class=\"n%s\">%s</td><td class=\"n "
                "soft\">%s</td></tr>\n",
                name, original.text, artifact.text, missed ? " fault" : "", difference.text, limit);
}

static void summary(const nibble_verification *v, nb_buf *out) {
  nb_buf_puts(out, "<h1>");
  nb_html_text(out, v->artifact);
  nb_buf_puts(out, "</h1>\n<p class=\"soft\">");
  if (*v->original) {
    nb_buf_puts(out, "against ");
    nb_html_text(out, v->original);
  }
  if (v->behaviour) {
    nb_buf_puts(out, ", on the text ");
    nb_html_text(out, v->text);
  }
  nb_buf_printf(out, "</p>\n<p class=\"verdict %s\">%s: %zu fault%s, %zu warning%s</p>\n",
                v->fault_count ? "failed" : "sound", v->fault_count ? "Failed" : "Sound", v->fault_count,
                v->fault_count == 1 ? "" : "s", v->warning_count, v->warning_count == 1 ? "" : "s");
  nb_buf_printf(out, "<p>%zu tensors, %zu of them packed weights, %.1f MB.", v->tensors, v->packed_weights,
                (double)v->tensor_bytes / 1e6);
  if (v->weight_count)
    nb_buf_printf(out, " %zu weights compared with the original, %zu flagged.", v->weight_count, v->flagged_count);
  nb_buf_puts(out, "</p>\n");
}

static void findings(const nibble_verification *v, nb_buf *out) {
  static const char *const names[] = {[NIBBLE_NOTE] = "note", [NIBBLE_WARNING] = "warning", [NIBBLE_FAULT] = "fault"};
  if (!v->finding_count) return;
  nb_buf_puts(out,
              "<h2>Findings</h2>\n<div class=\"wide\"><table><tr><th></th><th>tensor</th><th>what</th>"
              "<th>cause</th></tr>\n");
  for (size_t i = 0; i < v->finding_count; i++) {
    const nibble_finding *f = &v->findings[i];
    nb_buf_printf(out, "<tr><td class=\"%s\">%s</td><td class=\"name mono\">", names[f->severity], names[f->severity]);
    nb_html_text(out, f->tensor);
    nb_buf_puts(out, "</td><td>");
    nb_html_text(out, f->text);
    if (f->block >= 0) nb_buf_printf(out, " (block %lld)", (long long)f->block);
    if (f->index >= 0) nb_buf_printf(out, " (index %lld)", (long long)f->index);
    nb_buf_puts(out, "</td><td class=\"mono\">");
    nb_html_text(out, f->cause);
    nb_buf_puts(out, "</td></tr>\n");
  }
  nb_buf_puts(out, "</table></div>\n");
}

/* "at most 0.3: 82% used" */
static cell_text limit_cell(const nibble_limit *l) {
  return cell("at %s %.4g%s: %.0f%% used", l->is_least ? "least" : "most", l->is_share ? 100 * l->limit : l->limit,
              l->is_share ? "%" : "", 100 * l->used);
}

static bool is_missed(const nibble_limit *l) { return !(l->used <= 1); }

static void figures(const nibble_verification *v, nb_buf *out) {
  const nibble_behaviour *b = v->behaviour;
  const nibble_limit *kl = &v->limits[0], *ppl = &v->limits[1], *top1 = &v->limits[2];
  nb_buf_puts(out,
              "<div class=\"wide\"><table><tr><th></th><th class=\"n\">original</th><th class=\"n\">artifact</th><th "
              "class=\"n\">difference</th><th class=\"n\">limit</th></tr>\n");
  row(out, "perplexity", cell("%.4f \xc2\xb1 %.4f", b->reference_perplexity, b->reference_perplexity_stderr),
      cell("%.4f \xc2\xb1 %.4f", b->perplexity, b->perplexity_stderr), cell("%+.3f%%", 100 * b->ppl_increase),
      limit_cell(ppl).text, is_missed(ppl));
  row(out, "95% interval, token by token", none, none,
      cell("%+.3f%% to %+.3f%%", 100 * expm1(b->nll_difference_low), 100 * expm1(b->nll_difference_high)), "", false);
  row(out, "KL divergence, mean", none, none, cell("%.5g \xc2\xb1 %.2g", b->kl_mean, b->kl_stderr), limit_cell(kl).text,
      is_missed(kl));
  row(out, "KL divergence, 99th percentile", none, none, cell("%.5g", b->kl_p99), "", false);
  row(out, "KL divergence, largest", none, none, cell("%.5g", b->kl_max), "", false);
  row(out, "same likeliest token", none, none, cell("%.2f%%", 100 * b->top1_agreement), limit_cell(top1).text,
      is_missed(top1));
  row(out, "of the five likeliest in common", none, none, cell("%.2f%%", 100 * b->top5_agreement), "", false);
  nb_buf_puts(out, "</table></div>\n");
}

static void behaviour(const nibble_verification *v, nb_buf *out) {
  const nibble_behaviour *b = v->behaviour;
  nb_buf_printf(out,
                "<h2>Behaviour</h2>\n<p class=\"soft\">%lld tokens in %lld windows of %lld; limits of the profile "
                "\xe2\x80\x9c%s\xe2\x80\x9d%s%s where they were not given one by one. Errors are standard "
                "errors.</p>\n",
                (long long)b->tokens, (long long)b->chunks, (long long)b->ctx, v->thresholds.profile,
                *v->limits_of ? " for " : "", v->limits_of);
  figures(v, out);
  nb_buf_puts(out,
              "<h2>KL divergence of the tokens</h2>\n<p class=\"soft\">How far the artifact's distribution of the "
              "next token is from the original's.</p>\n");
  nb_plot_kl(b, out);
  if (b->sensitivity_count) {
    nb_buf_puts(out,
                "<h2>Sensitivity by block</h2>\n<p class=\"soft\">Mean KL divergence of the original's own "
                "distribution if one block alone is the artifact's: what that block costs.</p>\n");
    nb_plot_sensitivity(b, out);
  }
  nb_buf_puts(out, "<h2>Hidden states by block</h2>\n<p class=\"soft\">Both models by themselves. ");
  if (b->parting_block >= 0) {
    nb_buf_printf(out, "They part, by a quarter of their size, at block %lld.", (long long)b->parting_block);
  } else {
    nb_buf_puts(out, "They stay together: no block's output is off by a quarter of its size.");
  }
  nb_buf_puts(out, "</p>\n");
  nb_plot_blocks(b, out);
  nb_buf_puts(out, "<h2>Memory</h2>\n");
  nb_plot_memory(b, out);
}

static void worst(const nibble_behaviour *b, nb_buf *out) {
  if (!b->worst_count) return;
  nb_buf_puts(out,
              "<h2>Where the two differ most</h2>\n<div class=\"wide\"><table><tr><th class=\"n\">KL</th><th>text, "
              "and its own next token</th><th>original says</th><th>artifact says</th></tr>\n");
  for (int64_t i = 0; i < b->worst_count; i++) {
    const nibble_worst_token *w = &b->worst[i];
    nb_buf_printf(out, "<tr><td class=\"n\">%.3f</td><td>\xe2\x80\xa6", w->kl);
    nb_html_text(out, w->context ? w->context : "");
    nb_buf_puts(out, "<mark>");
    nb_html_text(out, w->token ? w->token : "");
    nb_buf_puts(out, "</mark></td><td class=\"mono\">");
    nb_html_text(out, w->reference_top ? w->reference_top : "");
    nb_buf_puts(out, "</td><td class=\"mono\">");
    nb_html_text(out, w->top ? w->top : "");
    nb_buf_puts(out, "</td></tr>\n");
  }
  nb_buf_puts(out, "</table></div>\n");
}

static void weights(const nibble_verification *v, nb_buf *out) {
  nb_buf_puts(out,
              "<h2>Weights against the original</h2>\n<p class=\"soft\">A dot a weight, a column a layer; the dash is "
              "what rounding that very weight to the nearest makes. Exact weights are left out.</p>\n");
  nb_plot_weights(v, out);
  nb_buf_puts(out,
              "<div class=\"wide\"><table><thead><tr><th>weight</th><th>format</th><th class=\"n\">error</th><th "
              "class=\"n\">expected</th><th class=\"n\">SNR, dB</th><th class=\"n\">cosine</th><th "
              "class=\"n\">largest</th></tr></thead>\n");
  for (size_t i = 0; i < v->weight_count; i++) {
    const nibble_weight_error *w = &v->weights[i];
    if (!w->flagged && !(w->relative_error > 0)) continue;
    nb_buf_printf(out, "<tr><td class=\"name mono%s\">", w->flagged ? " fault" : "");
    nb_html_text(out, w->tensor);
    nb_buf_printf(out,
                  "</td><td>%s</td><td class=\"n\">%.4g</td><td class=\"n\">%.4g</td><td class=\"n\">%.2f</td><td "
                  "class=\"n\">%.6f</td><td class=\"n\">%.3g at [%lld, %lld]</td></tr>\n",
                  w->format, w->relative_error, w->expected_error, w->snr_db, w->cosine, w->max_error,
                  (long long)w->max_row, (long long)w->max_col);
  }
  nb_buf_puts(out, "</table></div>\n");
}

static const char doctype[] = "<!DOCTYPE html>\n", title_end[] = " \xe2\x80\x93 nibble verify</title>";

static void put_page(const nibble_verification *v, nb_buf *out) {
  nb_buf_puts(out, doctype);
  nb_buf_puts(out,
              "<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
              "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
              "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
  nb_html_text(out, v->artifact);
  nb_buf_printf(out, "%s\n<style>\n%s</style></head><body>\n", title_end, style);
  summary(v, out);
  findings(v, out);
  if (v->behaviour) behaviour(v, out);
  if (v->behaviour) worst(v->behaviour, out);
  if (v->weight_count) weights(v, out);
  nb_buf_puts(out, "<p class=\"soft\">nibble " NIBBLE_VERSION);
  if (v->behaviour) nb_buf_printf(out, "; the text's SHA-256 is <code>%s</code>", v->text_sha256);
  nb_buf_puts(out, "</p>\n</body></html>\n");
}

/* A page of put_page begins so, and says it in its title. */
static bool is_report(const char *text) {
  return strncmp(text, doctype, sizeof doctype - 1) == 0 && strstr(text, title_end);
}

nibble_status nb_report_check(const char *path, bool force, nibble_error *err) {
  return nb_stage_check_file(path, &(nb_replace){.force = force, .is_ours = is_report}, err);
}

nibble_status nb_report_save(const nibble_verification *v, const char *path, bool force, nibble_error *err) {
  nb_buf page = {0};
  nb_replace replace = {.force = force, .is_ours = is_report};
  put_page(v, &page);
  nibble_status status = nb_stage_write_file(path, &replace, &page, false, err);
  nb_buf_free(&page);
  return status;
}
