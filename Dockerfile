# gsq for CI jobs without a GPU: the program, and Mesa's lavapipe to run it on.
#
#     docker build -t gsq .
#     docker run --rm -v "$PWD:/data" gsq quantize /data/MODEL -o /data/OUT --method rtn
FROM debian:12-slim AS build
WORKDIR /src
COPY . .
# The commit cannot be asked of git here: --build-arg COMMIT=$(cmake -P cmake/version.cmake)
ARG COMMIT=
RUN scripts/setup.sh --packages --no-driver && \
    cmake --preset release -B build/deb -DGSQ_TESTS=OFF -DGSQ_COMMIT="$COMMIT" && cmake --build build/deb && \
    cd build/deb && cpack -B /out

FROM debian:12-slim
COPY --from=build /out/gsq_*.deb /tmp/gsq.deb
RUN apt-get -qq update && apt-get -qq -y --no-install-recommends install /tmp/gsq.deb mesa-vulkan-drivers && \
    rm -rf /tmp/gsq.deb /var/lib/apt/lists/*
WORKDIR /data
ENTRYPOINT ["gsq"]
