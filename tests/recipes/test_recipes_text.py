"""Prompts, file formats of the tasks, and small few-shot runs; at full size, two steps of RoBERTa-large's configuration."""

import json

import pytest
import torch
from click.testing import CliRunner

from sdetools import recipes
from sdetools.cli import main
from sdetools.recipes import text
from sdetools.recipes.datasets import MissingData
from sdetools.recipes.training import Trainer

transformers = pytest.importorskip("transformers", reason="models and tokenisers are those of transformers")
tokenizers = pytest.importorskip("tokenizers", reason="the test trains a tokeniser")
roberta_few_shot = recipes.recipe("roberta-few-shot")

WORDS = "terrible great bad okay good No Yes Maybe Description Entity Expression Human Location Number"


def tokenizer(mask=True):
    """Train a byte-level tokeniser on a few sentences with the label words."""
    made = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(
        [f"It was {word}." for word in WORDS.split()] * 20, vocab_size=400, special_tokens=special, show_progress=False
    )
    names = {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    if mask:
        names["mask_token"] = "<mask>"
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **names)


def write_model(folder, mask=True, **shape):
    """Write a random RoBERTa in the Hugging Face format, with weights in safetensors unless it is large."""
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 400}
    config = transformers.RobertaConfig(**(small | {"max_position_embeddings": 66} | shape))
    if shape:
        config.save_pretrained(folder)
    else:
        torch.manual_seed(0)
        transformers.RobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer(mask).save_pretrained(folder)
    return folder


def write_sst2(folder, count=40):
    """Write examples in GLUE's format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("train", count), ("dev", 20)):
        rows = [f"film number {i} is {'a great good one' if i % 2 else 'bad , terrible'} \t{i % 2}" for i in range(n)]
        (folder / f"{name}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")


def test_the_tasks_file_formats(tmp_path):
    write_sst2(tmp_path / "SST-2")
    train, test = text.TASKS["sst-2"].read("sst-2", tmp_path)
    assert len(train) == 40 and len(test) == 20 and train[1] == text.Example(1, ("film number 1 is a great good one ",))

    def pair(folder, names, content):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / name).write_text(content)

    pair("sst-5", ("train.csv", "test.csv"), '4,"so, great"\n0,bad\n')
    pair("trec", ("train_5500.label", "TREC_10.label"), "NUM:dist How far is it ?\nABBR:exp What is LASER ?\n")
    head = "gold_label\tsentence1_parse\tsentence1\tsentence2\n"
    pair("MNLI", ("train.tsv", "dev_matched.tsv"), head + "neutral\t(x)\tOne.\tTwo.\nentailment\t(x)\tThree.\tFour.\n")
    rows = [{"gold_label": label, "sentence1": "A.", "sentence2": "B."} for label in ("-", "contradiction")]
    pair("SNLI", ("snli_1.0_train.jsonl", "snli_1.0_test.jsonl"), "\n".join(map(json.dumps, rows)) + "\n")
    found = {name: text.TASKS[name].read(name, tmp_path)[1] for name in ("sst-5", "trec", "mnli", "snli")}
    assert found["sst-5"] == [text.Example(4, ("so, great",)), text.Example(0, ("bad",))]
    assert found["trec"] == [text.Example(5, ("How far is it ?",)), text.Example(2, ("What is LASER ?",))]
    assert found["mnli"] == [text.Example(2, ("One.", "Two.")), text.Example(1, ("Three.", "Four."))]
    assert found["snli"] == [text.Example(0, ("A.", "B."))]


def test_missing_and_damaged_files_are_reported(tmp_path):
    with pytest.raises(MissingData, match=r"sst-2 is missing: none of train.tsv.*--set data="):
        text.TASKS["sst-2"].read("sst-2", tmp_path)
    write_sst2(tmp_path)
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(MissingData, match=r"sst-2 is incomplete.*dev.tsv"):
        text.TASKS["sst-2"].read("sst-2", tmp_path)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nfine\t7\n")
    with pytest.raises(
        ValueError, match=r"dev.tsv must contain one example per row; after 0 examples a label must be one of 0, 1; got '7'"
    ):
        text.TASKS["sst-2"].read("sst-2", tmp_path)
    (tmp_path / "dev.tsv").write_text("sentence\tjudgement\nfine\t1\n")
    with pytest.raises(ValueError, match=r"the column 'label' is missing"):
        text.TASKS["sst-2"].read("sst-2", tmp_path)
    with pytest.raises(MissingData, match=r"the language model is missing.*roberta-large"):
        text.pretrained(str(tmp_path))
    write_model(tmp_path / "pickled", vocab_size=400)
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(MissingData, match=r"contains no \*.safetensors"):
        text.pretrained(str(tmp_path / "pickled"))


def test_subsets_are_disjoint_have_k_examples_per_class_and_are_functions_of_the_seed():
    pool = [text.Example(n % 2, (str(n),)) for n in range(60)]

    def never(n, sentence):
        pytest.fail(sentence)

    train, dev = text.subset(pool, ("a", "b"), 10, 10, 13, never)
    assert [sum(e.label == n for e in part) for part in (train, dev) for n in (0, 1)] == [10] * 4
    assert not set(train) & set(dev)
    assert text.subset(pool, ("a", "b"), 10, 10, 13, never) == (train, dev) != text.subset(pool, ("a", "b"), 10, 10, 21, never)
    reports = []
    train, dev = text.subset(pool, ("a", "b"), 20, 4, 13, never)
    assert len(train) == 40 and len(dev) == 8 and not set(train) & set(dev)
    train_few, rest = text.subset(pool[:30], ("a", "b"), 10, 10, 13, lambda n, sentence: reports.append((n, sentence)))
    assert (
        len(train_few) == 20
        and len(rest) == 10
        and not set(train_few) & set(rest)
        and [n for n, _ in reports] == [0, 1]
        and "has 15 examples" in reports[0][1]
    )
    with pytest.raises(ValueError, match="'c' must have at least two examples; got 0"):
        text.subset(pool, ("a", "b", "c"), 5, 5, 13, never)


def test_long_sentences_are_truncated_and_the_template_is_not():
    own = tokenizer()
    example = text.Example(0, ("A great film. " * 40, "Yes it was good. " * 10))
    for template in ("{0} It was<mask>.", "<mask>: {0}", "{0-}?<mask>, {1l}"):
        made = text.prompts([example, text.Example(1, ("Good.", "Bad."))], template, own, 30)
        assert len(made.ids[0]) == 30 and len(made.ids[1]) < 30
        for ids, position in zip(made.ids, made.positions):
            assert ids[position] == own.mask_token_id and ids.count(own.mask_token_id) == 1
            assert (ids[0], ids[-1]) == (own.cls_token_id, own.sep_token_id)
    assert own.decode(made.ids[1]) == "<s>Good?<mask>, bad.</s>"
    ids, attention, positions, labels = made.batch([1, 0])
    assert ids.shape == (2, 30) and attention.sum(1).tolist() == [len(made.ids[1]), 30] and labels.tolist() == [1, 0]
    assert (ids[0, attention[0] == 0] == own.pad_token_id).all() and (ids[[0, 1], positions] == own.mask_token_id).all()
    with pytest.raises(ValueError, match="`template` must contain"):
        text.prompts([example], "{0} It was great.", own, 30)


def test_the_head_at_the_mask_equals_that_of_the_full_model_and_padding_changes_nothing(tmp_path):
    model, own = text.pretrained(str(write_model(tmp_path)))
    words = text.word_ids(own, ("terrible", "great"))
    net = text.Prompted(model, words).eval()
    made = text.prompts([text.Example(0, (s,)) for s in ("Good.", "Maybe a bad film, okay.")], "{0} It was<mask>.", own, 40)
    ids, attention, positions, _ = made.batch([0, 1])
    with torch.no_grad():
        logits = net(ids, attention, positions)
        whole = model(input_ids=ids, attention_mask=attention).logits[[0, 1], positions][:, words]
        alone = net(*made.batch([0])[:3])
    assert torch.allclose(logits, whole, atol=1e-6) and torch.allclose(logits[:1], alone, atol=1e-6)


COMMAND = ["train", "roberta-few-shot", "--set", "tasks=sst-2", "--set", "k=8", "--set", "steps=4", "--set", "subsets=13,21"]


def test_the_command_searches_trains_and_resumes(tmp_path):
    write_sst2(tmp_path / "data" / "SST-2")
    folder = write_model(tmp_path / "model")
    command = [
        *COMMAND,
        "--set",
        f"data={tmp_path / 'data'}",
        "--set",
        f"model={folder}",
        "--set",
        "batch=4",
        "--set",
        "lr=0.1,0.01",
    ]
    command += ["--set", "clip=1.0", "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["task", "sst-2"] and "clipped at norm 1" in first.stderr
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert {"search-sgd-sst-2-b4-lr0.1-subset1", "search-sgdm-sst-2-b4-lr0.01-subset1"} <= runs and len(runs) == 8
    assert CliRunner().invoke(main, command).stdout == first.stdout


def test_the_command_reports_invalid_input(tmp_path):
    write_sst2(tmp_path / "data")
    whole, maskless = write_model(tmp_path / "model"), write_model(tmp_path / "maskless", mask=False)
    common = ["--set", f"data={tmp_path / 'data'}", "--out", str(tmp_path / "out")]
    for more, reports in (
        (["words=unbelievable,great"], "a label word must be a single token; 'unbelievable' is ["),
        (["words=great,great"], "label words must differ"),
        (["words=great"], "`words` must be one per class, 2"),
        ([f"model={maskless}"], "must have a mask token"),
        (["k=11"], "has 20 examples, less than k = 11"),
        (["batch=99"], "at most the number of samples, 16"),
        (["lr=0"], "`lr` must be positive"),
        (["lr=0.1,-1"], "`lr` must be positive"),
        (["colour=red"], "--set must name one of"),
        (["tasks=cola"], "`tasks` must be one of"),
        (["template={0} is great."], "`template` must contain"),
        ([f"data={tmp_path / 'nowhere'}"], "sst-2 is missing"),
        (["model=nowhere"], "the language model is missing"),
    ):
        given = [f"model={whole}", *more]
        done = CliRunner().invoke(main, [*COMMAND, *common, *(part for text in given for part in ("--set", text))])
        assert done.exit_code == 2 and reports in done.stderr and len(done.stderr.strip().splitlines()) == 1, (more, done.output)


@pytest.mark.slow
def test_full_size_makes_two_steps_on_files_of_the_real_format(tmp_path):
    """RoBERTa-large's configuration with random weights: 355 million parameters, two steps of SGDM."""
    write_sst2(tmp_path / "SST-2")
    shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    folder = write_model(tmp_path / "large", vocab_size=50265, max_position_embeddings=514, **shape)
    given = [f"data={tmp_path}", f"model={folder}", "random_weights=true", "tasks=sst-2", "k=2", "batch=2", "lr=0.001", "steps=2"]
    settings = recipes.settings_of(roberta_few_shot, False, [*given, "subsets=13", "test_examples=2", "evaluations=1"])
    trainer = Trainer(tmp_path / "out", "full")
    model, _ = roberta_few_shot.pretrained(settings.model, True)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(355e6, rel=0.01)
    run = trainer("large", lambda: roberta_few_shot.task(settings, "sst-2", "SGDM", 2, 1e-3, 13, "cpu"))
    assert run.final["step"] == 2 and 0 <= run.final["test_accuracy"] <= 1
