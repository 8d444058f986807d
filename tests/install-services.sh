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

# Only a CPU build that the machine's own package sources offer: the default one pulls gigabytes.
# What torch needs beside itself is in requirements.lock already.
if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    'torch>=2.5' >/dev/null 2>&1 ||
    echo "no CPU build of torch at hand; its tests are skipped"
fi
exit 0
