"""The ten colours and markers of the segments: the same in every figure, report and page.

Found by search, not by eye: smallest CIEDE2000 distance between any two of the first six colours
is 24 in full sight, 23 under deuteranopia, 21 under protanopia and 16 under tritanopia (Machado,
Oliveira & Fernandes 2009), of all ten 14, 10, 9.5 and 12; each has at least 3:1 contrast on white
(WCAG 1.4.11). The Okabe-Ito set has 22, 12 and 12 at six, and two of its colours miss 3:1.
Beyond six colours the marker carries the difference, so draw both.
"""

PALETTE: tuple[str, ...] = (
    "#004db6",  # blue
    "#e7740a",  # orange
    "#10a68c",  # teal
    "#651e45",  # plum
    "#b276f8",  # lilac
    "#860000",  # dark red
    "#027d4a",  # green
    "#c54b98",  # pink
    "#332a7c",  # indigo
    "#976b18",  # ochre
)

MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "<", "p", "*")

LOOKS: dict[str, str] = dict(zip(PALETTE, MARKERS, strict=True))
"""The marker that goes with each colour."""

OUTLINES: tuple[str, ...] = (
    "M-6 0a6 6 0 1 1 12 0 6 6 0 1 1-12 0z",
    "M-5.5-5.5h11v11h-11z",
    "M0-6.5 6.5 5h-13z",
    "M0-7 7 0 0 7-7 0z",
    "M0 6.5 6.5-5h-13z",
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "M0-3l3.2-3.2 3 3L3 0l3.2 3.2-3 3L0 3l-3.2 3.2-3-3L-3 0l-3.2-3.2 3-3z",
    "M-6.5 0 5-6.5v13z",
    "M0-6.5 6.2-2 3.8 5.3h-7.6L-6.2-2z",
    "M0-7 1.7-2.3 6.7-2.2 2.7.9 4.1 5.7 0 2.8-4.1 5.7-2.7.9-6.7-2.2-1.7-2.3z",
)
"""The same markers as SVG paths, in a square of 16 around the origin."""


def find_look(colour: str) -> int:
    """The place of a segment's colour, and so of its marker; 0 for a colour of another palette."""
    return PALETTE.index(colour) if colour in PALETTE else 0
