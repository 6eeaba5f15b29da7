# SPDX-License-Identifier: Apache-2.0
"""A chart with two logarithmic axes as an SVG of its own: a card that reads on light and on dark pages."""
import math
from xml.sax.saxutils import escape

INK, FAINT, GRID = "#1b1f24", "#57606a", "#d8dee4"
# Told apart by those who see few colours, too.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8250df", "#7d6608", "#1b1f24"]
LEFT, TOP, BOTTOM = 72, 70, 58


class Axis:
    def __init__(self, label, low, high, ticks, at, length):
        self.label, self.low, self.high, self.ticks, self.at, self.length = label, low, high, ticks, at, length

    def place(self, value):
        return self.at + self.length * math.log(value / self.low) / math.log(self.high / self.low)


class Chart:
    """x and y: label, least and greatest value, and the ticks as pairs of a value and its text."""

    def __init__(self, title, subtitle, x, y, width=760, height=460, right=165):
        self.width, self.height, self.title = width, height, title
        self.x = Axis(*x, LEFT, width - LEFT - right)
        self.y = Axis(*y, height - BOTTOM, -(height - TOP - BOTTOM))
        self.body = [f'<text x="16" y="26" font-size="15" font-weight="600">{escape(title)}</text>',
                     f'<text x="16" y="45" font-size="12" fill="{FAINT}">{escape(subtitle)}</text>']
        self.frame()

    def frame(self):
        left, right, bottom, top = self.x.at, self.x.at + self.x.length, self.y.at, TOP
        for value, text in self.x.ticks:
            at = self.x.place(value)
            self.path([(at, bottom), (at, top)], GRID)
            self.text(at, bottom + 17, text, "middle", FAINT)
        for value, text in self.y.ticks:
            at = self.y.place(value)
            self.path([(left, at), (right, at)], GRID)
            self.text(left - 8, at + 4, text, "end", FAINT)
        self.text((left + right) / 2, self.height - 16, self.x.label, "middle", INK)
        middle = (top + bottom) / 2
        self.body.append(f'<text x="18" y="{middle:.1f}" text-anchor="middle" '
                         f'transform="rotate(-90 18 {middle:.1f})">{escape(self.y.label)}</text>')

    def path(self, points, colour, width=1, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.body.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>')

    def text(self, x, y, text, anchor="start", colour=INK):
        self.body.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>')

    def line(self, points, colour, width=2, dash=""):
        self.path([(self.x.place(x), self.y.place(y)) for x, y in points], colour, width, dash)

    def dots(self, points, colour):
        for x, y in points:
            self.body.append(f'<circle cx="{self.x.place(x):.1f}" cy="{self.y.place(y):.1f}" r="4" fill="{colour}"/>')

    def names(self, named):
        """Text at the right ends of lines: (value of y, text, colour). What would overlap moves down."""
        last = -math.inf
        for y, text, colour in sorted(named, key=lambda name: self.y.place(name[0])):
            last = max(last + 15, self.y.place(y) + 4)
            self.text(self.x.at + self.x.length + 10, last, text, "start", colour)

    def svg(self):
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"',
            f'     font-family="sans-serif" font-size="12" fill="{INK}">', f"<title>{escape(self.title)}</title>",
            f'<rect width="{self.width}" height="{self.height}" rx="10" fill="#f6f8fa"/>', *self.body, "</svg>", ""])
