"""The networks that people bring: how much of each can be replaced or merged, what cannot and why, time and memory.

Each is inspected in a process of its own, on one thread; what was found is written below build/networks/, and is not
asked again. ``--pages`` writes docs/networks/ from it: a table, and a page for each network.

    python benchmarks/networks.py [--only NAME] [--pages]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from trt_layermerge.files import write_json

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "networks"
FOUND = ROOT / "build" / "networks"
INSPECT = "from trt_layermerge.cli.main import main; main()"
NETWORKS = {
    "of the papers": (
        "examples/fashion_mnist/model.py:resnet20 examples/fashion_mnist/model.py:resnet56 torchvision:resnet34 "
        "torchvision:resnet50 torchvision:mobilenet_v2 timm:mobilenetv2_140 torchvision:vgg16 torchvision:vgg16_bn "
        "torchvision:vgg19 torchvision:vgg19_bn examples/ddpm_cifar10/model.py:unet"
    ),
    "of torchvision": (
        "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 mnasnet1_0 mobilenet_v3_small "
        "regnet_x_400mf regnet_y_400mf resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 wide_resnet50_2"
    ),
    "of timm": (
        "botnet26t_256 convnextv2_atto cs3darknet_s cspdarknet53 cspresnet50 darknet53 dla34 dm_nfnet_f0 dpn68 "
        "ecaresnet26t edgenext_small efficientnet_lite0 efficientnetv2_rw_t ese_vovnet19b_dw fastvit_t8 fbnetc_100 "
        "gernet_s ghostnet_100 hardcorenas_a hgnetv2_b0 hrnet_w18_small inception_resnet_v2 inception_v4 lcnet_100 "
        "mixnet_s mobilenetv1_100 mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium mobileone_s0 "
        "mobilevit_s nf_regnet_b0 poolformer_s12 regnety_004 regnetz_b16 repghostnet_100 repvgg_a0 res2net50_26w_4s "
        "resnest14d resnet50d resnetv2_50 rexnet_100 selecsls42b seresnet50 skresnet18 starnet_s1 "
        "tf_efficientnet_lite0 tf_efficientnetv2_b0 tinynet_a xception41"
    ),
    "of the ONNX package's tests": (
        "bvlc_alexnet densenet121 inception_v1 inception_v2 resnet50 shufflenet squeezenet vgg19 zfnet512"
    ),
    "for dense prediction, detection and speech": "deeplab ds_cnn edsr fcn lraspp unet yolo",
}
"""Where networks are from, and their names there."""

SPECS = {
    "of torchvision": "torchvision:{}",
    "of timm": "timm:{}",
    "of the ONNX package's tests": f"{Path(onnx.__file__).parent}/backend/test/data/light/light_{{}}.onnx",
    "for dense prediction, detection and speech": "benchmarks/zoo.py:{}",
}
"""Where they are from -> spec."""

COLUMNS = (
    "network",
    "convolutions",
    "replaceable",
    "without regions",
    "longest chain",
    "regions",
    "choices",
    "signatures",
    "largest exact merge",
    "CPU seconds",
    "MiB",
)

HEAD = """# Networks

What `trt-layermerge inspect` finds in {networks} networks. Written by `python benchmarks/networks.py --pages`, not by
hand. Each name leads to a page with why its chains end, and which convolutions nothing replaces.

**{replaceable} of {convolutions} convolutions ({share:.1%}) are replaceable**: they lie in a block of two layers or
more, or in a region of two convolutions or more, that one convolution can take the place of. Without regions
({before:.1%}) only blocks of one chain count. Every convolution of a network counts, in a chain or not; transposed
ones, too. The longest chain is counted in layers: convolutions with their norms and activations, average poolings and
lone norms. The largest exact merge is that of most layers into one kernel of at most 7x7: how many, which block
(chain:start-end), and the kernel. CPU seconds and MiB are those of the whole command, on one thread.
"""


@dataclass(frozen=True)
class Row:
    """What ``inspect`` says of a network, and what it took.

    Attributes:
        name: For people.
        origin: Where it is from, in words.
        found: The JSON of ``inspect``.
        seconds: Of the CPU, for the whole command: other work on the machine does not count.
        mebibytes: Peak memory of its process.
    """

    name: str
    origin: str
    found: dict[str, Any]
    seconds: float
    mebibytes: float

    @property
    def page(self) -> str:
        """File name of its page."""
        return f"{self.name}.md"

    def cells(self) -> tuple[str, ...]:
        """As the columns of the table."""
        found, layers = self.found, Counter(layer["chain"] for layer in self.found["layers"])
        counts = ("convolutions", "replaceable", "replaceable_in_chains")
        more = ("regions", "choices", "signatures")
        return (
            f"[{self.name}]({self.page})",
            *(str(found[key]) for key in counts),
            str(max(layers.values(), default=0)),
            *(str(found[key]) for key in more),
            self.largest_merge,
            f"{self.seconds:.1f}",
            f"{self.mebibytes:.0f}",
        )

    @property
    def largest_merge(self) -> str:
        """How many, which block, and the kernel."""
        if (largest := self.found["largest_merge"]) is None:
            return "none"
        kernel = re.search(r"k(\d+x\d+)", largest["into"])
        return f"{largest['convolutions']} ({largest['block']}) into {kernel[1] if kernel else '?'}"

    @cached_property
    def reasons(self) -> Counter[str]:
        """Why chains end, without the names of modules."""
        named = re.compile(r"\b(convolution|[A-Z]\w+) [\w.]+")
        found = (named.sub(r"\1", item["reason"]) for item in self.found["breaks"])
        return Counter(" and ".join(dict.fromkeys(reason.split(" and "))) for reason in found)

    def text(self) -> str:
        """Its page."""
        found = self.found
        shapes = ("x".join(map(str, item["shape"])) or f"a number below {item['below']}" for item in found["inputs"])
        inputs = " and ".join(shapes)
        origin = self.origin[0].upper() + self.origin[1:]
        lines = [f"# {self.name}", "", f"{origin}, input {inputs}. [All networks](index.md)", ""]
        lines += [f"| {name} | {value} |" for name, value in zip(COLUMNS[1:], self.cells()[1:], strict=True)]
        lines.insert(5, "|---|---|")
        lines += ["", "## Why chains end", ""]
        lines += [f"- {count} x {reason}" for reason, count in self.reasons.most_common()]
        if found["irreplaceable"]:
            lines += ["", "## Convolutions that nothing replaces", ""]
            lines += [f"- `{item['convolution']}`: {item['reason']}" for item in found["irreplaceable"]]
        return "\n".join(lines) + "\n"


def names() -> Iterator[tuple[str, str, str]]:
    """Name, origin and spec of all networks."""
    for origin, listed in NETWORKS.items():
        for name in listed.split():
            spec = SPECS.get(origin, "{}").format(name)
            folder = Path(spec).parent.name if spec.startswith("examples/") else "light" if "ONNX" in origin else ""
            yield "_".join(filter(None, (folder, name.rpartition(":")[2]))), origin, spec


def inspect(name: str, origin: str, spec: str) -> Row | None:
    """Run ``inspect --json`` in a process of its own, on one thread; ``None`` where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", INSPECT, "inspect", spec, "--json"],
            stdout=output,
            cwd=ROOT,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            return None
        output.seek(0)
        return Row(name, origin, json.load(output), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def index(rows: Sequence[Row], missing: Sequence[str]) -> str:
    """The table with its summary, and the names of networks that are not in it."""
    total = {
        key: sum(row.found[key] for row in rows) for key in ("convolutions", "replaceable", "replaceable_in_chains")
    }
    share, before = (total[key] / total["convolutions"] for key in ("replaceable", "replaceable_in_chains"))
    lines = [HEAD.format(networks=len(rows), share=share, before=before, **total)]
    for origin in dict.fromkeys(row.origin for row in rows):
        lines += [f"## Networks {origin}", "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in rows if row.origin == origin]
        lines.append("")
    if missing:
        lines += [f"Not inspected, or refused: {', '.join(missing)}.", ""]
    lines += ["## Why chains end", "", "| reason | how often |", "|---|---|"]
    reasons = sum((row.reasons for row in rows), Counter[str]())
    lines += [f"| {reason} | {count} |" for reason, count in reasons.most_common(20)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print a row for each network, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="names of networks must contain this")
    parser.add_argument("--pages", action="store_true", help="write docs/networks/ from what was found")
    given = parser.parse_args()
    rows, missing = [], []
    for name, origin, spec in names():
        path = FOUND / f"{name}.json"
        if path.is_file():
            rows.append(Row(**json.loads(path.read_text(encoding="utf-8"))))
        elif not given.pages and given.only in name:
            if (row := inspect(name, origin, spec)) is None:
                print(f"{name} cannot be inspected", file=sys.stderr)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, vars(row))
            rows.append(row)
            print(*row.cells(), sep=" | ", flush=True)
        else:
            missing.append(name)
    if given.pages:
        PAGES.mkdir(exist_ok=True)
        (PAGES / "index.md").write_text(index(rows, missing), encoding="utf-8")
        for row in rows:
            (PAGES / row.page).write_text(row.text(), encoding="utf-8")


if __name__ == "__main__":
    main()
