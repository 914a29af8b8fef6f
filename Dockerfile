# The image for machines with Docker or buildah; e2e/load_image.sh makes the same one without either:
# one static binary, no shell, no root.
#
#   docker build -t zen-lead:dev .

FROM rust:1.95.0-slim AS build
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
RUN binary=$(scripts/static_build.sh) && install -D "$binary" /out/zen-lead

FROM scratch
COPY --from=build /out/zen-lead /zen-lead
USER 65532:65532
ENTRYPOINT ["/zen-lead"]
CMD ["serve"]
