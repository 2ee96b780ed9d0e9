"""Figures are drawn once: the same data leave the files alone, other data do not."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from repro.report.style import write_figure


def test_the_same_data_are_not_drawn_twice(tmp_path: Path) -> None:
    drawn: list[str] = []

    def draw() -> Figure:
        drawn.append("once")
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        return figure

    first = write_figure(tmp_path, "a", "data", draw)
    assert write_figure(tmp_path, "a", "data", draw) == first
    assert len(drawn) == 1
    write_figure(tmp_path, "a", "other data", draw)
    assert len(drawn) == 2
    (tmp_path / "a.pdf").unlink()
    write_figure(tmp_path, "a", "other data", draw)
    assert len(drawn) == 3
    first[1].write_bytes(b"")  # a power cut: nothing waits for the disk here
    write_figure(tmp_path, "a", "other data", draw)
    assert all(path.stat().st_size for path in first)
    assert write_figure(tmp_path, "b", "data", lambda: None) == []
