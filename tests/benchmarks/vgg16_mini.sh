#!/bin/sh
# How the bundled vgg16_mini comes about, from photographs to judged maps. DATA holds the folders that ../shared/data does, WORK takes 1 GB.
set -e
DATA=${DATA:-../shared/data} WORK=${WORK:-/tmp/vgg}
python -m tests.benchmarks.vgg16_data "$DATA" --out "$WORK"
python -m chipcore train --images "$WORK/train" --validation "$WORK/held_out" --epochs 15 --size 128 --flatten --learning-rate 0.02 --cooldown 0.75 --balance 0.5 \
    --teacher efficientnet_lite0 --start vgg16_slim --name vgg16_mini --out "$WORK/run" --resume
python -m tests.benchmarks.vgg16_mini "$DATA" --folders "$WORK" --training "$WORK/run/vgg16_mini.result.json" --only knows
python -m chipcore fit --network vgg16_mini --layers all --images "$WORK/train" --photos-per-class 20 --gates 25 --out assets/importance
python -m tests.benchmarks.vgg16_mini "$DATA" --folders "$WORK" --only channels lemon boxes
for layers in "pool1 pool2 pool3 pool4" "conv5_3 pool5"; do
    # the deep layers with the rows of Table II
    case "$layers" in *pool5*) methods="chip gradcam cmwp backprop" ;; *) methods="chip gradcam" ;; esac
    name=$(echo "$layers" | cut -d' ' -f1)
    # shellcheck disable=SC2086
    python -m chipcore evaluate localization --network vgg16_mini --layer $layers --methods $methods --data "$WORK/boxes" \
        --importance assets/importance --json "assets/results/localization_mini_$name.json"
done
python -m chipcore evaluate segmentation --network vgg16_mini --layer all --methods chip gradcam --data "$DATA/coco128" \
    --importance assets/importance --json assets/results/coco_mini.json
python -m chipcore evaluate pointing --network vgg16_mini --layer all --methods chip gradcam --data "$WORK/held_out" --grid 2 --mosaics 60 \
    --confidence 0.8 --importance assets/importance --json assets/results/grid_mini.json
