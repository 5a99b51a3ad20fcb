"""Images in one folder per class, and the recipe of Figure 1."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sdetools import recipes
from sdetools.cli import main
from sdetools.recipes import imagefolder, networks, resnet50_imagenet
from sdetools.recipes.datasets import MissingData
from sdetools.recipes.training import Trainer


def write_folder(place, classes=("n01440764", "n01443537"), train=6, val=3, size=(70, 50)):
    """Write random images in ImageNet's layout; one per class is grey, like some of ImageNet's."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name in classes:
            (place / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                values = rng.integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
                image = Image.fromarray(values)
                (image.convert("L") if i == 0 else image).save(place / part / name / f"{name}_{i}.JPEG")


def test_folders_are_read_as_they_are_unpacked(tmp_path):
    write_folder(tmp_path)
    train, test = imagefolder.folders(tmp_path)
    assert len(train) == 12 and len(test) == 6 and train.classes == 2
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert all(train.names[n] == file.parent.name for file, n in zip(train.files, train.labels.tolist()))
    part = train.subset(torch.tensor([7, 1]))
    assert part.labels.tolist() == [1, 0] and part.files[0] == train.files[7]


def test_missing_and_damaged_files_are_reported(tmp_path):
    with pytest.raises(MissingData, match=r"must have one folder per class.*--set data="):
        imagefolder.folders(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "val" / "n09999999").mkdir()
    with pytest.raises(MissingData, match="n09999999 contains no"):
        imagefolder.folders(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "n09999999" / "a.png")
    with pytest.raises(ValueError, match="must contain the same classes; 'n09999999'"):
        imagefolder.folders(tmp_path)
    bad = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"n01440764_1.JPEG must be an image"):
        imagefolder.open_image(bad)


def test_a_batch_is_a_function_of_seed_and_number_in_any_order_of_requests(tmp_path):
    write_folder(tmp_path)
    train, _ = imagefolder.folders(tmp_path)
    made = [imagefolder.FolderBatches(train, 4, seed=3, side=16, stride=stride) for stride in (1, 1, 2)]
    straight = [made[0].at(k) for k in range(5)]
    assert straight[0][0].shape == (4, 3, 16, 16)
    for k in (4, 0, 3, 3, 1):
        again = made[1].at(k)
        assert torch.equal(again[0], straight[k][0]) and torch.equal(again[1], straight[k][1])
    for k in range(5):
        mine = made[2].at(k, 1, 2)
        assert torch.equal(mine[0], straight[k][0][2:]) and torch.equal(mine[1], straight[k][1][2:])
    other = imagefolder.FolderBatches(train, 4, seed=4, side=16).at(0)
    assert not torch.equal(other[0], straight[0][0])
    with pytest.raises(ValueError, match="`pieces` must divide the batch size, 4; got 3"):
        made[0].at(0, 0, 3)


def test_crops_have_the_specified_areas_aspect_ratios_and_flips():
    """On an image whose pixels encode their position; frequencies by z-tests with a false-alarm rate of 1e-6."""
    values = np.zeros((200, 300, 3), dtype=np.uint8)
    values[..., 0], values[..., 1] = np.linspace(0, 255, 300)[None, :], np.linspace(0, 255, 200)[:, None]
    image, rng = Image.fromarray(values), np.random.default_rng(5)
    areas, ratios, flips = [], [], 0
    for _ in range(400):
        out = np.array(imagefolder.random_crop(image, 64, rng), dtype=float)
        flips += bool(out[32, 0, 0] > out[32, -1, 0])
        # From the centers of the outer pixels to whole sides; 255 levels over 300 and 200 pixels.
        w = abs(out[32, -1, 0] - out[32, 0, 0]) / 255 * 300 * 64 / 63
        h = abs(out[-1, 32, 1] - out[0, 32, 1]) / 255 * 200 * 64 / 63
        areas.append(w * h / 60_000), ratios.append(w / h)
    assert abs(flips - 200) < 4.9 * math.sqrt(100)
    assert min(areas) > 0.06 and max(areas) < 1.05 and np.quantile(areas, 0.05) < 0.2 and np.quantile(areas, 0.95) > 0.6
    assert min(ratios) > 0.72 and max(ratios) < 1.4
    center = np.array(imagefolder.center_crop(image, 64), dtype=float)
    assert center[32, 0, 0] == pytest.approx(255 * (150 - 87.5) / 300, abs=3)
    assert center[0, 32, 1] == pytest.approx(255 * 12.5 / 200, abs=3)


def test_the_schedule_is_that_of_goyal_et_al():
    """Batch 8192: from 0.1 to 3.2 in equal increments over 5 epochs, then a tenth from epochs 30, 60 and 80 on. Up to batch 256, no warm-up at 0.1 B / 256."""
    settings = resnet50_imagenet.Settings()
    for size, peak in ((8192, 3.2), (1024, 0.4), (256, 0.1), (64, 0.025)):
        per_epoch, start = 1_281_167 // size, min(0.1, peak)

        def rate(k):
            return peak * resnet50_imagenet.rate_factor(settings, k, size, peak, per_epoch)

        rising = range(0, 5 * per_epoch, 39)
        assert [rate(k) for k in rising] == pytest.approx([start + (peak - start) * k / (5 * per_epoch) for k in rising])
        for epoch, expected in ((5, 1), (30, 0.1), (60, 0.01), (80, 0.001)):
            assert rate(epoch * per_epoch) == pytest.approx(peak * expected)
            assert epoch == 5 or rate(epoch * per_epoch - 1) == pytest.approx(peak * expected * 10)
    assert resnet50_imagenet.rate_factor(settings, 0, 8192, 0.05, 156) == 1  # a peak below the small batch's rate has no warm-up


def test_weight_decay_leaves_out_gains_and_offsets_alone():
    """Of 25,557,032 parameters, 2 * 26,560 are gains and offsets; the bias of the last layer decays."""
    model = networks.ResNet(*networks.RESNET50)
    decayed, plain = resnet50_imagenet.groups(model, 1e-4)
    assert decayed["weight_decay"] == 1e-4 and "weight_decay" not in plain
    assert [sum(p.numel() for p in group["params"]) for group in (decayed, plain)] == [25_503_912, 53_120]
    assert any(p is model.fc.bias for p in decayed["params"])


def test_the_protocol_is_that_of_goyal_et_al(tmp_path):
    """An evaluation per epoch, the median of the last five, five runs, and batch normalisation over 32 images whatever the batch size."""
    write_folder(tmp_path, train=128, val=1, size=(16, 16))
    given = [f"data={tmp_path}", "stem=4", "depths=1", "widths=8", "layer=basic", "size=8", "held_out=0.1"]
    settings = recipes.settings_of(resnet50_imagenet, False, given)
    assert (settings.seeds, settings.last, settings.epochs, settings.evaluations) == (5, 5, 90, 90)
    for size, count in ((256, 8), (64, 2)):
        task = resnet50_imagenet.task(settings, "", "SGDM", size, 0.1, 10, "cpu")
        seen = []
        task.model.bn1.register_forward_hook(lambda part, inputs, output: seen.append(len(inputs[0])))
        for piece in range(task.pieces):
            task.loss_of(task.model, task.batch(0, piece, task.pieces))
        assert seen == [32] * count and task.every == 256 // size and task.steps == 90 * 256 // size


def test_crops_are_those_of_torchvision(tmp_path):
    library = networks.torchvision()
    if library is None:
        pytest.skip("torchvision is not installed, or does not import beside this torch")
    transforms, write = library.transforms, write_folder
    write(tmp_path, size=(90, 61))
    train, _ = imagefolder.folders(tmp_path)
    theirs = library.datasets.ImageFolder(tmp_path / "train")
    assert [(str(file), n) for file, n in zip(train.files, train.labels.tolist())] == theirs.samples
    whole = transforms.Compose([
        transforms.Resize(32), transforms.CenterCrop(28), transforms.ToTensor(), transforms.Normalize(imagefolder.MEAN, imagefolder.STD)
    ])  # fmt: skip
    for file in train.files:
        image = imagefolder.open_image(file)
        assert torch.equal(imagefolder.normalised(imagefolder.center_crop(image, 28)), whole(image))
        for seed in range(5):
            out = imagefolder.random_crop(image, 28, np.random.default_rng(seed))
            left, top, w, h, flipped = box(image.size, np.random.default_rng(seed))
            expected = transforms.functional.resized_crop(image, top, left, h, w, [28, 28])
            assert np.array_equal(np.array(out), np.array(expected)[:, ::-1] if flipped else np.array(expected))


def box(size, draws):
    """Return left, top, width, height and flip of a random crop, by torchvision's recipe with NumPy's draws."""
    for _ in range(10):
        area, ratio = size[0] * size[1] * draws.uniform(0.08, 1), math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= size[0] and 0 < h <= size[1]:
            left, top = int(draws.integers(size[0] - w + 1)), int(draws.integers(size[1] - h + 1))
            return left, top, w, h, draws.random() < 0.5
    raise AssertionError("no crop fits")


@pytest.mark.slow
def test_full_size_makes_two_steps_on_files_of_the_real_format(tmp_path):
    """ResNet-50 at 224 pixels has the number of parameters of K. He et al. with 1,000 classes, and takes two steps."""
    write_folder(tmp_path, train=4, val=1, size=(300, 240))
    given = [
        f"data={tmp_path}",
        "batch=4",
        "seeds=1",
        "grid=0",
        "epochs=1",
        "micro=2",
        "evaluations=1",
        "held_out=0.25",
        "threads=2",
    ]
    settings = recipes.settings_of(resnet50_imagenet, False, given)
    assert sum(p.numel() for p in resnet50_imagenet.network(settings, 3, 1000).parameters()) == 25_557_032
    outcome = resnet50_imagenet.main(settings, Trainer(tmp_path / "out", "full"))
    for name in resnet50_imagenet.METHODS:
        (run,) = outcome.runs[4, name]
        assert run.final["step"] == 2 and np.isfinite(run.final["test_loss"])


TINY = ["train", "resnet50-imagenet", "--miniature", "--set", "seeds=2", "--set", "batch=100,400", "--set", "epochs=0.2"]


@pytest.mark.slow
def test_the_command_searches_trains_and_resumes(tmp_path):
    pytest.importorskip("mlxtend")
    command = [*TINY, "--set", "grid=0,1", "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["batch", "100", "400"]
    assert "is at an end of the grid" in first.stderr
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert {"search-sgdm-b100-lr0.1-seed1", "search-sgd-b400-lr0.2-seed1"} <= runs
    log = (tmp_path / "out" / "runs" / "search-sgd-b100-lr0.1-seed1" / "log.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in log]
    start = 0.1 * 100 / 256 / 0.1  # beside the peak of SGDM; that of SGD is 0.1 / (1 - 0.9)
    assert rates == pytest.approx([start + (1 - start) * k / (0.45 * 32) for k in range(6)])
    again = CliRunner().invoke(main, command)
    assert again.stdout == first.stdout


def test_the_command_reports_invalid_input(tmp_path):
    for more, message in (
        (["--set", "lr=0"], "`lr` must be positive"),
        (["--set", "batch=64,-1"], "`batch` must be positive"),
        (["--set", "colour=red"], "--set must name one of"),
        (["--set", "clip=often"], "`clip` must be a number"),
        (["--set", "grid="], "`grid` must not be empty"),
        (["--set", "source=cats"], "`source` must be one of"),
        (["--set", f"data={tmp_path}"], "the images are missing"),
        (["--miniature", "--set", "batch=99999"], "at most the number of samples, 3200"),
    ):
        done = CliRunner().invoke(main, ["train", "resnet50-imagenet", *more, "--out", str(tmp_path / "out")])
        assert done.exit_code == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.output


def test_a_setting_has_its_earlier_name_for_one_release():
    with pytest.warns(DeprecationWarning, match="`held` is now `held_out`"):
        assert recipes.settings_of(resnet50_imagenet, True, ["held=0.25"]).held_out == 0.25
