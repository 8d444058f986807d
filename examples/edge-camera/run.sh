#!/usr/bin/env bash
# Three cameras that read digits, each on a host of its own (a network namespace). A better version
# comes while one is cut off, one has a full disk, and one hangs on a slow line.
source "$(dirname "$0")/../common.sh"
PATH=$PATH:/usr/sbin:/sbin

for tool in ip iptables tc mosquitto mount; do
  command -v "$tool" >/dev/null || missing="${missing-} $tool"
done
if [ "$(id -u)" != 0 ] || [ -n "${missing-}" ] || ! ip netns add "probe$$" 2>/dev/null; then
  echo "edge-camera makes hosts of network namespaces: it needs root, and ip, iptables, tc, mount and"
  echo "mosquitto (missing here:${missing- none}). Nothing was run. 'fieldpost fleet demo' shows a fleet without."
  exit 0
fi
ip netns del "probe$$"

cameras=(yard hall gate)
net=10.$((64 + $$ / 254 % 64)).$(($$ % 254 + 1))
me=$net.1 port=8700 bridge=ec$$b
processes=()
end() {
  kill "${processes[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  for number in 2 3 4; do ip link del "ec$$p$number" 2>/dev/null || true; done
  for name in "${cameras[@]}"; do
    ip netns del "ec$$$name" 2>/dev/null || true
    umount "$work/$name" 2>/dev/null || true
  done
  ip link del "$bridge" 2>/dev/null || true
  finish
}
trap end EXIT
value() { python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
inside() { ip netns exec "ec$$$1" "${@:2}"; }

# -- the hosts: one bridge, three cables, and a disk of their own for each
ip link add "$bridge" type bridge
ip addr add "$me/24" dev "$bridge"
ip link set "$bridge" up
number=1
for name in "${cameras[@]}"; do
  number=$((number + 1))
  declare "address_$name=$net.$number"
  ip netns add "ec$$$name"
  ip link add "ec$$p$number" type veth peer name "ec$$i$number"
  ip link set "ec$$i$number" netns "ec$$$name" name eth0
  ip link set "ec$$p$number" master "$bridge" up
  ip -n "ec$$$name" addr add "$net.$number/24" dev eth0
  ip -n "ec$$$name" link set eth0 up
  ip -n "ec$$$name" link set lo up
  mkdir "$work/$name"
  mount -t tmpfs -o size=400m tmpfs "$work/$name"
done

# -- two versions, their packages, and who may run them
python train.py "$work"
fieldpost model register digits "$work/first.skops"
first=$(fieldpost package build digits --json | value digest)
fieldpost model register digits "$work/second.skops" --trust-type sklearn.tree._tree.Tree --trust-type numpy.dtype
second=$(fieldpost package build digits --json | value digest)
fieldpost fleet trust init --keys "$work/offline"
for package in "$first" "$second"; do
  fieldpost fleet trust sign "$package" --name digits --key "$work/offline/targets.pem"
done

# -- broker and controller
fieldpost fleet broker-config "$work/broker" --host "$me" --port 18883 --address "$me" --user root
mosquitto -c "$work/broker/mosquitto.conf" >"$work/broker.log" 2>&1 & processes+=($!)
fieldpost fleet controller --broker "mqtts://$me:18883" --listen "$me:8470" --host "$me" --json \
  >"$work/controller.json" 2>"$work/controller.log" & processes+=($!)
until [ -s "$work/controller.json" ]; do kill -0 "${processes[-1]}"; sleep 0.1; done

# -- the cameras join, and their agents begin
for name in "${cameras[@]}"; do
  fieldpost device claim "$name" --site farm --json | value token |
    inside "$name" fieldpost-agent join --url "https://$me:8470" --token-file - --state "$work/$name/agent"
  printf 'host = "0.0.0.0"\nkeepalive_s = 5\n' >"$work/$name/agent/agent.toml"
  inside "$name" fieldpost-agent run --state "$work/$name/agent" >"$work/$name.log" 2>&1 & processes+=($!)
done
online() { fieldpost device list --json | grep -c '"online": true' || true; }
until [ "$(online)" = 3 ]; do sleep 0.2; done

deploy() {
  fieldpost fleet deploy digits --package "$1" --where '*' --port $port --soak 2s --timeout 3m "${@:2}"
}
# What a camera answers about 300 pictures; one that is cut off is asked by whoever stands beside it.
look() { inside "$1" fieldpost score "http://127.0.0.1:$port" -d "$work/images.json" >"$work/$1-$2.json"; }

echo; echo "== the first version, one camera first"
deploy "$first" --waves 1,100% --watch
for name in "${cameras[@]}"; do look "$name" before; done

echo; echo "== the yard is cut off, the hall's disk is filled, the gate's line is slow; a better version"
inside yard iptables -A INPUT -i eth0 -j DROP
inside yard iptables -A OUTPUT -o eth0 -j DROP
free=$(df --output=avail -m "$work/hall" | tail -1)
dd if=/dev/zero of="$work/hall/recordings" bs=1M count=$((free - 8)) status=none
tc qdisc add dev "ec$$p4" root tbf rate 2mbit burst 16kb latency 400ms
until [ "$(online)" = 2 ]; do sleep 0.2; done
deploy "$second" --waves 100% --failures 1 --offline wait --phase-timeout 15s --watch
for name in "${cameras[@]}"; do look "$name" during; done

echo; echo "== the yard is back"
inside yard iptables -F INPUT
inside yard iptables -F OUTPUT
settled() {
  fieldpost rollout show digits --json | python -c '
import json, sys
sys.exit({d["device"]: d["state"] for d in json.load(sys.stdin)["devices"]} !=
         {"gate": "good", "hall": "failed", "yard": "good"})'
}
for _ in $(seq 120); do settled && break; sleep 1; done
settled
for name in "${cameras[@]}"; do look "$name" after; done

fieldpost rollout show digits --json >"$work/rollout.json"
python - "$work" <<'PY'
import json, sys
read = lambda name: json.load(open(f"{sys.argv[1]}/{name}.json"))
wanted, first, second = read("labels"), read("first"), read("second")
def right(name):
    found = [row["label"] if isinstance(row, dict) else row for row in read(name)["predictions"]]
    return sum(a == b for a, b in zip(found, wanted, strict=True))
what = {"yard": "cut off", "hall": "disk full", "gate": "slow line"}
expected = {"yard": (first, first, second), "hall": (first,) * 3, "gate": (first, second, second)}
rows = {one["device"]: one for one in read("rollout")["devices"]}
print(f"{'camera':8}{'trouble':11}{'before':>8}{'during':>8}{'after':>8}  {'ended':8}why")
for name in what:
    seen = tuple(right(f"{name}-{when}") for when in ("before", "during", "after"))
    row = rows[name]
    print(f"{name:8}{what[name]:11}{seen[0]:8}{seen[1]:8}{seen[2]:8}  {row['state']:8}{row['note'][:60]}")
    assert seen == expected[name], f"{name} answered with other versions: {expected[name]}"
assert rows["hall"]["note"], "the hall does not say why"
print("Each camera answered all the time, and ended right.")
PY
