#!/usr/bin/env bash
# Installs what some tests need beside Python packages, where this machine allows it.
# What cannot be had is named here, and the tests that need it are skipped by name.
set -u
python=$1

missing=()
[ -n "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || missing+=(postgresql)
for pair in strace:strace dockerd:docker.io docker-registry:docker-registry buildah:buildah \
  podman:podman conmon:conmon skopeo:skopeo mmdebstrap:mmdebstrap catatonit:catatonit runc:runc \
  htpasswd:apache2-utils ip:iproute2 iptables:iptables mosquitto:mosquitto faketime:faketime; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
      echo "could not install: ${missing[*]}; their tests are skipped"
  else
    echo "not installed: ${missing[*]}; their tests are skipped"
  fi
fi

# Debian 12 has no cosign; that of Debian 13 is one program, which needs nothing but the C library.
if ! command -v cosign >/dev/null && [ "$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release; then
  apart=$(mktemp -d)
  mkdir -p "$apart/lists/partial" "$apart/cosign"
  echo "deb http://deb.debian.org/debian trixie main" >"$apart/sources"
  from=(-o "Dir::Etc::SourceList=$apart/sources" -o "Dir::Etc::SourceParts=-"
    -o "Dir::State::Lists=$apart/lists" -o "Dir::Cache=$apart" -o APT::Sandbox::User=root)
  (cd "$apart" && apt-get "${from[@]}" update -qq && apt-get "${from[@]}" download -qq cosign &&
    dpkg-deb -x cosign_*.deb cosign && install cosign/usr/bin/cosign /usr/local/bin/) \
    >/dev/null 2>&1 || echo "could not install: cosign; its tests are skipped"
  rm -rf "$apart"
fi

# Only a CPU build that the machine's own package sources offer: the default one pulls gigabytes.
# What torch needs beside itself is in requirements.lock already.
if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    'torch>=2.5' >/dev/null 2>&1 ||
    echo "no CPU build of torch at hand; its tests are skipped"
fi
exit 0
