"""What of a folder is listed: system entries, links, pipes, numbers, the names of splits."""

import os
import socket

import pytest

from gpe.data import folder, load, scan, stream_test
from gpe.data.folder import decode
from gpe.errors import InputError
from tests.data.test_folder import write, write_tree

SYSTEM = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "lost+found", "$RECYCLE.BIN"]
SYSTEM_FILES = ["._x.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"]


def names(files, root):
    return [os.path.relpath(file, root) for file in files]


class TestSystemEntries:
    @pytest.mark.parametrize("name", SYSTEM)
    @pytest.mark.parametrize("place", ["", "train", "test", "train/cat"])
    def test_folders_are_no_classes_and_their_images_are_not_read(self, tmp_path, name, place):
        for part in ("train", "test"):
            write_tree(tmp_path / part, count=2)
        write(tmp_path / place / name / "x.png")
        write(tmp_path / place / name / "cat" / "x.png")
        train, test = folder.files(tmp_path, seed=0)
        assert train.classes == test.classes == ("cat", "dog")
        assert len(train.paths) == len(test.paths) == 4

    @pytest.mark.parametrize("name", SYSTEM_FILES)
    def test_files_are_no_images(self, tmp_path, name):
        write_tree(tmp_path, count=2)
        for place in (tmp_path, tmp_path / "cat"):
            (place / name).write_bytes(b"no image")
        assert len(folder.test_files(tmp_path).paths) == 4

    def test_a_class_that_holds_nothing_else_is_empty(self, tmp_path):
        write_tree(tmp_path, count=2)
        write(tmp_path / "fish" / ".ipynb_checkpoints" / "x.png")
        with pytest.raises(InputError, match="no images for the classes fish"):
            folder.test_files(tmp_path)


class TestLinks:
    def test_two_loops_list_each_image_once(self, tmp_path):
        write_tree(tmp_path, count=2)
        (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
        (tmp_path / "cat" / "up").symlink_to(tmp_path)
        (tmp_path / "dog" / "up").symlink_to(tmp_path.parent)
        (tmp_path / "loop").symlink_to(tmp_path)
        found = folder.test_files(tmp_path)
        assert found.classes == ("cat", "dog") and found.labels.tolist() == [0, 0, 1, 1]

    def test_loops_of_two_folders_inside_a_class(self, tmp_path):
        write_tree(tmp_path, count=1)
        for one, other in (("a", "b"), ("b", "a")):
            write(tmp_path / "cat" / one / "x.png")
            (tmp_path / "cat" / one / "to").symlink_to(tmp_path / "cat" / other)
        assert len(folder.test_files(tmp_path).paths) == 4

    def test_links_from_class_to_class_give_no_second_label(self, tmp_path):
        write_tree(tmp_path, count=2)
        (tmp_path / "cat" / "more").symlink_to(tmp_path / "dog")
        assert folder.test_files(tmp_path).labels.tolist() == [0, 0, 1, 1]
        (tmp_path / "hound").symlink_to(tmp_path / "dog")
        with pytest.raises(InputError, match="links from one class to another"):
            folder.test_files(tmp_path)

    def test_links_to_elsewhere_are_followed(self, tmp_path):
        write_tree(tmp_path / "store", count=3)
        (tmp_path / "set" / "one").mkdir(parents=True)
        (tmp_path / "set" / "cat").symlink_to(tmp_path / "store" / "cat")
        (tmp_path / "set" / "one" / "x.png").symlink_to(tmp_path / "store" / "dog" / "000.png")
        found = folder.test_files(tmp_path / "set")
        assert found.classes == ("cat", "one") and found.labels.tolist() == [0, 0, 0, 1]

    def test_a_link_that_leads_nowhere_is_named_when_it_is_read(self, tmp_path):
        write_tree(tmp_path, count=2)
        (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        with pytest.raises(InputError, match=r"cannot read the image .*gone\.png"):
            load(tmp_path, test_images=2)

    def test_links_to_themselves(self, tmp_path):
        write_tree(tmp_path, count=2)
        for path in (tmp_path / "fish", tmp_path / "cat" / "own", tmp_path / "dog" / "own.png"):
            path.symlink_to(path)
        with pytest.warns(UserWarning, match="links of .* lead nowhere, and are left out: fish"):
            assert len(folder.test_files(tmp_path).paths) == 5
        with pytest.raises(InputError, match=r"cannot read the image .*own\.png"):
            decode(folder.test_files(tmp_path).paths, 8)

    def test_pipes_and_sockets_are_not_waited_for(self, tmp_path, monkeypatch):
        write_tree(tmp_path, count=2)
        os.mkfifo(tmp_path / "cat" / "pipe.png")
        monkeypatch.chdir(tmp_path / "dog")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
        os.mkfifo(tmp_path / "pipe")
        assert len(load(tmp_path)[0]) + len(load(tmp_path)[1]) == 4


class TestOrder:
    def test_numbered_classes_come_in_the_order_of_their_numbers(self, tmp_path):
        write_tree(tmp_path, classes=[str(number) for number in range(12)], count=1)
        with pytest.warns(UserWarning, match="are numbers, and come in their order"):
            found = folder.test_files(tmp_path)
        assert found.classes == tuple(map(str, range(12)))
        assert names(found.paths, tmp_path)[10:] == ["10/000.png", "11/000.png"]

    def test_one_name_that_is_none_makes_all_of_them_words(self):
        assert scan.in_order(["10", "9", "b"]) == ["10", "9", "b"]


class TestSplits:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("Train", "Test"),
            ("training", "TESTING"),
            ("TRAIN", "val"),
            ("train", "Validation"),
            ("Training", "valid"),
        ],
    )
    def test_common_names_in_any_case(self, tmp_path, train, test):
        write_tree(tmp_path / train, count=3)
        write_tree(tmp_path / test, count=2)
        found = folder.files(tmp_path, seed=0)
        assert [len(part.paths) for part in found] == [6, 4] and found[0].classes == ("cat", "dog")

    def test_two_folders_of_one_split_are_refused(self, tmp_path):
        for name in ("train", "Training", "test"):
            write_tree(tmp_path / name, count=1)
        with pytest.raises(InputError, match=r"one folder a split in .*, got Training and train"):
            folder.files(tmp_path, seed=0)

    def test_scoring_lists_the_test_part_alone(self, tmp_path):
        for part in ("train", "test"):
            write_tree(tmp_path / part, count=2)
        for file in (tmp_path / "train" / "cat").iterdir():
            file.unlink()
        assert len(stream_test(tmp_path)) == 4
        with pytest.raises(InputError, match="no images for the classes cat"):
            folder.files(tmp_path, seed=0)


class TestDepth:
    @pytest.mark.parametrize(("above", "got"), [("Pets", "cat, dog"), ("Pets/all", "all")])
    def test_one_folder_too_high(self, tmp_path, above, got):
        write_tree(tmp_path / above, count=2)
        with pytest.raises(
            InputError, match=rf"got folders instead of images in Pets: {got}\. Are"
        ):
            folder.files(tmp_path, seed=0)

    def test_one_folder_too_high_with_splits(self, tmp_path):
        for part in ("train", "test"):
            write_tree(tmp_path / "Pets" / part, count=2)
        with pytest.raises(InputError, match="got folders instead of images in Pets: test, train"):
            folder.files(tmp_path, seed=0)

    def test_classes_one_folder_too_deep(self, tmp_path):
        for group, classes in (("animal", ("cat", "dog")), ("vehicle", ("bus", "car"))):
            write_tree(tmp_path / group, classes=classes, count=2)
        with pytest.raises(
            InputError, match=r"images in animal: cat, dog\. Are its classes nested"
        ):
            folder.files(tmp_path, seed=0)

    def test_groups_of_one_class_each(self, tmp_path):
        write(tmp_path / "animal" / "cat" / "x.png")
        write(tmp_path / "vehicle" / "bus" / "x.png")
        with pytest.raises(InputError, match="images in vehicle: bus, cat"):
            folder.files(tmp_path, seed=0)

    def test_tiny_imagenets_folder_in_each_class(self, tmp_path):
        for name in ("n01443537", "n01629819"):
            write(tmp_path / name / "images" / "x.png")
            (tmp_path / name / "boxes.txt").write_text("x")
        assert folder.test_files(tmp_path).classes == ("n01443537", "n01629819")
