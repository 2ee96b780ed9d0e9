"""`repro bench time`: what the rows of a table save in time, for the real backbones, on the device at hand.

Time depends on shapes, not on what was learnt: the models are built at their published size with fresh weights, the
row's without the heads, neurons and tokens that it has lost. Single weights removed by masks change no shape.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repro.composition import compose
from repro.config import Config
from repro.errors import UserError
from repro.measure.as_kept import as_kept
from repro.measure.cost import physical_macs_g, units_kept
from repro.measure.latency import time_in_turn
from repro.measure.physical import faster_by
from repro.models.backbone import build_model
from repro.models.export import attach_selector, selector_of
from repro.models.shrink import Sizes, align, cut_to, sizes
from repro.rows import Row, Table
from repro.runs import provenance
from repro.runs.timing import Setting, Timing, read_timing, write_timing

PAIRS = 7
VERDICT_PAIRS = 21  # of a row that has a published time: a verdict rests on how surely the median of the turns is known
DECIDING_PAIRS = 6  # with fewer the median of the turns has no interval at 95 %: 1 - 2 / 2**6 is the first above
# That of the table's column, then the other: one image, and as many as fill the device.
_BATCHES = {"cpu": (1, 8), "cuda": (256, 1)}
_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


@dataclass(frozen=True)
class Timed:
    """A row that can be faster than its reference, with what makes it so."""

    row: Row
    reference: Row
    config: Config
    faster_by: str


def timeable(table: Table, rows: Iterable[Row], root: Path | None = None) -> Iterator[Timed]:
    """The rows whose model is physically smaller than their reference's: those with a published time come first.

    Tokens are dropped as the finished runs below `root` have measured it, where they have.
    """
    found = []
    for row in rows:
        if row.run_of:  # its model is that row's, and timed there
            continue
        reference = table.reference(row.backbone)
        planned, runs = paper_config(row), range(table.default_seeds("paper"))
        config = planned if root is None else as_kept(planned, table.name, row.id, runs, root)
        if reference is not None and (reason := faster_by(config.method)):
            how = reason if config is planned else reason.replace("planned", "measured")
            found.append(Timed(row, reference, config, how))
    yield from sorted(found, key=lambda timed: not has_published_time(table, timed.row))


def has_published_time(table: Table, row: Row) -> bool:
    """Whether a verdict on the row rests on its timing."""
    return any(
        metric.needs == "device" and row.best_published(name) is not None for name, metric in table.metrics.items()
    )


def paper_config(row: Row) -> Config:
    """The row's config at the published size. No image is read, so it does not matter where they would be."""
    return compose([*row.overrides_at("paper"), "data.root=not_read_by_a_timing"])


def physical_model(config: Config) -> nn.Module:
    """The model of a row as small as it gets, with fresh weights, in evaluation mode."""
    model = build_model(config.model, 0.0, 0)
    part = attach_selector(model, selector_of(config))
    if part is not None:
        part.cost_as_counted()
    weights = config.method.weights
    if weights is not None and weights.heads_density is not None and weights.neurons_density is not None:
        heads = units_kept(config.model.units["heads"], weights.heads_density)
        neurons = units_kept(config.model.units["neurons"], weights.neurons_density)
        depth = len(sizes(model).heads)
        cut_to(model, Sizes((heads,) * depth, (neurons,) * depth))
    return model.eval()


def time_rows(
    table: Table,
    rows: Sequence[Row],
    root: Path,
    *,
    device: str = "auto",
    batches: Sequence[int] = (),
    is_column_only: bool = False,
    dtype: str | None = None,
    threads: int = 1,
    budget_s: float = 90.0,
    pairs: int | None = None,
    again: bool = False,
    tell: Callable[[str], None] = print,
) -> list[tuple[Row, int]]:
    """Time rows against their references and write what was found below `root`.

    Returns what the budget left out: row and batch.

    On one CPU thread (the default) times are CPU times, which other work on the machine hardly moves; on more they are
    the wall's. A row that has a timing of this setting and PyTorch, with turns enough for an interval, is
    left alone unless `again`; rows of one shape share one.

    Args:
        batches: in images. The first is the one that the table's column shows, the others are written beside it. By
            default one image and as many as fill the device, on a GPU the other way round.
        is_column_only: the first alone.
        budget_s: for all; the first batch has all of it, the others what that has left.
        pairs: turns of each row; by default as many as what it is for needs.

    Raises `UserError` for a device that this machine does not have.
    """
    place = device_named(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        every = list(timeable(table, rows, root))
        if not every:
            tell(
                f"  {table.name}: none of these {len(rows)} rows has a smaller model before it is trained: nothing "
                "to time; repro export times a finished one"
            )
        end = time.monotonic() + budget_s
        left_out = []
        for number, batch in enumerate((batches or _BATCHES[place.type])[: 1 if is_column_only else None]):
            setting = Setting(
                device=torch.cuda.get_device_name(place) if place.type == "cuda" else provenance.cpu_name(),
                batch=batch,
                dtype=dtype or _DTYPES[place.type],
                threads=0 if place.type == "cuda" else torch.get_num_threads(),
                is_compiled=False,
            )
            work = _Work(table, root, place, setting, is_beside=number > 0, pairs=pairs)
            waiting = [timed for timed in every if again or not work.is_done(timed)]
            left_out += [(row, batch) for row in work.time_all(waiting, end, tell)]
        return left_out
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Work:
    """Rows of one table, timed in one setting."""

    table: Table
    root: Path
    place: torch.device
    setting: Setting
    is_beside: bool
    pairs: int | None

    def is_done(self, timed: Timed) -> bool:
        """Whether there is a timing that need not be taken again."""
        batch = self.setting.batch if self.is_beside else None
        found = read_timing(self.root, self.table.name, timed.row.id, batch)
        return _is_enough(found, self.setting, self.pairs, _macs_saving_pct(timed))

    def time_all(self, waiting: Sequence[Timed], end: float, tell: Callable[[str], None]) -> list[Row]:
        """Time these rows until `time.monotonic()` is at `end`; returns those that were left out."""
        known: dict[str, Timing] = {}
        references: dict[str, nn.Module] = {}
        left_out = []
        for index, timed in enumerate(waiting):
            key = _shape(timed.config)
            if key not in known:
                now = time.monotonic()
                if timed.reference.id not in references and now < end:
                    references = {timed.reference.id: _ready(paper_config(timed.reference), self.place, self.setting)}
                # Rows with a published time are the ones that have a verdict: more turns for them, in the column.
                has_verdict = has_published_time(self.table, timed.row) and not self.is_beside
                share_ends = min(end, now + (3 if has_verdict else 1) * (end - now) / (len(waiting) - index))
                turns = self.pairs or (VERDICT_PAIRS if has_verdict else PAIRS)
                found = (
                    _time(timed, references, self.setting, self.place, turns, share_ends, end) if now < end else None
                )
                if found is None:
                    left_out.append(timed.row)
                    continue
                known[key] = found
            timing = _of(timed, known[key])
            path = write_timing(self.root, timing, self.is_beside)
            low, high = timing.range_pct
            tell(
                f"  {timed.row.id}: time saving {timing.time_saving_pct:.1f} % (quartiles {low:.1f} to {high:.1f}, "
                f"{len(timing.pairs)} turns), {timing.macs_saving_pct:.1f} % fewer MACs; {self.setting.text}; {path}"
            )
        return left_out


def _is_enough(found: Timing | None, setting: Setting, pairs: int | None, macs_saving_pct: float) -> bool:
    """Whether a timing need not be taken again: of this model, setting and PyTorch, and of turns that can decide."""
    if found is not None and abs(found.macs_saving_pct - macs_saving_pct) > 1e-6:
        return False
    if found is None or found.setting != setting or found.provenance.get("torch") != torch.__version__:
        return False
    return len(found.pairs) >= min(pairs or DECIDING_PAIRS, DECIDING_PAIRS)


def _time(
    timed: Timed,
    references: Mapping[str, nn.Module],
    setting: Setting,
    place: torch.device,
    pairs: int,
    until: float,
    at_most_until: float,
) -> Timing | None:
    model = timed.config.model
    size = (setting.batch, *model.input_shape)
    images = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(place, getattr(torch, setting.dtype))
    found = time_in_turn(
        references[timed.reference.id],
        _ready(timed.config, place, setting),
        images,
        pairs=pairs,
        until=until,
        at_most_until=at_most_until,
    )
    if not found:
        return None
    return Timing(
        table=timed.row.table,
        row=timed.row.id,
        reference=timed.reference.id,
        setting=setting,
        pairs=found,
        faster_by=timed.faster_by,
        macs_saving_pct=_macs_saving_pct(timed),
        provenance={
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": provenance.commit(),
            "what": "forward pass in evaluation mode, fresh weights",
            "clock": "events" if place.type == "cuda" else "thread" if setting.threads == 1 else "wall",
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _of(timed: Timed, found: Timing) -> Timing:
    """What was found of a model, as the timing of this row; it says so where another row's turns are shared."""
    provenance_ = dict(found.provenance) | ({} if found.row == timed.row.id else {"timed_as": found.row})
    return replace(
        found,
        row=timed.row.id,
        reference=timed.reference.id,
        faster_by=timed.faster_by,
        provenance=provenance_,
    )


def _macs_saving_pct(timed: Timed) -> float:
    model = timed.config.model
    dense = physical_macs_g(model, paper_config(timed.reference).method)
    return 100 * (1 - physical_macs_g(model, timed.config.method) / dense)


def _ready(config: Config, place: torch.device, setting: Setting) -> nn.Module:
    return align(physical_model(config)).to(place, getattr(torch, setting.dtype))


def _shape(config: Config) -> str:
    """What a time depends on: rows of different methods may have models of the same shape."""
    method: Any = config.method
    weights, tokens = method.weights, method.tokens
    units = (weights.heads_density, weights.neurons_density) if weights is not None else None
    return repr((config.backbone.name, units, (tokens.target, tokens.kept, tokens.options) if tokens else None))


def device_named(name: str) -> torch.device:
    """`auto` (a GPU where there is one), cpu or cuda. Raises `UserError` for one that this machine does not have."""
    place = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if place.type not in _BATCHES or (place.type == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"--device {name}: not here; valid: auto, cpu{', cuda' if torch.cuda.is_available() else ''}")
    return place
