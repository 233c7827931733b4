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
