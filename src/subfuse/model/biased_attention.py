"""Attention of grid cells to sampled positions with a position bias, without storing anything per pair.

Axes: `map` is one head of one patient, `point` a sampled position (key), `token` a query. Attention weights are laid
out (map, point, token), the softmax runs over points.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from subfuse.model.position_bias import BiasTable, PositionBias, TableReading

PAIRS_PER_CHUNK = {"cpu": 3_000_000, "cuda": 100_000_000}  # pairs of point and cell that are held at a time
EXACT_PAIRS_PER_CHUNK = {"cpu": 30_000, "cuda": 10_000_000}  # the same where the network is evaluated at every pair


def attend_by_table(
    query: Float[Tensor, "map channel token"],
    key: Float[Tensor, "map point channel"],
    value: Float[Tensor, "map point mixed"],
    *,
    key_bias: Float[Tensor, "map point"],
    position: Float[Tensor, "map point 2"],
    table: BiasTable,
    cell: Int[Tensor, "map token"] | None,
    dropout: float,
) -> Float[Tensor, "map mixed token"]:
    """Returns softmax(key · query + key bias + position bias) times value, the position bias read from a table.

    Works through the maps in chunks; the backward pass computes each chunk again. Besides its arguments and its result,
    it keeps one bit per pair, rounded up to a byte, and only where there is dropout.

    Args:
        query: Scaled queries.
        key: Keys.
        value: Values.
        key_bias: Added to all logits of a key.
        position: Positions (x, y) of the keys, within the table's reach.
        table: Position bias.
        cell: Cell of each token; None if token i is cell i.
        dropout: Probability that an attention weight is dropped.
    """
    reading = table.locate(position)
    return _TableAttention.apply(
        query, key, value, key_bias, table.runs, reading.x_weight, reading.y_weight, reading, cell, dropout
    )


class _TableAttention(torch.autograd.Function):
    """See `attend_by_table`; gradients for the first seven arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_bias: Tensor,
        runs: Tensor,
        x_weight: Tensor,
        y_weight: Tensor,
        reading: TableReading,
        cell: Tensor | None,
        dropout: float,
    ) -> Tensor:
        output = query.new_empty(len(query), value.shape[2], query.shape[2])
        masks = []
        for part in _chunks(len(query), key.shape[1] * reading.n_cells, _budget(query)):
            attention = _attention(query, key, key_bias, runs, reading, cell, part)
            if dropout:
                mask = keep_mask(attention.shape, dropout, device=query.device)
                attention.mul_(mask)
                masks.append(mask)
            torch.bmm(value[part].transpose(1, 2), attention, out=output[part])
        if dropout:
            output.div_(1 - dropout)
        ctx.save_for_backward(query, key, value, key_bias, runs, x_weight, y_weight, cell, output, *masks)
        ctx.reading, ctx.dropout = reading, dropout
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad_output.device.type, enabled=False):  # may be on where the caller differentiates
            return _TableAttention._gradients(ctx, grad_output)

    @staticmethod
    def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, key_bias, runs, x_weight, y_weight, cell, output, *masks = ctx.saved_tensors
        reading = ctx.reading
        # The sum over points of attention · its gradient, per token.
        centre = (grad_output * output).sum(1, keepdim=True)
        grad_output = grad_output / (1 - ctx.dropout)
        grads = [torch.empty_like(tensor) for tensor in (query, key, value, key_bias, x_weight, y_weight)]
        grad_query, grad_key, grad_value, grad_key_bias, grad_x, grad_y = grads
        grad_runs = torch.zeros_like(runs) if ctx.needs_input_grad[4] else None  # not of a model that is explained
        parts = _chunks(len(query), key.shape[1] * reading.n_cells, _budget(query))
        for index, part in enumerate(parts):
            attention = _attention(query, key, key_bias, runs, reading, cell, part)
            grad = value[part] @ grad_output[part]
            if masks:
                mask = masks[index].to(grad.dtype)
                grad.mul_(mask)
                grad_value[part] = mask.mul_(attention) @ grad_output[part].transpose(1, 2)
            else:
                grad_value[part] = attention @ grad_output[part].transpose(1, 2)
            grad.sub_(centre[part]).mul_(attention)  # with respect to the logits
            del attention
            grad_query[part] = key[part].transpose(1, 2) @ grad
            grad_key[part] = grad @ query[part].transpose(1, 2)
            grad_key_bias[part] = grad.sum(2)
            grad = _to_cells(grad, cell, part, reading.n_cells)
            grad_x[part], grad_y[part] = reading.weight_gradients(runs, part, grad)
            if grad_runs is not None:
                reading.add_run_gradients(grad_runs, part, grad)
        return grad_query, grad_key, grad_value, grad_key_bias, grad_runs, grad_x, grad_y, None, None, None


def _attention(
    query: Tensor, key: Tensor, key_bias: Tensor, runs: Tensor, reading: TableReading, cell: Tensor | None, part: slice
) -> Float[Tensor, "map point token"]:
    logits = reading.read(runs, part)
    if cell is not None:
        logits = logits.gather(2, cell[part, None].expand(-1, logits.shape[1], -1))
    logits.add_(key_bias[part, :, None])
    return logits.baddbmm_(key[part], query[part]).softmax(1)


def _to_cells(grad: Tensor, cell: Tensor | None, part: slice, n_cells: int) -> Float[Tensor, "map point cell"]:
    if cell is None:
        return grad
    # Tokens of padding share a cell, but their gradient is 0: the caller leaves them out.
    index = cell[part, None].expand_as(grad)
    return grad.new_zeros(*grad.shape[:2], n_cells).scatter_add_(2, index, grad)


def _chunks(length: int, pairs_each: int, budget: int) -> Iterator[slice]:
    step = max(1, budget // max(pairs_each, 1))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _budget(like: Tensor) -> int:
    return PAIRS_PER_CHUNK.get(like.device.type, PAIRS_PER_CHUNK["cuda"])


def keep_mask(shape: torch.Size, dropout: float, *, device: torch.device) -> Bool[Tensor, "*shape"]:
    """Returns True with probability 1 - dropout, rounded to 16 bits: several times faster than Bernoulli draws."""
    words = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None)
    threshold = round(dropout * 2**16) - 2**15
    return (words.view(torch.int16)[: shape.numel()] >= threshold).view(shape)


def attend_exactly(
    query: Float[Tensor, "map channel cell"],
    key: Float[Tensor, "map point channel"],
    value: Float[Tensor, "map point mixed"],
    *,
    key_bias: Float[Tensor, "map point"],
    position: Float[Tensor, "map point 2"],
    position_bias: PositionBias,
    x: Float[Tensor, " width"],
    y: Float[Tensor, " height"],
    dropout: float,
) -> Float[Tensor, "map mixed cell"]:
    """Returns the same as `attend_by_table` for all cells, with the position bias evaluated at every pair.

    Works through maps and rows of cells in chunks and keeps as little as `attend_by_table` does.

    Args:
        query: Scaled queries, one per cell.
        key: Keys.
        value: Values.
        key_bias: Added to all logits of a key.
        position: Positions (x, y) of the keys.
        position_bias: One bias per head of a group; map i takes number i modulo heads.
        x: Positions of the columns of cells.
        y: Positions of the rows of cells.
        dropout: Probability that an attention weight is dropped.
    """
    parameters = tuple(position_bias.parameters())
    return _ExactAttention.apply(query, key, value, key_bias, position, x, y, dropout, position_bias, *parameters)


class _ExactAttention(torch.autograd.Function):
    """See `attend_exactly`; the parameters of the position bias are arguments so that they receive gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_bias: Tensor,
        position: Tensor,
        x: Tensor,
        y: Tensor,
        dropout: float,
        position_bias: PositionBias,
        *parameters: Tensor,
    ) -> Tensor:
        output = query.new_empty(len(query), value.shape[2], len(y), len(x))
        rows = query.unflatten(2, (len(y), len(x)))
        masks = []
        for maps, part in _row_chunks(rows, key.shape[1]):
            mask = None
            if dropout:
                shape = torch.Size([len(key[maps]), key.shape[1], len(y[part]) * len(x)])
                mask = keep_mask(shape, dropout, device=query.device)
                masks.append(mask)
            inputs = (rows[maps, :, part], key[maps], value[maps], key_bias[maps], position[maps])
            output[maps, :, part] = _attend_rows(*inputs, x, y[part], maps.start, position_bias, mask)
        if dropout:
            output.div_(1 - dropout)
        ctx.save_for_backward(query, key, value, key_bias, position, x, y, *parameters, *masks)
        ctx.position_bias, ctx.dropout, ctx.n_parameters = position_bias, dropout, len(parameters)
        return output.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad_output.device.type, enabled=False):  # may be on where the caller differentiates
            return _ExactAttention._gradients(ctx, grad_output)

    @staticmethod
    def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, key_bias, position, x, y, *rest = ctx.saved_tensors
        parameters, masks = rest[: ctx.n_parameters], rest[ctx.n_parameters :]
        size = (len(y), len(x))
        rows, grad_output = query.unflatten(2, size), grad_output.unflatten(2, size) / (1 - ctx.dropout)
        grads = [torch.zeros_like(tensor) for tensor in (rows, key, value, key_bias, position, *parameters)]
        for index, (maps, part) in enumerate(_row_chunks(rows, key.shape[1])):
            inputs = (rows[maps, :, part], key[maps], value[maps], key_bias[maps], position[maps])
            targets = [grads[0][maps, :, part], *(grad[maps] for grad in grads[1:5]), *grads[5:]]
            with torch.enable_grad():
                q, k, v, b, p = leaves = tuple(tensor.detach().requires_grad_() for tensor in inputs)
                mask = masks[index] if masks else None
                output = _attend_rows(q, k, v, b, p, x, y[part], maps.start, ctx.position_bias, mask)
                found = torch.autograd.grad(output, (*leaves, *parameters), grad_output[maps, :, part])
            for target, grad in zip(targets, found, strict=True):
                target.add_(grad)
        return grads[0].flatten(2), *grads[1:5], None, None, None, None, *grads[5:]


def _attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    position: Tensor,
    x: Tensor,
    y: Tensor,
    first_map: int,
    position_bias: PositionBias,
    mask: Tensor | None,
) -> Float[Tensor, "map mixed height width"]:
    """Attention of some rows of cells, before the factor that dropout asks for."""
    bias = position_bias.on_lattice(x - position[..., :1], y - position[..., 1:])
    if bias.shape[4] > 1:
        head = torch.arange(first_map, first_map + len(bias), device=bias.device) % bias.shape[4]
        bias = bias.gather(4, head.view(-1, 1, 1, 1, 1).expand(*bias.shape[:4], 1))
    attention = (bias.flatten(2) + key_bias[..., None] + key @ query.flatten(2)).softmax(1)
    attention = attention if mask is None else attention * mask
    return (value.mT @ attention).unflatten(2, (len(y), len(x)))


def _row_chunks(rows: Float[Tensor, "map channel height width"], n_points: int) -> Iterator[tuple[slice, slice]]:
    """Maps and rows of cells that are worked on at a time."""
    budget = EXACT_PAIRS_PER_CHUNK.get(rows.device.type, EXACT_PAIRS_PER_CHUNK["cuda"])
    pairs_per_row = n_points * rows.shape[3]
    for maps in _chunks(len(rows), pairs_per_row, budget):
        for part in _chunks(rows.shape[2], (maps.stop - maps.start) * pairs_per_row, budget):
            yield maps, part
