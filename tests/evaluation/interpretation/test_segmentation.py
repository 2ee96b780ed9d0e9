from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import UserError
from repro.evaluation.interpretation.segmentation import confusion, metrics, segment


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[char == "#" for char in row] for row in rows])


def test_metrics_worked_by_hand() -> None:
    true = mask("##..", "##..", "....", "....")
    found = mask("#.#.", "##..", "....", "...#")
    counts = confusion(found, true)
    assert counts.tolist() == [[3, 1], [2, 10]]
    scores = metrics(counts)
    assert scores["pixel_accuracy_pct"] == pytest.approx(100 * 13 / 16)
    assert scores["mean_accuracy_pct"] == pytest.approx(100 * (3 / 4 + 10 / 12) / 2)
    assert scores["mean_iou_pct"] == pytest.approx(100 * (3 / 6 + 10 / 13) / 2)


def test_pixels_of_all_images_are_counted_before_dividing() -> None:
    # The mean of the two images' IoU would be different.
    first, second = confusion(mask("#."), mask("#.")), confusion(mask("##.."), mask(".#.."))
    assert metrics(first + second)["mean_iou_pct"] == pytest.approx(100 * (2 / 3 + 3 / 4) / 2)


def test_the_true_mask_scores_100_percent_and_its_complement_0() -> None:
    true = mask("#.", "..")
    assert set(metrics(confusion(true, true)).values()) == {100.0}
    assert set(metrics(confusion(~true, true)).values()) == {0.0}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2).filter(lambda x: len({t for _, t in x}) == 2))
def test_metrics_are_symmetric_in_object_and_background(pixels: list[tuple[bool, bool]]) -> None:
    found, true = (torch.tensor(each) for each in zip(*pixels, strict=True))
    scores, swapped = metrics(confusion(found, true)), metrics(confusion(~found, ~true))
    assert scores == pytest.approx(swapped)
    assert all(0 <= value <= 100 for value in scores.values())
    assert scores["mean_iou_pct"] <= scores["mean_accuracy_pct"] + 1e-9


@pytest.mark.parametrize("true", ["##", ".."])
def test_a_mask_of_one_class_has_no_metrics(true: str) -> None:
    with pytest.raises(UserError, match="one of them has no pixel"):
        metrics(confusion(mask("#."), mask(true)))


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"predicted mask of \(1, 2\), true mask of \(2, 1\)"):
        confusion(mask("#."), mask("#", "."))


def test_the_object_is_predicted_above_the_mean() -> None:
    assert segment(torch.tensor([0.0, 1.0, 2.0, 9.0])).tolist() == [False, False, False, True]
    assert not segment(torch.ones(3)).any()
