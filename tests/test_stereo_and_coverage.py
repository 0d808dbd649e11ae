"""Stereo, parts of the sphere and turned frames: from what files declare to the overlay."""

import json
import runpy
import shlex
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

import make_video
from common.errors import InputError
from tests.clips import moving_disc, write_video
from tests.commands import ended, infer, paint, refusal, run, success
from tests.spherical import read_spherical
from video import read_frames
from video.decoding import decode, probe
from video.layout import MONO, SPHERE, Layout, resample
from video.pictures import read_picture
from video.spherical_metadata import V1_UUID, panorama_xmp, write_spherical
from video.yuv import mono, planes
from views.overlay import lay_map, resize_map

VR180 = (-90, 90, -90, 90)
PART = (-180, 180, -60, 45)
GPANO = (
    '<x xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"><GPano:ProjectionType>{}'
    "</GPano:ProjectionType>\n<GPano:CroppedAreaImageWidthPixels>{}"
    "</GPano:CroppedAreaImageWidthPixels>\n <GPano:CroppedAreaImageHeightPixels>{}"
    "</GPano:CroppedAreaImageHeightPixels><GPano:FullPanoWidthPixels>{}</GPano:FullPanoWidthPixels>"
    "<GPano:FullPanoHeightPixels>{}</GPano:FullPanoHeightPixels><GPano:CroppedAreaLeftPixels>{}"
    "</GPano:CroppedAreaLeftPixels><GPano:CroppedAreaTopPixels>{}</GPano:CroppedAreaTopPixels></x>"
)


def video(path, pictures, layout=None, codec="libx264", matrix=None):
    """Write pictures without loss."""
    options = {"qp": "0"} if codec != "ffv1" else {}
    write_video(path, pictures, fps=8, codec=codec, matrix=matrix, options=options)
    if layout:
        write_spherical(path, layout)
    return path


def discs(count=3, height=48, width=96):
    return [moving_disc(n, height, width) for n in range(count)]


def stereo_discs(axis, count=3):
    return [np.concatenate([p, np.roll(p, 2, 1)], axis) for p in discs(count)]


def paint_layout(clip, folder, output, *more):
    return paint(clip, folder, output, "--crf", 0, *more)


def maps(folder):
    return [read_picture(path, "L") for path in sorted(folder.glob("sal_*.png"))]


# What files declare.


@pytest.mark.parametrize("stereo", ["none", "top-bottom", "left-right"])
@pytest.mark.parametrize("coverage", [SPHERE, VR180, PART, (10, 100, -5, 90)])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_what_is_written_is_read(tmp_path, stereo, coverage, ending):
    layout = Layout(stereo, coverage, (0, -12.5, 0.25))
    path = video(tmp_path / "a.mp4", discs(2), layout)
    if ending == "mkv":
        with av.open(str(path)) as old, av.open(str(tmp_path / "a.mkv"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
    info = probe(tmp_path / f"a.{ending}")
    assert info.layout.stereo == stereo and info.layout.pose == (0, -12.5, 0.25)
    assert np.allclose(info.layout.coverage, coverage, atol=1e-5)
    assert any("declares a tilt for players to undo (pitch -12.5°" in note for note in info.notes)
    given = probe(tmp_path / f"a.{ending}", stereo="none", coverage=SPHERE)
    assert given.layout.stereo == "none" and given.layout.whole
    assert (read_spherical(path)["v1"] is None) == (coverage != SPHERE)


@pytest.mark.parametrize(
    "box, byte, says",
    [(b"st3d", 4, "the right eye first"), (b"st3d", 3, "another arrangement"),
     (b"equi", b"cbmp", "v360=c3x2:e"), (b"equi", b"mshp", "a mesh, as VR180")],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_name(checkpoint, tmp_path, box, byte, says):
    """FFmpeg knows neither right-left stereo nor meshes, which made a mono sphere of them."""
    clip = video(tmp_path / "clip.mp4", discs(), Layout("left-right"))
    declare(clip, box, byte)
    code, _, line = infer(clip, checkpoint, tmp_path / "out")
    assert code == 2 and "clip.mp4: declares " in line and says in line and "give --" in line
    known = {"stereo": "top-bottom"} if box == b"st3d" else {"coverage": VR180}
    assert probe(clip, **known).layout.stereo == known.get("stereo", "left-right")


def with_v1(path, xml):
    """Replace the XML of V1, and take the boxes of V2 away."""
    content = path.read_bytes().replace(b"st3d", b"free").replace(b"sv3d", b"free")
    start = content.find(V1_UUID) + 16
    end = content.find(b"</rdf:SphericalVideo>\n") + 22
    assert len(xml) <= end - start
    path.write_bytes(content[:start] + xml.encode().ljust(end - start) + content[end:])


def v1(**fields):
    fields = {"Spherical": "true", "Stitched": "true", "StitchingSoftware": "a",
              "ProjectionType": "equirectangular", **fields}  # fmt: skip
    return "".join(f"<GSpherical:{k}>{v}</GSpherical:{k}>" for k, v in fields.items())


def test_version_1_alone(tmp_path):
    path = video(tmp_path / "a.mp4", discs(2, 64, 96), Layout("left-right"))
    whole = path.read_bytes()
    for xml, wanted in (
        (v1(StereoMode="top-bottom"), Layout("top-bottom")),
        (v1(StereoMode="mono"), MONO),
        (v1(), MONO),
    ):
        path.write_bytes(whole)
        with_v1(path, xml)
        assert probe(path).layout == wanted
    path.write_bytes(whole)
    with_v1(path, v1(StereoMode="diagonal"))
    with pytest.raises(InputError, match="stereo in another arrangement"):
        probe(path)
    for left, wanted in ((0, (-180, 0, -90, 90)), (48, (-90, 90, -90, 90)), (150, None)):
        path.write_bytes(whole)
        crop = {"CroppedAreaImageWidthPixels": 96, "CroppedAreaImageHeightPixels": 64}
        full = {"FullPanoWidthPixels": 192, "FullPanoHeightPixels": 64}
        xml = v1(**crop, **full, CroppedAreaLeftPixels=left)
        more = xml.encode().ljust(2000)  # more than fits: a box of its own
        content = path.read_bytes().replace(b"st3d", b"free").replace(b"sv3d", b"free")
        path.write_bytes(enlarged(content, V1_UUID + more))
        if wanted:
            assert probe(path).layout.coverage == wanted
        else:
            with pytest.raises(InputError, match="can't be; .*give --coverage"):
                probe(path)


def enlarged(content, fields):
    """Replace the `uuid` box at the end of the only track, and of the file."""
    start = content.rfind(V1_UUID) - 8
    size = struct.unpack_from(">I", content, start)[0]
    new = struct.pack(">I4s", len(fields) + 8, b"uuid") + fields
    content = bytearray(content[:start] + new + content[start + size :])
    for kind in (b"moov", b"trak"):
        place = content.find(kind) - 4
        old = struct.unpack_from(">I", content, place)[0]
        struct.pack_into(">I", content, place, old + len(new) - size)
    return bytes(content)


@pytest.mark.parametrize("fields, coverage", [
    (("equirectangular", 96, 48, 96, 48, 0, 0), SPHERE),
    (("equirectangular", 960, 480, 1920, 960, 480, 240), (-90, 90, -45, 45)),
    (("equirectangular", 96, 48, 96, 96, 0, 0), (-180, 180, 0, 90)),
    (("equirectangular", 96, 48, 96, 48, 10, 0), None),  # over the edge
    (("equirectangular", 96, 96, 192, 96, 0, 0), None),  # not the shape of its pixels
    (("equirectangular", 96, 48, 0, 0, 0, 0), None),
    (("equirectangular", 96, 48, 38400, 19200, 0, 0), None),  # less than a degree
    (("equirectangular", "many", 48, 96, 48, 0, 0), None),
    (("cylindrical", 96, 48, 96, 48, 0, 0), None),
])  # fmt: skip
@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_what_pictures_declare(tmp_path, fields, coverage, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(discs(1)[0]).save(path, xmp=GPANO.format(*fields).encode())
    if coverage:
        assert probe(path).layout.coverage == coverage
    else:
        with pytest.raises(InputError, match=r"a\.\w+: declares to be .*; .*give --coverage"):
            probe(path)
        assert probe(path, coverage=SPHERE).layout == MONO


@pytest.mark.parametrize(
    "layout", [MONO, Layout("none", PART, (285, 2, -3)), Layout("none", VR180)]
)
def test_what_is_written_into_pictures_is_read(tmp_path, layout):
    west, east, south, north = layout.coverage
    size = 720, round(360 * (north - south) / (east - west) * 2)
    xmp = panorama_xmp(*size[::-1], layout).encode()
    Image.new("RGB", size).save(tmp_path / "a.jpg", xmp=xmp)
    assert probe(tmp_path / "a.jpg").layout == layout


@pytest.mark.parametrize(
    "size, stereo", [((64, 64), "top-bottom"), ((192, 48), "left-right"), ((96, 48), None)]
)
def test_shapes_that_stereo_often_has_are_told(checkpoint, tmp_path, size, stereo):
    clip = video(tmp_path / "a.mp4", discs(2, *size[::-1]))
    Image.new("RGB", size).save(tmp_path / "a.png")
    for path in (clip, tmp_path / "a.png"):
        notes = probe(path).notes
        assert not stereo or (f"may be {stereo} stereo" in notes[0] and "give --stereo" in notes[0])
        assert bool(notes) == bool(stereo)
        assert not probe(path, stereo=stereo or "none").notes


# Turned frames.


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0)])
def test_videos_are_turned_as_players_turn_them(tmp_path, matrix):
    """By the definition of the matrix: pixel (x, y) is shown at (a·x + c·y, b·x + d·y)."""
    upended = matrix[0] == 0
    stored = discs(2, 96, 48) if upended else discs(2)
    path = video(tmp_path / "a.mp4", stored, matrix=matrix)
    info = probe(path)
    assert (info.width, info.height) == (96, 48)
    plain = probe(video(tmp_path / "b.mp4", stored))
    a, b, c, d = matrix
    for frame, old in zip(decode(info), decode(plain), strict=True):
        assert (frame.image.width, frame.image.height) == (96, 48)
        assert frame.seconds == old.seconds == frame.image.time
        seen, was = (f.image.to_ndarray(format="yuv420p") for f in (frame, old))
        was = was[: old.image.height]
        y, x = np.mgrid[: old.image.height, : old.image.width]
        new_x, new_y = a * x + c * y, b * x + d * y
        wanted = np.zeros((48, 96), np.uint8)
        wanted[new_y - new_y.min(), new_x - new_x.min()] = was
        assert np.array_equal(seen[:48], wanted)


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (8, 6, -6, 8), (-1, 0, 0, 1), (1, 0, 0, -1)])
def test_other_turns_are_refused_with_a_command(tmp_path, matrix):
    path = video(tmp_path / "a.mp4", discs(2), matrix=matrix)
    with pytest.raises(InputError, match="mirrored, on its .* ffmpeg -display_rotation 0 -i a.mp4"):
        probe(path)


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_by_their_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = discs(1, 96, 48)[0] if orientation in (5, 6, 7, 8) else discs(1)[0]
    path = tmp_path / "a.png"
    Image.fromarray(stored).save(path, exif=exif)
    info = probe(path)
    assert (info.width, info.height) == (96, 48) and not info.notes
    with Image.open(path) as image:
        assert np.array_equal(read_picture(path), np.asarray(ImageOps.exif_transpose(image)))
    if orientation == 6:  # the first row is shown on the right
        assert np.array_equal(read_picture(path), np.rot90(stored, -1))


# From the file to the overlay.


@pytest.mark.parametrize("stereo, axis", [("top-bottom", 0), ("left-right", 1)])
def test_stereo_has_the_left_eyes_maps_over_both(checkpoint, tmp_path, stereo, axis):
    mono = video(tmp_path / "mono.mkv", discs(), codec="ffv1")
    infer(mono, checkpoint, tmp_path / "mono")
    paint_layout(mono, tmp_path / "mono", tmp_path / "mono.mp4")
    plain = video(tmp_path / "plain.mkv", stereo_discs(axis), codec="ffv1")
    declared = video(tmp_path / "declared.mp4", stereo_discs(axis), Layout(stereo))
    for clip, more in ((plain, ["--stereo", stereo]), (declared, [])):
        folder = tmp_path / clip.stem
        code, _, text = infer(clip, checkpoint, folder, *more)
        assert code == 0 and ("left eye" in text) == (not more)
        if more:  # the same pixels: the same maps
            assert np.array_equal(maps(folder), maps(tmp_path / "mono"))
        record = json.loads((folder / "saliency.json").read_text())
        assert record["stereo"] == stereo and record["coverage"] is None
        output = tmp_path / f"{clip.stem}_overlay.mp4"
        assert paint_layout(clip, folder, output)[0] == 0
        said = read_spherical(output)
        assert said["v1"]["StereoMode"] == stereo
        assert said["v2"]["stereo_mode"] == 1 + axis and probe(output).layout == Layout(stereo)
        wanted = next(decode(probe(tmp_path / "mono.mp4"))).image.to_ndarray(format="rgb24")
        shown = next(decode(probe(output))).image.to_ndarray(format="rgb24")
        left, right = np.split(shown, 2, axis)
        assert np.abs(left.astype(int) - wanted).mean() < 3
        stored = np.split(stereo_discs(axis)[0], 2, axis)
        painted = [np.abs(e.astype(int) - s).sum(-1) > 60 for e, s in zip((left, right), stored)]
        assert painted[0].any() and (painted[0] == painted[1]).mean() > 0.9
    refusal(infer(plain, checkpoint, tmp_path / "plain"), "maps of another run (stereo")


def test_a_part_has_maps_of_the_sphere_that_end_with_it(checkpoint, tmp_path):
    west, east, south, north = PART
    pictures = discs(3, 96, 192)
    rows = slice(round((90 - north) / 180 * 96), round((90 - south) / 180 * 96))
    clip = video(tmp_path / "a.mp4", [picture[rows] for picture in pictures])
    assert infer(clip, checkpoint, tmp_path / "out", "--coverage", *PART)[0] == 0
    record = json.loads((tmp_path / "out/saliency.json").read_text())
    assert record["coverage"] == list(PART) and record["stereo"] is None
    covered = Layout("none", PART).covered(40, 80)
    for saliency in maps(tmp_path / "out"):
        assert saliency.shape == (40, 80) and not saliency[~covered].any()
        assert saliency[covered].max() == 255
    assert paint_layout(clip, tmp_path / "out", tmp_path / "o.mp4", "--scale", "frame")[0] == 0
    info = probe(tmp_path / "o.mp4")
    assert np.allclose(info.layout.coverage, PART, atol=1e-4) and read_spherical(info.path)["v2"]
    shown = next(decode(info)).image.to_ndarray(format="rgb24").astype(int)
    source = next(decode(probe(clip))).image.to_ndarray(format="rgb24")
    where = np.abs(shown - source).sum(-1)
    peak = np.unravel_index(maps(tmp_path / "out")[0].argmax(), (40, 80))
    latitude = 90 - (peak[0] + 0.5) * 180 / 40
    row, column = int((north - latitude) / (north - south) * 56), int((peak[1] + 0.5) * 192 / 80)
    assert where[row, column] > 0.7 * where.max()


def test_a_picture_that_covers_a_part(checkpoint, tmp_path):
    path = tmp_path / "a.jpg"
    xmp = GPANO.format("equirectangular", 96, 48, 96, 96, 0, 24).encode()
    Image.fromarray(discs(1)[0]).save(path, xmp=xmp)
    code, _, text = infer(path, checkpoint, tmp_path / "out")
    assert code == 0 and "-45° to 45° of latitude" in text
    assert paint_layout(path, tmp_path / "out", tmp_path / "o.jpg")[0] == 0
    assert probe(tmp_path / "o.jpg").layout == probe(path).layout
    with Image.open(tmp_path / "o.jpg") as image:
        assert image.size == (96, 48)


def test_a_stereo_picture_is_not_marked_as_a_mono_sphere(checkpoint, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(stereo_discs(0)[0]).save(path)
    infer(path, checkpoint, tmp_path / "out", "--stereo", "top-bottom")
    code, _, text = paint_layout(path, tmp_path / "out", tmp_path / "o.png")
    assert code == 0 and "pictures have no stereo metadata" in text
    with Image.open(tmp_path / "o.png") as image:
        assert "GPano" not in str(image.info) and image.size == (96, 96)


def test_bad_layouts_are_one_line(checkpoint, tmp_path):
    clip = video(tmp_path / "a.mp4", discs())
    code, _, line = infer(clip, checkpoint, tmp_path / "out", "--coverage", 90, -90, 0, 10)
    assert code == 2 and "--coverage: give the coverage as WEST" in line
    infer(clip, checkpoint, tmp_path / "out")
    record = json.loads((tmp_path / "out/saliency.json").read_text())
    for wrong in ({"stereo": "both"}, {"coverage": [1, 2]}, {"coverage": ["a"] * 4}):
        (tmp_path / "out/saliency.json").write_text(json.dumps(record | wrong))
        code, _, line = paint_layout(clip, tmp_path / "out", tmp_path / "o.mp4")
        assert code == 2 and "saliency.json" in line and "run infer_video.py again" in line


def test_frames_for_models_are_of_the_left_eye(tmp_path):
    spec = type("Spec", (), {"height": 48, "width": 96, "fps": 8, "motion": "difference"})
    mono = read_frames(video(tmp_path / "a.mkv", discs(), codec="ffv1"), spec)
    clip = video(tmp_path / "b.mkv", stereo_discs(1), codec="ffv1")
    both = read_frames(clip, spec, stereo="left-right")
    for one, left in zip(mono, both, strict=True):
        assert one.rgb.equal(left.rgb) and one.motion.equal(left.motion)
    with pytest.raises(ValueError, match="stereo must be one of"):
        read_frames(clip, spec, stereo="both")


# The left eye alone, for pages and follow videos


@pytest.mark.parametrize("layout, height, width", [
    (Layout("top-bottom"), 96, 96),
    (Layout("top-bottom"), 100, 100),  # an odd number of rows of chroma
    (Layout("left-right"), 48, 192),
    (Layout(coverage=VR180), 48, 48),
    (Layout("left-right", VR180), 48, 96),
])  # fmt: skip
def test_planes_of_the_left_eye_are_the_whole_sphere(layout, height, width):
    """Luma is its column's longitude over the sphere, chroma half of it; black is not covered."""
    eye = layout.eyes(height, width)[0]
    rows, columns = (part.stop - (part.start or 0) for part in eye)
    west, east, *_ = layout.coverage
    longitude = west + (np.arange(columns) + 0.5) * (east - west) / columns
    values = np.full((height, width), 250.0)  # the right eye
    values[eye] = (longitude + 180) / 2 + 20
    chroma = values.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) / 2
    picture = np.concatenate([values, *[chroma.reshape(-1, width)] * 2]).round().astype(np.uint8)
    panorama = mono(picture, layout)
    luma, first, second = planes(panorama)
    assert luma.shape[1] == 2 * luma.shape[0]
    longitude = (np.arange(luma.shape[1]) + 0.5) * 360 / luma.shape[1] - 180
    inside = (west < longitude) & (longitude < east)
    assert np.abs(luma[:, inside] - ((longitude + 180) / 2 + 20)[inside]).max() <= 3
    assert (luma[:, ~inside] == 16).all()
    assert (first == second).all()
    assert np.abs(first[:, inside[::2]] - luma[::2, ::2][:, inside[::2]] / 2).max() <= 3
    assert (first[:, ~inside[::2]] == 128).all()


@pytest.mark.parametrize("option", ["--viewer", "--follow"])
def test_pages_and_follow_videos_of_stereo(option, tmp_path, checkpoint):
    path = video(tmp_path / "clip.mp4", stereo_discs(0), Layout("top-bottom"))
    infer(path, checkpoint, tmp_path / "maps")
    output = tmp_path / ("page.html" if option == "--viewer" else "view.mp4")
    words = ["--original_video", path, "--saliency_dir", tmp_path / "maps", option]
    run(make_video.main, *words, "--output_path", output, *["--size", "64x32"] * (option[2] == "f"))
    assert output.stat().st_size > 1000


def declare(path, kind, byte):
    """Change the first byte after a box's version, or its kind."""
    content = bytearray(path.read_bytes())
    place = content.find(kind)
    if isinstance(byte, int):
        content[place + 8] = byte
    else:
        content[place : place + 4] = byte
    path.write_bytes(content)


COVERAGES = [
    (-90, 90, -90, 90),  # VR180
    (-180, 180, -60, 62.5),  # across the seam
    (-180, 180, 35, 90),  # round the north pole
    (-180, 180, -90, -20),
    (-33.3, 71.7, -12.5, 44.1),  # on no pixel's edge
    (100, 180, -90, 90),  # up to the seam
]


def smooth(coverage, height, width):
    """Samples of a function that is smooth on the sphere: (H, W, 3) uint8."""
    west, east, south, north = np.radians(coverage)
    latitude = north - (np.arange(height)[:, None] + 0.5) * (north - south) / height
    longitude = west + (np.arange(width) + 0.5) * (east - west) / width
    x = np.cos(latitude) * np.sin(longitude)
    y = np.sin(latitude) + 0 * longitude
    z = np.cos(latitude) * np.cos(longitude)
    values = np.stack([x * y + z, y * z - x, x * z + y], -1)
    return np.rint(127.5 + 70 * values).astype(np.uint8)


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("scale", [0.5, 1, 2.7])
def test_a_part_is_put_where_it_belongs(coverage, scale):
    """At the seam and the poles too; pixels are averaged, interpolated and left as they are."""
    height, width = 180, 360
    west, east, south, north = coverage
    rows = round(scale * height * (north - south) / 180)
    picture = smooth(coverage, rows, round(scale * width * (east - west) / 360))
    layout = Layout("none", coverage)
    seen = layout.panorama(picture, height, width)
    assert seen.shape == (height, width, 3)
    covered = layout.covered(height, width)
    wrong = np.abs(seen.astype(int) - smooth(SPHERE, height, width))
    assert wrong[covered].max() <= (2 if scale >= 1 else 4)  # half a pixel beyond its last centre
    # Rows and columns that end at a pole or at ±180° belong to it.
    assert covered[0].any() == (north == 90) and covered[-1].any() == (south == -90)
    assert covered[:, -1].any() == (east == 180)
    assert abs(covered.mean() - (north - south) * (east - west) / 180 / 360) < 0.01


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("size", [(30, 60), (180, 360), (500, 1000)])
def test_a_map_is_taken_from_where_it_belongs(coverage, size):
    layout = Layout("none", coverage)
    sphere = np.ascontiguousarray(smooth(SPHERE, *size)[..., 0])
    wrong = lay_map(sphere, 140, 200, layout).astype(int) - smooth(coverage, 140, 200)[..., 0]
    assert np.abs(wrong).max() <= (2 if size[0] > 30 else 4)


def test_pixels_on_the_grid_are_copied():
    picture = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    layout = Layout("none", (-90, 90, -45, 90))
    seen = layout.panorama(picture[:30, 20:60], 40, 80)
    inside = layout.covered(40, 80)
    assert np.array_equal(seen[inside], picture[inside]) and inside.sum() == 30 * 40
    part = resample(picture[..., 0], SPHERE, layout.coverage, 30, 40)
    assert np.array_equal(part, picture[:30, 20:60, 0])


def test_what_is_not_covered_repeats_the_nearest_edge():
    picture = np.tile(np.arange(8, dtype=np.uint8) * 30, (8, 1))
    seen = Layout("none", (-90, 90, -90, 90)).panorama(picture, 8, 16)
    assert seen[0].tolist() == [0] * 4 + (np.arange(8) * 30).tolist() + [210] * 4
    moved = Layout("none", (0, 90, -90, 90)).panorama(picture, 8, 32)  # its edges meet at -135°
    assert moved[0, 0] == 210 and moved[0, 5] == 0


def test_a_mono_sphere_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (41, 80, 3), np.uint8)
    assert np.shares_memory(MONO.panorama(picture, 41, 80), picture)
    assert MONO.panorama_size(41, 80) == (41, 80) and MONO.covered(4, 8).all()
    saliency = picture[..., 0]
    assert np.array_equal(lay_map(saliency, 99, 201, MONO), resize_map(saliency, 99, 201))


@pytest.mark.parametrize("stereo, axis", [("top-bottom", 0), ("left-right", 1)])
@pytest.mark.parametrize("odd", [0, 1])
def test_both_eyes_get_the_map_of_the_left_one(stereo, axis, odd):
    left, right = np.random.default_rng(0).integers(0, 256, (2, 40, 80, 3), np.uint8)
    picture = np.concatenate([left, right], axis)
    picture = np.pad(picture, [(0, odd), (0, odd), (0, 0)])
    layout = Layout(stereo)
    if not odd:
        assert np.array_equal(layout.panorama(picture, 40, 80), left)
    size = picture.shape[:2]
    laid = lay_map(left[..., 0], *size, layout)
    eyes = [laid[eye] for eye in layout.eyes(*size)]
    assert laid.shape == size and np.array_equal(*eyes)
    assert eyes[0].shape == (40, 80) if not odd else min(eyes[0].shape) >= 40
    if not odd:
        assert np.array_equal(eyes[0], left[..., 0])


@pytest.mark.parametrize(
    "stereo, coverage",
    [("both", SPHERE), ("none", (-180, 181, -90, 90)), ("none", (90, -90, -90, 90)),
     ("none", (-90, 90, 10, 10)), ("none", (float("nan"), 90, 0, 10)), ("none", (1, 2, 3))],
)  # fmt: skip
def test_no_layout(stereo, coverage):
    with pytest.raises(ValueError, match=r"stereo must|give the coverage|unpack"):
        Layout(stereo, coverage)


def test_the_next_command_has_the_options_of_this_one(tmp_path, monkeypatch):
    """It was refused: the maps were of another run."""
    options = "--stereo", "top-bottom", "--quality", "fast", "--coverage", -180, 180, -60, 45
    main = runpy.run_path(str(Path(__file__).resolve().parents[1] / "__main__.py"))["main"]
    monkeypatch.chdir(tmp_path)
    clip = video(tmp_path / "a clip.mp4", stereo_discs(0, 1)).name
    printed = success(ended(main, clip, *options))
    next_line, last = printed.partition("next: ")[2].splitlines()
    words = shlex.split(next_line)
    assert last == "open outputs/a clip_overlay.mp4"
    assert words[1:3] == [".", clip] and "--viewer" in words
    assert "none new" in success(ended(main, *words[2:]))
    assert (tmp_path / "outputs/a clip_viewer.html").is_file()


CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"sv3d", b"proj"}


def clip(path, faststart=True):
    container = {"movflags": "+faststart"} if faststart else {}
    return write_video(path, 10, 32, 64, 25, sound=("aac", 8000, "mono"), container=container)


def walk(content, start=0, end=None, path=()):
    """(path, payload) of all boxes, straight from the layout in the specifications."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", content, start + 8)[0], 16
        stop = end if size == 0 else start + size
        assert start + header <= stop <= end, (kind, size)
        inner = start + header
        yield (*path, kind.decode("latin1")), content[inner:stop]
        if kind == b"stsd":
            inner += 8
        if kind == b"avc1":
            inner += 78
        if kind in CONTAINERS | {b"stsd", b"avc1"}:
            yield from walk(content, inner, stop, (*path, kind.decode()))
        start = stop


def find(path, *names):
    """Payloads of the boxes whose path ends with these names."""
    return [p for where, p in walk(path.read_bytes()) if where[-len(names) :] == names]


def packets(path):
    with av.open(str(path)) as file:
        return [(p.stream_index, p.pts, p.dts, bytes(p)) for p in file.demux() if p.size]


def pictures(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray() for frame in file.decode(video=0)]


def top_level(path):
    return [where[0] for where, _ in walk(path.read_bytes()) if len(where) == 1]


@pytest.mark.parametrize("faststart", [True, False])
def test_pictures_and_sounds_are_what_they_were(tmp_path, faststart):
    path = clip(tmp_path / "clip.mp4", faststart)
    order, before, seen = top_level(path), packets(path), pictures(path)
    assert (order.index("moov") < order.index("mdat")) == faststart
    write_spherical(path)
    assert top_level(path) == order
    assert packets(path) == before and {stream for stream, *_ in before} == {0, 1}
    assert all(np.array_equal(a, b) for a, b in zip(pictures(path), seen, strict=True))
    assert list(tmp_path.iterdir()) == [path]


def test_boxes_are_those_of_the_specifications(tmp_path):
    path = clip(tmp_path / "clip.mp4")
    assert read_spherical(path) == {"v1": None, "v2": None}
    write_spherical(path)
    entry = ("stsd", "avc1")
    assert find(path, *entry, "st3d") == [bytes(5)]
    assert find(path, *entry, "sv3d", "svhd") == [bytes(4) + b"360-video-saliency\0"]
    assert find(path, *entry, "sv3d", "proj", "prhd") == [bytes(4 + 12)]
    assert find(path, *entry, "sv3d", "proj", "equi") == [bytes(4 + 16)]
    inside = [where[-1] for where, _ in walk(path.read_bytes()) if where[-2:-1] == ("avc1",)]
    assert inside.index("avcC") < inside.index("st3d") < inside.index("sv3d")
    assert all(inside.index("sv3d") < inside.index(k) for k in ("pasp", "btrt") if k in inside)

    (xml,) = find(path, "trak", "uuid")
    assert xml[:16].hex() == "ffcc8263f8554a938814587a02521fdd"
    assert b"<GSpherical:Spherical>true</GSpherical:Spherical>" in xml
    assert b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>" in xml
    says = read_spherical(path)
    assert says["v1"]["Stitched"] == "true"
    assert says["v1"]["StitchingSoftware"] == says["v2"]["source"] == "360-video-saliency"
    assert says["v2"]["stereo_mode"] == 0 and set(says["v2"]["bounds"]) == {0.0}


@pytest.mark.parametrize("drop", [b"", b"uuid", b"sv3d"])
def test_ffmpeg_sees_an_equirectangular_video(tmp_path, drop):
    """Either kind alone is enough."""
    path = clip(tmp_path / "clip.mp4")
    write_spherical(path)
    if drop:
        path.write_bytes(path.read_bytes().replace(drop, b"free", 1))
    with av.open(str(path)) as file:
        side = bytes(next(file.decode(video=0)).side_data.get("SPHERICAL"))
    assert struct.unpack_from("=i", side) == (0,)  # AV_SPHERICAL_EQUIRECTANGULAR


def box(kind, payload):
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def tiny_movie(table):
    """A `moov` of one video track with nothing but a description and a chunk table."""
    entry = box(b"avc1", bytes(78) + box(b"avcC", bytes(9)))
    stsd = box(b"stsd", struct.pack(">II", 0, 1) + entry)
    hdlr = box(b"hdlr", bytes(8) + b"vide" + bytes(13))
    minf = box(b"minf", box(b"stbl", stsd + table))
    return box(b"moov", box(b"trak", box(b"mdia", hdlr + minf)))


def chunk_table(offset):
    return box(b"stco", struct.pack(">III", 0, 1, offset))


def offsets(path):
    (kind,) = {where[-1] for where, _ in walk(path.read_bytes())} & {"stco", "co64"}
    (payload,) = find(path, kind)
    count = struct.unpack_from(">I", payload, 4)[0]
    return kind, struct.unpack_from(f">{count}{'I' if kind == 'stco' else 'Q'}", payload, 8)


def test_64_bit_chunk_offsets(tmp_path):
    table = box(b"co64", struct.pack(">IIQQ", 0, 2, 8, 2**33))
    path = tmp_path / "clip.mp4"
    path.write_bytes(box(b"mdat", b"picture") + tiny_movie(table))
    old = path.stat().st_size
    write_spherical(path)
    assert offsets(path) == ("co64", (8, 2**33 + path.stat().st_size - old))
