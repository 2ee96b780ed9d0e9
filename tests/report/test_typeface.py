"""The typeface of figures is matplotlib's own DejaVu Sans, less what no figure says."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font, LoadFlags

from repro.report import typeface
from repro.report.style import write_figure

WHOLE = font_manager.findfont(typeface.WHOLE)


def test_each_character_is_drawn_as_in_the_whole_font() -> None:
    cut, whole = FT2Font(str(typeface.FILE)), FT2Font(WHOLE)
    assert (cut.family_name, cut.units_per_EM) == (typeface.FAMILY, whole.units_per_EM)
    assert (cut.ascender, cut.descender, cut.height) == (whole.ascender, whole.descender, whole.height)
    for code in typeface.CHARACTERS:
        drawn = []
        for font in (cut, whole):
            assert font.get_char_index(code), f"U+{code:04X}"
            glyph = font.load_char(code, flags=LoadFlags.NO_SCALE)
            drawn.append((glyph.horiAdvance, *font.get_path()))
        (width, points, codes), (whole_width, whole_points, whole_codes) = drawn
        assert width == whole_width, f"U+{code:04X}"
        assert np.array_equal(points, whole_points), f"U+{code:04X}"
        assert np.array_equal(codes, whole_codes), f"U+{code:04X}"


def test_each_pair_of_letters_is_as_far_apart_as_in_the_whole_font() -> None:
    """But for ff, fi and fl, which the whole one joins into one sign."""
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_letters, repeat=2)]
    apart, whole = (widths(path, pairs) for path in (str(typeface.FILE), WHOLE))
    assert apart == whole
    assert apart["AV"] + apart["HH"] < apart["AH"] + apart["HV"], "there is kerning"


def widths(path: str, texts: list[str]) -> dict[str, int]:
    """How wide each text is, in 64ths of a dot."""
    font, found = FT2Font(path), {}
    font.set_size(8, 200)
    for text in texts:
        font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING, features=("-liga",))
        found[text] = font.get_width_height()[0]
    return found


def test_a_changed_font_has_a_name_of_its_own_and_its_licence_beside_it() -> None:
    assert FT2Font(str(typeface.FILE)).postscript_name == "DejaVuSansLatin"
    licence = (typeface.FILE.parent / "LICENSE_DEJAVU").read_text(encoding="utf-8")
    assert "Bitstream Vera" in licence


def test_what_it_does_not_have_comes_from_the_whole_font(tmp_path: Path) -> None:
    """A label in Cyrillic is drawn, without matplotlib's warning of a missing glyph, which would be an error here."""

    def draw() -> Figure:
        figure = Figure(figsize=(2, 1), layout="constrained")
        figure.subplots().set_title("DeiT Ж")
        return figure

    (svg, *_) = write_figure(tmp_path, "letters", "letters", draw)
    text = svg.read_text(encoding="utf-8")
    assert text.count('id="DejaVuSans-') == 1
    assert f'id="{typeface.FILE.stem}-' in text
