"""The values that meet a convolution's weights are those that unfolding the whole image gives."""

from __future__ import annotations

import pytest
import torch

from yoloquant.quantization.conv_operands import conv_operands


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), (2, 2), (1, 1), (1, 1)),
        ((1, 5), (1, 2), (0, 2), (1, 1)),
        ((3, 3), (1, 1), (2, 2), (2, 2)),
        ((1, 1), (1, 1), (0, 0), (1, 1)),
    ],
)
def test_they_are_the_unfolded_columns(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    image = torch.randn(1, 6, 33, 40, generator=torch.Generator().manual_seed(0))
    columns = torch.nn.functional.unfold(image, kernel, dilation=dilation, padding=padding, stride=stride)[0]
    at = torch.arange(0, columns.shape[1], 7)
    counts: list[int] = []

    def choose(count: int) -> torch.Tensor:
        counts.append(count)
        return at

    found = conv_operands(image, kernel, (stride, padding, dilation), choose)
    assert counts == [columns.shape[1]]
    assert found.shape == (6, kernel[0] * kernel[1], len(at))
    assert torch.equal(found.flatten(0, 1), columns[:, at])


@pytest.mark.parametrize("size", [32, 33])
def test_padding_by_name_is_what_convolutions_do(size: int) -> None:
    image, weight = torch.randn(1, 2, size, size), torch.randn(5, 2, 4, 4)
    found = conv_operands(image, (4, 4), ((1, 1), "same", (1, 1)), lambda count: torch.arange(count))
    wanted = torch.nn.functional.conv2d(image, weight, padding="same").flatten(2)[0]
    torch.testing.assert_close(weight.flatten(1) @ found.flatten(0, 1), wanted, rtol=1e-4, atol=1e-4)
