"""Read checkpoints of IA-RED2's released code, whose groups hold the blocks again next to an interpreter."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from repro.errors import UserError

_IN_GROUP = re.compile(r"(?P<prefix>.*\b)groups\.(?P<group>\d+)\.(?P<rest>.+)")
_BLOCK = re.compile(r"block_list\.(?P<block>\d+)\.(?P<rest>.+)")
_QUERY_AND_KEY = re.compile(r"agent\.qk\.(?P<kind>weight|bias)")


def split_groups(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the weights of groups: interpreters become `droppers.<group>`, and blocks are counted over all groups.

    The released interpreter computes queries, keys and unused values with one layer, `agent.qk`, of weight
    (3 * width, width), after a layer norm without parameters. Other checkpoints are returned as they are.

    Raises `UserError` if a block differs between `groups` and `blocks`, which the released code never saves.
    """
    depths = _blocks_by_group(weights)
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = _IN_GROUP.fullmatch(name)
        group = int(match["group"]) if match else 0
        if match and (block := _BLOCK.fullmatch(match["rest"])):
            index = int(block["block"]) + sum(depth for other, depth in depths.items() if other < group)
            renamed = f"{match['prefix']}blocks.{index}.{block['rest']}"
            if renamed in weights and not torch.equal(weights[renamed], value):
                raise UserError(
                    f"{source}: {name} and {renamed} differ, but are one weight in IA-RED2; keep one of them"
                )
            found[renamed] = value
        elif match and (layer := _QUERY_AND_KEY.fullmatch(match["rest"])) and len(value) % 3 == 0:
            found |= _interpreter(f"{match['prefix']}droppers.{group}", layer["kind"], value)
        else:
            found[name] = value
    return found


def _blocks_by_group(weights: Mapping[str, Tensor]) -> dict[int, int]:
    blocks: dict[int, set[str]] = {}
    for name in weights:
        if (match := _IN_GROUP.fullmatch(name)) and (block := _BLOCK.fullmatch(match["rest"])):
            blocks.setdefault(int(match["group"]), set()).add(block["block"])
    return {group: len(own) for group, own in blocks.items()}


def _interpreter(name: str, kind: str, query_key_value: Tensor) -> dict[str, Tensor]:
    query, key, _ = query_key_value.chunk(3)
    width = len(query)
    norm = torch.ones(width) if kind == "weight" else torch.zeros(width)
    return {f"{name}.query.{kind}": query, f"{name}.key.{kind}": key, f"{name}.norm.{kind}": norm}
