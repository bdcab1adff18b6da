"""The cameras and microphones of this machine, for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ecmf.errors import EcmfError
from realtime.sources.microphone import MicrophoneInfo, microphones
from realtime.sources.v4l2 import CameraInfo, cameras


def devices() -> dict[str, Any]:
    """``cameras`` and ``microphones`` as lists of JSON-able dicts, and ``notes`` on what could not be looked up."""
    notes: list[str] = []
    heard: list[MicrophoneInfo] = []
    try:
        heard = microphones()
    except EcmfError as error:
        notes.append(str(error))
    return {
        "cameras": [dataclasses.asdict(each) for each in cameras()],
        "microphones": [dataclasses.asdict(each) for each in heard],
        "notes": notes,
    }


def print_devices(*, as_json: bool) -> None:
    """Write the list on stdout: one JSON object, or a few lines for people."""
    found = devices()
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    print("cameras:")
    for each in found["cameras"]:
        print(f"  {each['number']}  {each['name']}")
        for link in each["links"]:
            print(f"       {link}")
        for pixels, sizes in _by_pixels(each["formats"]).items():
            print(f"       {pixels}: {sizes}")
    if not found["cameras"]:
        print("  none")
    print("microphones:")
    for each in found["microphones"]:
        default = ", the default" if each["default"] else ""
        what = f"{each['api']}, {each['channels']} channels, {each['rate']} Hz{default}"
        print(f"  {each['index']}  {each['name']} ({what})")
    if not found["microphones"]:
        print("  none")
    for note in found["notes"]:
        print(note)


def _by_pixels(formats: list[dict[str, Any]]) -> dict[str, str]:
    sizes: dict[str, list[str]] = {}
    for each in formats:
        at = f"@{each['fps']:g}" if each["fps"] else ""
        sizes.setdefault(each["pixels"], []).append(f"{each['width']}x{each['height']}{at}")
    return {pixels: " ".join(each) for pixels, each in sizes.items()}


__all__ = ["CameraInfo", "MicrophoneInfo", "devices", "print_devices"]
