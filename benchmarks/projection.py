"""Compare conversions to cube faces and back with other packages: time and error.

    python -m pip install -r requirements-bench.txt
    python -m benchmarks.projection

Everything runs in turn in one process, on two threads by default, also of OpenCV. A ratio is the
other's time by ours: of medians, and of minima in parentheses. Images have 3 channels of float32 in
[0, 1], laid out as each package takes them: (B, 3, H, W) here and for the torch packages, a list of
(H, W, 3) for py360convert. pytorch360convert takes one image at a time as well, but for panoramas
in one of its formats, which it does not document: "batched" in the table.

Errors are those for a smooth function of the direction, given exactly at the pixels of the source
and compared at those of the result. Where these lie is each package's own convention: at centres,
(k + ½)/n of an edge, here and in equilib. The other two write faces and panoramas with their
outermost pixels on the edges, k/(n − 1), and read panoramas at centres and faces at k/n.

In the rows of gradients, the ratio is the time of our forward and backward pass divided by that of
a forward pass with bags of four taps summed by torch; a small ratio is better.
"""

from common import startup  # isort: skip

import argparse
import importlib
import math
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import cv2
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from benchmarks.timing import interleaved
from projection import Cube2Equi, Equi2Cube, Face
from projection.cubemap import FACE_AXES
from projection.sphere import direction_of

SIZES = [(240, 480, 120), (512, 1024, 256)]  # height, width, face
FACES = [Face.FRONT, Face.RIGHT, Face.BACK, Face.LEFT, Face.TOP, Face.BOTTOM]  # of all others
PLACES = {  # of n pixels along an edge of length 1
    "centres": lambda n: (torch.arange(n, dtype=torch.float64) + 0.5) / n,
    "edges": lambda n: torch.arange(n, dtype=torch.float64) / (n - 1),
    "k/n": lambda n: torch.arange(n, dtype=torch.float64) / n,
}
WRITTEN_AT_EDGES = {"panorama": ("centres", "edges"), "faces": ("k/n", "edges")}
CENTRES = {"panorama": ("centres", "centres"), "faces": ("centres", "centres")}
OTHERS = {  # by module: the distribution, where panoramas and faces are read and results written
    "py360convert": ("py360convert", WRITTEN_AT_EDGES),
    "equilib": ("pyequilib", CENTRES),
    "pytorch360convert": ("pytorch360convert", WRITTEN_AT_EDGES),
}
assert startup


def installed() -> dict:
    """Return the other packages by name, and print their versions."""
    packages = {}
    for name, (distribution, _) in OTHERS.items():
        try:
            packages[name] = importlib.import_module(name)
            print(f"{distribution} {version(distribution)}")
        except ImportError as error:
            print(f"without {name} ({error}): python -m pip install -r requirements-bench.txt")
    return packages


def smooth(points: Tensor) -> Tensor:
    """Return three functions of the direction, in [0, 1]: (..., 3) → (3, ...) float32."""
    x, y, z = (points / points.norm(dim=-1, keepdim=True)).unbind(-1)
    wave = 0.5 + 0.3 * torch.sin(2 * x + 1) * torch.cos(1.5 * y) + 0.2 * torch.sin(2 * z - 0.5)
    return torch.stack([(1 + x * y) / 2, (1 + z) / 2, wave]).float()


def panorama(size: tuple[int, int, int], places: str) -> Tensor:
    """Return the functions as a panorama: (1, 3, H, W)."""
    longitude = (2 * PLACES[places](size[1]) - 1) * math.pi
    latitude = (0.5 - PLACES[places](size[0])) * math.pi
    return smooth(direction_of(longitude, latitude[:, None]))[None]


def faces(size: tuple[int, int, int], places: str) -> Tensor:
    """Return the functions as faces: (6, 3, S, S)."""
    centres = 2 * PLACES[places](size[2]) - 1
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack([u, v, torch.ones_like(u)], dim=-1) @ FACE_AXES[:, None]
    return smooth(points).transpose(0, 1)


def to_rows(cubes: Tensor) -> Tensor:
    """Lay faces out as the others take them: (B·6, 3, S, S) → (B, 3, S, 6·S)."""
    return cubes.unflatten(0, (-1, 6))[:, FACES].permute(0, 2, 3, 1, 4).flatten(-2)


def from_rows(rows: Tensor) -> Tensor:
    """Undo to_rows."""
    cubes = rows.unflatten(-1, (6, -1)).permute(0, 3, 1, 2, 4)
    return cubes[:, [FACES.index(face) for face in Face]].flatten(0, 1)


def call_of(name: str, package, source: Tensor, size: tuple[int, int, int]) -> Callable:
    """Return a function without arguments that converts by another package what we take.

    source: panoramas (B, 3, H, W), or faces (B·6, 3, S, S), which it gets in its own layout.
    """
    (height, width, face), to_cube = size, source.shape[-1] == size[1]
    source = source if to_cube else to_rows(source).contiguous()
    if name == "equilib" and to_cube:
        ahead = [{"yaw": 0.0, "pitch": 0.0, "roll": 0.0}] * len(source)
        return partial(package.Equi2Cube(face, "horizon"), source, ahead)
    if name == "equilib":
        return partial(package.Cube2Equi(height, width, "horizon"), source)
    if name == "pytorch360convert, batched":
        return partial(package.e2c, source, face, cube_format="horizon")
    arguments = {"face_w": face} if to_cube else {"h": height, "w": width}
    convert = partial(package.e2c if to_cube else package.c2e, cube_format="horizon", **arguments)
    if name == "py360convert":
        source = [image.permute(1, 2, 0).contiguous().numpy() for image in source]
    return lambda: [convert(image) for image in source]


def as_ours(results, to_cube: bool) -> Tensor:
    """Lay out what another package made of a single image as we do."""
    result = torch.as_tensor(results[0] if isinstance(results, list) else results).squeeze()
    result = result.permute(2, 0, 1)[None] if result.shape[-1] == 3 else result[None]
    return from_rows(result) if to_cube else result


def before(convert: nn.Module, source: Tensor) -> Callable:
    """Return our forward as it was: all images' pixels in a table, and bags of four taps."""
    index, weight = (a.T.contiguous() for a in (convert.sample.index, convert.sample.weight))

    def forward():
        if isinstance(convert, Equi2Cube):
            pixels = source.flatten(2)
        else:
            pixels = source.unflatten(0, (-1, 6)).transpose(1, 2).flatten(2)
        table = pixels.reshape(-1, pixels.shape[-1]).T.contiguous()
        sums = embedding_bag(index, table, per_sample_weights=weight, mode="sum")
        sums = sums.T.reshape(*pixels.shape[:-1], *convert.sample.places)
        return sums.transpose(1, 2).flatten(0, 1) if isinstance(convert, Equi2Cube) else sums

    return torch.no_grad()(forward)


def with_gradient(convert: nn.Module, source: Tensor) -> Callable:
    source = source.clone().requires_grad_()
    upstream = torch.rand_like(convert(source))
    return lambda: torch.autograd.grad(convert(source), source, upstream)


def row(what: str, other: str, ours: tuple, theirs: tuple, errors: list[Tensor]) -> None:
    """Print a row of the table: ratio of medians and of minima, milliseconds, errors."""
    medians, minima = (b / a for a, b in zip(ours, theirs))
    times = " ".join(f"{1e3 * t:7.2f}" for t in (ours[0], theirs[0]))
    parts = "  ".join(f"{e.max():.1e} {e.mean():.1e}" for e in errors)
    print(f"{what:43} {other:27}{medians:6.2f} ({minima:6.2f}) {times}  {parts}")


def compare(convert: nn.Module, size: tuple, batch: int, packages: dict, repeats: int) -> None:
    to_cube = isinstance(convert, Equi2Cube)
    kind, write, read = ("panorama", faces, panorama) if to_cube else ("faces", panorama, faces)
    source = read(size, "centres").repeat(batch, 1, 1, 1)
    packages = dict(packages)
    if to_cube and batch > 1 and "pytorch360convert" in packages:
        packages["pytorch360convert, batched"] = packages["pytorch360convert"]
    calls = {name: call_of(name, package, source, size) for name, package in packages.items()}
    ours = torch.no_grad()(partial(convert, source))
    times = interleaved({"ours": ours, **calls}, repeats)
    what = f"{type(convert).__name__} {size[0]}×{size[1]}, {size[2]}, batch {batch}"
    for name, package in packages.items():
        errors = []
        if batch == 1:
            places = OTHERS[name][1][kind]
            errors.append((convert(source) - write(size, "centres")).abs())
            result = as_ours(call_of(name, package, read(size, places[0]), size)(), to_cube)
            errors.append((result - write(size, places[1])).abs())
        row(what, name, times["ours"], times[name], errors)
    functions = {"both": with_gradient(convert, source), "before": before(convert, source)}
    times = interleaved(functions, repeats)
    row(f"{what}, gradients", "forward before", times["before"], times["both"], [])


def compare_frames(package, face: int, repeats: int) -> None:
    """Compare on one frame of a video as OpenCV and PyAV decode it, uint8 (1920, 3840, 3)."""
    size = 1920, 3840, face
    frame = (
        (255 * panorama(size, "centres")[0].permute(1, 2, 0)).round().to(torch.uint8).contiguous()
    )
    convert, image = Equi2Cube(*size), frame.permute(2, 0, 1)[None]
    functions = {
        "ours": partial(convert, image),
        "theirs": partial(package.e2c, frame.numpy(), face, cube_format="horizon"),
    }
    times = interleaved(functions, repeats)
    errors = [
        (convert(image) / 255 - faces(size, "centres")).abs(),
        (as_ours([functions["theirs"]()], True) / 255 - faces(size, "edges")).abs(),
    ]
    row(
        f"Equi2Cube 1920×3840 uint8, {face}", "py360convert", times["ours"], times["theirs"], errors
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="runs of each measurement")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and of OpenCV")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    print(f"{args.threads} threads, torch {torch.__version__}, OpenCV {cv2.__version__}")
    packages = installed()
    print(
        f"{'conversion':43} {'against':27}{'ratio':>15} {'ours ms':>7} {'its ms':>7}  "
        "largest and mean error: ours, its"
    )
    for size in SIZES:
        for convert in (Equi2Cube(*size), Cube2Equi(size[2], *size[:2])):
            for batch in (1, 8):
                compare(convert, size, batch, packages, args.repeats)
    for face in (256, 960) if "py360convert" in packages else ():
        compare_frames(packages["py360convert"], face, args.repeats)


if __name__ == "__main__":
    main()
