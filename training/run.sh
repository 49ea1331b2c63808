#!/usr/bin/env bash
# Trains both stages, evaluates and exports. Run again with the same folders, it
# goes on where it stopped.
#
#   training/run.sh DATA_FOLDER OUT_FOLDER [options]
#   training/run.sh --smoke [DATA_FOLDER OUT_FOLDER] [options]
#
#   --recipe NAME        release (default), cpu, paper or seed: see configs/
#   --photo              a third stage, for compressed and noisy photographs (release, cpu)
#   --benchmarks FOLDER  evaluate on these sets; default: pictures that were held back
#   --features FILE      feature network; default: VGG-19, fetched from the Hub
#   --licences FILE      TOML, what the data folders hold; default: training/licences.toml
#   --set KEY=VALUE      a setting for every stage; --set1, --set2, --set3: for one
#   --smoke              a small network and a few hundred steps, in minutes on a CPU;
#                        without folders it draws its own pictures
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

usage() {
    sed -n '5,6p' "${BASH_SOURCE[0]}" | cut -c5- >&2
    echo "error: $1" >&2
    exit 2
}

folders=() recipe=release photo= smoke= benchmarks= features= licences=$training/licences.toml
every=() set1=() set2=() set3=()
while (($#)); do
    case $1 in
        --smoke) smoke=1 ;;
        --photo) photo=1 ;;
        --recipe | --benchmarks | --features | --licences | --set | --set1 | --set2 | --set3)
            (($# > 1)) || usage "$1 needs a value"
            case $1 in
                --recipe) recipe=$2 ;;
                --benchmarks) benchmarks=$2 ;;
                --features) features=$2 ;;
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
        "$python" -m srgan_training.smoke "$out/made"
    fi
    data=${folders[0]:-$out/made/pictures}
    features=${features:-$out/made/features.safetensors}
else
    ((${#folders[@]} == 2)) || usage "give the folder of pictures and the folder for the results"
    data=${folders[0]} out=${folders[1]}
fi
case $recipe in
    release) configs=(srresnet srgan) ;;
    cpu) configs=(srresnet_cpu srgan_cpu) ;;
    paper) configs=(srresnet_paper srgan_paper) ;;
    seed) configs=(seed_srresnet seed_srgan) ;;
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
        "${launch[@]}" srgan_training.train "$training/configs/${configs[stage]}.toml" \
            --data "$data" --out "$run" ${settings[@]+--set "${settings[@]}"}
        touch "$run/done"
    fi
    start=$run
done

# Export, evaluation, and export once more with the results in the cards ---
export_models() {
    local name
    for name in "${names[@]}"; do
        "$python" -m srgan_training.export "$out/$name" "$out/models/$name" \
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
    "$python" -m srgan_training.evaluate "${names[@]/#/$out/models/}" "${source[@]}" \
        --features "${features:-vgg19}" --out "$out/evaluation" --sheets
    touch "$out/evaluation/done"
fi
export_models --evaluation "$out/evaluation/evaluation.json"
