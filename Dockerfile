# FINPay appliance, for a trial in a container.
#
#   docker build -t finpay --build-arg VERSION=$(git describe --tags --always) .
#   docker run --rm -v finpay:/var/lib/finpay finpay init
#
# In the volume's finpay.yaml set `listen: 0.0.0.0:8443`: the default, loopback, is the container's own. Then
#
#   docker run --rm -v finpay:/var/lib/finpay -p 127.0.0.1:8443:8443 --ulimit memlock=67108864 --ulimit core=0 finpay
#
# The image brings SoftHSM2 so that it runs without hardware. That is for a trial: whoever copies the volume with the
# PIN has the keys. For production put the vendor's PKCS#11 library into an image of your own (FROM finpay), name it
# in finpay.yaml, and mount the PIN as a secret.

FROM golang:1.26-bookworm AS build
WORKDIR /src
# Modules first: they change less often than code.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unreleased
# cgo: PKCS#11 modules and SQLite are C.
RUN CGO_ENABLED=1 go build -trimpath -ldflags "-X main.version=${VERSION}" -o /finpay ./appliance

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends softhsm2 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/finpay --shell /usr/sbin/nologin finpay \
    && install -d -o finpay -g finpay -m 0700 /var/lib/finpay
COPY --from=build /finpay /usr/local/bin/finpay
# Freed blocks of the C heap are overwritten; tcache would keep those under 1 kB as they were.
ENV GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0 \
    GODEBUG=asyncpreemptoff=1
USER finpay
WORKDIR /var/lib/finpay
# Database, ledger and, in a trial, the software HSM.
VOLUME /var/lib/finpay
EXPOSE 8443
ENTRYPOINT ["finpay", "--state", "/var/lib/finpay"]
CMD ["serve"]
