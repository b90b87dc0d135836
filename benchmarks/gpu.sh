#!/usr/bin/env bash
# One call under 10 minutes on a CUDA machine; needs this repository and a Python with torch, timm, numpy, Pillow, matplotlib and tqdm.
#   benchmarks/gpu.sh                        everything, on CUDA
#   benchmarks/gpu.sh --device cpu --quick   the same path where there is no GPU
# PYTHON names the Python (default: python3). Ends with 1 where a test or a measurement failed, after running the rest.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
device=cuda
quick=()
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2:?--device needs cuda or cpu}; shift 2 ;;
    --quick) quick=(--quick); shift ;;
    *) echo "gpu.sh: $1 is not known; it takes --device cuda|cpu and --quick" >&2; exit 2 ;;
  esac
done
case $device in cuda | cpu) ;; *) echo "gpu.sh: --device $device: say cuda or cpu" >&2; exit 2 ;; esac

lacking() {  # which of these modules this Python does not find
  "$python" -c 'import sys; from importlib.util import find_spec; print(*(name for name in sys.argv[1:] if find_spec(name) is None))' "$@"
}

needed=$(lacking torch timm numpy PIL matplotlib tqdm) || exit 2
if [ -n "$needed" ]; then
  echo "gpu.sh: $python lacks $needed; name one that has them: PYTHON=/path/to/python benchmarks/gpu.sh" >&2
  exit 2
fi
if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu.sh: torch finds no CUDA device here; benchmarks/gpu.sh --device cpu --quick runs the same path without one" >&2
  exit 2
fi
[ "$device" = cuda ] && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

failed=0

# 1. The tests marked gpu, with as much of the project's configuration as this Python's packages allow.
missing=$(lacking pytest tensorboard)
if [ -n "$missing" ]; then
  echo "The tests marked gpu are skipped: this Python lacks $missing."
else
  tests=(tests/trainer/test_loop.py)  # every file that holds such a test; others import packages that this Python may lack
  if [ -z "$(lacking onnx onnxscript onnxruntime tyro jsonschema)" ]; then
    tests+=(tests/trainer/test_judge.py)
  fi
  timeout 240 "$python" -m pytest -c /dev/null --rootdir . --import-mode=importlib -p no:cacheprovider -W ignore::pytest.PytestUnknownMarkWarning -q -m gpu "${tests[@]}"
  code=$?
  [ $code -eq 0 ] || [ $code -eq 5 ] || failed=1
fi

# 2. A training step of every method, beside a large convolution.
timeout 240 "$python" -m benchmarks.steps --device "$device" "${quick[@]}" || failed=1

# 3. The exported models: parity of the CUDA provider, and latency.
timeout 100 "$python" -m benchmarks.models --device "$device" "${quick[@]}" || failed=1

exit $failed
