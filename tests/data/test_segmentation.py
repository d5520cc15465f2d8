"""Segmentation datasets in their forms on disk, and what is said of wrong ones."""

import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gpe.data import segmentation_set
from gpe.data.cityscapes import CLASSES, PALETTE
from gpe.data.voc import PALETTE as VOC_PALETTE
from gpe.errors import InputError
from tests.conftest import SHARED_DATA
from tests.data import labelled_trees as trees
from tests.data.test_opening import stored, tagged

CAMVID = SHARED_DATA / "camvid.tar.gz"


class TestCamVid:
    def test_images_meet_their_labels_in_order(self, tmp_path):
        found = segmentation_set("camvid", trees.camvid(tmp_path), "train")
        assert found.ids == ("train_000", "train_001", "train_002")
        assert len(found.classes) == len(found.palette) == 11
        for number in range(3):
            image, labels = found.samples[number]
            assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(trees.picture(number)))
            assert (labels[0] == 255).all() and (labels[1:] == number).all()

    def test_root_may_be_the_folder_itself(self, tmp_path):
        trees.camvid(tmp_path)
        assert len(segmentation_set("camvid", tmp_path / "camvid", "val")) == 2

    def test_an_image_without_labels_is_named(self, tmp_path):
        trees.camvid(tmp_path, (("train", 5),))
        for number in (1, 3):
            (tmp_path / "camvid" / "trainannot" / f"train_00{number}.png").unlink()
        with pytest.raises(InputError, match=r"data: 2 of 5 .*train_001\.png, .*train_003\.png$"):
            segmentation_set("camvid", tmp_path, "train")

    @pytest.mark.parametrize("folder", ["val", "valannot"])
    def test_system_entries_are_left_out(self, tmp_path, folder):
        trees.camvid(tmp_path)
        for name in ("._val_000.png", ".DS_Store", "Thumbs.db"):
            (tmp_path / "camvid" / folder / name).write_bytes(b"no image")
        trees.write(tmp_path / "camvid" / folder / "@eaDir" / "val_000.png", trees.picture(0))
        os.mkfifo(tmp_path / "camvid" / folder / "pipe.png")
        assert segmentation_set("camvid", tmp_path, "val").ids == ("val_000", "val_001")

    def test_splits_may_have_other_common_names(self, tmp_path):
        trees.camvid(tmp_path)
        for suffix in ("", "annot"):
            (tmp_path / "camvid" / f"val{suffix}").rename(tmp_path / "camvid" / f"Valid{suffix}")
        assert len(segmentation_set("camvid", tmp_path, "val")) == 2

    @pytest.mark.filterwarnings("ignore:data. images with an EXIF")
    @pytest.mark.parametrize("upright", [False, True])
    @pytest.mark.parametrize("tag", range(1, 9))
    def test_labels_are_turned_with_their_image(self, tmp_path, tag, upright):
        """Of the pixels as they are stored, unless their size or their own tag says otherwise."""
        trees.camvid(tmp_path, (("val", 1),))
        base = tmp_path / "camvid"
        shown = np.add.outer(np.arange(24), np.arange(40)) % 11
        tagged(base / "val" / "val_000.png", tag, trees.picture(0))
        labels = Image.fromarray(shown.astype(np.uint8)) if upright and tag >= 5 else None
        labels = labels or stored(tag, shown.astype(np.uint8))
        exif = Image.Exif()
        exif[274] = tag if upright and tag < 5 else 1
        labels.save(base / "valannot" / "val_000.png", exif=exif)
        found = segmentation_set("camvid", tmp_path, "val")
        image, labels = found.samples[0]
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(trees.picture(0)))
        assert torch.equal(labels.long(), torch.from_numpy(shown))

    def test_labels_are_read_without_their_images(self, tmp_path):
        trees.camvid(tmp_path)
        for path in (tmp_path / "camvid" / "val").iterdir():
            path.write_bytes(path.read_bytes()[:60])  # the header
        found = segmentation_set("camvid", tmp_path, "val").part([1, 0])
        for workers in (0, 1):
            batches = list(replace(found, workers=workers).label_batches(1))
            assert [ids for _, ids in batches] == [("val_001",), ("val_000",)]
            assert [labels[0, 1, 0].item() for labels, _ in batches] == [1, 0]
        with pytest.raises(InputError, match="cannot read the image"):
            list(found.batches(1))

    def test_large_scans_need_max_pixels(self, tmp_path):
        trees.camvid(tmp_path)
        few = segmentation_set("camvid", tmp_path, "val", max_pixels=24 * 40 - 1)
        with pytest.raises(InputError, match="max_pixels: expected images of at most 959"):
            few.samples[0]

    def test_labels_of_another_size_are_named_with_both_sizes(self, tmp_path):
        trees.camvid(tmp_path)
        path = tmp_path / "camvid" / "valannot" / "val_001.png"
        trees.write(path, np.zeros((24, 39)))
        found = segmentation_set("camvid", tmp_path, "val")
        with pytest.raises(InputError, match=r"val_001\.png: expected .* 24×40, got 24×39"):
            list(found.batches(2))

    def test_labels_that_are_no_class_are_named(self, tmp_path):
        trees.camvid(tmp_path)
        path = tmp_path / "camvid" / "valannot" / "val_000.png"
        trees.write(path, np.full((24, 40), 12))
        found = segmentation_set("camvid", tmp_path, "val")
        with pytest.raises(InputError, match="expected labels from 0 to 11 or 255, got 12"):
            list(found.batches(1))

    def test_labels_in_colours_are_refused(self, tmp_path):
        trees.camvid(tmp_path)
        trees.write(tmp_path / "camvid" / "valannot" / "val_000.png", trees.picture(0))
        found = segmentation_set("camvid", tmp_path, "val")
        with pytest.raises(InputError, match="one channel of 8 bits that holds labels, got RGB"):
            found.samples[0]

    def test_damaged_labels_are_named(self, tmp_path):
        trees.camvid(tmp_path)
        (tmp_path / "camvid" / "valannot" / "val_000.png").write_bytes(b"none")
        with pytest.raises(InputError, match=r"cannot read the labels .*val_000\.png"):
            segmentation_set("camvid", tmp_path, "val").samples[0]

    def test_resizing_keeps_labels_labels(self, tmp_path):
        trees.camvid(tmp_path)
        found = segmentation_set("camvid", tmp_path, "val", (12, 30))
        image, labels = found.samples[1]
        assert image.shape == (3, 12, 30) and labels.shape == (12, 30)
        assert set(labels.unique().tolist()) <= {1, 255} and (labels == 1).sum() > 300

    @pytest.mark.skipif(not CAMVID.exists(), reason="needs GPE_TEST_DATA/camvid.tar.gz")
    def test_real_camvid(self, tmp_path):
        """Three frames of each split, of the size and with the labels that its README tells."""
        with tarfile.open(CAMVID) as archive:
            members = [member for member in archive if member.isfile()]
            for split in ("train", "val", "test"):
                frames = sorted(m.name for m in members if f"/{split}/" in m.name)[:3]
                for name in frames:
                    labels = name.replace(f"/{split}/", f"/{split}annot/")[:-3] + "png"
                    for wanted in (name, labels):
                        archive.extract(wanted, tmp_path, filter="data")
        for split in ("train", "val", "test"):
            (batch,) = segmentation_set("camvid", tmp_path, split).batches(3)
            assert batch.images.shape == (3, 3, 360, 480)
            assert 5 <= len(batch.labels.unique()) <= 12 and (batch.labels == 3).any()


class TestCityscapes:
    def test_label_ids_become_train_ids(self, tmp_path):
        """7 road is 0, 11 building 2, 24 person 11, 33 bicycle 18."""
        found = segmentation_set("cityscapes", trees.cityscapes(tmp_path), "val")
        assert found.ids == ("aachen_000000_000016", "ulm_000000_000013")
        _, labels = found.samples[0]
        assert labels[0, :4].tolist() == [0, 2, 11, 18]
        assert [CLASSES[label] for label in (0, 2, 11, 18)] == [
            "road",
            "building",
            "person",
            "bicycle",
        ]
        assert len(CLASSES) == 19 and PALETTE[0] == (128, 64, 128)

    def test_ids_that_are_not_trained_on_are_ignored(self, tmp_path):
        """Of the 34 ids 15 are: 0 to 6, 9 and 10, 14 to 16, 18, 29 and 30."""
        ids = tuple(range(34))
        found = segmentation_set("cityscapes", trees.cityscapes(tmp_path, ids, (2, 34)), "val")
        labels = found.samples[0][1][0].tolist()
        ignored = {*range(7), 9, 10, 14, 15, 16, 18, 29, 30}
        assert {place for place, label in enumerate(labels) if label == 255} == ignored
        assert sorted(set(labels) - {255}) == list(range(19))

    def test_system_entries_are_left_out(self, tmp_path):
        trees.cityscapes(tmp_path)
        city = tmp_path / "leftImg8bit" / "val" / "ulm"
        (city / "._ulm_000000_000013_leftImg8bit.png").write_bytes(b"no image")
        (city.parent / ".DS_Store").write_bytes(b"no folder")
        (city.parent / "Thumbs.db").write_bytes(b"no folder")
        (city.parent / "up").symlink_to(city.parent)
        trees.write(city.parent / "__MACOSX" / "x.png", trees.picture(0))
        assert len(segmentation_set("cityscapes", tmp_path, "val")) == 2

    def test_missing_labels_and_folders_are_named(self, tmp_path):
        with pytest.raises(InputError, match=r"data: no cityscapes in .*leftImg8bit.*gtFine"):
            segmentation_set("cityscapes", tmp_path, "val")
        trees.cityscapes(tmp_path)
        labels = tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000013_gtFine_labelIds.png"
        labels.unlink()
        with pytest.raises(InputError, match=rf"data: 1 of 2 images have no labels.*{labels.name}"):
            segmentation_set("cityscapes", tmp_path, "val")


class TestVOC:
    def test_images_of_many_sizes_one_at_a_time(self, tmp_path):
        found = segmentation_set("voc", trees.voc(tmp_path), "val")
        shapes = [tuple(batch.labels.shape) for batch in found.batches(1)]
        assert shapes == [(1, 20, 30), (1, 24, 18)] and found.ids[0] == "2007_000000"
        labels = next(found.batches(1)).labels[0]
        assert (labels[0, :5] == 255).all() and (labels[1:] == 15).all()
        assert found.classes[15] == "person"
        with pytest.raises(InputError, match=r"batch_size: expected 1 .* got 2 .* 20×30, 24×18"):
            list(found.batches(2))
        (batch,) = segmentation_set("voc", tmp_path, "val", (16, 16)).batches(2)
        assert batch.images.shape == (2, 3, 16, 16)

    def test_missing_labels_and_folders_are_named(self, tmp_path):
        with pytest.raises(InputError, match=r"data: no voc in .*SegmentationClass"):
            segmentation_set("voc", tmp_path, "train")
        trees.voc(tmp_path)
        (tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2007_000001.png").unlink()
        with pytest.raises(InputError, match=r"data: 1 of 2 .*2007_000001\.png"):
            segmentation_set("voc", tmp_path, "train")

    def test_blank_lines_of_a_list_are_no_images(self, tmp_path):
        path = trees.voc(tmp_path) / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
        path.write_text("\n2007_000001\r\n\n")
        assert segmentation_set("voc", tmp_path, "val").ids == ("2007_000001",)
        path.write_text("\n")
        with pytest.raises(InputError, match="no images are listed for val"):
            segmentation_set("voc", tmp_path, "val")

    def test_the_palette_is_vocs(self):
        assert VOC_PALETTE[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
        assert VOC_PALETTE[15] == (192, 128, 128) and len(set(VOC_PALETTE)) == 21


def test_fewer_images_are_spread_over_the_set(tmp_path):
    trees.camvid(tmp_path, (("val", 9),))
    found = segmentation_set("camvid", tmp_path, "val", images=3)
    assert found.ids == ("val_000", "val_003", "val_006")
    assert found.samples[2][1].max() == 255 and (found.samples[2][1][1:] == 6).all()
    assert len(segmentation_set("camvid", tmp_path, "val", images=100)) == 9


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("kitti",), "data: expected one of streets, camvid, cityscapes, voc, got 'kitti'"),
        (("camvid", "absent"), "data: no camvid in absent: expected images in absent/val"),
        (("camvid", "absent", "dev"), "split: expected one of train, val, test, got 'dev'"),
        (("cityscapes", "absent", "dev"), "split: expected one of train, val, test, got 'dev'"),
        (("voc", "absent", "test"), "split: expected one of train, val, trainval, got 'test'"),
        (("streets", "absent", "val", (0, 64)), "size: expected at least 1, got 0"),
        (("voc", "absent"), "data: no voc in absent"),
    ],
)
def test_wrong_names_get_a_line(arguments, complaint):
    with pytest.raises(InputError) as error:
        segmentation_set(*arguments)
    assert str(error.value).startswith(complaint)


def test_no_images_are_refused():
    with pytest.raises(InputError, match="images: expected at least 1, got 0"):
        segmentation_set("streets", images=0)


def test_jpeg_images_with_png_labels(tmp_path):
    """As in the shared copy of CamVid."""
    trees.camvid(tmp_path)
    for path in (tmp_path / "camvid" / "val").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    assert len(segmentation_set("camvid", tmp_path, "val")) == 2
