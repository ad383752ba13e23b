"""What of a network is not trained: all but its output layer."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mriflow.base.errors import UserError
from mriflow.training.networks import WithCovariates


def output_layer(net: nn.Module) -> str:
    """Return the name of a network's output layer: the one whose weights come last."""
    return list(net.state_dict())[-1].rpartition(".")[0]


def freeze_features(net: nn.Module, outputs: int) -> None:
    """Train no more than the output layer of a network, and what covariates add to its outputs.

    Raises
    ------
    UserError
        If the layer whose weights come last is not that of the outputs.
    """
    inner = net.net if isinstance(net, WithCovariates) else net
    assert isinstance(inner, nn.Module)
    name = output_layer(inner)
    layer = inner.get_submodule(name)
    weight = getattr(layer, "weight", None)
    if weight is None or len(weight) != outputs:
        raise UserError(
            f"`freeze: features` cannot be used with {type(inner).__name__}: its last layer, {name}, is not that of the "
            f"{outputs} output(s). Set it to none."
        )
    inner.requires_grad_(False)
    layer.requires_grad_(True)


def is_frozen(norm: nn.Module) -> bool:
    """Return whether this is a batch norm that is not trained."""
    return isinstance(norm, _BatchNorm) and norm.weight is not None and not norm.weight.requires_grad


def train_mode(net: nn.Module) -> None:
    """Set a network to training; batch norm that is not trained keeps the statistics that it has, and uses them."""
    net.train()
    for module in net.modules():
        if is_frozen(module):
            module.eval()
