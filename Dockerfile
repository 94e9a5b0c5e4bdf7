# An image with all commands. For a CPU:
#   docker build -t lit_sft .
# For an NVIDIA GPU (CUDA 13; torch brings its libraries, the host only needs the driver and its container toolkit):
#   docker build -t lit_sft --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# Train in the current folder, as yourself (add `--gpus all` on a GPU). `configs` copies a config and what it needs there:
#   alias lit-sft='docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD:/data" lit_sft'
#   lit-sft configs configs/quickstart.yaml
#   lit-sft fit --config configs/quickstart.yaml
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /opt/lit_sft
# torch first and alone: it is the largest layer, and changes of the code do not download it again
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.11,<2.14"
COPY . .
RUN pip install ".[hub,serve,arena,eval,gguf]"

# models, caches and plots of a user without a home folder
ENV HOME=/tmp HF_HOME=/data/.cache/huggingface MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /data
ENTRYPOINT ["lit-sft"]
CMD ["--help"]
