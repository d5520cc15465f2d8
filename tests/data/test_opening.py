"""Image files as pixels: orientation, depth, modes, size and damage."""

import os
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from gpe.data import StreamedSet, load_test, opening
from gpe.data.folder import decode
from gpe.data.opening import open_image, size_and_orientation
from gpe.errors import InputError

# Red left above, green right above, blue left below, white right below: 12 wide, 8 high.
QUARTERS = np.zeros((8, 12, 3), np.uint8)
QUARTERS[:4, :6, 0] = QUARTERS[:4, 6:, 1] = QUARTERS[4:, :6, 2] = QUARTERS[4:, 6:] = 255


def stored(tag, pixels=QUARTERS):
    """The pixels of a file that shows ``pixels`` when a viewer heeds the tag."""
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(tag, tag)
    return opening.turned(Image.fromarray(pixels), back)


def tagged(path, tag, pixels=QUARTERS):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    stored(tag, pixels).save(path, exif=exif, **options)
    return path


@pytest.mark.filterwarnings("ignore:data. images with an EXIF")
class TestOrientation:
    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
    @pytest.mark.parametrize("tag", range(1, 9))
    def test_images_are_upright(self, tmp_path, tag, suffix):
        path = tagged(tmp_path / f"x{suffix}", tag)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            image = np.asarray(open_image(path))
        assert [str(each.message)[:24] for each in told] == (tag > 1) * ["data: images with an EXI"]
        assert image.shape == QUARTERS.shape
        corners = slice(1, None, 5), slice(1, None, 8)
        assert ((image > 127) == (QUARTERS > 127))[corners].all()
        assert size_and_orientation(path) == ((12, 8), tag)

    def test_large_jpegs_that_are_decoded_at_a_smaller_scale(self, tmp_path):
        path = tagged(tmp_path / "x.jpg", 6, QUARTERS.repeat(40, 0).repeat(40, 1))
        image = decode([path], 8)[0].numpy()
        assert image[:, 0, 0].argmax() == 0 and image[:, 0, -1].argmax() == 1

    @pytest.mark.parametrize("tag", [0, 9, 77])
    def test_tags_that_mean_nothing(self, tmp_path, tag):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = tag
        Image.fromarray(QUARTERS).save(tmp_path / "x.png", exif=exif)
        assert (np.asarray(open_image(tmp_path / "x.png")) == QUARTERS).all()

    @pytest.mark.filterwarnings("ignore")
    def test_a_damaged_tag_leaves_the_pixels(self, tmp_path):
        Image.fromarray(QUARTERS).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0nonsense")
        assert open_image(tmp_path / "x.jpg").size == (12, 8)


class TestDepth:
    RAMP = np.arange(256, dtype=np.uint16)[None].repeat(2, 0)

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
    def test_16_bits_are_scaled(self, tmp_path, suffix):
        Image.fromarray(self.RAMP * 257).save(tmp_path / f"x{suffix}")
        image = np.asarray(open_image(tmp_path / f"x{suffix}"))
        assert (image == self.RAMP[..., None]).all()

    def test_big_endian_16_bits(self, tmp_path):
        pixels = (self.RAMP * 257).astype(">u2")
        Image.frombytes("I;16B", (256, 2), pixels.tobytes()).save(tmp_path / "x.tif")
        assert (np.asarray(open_image(tmp_path / "x.tif")) == self.RAMP[..., None]).all()

    def test_16_bits_whose_zero_is_white(self, tmp_path):
        tags = {TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 0}
        Image.fromarray(self.RAMP * 257).save(tmp_path / "x.tif", tiffinfo=tags)
        assert (np.asarray(open_image(tmp_path / "x.tif")) == 255 - self.RAMP[..., None]).all()

    def test_16_bits_through_every_loader(self, tmp_path):
        path = tmp_path / "grey" / "x.png"
        path.parent.mkdir()
        Image.fromarray(np.full((8, 8), 127 * 257, np.uint16)).save(path)
        assert (load_test(tmp_path, image_size=8).images == 127).all()
        images = StreamedSet([str(path)], load_test(tmp_path).labels, ("g",), "plain", 8, workers=0)
        (batch,) = images.batches(load_test(tmp_path).labels, 1)
        assert (batch.images == 127).all()

    @pytest.mark.parametrize(("dtype", "kind"), [("f4", "floating point"), ("i4", "integers")])
    def test_what_has_no_known_range_is_refused_by_name(self, tmp_path, dtype, kind):
        Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "x.tif")
        with pytest.raises(
            InputError, match=rf"x\.tif: expected 8 or 16 bits a channel, got {kind}"
        ):
            open_image(tmp_path / "x.tif")


class TestModes:
    def test_transparency_is_dropped(self, tmp_path):
        for mode, colour in (("RGBA", (9, 8, 7, 0)), ("LA", (5, 0))):
            Image.new(mode, (2, 2), colour).save(tmp_path / "x.png")
            expected = (9, 8, 7) if mode == "RGBA" else (5, 5, 5)
            assert open_image(tmp_path / "x.png").getpixel((0, 0)) == expected

    def test_palettes_and_cmyk(self, tmp_path):
        image = Image.new("RGB", (2, 2), (255, 0, 0))
        image.convert("P").save(tmp_path / "x.png", transparency=0)
        assert open_image(tmp_path / "x.png").getpixel((0, 0)) == (255, 0, 0)
        image.convert("CMYK").save(tmp_path / "x.tif")
        assert open_image(tmp_path / "x.tif").getpixel((0, 0)) == (255, 0, 0)


class TestRefusals:
    def test_large_scans_need_max_pixels(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        Image.new("L", (30, 20)).save(tmp_path / "x.png")
        with pytest.raises(InputError, match=r"max_pixels: expected .* got .*x\.png"):
            open_image(tmp_path / "x.png")
        with pytest.raises(InputError, match="max_pixels: expected images of at most 599"):
            open_image(tmp_path / "x.png", max_pixels=599)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_image(tmp_path / "x.png", max_pixels=600).size == (30, 20)

    @pytest.mark.parametrize("max_pixels", [0, -1, 2.5, "many"])
    def test_max_pixels_is_a_number(self, max_pixels):
        with pytest.raises(InputError, match="max_pixels: expected an integer of at least 1"):
            load_test("digits", max_pixels=max_pixels)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "x.png")
        with pytest.raises(InputError, match=r"image .*x\.png: it is not a regular file"):
            open_image(tmp_path / "x.png")

    @pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
    def test_damage_is_one_line_with_the_name(self, tmp_path, content):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(InputError, match=r"^data: cannot read the image .*x\.png: .+$"):
            open_image(tmp_path / "x.png")
