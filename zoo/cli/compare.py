"""``zoo compare``: trains, scores and draws all runs of a comparison, as many side by side as told."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.utils.errors import Stopped
from zoo.utils.files import held_alone
from zoo.utils.ranges import between, given
from zoo.utils.targets import file_target, folder_target
from zoo.utils.threads import cpus_of_each

if TYPE_CHECKING:
    from zoo.cli.comparison import Protocol, Run

MOST_JOBS = 1000
SURFACELESS = ("mesh.png", 2)  # what a system without a density or surface refuses


def run(
    protocol: Path,
    out: Path | None = None,
    results: Path | None = None,
    jobs: int = 1,
    threads: int | None = None,
    plan: bool = False,
) -> None:
    """Train, score and draw every system of a comparison with each of its seeds, all with the same budget.

    What is there already is left alone, and a training that was stopped or killed resumes from its last checkpoint: the
    same command goes on with an interrupted comparison, and writes its report anew.

    Args:
        protocol: a yaml: data, budget, systems with their recipes, seeds, metrics; docs/comparison.md describes it.
        out: folder of the comparison; by default runs/<name of the yaml>.
        results: table that scores are added to; by default results.csv in that folder.
        jobs: runs at once.
        threads: of each run; by default, all share the CPUs.
        plan: say what would be run, and about how long that takes, and stop.
    """
    between(1, MOST_JOBS, jobs=jobs, **given(threads=threads))
    from zoo.cli.comparison import check_unchanged, read_protocol
    from zoo.cli.comparison_report import plan_of, write_report
    from zoo.cli.comparison_runs import side_by_side

    said = read_protocol(protocol)
    out = folder_target(out or Path("runs") / protocol.stem)
    results = file_target(results or out / "results.csv", option="--results")
    if plan:
        print(plan_of(said, out, results, jobs))
        return
    out.mkdir(parents=True, exist_ok=True)
    refusal = f"Another 'zoo compare' is writing into '{out}': wait for its end, or give another --out."
    with held_alone(out / ".comparing.lock", refusal):
        check_unchanged(out, said)
        (out / ".gitignore").write_text("training/\n.comparing.lock\n")  # checkpoints are large
        workers = Workers(said, out, results, threads or cpus_of_each(jobs))
        with workers.stopping(), ThreadPoolExecutor(jobs) as pool:
            finished = list(pool.map(workers.finish, said.runs()))
            if (words := side_by_side(said, out)) and not workers.stopped:
                workers.call("systems.png", words, out)
        report = write_report(said, out, results)
    if workers.stopped:
        raise Stopped("Stopped; trainings have saved. The same command goes on.", 128 + workers.stopped)
    print(report)
    if count := finished.count(False):
        raise Stopped(
            f"{count} of {len(finished)} runs are not finished: '{report}' says why. The same command tries again.", 1
        )


class Workers:
    """Runs commands, each in a process of its own, in several threads.

    Args:
        protocol: of the comparison.
        out: its folder.
        results: table of scores.
        threads: of each process.
    """

    def __init__(self, protocol: "Protocol", out: Path, results: Path, threads: int) -> None:
        self.protocol, self.out, self.results, self.threads = protocol, out, results, threads
        self.stopped = 0  # the signal
        self.processes: set[subprocess.Popen] = set()

    def finish(self, run: "Run") -> bool:
        """Run what a run still lacks; whether all that is needed worked."""
        from zoo.cli.comparison_report import draw_curve
        from zoo.cli.comparison_runs import NEEDED, lacking

        folder, worked = self.out / run.name, True
        for made, words in lacking(self.protocol, run, folder, self.results).items():
            if self.stopped:
                return False
            print(f"{run.name}: {made}{' goes on' if '--ckpt_path' in words else ''}", flush=True)
            code = self.call(made, words, folder)
            if code and made in NEEDED:
                return False
            worked = worked and (code == 0 or (made, code) == SURFACELESS)
            if made == "training":
                with suppress(FileNotFoundError):
                    shutil.copy(folder / "training" / "curve.csv", folder)
                    draw_curve(self.protocol, folder)
        return worked

    def call(self, made: str, words: list[str], folder: Path) -> int:
        """Run a command and note it; its output goes to training/log.txt. Returns its exit code."""
        from zoo.cli.comparison_runs import note

        (folder / "training").mkdir(parents=True, exist_ok=True)
        log = folder / "training" / "log.txt"
        env = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        start, begin = time.monotonic(), log.stat().st_size if log.is_file() else 0
        with open(log, "a", encoding="utf-8") as file:
            # In a session of its own, so that Ctrl-C on a terminal is not sent twice.
            process = subprocess.Popen(
                [sys.executable, "-m", "zoo", *words], stdout=file, stderr=file, env=env, start_new_session=True
            )
            self.processes.add(process)
            if self.stopped:
                process.terminate()
            code = process.wait()
            self.processes.discard(process)
        with open(log, encoding="utf-8", errors="replace") as file:
            file.seek(begin)
            lines = file.read().splitlines()
        said = next((line for line in reversed(lines) if line.startswith("zoo: error: ")), "")
        said = said.removeprefix("zoo: error: ") or (f"killed by signal {-code}" if code < 0 else "")
        command = shlex.join(["zoo", *words])
        if code and not self.stopped:
            print(
                f"{folder.name}: {made} failed ({said or f'exit code {code}'}): {command}", file=sys.stderr, flush=True
            )
        note(folder, made=made, seconds=round(time.monotonic() - start, 1), code=code, said=said, command=command)
        return code

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Inside, Ctrl-C and SIGTERM are passed on to the processes, which save and end, and nothing new is started."""

        def stop(number: int, frame: Any) -> None:
            print("\nStopping: trainings finish an iteration and save.", file=sys.stderr, flush=True)
            self.stopped = number
            for process in [*self.processes]:
                process.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
