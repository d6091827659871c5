#!/bin/sh
# Builds the three stub libraries for the CUDA build of torch of one interpreter.
# usage: build.sh PYTHON OUT
set -e
here=$(cd "$(dirname "$0")" && pwd)
site=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
include=$(dirname "$(ls "$site"/nvidia/*/include/driver_types.h | head -n 1)")
mkdir -p "$2/nvml"
cd "$2"
cc="${CC:-gcc} -O1 -w -shared -fPIC"
$cc -Wl,-soname,libcuda.so.1 -o libcuda.so.1 "$here/driver.c"
$cc -Wl,-soname,libnvidia-ml.so.1 -o nvml/libnvidia-ml.so.1 "$here/nvml.c" -L. -l:libcuda.so.1
$cc -I"$here/include" -I"$include" -o stub.so "$here/runtime.c" "$here/blas.c" -L. -l:libcuda.so.1 -ldl
