"""Someone has an ONNX file and a folder of images, and no labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.cli.conftest import DELIVERED
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.network.network import load_network

SEVERAL = Path(__file__).parents[1] / "pipeline" / "assets" / "several.py"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``network.onnx`` and ``photos/`` of several sizes."""
    image = pytest.importorskip("PIL.Image", reason="pip install '.[images]'")
    folder = tmp_path_factory.mktemp("shop")
    network = load_network(f"{SEVERAL}:three")
    export_onnx(network.module, network.inputs, folder / "network.onnx")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(40):
        colour, size = random.integers(0, 256, 3), (16 + number % 5, 14 + number % 3)
        pixels = np.clip(colour + random.integers(-40, 40, (*size, 3)), 0, 255).astype(np.uint8)
        image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture
def job(shop: Path, tmp_path: Path) -> list[object]:
    small = ["--max-layers", 2, "--max-kernel", 5, "--calibration", 32, "--held-out", 32, "--batch", 2]
    at = ["--output", tmp_path / "out", "--profiles", tmp_path / "profiles"]
    return [shop / "network.onnx", "--task", f"images:{shop / 'photos'}", *small, *at]


SIZED = ["--resize", "12", "--crop", "12"]


@pytest.mark.filterwarnings("ignore::trt_layermerge.errors.Caution")
def test_compress(job: list[object], run: Any) -> None:
    ran = run("compress", *job, *SIZED, "--epochs", 1, "--fit-samples", 24, "--budget", 0.95, "--json")
    assert ran.code in DELIVERED, ran.err
    assert list(ran.json["agreement"]) == ["scores", "boxes", "map"]
    assert "agreement" in ran.json["compressed"] and "accuracy" not in ran.out + ran.err
    session = ort.InferenceSession(ran.json["engine"], providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["scores", "boxes", "map"]
    assert run("verify", "--manifest", ran.json["manifest"]).code == 0


def test_stages_and_dry_runs(job: list[object], run: Any, tmp_path: Path) -> None:
    estimated = ["--runtime", "estimate:rtx-2080-ti"]
    ran = run("compress", *job, *SIZED, *estimated, "--dry-run")
    assert ran.code == 0, ran.err
    steps = "shorter side to 12, middle 12x12, RGB, over 255"
    for words in ("40 images below", steps, "24 to train", "boxes by error"):
        assert words in ran.out
    for command in ("compress", "importance"):
        assert len(run(command, *job, *SIZED, *estimated, "--dry-run", "--json").json["data"]) == 3
    config = tmp_path / "job.toml"
    config.write_text('resize = "12"\ncrop = 12\nmean = "0.5, 0.5, 0.5"\nchannels = "bgr"\ndistances = "map=logits"\n')
    for command in ("profile", "importance", "solve"):
        more = ["--budget", 0.95] if command == "solve" else []
        ran = run(command, *job, *estimated, *more, "--config", config)
        assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ([], 3, "images are of different sizes"),
        ([*SIZED, "--channels", "grey"], 3, "the network takes [batch, 3, 12, 12]"),
        ([*SIZED, "--mean", "0.1,0.2"], 2, "--mean has 2 numbers"),
        ([*SIZED, "--mean", "a"], 2, "numbers like 0.485"),
        ([*SIZED, "--distances", "boxes"], 2, "boxes=error"),
        ([*SIZED, "--distances", "boxs=error"], 2, "did you mean 'boxes'?"),
        ([*SIZED, "--metric", "gone.py"], 3, "there is no file"),
        (["--resize", "10", "--crop", "12"], 3, "12x12 are to be cropped"),
        (["--task", "images:nowhere"], 3, "there are no images at nowhere"),
    ],
)
def test_what_is_wrong_is_told(more: list[object], code: int, words: str, job: list[object], run: Any) -> None:
    ran = run("importance", *job, "--input", "3x12x12", *more)
    assert (ran.code, "Traceback" in ran.err) == (code, False), ran.err
    assert words in " ".join(ran.err.split())
