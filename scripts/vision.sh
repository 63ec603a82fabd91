#!/bin/sh
# Runs tests/vision in an environment of its own, .venv-vision, which is made where it is missing or out of date.
#
# torchvision comes without its dependencies: it would bring another torch. Beside the CPU torch two of its
# operators are missing; tests/vision/site declares them.
set -eu
cd "$(dirname "$0")/.."

wanted=$(cat constraints.txt pyproject.toml scripts/vision.sh | sha256sum)
if [ "$(cat .venv-vision/made-from 2>/dev/null)" != "$wanted" ]; then
    "${PYTHON:-python3}" -m venv --clear .venv-vision
    .venv-vision/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
    .venv-vision/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group test
    .venv-vision/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchvision pillow
    .venv-vision/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
        timm transformers huggingface_hub tokenizers safetensors regex hf-xet httpx httpcore h11 anyio
    echo "$wanted" > .venv-vision/made-from
fi
exec .venv-vision/bin/python -m pytest tests/vision "$@"
