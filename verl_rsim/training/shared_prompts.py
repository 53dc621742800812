"""Lays out rows with the same prompt as one sequence, so that the model reads the prompt once for all of them.

GRPO samples several episodes of each question. The planner's rows of a question begin with the same tokens, the menu of
strategies and the question, which are most of a short row. One sequence then holds the prompt and, behind it, the
response of every row; each response attends to the prompt and to itself. Log-probs and gradients are those of separate
rows, up to the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class SharedPrompts:
    """Holds rows as sequences of a prompt and the responses that follow it.

    Attributes:
        input_ids: ``(sequences, length)``, padded with 0.
        position_ids: ``(sequences, length)``; the first token of each response follows the prompt's last.
        attention_mask: ``(sequences, 1, length, length)``, True where a token (third dimension) attends to another.
        places: ``(tokens,)``, for each token of the packed rows its place in the flattened sequences; tokens of a
            shared prompt have the same place.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    places: torch.Tensor


@dataclass(slots=True)
class _Sequence:
    """Collects the tokens of one sequence; ``owners`` is 0 for the prompt and the response's number from 1 on."""

    tokens: list[int]
    positions: list[int]
    owners: list[int]

    def append(self, tokens: list[int], position: int, owner: int) -> range:
        """Appends tokens and returns their places."""
        first = len(self.tokens)
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))
        self.owners += [owner] * len(tokens)
        return range(first, first + len(tokens))


def share_prompts(input_ids: torch.Tensor, response_lengths: torch.Tensor) -> SharedPrompts:
    """Lays out the rows of a micro-batch.

    Args:
        input_ids: nested ``(rows, length)``, prompts and responses.
        response_lengths: ``(rows,)``, tokens of each row's response.

    Returns:
        One sequence for each different prompt, in the order of their first rows.
    """
    sequences: list[_Sequence] = []
    by_prompt: dict[tuple[int, ...], int] = {}
    places: list[tuple[int, range]] = []
    for row, response_length in zip(input_ids.unbind(), response_lengths.tolist(), strict=True):
        tokens = row.tolist()
        prompt, response = tokens[: len(tokens) - response_length], tokens[len(tokens) - response_length :]
        number = by_prompt.setdefault(tuple(prompt), len(sequences))
        if number == len(sequences):
            sequences.append(_Sequence([], [], []))
            sequences[number].append(prompt, 0, owner=0)
        sequence = sequences[number]
        places.append((number, range(len(prompt))))
        places.append((number, sequence.append(response, len(prompt), owner=sequence.owners[-1] + 1)))
    return _pad(sequences, places, input_ids.device)


def _pad(sequences: list[_Sequence], places: list[tuple[int, range]], device: torch.device) -> SharedPrompts:
    """Pads the sequences to the longest and makes their attention mask."""
    length = max(len(sequence.tokens) for sequence in sequences)
    shape = (len(sequences), length)
    tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    owners = torch.full(shape, -1)  # padding belongs to no row, and attends to padding: a softmax needs one place
    for number, sequence in enumerate(sequences):
        tokens[number, : len(sequence.tokens)] = torch.tensor(sequence.tokens)
        positions[number, : len(sequence.tokens)] = torch.tensor(sequence.positions)
        owners[number, : len(sequence.tokens)] = torch.tensor(sequence.owners)
    own = owners.unsqueeze(2) == owners.unsqueeze(1)
    of_prompt = (owners.unsqueeze(1) == 0) & (owners.unsqueeze(2) > 0)
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (own & earlier) | of_prompt
    flat = [torch.arange(part.start, part.stop) + number * length for number, part in places]
    return SharedPrompts(
        tokens.to(device), positions.to(device), mask.unsqueeze(1).to(device), torch.cat(flat).to(device)
    )
