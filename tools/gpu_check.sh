#!/usr/bin/env bash
# Checks and times the library on this machine's GPU, within eight minutes: tests/cuda, then tools.gpu_speed.
#
#   bash tools/gpu_check.sh [OUT]      OUT: folder of <card>-tests.txt and <card>.json, results/gpu by default
#
# Needs torch with CUDA, mmdet, mmengine and mmcv-lite (or mmcv) of pyproject.toml's versions and pytest; no data, no
# network, no installation of this package. PYTHON names another interpreter. Exits with 0 where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-results/gpu}
export PYTHONUNBUFFERED=1

if ! card=$("$python" -c 'import re, torch
if not torch.cuda.is_available(): raise SystemExit(1)
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))' 2>/dev/null); then
    echo "no CUDA device that torch of '$python' sees: nothing to check"
    exit 0
fi
mkdir -p "$out"

# several processes where pytest-xdist is there: most of a test's time is spent on the host
spread=()
if "$python" -c 'import xdist' 2>/dev/null; then
    cores=$(nproc)
    spread=(-n "$((cores < 6 ? cores : 6))")
fi
status=0
timeout 170 "$python" -m pytest tests/cuda -m cuda -p no:cacheprovider -W ignore --tb=short --show-capture=no -rs \
    --durations=5 "${spread[@]}" >"$out/$card-tests.txt" 2>&1 || status=$?
echo "tests: exit status $status after $SECONDS s; the end of $out/$card-tests.txt:"
tail -n 50 "$out/$card-tests.txt"

# eight minutes less what a last block and the exit may take
left=$((450 - SECONDS))
seconds=$((left < 300 ? left : 300))
timeout "$left" "$python" -m tools.gpu_speed --out "$out" --minutes "$(awk "BEGIN { print $seconds / 60 }")" || {
    speed=$?
    echo "tools.gpu_speed: exit status $speed after $SECONDS s; $out/$card.json holds the blocks that were done"
    status=$((status ? status : speed))
}
exit "$status"
