from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.interpretation.segmentation import Counts, segment


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[char == "#" for char in row] for row in rows])


def test_metrics_worked_by_hand() -> None:
    true = mask("##..", "##..", "....", "....")
    found = mask("#.#.", "##..", "....", "...#")
    counts = Counts.of(found, true)
    assert counts == Counts(3, 1, 2, 10)
    metrics = counts.metrics()
    assert metrics["pixel_accuracy_pct"] == pytest.approx(100 * 13 / 16)
    assert metrics["mean_accuracy_pct"] == pytest.approx(100 * (3 / 4 + 10 / 12) / 2)
    assert metrics["mean_iou_pct"] == pytest.approx(100 * (3 / 6 + 10 / 13) / 2)


def test_images_are_added_up_before_anything_is_divided() -> None:
    # The mean of both images' IoU would be another number.
    first, second = Counts.of(mask("#."), mask("#.")), Counts.of(mask("##.."), mask(".#.."))
    assert (first + second).metrics()["mean_iou_pct"] == pytest.approx(100 * (2 / 3 + 3 / 4) / 2)


def test_what_was_found_exactly_is_a_hundred_percent_and_its_opposite_none() -> None:
    true = mask("#.", "..")
    assert set(Counts.of(true, true).metrics().values()) == {100.0}
    assert set(Counts.of(~true, true).metrics().values()) == {0.0}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2).filter(lambda x: len({t for _, t in x}) == 2))
def test_object_and_background_are_alike_to_mean_accuracy_and_iou(pixels: list[tuple[bool, bool]]) -> None:
    found, true = (torch.tensor(each) for each in zip(*pixels, strict=True))
    metrics, swapped = Counts.of(found, true).metrics(), Counts.of(~found, ~true).metrics()
    assert metrics == pytest.approx(swapped)
    assert all(0 <= value <= 100 for value in metrics.values())
    assert metrics["mean_iou_pct"] <= metrics["mean_accuracy_pct"] + 1e-9


@pytest.mark.parametrize("true", ["##", ".."])
def test_without_object_or_background_there_is_nothing_to_measure(true: str) -> None:
    with pytest.raises(ValueError, match="one of them has no pixel"):
        Counts.of(mask("#."), mask(true)).metrics()


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a mask of \(1, 2\) for a truth of \(2, 1\)"):
        Counts.of(mask("#."), mask("#", "."))


def test_the_object_is_what_is_above_the_mean() -> None:
    assert segment(torch.tensor([0.0, 1.0, 2.0, 9.0])).tolist() == [False, False, False, True]
    assert not segment(torch.ones(3)).any()
