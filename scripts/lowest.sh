#!/bin/sh
# Runs the contract suites, and a sample of the others, with the lowest versions that pyproject.toml allows, in an
# environment of its own, .venv-lowest, which is made where it is missing or out of date.
#
# Warnings are no errors here: an old version of one dependency may use what a new one of another deprecates. Before
# 1.9, scikit-learn does not read the column names of frames of polars 2.
set -eu
cd "$(dirname "$0")/.."

extras="kornia report sklearn torchjd tune timm transformers vision"
python=${PYTHON:-python3}
wanted=$(cat constraints.txt pyproject.toml scripts/lowest.py scripts/lowest.sh | sha256sum)
if [ "$(cat .venv-lowest/made-from 2>/dev/null)" != "$wanted" ]; then
    "$python" -m venv --clear .venv-lowest
    # shellcheck disable=SC2086
    { "$python" scripts/lowest.py $extras; grep -E '^(pip|pytest|pytest-xdist|hypothesis)==' constraints.txt; } \
        > .venv-lowest/constraints.txt
    .venv-lowest/bin/pip install --quiet --upgrade pip -c .venv-lowest/constraints.txt
    .venv-lowest/bin/pip install --quiet -c .venv-lowest/constraints.txt \
        -e ".[$(echo $extras | tr ' ' ',')]" pytest pytest-xdist hypothesis 'pandas<3' 'polars<2'
    echo "$wanted" > .venv-lowest/made-from
fi
run() {
    OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n 2 --dist loadfile --disable-warnings \
        -o filterwarnings=default -m "not slow and not long" --sample 4 "$@"
}
run tests/contracts tests/unit tests/integration/test_cli_run.py tests/integration/test_cli_resume.py \
    tests/integration/test_resume_lightning.py
# Separately, as in scripts/vision.sh: other suites hide the packages that these need.
run tests/vision
