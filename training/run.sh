#!/usr/bin/env bash
# Trains both stages, evaluates and exports. Run again with the same folders, it
# goes on where it stopped.
#
#   training/run.sh DATA_FOLDER OUT_FOLDER [options]
#   training/run.sh --smoke [DATA_FOLDER OUT_FOLDER] [options]
#
#   --recipe NAME        release (default), cpu, paper or coco10k: see configs/
#   --teacher FILE       stage 1 learns from this network's images as well; needs spandrel
#   --photo              a third stage, for compressed and noisy photographs (release, cpu)
#   --benchmarks FOLDER  evaluate on these sets; default: images that were held back
#   --features FILE      feature network; default: VGG-19, fetched from the Hub
#   --licences FILE      TOML, what the data folders hold; default: training/licences.toml
#   --set KEY=VALUE      a setting for every stage; --set1, --set2, --set3: for one
#   --smoke              a small network and a few hundred steps, in minutes on a CPU;
#                        without folders it draws its own images
#
# PYTHON names the interpreter; LAUNCH what starts training, such as
# "accelerate launch -m" for several GPUs.
#
# OUT_FOLDER receives a run for each stage (srresnet/, srgan/), models/ with the
# exported models, and evaluation/ with tables and comparison sheets.
set -euo pipefail

training=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$training:$(dirname "$training")${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
read -r -a launch <<<"${LAUNCH:-$python -m}"
srgan_train() { "$python" -m srgan_training "$@"; }

usage() {
    sed -n '5,6p' "${BASH_SOURCE[0]}" | cut -c5- >&2
    echo "error: $1" >&2
    exit 2
}

folders=() recipe=release photo= smoke= benchmarks= features= teacher= licences=$training/licences.toml
every=() set1=() set2=() set3=()
while (($#)); do
    case $1 in
        --smoke) smoke=1 ;;
        --photo) photo=1 ;;
        --recipe | --benchmarks | --features | --teacher | --licences | --set | --set1 | --set2 | --set3)
            (($# > 1)) || usage "$1 needs a value"
            case $1 in
                --recipe) recipe=$2 ;;
                --benchmarks) benchmarks=$2 ;;
                --features) features=$2 ;;
                --teacher) teacher=$2 ;;
                --licences) licences=$2 ;;
                --set) every+=("$2") ;;
                --set1) set1+=("$2") ;;
                --set2) set2+=("$2") ;;
                --set3) set3+=("$2") ;;
            esac
            shift
            ;;
        -*) usage "unknown option $1" ;;
        *) folders+=("$1") ;;
    esac
    shift
done

if [[ $smoke ]]; then
    recipe=smoke
    ((${#folders[@]} == 2 || ${#folders[@]} == 0)) || usage "give both folders or none"
    out=${folders[1]:-$(mktemp -d)}
    if [[ ! -e $out/made/features.safetensors ]]; then
        srgan_train smoke "$out/made"
    fi
    data=${folders[0]:-$out/made/images}
    features=${features:-$out/made/features.safetensors}
else
    ((${#folders[@]} == 2)) || usage "give the folder of images and the folder for the results"
    data=${folders[0]} out=${folders[1]}
fi
case $recipe in
    release) configs=(srresnet srgan) ;;
    cpu) configs=(srresnet_cpu srgan_cpu) ;;
    paper) configs=(srresnet_paper srgan_paper) ;;
    coco10k) configs=(coco10k_srresnet coco10k_srgan) ;;
    smoke) configs=(smoke smoke_srgan) ;;
    *) usage "there is no recipe $recipe" ;;
esac
names=(srresnet srgan)
if [[ $photo ]]; then
    case $recipe in
        release) configs+=(srgan_photo) ;;
        cpu) configs+=(srgan_photo_cpu) ;;
        *) usage "the recipe $recipe has no third stage" ;;
    esac
    names+=(srgan-photo)
fi

# Pairs for stage 1: the originals in three sizes, and what the teacher makes of them ----
pairs=$out/pairs
if [[ $teacher && ! -e $out/srresnet/done ]]; then
    srgan_train pairs "$pairs" --data "$data" --reduce 1 0.7 0.5 --teacher "$teacher"
fi

# Training ----------------------------------------------------------------
start=
for stage in "${!names[@]}"; do
    run=$out/${names[stage]}
    if [[ ! -e $run/done ]]; then
        rm -f "$out/evaluation/done"
        settings=(${every[@]+"${every[@]}"})
        case $stage in
            0) settings+=(${set1[@]+"${set1[@]}"}) ;;
            1) settings+=(${set2[@]+"${set2[@]}"}) ;;
            2) settings+=(${set3[@]+"${set3[@]}"}) ;;
        esac
        [[ $start ]] && settings+=("start=$start")
        ((stage > 0)) && [[ $features ]] && settings+=("loss.feature_network=$features")
        images=(--data "$data")
        if [[ $teacher ]] && ((stage == 0)); then
            images=(--data "$pairs/high" --low "$pairs/low" --teacher "$pairs/teacher")
        fi
        "${launch[@]}" srgan_training run "$training/configs/${configs[stage]}.toml" \
            "${images[@]}" --out "$run" ${settings[@]+--set "${settings[@]}"}
        touch "$run/done"
    fi
    start=$run
done

# Export, evaluation, and export once more with the results in the cards ---
export_models() {
    local name
    for name in "${names[@]}"; do
        srgan_train export "$out/$name" "$out/models/$name" \
            --licences "$licences" "$@"
    done
}

if [[ ! -e $out/evaluation/done ]]; then
    export_models
    if [[ $benchmarks ]]; then
        source=(--data "$benchmarks")
    else
        source=(--held-back "$out/srresnet")
    fi
    srgan_train evaluate "${names[@]/#/$out/models/}" "${source[@]}" \
        --features "${features:-vgg19}" --judge --out "$out/evaluation" --sheets
    touch "$out/evaluation/done"
fi
export_models --evaluation "$out/evaluation/evaluation.json"
