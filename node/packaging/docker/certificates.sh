#!/bin/sh
# For compose.yaml: what the nodes that are named, and a client, know each other by. Whatever is there already stays.
# /authority is seen by this alone; each node sees /keys/NAME and the client /keys/client.
set -eu

[ -e /authority/ca.key ] || driftless cert ca --cluster shop --out /authority
seeds=
for node in "$@"; do
    [ -e "/keys/$node/$node.key" ] || driftless cert node "$node" --authority /authority --out "/keys/$node"
    cp /authority/ca.pem /authority/context.key "/keys/$node/"
    # Root's, and for the group that nodes run in.
    chown 0:10001 "/keys/$node/$node.key" "/keys/$node/context.key"
    chmod 0440 "/keys/$node/$node.key" "/keys/$node/context.key"
    seeds="$seeds\"$node:7400\", "
done
[ -e /keys/client/client.key ] || driftless cert client client --role operator --authority /authority --out /keys/client
cp /authority/ca.pem /keys/client/
chown 0:10001 /keys/client/client.key
chmod 0440 /keys/client/client.key
cat >/keys/client/config.toml <<END
[profile.default]
seeds = [${seeds%, }]
ca = "ca.pem"
cert = "client.pem"
key = "client.key"
END
