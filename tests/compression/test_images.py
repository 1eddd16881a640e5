"""Pictures become inputs as the framework of the training made them."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from app.forms import recipe_form, recipe_from
from worker.compression import InvalidData, InvalidRecipe, Recipe
from worker.compression.calibration import IMAGE_PRESETS, Images, open_samples
from worker.compression.calibration.pictures import read_picture
from worker.compression.graph import InputSpec

F32 = np.dtype(np.float32)
BLANK = {"preset": "gray", "scale": 1.0}


def noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def fed(picture, images, size=(8, 8), *, suffix="PNG", nhwc=False, **options):
    stream = io.BytesIO()
    picture.save(stream, suffix, **options)
    stream.seek(0)
    settings = Images.model_validate(images)
    return read_picture(stream, "a.png", settings, size=size, nhwc=nhwc)


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (257, 256), (40, 500)])
def test_imagenet_is_the_middle_of_the_shorter_side_at_256(size):
    picture = noise(*size)
    short = min(size)
    grown = picture.resize(
        tuple(256 if side == short else int(256 * side / short) for side in size),
        Image.Resampling.BILINEAR,
    )
    left, top = (round((side - 224) / 2) for side in grown.size)
    pixels = np.asarray(grown.crop((left, top, left + 224, top + 224)), np.float32)
    wanted = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    got = fed(picture, "imagenet", (224, 224))
    np.testing.assert_allclose(got, wanted.transpose(2, 0, 1), atol=1e-5)


def test_yolo_pads_an_odd_rest_below_and_to_the_right():
    got = fed(Image.new("RGB", (8, 3), (255, 0, 0)), {"preset": "yolo", "scale": 1.0})
    assert [int(row[0]) for row in got[1]] == [114, 114, 0, 0, 0, 114, 114, 114]


def test_presets_span_the_ranges_they_are_named_for():
    white = Image.new("RGB", (300, 300), "white")
    top = {name: float(fed(white, name).max()) for name in IMAGE_PRESETS}
    assert top["imagenet-tf"] == pytest.approx(1)
    assert top["keras-0-255"] == 255
    assert top["yolo"] == top["gray"] == pytest.approx(1)
    assert top["imagenet-caffe"] == pytest.approx(255 - 103.939, abs=1e-3)


def test_caffe_feeds_blue_first():
    got = fed(Image.new("RGB", (9, 9), (0, 0, 255)), "imagenet-caffe", nhwc=True)
    np.testing.assert_allclose(got[0, 0], [255 - 103.939, -116.779, -123.68], rtol=1e-5)


def test_without_antialiasing_pixels_are_sampled_not_averaged():
    stripes = Image.fromarray(np.tile(np.uint8([0, 200, 100, 0]), (8, 2)))
    sampled = fed(stripes, BLANK | {"antialias": False}, (2, 2))
    averaged = fed(stripes, BLANK | {"antialias": True}, (2, 2))
    assert sampled[0, 0, 0] == 150
    assert averaged[0, 0, 0] != 150


def test_an_image_of_16_bits_keeps_its_shades():
    wide = Image.fromarray((np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8))
    got = fed(wide, BLANK)
    assert got.max() == 63 * 1024 // 256
    assert len(np.unique(got)) == 64


def test_an_image_of_32_bits_is_refused_by_name():
    with pytest.raises(InvalidData, match=r"'a\.png'.*32 bits"):
        fed(Image.fromarray(np.zeros((8, 8), np.float32)), BLANK, suffix="TIFF")


def test_a_photo_is_fed_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn it clockwise
    photo = Image.new("L", (16, 8))
    photo.paste(255, (0, 0, 8, 8))
    got = fed(photo, BLANK, (16, 8), suffix="PNG", exif=exif)
    assert got[0, 0, 0] == 255
    assert got[0, 15, 0] == 0


def test_alpha_is_dropped_and_the_first_frame_of_several_is_fed():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert fed(clear, {"scale": 1.0})[0].min() == 255
    frames = [Image.new("L", (8, 8), shade) for shade in (10, 200)]
    got = fed(frames[0], BLANK, suffix="GIF", save_all=True, append_images=frames[1:])
    assert got.max() == 10


def test_a_strip_that_would_grow_without_end_is_refused():
    with pytest.raises(InvalidData, match="no picture"):
        fed(
            Image.new("L", (1, 60_000)), {"preset": "gray", "resize": "center_crop"}, (224, 224)
        )


# Presets in recipes


def test_a_name_an_object_and_overrides_are_settings_of_one_recipe():
    by_name, by_object = (
        Recipe.parse({"images": given}) for given in ("imagenet", {"preset": "imagenet"})
    )
    assert by_name == by_object
    small = Recipe.parse({"images": {"preset": "imagenet", "size": [96, 96]}}).images
    assert small
    assert (small.size, small.crop) == ((96, 96), 0.875)
    assert Recipe.parse(small and {"images": small.model_dump(mode="json")}).images == small


@pytest.mark.parametrize("given", ["imagenot", {"preset": "x"}, {"preset": []}, ["clip"], 5])
def test_an_unknown_preset_is_refused_with_the_field(given):
    with pytest.raises(InvalidRecipe) as caught:
        Recipe.parse({"images": given})
    assert caught.value.errors[0]["field"].startswith("images")


def test_settings_that_contradict_a_preset_are_refused():
    with pytest.raises(ValidationError, match="1 for gray"):
        Images.model_validate({"preset": "imagenet", "color": "gray"})


def test_the_schema_lists_the_presets():
    options = Recipe.model_json_schema()["properties"]["images"]["anyOf"]
    assert list(IMAGE_PRESETS) in [option.get("enum") for option in options]


def test_the_form_offers_presets_and_takes_what_overrides_them():
    group = next(group for group in recipe_form().groups if group.name == "images")
    assert list(group.controls[0].options) == list(IMAGE_PRESETS)
    images = recipe_from({"images.preset": "clip", "images.size": "[96, 96]"}).images
    assert images == Images.model_validate({"preset": "clip", "size": [96, 96]})


def one_image(tmp_path, spec, images):
    noise(70, 50).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    samples = open_samples(
        tmp_path / "images.zip", [spec], workdir=tmp_path, source="calibration",
        images=Images.model_validate(images),
    )  # fmt: skip
    return samples[0]["x"].shape


@pytest.mark.parametrize(
    ("declared", "images", "shape"),
    [
        ((None, 3, 96, 80), "imagenet", (1, 3, 96, 80)),
        ((None, 96, 80, 3), "imagenet", (1, 96, 80, 3)),
        ((1, 3, None, None), "imagenet", (1, 3, 224, 224)),
        ((1, 3, "h", "w"), {"preset": "yolo", "size": [64, 32]}, (1, 3, 64, 32)),
        ((1, 28, 28, 1), "mnist", (1, 28, 28, 1)),
    ],
)
def test_size_and_layout_are_the_inputs_where_it_declares_them(
    tmp_path, declared, images, shape
):
    assert one_image(tmp_path, InputSpec("x", F32, declared), images) == shape
