"""The typeface of every figure: what figures say, cut out of matplotlib's own DejaVu Sans.

A PDF holds a cut-out of each font that it needs. To take it out of the whole DejaVu Sans, with 6,000 glyphs and tables
for scripts that no label is written in, is a tenth of a report's time; out of this one it is nothing. A text that
it cannot set is set in both.
"""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib import font_manager

FAMILY = "DejaVu Sans Latin"
WHOLE = "DejaVu Sans"  # comes with matplotlib, so that a figure looks the same everywhere
FILE = Path(__file__).resolve().parent / "fonts" / "DejaVuSansLatin.ttf"
# Latin with its accents, Greek, and the signs of typography and arithmetic.
CHARACTERS = (
    *range(0x20, 0x7F),
    *range(0xA0, 0x180),
    *range(0x391, 0x3A2),
    *range(0x3A3, 0x3CA),
    *map(ord, "–—‘’“”•…−≤≥≈→×±°"),
)
_CHARACTERS = frozenset(map(chr, CHARACTERS)) | {"\n"}
_NAMES = {1: FAMILY, 4: FAMILY, 6: FILE.stem, 16: FAMILY}  # family, full, PostScript's, typographic


def use() -> str:
    """Make the typeface known to matplotlib; returns its family."""
    if not any(known.fname == str(FILE) for known in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(FILE)
    return FAMILY


def has(text: str) -> bool:
    """Whether all of a text can be set in it."""
    return _CHARACTERS.issuperset(text)


def cut() -> bytes:
    """The file's bytes, made anew: `python -c 'from repro.report import typeface as t; t.FILE.write_bytes(t.cut())'`.

    Without instructions for hinting (matplotlib's rendering hints by itself), with kerning as a table of pairs: that
    of classes, which says the same, takes four times as long to cut. Under the licence beside the file, which asks of a
    changed font that it does not bear the names of Bitstream Vera.
    """
    from fontTools import subset  # type: ignore[import-untyped]

    options = subset.Options(
        hinting=False,
        legacy_kern=True,
        layout_features=[],
        name_IDs=["*"],
        notdef_outline=True,
        drop_tables=["FFTM", "MATH", "GDEF", "GPOS", "GSUB"],
    )
    font = subset.load_font(font_manager.findfont(WHOLE), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=CHARACTERS)
    cutter.subset(font)
    for record in font["name"].names:
        if record.nameID in _NAMES:
            record.string = _NAMES[record.nameID]
    font.recalcTimestamp = False
    stream = io.BytesIO()
    font.save(stream)
    return stream.getvalue()
