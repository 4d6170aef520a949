#include "validate/plots.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* From low to high; both are 1, 2 or 5 times a power of ten. */
typedef struct log_scale {
  double low, high;
} log_scale;

enum { STEPS = 3, MANY_DECADES = 1000 };
static const double steps[STEPS] = {1, 2, 5};

/* The last step that is not above the value (round_up: the first that is not below). */
static double step_near(double value, bool round_up) {
  double decade = pow(10, floor(log10(value))), near = round_up ? 10 * decade : decade;
  for (int i = 0; i < STEPS; i++) {
    /* The slack takes 0.1 for 0.1, although 10^-1 is not quite that. */
    if (!round_up && steps[i] * decade <= value * (1 + 1e-9)) near = steps[i] * decade;
    if (round_up && steps[i] * decade >= value * (1 - 1e-9)) return steps[i] * decade;
  }
  return near;
}

static void widen(log_scale *s, double value) {
  if (!(value > 1e-30) || !(value < 1e30)) return;
  double low = step_near(value, false), high = step_near(value, true);
  if (!(s->low > 0) || low < s->low) s->low = low;
  if (high > s->high) s->high = high;
}

/* Room for a line at either end, where all values lie on one. */
static void finish_scale(log_scale *s) {
  if (!(s->low > 0)) *s = (log_scale){0.1, 1};
  if (s->high > s->low * 1.5) return;
  s->low = step_near(s->low / 1.9, false);
  s->high = step_near(s->high * 1.9, true);
}

static double log_y(const log_scale *s, double value) {
  double part = value > 0 ? log(value / s->low) / log(s->high / s->low) : 0;
  return TOP + INNER_HEIGHT * (1 - fmin(1, fmax(0, part)));
}

static void log_grid(nb_buf *out, const log_scale *s) {
  bool every_step = s->high / s->low < MANY_DECADES;
  for (double decade = pow(10, floor(log10(s->low) + 1e-9)); decade < s->high * 1.01; decade *= 10) {
    for (int i = 0; i < (every_step ? STEPS : 1); i++) {
      double value = steps[i] * decade;
      char text[24];
      if (value < s->low * 0.99 || value > s->high * 1.01) continue;
      snprintf(text, sizeof text, value < 1e-4 ? "%.0e" : "%g", value);
      grid_line(out, log_y(s, value), text);
    }
  }
}

static bool is_shown(const nibble_weight_error *w) { return w->flagged || w->relative_error > 0; }

/* The number in "model.layers.12.mlp"; -1 if there is none. */
static int layer_of(const char *name) {
  for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
    int layer = 0, digits = 0;
    while (dot[1 + digits] >= '0' && dot[1 + digits] <= '9' && digits < 5) layer = 10 * layer + dot[++digits] - '0';
    if (digits && dot[1 + digits] == '.') return layer;
  }
  return -1;
}

/* A column a layer, and one for weights that are in none. */
typedef struct columns {
  int count;       /* of layers */
  int64_t *shown;  /* [count + 1] weights in each */
  int64_t *placed; /* [count + 1] of them drawn */
} columns;

static int column_of(const columns *c, const char *name) {
  int layer = layer_of(name);
  return layer < 0 || layer >= c->count ? c->count : layer;
}

static bool count_columns(const nibble_verification *v, columns *c) {
  for (size_t i = 0; i < v->weight_count; i++) {
    int layer = is_shown(&v->weights[i]) ? layer_of(v->weights[i].tensor) : -1;
    if (layer >= c->count) c->count = layer + 1;
  }
  c->shown = calloc((size_t)c->count + 1, sizeof *c->shown);
  c->placed = calloc((size_t)c->count + 1, sizeof *c->placed);
  if (!c->shown || !c->placed) return false;
  for (size_t i = 0; i < v->weight_count; i++) {
    if (is_shown(&v->weights[i])) c->shown[column_of(c, v->weights[i].tensor)]++;
  }
  return true;
}

static void column_labels(nb_buf *out, int64_t columns, double step) {
  int64_t every = columns / 16 + 1;
  for (int64_t i = 0; i < columns; i += every) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)i);
    label(out, LEFT + step * ((double)i + 0.5), TOP + INNER_HEIGHT + 16, "middle", text);
  }
}

static void weight_dot(const nibble_weight_error *w, const log_scale *scale, double x, nb_buf *out) {
  double error = isfinite(w->relative_error) ? w->relative_error : 1e300;
  if (w->expected_error > 0)
    nb_buf_printf(out, "<path class=\"expected\" d=\"M%.1f %.1fh6\"/>\n", x - 3, log_y(scale, w->expected_error));
  nb_buf_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", w->flagged ? "flagged" : "dot", x,
                log_y(scale, error), w->flagged ? "5" : "2");
  nb_html_text(out, w->tensor);
  nb_buf_printf(out, ": %.4g, expected %.4g</title></circle>\n", w->relative_error, w->expected_error);
}

void nb_plot_weights(const nibble_verification *v, nb_buf *out) {
  log_scale scale = {0};
  columns c = {0};
  size_t shown = 0;
  for (size_t i = 0; i < v->weight_count; i++) {
    if (!is_shown(&v->weights[i])) continue;
    shown++;
    widen(&scale, v->weights[i].relative_error);
    widen(&scale, v->weights[i].expected_error);
  }
  if (!count_columns(v, &c)) out->failed = true;
  if (shown && !out->failed) {
    bool others = c.shown[c.count] > 0;
    double step = INNER_WIDTH / (double)(c.count + others);
    finish_scale(&scale);
    begin(out, HEIGHT, "Relative error of every weight that is not exact, by layer");
    log_grid(out, &scale);
    for (size_t i = 0; i < v->weight_count; i++) {
      const nibble_weight_error *w = &v->weights[i];
      if (!is_shown(w)) continue;
      int column = column_of(&c, w->tensor);
      double within = ((double)c.placed[column]++ + 0.5) / (double)c.shown[column];
      weight_dot(w, &scale, LEFT + step * (column + 0.1 + 0.8 * within), out);
    }
    column_labels(out, c.count, step);
    if (others) label(out, LEFT + step * (c.count + 0.5), TOP + INNER_HEIGHT + 16, "middle", "other");
    axis_titles(out, "layer", "relative error");
    nb_buf_puts(out, "</svg>\n");
  }
  free(c.shown);
  free(c.placed);
}

/* A stem with a dot for each block; the `marked` one stands out. */
static void plot_stems(const double *values, int64_t count, int64_t marked, const char *title, const char *unit,
                       nb_buf *out) {
  log_scale scale = {0};
  double step = INNER_WIDTH / (double)count;
  for (int64_t i = 0; i < count; i++) widen(&scale, values[i]);
  finish_scale(&scale);
  begin(out, HEIGHT, title);
  log_grid(out, &scale);
  for (int64_t i = 0; i < count; i++) {
    double x = LEFT + step * ((double)i + 0.5), y = log_y(&scale, values[i]);
    nb_buf_printf(out, "<path class=\"stem\" d=\"M%.1f %.1fV%.1f\"/>\n", x, TOP + INNER_HEIGHT, y);
    nb_buf_printf(out,
                  "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>block %lld: %.4g</title></circle>\n",
                  i == marked ? "flagged" : "dot", x, y, (long long)i, values[i]);
  }
  column_labels(out, count, step);
  axis_titles(out, "block", unit);
  nb_buf_puts(out, "</svg>\n");
}

void nb_plot_blocks(const nibble_behaviour *b, nb_buf *out) {
  if (b->block_count > 1)
    plot_stems(b->block_errors + 1, b->block_count - 1, b->parting_block,
               "Relative error of the hidden states after each block", "relative error", out);
}

void nb_plot_sensitivity(const nibble_behaviour *b, nb_buf *out) {
  int64_t worst = -1;
  for (int64_t i = 0; i < b->sensitivity_count; i++) {
    if (worst < 0 || b->block_sensitivity[i] > b->block_sensitivity[worst]) worst = i;
  }
  if (b->sensitivity_count)
    plot_stems(b->block_sensitivity, b->sensitivity_count, worst,
               "Mean KL divergence if one block alone is the artifact's", "KL, nats", out);
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
