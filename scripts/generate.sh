#!/bin/sh
# Generates the protobuf code from proto/: `scripts/generate.sh [FOLDER]` (FOLDER: where pipeline/ is; this project).
# The generated files are kept in git; a test generates them again elsewhere and compares.
set -eu
cd "$(dirname "$0")/.."
into=${1:-.}
python=${PYTHON:-.venv/bin/python}

generate() {  # NAME.proto, the package folder that gets NAME_pb2.py and NAME_pb2.pyi
    mkdir -p "$into/$2"
    "$python" -m grpc_tools.protoc --proto_path=proto --python_out="$into/$2" --pyi_out="$into/$2" "$1"
    echo "$1 -> $2"
}

generate caffe.proto pipeline/codec
generate image_refs.proto pipeline/codec
