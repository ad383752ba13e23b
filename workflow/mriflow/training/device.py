"""Which device to compute on, and whether this PyTorch can use the card it sees."""

import logging
import os

import torch

from mriflow.base.errors import UserError
from mriflow.base.processes import keep_freed_memory

log = logging.getLogger(__name__)


def choose_device(gpus: int = 0, allow_cpu: bool = True, rank: int = 0) -> torch.device:
    """Return a GPU if one is seen, else the CPU, set up for speed.

    Parameters
    ----------
    gpus
        How many the job asked the scheduler for.
    allow_cpu
        Whether a job that asked for a GPU and sees none may compute on the CPU.
    rank
        Which of them, counted from 0.

    Raises
    ------
    UserError
        If the job asked for a GPU and there is none, or fewer than it asked for, or the installed PyTorch was not built for
        the card.
    """
    if torch.cuda.is_available():
        if torch.cuda.device_count() < gpus:
            raise UserError(
                f"this job asked for {gpus} GPUs and sees {torch.cuda.device_count()} (CUDA_VISIBLE_DEVICES is "
                f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}). See that the job gets them, or set `gpu` of the "
                "training block to what there is."
            )
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        if torch.version.cuda:
            check_card(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
        torch.backends.cudnn.benchmark = True  # all batches have one shape: its fastest algorithm is looked for once
        torch.set_float32_matmul_precision("high")
        log.info("computing on %s", torch.cuda.get_device_name())
        return device
    if gpus and not allow_cpu:
        build = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
        raise UserError(
            f"this job asked for {gpus} GPU and sees none. PyTorch {torch.__version__} {build}. Run `nvidia-smi`: if it shows "
            "a card, install the PyTorch build for your driver (docs/gpu.md); if not, see that the job gets a GPU. "
            "To train on the CPU after all, set `allow_cpu: true` in the experiment's training block."
        )
    keep_freed_memory()
    log.info("computing on the CPU with %d threads", torch.get_num_threads())
    return torch.device("cpu")


def check_card(name: str, capability: tuple[int, int], architectures: list[str]) -> None:
    """Raise a UserError if none of the `architectures` of this PyTorch build (sm_90, compute_90, …) runs on a card.

    Machine code (sm_XY) runs on cards of the same major capability and at least the same minor one; intermediate code
    (compute_XY) on every later card.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = number.rstrip("af")  # sm_90a and sm_100f are variants of sm_90 and sm_100
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return
        if kind == "compute" and (major, minor) <= capability:
            return
    raise UserError(
        f"the card {name} has compute capability {capability[0]}.{capability[1]}, PyTorch {torch.__version__} was built for "
        f"{', '.join(architectures)}. Ask the scheduler for a newer card, or install a PyTorch build for it "
        "(docs/gpu.md)."
    )
