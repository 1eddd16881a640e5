import io
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from worker.compression.calibration import (
    CalibrationSet,
    Images,
    open_samples,
    split,
    synthetic,
)
from worker.compression.errors import CompressionWarning, InvalidData, LabelsMismatch
from worker.compression.graph import InputSpec

F32, I32, I64 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)
X = InputSpec("x", F32, ("N", 4))
IDS = InputSpec("ids", I64, ("N", "T"))
MASK = InputSpec("mask", I64, ("N", "T"))
PICTURE = InputSpec("image", F32, (None, 3, 8, 8))


def save(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def opened(path, *specs, folder=None, **options):
    options.setdefault("source", "calibration")
    return open_samples(path, specs, workdir=folder or path.parent, **options)


def values(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def tokens(*shape):
    return np.random.default_rng(0).integers(0, 9000, shape)


# Which part of an array is sample i


def test_a_free_batch_makes_every_row_a_sample(tmp_path):
    x = values(5, 4)
    samples = opened(save(tmp_path, x=x), X)
    assert len(samples) == 5
    np.testing.assert_array_equal(samples[3]["x"], x[3:4])


def test_a_declared_batch_takes_as_many_rows(tmp_path):
    x = values(7, 4)
    samples = opened(save(tmp_path, x=x), InputSpec("x", F32, (2, 4)))
    assert len(samples) == 3
    np.testing.assert_array_equal(samples[2]["x"], x[4:6])


def test_one_rank_more_stacks_whole_samples(tmp_path):
    x = values(5, 3, 4)
    samples = opened(save(tmp_path, x=x), X)
    assert len(samples) == 5
    np.testing.assert_array_equal(samples[1]["x"], x[1])


def test_samples_of_different_shapes_have_keys_of_their_own(tmp_path):
    feeds = {f"{i}|{name}": tokens(1, 3 + i) for i in (10, 2, 1) for name in ("ids", "mask")}
    samples = opened(save(tmp_path, **feeds), IDS, MASK)
    assert [feed["ids"].shape[1] for feed in samples] == [4, 5, 13]


def test_a_single_array_feeds_a_single_input(tmp_path):
    x = values(3, 4)
    np.save(tmp_path / "x.npy", x)
    samples = opened(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(samples[2]["x"], x[2:3])


@pytest.mark.parametrize("rate", [np.int64(16000), np.array([16000]), np.full(4, 16000)])
def test_a_scalar_input_takes_one_value_or_one_for_each_sample(tmp_path, rate):
    samples = opened(save(tmp_path, x=values(4, 4), sr=rate), X, InputSpec("sr", I64, ()))
    assert len(samples) == 4
    assert [feed["sr"].shape for feed in samples] == [()] * 4
    assert samples[3]["sr"] == 16000


def test_a_fixed_input_given_once_serves_every_sample(tmp_path):
    state = values(2, 1, 8)
    spec = InputSpec("state", F32, (2, None, 8))
    samples = opened(save(tmp_path, x=values(4, 4), state=state), X, spec)
    assert len(samples) == 4
    np.testing.assert_array_equal(samples[3]["state"], state)


def test_arrays_in_fortran_order_are_read_right(tmp_path):
    x = np.asfortranarray(values(6, 3, 4, 5))
    samples = opened(save(tmp_path, x=x), InputSpec("x", F32, ("N", 3, 4, 5)))
    np.testing.assert_array_equal(samples[4]["x"], x[4:5])


def test_a_view_keeps_order_and_labels(tmp_path):
    samples = opened(save(tmp_path, x=values(5, 4), labels=np.arange(5)), X).take([4, 0])
    assert samples.labels is not None
    assert [int(label[0]) for label in samples.labels] == [4, 0]
    assert len(samples[:1]) == 1


# Labels


def test_labels_are_cut_like_the_samples(tmp_path):
    path = save(tmp_path, x=values(6, 4), labels=np.arange(6))
    samples = opened(path, InputSpec("x", F32, (2, 4)))
    assert samples.labels is not None
    assert [list(label) for label in samples.labels] == [[0, 1], [2, 3], [4, 5]]


def test_labels_of_stacked_samples_are_stacked(tmp_path):
    samples = opened(save(tmp_path, x=values(5, 3, 4), labels=tokens(5, 3)), X)
    assert samples.labels is not None
    assert samples.labels[4].shape == (3,)


def test_labels_may_differ_in_shape(tmp_path):
    feeds = {f"{i}|ids": tokens(1, 3 + i) for i in range(3)}
    feeds |= {f"{i}|labels": tokens(1, 3 + i) for i in range(3)}
    samples = opened(save(tmp_path, **feeds), IDS)
    assert samples.labels is not None
    assert samples.labels[2].shape == (1, 5)


def test_labels_go_by_another_name_where_an_input_bears_theirs(tmp_path):
    spec = InputSpec("labels", F32, ("N", 4))
    path = save(tmp_path, labels=values(3, 4), __labels__=np.arange(3))
    samples = opened(path, spec)
    assert samples.labels is not None
    assert samples[0]["labels"].shape == (1, 4)
    assert int(samples.labels[2][0]) == 2


def test_too_few_labels_are_refused(tmp_path):
    path = save(tmp_path, x=values(5, 4), labels=np.arange(4))
    with pytest.raises(LabelsMismatch, match="4 of 5"):
        opened(path, X)


# Types


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.arange(8, dtype=np.int64).reshape(2, 4), I32),
        (np.arange(8, dtype=np.float64).reshape(2, 4) / 3, F32),
        (np.arange(8, dtype=np.uint8).reshape(2, 4), F32),
        (np.arange(8, dtype=np.float32).reshape(2, 4), I64),
        (np.arange(8, dtype=">i4").reshape(2, 4), I64),
        (np.arange(8).reshape(2, 4) % 3 > 0, F32),
        (np.arange(8, dtype=np.float32).reshape(2, 4) % 3 // 2, np.dtype(bool)),
    ],
)
def test_a_cast_that_loses_nothing_is_made(tmp_path, given, wanted):
    samples = opened(save(tmp_path, x=given), InputSpec("x", wanted, ("N", 4)))
    assert samples[1]["x"].dtype == wanted
    np.testing.assert_allclose(samples[1]["x"], given[1:2], rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "given", "wanted"),
    [
        (2**40, np.int64, I32),
        (1e300, np.float64, F32),
        (0.5, np.float32, I64),
        (1e30, np.float32, I64),
        (-1, np.int64, np.dtype(np.uint8)),
        (2**24 + 1, np.int64, F32),
        (2, np.int64, np.dtype(bool)),
    ],
)
def test_a_cast_that_loses_values_is_refused(tmp_path, value, given, wanted):
    path = save(tmp_path, x=np.full((2, 4), value, given))
    with pytest.raises(InvalidData, match=r"'x'.*cannot hold"):
        opened(path, InputSpec("x", wanted, ("N", 4)))


# Refusals: the message names the key, the hint the remedy


def refusals():
    x, nan = values(4, 4), np.full((4, 4), np.nan, np.float32)
    return {
        "missing": ({"y": x}, "lacks 'x'; it holds 'y'"),
        "a batch axis is missing": ({"x": x[0]}, "'x' has shape"),
        "wrong width": ({"x": values(4, 5)}, r"\[4, 5\].*\[N, 4\]"),
        "wrong rank": ({"x": values(4, 4, 4, 4)}, "'x' has shape"),
        "not a number": ({"x": nan}, "'x' holds NaN"),
        "infinite": ({"x": np.full((4, 4), np.inf)}, "'x' holds NaN or infinite"),
        "text": ({"x": np.full((4, 4), "a")}, "'x' holds <U1"),
        "complex": ({"x": x.astype(complex)}, "'x' holds complex"),
        "structured": ({"x": np.zeros(4, [("a", "f4")])}, "'x' is a structured"),
        "empty": ({"x": values(0, 4)}, "'x' has 0 rows|no sample"),
        "text labels": ({"x": x, "labels": np.full(4, "cat")}, "'labels' holds"),
        "a sample without its input": ({"0|x": x, "1|x": x, "1|y": x}, "sample 0 lacks 'y'"),
    }


@pytest.mark.parametrize("case", refusals())
def test_data_that_does_not_fit_is_refused_by_name(tmp_path, case):
    arrays, words = refusals()[case]
    specs = [X, InputSpec("y", F32, ("N", 4))] if case.startswith("a sample") else [X]
    with pytest.raises(InvalidData, match=words) as caught:
        opened(save(tmp_path, **arrays), *specs)
    assert caught.value.hint


def test_inputs_with_different_numbers_of_samples_are_refused(tmp_path):
    path = save(tmp_path, ids=tokens(5, 3), mask=tokens(4, 3))
    with pytest.raises(InvalidData, match="'ids' has 5, 'mask' has 4"):
        opened(path, IDS, MASK)


def test_one_row_of_a_batched_input_does_not_serve_all_samples(tmp_path):
    path = save(tmp_path, ids=tokens(5, 3), mask=tokens(1, 3))
    with pytest.raises(InvalidData, match="different numbers"):
        opened(path, IDS, MASK)


def test_a_pickled_array_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    np.savez(tmp_path / "data.npz", x=np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidData, match="pickled"):
        opened(tmp_path / "data.npz", X)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a,b\n1,2\n", "neither"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04 and then nothing", "corrupt or cut off"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': 'xx'}", "not an array"),
        (b"\x93NUMPY", "not an array"),
        (b"\x93NUMPY\x01\x00\xff\x1f" + b"-" * 8191, "not an array"),
        (b"\x93NUMPY\x01\x00\xff\x1f" + b"(" * 8191, "not an array"),
        (b"\x93NUMPY\x01\x00\x06\x00f(1)  ", "<ast.Call object>"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, words):
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(InvalidData, match=words):
        opened(tmp_path / "data", X)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_file_that_is_cut_off_is_refused(tmp_path, keep):
    path = save(tmp_path, x=values(64, 4))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(InvalidData, match="cut off"):
        opened(path, X)
    np.save(tmp_path / "x.npy", values(64, 4))
    cut = (tmp_path / "x.npy").read_bytes()[:-8]
    (tmp_path / "x.npy").write_bytes(cut)
    with pytest.raises(InvalidData, match="'x'"):
        opened(tmp_path / "x.npy", X)


def test_a_changed_byte_is_noticed(tmp_path):
    path = save(tmp_path, x=np.ones((64, 4), np.float32))
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidData, match="corrupt"):
        opened(path, X)


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)}
    )
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(InvalidData, match="more than there are"):
        opened(tmp_path / "data.npz", X)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.compression.calibration.archive.MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((1 << 20, 4), np.float32))
    with pytest.raises(InvalidData, match="unpacked") as caught:
        opened(tmp_path / "data.npz", X)
    assert caught.value.code == "data_too_large"
    assert sum(file.stat().st_size for file in tmp_path.glob("*.bin")) == 0


def test_a_model_with_two_inputs_needs_named_arrays(tmp_path):
    np.save(tmp_path / "x.npy", tokens(4, 3))
    with pytest.raises(InvalidData, match="'ids', 'mask'"):
        opened(tmp_path / "x.npy", IDS, MASK)


def test_no_change_of_bytes_brings_anything_but_invalid_data(tmp_path):
    whole = save(tmp_path, x=values(6, 4), labels=np.arange(6)).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 8)):
            content[place] = rng.choice([0, 255, rng.integers(256)])
        (tmp_path / "data").write_bytes(content[: rng.integers(1, 2 * len(whole))])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CompressionWarning)
                opened(tmp_path / "data", X)
        except InvalidData:
            refused += 1
    assert refused > 200


# Warnings


def test_constant_and_repeated_samples_are_told(tmp_path):
    x = np.concatenate([values(4, 4), values(4, 4)[:2], np.zeros((1, 4), np.float32)])
    with pytest.warns(CompressionWarning) as caught:
        opened(save(tmp_path, x=x), X)
    told = {entry.message.code: entry.message.message for entry in caught}
    assert told["duplicate_samples"].startswith("2 of 7")
    assert told["constant_samples"].startswith("1 of 7")


def test_arrays_that_no_input_takes_are_told(tmp_path):
    with pytest.warns(CompressionWarning, match="'label'") as caught:
        opened(save(tmp_path, x=values(4, 4), label=np.arange(4)), X)
    assert caught[0].message.code == "unused_arrays"


# Memory


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    for count in (32, 320):
        x = np.random.default_rng(0).random((count, 3, 112, 112), np.float32)
        np.savez(tmp_path / f"{count}.npz", x=x)
    script = """
import sys
from pathlib import Path
import numpy as np
from worker.compression.benchmark import peak_memory_of_self
from worker.compression.calibration import open_samples
from worker.compression.graph import InputSpec
folder = Path(sys.argv[1])
spec = InputSpec("x", np.dtype("f4"), ("N", 3, 112, 112))
for count in (32, 320):
    path = folder / f"{count}.npz"
    samples = open_samples(path, [spec], workdir=folder, source="calibration")
    assert sum(feed["x"].shape[0] for feed in samples) == count
    print(peak_memory_of_self())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    few, many = (int(line) for line in ran.stdout.split())
    assert many - few < 16 << 20


# Images


def picture(folder, name, color, size=(16, 16)):
    Image.new("RGB", size, color).save(folder / name)
    return folder / name


def zipped(folder, *files, **arrays):
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())
    return folder / "images.zip"


def test_images_are_scaled_and_normalized_per_channel(tmp_path):
    path = zipped(tmp_path, picture(tmp_path, "a.png", (255, 0, 51)))
    recipe = Images(mean=[0.5, 0.0, 0.1], std=[0.5, 1.0, 0.1])
    feed = opened(path, PICTURE, images=recipe)[0]["image"]
    assert feed.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(feed[0, :, 0, 0], [1, 0, 1], atol=1e-5)


def test_layout_color_and_type_are_the_recipes(tmp_path):
    path = zipped(tmp_path, picture(tmp_path, "a.png", (250, 100, 50)))
    recipe = Images(scale=1, layout="nhwc", color="bgr", dtype="uint8")
    spec = InputSpec("image", np.dtype(np.uint8), (1, 8, 8, 3))
    feed = opened(path, spec, images=recipe)[0]["image"]
    assert feed.dtype == np.uint8
    assert list(feed[0, 4, 4]) == [50, 100, 250]


@pytest.mark.parametrize(
    ("resize", "corner", "center"),
    [("center_crop", 255, 255), ("letterbox", 114, 255), ("stretch", 0, 255)],
)
def test_a_wide_image_is_cut_padded_or_squeezed(tmp_path, resize, corner, center):
    image = Image.new("L", (32, 16))
    image.paste(255, (6, 0, 26, 13))
    image.save(tmp_path / "a.png")
    recipe = Images(resize=resize, scale=1, color="gray", size=(8, 8))
    spec = InputSpec("image", F32, (None, 1, None, None))
    feed = opened(zipped(tmp_path, tmp_path / "a.png"), spec, images=recipe)[0]["image"]
    assert feed.shape == (1, 1, 8, 8)
    assert feed[0, 0, 0, 0] == corner
    assert feed[0, 0, 3, 4] == center


def test_images_are_counted_as_people_count_and_labels_lie_beside_them(tmp_path):
    files = [picture(tmp_path, f"{n}.png", (n, 0, 99)) for n in (10, 2, 1)]
    path = zipped(tmp_path, *files, labels=np.array([7, 8, 9]))
    samples = opened(path, PICTURE, images=Images(scale=1))
    assert [int(feed["image"][0, 0, 0, 0]) for feed in samples] == [1, 2, 10]
    assert samples.labels is not None
    assert [int(label[0]) for label in samples.labels] == [7, 8, 9]


def test_images_without_a_recipe_for_them_are_refused_with_an_example(tmp_path):
    path = zipped(tmp_path, picture(tmp_path, "a.png", (1, 2, 3)))
    with pytest.raises(InvalidData, match="zip of 1 images") as caught:
        opened(path, PICTURE)
    assert '"size": [224, 224]' in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("spec", "recipe", "words"),
    [
        (InputSpec("i", F32, (1, 3, 9, 9)), Images(size=(8, 8)), r"\[1, 3, 8, 8\].*9"),
        (InputSpec("i", F32, (1, 1, 8, 8)), Images(), "takes"),
        (InputSpec("i", F32, (1, 3, None, None)), Images(), "how large"),
        (InputSpec("i", np.dtype(np.uint8), (1, 3, 8, 8)), Images(), "float32.*uint8"),
    ],
)
def test_images_that_do_not_become_the_input_are_refused(tmp_path, spec, recipe, words):
    path = zipped(tmp_path, picture(tmp_path, "a.png", (1, 2, 3)))
    with pytest.raises(InvalidData, match=words) as caught:
        opened(path, spec, images=recipe)
    assert "images." in (caught.value.hint or "")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    path = zipped(tmp_path, tmp_path / "broken.jpg")
    with pytest.raises(InvalidData, match=r"'broken\.jpg'"):
        opened(path, PICTURE, images=Images())


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    header = struct.pack(">II5B", 40_000, 40_000, 1, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(100)))
    written = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))
    path = zipped(tmp_path, tmp_path / "bomb.png")
    with pytest.raises(InvalidData, match=r"'bomb\.png'.*(too many|bomb)"):
        opened(path, PICTURE, images=Images())


@pytest.mark.parametrize(
    "settings",
    [{"mean": [0.1, 0.2]}, {"std": [0.0]}, {"size": [0, 8]}, {"resize": "crop"}, {"sizes": 1}],
)
def test_settings_of_images_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        Images.model_validate(settings)


# Splitting


def counted(count, source="calibration"):
    first = 1000.0 if source == "evaluation" else 0.0
    feeds = [{"x": np.full((1, 4), first + index)} for index in range(count)]
    return CalibrationSet(feeds, source)


def marks(samples):
    return [float(feed["x"][0, 0]) for feed in samples]


@given(count=st.integers(32, 200), seed=st.integers(0, 2**32 - 1))
def test_no_sample_is_in_two_parts(count, seed):
    parts = split(counted(count), None, seed=seed)
    every = [marks(part) for part in (parts.calibrate, parts.select, parts.report)]
    assert sorted(chain(*every)) == list(range(count))
    assert len(every[1]) == len(every[2]) == count // 4
    assert marks(split(counted(count), None, seed=seed).report) == every[2]


def test_another_seed_splits_otherwise():
    reports = {tuple(marks(split(counted(64), None, seed=seed).report)) for seed in range(5)}
    assert len(reports) == 5


def test_evaluation_data_selects_and_reports_and_calibrates_nothing():
    parts = split(counted(20), counted(33, "evaluation"), seed=0)
    assert marks(parts.calibrate) == list(range(20))
    assert (len(parts.select), len(parts.report)) == (16, 17)
    assert not set(marks(parts.select)) & set(marks(parts.report))
    assert parts.report.source == "evaluation"


@pytest.mark.parametrize(("count", "parts"), [(1, (1, 1, 1)), (3, (1, 1, 1)), (8, (4, 2, 2))])
def test_few_samples_leave_no_part_empty_and_are_told(count, parts):
    with pytest.warns(CompressionWarning, match=f"{count} calibration samples") as caught:
        found = split(counted(count), None, seed=0)
    assert (len(found.calibrate), len(found.select), len(found.report)) == parts
    assert caught[0].message.code == "few_samples"


def test_evaluation_samples_that_calibrate_too_are_told():
    evaluation = CalibrationSet(list(counted(32)), "evaluation")
    with pytest.warns(CompressionWarning, match="32 evaluation samples are also"):
        split(counted(32), evaluation, seed=0)


# Synthetic samples


def test_synthetic_samples_come_from_the_seed():
    one, same, other = (synthetic([X], seed=seed)[3]["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(synthetic([X], seed=1, count=3)) == 3


def test_synthetic_samples_have_the_inputs_types():
    specs = [
        IDS,
        InputSpec("attention_mask", I64, ("N", "T")),
        InputSpec("picture", F32, ("N", 3, 32, "W")),
        InputSpec("pixels", np.dtype(np.uint8), (1, 8)),
        InputSpec("state", F32, (2, None, 128)),
        InputSpec("sr", I64, ()),
    ]
    feed = synthetic(specs, seed=0, shapes={"ids": [2, 7]}, values={"sr": 16000})[0]
    for spec in specs:
        assert feed[spec.name].dtype == spec.dtype
    assert feed["ids"].shape == feed["attention_mask"].shape == (2, 7)
    assert 0 <= feed["ids"].min() <= feed["ids"].max() < 100
    assert (feed["attention_mask"] == 1).all()
    assert feed["picture"].shape[:3] == (2, 3, 32)
    assert feed["state"].shape == (2, 1, 128)
    assert feed["sr"] == 16000


@pytest.mark.parametrize(
    "shapes", [{"y": [1, 4]}, {"x": [4]}, {"x": [0, 4]}, {"x": [1 << 40, 1 << 40]}]
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InvalidData, match="shape"):
        synthetic([X], seed=0, shapes=shapes)
