# SPDX-License-Identifier: LGPL-2.1-or-later
# The same with the CUDA module: NVIDIA's packages for Debian 12, CUDA 13.0. This file was never built.
FROM debian:12-slim AS base
ADD https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb /tmp/keyring.deb
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates /tmp/keyring.deb && rm /tmp/keyring.deb

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential cuda-nvcc-13-0 cuda-cudart-dev-13-0 \
  libcublas-dev-13-0 libcudnn9-dev-cuda-13 libnccl-dev
WORKDIR /build/source
COPY debian/control debian/
RUN apt-get build-dep -y --no-install-recommends -P nocheck .
COPY . .
RUN export PATH="/usr/local/cuda-13.0/bin:$PATH" \
  && meson setup /build/objects --buildtype=release --prefix=/usr -Dcuda=enabled && meson install -C /build/objects --destdir /build/installed

FROM base
RUN apt-get update && apt-get install -y --no-install-recommends gstreamer1.0-tools gstreamer1.0-plugins-base \
  gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-nice libdnnl2 libgdk-pixbuf-2.0-0 libgomp1 \
  libgstrtspserver-1.0-0 libjson-glib-1.0-0 libopenmpi3 libsentencepiece0 libsoup-3.0-0 openmpi-bin \
  cuda-nvrtc-13-0 libcublas-13-0 libcudnn9-cuda-13 libnccl2 \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/installed /
RUN useradd --create-home dualparal
USER dualparal
WORKDIR /home/dualparal
# What NVIDIA's container toolkit brings in: the driver, and its library for encoders
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
CMD ["dualparal-web"]
