"""Which data are arrays with one row per sample, and which are samples; what could be both is refused."""

import pytest
import torch

from sdetools.bridge import Batches

X, Y = torch.arange(12.0).reshape(4, 3), torch.arange(4)


def everything(data, **options):
    """Return the only batch of all samples, in order."""
    batches = Batches(data, **{"size": 4} | options)
    return batches.rows(list(range(batches.samples)))


@pytest.mark.parametrize("data", [(X, Y), (X.numpy(), Y.tolist()), torch.utils.data.TensorDataset(X, Y), list(zip(X, Y))])
def test_a_tuple_has_arrays_and_a_list_has_samples(data):
    x, y = everything(data)
    assert torch.equal(x, X) and torch.equal(y, Y)


def test_equal_samples_in_a_list_are_not_read_as_columns():
    """Four samples of three numbers were three samples, each a column; two pairs of arrays were two samples as well."""
    for data in (list(X), [x.numpy() for x in X], [X, Y], [X]):
        with pytest.raises(
            ValueError, match=r"got a list of \d arrays of length \d. Pass tuple\(data\) .* or torch.stack\(data\)"
        ):
            Batches(data, 1)
    assert torch.equal(everything(torch.stack(list(X))), X)
    x, y = everything(tuple([X, Y]))
    assert torch.equal(x, X) and torch.equal(y, Y)
    pairs = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])]  # of unequal lengths: samples for a collate function
    loader = torch.utils.data.DataLoader(
        pairs, 2, collate_fn=lambda rows: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    )
    assert everything(loader, size=2).tolist() == [[1, 2, 3], [4, 5, 0]]


def test_a_loader_reads_samples_with_its_own_collate_function():
    """Its data set is never a tuple of columns, as when torch iterates over it."""
    loader = torch.utils.data.DataLoader(list(X), 4)
    assert torch.equal(everything(loader), next(iter(loader))) and torch.equal(everything(loader), X)
    doubled = torch.utils.data.DataLoader(X, 4, collate_fn=lambda rows: 2 * torch.stack(rows))
    assert torch.equal(everything(doubled), 2 * X)
    two = torch.utils.data.DataLoader((X[0], X[1]), 2)
    assert torch.equal(everything(two, size=2), next(iter(two)))
    plain = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 4)
    assert all(torch.equal(a, b) for a, b in zip(everything(plain), next(iter(plain)))) and Batches(plain).columns
