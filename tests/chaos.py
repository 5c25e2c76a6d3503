"""`make chaos`: a small run that is broken at random moments, and has to end as if nothing had happened.

Real: the command line, Ray, Parquet, Label Studio, servers on loopback that speak OpenAI's protocol. Simulated: the
shards (noise), what the servers answer, and the people. One line of commands, from shards to a release, runs
undisturbed. A second run is broken in every step: on a full disk; then the driver is killed or interrupted; then, in
one command that has to live with it, a worker of Ray is killed and the engines' servers or Label Studio are gone for a
while. Then bytes of its tables are turned over and, for a third run, bytes of the shards.

It must come out: after each blow the funnel adds up, nothing ends in a traceback, and the release is that of the
undisturbed run, byte for byte; a release of damaged tables is refused, and doing as the message says mends them. A blow
can come too late, when a command has ended: how many landed is told, and when most missed nothing was shown.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
from checking_server import CheckingServer
from label_studio_site import Site
from named_shards import write_shard
from naming_server import NamingServer
from rich.console import Console
from test_end_to_end import rr7k, served_by, start

from annotation_ui import connection
from annotation_ui.projects import batches
from pipeline.run import Run
from stages.funnel import levels

SHARDS, IMAGES, MASKS = 2, 6, 24
NAMES = ("dog", "dog", "dog", "cat", "cat", "tree", "boat", "cup", "lamp", "horse", "kite", "spoon", "chair", "fence")
AWAY = 1.5  # seconds that a server is gone
TURNED = ("masks", "names", "pairs", "checks", "verdicts")
ADVICE = re.compile(r"delete (\S+);")
NOT_OURS = ("IDLE", "Agent", "get_table_block_metadata_schema")  # ends of the names of processes that Ray is busy with
DISK = 256 << 20  # bytes of the disk that gets full
LEFT = 8 << 10  # bytes that are left on it: for a lock, and next to nothing else
MADE = "A release is never changed"  # said of one that is whole already
console = Console(width=120, highlight=False)


class ChaosError(Exception):
    """What should not have happened."""


class People(Site):
    """A Label Studio of a run, and who answers there."""

    def __init__(self, folder: Path, run: Path) -> None:
        crops = run / "crops"
        crops.mkdir(parents=True)
        super().__init__(folder, crops)
        self._run = Run(str(run))

    def away(self) -> None:
        """Be killed, and come back after a while."""
        self.process().kill()
        time.sleep(AWAY)
        self.restart()

    def answer(self) -> None:
        """Answer every page that has no answer yet: one tile in five is wrong."""
        with self.client() as client:
            found = [client.find(batch.title) for batch in batches(self._run)]
            tasks = [task for project in found for ids in client.pages(project).values() for task in ids]
        for task in (self.get(f"/api/tasks/{number}/").json() for number in tasks):
            if not task["annotations"]:
                uids = [tile["value"] for tile in task["data"]["wrong"]]
                chosen = [uid for uid in uids if int(uid.partition(".")[0]) % 5 == 0]
                marks = {"from_name": "wrong", "to_name": "page", "type": "choices", "value": {"choices": chosen}}
                self.post(f"/api/tasks/{task['id']}/annotations/", {"result": [marks] if chosen else []})


class Servers:
    """Who names, who checks, and where people screen; all can go away and come back at the same address."""

    people: People

    def __init__(self) -> None:
        self.naming, self.checking = _naming(0), CheckingServer()
        self.addresses = self.naming.url, self.checking.url

    def away(self) -> None:
        """Let both be gone for a while."""
        ports = [int(url.rpartition(":")[2].removesuffix("/v1")) for url in self.addresses]
        self.naming.stop()
        self.checking.stop()
        time.sleep(AWAY)
        self.naming, self.checking = _naming(ports[0]), CheckingServer(port=ports[1])


def _naming(port: int) -> NamingServer:
    server = NamingServer(port=port)
    server.name = lambda pictures: NAMES[sha256("".join(pictures).encode()).digest()[0] % len(NAMES)]
    return server


@contextmanager
def screening(servers: Servers, folder: Path, run: Path) -> Iterator[None]:
    """Have people screen a run on a Label Studio of its own."""
    servers.people = people = People(folder, run)
    os.environ |= {connection.URL: people.server.url, connection.TOKEN: people.server.token}
    os.environ[connection.CROPS] = people.server.folder
    yield
    people.stop()


# --- blows, each to a command under way; they return what they did, nothing if there was nothing to hit ---


def kill_driver(process: subprocess.Popen[str], _: Servers) -> str:
    """Kill the command and what it started."""
    os.killpg(process.pid, signal.SIGKILL)
    return "driver killed"


def kill_worker(process: subprocess.Popen[str], _: Servers) -> str:
    """Kill that process of Ray which has worked most, as soon as one works; none that holds the cluster together."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            if workers := _workers(process.pid):
                busiest = max(workers, key=lambda worker: worker.cpu_times().user)
                name = busiest.name()
                busiest.kill()
                return f"{name} killed"
        time.sleep(0.02)
    return ""


def _workers(driver: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(driver).children(recursive=True)
        return [child for child in children if _works(child)]
    return []


def _works(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        name = process.name()
        return name.startswith("ray::") and not name.endswith(NOT_OURS)
    return False


def interrupt(process: subprocess.Popen[str], _: Servers) -> str:
    """Press Ctrl-C."""
    os.kill(process.pid, signal.SIGINT)
    return "interrupted"


def take_servers(_: subprocess.Popen[str], servers: Servers) -> str:
    """Let the servers go and come back."""
    servers.away()
    return "servers away"


def kill_label_studio(_: subprocess.Popen[str], servers: Servers) -> str:
    """Kill Label Studio and let it come back."""
    servers.people.away()
    return "Label Studio killed"


Blow = Callable[[subprocess.Popen[str], Servers], str]

ENDING: tuple[Blow, ...] = (kill_driver, interrupt)


# --- the line, whole and broken ---


class Step(NamedTuple):
    """A command of the line."""

    title: str
    arguments: tuple[object, ...]
    lived_through: tuple[Blow, ...] = ()
    """What it has to live with, beside what ends any command."""
    after: Callable[[], None] = lambda: None
    """What people do then."""


def line(run: Path, shards: Path, servers: Servers, release: Path) -> list[Step]:
    """Return the commands from shards to a release."""
    naming, checking = servers.addresses
    at = ("--run", run)
    name_server, check_server = served_by("namer", naming), served_by("verifier", checking)
    return [
        Step("manifest", ("stage-1", "manifest", *at, "--shards", shards), (kill_worker,)),
        Step("names", ("stage-1", "names", *at, *name_server), (kill_worker, take_servers)),
        Step("pairs", ("stage-1", "pairs", *at)),
        Step(
            "stage 2",
            ("stage-2", *at, *check_server, "--set", "head_tail.head_min_count=20"),
            (kill_worker, take_servers),
        ),
        Step("export", ("stage-3", "export", *at), (kill_worker, kill_label_studio), after=servers.people.answer),
        Step("import", ("stage-3", "import", *at), (kill_label_studio,)),
        Step("release", released(run, release), (kill_worker,)),
    ]


def released(run: Path, to: Path) -> tuple[object, ...]:
    """Return the command that makes the release."""
    return ("release", "--run", run, "--out", to, "--version", "1.0.0", "--date", "2026-01-01", "--images", "embed")


def undisturbed(steps: list[Step]) -> dict[str, float]:
    """Run the line; return each step's seconds."""
    seconds = {}
    for title, arguments, _, after in steps:
        began = time.monotonic()
        done = rr7k(*arguments)
        if done.returncode:
            raise ChaosError(f"{title}, undisturbed, ended with {done.returncode}: {done.stderr}")
        seconds[title] = time.monotonic() - began
        console.print(f"  {title}: {seconds[title]:.0f} s")
        after()
    return seconds


def disturbed(steps: list[Step], seconds: dict[str, float], run: Path, servers: Servers, chance: random.Random) -> None:
    """Run the line, each step on a full disk (where one can be made), ended, hit, and then left to finish."""
    landed = thrown = 0
    for title, arguments, lived_through, after in steps:
        if run.parent.is_mount():
            console.print(f"  {title}: disk full, {_without_space(arguments, run)}; {_funnel(run)}")
        for blows in filter(None, ((chance.choice(ENDING),), lived_through)):
            moments = sorted(chance.uniform(0.2, 0.8) * seconds[title] for _ in blows)
            hits, told = _struck(arguments, dict(zip(moments, blows, strict=True)), servers)
            console.print(f"  {title}: {told}; {_funnel(run)}")
            landed += hits
            thrown += len(blows)
        done = rr7k(*arguments)
        if done.returncode and MADE not in done.stderr:
            raise ChaosError(f"{title}, given again, ended with {done.returncode}: {done.stderr}")
        console.print(f"  {title}: whole; {_funnel(run)}")
        after()
    console.print(f"  {landed} of {thrown} blows landed")
    if 2 * landed < thrown:
        raise ChaosError("most blows came when the command had ended, which shows nothing: give another --seed")


def _struck(arguments: tuple[object, ...], blows: dict[float, Blow], servers: Servers) -> tuple[int, str]:
    """Run a command and hit it at these seconds; return how many blows landed, and what came of it."""
    began, told = time.monotonic(), []
    process = start(*arguments)
    for moment, blow in blows.items():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, began + moment - time.monotonic()))
        if process.poll() is None and (done := blow(process, servers)):
            told.append(f"{done} after {time.monotonic() - began:.1f} s")
    _, err = process.communicate(timeout=300)
    if "Traceback" in err:
        raise ChaosError(f"{', '.join(told)}: {err}")
    return len(told), f"{', '.join(told) or 'no blow landed'}, exit code {process.returncode}"


def _without_space(arguments: tuple[object, ...], run: Path) -> str:
    """Run a command on a full disk."""
    ballast = run.parent / "ballast"
    free = shutil.disk_usage(run.parent).free
    ballast.write_bytes(bytes(max(0, free - LEFT)))
    try:
        done = rr7k(*arguments)
    finally:
        ballast.unlink()
    if "Traceback" in done.stderr:
        raise ChaosError(f"on a full disk: {done.stderr}")
    return f"exit code {done.returncode}"


def _funnel(run: Path) -> str:
    found = levels(Run(str(run)))
    if wrong := [level.name for level in found if level.difference]:
        raise ChaosError(f"the funnel does not add up at {', '.join(wrong)}")
    return ", ".join(f"{level.name} {level.kept}" for level in found)


# --- turned bytes ---


def turn(path: Path, chance: random.Random) -> str:
    """Turn one byte of a file over; return which."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    content[place] ^= 0xFF
    path.write_bytes(content)
    return f"byte {place:,} of {len(content):,} of {path.name} turned"


def mended(steps: list[Step], run: Path, chance: random.Random) -> None:
    """Damage tables, have the release refused, do what it says, and run the line again."""
    for table in TURNED:
        console.print(f"  {turn(chance.choice(sorted((run / table).glob('*.parquet'))), chance)}")
    release = steps[-1].arguments
    done = rr7k(*release)
    advice = ADVICE.findall(done.stderr)
    if done.returncode != 1 or len(advice) != len(TURNED):
        raise ChaosError(f"{len(TURNED)} damaged tables: exit code {done.returncode}, {done.stderr}")
    console.print(f"  refused: {len(advice)} files are told")
    for record in advice:
        Path(record).unlink()
    for title, arguments, _, after in steps:
        done = rr7k(*arguments)
        if done.returncode:
            raise ChaosError(f"{title}, after damage, ended with {done.returncode}: {done.stderr}")
        after()
    console.print(f"  given again: {_funnel(run)}")


def damaged_shards(shards: Path, folder: Path, chance: random.Random) -> None:
    """Read shards of which each has a turned byte; what cannot be used has to be said."""
    copy = Path(shutil.copytree(shards, folder / "damaged"))
    for path in sorted(copy.glob("*.tar")):
        console.print(f"  {turn(path, chance)}")
    run = folder / "of-damaged"
    done = rr7k("stage-1", "manifest", "--run", run, "--shards", copy)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise ChaosError(f"on damaged shards: exit code {done.returncode}, {done.stderr}")
    console.print(f"  exit code {done.returncode}; {_funnel(run)}")


# --- all of it ---


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Return a folder on a small disk of its own or, where none can be mounted, any folder."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        console.print("left out: the full disk, for which a small one would have to be mounted (needs root)")
    try:
        yield folder
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", str(folder)], check=True)


def main() -> None:
    """Run both lines and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16), help="of the moments and blows")
    seed = parser.parse_args().seed
    console.print(f"seed {seed}: the same blows again with --seed {seed}")
    with TemporaryDirectory() as name, small_disk(Path(name, "disk")) as disk:
        folder, servers, chance = Path(name), Servers(), random.Random(seed)
        shards = folder / "shards"
        shards.mkdir()
        for number in range(SHARDS):
            write_shard(shards, number, IMAGES, MASKS)
        console.print("undisturbed")  # runs of one name, which a release states
        with screening(servers, folder / "first", folder / "whole" / "run"):
            seconds = undisturbed(line(folder / "whole" / "run", shards, servers, folder / "release"))
        wanted = (folder / "release" / "checksums.txt").read_bytes()
        with screening(servers, folder / "second", disk / "run"):
            console.print("disturbed")
            disturbed(line(disk / "run", shards, servers, disk / "release"), seconds, disk / "run", servers, chance)
            if (disk / "release" / "checksums.txt").read_bytes() != wanted:
                raise ChaosError("the disturbed run's release is another")
            console.print("damaged")
            mended(line(disk / "run", shards, servers, disk / "mended"), disk / "run", chance)
            if (disk / "mended" / "checksums.txt").read_bytes() != wanted:
                raise ChaosError("the mended run's release is another")
        damaged_shards(shards, folder, chance)
    console.print("All releases are that of the undisturbed run, byte for byte, and the funnels add up.")


if __name__ == "__main__":
    try:
        main()
    except ChaosError as failure:
        console.print(f"[bold red]failed[/]: {failure}", markup=True)
        sys.exit(1)
