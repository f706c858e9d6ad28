"""Dropout (Srivastava et al. 2014): in training each number is 0 with probability p, so that none is relied upon alone."""

from torch import Tensor, nn

from .. import kernels


class Dropout(nn.Module):
    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return kernels.dropout(x, self.p) if self.training else x


def build(p: float) -> nn.Module:
    return Dropout(p) if p else nn.Identity()
