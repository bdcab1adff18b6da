"""One loaded model for all who run it in this process, so that a second camera costs buffers, not weights."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable

from ecmf.engines.base import Engine, Shareable

_turns: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
_loaded: defaultdict[str, list[weakref.ref[Shareable]]] = defaultdict(list)
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_guard = threading.Lock()


def share(name: str, load: Callable[[], Engine]) -> Engine:
    """The engine that ``load`` gives, or a twin of one that was loaded under the same ``name`` and still lives.

    Each caller has its own engine and may run it beside the others. Of a model whose callers wait for one another
    as many copies are loaded as there are cores; more could not run at once. A copy in which somebody hangs is no
    longer given to others.
    """
    with _guard:
        lock = _locks[name]
    with lock:
        alive = [each for each in (reference() for reference in _loaded[name]) if each is not None]
        able = [engine for engine in alive if not engine.stuck]
        if able and len(able) >= (1 if able[0].concurrent else len(os.sched_getaffinity(0))):
            return able[next(_turns[name]) % len(able)].twin()
        engine = load()
        if isinstance(engine, Shareable):
            _loaded[name] = [weakref.ref(each) for each in (*alive, engine)]
        return engine
