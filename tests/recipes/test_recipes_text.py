"""Prompts, file formats of the tasks, and small few-shot runs; at full size, two steps of RoBERTa-large's configuration."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sdetools import recipes
from sdetools.cli import main
from sdetools.recipes import prompting, text
from sdetools.recipes.datasets import MissingData
from sdetools.recipes.training import Trainer, TrainingRun

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
    pair("SNLI", ("snli_1.0_train.jsonl", "snli_1.0_dev.jsonl"), "\n".join(map(json.dumps, rows)) + "\n")
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
        prompting.pretrained(str(tmp_path))
    write_model(tmp_path / "pickled", vocab_size=400)
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(MissingData, match=r"contains no \*.safetensors"):
        prompting.pretrained(str(tmp_path / "pickled"))


def mersenne_twister(seed):
    """Yield the 32-bit words of MT19937 seeded by Knuth's recursion, as `numpy.random.seed` does; from M. Matsumoto and T. Nishimura 1998."""
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + i) & 0xFFFFFFFF)
    while True:
        for i in range(624):
            y = state[i] & 0x80000000 | state[(i + 1) % 624] & 0x7FFFFFFF
            state[i] = state[(i + 397) % 624] ^ y >> 1 ^ (0x9908B0DF if y & 1 else 0)
        for y in state:
            y ^= y >> 11
            y ^= y << 7 & 0x9D2C5680
            y ^= y << 15 & 0xEFC60000
            yield y ^ y >> 18


def fisher_yates(n, seed):
    """Shuffle 0 ... n - 1 from the end; an index is drawn by masking bits, and again if it is too large."""
    words, order = mersenne_twister(seed), list(range(n))
    for i in range(n - 1, 0, -1):
        mask = (1 << i.bit_length()) - 1
        j = next(word & mask for word in words if word & mask <= i)
        order[i], order[j] = order[j], order[i]
    return order


def test_shuffles_are_those_of_numpys_global_generator():
    for n, seed in ((12, 13), (700, 21), (2210, 42)):
        assert text.shuffled(n, seed) == fisher_yates(n, seed)
    assert text.shuffled(2210, 42)[:5] == [
        855,
        1546,
        1473,
        430,
        1557,
    ]  # the first rows of pandas' sample(n=1000, random_state=42)


def test_a_subset_is_that_of_the_references_script():
    """Twelve lines, two per class, by hand: numpy.random.seed(13); numpy.random.shuffle gives 5 9 3 7 8 1 4 11 6 10 0 2.

    Class 1 appears first.
    """
    assert fisher_yates(12, 13) == [5, 9, 3, 7, 8, 1, 4, 11, 6, 10, 0, 2]
    pool = [text.Example(label, (str(i),)) for i, label in enumerate((0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1))]
    train, dev = text.subset(pool, ("a", "b"), 2, 3, 13, lambda n, sentence: pytest.fail(sentence))
    assert [e.sentences[0] for e in train] == ["5", "7", "9", "3"]
    assert [e.sentences[0] for e in dev] == ["1", "11", "6", "8", "4", "10"]


def test_a_small_class_has_its_first_k_for_training_and_the_rest_for_development():
    """As in TREC with k = 512: the smallest of its classes has 86 examples, all for training; others have 323 and 384 left."""
    sizes = {0: 1162, 1: 1250, 2: 86, 3: 1223, 4: 835, 5: 896}
    pool = [text.Example(label, (f"{label} {i}",)) for label, n in sizes.items() for i in range(n)]
    task, reports = text.TASKS["trec"], []
    train, dev = text.subset(pool, task.words, 512, 512, 42, lambda n, sentence: reports.append((n, sentence)))
    numbers = [[sum(e.label == n for e in part) for n in range(6)] for part in (train, dev)]
    assert numbers == [[512, 512, 86, 512, 512, 512], [512, 512, 0, 512, 323, 384]]
    assert not {e.sentences for e in train} & {e.sentences for e in dev}
    assert tuple(n for n, _ in reports) == task.short == (2, 4, 5)
    assert "has 86 examples, less than k = 512 for training and 512 for development: 86 and 0 of them are used" in reports[0][1]


def test_subsets_without_examples_are_refused():
    pool = [text.Example(n % 2, (str(n),)) for n in range(8)]
    with pytest.raises(ValueError, match="'c' must have examples; got none"):
        text.subset(pool, ("a", "b", "c"), 2, 2, 13, lambda n, sentence: None)
    with pytest.raises(ValueError, match="must have more than k = 4 examples, so that some are left for development"):
        text.subset(pool, ("a", "b"), 4, 4, 13, lambda n, sentence: None)


def test_at_most_1000_test_examples_are_selected_by_the_references_seed():
    """Seed 42 for every subset; a smaller test set keeps the order of its file."""
    examples = [text.Example(0, (str(i),)) for i in range(2210)]
    assert [int(e.sentences[0]) for e in text.part_for_test(examples, 1000)] == fisher_yates(2210, 42)[:1000]
    assert text.part_for_test(examples[:500], 1000) == examples[:500]


def test_test_sets_are_those_of_the_references_code():
    """SNLI, MNLI and SST-2 on development sets, SST-5 and TREC on test sets."""
    files = {name: {second for _, second, _ in text.TASKS[name].files} for name in ("sst-2", "sst-5", "snli", "trec", "mnli")}
    assert files == {
        "sst-2": {"dev.tsv", "stsa.binary.dev"}, "sst-5": {"test.csv", "stsa.fine.test"},
        "snli": {"snli_1.0_dev.jsonl", "snli_1.0_dev.txt", "dev.tsv"}, "trec": {"TREC_10.label", "test.csv", "TREC.test.all"},
        "mnli": {"dev_matched.tsv"},
    }  # fmt: skip


def test_prompts_are_those_of_the_references_scripts():
    """The last character of a sentence is dropped whatever it is, its final space too; limits in tokens are those of run_fewshot.sh."""
    own = tokenizer()
    for sentence, kept in (("Good!!", "Good!"), ("No one knows", "No one know"), ("good ", "good"), ("", "")):
        made = prompting.prompts([text.Example(0, (sentence, "It was. "))], text.TASKS["mnli"].template, own, 60)
        assert own.decode(made.ids[0]) == f"<s>{kept}?<mask>, it was. </s>"
    made = prompting.prompts([text.Example(0, ("It was good ",))], text.TASKS["sst-2"].template, own, 60)
    assert own.decode(made.ids[0]) == "<s>It was good  It was<mask>.</s>"
    assert {name: (task.limit, task.length) for name, task in text.TASKS.items() if not task.packaged} == {
        "sst-2": (None, 128), "sst-5": (None, 128), "snli": (None, 256), "trec": (110, 128), "mnli": (240, 256),
    }  # fmt: skip
    long = text.Example(0, ("good " * 300, "bad " * 9))
    tokens = own.encode("good " * 300, add_special_tokens=False)
    limited = prompting.prompts([long], "{0}<mask>{1}", own, 900, limit=240).ids[0]
    assert limited[1:241] == tokens[:240] and limited[241] == own.mask_token_id


def test_long_sentences_are_truncated_and_the_template_is_not():
    own = tokenizer()
    example = text.Example(0, ("A great film. " * 40, "Yes it was good. " * 10))
    for template in ("{0} It was<mask>.", "<mask>: {0}", "{0-}?<mask>, {1l}"):
        made = prompting.prompts([example, text.Example(1, ("Good.", "Bad."))], template, own, 30)
        assert len(made.ids[0]) == 30 and len(made.ids[1]) < 30
        for ids, position in zip(made.ids, made.positions):
            assert ids[position] == own.mask_token_id and ids.count(own.mask_token_id) == 1
            assert (ids[0], ids[-1]) == (own.cls_token_id, own.sep_token_id)
    assert own.decode(made.ids[1]) == "<s>Good?<mask>, bad.</s>"
    ids, attention, positions, labels = made.batch([1, 0])
    assert ids.shape == (2, 30) and attention.sum(1).tolist() == [len(made.ids[1]), 30] and labels.tolist() == [1, 0]
    assert (ids[0, attention[0] == 0] == own.pad_token_id).all() and (ids[[0, 1], positions] == own.mask_token_id).all()
    with pytest.raises(ValueError, match="`template` must contain"):
        prompting.prompts([example], "{0} It was great.", own, 30)


def test_the_head_at_the_mask_equals_that_of_the_full_model_and_padding_changes_nothing(tmp_path):
    model, own = prompting.pretrained(str(write_model(tmp_path)))
    words = prompting.word_ids(own, ("terrible", "great"))
    net = prompting.Prompted(model, words).eval()
    made = prompting.prompts([text.Example(0, (s,)) for s in ("Good.", "Maybe a bad film, okay.")], "{0} It was<mask>.", own, 40)
    ids, attention, positions, _ = made.batch([0, 1])
    with torch.no_grad():
        logits = net(ids, attention, positions)
        whole = model(input_ids=ids, attention_mask=attention).logits[[0, 1], positions][:, words]
        alone = net(*made.batch([0])[:3])
    assert torch.allclose(logits, whole, atol=1e-6) and torch.allclose(logits[:1], alone, atol=1e-6)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DebertaV2", "MPNet"])
def test_values_and_gradients_are_those_of_the_full_model_which_is_not_changed(kind):
    """In double precision without dropout. MPNet has no part after the attention that could be left out."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=60, max_position_embeddings=16, pad_token_id=0, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.AutoModelForMaskedLM.from_config(config).double().train()
    words, positions, labels = [7, 3, 11], torch.tensor([2, 4, 0]), torch.tensor([0, 2, 1])
    ids, attention = torch.randint(1, 60, (3, 6)), torch.tensor([[1] * 6, [1] * 5 + [0], [1] * 3 + [0] * 3])

    def whole():
        return model(input_ids=ids, attention_mask=attention).logits[torch.arange(3), positions][:, words]

    def gradients(of):
        loss = torch.nn.functional.cross_entropy(of, labels)
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

    before = whole()
    net = prompting.Prompted(model, words)
    passed = []
    if kind != "MPNet":
        model.base_model.encoder.layer[-1].output.register_forward_hook(lambda part, given, out: passed.append(tuple(out.shape)))
    logits = net(ids, attention, positions)
    assert torch.allclose(logits, before, rtol=1e-12, atol=1e-14)
    assert passed == ([] if kind == "MPNet" else [(3, 1, 16)])
    for ours, theirs in zip(gradients(logits), gradients(before)):
        ours, theirs = (torch.zeros(1) if g is None else g for g in (ours, theirs))
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-13)
    assert torch.equal(whole(), before)


@pytest.mark.parametrize(("form", "lr"), [("sgdm", 0.2), ("heavy-ball", 0.02), ("nesterov", 0.02)])
def test_every_form_of_momentum_has_the_effective_learning_rate(form, lr, tmp_path):
    """0.2 for both methods; a buffer that adds up gradients multiplies its learning rate by 1 / (1 - 0.9)."""
    write_sst2(tmp_path / "data" / "SST-2")
    recipe = recipes.recipe("roberta-few-shot")
    own = recipe.Settings(
        data=str(tmp_path / "data"), model=str(write_model(tmp_path / "model")), tasks=("sst-2",), k=4, form=form, momentum=0.9
    )
    sgd, sgdm = (recipe.task(own, "sst-2", method, 2, 0.2, 13, "cpu").optimiser for method in ("SGD", "SGDM"))
    assert sgdm.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-12) and sgd.param_groups[0]["lr"] == pytest.approx(
        0.2, rel=1e-12
    )


COMMAND = ["train", "roberta-few-shot", "--set", "tasks=sst-2", "--set", "k=8", "--set", "steps=4", "--set", "subsets=13,21"]


@pytest.mark.slow
def test_the_command_searches_on_each_subset_with_and_without_clipping_and_resumes(tmp_path):
    write_sst2(tmp_path / "data" / "SST-2")
    folder = write_model(tmp_path / "model")
    given = [f"data={tmp_path / 'data'}", f"model={folder}", "batch=4", "lr=0.1,0.01", "evaluations=2"]
    command = [*COMMAND, *(part for text in given for part in ("--set", text)), "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert [line.split()[:2] for line in first.stdout.splitlines()[-2:]] == [["sst-2", "1"], ["sst-2", "none"]]
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert runs == {"zero-shot-sst-2"} | {
        f"{method}-sst-2-b4-lr{lr}{clip}-subset{seed}"
        for method in ("sgd", "sgdm") for lr in ("0.1", "0.01") for clip in ("", "-clip1") for seed in (13, 21)
    }  # fmt: skip
    assert CliRunner().invoke(main, command).stdout == first.stdout
    shared = CliRunner().invoke(main, [*command, "--set", "search=shared", "--set", "clip=inf"])
    assert shared.exit_code == 0, shared.output
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir()} - runs
    assert runs == {f"search-{method}-sst-2-b4-lr{lr}-subset1" for method in ("sgd", "sgdm") for lr in ("0.1", "0.01")}


def test_the_pair_of_each_subset_has_its_best_development_accuracy_at_any_time(tmp_path):
    """The first of equal ones, as in the reference's gather_result.py; a run that diverged is left out; the test accuracy does not matter."""
    found = {
        (4, 0.1): [(0.6, 0.1), (0.9, 0.2), (0.5, 0.3)],
        (4, 0.2): [(0.7, 0.4), (0.9, 0.5)],
        (8, 0.1): [(0.8, 0.9), (0.8, 0.9)],
    }

    def run(rows, **more):
        log = [{"step": i, "dev_accuracy": dev, "test_accuracy": test} for i, (dev, test) in enumerate(rows)]
        log[-1] |= more
        return TrainingRun("a", log[-1], log, tmp_path)

    runs = {at: run(rows) for at, rows in found.items()}
    assert recipes.best(runs, "dev_accuracy", of=roberta_few_shot.best_dev) == (4, 0.1)
    assert roberta_few_shot.at_best([runs[4, 0.1]]).tolist() == [20]
    runs[4, 0.1] = run(found[4, 0.1], diverged=True)
    assert recipes.best(runs, "dev_accuracy", of=roberta_few_shot.best_dev) == (4, 0.2)
    ends = roberta_few_shot.at_best(list(runs.values()))
    assert np.isnan(ends[0]) and ends[1:].tolist() == pytest.approx([50, 90])


def test_clipping_is_that_of_the_references_trainer(tmp_path):
    """At most norm 1.0 by default, and none for inf: with momentum 0 a step moves the weights by the learning rate times the norm."""
    write_sst2(tmp_path / "SST-2")
    settings = recipes.settings_of(
        roberta_few_shot, False, [f"data={tmp_path}", f"model={write_model(tmp_path / 'model')}", "k=8", "tasks=sst-2"]
    )
    assert settings.clip == (1.0, np.inf) and (settings.batch, settings.steps, settings.evaluations) == ((2, 4, 8), 1000, 10)
    norms = {}
    for clip in (1e-3, np.inf):
        torch.manual_seed(0)
        made = roberta_few_shot.task(replace(settings, steps=1), "sst-2", "SGD", 4, 0.5, 13, "cpu", clip)
        before = [p.detach().clone() for p in made.model.parameters()]
        Trainer(tmp_path / str(clip), "one")("run", lambda: made)
        norms[clip] = sum(float((p.detach() - q).pow(2).sum()) for p, q in zip(made.model.parameters(), before)) ** 0.5
    assert norms[1e-3] == pytest.approx(0.5e-3, rel=1e-3) and norms[np.inf] > 0.01


def test_the_command_reports_invalid_input(tmp_path):
    write_sst2(tmp_path / "data")
    whole, maskless = write_model(tmp_path / "model"), write_model(tmp_path / "maskless", mask=False)
    common = ["--set", f"data={tmp_path / 'data'}", "--out", str(tmp_path / "out")]
    for more, reports in (
        (["words=unbelievable,great"], "a label word must be a single token; 'unbelievable' is ["),
        (["words=great,great"], "label words must differ"),
        (["words=great"], "`words` must be one per class, 2"),
        ([f"model={maskless}"], "must have a mask token"),
        (["k=11"], "has 20 examples, less than k = 11 for training and 11 for development: 11 and 9 of them are used"),
        (["search=often"], "`search` must be one of subset, shared"),
        (["clip="], "`clip` must not be empty"),
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
