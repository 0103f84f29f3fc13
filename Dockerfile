# syntax=docker/dockerfile:1
#
# One image holds every binary of Estiba; the manifests choose the command.
# `make images` assembles the same layout without a container engine.
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/estiba:TAG .

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
# .git is what tells the version.
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    for spec in mover:/mover restore-wait:/restore-wait velero-plugin:/plugins/estiba install-plugin:/install-plugin estiba:/estiba; do \
      CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w" -o /out${spec#*:} ./cmd/${spec%%:*} || exit 1; \
    done

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /
# Everything but the node daemon runs as this user; the DaemonSet sets its own.
USER 65532:65532
# As an init container of Velero's server the image installs the plugin: `velero plugin add` relies on it.
ENTRYPOINT ["/install-plugin"]
