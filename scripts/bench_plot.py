"""Draws the medians of bench_peers.py as an SVG of bar charts, in plain Python, readable on light and dark pages."""

# title, group of the result, the unit, whether more is better
PANELS = (
    ("Prefill of 512 tokens", "prefill", "tokens/s", True),
    ("Decode", "decode", "tokens/s", True),
    ("Perplexity, windows of 512", "ppl", "tokens/s", True),
    ("4096 x 4096 product, 1 row", "product1", "ms", False),
    ("4096 x 4096 product, 256 rows", "product256", "ms", False),
    ("Quantize 135M parameters", "quantize", "s", False),
    ("Fresh process to first token", "first", "ms", False),
)
WIDTH, COLUMN, LABEL, BAR, ROW, HEAD, GAP = 980, 480, 218, 186, 21, 34, 18

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.note { fill: #59636e }
.nibble { fill: #0969da } .peer { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .nibble { fill: #4493f8 } .peer { fill: #59636e }
}"""


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def panel(x, y, title, values, unit, more_is_better):
    out = [f'<text class="title" x="{x}" y="{y + 14}">{escape(title)}</text>',
           f'<text class="note" x="{x + LABEL + BAR + 50}" y="{y + 14}" text-anchor="end">'
           f'{unit}, {"more" if more_is_better else "less"} is better</text>']
    most = max(values.values())
    for i, (who, value) in enumerate(sorted(values.items(), key=lambda item: item[1], reverse=more_is_better)):
        top = y + HEAD - 8 + i * ROW
        kind = "nibble" if who.startswith("nibble") else "peer"
        width = max(1, BAR * value / most)
        out.append(f'<text x="{x + LABEL - 8}" y="{top + 12}" text-anchor="end">{escape(who)}</text>')
        out.append(f'<rect class="{kind}" x="{x + LABEL}" y="{top}" width="{width:.1f}" height="{ROW - 5}" rx="2"/>')
        out.append(f'<text x="{x + LABEL + width + 6:.1f}" y="{top + 12}">{number(value)}</text>')
    return out, HEAD + len(values) * ROW + GAP


def draw(result):
    """The SVG's text. Panels fill two columns, each next one where there is more room."""
    heights, parts = [GAP, GAP], []
    for title, group, unit, more in PANELS:
        if group not in result["groups"]:
            continue
        column = heights.index(min(heights))
        drawn, height = panel(12 + column * COLUMN, heights[column], title, result["groups"][group], unit, more)
        heights[column] += height
        parts += drawn
    height = max(heights)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-label="Speed of nibble and its peers">\n<style>{STYLE}\n</style>\n' + "\n".join(parts) +
            "\n</svg>\n")
