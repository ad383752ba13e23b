"""The networks: SFCN, and any 3D network of MONAI by its name."""

import inspect
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from mriflow.base.errors import UserError
from mriflow.training.forward import main_output

SFCN_CHANNELS = (32, 64, 128, 256, 256, 64)


NORMS: dict[str, Any] = {
    "batch": nn.BatchNorm3d,
    "instance": lambda channels: nn.InstanceNorm3d(channels, affine=True),
    "group": lambda channels: nn.GroupNorm(math.gcd(channels, 8), channels),
}


BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Softmax, nn.LogSoftmax)  # as a network's last module


class SFCN(nn.Module):
    """Simple fully convolutional network (Peng et al. 2021, Medical Image Analysis 68:101871), for any grid.

    Each block but the last halves the grid (3x3x3 convolution, norm, max pooling, ReLU), the last mixes channels (1x1x1). What
    is left of the grid goes through dropout to the outputs: as its average, as in the paper (with the paper's grid of
    160x192x160 the paper's 5x6x5 pooling), or flat, each place with weights of its own, which keeps where in the template
    something is. Parameter names are those of the published weights.

    Parameters
    ----------
    outputs
        Number of outputs; they are not normalised (the paper's log-softmax is part of the loss).
    channels
        Channels of each block.
    dropout
        Share of features dropped before the outputs.
    head
        ``average``, or ``flat``, which needs `shape`.
    norm
        ``batch``, ``instance`` or ``group`` (of 8 groups, or fewer where that does not divide the channels).
    in_channels
        Channels of a scan.
    shape
        The grid, in voxels.

    >>> SFCN(outputs=2, channels=[8, 16, 8])(torch.zeros(3, 1, 16, 16, 16)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        outputs: int,
        channels: Sequence[int] = SFCN_CHANNELS,
        dropout: float = 0.5,
        head: str = "average",
        norm: str = "batch",
        in_channels: int = 1,
        shape: Sequence[int] = (160, 192, 160),
    ) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential()
        before = in_channels
        for number, after in enumerate(channels):
            last = number == len(channels) - 1
            block: list[nn.Module] = [
                nn.Conv3d(before, after, kernel_size=1 if last else 3, padding=0 if last else 1),
                NORMS[norm](after),
            ]
            block += [] if last else [nn.MaxPool3d(2)]
            self.feature_extractor.add_module(f"conv_{number}", nn.Sequential(*block, nn.ReLU()))
            before = after
        left = tuple(count // 2 ** (len(channels) - 1) for count in shape) if head == "flat" else (1, 1, 1)
        self.classifier = nn.Sequential()
        self.classifier.add_module("average_pool", nn.Identity() if head == "flat" else nn.AdaptiveAvgPool3d(1))
        self.classifier.add_module("dropout", nn.Dropout(dropout))
        self.classifier.add_module(f"conv_{len(channels)}", nn.Conv3d(before, outputs, kernel_size=left))

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        """Map scans, shape (scans, channels, x, y, z), to outputs, shape (scans, outputs)."""
        return self.classifier(self.feature_extractor(scans)).flatten(1)


class WithCovariates(nn.Module):
    """Any network, to whose outputs a linear function of covariates is added: as if they were features of its last layer.

    Parameters
    ----------
    net
        The network.
    covariates, outputs
        Number of covariates and of outputs.
    """

    def __init__(self, net: nn.Module, covariates: int, outputs: int) -> None:
        super().__init__()
        self.net = net
        self.linear = nn.Linear(covariates, outputs, bias=False)

    def forward(self, scans: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Map scans, shape (scans, channels, x, y, z), and covariates, (scans, covariates), to (scans, outputs)."""
        return main_output(self.net(scans)) + self.linear(covariates)


def build_network(
    name: str,
    arguments: dict[str, Any],
    outputs: int,
    shape: Sequence[int],
    channels: int = 1,
    covariates: int = 0,
    of_voxels: bool = False,
) -> nn.Module:
    """Return a network for scans of some channels on a grid of `shape`, and covariates, with `outputs` outputs.

    Parameters
    ----------
    name
        SFCN, or a class of `monai.networks.nets`.
    arguments
        Its arguments; dimensions, channels, classes and image size are filled in where the class has such an argument.
    covariates
        Numbers that it is given beside each scan, as the keyword `covariates` of its forward.
    of_voxels
        Whether it has its outputs for every voxel of a scan, as one that segments.

    Raises
    ------
    UserError
        If there is no such network, an argument does not fit, or the network does not take the grid.
    """
    if name == "SFCN":
        network_class: Any = SFCN
        known: dict[str, Any] = {"outputs": outputs, "in_channels": channels, "shape": tuple(shape)}
        check_sfcn(arguments, shape)
    else:
        network_class, known = monai_network(name, outputs, shape, channels)
    try:
        network = network_class(**{**known, **arguments})
        network.eval()
        with torch.inference_mode():
            answer = main_output(network(torch.zeros(1, channels, *shape)))
    except (TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        raise UserError(
            f"network {name} with arguments {arguments} does not work on {channels} channel(s) and a grid of {tuple(shape)}: "
            f"{str(error).strip().splitlines()[0]} "
            f"Its arguments are: {', '.join(inspect.signature(network_class).parameters)}."
        ) from error
    expected = (1, outputs, *shape) if of_voxels else (1, outputs)
    if answer.shape != expected:
        what = "segments scans, as UNet and SegResNet do" if of_voxels else "classifies or regresses whole scans"
        text = f"network {name} answers a scan with shape {tuple(answer.shape)}, expected {expected}; "
        raise UserError(f"{text}it is no network that {what}.")
    return WithCovariates(network, covariates, outputs) if covariates else network


def check_end(network: nn.Module, name: str) -> None:
    """Raise a UserError if a network that is to be trained ends in a function whose values are bounded."""
    last = list(network.modules())[-1]
    if isinstance(last, BOUNDED):
        raise UserError(
            f"network {name} ends in {type(last).__name__}, so that its outputs stay within bounds that a target, or the odds "
            "of a class, does not have. Give it the argument that leaves this out, or take another network."
        )


def check_sfcn(arguments: dict[str, Any], shape: Sequence[int]) -> None:
    """Raise a UserError if SFCN cannot be built with these arguments."""
    channels = arguments.get("channels", SFCN_CHANNELS)
    if not isinstance(channels, list | tuple):
        raise UserError(f"SFCN's `channels` are {channels!r}, expected a list of numbers such as [8, 16, 32].")
    for key, allowed in (("head", ["average", "flat"]), ("norm", list(NORMS))):
        if arguments.get(key, allowed[0]) not in allowed:
            raise UserError(f"SFCN's `{key}` is {arguments[key]!r}, expected one of {', '.join(allowed)}.")
    halvings = len(channels) - 1
    if min(shape) < 2**halvings:
        raise UserError(
            f"SFCN with {halvings + 1} channels halves the grid {halvings} times, too often for {tuple(shape)} voxels. "
            "Give it fewer `channels`, or use a finer grid."
        )
    if arguments.get("norm") == "instance" and max(shape) < 2 ** (halvings + 1):
        raise UserError(
            f"SFCN with {halvings + 1} channels leaves a single voxel of {tuple(shape)}, over which `norm: instance` cannot "
            "take a mean. Give it fewer `channels`, a finer grid, or `norm: batch`."
        )


def monai_network(name: str, outputs: int, shape: Sequence[int], channels: int) -> tuple[Any, dict[str, Any]]:
    """Return a network class or factory of MONAI and the arguments that follow from data and target."""
    import monai.networks.nets as nets

    network_class = getattr(nets, name, None)
    if not callable(network_class) or name.startswith("_"):
        near = get_close_matches(name, [n for n in dir(nets) if n[0].isupper()], n=3)
        raise UserError(f"there is no network {name!r} in MONAI. Near: {', '.join(near) or 'none'}; or SFCN.")
    follows = {
        "spatial_dims": 3,
        "in_channels": channels,
        "n_input_channels": channels,
        "out_channels": outputs,
        "num_classes": outputs,
        "in_shape": (channels, *shape),
        "out_shape": (outputs,),
        "classes": outputs,
        "img_size": tuple(shape),
        "classification": True,
        "post_activation": "none",  # of ViT: its tanh would allow the mean of the ages and one SD more or less
    }
    accepted = dict(inspect.signature(network_class).parameters)
    # DenseNet121, resnet18 and their like pass arguments on to a base class.
    bases = inspect.getmro(network_class) if inspect.isclass(network_class) else [nets.ResNet]
    for base in bases if {"args", "kwargs"} & accepted.keys() else []:
        accepted = {**inspect.signature(base).parameters, **accepted}
    return network_class, {key: value for key, value in follows.items() if key in accepted}
