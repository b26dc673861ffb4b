#!/usr/bin/env bash
# Key regions of three NanoDets on COCO's validation photographs. README.md says what has to lie in work/ before.
set -euo pipefail

here=experiments/coco-regions
cd "$(dirname "$0")/../.."

for detector in nanodet_plus_m_416 nanodet_m_320 nanodet_m_05x_320; do
    python -m benchmark.key_regions \
        --config "benchmark/configs/nanodet/$detector.py" --checkpoint "$here/work/weights/$detector.pth" \
        --annotations "$here/work/coco/annotations/instances_val2017.json" --images "$here/work/coco/val2017" \
        --out "$here/results/key_regions" "$@"
done
python -m benchmark.region_figures --results "$here/results/key_regions" --out "$here/results/key_regions_figures"
