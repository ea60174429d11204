"""Coverage-guided inputs for the same readers: atheris keeps what reaches new code, and goes on from it.

An input depends on all before it and so is no number, as in ``campaign``: one that finds a fault is kept as a file.
Each format has a process of its own, which ends at the first crash. Atheris is not to be had for every Python; without
it this says so, and that is all.

Usage: ``python -m tests.fuzz.guided FOLDER --inputs N [--only FORMAT]``
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

SECONDS = 60
"""Of one input."""


def available() -> str | None:
    """Why there is no atheris here; ``None`` where there is."""
    if importlib.util.find_spec("atheris") is None:
        return f"atheris is not installed; it has wheels for some versions of Python on Linux, this is {sys.version}"
    return None


def guided(folder: Path, inputs: int, only: list[str]) -> bool:
    """Run each format in a process of its own, and print what was found; whether nothing is wrong."""
    from tests.fuzz.bench import Bench
    from tests.fuzz.formats import FORMATS

    Bench(folder / "valid").prepare()
    row = "{:<30} {:>8} {:>8} {:>8} {:>8} {:>8}"
    print(row.format("format", "inputs", "read", "kept", "faults", "crashes"))
    fine = True
    for form in FORMATS.values():
        if only and form.name not in only:
            continue
        place = folder / "guided" / form.name.replace(" ", "-").replace(",", "")
        for part in ("corpus", "faults"):
            (place / part).mkdir(parents=True, exist_ok=True)
        wanted = max(1, int(inputs * form.share))
        command = [sys.executable, "-m", "tests.fuzz.guided", str(folder), "--inputs", str(wanted)]
        ran = subprocess.run([*command, "--apart", form.name, str(place)], capture_output=True, check=False)
        lines = ran.stdout.decode(errors="replace").splitlines()
        found: dict[str, int] = json.loads(lines[-1]) if ran.returncode == 0 else {}
        faults = sum(one.suffix != ".txt" for one in (place / "faults").iterdir())  # which says why, beside an input
        kept = len(list((place / "corpus").iterdir()))
        told = (found.get("inputs", "?"), found.get("read", "?"), kept, faults, int(ran.returncode != 0))
        print(row.format(form.name, *told), flush=True)
        if faults or ran.returncode:
            print(
                f"    see {place / 'faults'}\n{ran.stderr.decode(errors='replace')[-2000:] if ran.returncode else ''}"
            )
            fine = False
    return fine


def _apart(name: str, folder: Path, place: Path, inputs: int) -> None:
    """Feed one format in this process until it has had so many inputs; prints what came of them as JSON."""
    import atheris

    with atheris.instrument_imports(include=["trt_layermerge"]):
        from tests.fuzz.bench import Bench
        from tests.fuzz.campaign import MEMORY, attempt
        from tests.fuzz.formats import FORMATS
        from tests.fuzz.mutation import mutate
        from trt_layermerge.probe import _limit
    warnings.simplefilter("ignore")
    form, bench, counts = FORMATS[name], Bench(folder / "valid"), {"inputs": 0, "read": 0}
    samples = list(form.samples(bench))
    for sample in samples:
        _keep(place / "corpus", sample)
    _limit(MEMORY)
    said = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # readers are commands, which print
    scratch = Path(tempfile.mkdtemp())

    def one(data: bytes) -> None:
        read, fault = attempt(form, data, bench, scratch)
        counts["inputs"], counts["read"] = counts["inputs"] + 1, counts["read"] + read
        if fault is not None:
            _keep(place / "faults", data, f"\n{fault}\n".encode())
        if counts["inputs"] >= inputs:
            os.write(said, f"\n{json.dumps(counts)}\n".encode())
            os._exit(0)  # libFuzzer itself ends with what it counts

    def changed(data: bytes, largest: int, seed: int) -> bytes:
        made = mutate(seed, name, [data], form.structure)
        return (form.finish(made) if form.finish is not None and seed % 4 else made)[:largest]

    options = [f"-artifact_prefix={place / 'faults'}/", f"-timeout={SECONDS}", "-rss_limit_mb=0", "-seed=1"]
    longest = f"-max_len={2 * max(map(len, samples)) + 4096}"
    atheris.Setup([sys.argv[0], *options, longest, str(place / "corpus")], one, custom_mutator=changed)
    atheris.Fuzz()


def _keep(folder: Path, data: bytes, why: bytes = b"") -> None:
    name = hashlib.sha1(data).hexdigest()
    (folder / name).write_bytes(data)
    if why:
        (folder / f"{name}.txt").write_bytes(why)


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--apart", nargs=2)
    given: Any = parser.parse_args()
    if (why := available()) is not None:
        print(f"coverage-guided inputs are skipped: {why}")
        return 0
    if given.apart:
        _apart(given.apart[0], given.folder, Path(given.apart[1]), given.inputs)
    return 0 if guided(given.folder, given.inputs, given.only) else 1


if __name__ == "__main__":
    sys.exit(_main())
