"""Train, calibrate and export the fusion head on pools of cues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ecmf import golden
from ecmf.bundle import SHIPPED, Bundle, Manifest, Port, load_bundle, write_bundle
from ecmf.cue import MODALITIES, Modality
from ecmf.fusion import FADED, NAMING, SUBSETS, EcmfHead, HeadOptions
from train.descent import descend
from train.pairing import TRUST, TURNED, Batch, PairingOptions, Pool, conflicting_labels, draw
from train.traces import remove_traces

VERSION = 5
"""Raise it when the head changes, so that old checkpoints are not gone on from."""
SHRINK = 0.05
"""Weight of a squared logarithm of a temperature, in nats: as if it were known to 0.2 from some hundred cues."""


@dataclass(frozen=True)
class FitOptions:
    steps: int = 3000
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    calibration: int = 20_000
    """Pairs drawn to fit the temperatures, over all subsets and folds."""
    head: HeadOptions = field(default_factory=HeadOptions)
    pairing: PairingOptions = field(default_factory=PairingOptions)


def tensors(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """A batch as the head's keyword arguments and the target."""
    inputs: dict[str, Tensor] = {m: torch.from_numpy(batch.cues[m]) for m in MODALITIES}
    inputs["log_probs"] = torch.from_numpy(batch.log_probs)
    inputs["quality"] = torch.from_numpy(batch.quality)
    return inputs, torch.from_numpy(batch.target)


def train_head(
    pools: Mapping[Modality, Pool],
    labels: Sequence[str],
    prior: NDArray[np.float64],
    options: FitOptions,
    checkpoint: Path | None = None,
    *,
    what: str = "fusion head",
) -> EcmfHead:
    """Fit a head on synthetic pairs. With ``checkpoint`` it resumes after a kill and gives the same result."""
    torch.manual_seed(options.seed)
    head = EcmfHead({m: pools[m].embedding.shape[1] for m in MODALITIES}, len(labels), options.head)
    start(head, pools, prior, options.pairing)

    def sample(rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        return tensors(draw(pools, len(labels), options.batch, rng, options.pairing, prior=prior))

    descend(head, sample, options, checkpoint, fingerprint(pools, prior, options), what=what)
    return head


def own_priors(pools: Mapping[Modality, Pool], labels: int) -> dict[Modality, NDArray[np.float64]]:
    """Label prior that each branch's probabilities contain: as the labels fall in the pools, one added to each."""
    counts = {
        m: np.bincount(p.labels, minlength=labels) + 1.0 for m, p in pools.items() if p.probs is not None
    }
    return {m: n / n.sum() for m, n in counts.items()}


def start(
    head: EcmfHead, pools: Mapping[Modality, Pool], prior: NDArray[np.float64], pairing: PairingOptions
) -> None:
    """Begin as the mixture of hypotheses that the pairs are drawn from.

    Where a cue that is alone is not read, what opinions mean is settled: the branches are calibrated, and the prior is
    stated. Training then only learns whom to believe, so that one cue alone leaves exactly what its branch says.
    """
    own = np.ones((len(MODALITIES), len(prior)))
    for modality, share in own_priors(pools, len(prior)).items():
        own[MODALITIES.index(modality)] = share
    off = np.zeros((len(MODALITIES), len(MODALITIES)))
    for place, trusted in enumerate(TRUST):
        for other in TRUST[place + 1 :]:
            off[MODALITIES.index(other), MODALITIES.index(trusted)] = pairing.conflict * TURNED
    floor = np.maximum(prior, 1e-4)
    idle = conflicting_labels(floor, pairing)
    head.start_from(*(torch.from_numpy(each).float() for each in (own, floor, off, idle)))
    for meaning in (head.prior, head.bias, head.trust):
        meaning.requires_grad_(head.read is not None and set(NAMING) <= set(head.options.read_alone))


def calibrate_on(head: EcmfHead, batch: Batch) -> None:
    """Fit the temperatures on cues that the head was not trained on; one that is too unsure becomes surer, too."""
    inputs, target = tensors(batch)
    head.eval()
    with torch.no_grad():
        logits, _ = head(**inputs)
        logits = logits * torch.exp(head.corners(inputs["quality"]) @ head.temperature).unsqueeze(-1)
    fit_temperature(head, logits, inputs["quality"], target)


def fit_temperature(
    head: EcmfHead, logits: Tensor, quality: Tensor, target: Tensor, *, least: float | None = None
) -> None:
    """One temperature for all and one for each subset of face, voice and text (Guo et al. 2017, arXiv 1706.04599).

    logits: float32[n, L] at temperature 1. What a subset alone would need is drawn towards what all need: few people
    stand behind it. ``least``: logarithm below which no temperature may be. None: no bound, but FADED, which is no
    measurement, stays as it is, so that an estimate never becomes surer as its cues fade.
    """
    corners, start = head.corners(quality), untempered(head)
    faded = start != 0
    scale = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([scale], max_iter=100, line_search_fn="strong_wolfe")

    def bounded(logs: Tensor) -> Tensor:
        return torch.where(faded, start, logs) if least is None else logs.clamp(min=least)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(logits * torch.exp(-(corners @ bounded(scale))).unsqueeze(-1), target)
        off = (scale - start).square()
        loss = loss + SHRINK * (off[1:].sum() / (len(scale) - 1) + 0.1 * off[0])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    head.temperature.data.copy_(bounded(scale.detach()))


def untempered(head: EcmfHead) -> Tensor:
    """Temperatures that change nothing, but for what fades."""
    found = torch.zeros_like(head.temperature)
    found[1 + SUBSETS.index((0,) * len(NAMING))] = FADED
    return found


def shipped_branches() -> dict[str, str]:
    """Ids of the branches whose cues a head is fitted to; the live system refuses a head that was fitted to others."""
    return {name: load_bundle(SHIPPED / name).id for name in ("face", "voice", "text")}


def subsets() -> list[frozenset[Modality]]:
    """Every set of modalities that may give an estimate: those with at least a face, a voice or words."""
    return [
        frozenset(chosen)
        for count in range(1, len(MODALITIES) + 1)
        for chosen in combinations(MODALITIES, count)
        if set(chosen) & set(TRUST)
    ]


def export_head(
    head: EcmfHead,
    folder: Path,
    labels: Sequence[str],
    dims: Mapping[Modality, int],
    *,
    version: str,
    licence: str,
    training_data: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any],
    extra: Mapping[str, Any],
    card: str,
    sample: Batch,
) -> Bundle:
    """Write the head as a bundle; ``sample`` gives the golden inputs. Returns the bundle as read back."""
    manifest = Manifest(
        name=folder.name,
        version=version,
        inputs=(
            *(
                Port(m, "float32", ("batch", dims[m]), f"{m} embedding, zeros where absent")
                for m in MODALITIES
            ),
            Port("log_probs", "float32", ("batch", len(MODALITIES), len(labels)), "log-probability"),
            Port("quality", "float32", ("batch", len(MODALITIES)), "0..1, 0 masks"),
        ),
        outputs=(
            Port("logits", "float32", ("batch", len(labels)), "calibrated logits"),
            Port("weights", "float32", ("batch", len(MODALITIES)), "sum to 1 over the present"),
        ),
        licence=licence,
        labels=tuple(labels),
        training_data=tuple(training_data),
        metrics=metrics,
        golden={"file": golden.FILE, "how": "cues of the people that the head was measured on"},
        extra=extra,
    )
    return write_graph(head, folder, manifest, tensors(sample)[0], card)


GOLDEN = 4
"""Samples that travel with a head for the parity gate."""


def write_graph(
    head: nn.Module, folder: Path, manifest: Manifest, inputs: Mapping[str, Tensor], card: str
) -> Bundle:
    """Export ``head`` with the manifest's ports and write the bundle; the first of ``inputs`` become golden."""
    names = [port.name for port in manifest.inputs]
    rounded = {name: torch.round(inputs[name], decimals=6) for name in names}
    head.eval()
    samples: list[dict[str, dict[str, NDArray[Any]]]] = []
    with torch.no_grad():
        for row in range(min(GOLDEN, len(rounded[names[0]]))):
            one = {name: value[row : row + 1] for name, value in rounded.items()}
            found = dict(zip((port.name for port in manifest.outputs), head(**one), strict=True))
            samples.append({
                "inputs": {name: value.numpy() for name, value in one.items()},
                "outputs": {name: value.numpy() for name, value in found.items()},
            })  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    graph = folder.parent / f".{folder.name}.onnx"
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        program = torch.onnx.export(
            head,
            kwargs=rounded,
            dynamo=True,
            opset_version=18,
            input_names=names,
            output_names=[port.name for port in manifest.outputs],
            dynamic_shapes={name: {0: batch} for name in names},
            verbose=False,
        )
        assert program is not None
        program.save(str(graph), external_data=False)
        remove_traces(graph)
        files: dict[str, Path | bytes] = {
            "model.onnx": graph,
            "README.md": card.encode(),
            golden.FILE: golden.write(samples),
        }
        return write_bundle(folder, manifest, files)
    finally:
        graph.unlink(missing_ok=True)


def fingerprint(pools: Mapping[Modality, Pool], prior: NDArray[np.float64], options: FitOptions) -> str:
    """Hex digest of all that a trained head depends on; the temperatures are fitted afterwards."""
    asked = asdict(replace(options, calibration=0))
    digest = hashlib.sha256(json.dumps([VERSION, asked], sort_keys=True).encode())
    digest.update(prior.tobytes())
    for modality in MODALITIES:
        digest.update(contents(pools[modality]))
    return digest.hexdigest()


def contents(pool: Pool) -> bytes:
    """Digest of the cues of a pool and their labels."""
    digest = hashlib.sha256()
    for part in (pool.embedding, pool.probs, pool.quality, pool.labels):
        digest.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.digest()
