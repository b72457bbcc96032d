# SPDX-License-Identifier: LGPL-2.1-or-later
# The programs, the element and the embedded model, for CPUs. docs/deploy.md says how it is built and run.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential
WORKDIR /build/source
COPY debian/control debian/
RUN apt-get build-dep -y --no-install-recommends -P nocheck .
COPY . .
RUN DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -b -us -uc -Pnocheck

FROM debian:12-slim
RUN --mount=type=bind,from=build,source=/build,target=/build \
  apt-get update && apt-get install -y --no-install-recommends /build/*.deb gstreamer1.0-tools gstreamer1.0-plugins-base \
  gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-nice \
  && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home dualparal
USER dualparal
WORKDIR /home/dualparal
CMD ["dualparal-web"]
