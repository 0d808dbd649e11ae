"""The layouts of data sets on disk: the files of each clip, and readers for its maps.

docs/data.md describes them. A layout is a subclass of ECCV2018Layout. All have splits.json
(datasets/splits.py).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.components import LAYOUTS
from common.errors import InputError
from common.files import read_array, read_json
from datasets.gaze_files import Fixations, read_fixations_csv, read_vinfo
from video.packed import PACKED, open_packed, packed_part
from video.pictures import FRAMES, PICTURES, find_flow, read_exr, read_picture, resize

PACKED_FORMAT = "packed.json"  # in a packed data set


@dataclass(frozen=True)
class File:
    """The files of one frame of a clip."""

    number: int
    picture: Path
    truth: Path | None  # saliency map

    @property
    def flow(self) -> Path | None:
        """The picture of the optical flow since the previous frame."""
        return find_flow(self.picture)


class ECCV2018Layout:
    """A folder for each clip, as in 360_Saliency_dataset_2018ECCV (Zhang et al., ECCV 2018).

    217/0001.jpg and its saliency map 217/0001_gt.npy. Optional: 0001_flow.png, fixations.csv.
    """

    def matches(self, root: Path) -> bool:
        """Return whether a data set has this layout."""
        return True

    def clips(self, root: Path, names: list[str] | None) -> dict[str, list[File]]:
        """Return the frames of at least the named clips (None: of all), in any order.

        Hidden clips are included only if they are named.
        """
        folders = root.glob("[!.]*") if names is None else (root / name for name in names)
        clips = {}
        for folder in filter(Path.is_dir, folders):
            paths = {path.name: path for path in folder.iterdir()}
            clips[folder.name] = [
                File(int(path.stem), path, paths.get(f"{path.stem}_gt.npy"))
                for path in paths.values()
                if path.stem.isdecimal() and path.suffix.lower() in PICTURES
            ]
        return clips

    def truths(self, root: Path) -> Iterator[Path]:
        """Yield all files with a name of ground truth, with or without a frame."""
        return root.glob("[!.]*/[0-9]*_gt.npy")

    def fixations(self, root: Path, clip: str) -> Path:
        """Return the path of a clip's CSV file of fixations, which may not exist."""
        return root / clip / "fixations.csv"

    def packed_format(self, root: Path) -> dict:
        """Return the only height, width and fps for which a data set was made; empty for any.

        smaller_maps: whether its maps were reduced to this size.
        """
        return {}


class PackedLayout(ECCV2018Layout):
    """A file for each clip, 217/packed.npy, written by prepare/pack.py (video/packed.py)."""

    def matches(self, root: Path) -> bool:
        return (root / PACKED_FORMAT).is_file()

    def clips(self, root: Path, names: list[str] | None) -> dict[str, list[File]]:
        folders = root.glob("[!.]*") if names is None else (root / name for name in names)
        clips: dict[str, list[File]] = {}
        for path in filter(Path.is_file, (folder / PACKED for folder in folders)):
            files = clips[path.parent.name] = []
            for number in open_packed(path)[1]:
                truth = path / f"{number:04d}_map"
                truth = None if packed_part(truth) is None else truth
                files.append(File(number, path / f"{number:04d}_picture", truth))
        return clips

    def packed_format(self, root: Path) -> dict:
        kinds = {"height": int, "width": int, "fps": (int, float), "smaller_maps": bool}
        return read_json(root / PACKED_FORMAT, **kinds)


class SSTSalLayout(ECCV2018Layout):
    """A folder for each kind of file, as in DataLoader360Video.py of edurnebernal/SST-Sal.

    frames/0001/0001_1023.png, saliency_maps/0001/1023.png or 0001_1023.png; without folders of
    clips, too. Optional: optical_flow like frames, fixations/0001.csv.
    """

    def matches(self, root: Path) -> bool:
        return (root / FRAMES).is_dir()

    def clips(self, root: Path, names: list[str] | None) -> dict[str, list[File]]:
        truths = {(clip, n): path for clip, n, path in self._named(root / "saliency_maps")}
        clips: dict[str, list[File]] = {}
        for clip, number, path in self._named(root / FRAMES):
            if path.suffix.lower() in PICTURES:
                clips.setdefault(clip, []).append(File(number, path, truths.get((clip, number))))
        return clips

    def truths(self, root: Path) -> Iterator[Path]:
        return (path for *_, path in self._named(root / "saliency_maps"))

    def fixations(self, root: Path, clip: str) -> Path:
        return root / "fixations" / f"{clip}.csv"

    def _named(self, folder: Path) -> Iterator[tuple[str, int, Path]]:
        """Yield clip, number and path of files folder/clip_0001.png and folder/clip/….png."""
        for path in folder.glob("[!.]*"):
            nested = path.is_dir()
            for file in path.glob("[!.]*") if nested else [path]:
                name, _, number = file.stem.rpartition("_")
                clip = path.name if nested else name
                if clip and number.isdecimal():
                    yield clip, int(number), file


def find_layout(root: Path) -> ECCV2018Layout:
    """Return the layout of a data set, the last one in LAYOUTS that matches."""
    layouts = (LAYOUTS[name]() for name in reversed(list(LAYOUTS)))
    return next(layout for layout in layouts if layout.matches(root))


def list_clips(root: Path, names: list[str] | None = None) -> dict[str, list[File]]:
    """Return the frames of the named clips, as far as they exist, sorted by frame number.

    names: None for all clips on disk of any split, except for hidden ones.
    """
    clips = find_layout(root).clips(root, names)
    for files in clips.values():
        files.sort(key=lambda file: (file.number, file.picture.name))
    names = sorted(clips) if names is None else names
    return {name: clips[name] for name in names if name in clips}


def unbroken_runs(files: list[File]) -> list[list[File]]:
    """Split a clip's frames where the numbering jumps by more than its most frequent step.

    Raises InputError for two frames with the same number.
    """
    for before, after in pairwise(files):
        if before.number == after.number:
            raise InputError(f"{after.picture}: same number as {before.picture.name}; delete one")
    steps = [b.number - a.number for a, b in zip(files, files[1:])]
    step = Counter(steps).most_common(1)[0][0] if steps else 1
    runs = [files[:1]]
    for file, jump in zip(files[1:], steps, strict=True):
        if jump > step:
            runs.append([])
        runs[-1].append(file)
    return runs


def read_map(path: Path) -> np.ndarray:
    """Return the saliency map in a .npy array, an OpenEXR file or a grey picture: (H, W) float32.

    Raises InputError for a file that is unreadable or not a map.
    """
    readers = {".npy": read_array, ".exr": read_exr}
    saliency = readers.get(path.suffix, partial(read_picture, mode="F"))(path)
    if (squeezed := np.squeeze(saliency)).ndim != 2:
        raise InputError(f"{path}: expected a map (H, W), got {saliency.shape}; make it again")
    with np.errstate(over="ignore"):  # the caller checks for infinite values
        return squeezed.astype(np.float32)


def read_truth(path: Path, height: int, width: int) -> Tensor:
    """Return a saliency map, resized and scaled by its own maximum: (1, H, W) float32 in [0, 1].

    Raises InputError like `read_map`, and for a map that is all zero, negative or not finite.
    """
    saliency = read_map(path)
    if not (saliency.min() >= 0 and 0 < saliency.max() < np.inf):
        raise InputError(f"{path}: the map is all zero, negative or not finite; delete it")
    truth = torch.from_numpy(resize(saliency / saliency.max(), height, width))[None]
    return truth.div_(truth.max())


class ClipFixations:
    """The fixations of a data set by clip. any: whether the data set has any fixations."""

    def __init__(self, root: Path):
        self.root, self.layout = root, find_layout(root)
        places = root / "vinfo.pkl", self.layout.fixations(root, "*")
        self.any = any(path for place in places for path in root.glob(str(place.relative_to(root))))
        self._by_clip: dict[str, Fixations | None] = {}

    def of(self, clip: str) -> Fixations | None:
        """Return a clip's fixations, None if it has none. Raises InputError for an invalid file."""
        if clip not in self._by_clip:
            path = self.layout.fixations(self.root, clip)
            csv = read_fixations_csv(path) if path.is_file() else None
            self._by_clip[clip] = csv or self._vinfo.get(clip)
        return self._by_clip[clip]

    @cached_property
    def _vinfo(self) -> dict[str, Fixations]:
        path = self.root / "vinfo.pkl"
        return read_vinfo(path) if path.is_file() else {}
