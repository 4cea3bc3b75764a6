"""Images in the user's own folders and npz files: what they become, and what they mean for a run."""

import os
import shutil
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ablations import expand, read_dict
from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, TrainConfig, fit, summarize
from cnnjax.data import files
from cnnjax.data.loading import find_class_names, find_images, load_data
from cnnjax.data.settings import read_size
from cnnjax.runs.store import Store
from experiments.train import main

CLASSES = ("cat", "dog")
random = np.random.default_rng(0)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def make_folder(folder, train=6, test=2, size=(8, 10), seed=0):
    """Returns a folder of random colour images, and their pixels by path."""
    pixels = {}
    source = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name in CLASSES:
            for index in range(count):
                path = folder / split / name / f"{index}.png"
                pixels[path] = source.integers(0, 256, (*size, 3), np.uint8)
                save(path, pixels[path])
    return folder, pixels


def make_classes(folder, count=10):
    for name in CLASSES:
        for index in range(count):
            save(folder / name / f"{index}.png", random.integers(0, 256, (4, 4), np.uint8))
    return folder


def load(folder, **options):
    return load_data(find_images(DataConfig(f"folder:{folder}", **options)))


# What a folder becomes


def find_images_of(data, pixels):
    """Returns the training image of every file, with its label, by the name of the file."""
    found = {image.tobytes(): int(label) for image, label in zip(data.train.images, data.train.labels, strict=True)}
    return {path.relative_to(path.parents[1]).as_posix(): found.get(each.tobytes()) for path, each in pixels.items()}


def test_the_images_of_a_folder_are_its_files_and_the_classes_its_folders(tmp_path):
    folder, pixels = make_folder(tmp_path / "pets")
    data = load(folder)
    training = {path: each for path, each in pixels.items() if "train" in path.parts}
    expected = {f"{name}/{index}.png": label for label, name in enumerate(CLASSES) for index in range(6)}
    assert find_images_of(data, training) == expected
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    test = [pixels[folder / "test" / name / f"{index}.png"] for name in CLASSES for index in range(2)]
    np.testing.assert_array_equal(data.test.images, np.stack(test))
    assert (data.class_names, data.info.name, data.version) == (CLASSES, "pets", "folder")


def test_the_layer_table_of_a_run_is_for_the_images_of_its_folder(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    model = ModelConfig(filters=(4,), kernel_size=(3,), pool="none")
    table = summarize(RunConfig(model, data=DataConfig(f"folder:{folder}")))
    assert [layer.output_shape for layer in table.layers] == [(6, 8, 4), (192,), (2,)]
    assert table == summarize(model, (8, 10, 3), 2)


def test_every_part_of_the_training_images_has_all_classes_in_their_proportions(tmp_path):
    for name, count in (("cat", 40), ("dog", 20), ("eel", 10)):
        for split in ("train", "test"):
            for index in range(count if split == "train" else 1):
                save(tmp_path / "pets" / split / name / f"{index:02}.png", np.full((2, 2), index, np.uint8))
    data = load(tmp_path / "pets")
    for size in range(1, 71):
        for part in (data.train.labels[:size], data.train.labels[-size:]):
            assert np.abs(np.bincount(part, minlength=3) - size * np.array([4, 2, 1]) / 7).max() <= 1
    cats = data.train.images[data.train.labels == 0][:, 0, 0, 0]
    assert sorted(cats) == list(range(40))
    assert abs(np.corrcoef(cats, np.arange(40))[0, 1]) < 0.5  # not in the order of their names


def test_nested_images_belong_to_their_class_and_other_files_are_ignored(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    (folder / "train/cat/notes.txt").write_text("not an image")
    (folder / ".cache/cat").mkdir(parents=True)
    save(folder / "train/cat/2024/may.png", np.full((8, 10, 3), 7, np.uint8))
    data = load(folder)
    assert len(data.train) == 13
    (found,) = np.flatnonzero((data.train.images == 7).all(axis=(1, 2, 3)))
    assert data.train.labels[found] == 0


def test_images_of_several_sizes_are_refused_and_both_sizes_are_named(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    save(folder / "test/dog/9.png", np.zeros((12, 9, 3), np.uint8))
    with pytest.raises(InputError, match=r"vary in size: 10 x 8, 9 x 12 .*data\.size=32 resizes"):
        load(folder)


def test_images_are_resized_to_cover_the_size_and_cropped_at_their_middle(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200
    save(folder / "test/cat/0.png", wide)
    data = load(folder, size=4)
    assert data.image_shape == (4, 4, 3)
    assert data.test.images[0][:, 1:3].min() > 150
    assert load(folder, size="4x12").image_shape == (4, 12, 3)


def test_grey_images_have_one_channel_unless_another_number_is_asked_for(tmp_path):
    folder = make_classes(tmp_path / "grey")
    assert load(folder, test_split=0.2).image_shape == (4, 4, 1)
    assert load(folder, test_split=0.2, channels=3).image_shape == (4, 4, 3)
    save(folder / "cat/0.png", np.full((4, 4, 3), (250, 0, 0), np.uint8))
    assert load(folder, test_split=0.2).image_shape == (4, 4, 3)
    assert load(folder, test_split=0.2, channels=1).image_shape == (4, 4, 1)


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "LA", "I;16", "1"])
def test_images_of_every_mode_are_read(mode, tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    path = folder / "test/cat/0.png"
    plain = Image.fromarray(np.full((8, 10, 3), (200, 40, 40), np.uint8))
    if mode == "CMYK":
        path = path.with_suffix(".jpg")
        plain.convert(mode).save(path)
        os.remove(folder / "test/cat/0.png")
    elif mode == "I;16":
        Image.fromarray(np.full((8, 10), 100 * 256, np.uint16)).save(path)
    else:
        plain.convert(mode).save(path)
    first = load(folder).test.images[0]
    expected = {
        "I;16": np.full((8, 10, 3), 100),
        "P": np.asarray(plain.convert("P").convert("RGB")),
        "LA": np.full((8, 10, 3), 87),
        "1": np.asarray(plain.convert("1").convert("RGB")),
    }.get(mode, np.asarray(plain))
    assert np.abs(first.astype(int) - expected).max() <= 3


def test_photographs_are_turned_upright(tmp_path):
    folder, _ = make_folder(tmp_path / "pets", size=(8, 8))
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.rot90(upright)).save(folder / "test/cat/0.png", exif=exif)
    np.testing.assert_array_equal(load(folder).test.images[0], upright)


def test_what_is_transparent_becomes_white(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    save(folder / "test/cat/0.png", np.zeros((8, 10, 4), np.uint8))
    assert (load(folder).test.images[0] == 255).all()


# Test images drawn from the classes


def test_a_share_of_every_class_is_drawn_as_test_images(tmp_path):
    folder = make_classes(tmp_path / "all")
    data = load(folder, test_split=0.2)
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    found = {image.tobytes() for split in (data.train, data.test) for image in split.images}
    assert len(found) == 20


def test_the_draw_depends_on_its_seed_alone(tmp_path):
    first, second = make_classes(tmp_path / "first"), tmp_path / "second"
    shutil.copytree(first, second)
    assert load(first, test_split=0.3).sha256 == load(second, test_split=0.3).sha256
    assert load(first, test_split=0.3).sha256 != load(first, test_split=0.3, split_seed=1).sha256


# Sets larger than memory


def measure_peak(read, *arguments):
    """Returns what a function returns, and the most memory that Python and NumPy took meanwhile, in bytes."""
    tracemalloc.start()
    result = read(*arguments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, peak


def test_a_folder_is_decoded_in_less_memory_than_its_images_take(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK", 20)
    monkeypatch.setattr(files, "count_cores", lambda: 2)  # as every thread takes a MiB
    grey, colours = (random.integers(0, 256, (250, 128, 128, *channels), np.uint8) for channels in ((), (3,)))
    for index, pair in enumerate(zip(grey, colours, strict=True)):
        for name, pixels in zip(CLASSES, pair, strict=True):
            save(tmp_path / "pets" / ("test" if index == 249 else "train") / name / f"{index:03}.png", pixels)
    data, peak = measure_peak(files.read_folder, tmp_path / "pets", DataConfig(f"folder:{tmp_path / 'pets'}"))
    for label, expected in enumerate((np.repeat(grey[:249, ..., np.newaxis], 3, -1), colours[:249])):
        found = data.train.images[data.train.labels == label]
        assert {image.tobytes() for image in found} == {image.tobytes() for image in expected}
    np.testing.assert_array_equal(data.test.images[1], colours[249])
    assert peak < 0.3 * data.train.images.nbytes


def test_an_npz_file_is_unpacked_in_less_memory_than_its_images_take(tmp_path):
    images = random.integers(0, 256, (2000, 64, 64, 1), np.uint8)
    save_npz(tmp_path / "mine.npz", x_train=images, y_train=np.arange(2000) % 3, x_test=images[:3], y_test=np.arange(3))
    data, peak = measure_peak(files.read_npz, tmp_path / "mine.npz")
    np.testing.assert_array_equal(data.train.images, images)
    assert peak < 0.2 * images.nbytes


def test_without_a_cache_a_folder_is_decoded_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(save(tmp_path / "file.png", np.zeros((4, 4), np.uint8)) / "cache"))
    folder, pixels = make_folder(tmp_path / "pets")
    data = files.read_folder(folder, DataConfig(f"folder:{folder}"))
    np.testing.assert_array_equal(data.test.images[0], pixels[folder / "test/cat/0.png"])


# What cannot be read


def test_all_files_that_cannot_be_read_are_named_at_once_or_left_out(tmp_path):
    folder, pixels = make_folder(tmp_path / "pets")
    (folder / "train/cat/1.png").write_bytes(b"")
    (folder / "train/dog/2.png").write_bytes((folder / "train/dog/2.png").read_bytes()[:-60])
    (folder / "test/dog/0.png").write_text("hello")
    with pytest.raises(InputError, match=r"skip_corrupt=true leaves them out") as caught:
        load(folder)
    for name in ("train/cat/1.png", "test/dog/0.png"):
        assert str(folder / name) in str(caught.value)
    data = load(folder, skip_corrupt=True)
    assert (len(data.train), len(data.test)) == (10, 3)
    labels = find_images_of(data, {path: each for path, each in pixels.items() if "train" in path.parts})
    assert {name for name, label in labels.items() if label is None} == {"cat/1.png", "dog/2.png"}


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda folder: None, {}, "there is no such folder"),
        (lambda folder: folder.write_text("x"), {}, "is not a folder"),
        (lambda folder: folder.mkdir(), {}, "has no folders train and test"),
        (lambda folder: folder.mkdir(), {"test_split": 0.2}, "has 0 classes"),
        (make_classes, {}, r"has no folders train and test; give data\.test_split=0\.2"),
        (make_folder, {"test_split": 0.2}, "has the folders train and test; leave it out"),
        (
            lambda folder: [make_folder(folder), shutil.rmtree(folder / "test/dog")],
            {},
            "class 'dog' has no image in test",
        ),
        (lambda folder: [make_folder(folder), (folder / "train/eel").mkdir()], {}, "'eel' has no image in train"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused_in_one_line(prepare, options, message, tmp_path):
    prepare(tmp_path / "pets")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "pets", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 32}, "data.size: is for images in a folder"),
        ({"skip_corrupt": True}, "data.skip_corrupt: is for images in a folder"),
        ({"name": "npz:x.npz", "channels": 3}, "data.channels: is for images in a folder"),
        ({"name": "folder:x", "split_seed": 3}, "data.split_seed: has no effect without data.test_split"),
        ({"name": "folder:x", "sha256": "0" * 64}, "data.sha256: is found from the files"),
        ({"name": "folder:"}, "is not a dataset name"),
        ({"name": "floder:x"}, "is not a dataset name"),
        ({"name": "folder:x", "size": 0}, "data.size=0: must be such as 32"),
        ({"name": "folder:x", "size": "32x"}, "data.size='32x': must be such as 32"),
        ({"name": "folder:x", "channels": 2}, r"data.channels=2"),
        ({"name": "folder:x", "test_split": 1.0}, r"data.test_split=1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DataConfig(**options)


@pytest.mark.parametrize("value", [32, "32", [32, 32], "32x32"])
def test_a_size_has_one_normal_form(value):
    assert read_size(value, "data.size") == (32, 32)


# npz files


def save_npz(path, **changes):
    images, labels = random.integers(0, 256, (9, 5, 5), np.uint8), np.arange(9) % 3
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def test_an_npz_file_is_read_as_keras_writes_it(tmp_path):
    arrays = save_npz(tmp_path / "mine.npz")
    data = load_data(find_images(DataConfig(f"npz:{tmp_path / 'mine.npz'}")))
    np.testing.assert_array_equal(data.train.images[..., 0], arrays["x_train"])
    np.testing.assert_array_equal(data.test.labels, arrays["y_test"])
    assert (data.classes, data.image_shape) == (3, (5, 5, 1))


def test_an_npz_file_without_an_array_or_not_whole_is_refused(tmp_path):
    save_npz(tmp_path / "mine.npz", y_test=None)
    with pytest.raises(InputError, match="has no array 'y_test'; must have x_train, y_train, x_test, y_test"):
        find_images(DataConfig(f"npz:{tmp_path / 'mine.npz'}"))
    save_npz(tmp_path / "mine.npz", x_train=np.zeros((9, 5)))
    with pytest.raises(InputError, match=r"data.name='npz:.*: images are float64 \(9, 5\)"):
        find_images(DataConfig(f"npz:{tmp_path / 'mine.npz'}"))
    for content in (b"", b"PK\x03\x04", b"x" * 99):
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            find_images(DataConfig(f"npz:{tmp_path / 'mine.npz'}"))
    with pytest.raises(InputError, match="No such file"):
        find_images(DataConfig(f"npz:{tmp_path / 'absent.npz'}"))


# What they mean for a run


def find_key(folder, **options):
    return RunConfig(data=find_images(DataConfig(f"folder:{folder}", **options))).key


def test_the_content_is_in_the_key_and_the_path_is_not(tmp_path):
    first, pixels = make_folder(tmp_path / "first")
    second, _ = make_folder(tmp_path / "second")
    key = find_key(first)
    assert find_key(second) == key
    path = first / "test/cat/0.png"
    os.utime(path, (0, 0))
    assert find_key(first) == key
    save(path, pixels[path] ^ 1)
    assert find_key(first) != key


def test_how_the_files_were_read_is_not_in_the_key(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    assert find_key(folder, channels=3) == find_key(folder) == find_key(folder, size="8x10")


def test_a_run_has_no_key_before_its_images_are_read():
    with pytest.raises(InputError, match="its images have not been read"):
        _ = RunConfig(data=DataConfig("folder:pets")).key


def test_unchanged_files_are_not_read_again_and_files_that_are_gone_are_remembered(tmp_path, monkeypatch):
    folder, _ = make_folder(tmp_path / "pets")
    data = find_images(DataConfig(f"folder:{folder}", train_size=3))
    assert (data.name, data.train_size) == ("folder", 3)
    monkeypatch.setattr(files, "read_folder", None)
    assert find_images(DataConfig(f"folder:{folder}", train_size=3)) == data
    shutil.rmtree(folder)
    assert find_images(DataConfig(f"folder:{folder}", train_size=3)) == data


def test_without_a_copy_in_the_cache_the_error_says_what_to_give(tmp_path, monkeypatch):
    data = find_images(DataConfig(f"folder:{make_folder(tmp_path / 'pets')[0]}"))
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"the cache has no copy of these images .* give data\.name=folder:PATH"):
        load_data(data)


def test_a_network_is_trained_on_a_folder_and_its_classes_have_names(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    config = RunConfig(
        ModelConfig(filters=(2,), kernel_size=3),
        TrainConfig(epochs=1, batch_size=4),
        DataConfig(f"folder:{folder}", size=8),
    )
    run = fit(config, tmp_path / "runs")
    assert run.record.status == "completed"
    (stored,) = Store(tmp_path / "runs").find_all().values()
    assert (stored.config.data.name, stored.config.data.size) == ("folder", None)
    assert find_class_names(stored.config.data, 2) == CLASSES
    assert fit(config, tmp_path / "runs").key == run.key


def test_the_images_of_a_stored_run_can_be_handed_over_as_workers_do(tmp_path):
    data = find_images(DataConfig(f"folder:{make_folder(tmp_path / 'pets')[0]}"))
    config = RunConfig(ModelConfig(filters=(2,), kernel_size=3), TrainConfig(epochs=1, batch_size=4), data)
    assert fit(config, None, dataset=load_data(data)).key == config.key
    other = load_data(find_images(DataConfig(f"folder:{make_folder(tmp_path / 'other', seed=1)[0]}")))
    with pytest.raises(InputError, match="dataset: has the sha256"):
        fit(config, None, dataset=other)


def test_a_folder_that_was_read_is_no_npz_file(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    find_images(DataConfig(f"folder:{folder}"))
    with pytest.raises(InputError, match="is not a file"):
        find_images(DataConfig(f"npz:{folder}"))


def test_a_study_sweeps_the_size_of_its_images(tmp_path):
    folder, _ = make_folder(tmp_path / "pets")
    study = read_dict(
        {
            "title": "Does the resolution matter?",
            "base": {"data.name": f"folder:{folder}", "model.filters": [2], "model.kernel_size": 3},
            "sweep": {"grid": {"data.size": [6, "8x10"]}},
            "seeds": 2,
        },
        "sizes",
    )
    grid = expand(study)
    assert [cell.labels for cell in grid.cells] == [{"data.size": "6"}, {"data.size": "8x10"}]
    assert [load_data(cell.config.data).image_shape for cell in grid.cells] == [(6, 6, 3), (8, 10, 3)]


def test_a_folder_that_is_not_there_is_a_mistake_of_a_study(tmp_path):
    study = read_dict(
        {
            "title": "?",
            "base": {"data.name": f"folder:{tmp_path / 'absent'}"},
            "sweep": {"grid": {"model.padding": ["same"]}},
        },
        "x",
    )
    with pytest.raises(InputError, match="there is no such folder"):
        expand(study)


def test_the_command_line_trains_on_a_folder(tmp_path, capsys):
    folder, _ = make_folder(tmp_path / "pets")
    words = [
        "--data.name",
        f"folder:{folder}",
        "--data.size",
        "8",
        "--model.filters",
        "[2]",
        "--model.kernel-size",
        "3",
    ]
    assert main([*words, "--train.epochs", "1", "--train.batch-size", "4", "--out", str(tmp_path / "runs")]) == 0
    assert "Test accuracy" in capsys.readouterr().out
