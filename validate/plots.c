#include "validate/plots.h"

#include <math.h>
#include <stdio.h>

#include "validate/report.h"

/* A plot's outer size and margins, in SVG units. */
enum { WIDTH = 720, HEIGHT = 240, LEFT = 64, RIGHT = 16, TOP = 14, BOTTOM = 44 };

static const double INNER_WIDTH = WIDTH - LEFT - RIGHT, INNER_HEIGHT = HEIGHT - TOP - BOTTOM;

static void begin(nb_buf *out, int height, const char *title) {
  nb_buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\"><title>", WIDTH, height);
  nb_html_text(out, title);
  nb_buf_puts(out, "</title>\n");
}

static void label(nb_buf *out, double x, double y, const char *anchor, const char *text) {
  nb_buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
  nb_html_text(out, text);
  nb_buf_puts(out, "</text>\n");
}

static void axis_titles(nb_buf *out, const char *x, const char *y) {
  label(out, LEFT + INNER_WIDTH / 2, HEIGHT - 6, "middle", x);
  nb_buf_printf(out, "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">",
                TOP + INNER_HEIGHT / 2);
  nb_html_text(out, y);
  nb_buf_puts(out, "</text>\n");
}

static void grid_line(nb_buf *out, double y, const char *text) {
  nb_buf_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT, WIDTH - RIGHT, y, y);
  label(out, LEFT - 6, y + 4, "end", text);
}

/* ---- KL histogram ---- */

void nb_plot_kl(const nibble_behaviour *b, nb_buf *out) {
  int64_t most = 1;
  for (int i = 0; i < NIBBLE_KL_BINS; i++) most = b->kl_bins[i] > most ? b->kl_bins[i] : most;
  begin(out, HEIGHT, "Histogram of the tokens' KL divergence");
  for (int k = 0; k <= 4; k++) {
    char text[32];
    snprintf(text, sizeof text, "%.0f", (double)most * k / 4);
    grid_line(out, TOP + INNER_HEIGHT * (1 - k / 4.0), text);
  }
  double step = INNER_WIDTH / NIBBLE_KL_BINS;
  for (int i = 0; i < NIBBLE_KL_BINS; i++) {
    double height = INNER_HEIGHT * (double)b->kl_bins[i] / (double)most, low = pow(10, i / 2.0 - 7);
    nb_buf_printf(out,
                  "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>from %.1e: %lld "
                  "tokens</title></rect>\n",
                  LEFT + i * step + 1, TOP + INNER_HEIGHT - height, step - 2, height, low, (long long)b->kl_bins[i]);
    if (i % 2 == 0) {
      char text[16];
      snprintf(text, sizeof text, "1e%d", i / 2 - 7);
      label(out, LEFT + i * step, TOP + INNER_HEIGHT + 16, "middle", text);
    }
  }
  axis_titles(out, "KL divergence of a token, nats", "tokens");
  nb_buf_puts(out, "</svg>\n");
}

/* ---- errors ---- */

typedef struct log_scale {
  int low, high; /* decades */
} log_scale;

static double log_y(const log_scale *s, double value) {
  double part = (log10(value) - s->low) / (s->high - s->low);
  return TOP + INNER_HEIGHT * (1 - fmin(1, fmax(0, part)));
}

static void log_grid(nb_buf *out, const log_scale *s) {
  for (int decade = s->low; decade <= s->high; decade++) {
    char text[16];
    snprintf(text, sizeof text, "1e%d", decade);
    grid_line(out, TOP + INNER_HEIGHT * (1 - (double)(decade - s->low) / (s->high - s->low)), text);
  }
}

static void widen(log_scale *s, double value) {
  if (!(value > 0) || !isfinite(value)) return;
  int low = (int)floor(log10(value)), high = low + 1;
  if (low < s->low) s->low = low;
  if (high > s->high) s->high = high;
}

static bool is_shown(const nibble_weight_error *w) { return w->flagged || w->relative_error > 0; }

void nb_plot_weights(const nibble_verification *v, nb_buf *out) {
  log_scale scale = {.low = -2, .high = 0};
  size_t shown = 0;
  for (size_t i = 0; i < v->weight_count; i++) {
    if (!is_shown(&v->weights[i])) continue;
    shown++;
    widen(&scale, v->weights[i].relative_error);
  }
  if (!shown) return;
  begin(out, HEIGHT, "Relative error of every weight that is not exact");
  log_grid(out, &scale);
  size_t k = 0;
  for (size_t i = 0; i < v->weight_count; i++) {
    const nibble_weight_error *w = &v->weights[i];
    if (!is_shown(w)) continue;
    double x = LEFT + INNER_WIDTH * ((double)k++ + 0.5) / (double)shown;
    double error = isfinite(w->relative_error) ? w->relative_error : 1e300;
    if (w->expected_error > 0)
      nb_buf_printf(out, "<path class=\"expected\" d=\"M%.1f %.1fh6\"/>\n", x - 3, log_y(&scale, w->expected_error));
    nb_buf_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", w->flagged ? "flagged" : "dot",
                  x, log_y(&scale, error), w->flagged ? "5" : "2.5");
    nb_html_text(out, w->tensor);
    nb_buf_printf(out, ": %.4g, expected %.4g</title></circle>\n", w->relative_error, w->expected_error);
  }
  axis_titles(out, "weights, in the order of the original's file", "relative error");
  nb_buf_puts(out, "</svg>\n");
}

void nb_plot_blocks(const nibble_behaviour *b, nb_buf *out) {
  log_scale scale = {.low = -3, .high = 0};
  if (b->block_count < 2) return;
  for (int64_t i = 1; i < b->block_count; i++) widen(&scale, b->block_errors[i]);
  begin(out, HEIGHT, "Relative error of the hidden states after each block");
  log_grid(out, &scale);
  int64_t blocks = b->block_count - 1, every = blocks / 16 + 1;
  double step = INNER_WIDTH / (double)blocks;
  for (int64_t i = 0; i < blocks; i++) {
    double error = b->block_errors[i + 1], x = LEFT + step * ((double)i + 0.5);
    double y = log_y(&scale, error > 0 ? error : 1e-300);
    nb_buf_printf(out, "<path class=\"stem\" d=\"M%.1f %.1fV%.1f\"/>\n", x, TOP + INNER_HEIGHT, y);
    nb_buf_printf(out,
                  "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>block %lld: %.4g</title></circle>\n",
                  i == b->parting_block ? "flagged" : "dot", x, y, (long long)i, error);
    if (i % every == 0) {
      char text[24];
      snprintf(text, sizeof text, "%lld", (long long)i);
      label(out, x, TOP + INNER_HEIGHT + 16, "middle", text);
    }
  }
  axis_titles(out, "block", "relative error");
  nb_buf_puts(out, "</svg>\n");
}

/* ---- memory ---- */

void nb_plot_memory(const nibble_behaviour *b, nb_buf *out) {
  const struct {
    const char *name;
    uint64_t bytes;
  } bars[] = {{"predicted", b->predicted_bytes}, {"on disk", b->file_bytes}, {"resident", b->resident_bytes}};
  enum { ROW = 30, COUNT = 3, LABEL = 90, FIGURE = 90 };
  uint64_t most = 1;
  for (int i = 0; i < COUNT; i++) most = bars[i].bytes > most ? bars[i].bytes : most;
  begin(out, COUNT * ROW + 8, "Memory of the artifact");
  for (int i = 0; i < COUNT; i++) {
    double y = 4 + i * ROW, width = (WIDTH - LABEL - FIGURE) * (double)bars[i].bytes / (double)most;
    char text[32];
    snprintf(text, sizeof text, "%.1f MB", (double)bars[i].bytes / 1e6);
    label(out, LABEL - 8, y + 19, "end", bars[i].name);
    nb_buf_printf(out, "<rect class=\"bar\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n", LABEL, y, width,
                  ROW - 6);
    label(out, LABEL + width + 8, y + 19, "start", text);
  }
  nb_buf_puts(out, "</svg>\n");
}
