"""The bundle: one folder per trained or imported model, `manifest.json` beside its graph."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ecmf.errors import BundleError

FORMAT = 1
SHIPPED = Path(__file__).parent / "models"
"""Folder of the bundles that come with the package."""
INT8 = "model.int8.onnx"
"""A bundle's calibrated twin, with QuantizeLinear and DequantizeLinear nodes; python -m train.quantize makes it."""
APART = frozenset({"README.md", "golden.json", "recipe.toml", INT8})
"""Files that the answers do not depend on: for people, for the proof, for training, and a twin in another precision,
of which every message says when it runs."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model."""

    name: str
    dtype: str
    """numpy name, e.g. float32."""
    shape: tuple[int | str, ...]
    """A fixed size, or the name of a dynamic one (batch, time)."""
    unit: str = ""
    """What the numbers are, e.g. 'RGB / 255', 'log-mel', 'log-probability'."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself."""

    name: str
    version: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    licence: str
    files: Mapping[str, str] = field(default_factory=dict)
    """File name -> sha256; filled when the bundle is written."""
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    training_data: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    golden: Mapping[str, Any] = field(default_factory=dict)
    """Reference to demo media and expected outputs, for the parity gate."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind of model needs, e.g. temperature, encoder sha256.

    All of it counts for the bundle's id (see ``Bundle.digest``), sentences too. Prose that no answer depends on belongs
    in the card, README.md: to reword it here gives the bundle another id, and every head that was trained on the old
    one is refused. The same holds for ``preprocessing``.
    """
    format: int = FORMAT


@dataclass(frozen=True)
class Bundle:
    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Name, version and the first hex digits of ``digest``: stable across machines."""
        return f"{self.manifest.name}-{self.manifest.version}+{self.digest[:8]}"

    @cached_property
    def digest(self) -> str:
        """Hex digest of all that decides what the bundle answers: its files, but for those APART, its ports and
        labels, and what its manifest tells the code that feeds it and reads it (temperature, window, prior ...).

        A trap: ``preprocessing`` and ``extra`` are hashed whole, and nothing tells their numbers from their sentences.
        A change of a word there changes the id, as a change of the graph does, and refuses all heads that users trained
        on this bundle. Prose that answers do not depend on belongs in the card, which is APART. Nor can keys be left
        out from now on: shipped bundles have prose there, so their ids, which heads record, would change as well.
        """
        manifest = self.manifest
        parts = _record(manifest, {n: h for n, h in manifest.files.items() if n not in APART})
        told = ("files", "inputs", "outputs", "labels", "preprocessing", "extra")
        canonical = json.dumps({name: parts[name] for name in told}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def model(self) -> Path:
        """The graph: model.onnx, or model.tflite where the owner ships that."""
        for name in ("model.onnx", "model.tflite"):
            if name in self.manifest.files:
                return self.folder / name
        raise BundleError(
            f"bundle {self.folder} lists neither model.onnx nor model.tflite; export or pull it again"
        )

    @property
    def sha256(self) -> str:
        """Of the graph alone: what an engine depends on."""
        return self.manifest.files[self.model.name]


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(folder: Path | str, *, verify: bool = True) -> Bundle:
    """Read a bundle. Raises BundleError when the manifest is broken or, with ``verify``, when a hash differs."""
    folder = Path(folder)
    path = folder / "manifest.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
        for key in ("inputs", "outputs"):
            raw[key] = tuple(_port(p) for p in raw[key])
        for key in ("labels", "training_data"):
            raw[key] = tuple(raw.get(key, ()))
        manifest = Manifest(**raw)
    except FileNotFoundError:
        raise BundleError(f"no bundle in {folder}: manifest.json is missing") from None
    except OSError as error:
        raise BundleError(
            f"bundle {folder} cannot be read: {error.strerror}; give the folder of one"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{path} is not a bundle manifest ({error}); export or pull it again") from None
    if manifest.format != FORMAT:
        raise BundleError(
            f"{path} has format {manifest.format}, this version reads {FORMAT}; export it again"
        )
    if verify:
        for name, expected in manifest.files.items():
            file = folder / name
            found = sha256_of(file) if file.is_file() else "missing"
            if found != expected:
                raise BundleError(
                    f"{file} is {found[:12]}, its manifest says {expected[:12]}; restore or pull it again"
                )
    return Bundle(folder, manifest)


def write_bundle(folder: Path | str, manifest: Manifest, files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle whole or not at all: into a temporary folder beside it, then renamed over the old one.

    ``files`` maps a file name to its bytes or to a path to copy.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        hashes = {}
        for name, content in files.items():
            target = temporary / name
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
            hashes[name] = sha256_of(target)
        record = _record(manifest, hashes)
        (temporary / "manifest.json").write_text(
            json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        temporary.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.replace(old / "bundle")
            temporary.replace(folder)
            shutil.rmtree(old)
        else:
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_bundle(folder)


def _port(raw: Mapping[str, Any]) -> Port:
    return Port(raw["name"], raw["dtype"], tuple(raw["shape"]), raw.get("unit", ""))


def _record(manifest: Manifest, hashes: Mapping[str, str]) -> dict[str, Any]:
    def port(p: Port) -> dict[str, Any]:
        return {"name": p.name, "dtype": p.dtype, "shape": list(p.shape), "unit": p.unit}

    def ports(items: Sequence[Port]) -> list[dict[str, Any]]:
        return [port(p) for p in items]

    return {
        "format": manifest.format,
        "name": manifest.name,
        "version": manifest.version,
        "files": dict(hashes),
        "inputs": ports(manifest.inputs),
        "outputs": ports(manifest.outputs),
        "labels": list(manifest.labels),
        "licence": manifest.licence,
        "preprocessing": dict(manifest.preprocessing),
        "training_data": list(manifest.training_data),
        "metrics": dict(manifest.metrics),
        "golden": dict(manifest.golden),
        "extra": dict(manifest.extra),
    }
