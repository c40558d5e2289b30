"""What the published system costs, computed from its configurations before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch


class Network(NamedTuple):
    """A published network: how many weights, and how many operations for one `unit` of input."""

    checkpoint: str
    parameters: int
    operations: float
    unit: str


class Gpu(NamedTuple):
    """A graphics card: operations a second in half precision on its data sheet, and memory in bytes."""

    name: str
    operations: float
    memory: float


class Step(NamedTuple):
    """Hours of work, and bytes of GPU memory and of disk while it runs (disk: what stays afterwards)."""

    what: str
    hours: float
    gpu_memory: float
    disk: float


GPUS = {
    "T4": Gpu("T4", 65e12, 16e9),
    "L4": Gpu("L4", 121e12, 24e9),
    "A100": Gpu("A100", 312e12, 40e9),
}
"""From NVIDIA's data sheets, half precision without sparsity; Colab lends the first for nothing."""

_FLOAT = 4  # bytes
_PICTURE_BYTES = 192 * 300 * 300 * 10  # of B7's widest layers at 600 x 600, as the next line
_STEP_SECONDS = 0.002  # of training: so small a network waits for its instructions, not for its sums
_SECOND_BYTES = 512 * 3_200 * 10  # of the first convolution: in half precision, its norm and its activation in single


@cache
def published_networks() -> dict[str, Network]:
    """The frozen networks of the published system, built from their configurations without weights.

    Operations are counted by torch, a multiplication and an addition as two.
    """
    from torchvision.models import efficientnet_b7
    from transformers import (
        BertConfig,
        BertModel,
        HubertConfig,
        HubertModel,
        Wav2Vec2Config,
        Wav2Vec2Model,
        XLMRobertaConfig,
        XLMRobertaModel,
    )

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    hubert = HubertConfig(**large, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)  # type: ignore[arg-type]
    labse = BertConfig(vocab_size=501_153)
    xlm_r = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1)
    second, picture = torch.zeros(1, 16_000, device="meta"), torch.zeros(1, 3, 600, 600, device="meta")
    sentence = torch.zeros(1, 30, dtype=torch.long, device="meta")
    said, seen, read = "second of speech", "picture", "sentence of 30 tokens"
    return {
        "speech": _counted("facebook/hubert-large-ls960-ft", lambda: HubertModel(hubert), second, said),
        "speech, alternative": _counted(
            "facebook/wav2vec2-base-960h", lambda: Wav2Vec2Model(Wav2Vec2Config()), second, said
        ),
        "picture": _counted("torchvision/efficientnet_b7", efficientnet_b7, picture, seen),
        "text": _counted("sentence-transformers/LaBSE", lambda: BertModel(labse), sentence, read),
        "text, alternative": _counted(
            "sentence-transformers/paraphrase-xlm-r-multilingual-v1", lambda: XLMRobertaModel(xlm_r), sentence, read
        ),
    }


def plan(
    clips: int, seconds: float, gpu: Gpu, utilisation: float = 0.25, batch_size: int = 32, parts: int = 10
) -> list[Step]:
    """The steps from the published Speech Brown to trained fusions, for so many clips of so many seconds on average.

    Args:
        utilisation: share of the data sheet's speed that is reached; 0.25 is a cautious guess for half precision.
        batch_size: clips that an encoder gets at once.
        parts: of Speech Brown, of which one lies on the disk at a time.
    """
    networks = published_networks()
    speed = gpu.operations * utilisation

    def encoding(part: str, units: float, activations: float, width: int) -> Step:
        network = networks[part]
        weights = network.parameters * _FLOAT
        hours = units * network.operations / speed / 3600
        return Step(f"{part} vectors", hours, weights + activations, clips * width * _FLOAT)

    checkpoints = sum(networks[part].parameters * _FLOAT for part in ("speech", "picture", "text"))
    second = 88_200  # bytes of the published clips, 32-bit samples at 22.05 kHz
    features = clips * (1024 + 1000 + 768) * _FLOAT
    epochs, fusion = 250, 6_344_608
    steps = epochs * clips / 256
    return [
        Step("checkpoints", 0.0, 0.0, checkpoints),
        Step("one part of Speech Brown, then the next", 0.0, 0.0, clips * seconds * second / parts),
        encoding("speech", clips * seconds, batch_size * seconds * _SECOND_BYTES, 1024),
        encoding("picture", clips, batch_size * _PICTURE_BYTES, 1000),
        encoding("text", clips, 0.0, 768),
        Step(f"training for {epochs} epochs", steps * _STEP_SECONDS / 3600, features + 16 * fusion, 0.0),
    ]


def _counted(checkpoint: str, build: Callable[[], Any], example: torch.Tensor, unit: str) -> Network:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build().eval()
    parameters = sum(p.numel() for p in network.parameters())
    if hasattr(network, "feature_extractor"):
        # A normed weight cannot be computed on "meta"; the plain one costs as much.
        conv = network.encoder.pos_conv_embed.conv
        network.encoder.pos_conv_embed.conv = torch.nn.Conv1d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            padding=conv.padding,
            groups=conv.groups,
            device="meta",
        )
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(example)
    return Network(checkpoint, parameters, float(counter.get_total_flops()), unit)
