"""The networks: SFCN, and any 3D network of MONAI by its name."""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from mriflow.base.errors import UserError
from mriflow.training.forward import main_output


class SFCN(nn.Module):
    """Simple fully convolutional network (Peng et al. 2021, Medical Image Analysis 68:101871), for any grid.

    Each block but the last halves the grid (3x3x3 convolution, batch norm, max pooling, ReLU), the last mixes channels
    (1x1x1). The average over what is left of the grid goes through dropout to the outputs. With the paper's grid of
    160x192x160 that average is the paper's 5x6x5 pooling. Parameter names are those of the published weights.

    Parameters
    ----------
    outputs
        Number of outputs; they are not normalised (the paper's log-softmax is part of the loss).
    channels
        Channels of each block.
    dropout
        Share of features dropped before the outputs.

    >>> SFCN(outputs=2, channels=[8, 16, 8])(torch.zeros(3, 1, 16, 16, 16)).shape
    torch.Size([3, 2])
    """

    def __init__(self, outputs: int, channels: Sequence[int] = (32, 64, 128, 256, 256, 64), dropout: float = 0.5) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential()
        before = 1
        for number, after in enumerate(channels):
            last = number == len(channels) - 1
            block: list[nn.Module] = [
                nn.Conv3d(before, after, kernel_size=1 if last else 3, padding=0 if last else 1),
                nn.BatchNorm3d(after),
            ]
            block += [] if last else [nn.MaxPool3d(2)]
            self.feature_extractor.add_module(f"conv_{number}", nn.Sequential(*block, nn.ReLU()))
            before = after
        self.classifier = nn.Sequential()
        self.classifier.add_module("average_pool", nn.AdaptiveAvgPool3d(1))
        self.classifier.add_module("dropout", nn.Dropout(dropout))
        self.classifier.add_module(f"conv_{len(channels)}", nn.Conv3d(before, outputs, kernel_size=1))

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        """Map scans, shape (scans, 1, x, y, z), to outputs, shape (scans, outputs)."""
        return self.classifier(self.feature_extractor(scans)).flatten(1)


def build_network(name: str, arguments: dict[str, Any], outputs: int, shape: Sequence[int]) -> nn.Module:
    """Return a network for one input channel, `outputs` outputs and a grid of `shape`.

    Parameters
    ----------
    name
        SFCN, or a class of `monai.networks.nets`.
    arguments
        Its arguments; dimensions, channels, classes and image size are filled in where the class has such an argument.

    Raises
    ------
    UserError
        If there is no such network, an argument does not fit, or the network does not take the grid.
    """
    if name == "SFCN":
        network_class: Any = SFCN
        known = {"outputs": outputs}
        channels = arguments.get("channels", [0] * 6)
        if not isinstance(channels, list):
            raise UserError(f"SFCN's `channels` are {channels!r}, expected a list of numbers such as [8, 16, 32].")
        halvings = len(channels) - 1
        if min(shape) < 2**halvings:
            raise UserError(
                f"SFCN with {halvings + 1} channels halves the grid {halvings} times, too often for {tuple(shape)} voxels. "
                "Give it fewer `channels`, or use a finer grid."
            )
    else:
        network_class, known = monai_network(name, outputs, shape)
    try:
        network = network_class(**{**known, **arguments})
        network.eval()
        with torch.inference_mode():
            answer = main_output(network(torch.zeros(1, 1, *shape)))
    except (TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        raise UserError(
            f"network {name} with arguments {arguments} does not work on a grid of {tuple(shape)}: "
            f"{str(error).strip().splitlines()[0]} "
            f"Its arguments are: {', '.join(inspect.signature(network_class).parameters)}."
        ) from error
    if answer.shape != (1, outputs):
        raise UserError(
            f"network {name} answers a scan with shape {tuple(answer.shape)}, expected (1, {outputs}); "
            "it is no network that classifies or regresses whole scans."
        )
    return network


def monai_network(name: str, outputs: int, shape: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """Return a network class or factory of MONAI and the arguments that follow from data and target."""
    import monai.networks.nets as nets

    network_class = getattr(nets, name, None)
    if not callable(network_class) or name.startswith("_"):
        near = get_close_matches(name, [n for n in dir(nets) if n[0].isupper()], n=3)
        raise UserError(f"there is no network {name!r} in MONAI. Near: {', '.join(near) or 'none'}; or SFCN.")
    follows = {
        "spatial_dims": 3,
        "in_channels": 1,
        "n_input_channels": 1,
        "out_channels": outputs,
        "num_classes": outputs,
        "in_shape": (1, *shape),
        "out_shape": (outputs,),
        "classes": outputs,
        "img_size": tuple(shape),
        "classification": True,
    }
    accepted = dict(inspect.signature(network_class).parameters)
    # DenseNet121, resnet18 and their like pass arguments on to a base class.
    bases = inspect.getmro(network_class) if inspect.isclass(network_class) else [nets.ResNet]
    for base in bases if {"args", "kwargs"} & accepted.keys() else []:
        accepted = {**inspect.signature(base).parameters, **accepted}
    return network_class, {key: value for key, value in follows.items() if key in accepted}
