"""ImageNet-Segmentation: ImageNet images with the mask of their object, in one MATLAB 7.3 file (`gtsegs_ijcv.mat`).

Such a file is HDF5. `/value/img` is a column of references to images, uint8 (3, width, height); `/value/gt` one of
references to cells, each of one reference to a mask, uint8 (width, height), 1 on the object. MATLAB stores columns
first.
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
# In the file that published metrics are of; another one is not what they are held against.
ENTRIES = 4276


class ImageNetSegmentation:
    """Images and masks of the file, at the size and with the normalisation of a run's config; read when asked for.

    Both are squeezed to a square (the image bicubically, the mask to the nearest pixel), so that no object is cut.
    Raises `UserError` for a missing or another kind of file, or where h5py is not installed.
    """

    def __init__(self, path: Path, config: Config) -> None:
        try:
            import h5py
        except ImportError:
            raise UserError(f"{path}: reading it needs h5py; pip install 'repro-sparse-vit[interpretation]'") from None
        if not path.is_file():
            raise UserError(f"{path}: no such file; ImageNet-Segmentation's is called gtsegs_ijcv.mat")
        try:
            self._file: Any = h5py.File(path, "r")
        except OSError as error:
            raise UserError(f"{path}: not an HDF5 file ({error}); expected MATLAB 7.3, like gtsegs_ijcv.mat") from None
        missing = [name for name in (_IMAGES, _MASKS) if name not in self._file]
        if missing:
            raise UserError(f"{path}: no {missing[0]} in it; expected ImageNet-Segmentation's gtsegs_ijcv.mat")
        self.path, self.size = path, config.model.image_size
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
        """Whether it holds as many images as the data set has."""
        return len(self) == ENTRIES

    def __len__(self) -> int:
        return len(self._file[_IMAGES])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image `index`, normalised, float32 (3, size, size), and its mask, bool (size, size).

        Raises `UserError` that names an entry which is not an image with a mask of its size.
        """
        image = np.array(self._file[self._file[_IMAGES][index, 0]]).T
        mask = np.array(self._file[self._file[self._file[_MASKS][index, 0]][0, 0]]).T
        if image.shape != (*mask.shape, 3):
            raise UserError(
                f"{self.path}: entry {index + 1} has an image of {image.shape} and a mask of {mask.shape} (height, "
                "width); take the file anew"
            )
        square = Image.fromarray(mask.astype(np.uint8)).resize((self.size, self.size), Image.Resampling.NEAREST)
        return self.transform(Image.fromarray(image)), torch.from_numpy(np.array(square)) > 0
