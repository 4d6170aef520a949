#include "validate/token_plot.h"

#include "validate/report.h"

enum { WIDTH = 720, LEFT = 150, RIGHT = 60, HEAD = 40, BAR = 14, GAP = 12, COLOURS = 8, MOST_SCRIPTS = 16 };

/* Of the same lightness, and told apart without red and green; the ninth tokenizer begins anew. */
static const char *const colours[COLOURS] = {"#0969da", "#bc6f00", "#8250df", "#1b7c83",
                                             "#bf3989", "#57606a", "#6e7700", "#a0570f"};

static double rate(size_t tokens, size_t of) { return of > 0 ? (double)tokens / (double)of : 0; }

static double largest(const nibble_token_comparison *c, size_t scripts) {
  double most = 0;
  for (size_t s = 0; s <= scripts; s++) {
    const nibble_script_tokens *row = s == 0 ? &c->total : &c->scripts[s - 1];
    for (size_t i = 0; i < c->tokenizers; i++) {
      double value = rate(row->tokens[i], row->characters);
      most = value > most ? value : most;
    }
  }
  return most > 0 ? most : 1;
}

static void text(nb_buf *out, const char *attributes, int x, int y, const char *what) {
  nb_buf_printf(out, "<text %s x=\"%d\" y=\"%d\">", attributes, x, y);
  nb_html_text(out, what);
  nb_buf_puts(out, "</text>\n");
}

/* The names of the tokenizers, a line each, in their colours. */
static int legend(const nibble_token_comparison *c, const char *const *names, nb_buf *out) {
  int y = HEAD;
  for (size_t i = 0; i < c->tokenizers; i++, y += BAR + 4) {
    nb_buf_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/>\n", LEFT, y,
                  colours[i % COLOURS]);
    text(out, "class=\"name\"", LEFT + 18, y + 10, names[i]);
  }
  return y + GAP;
}

static int bars(const nibble_token_comparison *c, const nibble_script_tokens *row, double most, int y, nb_buf *out) {
  text(out, "text-anchor=\"end\"", LEFT - 8, y + BAR - 3, row->script);
  for (size_t i = 0; i < c->tokenizers; i++, y += BAR) {
    double value = rate(row->tokens[i], row->characters), width = value / most * (WIDTH - LEFT - RIGHT);
    nb_buf_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\" fill=\"%s\"/>\n", LEFT, y, width,
                  BAR - 2, colours[i % COLOURS]);
    nb_buf_printf(out, "<text class=\"value\" x=\"%.1f\" y=\"%d\">%.3f</text>\n", LEFT + width + 5, y + BAR - 4, value);
  }
  return y + GAP;
}

void nb_token_plot(const nibble_token_comparison *c, const char *const *names, nb_buf *out) {
  size_t scripts = c->count < MOST_SCRIPTS ? c->count : MOST_SCRIPTS;
  int rows = (int)c->tokenizers, height = HEAD + rows * (BAR + 4) + GAP + (int)(scripts + 1) * (rows * BAR + GAP);
  double most = largest(c, scripts);
  nb_buf_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, height);
  nb_buf_puts(out,
              "<title>Tokens a character, by script</title>\n"
              "<style>text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:14px}"
              ".value{fill:#59636e;font-size:11px}@media (prefers-color-scheme:dark){text{fill:#e6edf3}"
              ".value{fill:#9198a1}}</style>\n");
  text(out, "class=\"title\"", 16, 22, "Tokens a character, by script (less is better)");
  int y = legend(c, names, out);
  y = bars(c, &c->total, most, y, out);
  for (size_t s = 0; s < scripts; s++) y = bars(c, &c->scripts[s], most, y, out);
  nb_buf_puts(out, "</svg>\n");
}
