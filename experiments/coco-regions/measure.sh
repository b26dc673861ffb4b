#!/usr/bin/env bash
# Key regions of three NanoDets on COCO's validation photographs. README.md says what has to lie in work/ before.
set -euo pipefail

here=experiments/coco-regions
cd "$(dirname "$0")/../.."

measure() { # NAME FILE: what it is called, and what its config and its weights are
    python -m benchmark.key_regions --name "$1" \
        --config "benchmark/configs/nanodet/$2.py" --checkpoint "$here/work/weights/$2.pth" \
        --annotations "$here/work/coco/annotations/instances_val2017.json" --images "$here/work/coco/val2017" \
        --out "$here/results/key_regions" "${@:3}"
}

measure nanodet-plus-m nanodet_plus_m_416 "$@"
measure nanodet-m nanodet_m_320 "$@"
measure nanodet-m-0.5x nanodet_m_05x_320 "$@"
python -m benchmark.region_figures --results "$here/results/key_regions" --out "$here/results/key_regions_figures"
