"""ImageNet-Segmentation: ImageNet images with object masks, in one MATLAB 7.3 file (`gtsegs_ijcv.mat`).

MATLAB 7.3 files are HDF5, with arrays in column-major order. `/value/img` is a column of references to images, uint8
(3, width, height). `/value/gt` is a column of references to cells, each with one reference to a mask, uint8 (width,
height), 1 on the object.
Source: Guillaumin, Küttel, Ferrari, "ImageNet Auto-annotation with Segmentation Propagation" (IJCV 2014).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from repro.config import Config
from repro.errors import UserError

_IMAGES, _MASKS = "/value/img", "/value/gt"
# What h5py raises on a damaged file, and on one of another structure.
_UNREADABLE = (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError, MemoryError)
ENTRIES = 4276  # in the published file; metrics on other files are not comparable with published ones


class ImageNetSegmentation:
    """Images and masks in the file, read on demand, with the size and normalisation of a run's config.

    Both are resized to a square without cropping (images bicubic, masks nearest neighbour), so that no object is cut
    off. Raises `UserError` if the file is missing or has another format, or if h5py is not installed.
    """

    def __init__(self, path: Path, config: Config) -> None:
        try:
            import h5py
        except ImportError:
            raise UserError(f"{path}: reading it needs h5py; pip install 'repro-sparse-vit[interpretation]'") from None
        if not path.is_file():
            raise UserError(f"{path}: no such file; the file of ImageNet-Segmentation is gtsegs_ijcv.mat")
        try:
            self._file: Any = h5py.File(path, "r")
        except OSError as error:
            raise UserError(f"{path}: not an HDF5 file ({error}); expected MATLAB 7.3, like gtsegs_ijcv.mat") from None
        try:
            missing = [name for name in (_IMAGES, _MASKS) if name not in self._file]
            shapes = [self._file[name].shape for name in (_IMAGES, _MASKS) if not missing]
        except _UNREADABLE as error:
            raise UserError(f"{path}: cannot be read ({error}); download the file again") from None
        if missing:
            raise UserError(f"{path}: no {missing[0]} in it; expected ImageNet-Segmentation's gtsegs_ijcv.mat")
        images, masks = shapes
        if images != masks or images[1:] != (1,) or not images[0]:
            raise UserError(
                f"{path}: {_IMAGES} has shape {images} and {_MASKS} {masks}, not both (number of images, 1); expected "
                "ImageNet-Segmentation's gtsegs_ijcv.mat"
            )
        self.path, self.size, self._images = path, config.model.image_size, int(images[0])
        self.transform: Any = create_transform(
            input_size=(3, self.size, self.size),
            is_training=False,
            interpolation="bicubic",
            mean=config.data.mean,
            std=config.data.std,
            crop_pct=1.0,
            crop_mode="squash",
        )

    @property
    def is_whole(self) -> bool:
        """Whether the file has as many images as the published data set."""
        return len(self) == ENTRIES

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a normalised image, float32 (3, size, size), and its mask, bool (size, size).

        Raises `UserError` if the entry cannot be read, or is not an image with a mask of its size.
        """
        try:
            image = np.array(self._file[self._file[_IMAGES][index, 0]]).T
            mask = np.array(self._file[self._file[self._file[_MASKS][index, 0]][0, 0]]).T
        except _UNREADABLE as error:
            raise UserError(
                f"{self.path}: entry {index + 1} cannot be read ({error}); download the file again"
            ) from None
        if image.shape != (*mask.shape, 3):
            raise UserError(
                f"{self.path}: entry {index + 1} has an image of {image.shape} and a mask of {mask.shape} (height, "
                "width); download the file again"
            )
        if image.dtype != np.uint8 or mask.dtype.kind not in "biuf":
            raise UserError(
                f"{self.path}: entry {index + 1} has an image of {image.dtype} and a mask of {mask.dtype}, not uint8; "
                "download the file again"
            )
        square = Image.fromarray((mask > 0).astype(np.uint8)).resize((self.size, self.size), Image.Resampling.NEAREST)
        return self.transform(Image.fromarray(image)), torch.from_numpy(np.array(square)) > 0
