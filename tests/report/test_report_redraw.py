"""Figures are redrawn only if the data change or files are missing."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from repro.report.figures.files import write_figure


def test_the_same_data_are_not_drawn_twice(tmp_path: Path) -> None:
    drawn: list[float] = []

    def draw(width_in: float) -> Figure:
        drawn.append(width_in)
        figure = Figure(figsize=(width_in, 1))
        figure.subplots().plot([0, 1])
        return figure

    first = write_figure(tmp_path, "a", "data", draw)
    assert write_figure(tmp_path, "a", "data", draw) == first
    assert drawn == [3.25, 5.5]
    write_figure(tmp_path, "a", "other data", draw)
    assert len(drawn) == 4
    (tmp_path / "a.pdf").unlink()
    write_figure(tmp_path, "a", "other data", draw)
    assert len(drawn) == 6
    first[1].write_bytes(b"")  # as after a power failure, since figures are not fsynced
    write_figure(tmp_path, "a", "other data", draw)
    assert all(path.stat().st_size for path in first)
    assert write_figure(tmp_path, "b", "data", lambda _: None) == []


def test_a_dollar_sign_is_not_math_markup(tmp_path: Path) -> None:
    """As math, text between dollar signs would stop the report with a parse error."""

    def draw(width_in: float) -> Figure:
        figure = Figure(figsize=(width_in, 1), layout="constrained")
        figure.subplots().set_title(r"$\fra{1$")
        return figure

    (svg, *_) = write_figure(tmp_path, "x", "x", draw)
    assert r"<!-- $\fra{1$ -->" in svg.read_text(encoding="utf-8")
