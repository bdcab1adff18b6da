"""Runs in the environment of the `fer` package: pictures in, its labels and times out. Prints one JSON object.

`python fer_package.py FOLDER TASK ...` reads FOLDER/TASK.npy: uint8[n, h, w] grey or uint8[n, h, w, 3] BGR. A task
called `network` holds tight faces that go to the network alone; in any other, the package looks for the face itself.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import tensorflow as tf
from fer.fer import FER

cv2.setNumThreads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

WARM_UP = 3


def main() -> None:
    folder, tasks = sys.argv[1], sys.argv[2:]
    detector = FER()
    names = FER._get_labels()

    def network(picture: np.ndarray) -> str:
        face = cv2.resize(picture, (64, 64)).astype("float32") / 255.0
        scores = detector._classify_emotions((face[None] - 0.5) * 2.0)[0]
        return names[int(np.argmax(scores))]

    def find(picture: np.ndarray) -> str | None:
        found = detector.detect_emotions(picture)
        if not found:
            return None
        scores = max(found, key=lambda face: face["box"][2] * face["box"][3])["emotions"]
        return max(scores, key=scores.get)

    told = {}
    for task in tasks:
        pictures = np.load(Path(folder) / f"{task}.npy")
        if task != "network" and pictures.ndim == 3:
            pictures = [cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) for picture in pictures]
        answer = network if task == "network" else find
        for _ in range(WARM_UP):
            answer(pictures[0])
        labels, spent = [], []
        cpu = time.process_time()
        for picture in pictures:
            began = time.perf_counter()
            labels.append(answer(picture))
            spent.append((time.perf_counter() - began) * 1e3)
        core_ms = (time.process_time() - cpu) * 1e3 / len(pictures)
        told[task] = {"labels": labels, "ms": spent, "core_ms": core_ms}
    print(json.dumps({"version": version("fer"), "backend": "TensorFlow Lite, Haar cascade", "tasks": told}))


main()
