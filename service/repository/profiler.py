"""Finds out how long the batches of an engine process take: kept from another start, or measured now."""

import logging
from collections.abc import Mapping, Sequence

import anyio
import numpy as np
from anyio.to_thread import run_sync

from service.engines import Curve, EngineProcess, measure, still_holds
from service.logs import fields
from service.repository.curves import CurveStore

_log = logging.getLogger("cardinal.curves")

_CHECK_SHARE = 0.2  # of the time to measure


class Profiler:
    """Measures one process at a time: two at once would slow each other down."""

    def __init__(self, store: CurveStore, limit_s: float) -> None:
        self._store, self._limit_s = store, limit_s
        self._known: dict[frozenset[tuple[str, str]], Curve] = {}
        self._turn = anyio.Lock()

    async def curve(
        self, process: EngineProcess, gears: Sequence[int], depends_on: Mapping[str, str]
    ) -> Curve:
        """Tell the curve of a process; after a restart it is that of the one before.

        Raises:
            EngineFault: the process failed at it.
        """
        key = frozenset(depends_on.items())
        async with self._turn:
            if key not in self._known:
                self._known[key] = await self._found(process, gears, depends_on)
            return self._known[key]

    async def _found(
        self, process: EngineProcess, gears: Sequence[int], depends_on: Mapping[str, str]
    ) -> Curve:
        side = process.order.side
        row = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)

        async def run(gear: int) -> None:
            await process.run([row], gear)

        who = {"model": process.order.model, "version": process.order.version, "engine": process.about}
        kept = await run_sync(self._store.kept, depends_on)
        if (
            kept
            and set(kept.gears) <= set(gears)
            and await still_holds(kept, run, self._limit_s * _CHECK_SHARE)
        ):
            _log.info("curve_kept", extra=fields(**who, curve=str(kept)))
            return kept
        measured = await measure(run, gears, self._limit_s)
        _log.info("curve_measured", extra=fields(**who, curve=str(measured)))
        await run_sync(self._store.keep, measured, depends_on)
        return measured
