#!/usr/bin/env bash
# A cluster on this machine, a Docker host in it, the operator, and a stack that it keeps there. May be run again, with
# another revision, too: up.sh [REVISION]
set -euo pipefail

cluster=tasktracker-try
namespace=tasktracker-try
registry=registry.example.com/tasktracker
revision=${1:-try}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
images=${CARGO_TARGET_DIR:-target}/images

step() { printf '==> %s\n' "$*"; }
kube() { kubectl --context "kind-$cluster" --namespace "$namespace" "$@"; }
on_host() { kube exec --stdin deployment/docker-host --container host -- "$@"; }

for program in docker kind kubectl helm cargo ssh-keygen sha256sum; do
  command -v "$program" >/dev/null || { echo "up.sh: expected the program $program, found none" >&2; exit 1; }
done

step "the cluster"
if ! kind get clusters | grep -x "$cluster" >/dev/null; then
  kind create cluster --config "$here/cluster.yaml" --wait 3m
fi

step "the images"
cargo xtask images --revision "$revision"
docker build --tag "$registry/docker-host:try" "$here"
kind load docker-image --name "$cluster" "$registry/docker-host:try"
kind load image-archive --name "$cluster" "$images/operator-$revision.tar"

step "the key pair"
kube create namespace "$namespace" --dry-run=client --output yaml | kube apply --filename -
if [ -z "$(kube get secret try-ssh --ignore-not-found --output name)" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  ssh-keygen -q -t ed25519 -N '' -C "$cluster" -f "$scratch/key"
  kube create configmap docker-host-users --from-file=authorized_keys="$scratch/key.pub" --dry-run=client --output yaml |
    kube apply --filename -
  # Last: where it is there, so is the other half.
  kube create secret generic try-ssh --type=kubernetes.io/ssh-auth --from-file=ssh-privatekey="$scratch/key"
fi

step "the operator"
# The tag may stay the same where the image does not: the pod is made anew by its annotation.
sum=$(sha256sum "$images/operator-$revision.tar")
helm upgrade --install tasktracker-operator charts/tasktracker-operator --kube-context "kind-$cluster" \
  --namespace tasktracker-system --create-namespace --wait --timeout 5m \
  --set image.repository="$registry/operator" --set-string image.tag="$revision" --set image.pullPolicy=Never \
  --set-string podAnnotations.archive="${sum%% *}"

step "the Docker host"
kube apply --filename "$here/host.yaml"
kube rollout status deployment/docker-host --timeout 5m
for archive in "backend-$revision" "frontend-$revision" caddy; do
  on_host docker load --quiet <"$images/$archive.tar"
done
read -r kind_of_key host_key _ <<<"$(on_host cat /etc/ssh/keys/ssh_host_ed25519_key.pub </dev/null)"
[ -n "$host_key" ] || { echo "up.sh: expected a host key, found none" >&2; exit 1; }

step "the stack"
sed -e "s|HOST_KEY|$kind_of_key $host_key|" -e "s|REVISION|$revision|" "$here/stack.yaml" | kube apply --filename -
kube wait --for=condition=Ready tasktrackerstack/try --timeout 5m
kube get tasktrackerstacks --output wide
