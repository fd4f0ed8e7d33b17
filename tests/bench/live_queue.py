"""Compares a live server with the simulator: the same curve, the same rate, Poisson arrivals over HTTP.

python tests/bench/live_queue.py [--share 0.6] [--seconds 20]

The server runs the simulated engine, so that decoding is what its CPU is busy with, and its queue is what is measured.
First it is asked for as much as it can, by callers that wait for their answers; then at a share of that, by those who
do not; then with deadlines that cannot be kept, to see how soon a refusal comes. The server has all CPUs but the last
one, which the client has.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from pictures import encoded, photo
from service.batching.arrivals import Traffic
from service.batching.scheduler import Tunings
from service.batching.simulator import Pace, Scheduled, simulate
from service.engines import Curve, GearTime
from serving import UNTRAINED, running

MODEL = "sknet50"
PATH = f"/v1/models/{MODEL}/classify?top_k=1"
CALLERS = 8
FILL_S = 5.0


@dataclass
class Connections:
    """Kept connections to a server; as many as are needed at once."""

    host: str
    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def post(self, path: str, body: bytes, headers: str = "") -> tuple[int, dict[str, object], float]:
        """Send one request; return its status, its answer, and how long it took."""
        began = time.perf_counter()
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(self.host, self.port)
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        took_s = time.perf_counter() - began
        self.idle.append((reader, writer))
        return int(head.split(" ")[1]), answer, took_s


def distinct(picture: bytes) -> bytes:
    """Make a JPEG another one by a comment, which costs its decoder nothing: equal ones would be computed once."""
    comment = secrets.token_bytes(16)
    return picture[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2) + comment + picture[2:]


async def most(connections: Connections, picture: bytes, seconds: float) -> float:
    """Tell the answers a second to callers that each wait for theirs."""
    end, answers = time.perf_counter() + seconds, 0

    async def ask() -> None:
        nonlocal answers
        while time.perf_counter() < end:
            status, _, _ = await connections.post(PATH, distinct(picture), "")
            answers += status == 200

    await asyncio.gather(*[ask() for _ in range(CALLERS)])
    return answers / seconds


async def press(
    connections: Connections, picture: bytes, rate: float, seconds: float, headers: str = ""
) -> list[tuple[int, dict[str, object], float]]:
    """Send Poisson arrivals, whether the ones before are answered or not."""
    draw, answers, tasks = random.Random(5), [], set()

    async def one() -> None:
        answers.append(await connections.post(PATH, distinct(picture), headers))

    moment = time.perf_counter()
    end = moment + seconds
    while moment < end:
        moment += draw.expovariate(rate)
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        task = asyncio.ensure_future(one())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return answers


def p99_ms(times_s: Sequence[float]) -> float:
    return float(np.percentile(times_s, 99)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--side", type=int, default=1080, help="of the picture, in pixels")
    parser.add_argument("--table", default="310p/se_resnext50")
    options = parser.parse_args()
    picture = encoded(photo(options.side, options.side, 1))
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[:-1] or cpus)
    flags = ("--engine", "simulated", "--simulated-table", options.table, "--required-models", MODEL)
    with running(UNTRAINED, *flags, "--profile-s", "5") as server:
        os.sched_setaffinity(0, cpus[-1:])
        where = urlsplit(server.rest)
        connections = Connections(str(where.hostname), where.port or 80)

        async def work() -> None:
            await most(connections, picture, FILL_S)  # what is new takes longer
            able = await most(connections, picture, FILL_S)
            rate = options.share * able
            print(f"the server can answer {able:.0f} of these pictures a second; arrivals come at {rate:.0f}")
            curve = curve_of(server.rest)
            answers = await press(connections, picture, rate, options.seconds)
            times = [answer["timing_ms"] for status, answer, _ in answers if status == 200]
            print(f"{len(answers)} requests, {len(times)} answered")
            compare(curve, rate, times, [took_s for status, _, took_s in answers if status == 200])
            late = await press(connections, picture, 20, 8.0, "x-request-timeout-ms: 1\r\n")
            refused = [took_s for status, _, took_s in late if status == 429]
            print(
                f"refused {len(refused)} of {len(late)} with a deadline of 1 ms, p99 {p99_ms(refused):.2f} ms"
            )

        asyncio.run(work())


def curve_of(rest: str) -> Curve:
    """Ask a server for the curve that it measured."""
    with urlopen(f"{rest}/v1/models/{MODEL}") as description:
        (profile,) = json.load(description)["profiles"]
    times = {
        gear["gear"]: GearTime(p50_s=gear["p50_ms"] / 1000, p99_s=gear["p99_ms"] / 1000)
        for gear in profile["gears"]
    }
    return Curve(times)


def compare(
    curve: Curve, rate: float, times: Sequence[dict[str, float]], at_client_s: Sequence[float]
) -> None:
    """Print what the simulator predicts, and what was seen."""
    pace = {gear: time.p50_s for gear, time in curve.times.items()}
    arrivals = Traffic(rate=rate, deadline_s=(30.0,)).arrivals(100_000, 1)
    predicted = simulate(arrivals, Scheduled([curve], Tunings()), Pace(times_s=pace))
    predicted_ms = p99_ms(predicted.latencies_s)
    decode_ms = p99_ms([each["decode"] / 1000 for each in times])
    queued_ms = p99_ms([(each["queue"] + each["engine"]) / 1000 for each in times])
    total_ms = p99_ms([each["total"] / 1000 for each in times])
    allowed_ms = 1.15 * predicted_ms + decode_ms
    print(
        f"p99 ms: simulator {predicted_ms:.2f}; server: queue and engine {queued_ms:.2f}, decode {decode_ms:.2f}"
    )
    print(f"p99 ms: whole request {total_ms:.2f} in the server, {p99_ms(at_client_s):.2f} at the client")
    print(f"1.15 x simulator + decode = {allowed_ms:.2f} ms: {total_ms / allowed_ms:.2f} of it in the server")


if __name__ == "__main__":
    main()
