"""Choose learning rates and HRFT's unpublished options on the validation drawings; the held-out artists are not touched.

    python benchmarks/hierarchical_sweep.py --shard 0/2 &    # and 1/2; finished runs are skipped
    python benchmarks/hierarchical_sweep.py --table          # writes hierarchical_sweep.json

Every candidate is trained as in quickstart_ablation.py (seed 0) and audited by PGD-10 on all 181 validation drawings of the training
artists, which neither the built-in model nor any hardening run has seen.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch
from quickstart_ablation import ATTACK, BASE, HERE, HRFT, RUNS, TREES, Setting, describe, run, settings

from robustree.checkpoint import write_whole
from robustree.tree_model import Depths

LEARNING_RATES = (1e-4, 3e-4, 1e-3)
IMAGES = 181


def candidates() -> list[Setting]:
    """Learning rates for every method; then, one change at a time, the options of HRFT."""
    found = [
        replace(setting, name=f"{setting.name} lr {lr:g}", recipe=replace(setting.recipe, lr=lr))
        for lr in LEARNING_RATES
        for setting in settings()
        if setting.recipe and setting.name in ("tecoa", "hrft", "pmg_aft", "agft", "fare")
    ]

    def changed(name: str, *, depths: Depths | None = None, trees=("wordnet",), **options) -> Setting:
        recipe = replace(HRFT, method=replace(HRFT.method, **options), depths=depths or HRFT.depths)
        return Setting(f"hrft {name}", recipe, trees)

    found += [
        changed("five trees", trees=TREES),
        changed("vic 0", vic=0.0),
        changed("vic 1", vic=1.0),
        changed("gaps 0", gap_label=0.0, gap_image=0.0),
        changed("gaps 1", gap_label=1.0, gap_image=1.0),
        changed("uniform weights", linear_weights=False),
        changed("depths shallow", depths=Depths(image=0.5, leaf=0.6, root=0.3, limit=1.5)),
        changed("depths deep", depths=Depths(image=2.0, leaf=2.4, root=1.2, limit=6.0)),
        changed("depths level", depths=Depths(image=1.0, leaf=1.2, root=1.2, limit=3.0)),
        changed("negatives none", negatives="none"),
        changed("parents both", parents="both"),
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RUNS.glob("val-*.json"))]
        rows.sort(key=lambda row: -row["robust_levels_mean"])
        record = {"rows": rows, "protocol": __doc__, "base": repr(BASE), "command": "python benchmarks/hierarchical_sweep.py"}
        write_whole(HERE / "hierarchical_sweep.json", json.dumps(record, indent=1) + "\n")
        print("\n".join(describe(row) for row in rows))
        return
    index, count = (int(number) for number in options.shard.split("/"))
    for setting in candidates()[index::count]:
        path = RUNS / f"val-{setting.name.replace(' ', '_')}.json"
        if path.exists():
            continue
        figures = run(setting, 0, split="val", images=IMAGES, attack=replace(ATTACK, steps=10))
        write_whole(path, json.dumps(figures, indent=1))
        print(describe(figures), flush=True)


if __name__ == "__main__":
    main()
