"""Operations: what every formula becomes. This room knows nothing of losses, noises or dynamics."""

from sdetools.graph import functions
from sdetools.graph.value import Value

Value.numpy = functions
