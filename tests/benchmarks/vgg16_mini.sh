#!/bin/sh
# How the bundled vgg16_mini comes about, from photographs to judged maps. DATA holds the folders that ../shared/data does, WORK takes 1 GB.
# What ships began from a first run of few epochs that --start vgg16_slim began (29% held out; its weights are at commit 8b8bc21).
set -e
DATA=${DATA:-../shared/data} WORK=${WORK:-/tmp/vgg}
common="--size 128 --flatten --learning-rate 0.02 --cooldown 0.75 --balance 0.5 --teacher efficientnet_lite0 --name vgg16_mini"
python -m tests.benchmarks.vgg16_data "$DATA" --out "$WORK" --at-most 200
# shellcheck disable=SC2086
[ -f "$WORK/run/vgg16_mini.result.json" ] ||
    python -m chipcore train --images "$WORK/train" --validation "$WORK/held_out" --epochs 18 --start vgg16_mini --frozen 3 $common --out "$WORK/run" --resume
python -m tests.benchmarks.vgg16_mini "$DATA" --folders "$WORK" --training "$WORK/run/vgg16_mini.result.json" --only knows
python -m chipcore fit --network vgg16_mini --layers pool4 conv5_3 pool5 --images "$WORK/train" --photos-per-class 25 --gates 40 --out assets/importance
python -m chipcore fit --network vgg16_mini --layers pool1 pool2 pool3 --images "$WORK/train" --photos-per-class 12 --gates 10 --out assets/importance
python -m tests.benchmarks.vgg16_mini "$DATA" --folders "$WORK" --only channels lemon boxes
for layers in "pool1 pool2 pool3 pool4" "conv5_3 pool5"; do
    # the deep layers with the rows of Table II
    case "$layers" in *pool5*) methods="chip gradcam cmwp backprop" ;; *) methods="chip gradcam" ;; esac
    name=$(echo "$layers" | cut -d' ' -f1)
    # shellcheck disable=SC2086
    python -m chipcore evaluate localization --network vgg16_mini --layer $layers --methods $methods --data "$WORK/boxes" \
        --importance assets/importance --json "assets/results/localization_mini_$name.json"
done
python -m chipcore evaluate pointing --network vgg16_mini --layer all --methods chip gradcam --data "$WORK/held_out" --grid 2 --mosaics 40 \
    --confidence 0.5 --importance assets/importance --json assets/results/grid_mini.json
