"""The bundle of a head that was trained on clips, and its model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.bundle import Bundle
from ecmf.fusion import EcmfHead
from train import overlap
from train.clip_samples import Samples
from train.datasets import folder
from train.fit_head import export_head, shipped_branches


def export(
    head: EcmfHead,
    samples: Samples,
    listed: folder.Folder,
    measured: Mapping[str, Any],
    out: Path,
    *,
    version: str,
    abstain_margin: float,
    calibrated: str,
) -> Bundle:
    """Write ``out``. ``measured``: scores per split and set of cues, as ``clip_scores.measure`` gives them."""
    people = {
        split: sorted({item.speaker for item in listed.items if item.split == split})
        for split in folder.SPLITS
    }
    clips = {split: sum(item.split == split for item in listed.items) for split in folder.SPLITS}
    used = sorted(samples.modalities)
    lines = [
        f"# {out.parent.name}: a fusion head for {', '.join(listed.labels)}",
        "",
        f"Trained on {clips['train']} clips of {len(people['train'])} people listed in {listed.table.name}; cues: "
        f"{', '.join(used)}. {calibrated}",
        "The licence of the clips binds it. It estimates expressed emotion, not what a person feels.",
        "",
    ]
    for split, table in measured.items():
        known = overlap.flattered(set(people[split]))
        lines += [f"{split}, {clips[split]} clips of {len(people[split])} other people{known}:", ""]
        lines += [
            "| cues | clips | weighted F1 | UAR | accuracy | calibration error |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {row['n']} | {row['weighted_f1']:.3f} | {row['uar']:.3f} | {row['accuracy']:.3f} "
            f"| {row['ece']:.3f} |"
            for name, row in table.items()
        ]
        lines.append("")
    return export_head(
        head,
        out,
        listed.labels,
        {m: cue.shape[1] for m, cue in samples.batch.cues.items()},
        version=version,
        licence="that of the clips it was trained on",
        training_data=[{"name": listed.table.parent.name, "clips": clips, "people": people}],
        metrics=measured,
        extra={
            "modalities": used,
            "abstain_margin": abstain_margin,
            "branches": shipped_branches(),
        },
        card="\n".join(lines),
        sample=samples.rows(np.arange(min(8, len(samples.clip)))),
    )
