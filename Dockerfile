# The image for machines with Docker or buildah; e2e/load_image.sh makes the same one without either:
# one static binary, no shell, no root.
#
#   docker build -t zen-lead:dev .
#
# A build for others names its origin, for the labels of the image:
#
#   docker build -t REGISTRY/zen-lead:0.1.0 --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" --build-arg SOURCE=ADDRESS .

# The version is that of rust-toolchain.toml. A tag can move: to pin it, add the digest that
# `docker buildx imagetools inspect rust:1.95.0-slim-trixie` prints. It is not pinned here because no registry could be
# asked when this was written. Nothing of this stage is in the image but the binary, and Cargo.lock pins what is compiled.
FROM rust:1.95.0-slim-trixie AS build
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
RUN binary=$(scripts/static_build.sh) && install -D "$binary" /out/zen-lead

# Empty: there is nothing to pin.
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="zen-lead" \
      org.opencontainers.image.description="Routes a Kubernetes Service to exactly one ready pod" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=build /out/zen-lead /zen-lead
USER 65532:65532
ENTRYPOINT ["/zen-lead"]
CMD ["serve"]
